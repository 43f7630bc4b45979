"""make demo as somebody sees it who has just cloned the tree: three members come up, what is printed works, and the end leaves nothing."""
import os
import random
import re
import signal
import socket
import subprocess

from util import Process, alive, as_pg_user, pg_bin, program, wait_until

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../conf/demo.sh")


def free_row(count):
    """This many free ports in a row, out of the range of free_port()."""
    while True:
        first = random.randrange(6000, 9900)
        try:
            for port in range(first, first + count):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def test_demo(work):
    first = free_row(8)
    env = dict(os.environ, DEMO_DIR=work + "/demo", DEMO_BIN=os.path.dirname(program("pgregent")), DEMO_ETCD_PORT=str(first),
               DEMO_REST_PORT=str(first + 2), DEMO_PG_PORT=str(first + 5))
    demo = Process(["bash", DEMO], work + "/demo.log", env=env, cwd="/", **as_pg_user())
    pids = []
    try:
        wait_until(lambda: "Ctrl-C stops all." in demo.text() or demo.proc.poll() is not None, 120, "the demo is up")
        text = demo.text()
        tables = text.split("+ Cluster: demo (")[1:]
        # The list was shown while they came up, and the last one is complete.
        assert len(tables) > 1 and tables[-1].count("| streaming |") == 2 and tables[-1].count("| Leader  | running ") == 1
        uri = re.search(r"psql '(postgresql://\S+)'", text).group(1)
        assert uri.count("127.0.0.1") == 3 and uri.endswith("target_session_attrs=read-write")
        r = subprocess.run([pg_bin("psql"), "-XAtqc", "SELECT pg_is_in_recovery()", uri], stdout=subprocess.PIPE, timeout=10)
        assert r.stdout == b"f\n"
        supervisors = dict(re.findall(r"(pgregent[012])=([0-9]+)", text))
        etcd = re.search(r"etcd: ([0-9]+)", text).group(1)
        breaks = {int(pid) for pid in re.findall(r"kill -(?:9|STOP) ([0-9]+)", text)}
        pids = [int(pid) for pid in supervisors.values()] + [int(etcd)]
        assert len(supervisors) == 3 and len(breaks) == 4 and all(map(alive, breaks | set(pids)))
        assert all(os.path.getsize("%s/demo/%s.log" % (work, n)) for n in ("etcd", "pgregent0", "pgregent1", "pgregent2"))
        # A supervisor that is killed is started again, as an init system would.
        leader = re.search(r"\((pgregent[012]) leads", text).group(1)
        postmaster = int(re.search(r"kill -9 ([0-9]+) +its PostgreSQL", text).group(1))
        os.kill(int(supervisors[leader]), signal.SIGKILL)
        again = wait_until(lambda: re.search(r"and was started again \(pid ([0-9]+)\)", demo.text()), 20, "the supervisor is started again")
        pids.append(int(again.group(1)))
        conf = "%s/demo/%s.yml" % (work, leader)
        wait_until(lambda: b"| Leader  | running " in subprocess.run([program("pgregentctl"), "-c", conf, "list"],
                                                                      stdout=subprocess.PIPE, timeout=20).stdout, 20, "it leads")
        assert alive(postmaster)
        pids.append(postmaster)
    finally:
        demo.signal(signal.SIGTERM)
        try:
            code = demo.wait(80)
        finally:
            demo.kill()
    assert code == 0 and "stopped; logs: " in demo.text()
    assert [pid for pid in pids if alive(pid)] == []
