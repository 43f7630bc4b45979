#!/usr/bin/python3
"""The figures of a whole cluster (DESIGN 8), measured on three real members and a real store on loopback, as a table.

usage: cluster_bench.py [--runs N] [--only WORD] [--build DIR]          (default 5 runs, build/release)
Each row stands beside its bound and, where there is one, beside the same thing done by hand in the same run. Must not run as
root (PostgreSQL refuses); as root it turns into the PostgreSQL user by itself."""
import argparse
import base64
import json
import os
import pwd
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
HELPERS = ("worker", "files", "api", "deadman")
CALM_S = 11  # a helper that ran that long is started again at once; one that dies again and again is waited with
ROWS = []


def row(what, bound, values, unit="ms", floor=None, digits=1):
    values = sorted(values)
    text = ["%.*f" % (digits, v) for v in (values[0], statistics.median(values), values[-1])]
    line = (what, bound, " / ".join(text) + " " + unit, floor or "", str(len(values)))
    ROWS.append(line)
    print("%-62s %-28s %-34s %-30s n=%s" % line, flush=True)


class Mark:
    """What a member's log says from now on, with its own times."""

    def __init__(self, member):
        self.path, self.at, self.wall = member.log, os.path.getsize(member.log), time.time()

    def find(self, text):
        with open(self.path, errors="replace") as f:
            f.seek(self.at)
            for line in f:
                m = re.match(r"(\d+-\d+-\d+ \d+:\d+:\d+),(\d+) ", line)
                if m and text in line:
                    at = time.mktime(time.strptime(m.group(1), "%Y-%m-%d %H:%M:%S")) + int(m.group(2)) / 1000
                    return (at - self.wall) * 1000
        return None

    def wait(self, text, bound=30):
        return wait_until(lambda: self.find(text), bound, text)


def acked(probe, n=30):
    have = sum(map(len, probe.acks.values()))
    wait_until(lambda: sum(map(len, probe.acks.values())) >= have + n, 30, "writers write")


def gap_after(probe, t0):
    """The longest time without an acknowledgement that begins around t0 (ms)."""
    times = sorted(got for a in probe.acks.values() for _, got, _, _ in a)
    return max((b - a for a, b in zip(times, times[1:]) if b > t0), default=0) * 1000


def settled(c):
    leader = c.wait_leader(40)
    for m in c.others(leader):
        wait_until(m.streams_from_somebody, 60, m.name + " streams")
    return leader


# ---- rows ----

def switchover(base, runs):
    with running(base, ttl=20, loop_wait=2, retry_timeout=3) as c:
        gaps, hand = [], by_hand(base, runs)
        for _ in range(runs):
            old = settled(c)
            target = c.others(old)[0].name
            with WriteProbe(c) as probe:
                acked(probe)
                t0 = time.monotonic()
                code, text = old.status("/switchover", "POST", {"leader": old.name, "candidate": target}, 60)
                assert code == 200, text
                acked(probe)
            gaps.append(gap_after(probe, t0))
    row("planned switchover, outage of a writer", "1.3 x by hand", gaps, floor="by hand %.0f / %.0f / %.0f ms" % (
        min(hand), statistics.median(hand), max(hand)))


def by_hand(base, runs):
    """The bare script on two servers: checkpoint, fast stop, promote; the outage until a write is acknowledged again."""
    gaps = []
    for i in range(runs):
        a, b = os.path.join(base, "ha%d" % i), os.path.join(base, "hb%d" % i)
        pa, pb = util.free_port(), util.free_port()

        def ctl(*args):
            subprocess.run([util.pg_bin("pg_ctl"), *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def opts(port):
            return "-p %d -c unix_socket_directories='' -c listen_addresses=127.0.0.1 -c wal_retrieve_retry_interval=100ms" % port
        subprocess.run([util.pg_bin("initdb"), "-D", a, "-U", "postgres", "-A", "trust"], check=True, stdout=subprocess.DEVNULL)
        ctl("-D", a, "-w", "-l", a + ".log", "-o", opts(pa), "start")
        subprocess.run([util.pg_bin("pg_basebackup"), "-D", b, "-R", "-c", "fast", "-h", "127.0.0.1", "-p", str(pa), "-U", "postgres"],
                       check=True, stderr=subprocess.DEVNULL)
        ctl("-D", b, "-w", "-l", b + ".log", "-o", opts(pb), "start")
        conn = psycopg2.connect(host="127.0.0.1", port=pa, user="postgres", dbname="postgres")
        conn.autocommit = True
        conn.cursor().execute("CHECKPOINT")
        sb = psycopg2.connect(host="127.0.0.1", port=pb, user="postgres", dbname="postgres")
        sb.autocommit = True
        cur = sb.cursor()
        conn.close()
        t0 = time.monotonic()
        ctl("-D", a, "-m", "fast", "-w", "stop")
        cur.execute("SELECT pg_promote()")
        cur.execute("CREATE TABLE t()")
        gaps.append((time.monotonic() - t0) * 1000)
        sb.close()
        ctl("-D", b, "-m", "immediate", "-w", "stop")
    return gaps


def processes(base, runs):
    with running(base, ttl=20, loop_wait=2, retry_timeout=3) as c:
        n0 = settled(c)
        started = n0.sql("SELECT pg_postmaster_start_time()")
        killed, stopped, api, decided, gaps = [], [], [], [], []
        for _ in range(runs):
            for sig, to in ((signal.SIGKILL, killed), (signal.SIGSTOP, stopped)):
                time.sleep(CALM_S)
                wait_until(lambda: n0.helper("worker"), 10, "a worker")
                m = Mark(n0)
                os.kill(n0.helper("worker"), sig)
                to.append(m.wait("lease held"))
            t0 = time.monotonic()
            os.kill(n0.helper("api"), signal.SIGKILL)
            wait_until(lambda: n0.status("/primary", timeout=1)[0] == 200, 5, "api", every=0.001)
            api.append((time.monotonic() - t0) * 1000)
        assert n0.sql("SELECT pg_postmaster_start_time()") == started and c.leader() is n0
        row("worker killed: lease renewed by its successor", "300 ms", killed)
        row("worker stopped: lease renewed by its successor (ttl 20)", "ttl/6 + 300 = 3633 ms", stopped)
        row("api killed: health checks answer again", "100 ms", api)
        for _ in range(runs):
            with WriteProbe(c) as probe:
                acked(probe)
                m, t0 = Mark(n0), time.monotonic()
                os.kill(n0.postmaster(), signal.SIGKILL)
                acked(probe)
                ended = m.wait("PostgreSQL ended")
                decided.append(m.wait("starting primary after failure") - ended)
            gaps.append(gap_after(probe, t0))
        row("watch event to the decision", "10 ms", [watch_event(c, n0) for _ in range(runs)])
        row("postmaster's exit to the decision", "10 ms", decided)
        row("postmaster killed: writes again", "crash recovery + 200 ms", gaps)
        hang(n0)


def watch_event(c, n0):
    """From the store's answer to a write by somebody else until what was decided on it is in the log, whose times are in ms."""
    def put(config):
        def b64(text):
            return base64.b64encode(text.encode()).decode()
        body = json.dumps({"key": b64("/service/it/config"), "value": b64(json.dumps(config))})
        urllib.request.urlopen(urllib.request.Request("http://%s/v3/kv/put" % c.etcd.url, body.encode()), timeout=5).read()
    config = c.etcd.json("config")
    m = Mark(n0)
    put(dict(config, pause=True))
    answered = (time.time() - m.wall) * 1000
    took = max(m.wait("PAUSE: ") - answered, 0)
    m = Mark(n0)
    put(config)
    m.wait("cluster management is resumed")
    time.sleep(2.5)  # the same line is not written twice in a loop_wait
    return took


def hang(n0):
    pm = n0.postmaster()
    everything = [pm] + sorted(util.descendants(pm))
    for p in everything:
        os.kill(p, signal.SIGSTOP)
    try:
        for path in ("/primary", "/health"):
            took, codes = [], set()
            for _ in range(300):
                t0 = time.monotonic()
                codes.add(n0.status(path, timeout=5)[0])
                took.append((time.monotonic() - t0) * 1000)
            took.sort()
            row("GET %s while PostgreSQL hangs, p50 / p99 / max (status %s)" % (path, sorted(codes)), "p99 5 ms",
                [took[len(took) // 2], took[int(len(took) * 0.99)], took[-1]])
    finally:
        for p in everything:
            os.kill(p, signal.SIGCONT)


def at_rest(base, runs):
    """Default timings; memory, CPU, requests of the store, list, a new replica, the store away."""
    with running(base, n=3, start=1, ttl=30, loop_wait=10, retry_timeout=10) as c:
        n0, n1, n2 = c.members
        alone = requests_at_rest(c, n0)
        m, t0 = Mark(n0), time.monotonic()
        n1.start()
        wait_until(n1.streams_from_somebody, 60, "n1 streams", every=0.005)
        total = (time.monotonic() - t0) * 1000
        own = Mark(n1)
        own.at = own.wall = 0
        copy = own.find("job ended name=pg_basebackup") - own.find("job started name=pg_basebackup")
        row("a replica started empty streams", "pg_basebackup + 300 ms", [total], floor="pg_basebackup %.0f ms" % copy)
        still(n0)
        cpu0, t0 = cpu(n0), time.monotonic()
        both = requests(c, 60)
        spent = (cpu(n0) - cpu0) * 60 / (time.monotonic() - t0)
        both = min(both, requests_at_rest(c, n0))
        n2.start()
        wait_until(n2.streams_from_somebody, 60, "n2 streams")
        still(n0)
        row("CPU of the leader's processes at rest", "12 ms a minute", [spent])
        row("requests of the leader at rest", "14 a minute", [alone], unit="")
        row("requests of a replica at rest", "6 a minute", [both - alone], unit="")
        memory((n0, n1), "", "8 MiB")
        listing(n0, max(runs, 20))
        store_lost(c, n0, "8 s (ttl 30)")
    with running(base, n=2, ttl=20, loop_wait=10, retry_timeout=5) as c:
        store_lost(c, c.leader(), "5 s (ttl 20)")


def store_lost(c, n0, bound):
    with WriteProbe(c) as probe:
        acked(probe)
        left = lease_left(c)
        t0 = time.monotonic()
        os.kill(c.etcd.proc.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: n0.try_sql("SELECT pg_is_in_recovery()") != [(False,)], 60, "no primary")
        finally:
            last = max(got for a in probe.acks.values() for _, got, _, _ in a)
            os.kill(c.etcd.proc.pid, signal.SIGCONT)
    row("store lost: no writable member although the lease holds", bound, [left - (last - t0)], unit="s")


def memory(members, what, bound):
    for m, who in zip(members, ("leader", "replica")):
        sizes = [pss(p) for p in pids(m)]
        row("memory of all processes%s, %s: PSS, private dirty" % (what, who), bound, [sum(s[0] for s in sizes) / 1024],
            unit="MiB", floor="private dirty %.1f MiB" % (sum(s[1] for s in sizes) / 1024), digits=2)


def with_tls(base, runs):
    """Client certificates between all: agents and store, agents and whoever asks them."""
    from cluster import Member
    from test_etcd3_secured import SecuredEtcd

    class Secured(Member):
        def __init__(self, cluster, name, **more):
            super().__init__(cluster, name, **more)
            p = cluster.etcd.pem
            with open(self.yml) as f:
                text = f.read()
            text = text.replace("restapi:\n", "restapi:\n  certfile: %s\n  keyfile: %s\n  cafile: %s\n  verify_client: required\n" % (
                p["s.pem"], p["s.key"], p["ca.pem"]), 1)
            with open(self.yml, "w") as f:
                f.write(text + "ctl:\n  certfile: %s\n  keyfile: %s\n" % (p["c.pem"], p["c.key"]))
    base = tempfile.mkdtemp(dir=base)
    c = Cluster(base, n=3, etcd=SecuredEtcd(base), member=Secured, ttl=30, loop_wait=10, retry_timeout=10)
    try:
        c.start()
        for _ in range(20):
            out = subprocess.run([util.program("pgregentctl"), "-c", c.members[0].yml, "version", "it"], stdout=subprocess.PIPE, check=True)
            assert out.stdout.count(b" PostgreSQL ") == 3
        still(c.members[0])
        memory(c.members, ", TLS", "12 MiB")
    finally:
        c.stop()


def position_of(m):
    return m.sql("SELECT pg_current_wal_insert_lsn()")[0][0]


def requests_at_rest(c, m):
    """A minute in which no WAL is written: a new position is told to the store."""
    for _ in range(5):
        still(m)
        at, n = position_of(m), requests(c, 60)
        if position_of(m) == at:
            return n
    raise AssertionError("the WAL position does not come to rest")


def still(m):
    """Nothing is written any more: what the start left to do is done, a checkpoint too."""
    def position():
        return position_of(m)
    m.sql("CHECKPOINT")
    at, since, end = position(), time.monotonic(), time.monotonic() + 300
    while time.monotonic() - since < 45:
        assert time.monotonic() < end, "the WAL position does not come to rest"
        time.sleep(5)
        if position() != at:
            at, since = position(), time.monotonic()


def lease_left(c):
    """Seconds that the leader's lease still has by the store's count, which is in whole ones: taken as one begins."""
    lease = json.loads(c.etcd.ctl("get", "/service/it/leader", "-w", "json"))["kvs"][0]["lease"]

    def left():
        return json.loads(c.etcd.ctl("lease", "timetolive", "%x" % lease, "-w", "json"))["ttl"]
    was, end = left(), time.monotonic() + 10
    while time.monotonic() < end:
        now = left()
        if 0 <= now < was:
            return now + 1
        was = now
    raise AssertionError("the leader's lease does not run down")


def listing(n0, runs):
    took, size = [], 0
    for _ in range(runs):
        t0 = time.monotonic()
        p = subprocess.Popen([util.program("pgregentctl"), "-c", n0.yml, "list"], stdout=subprocess.DEVNULL)
        assert p.wait() == 0
        took.append((time.monotonic() - t0) * 1000)
    # Its own peak, not that of the process that forked it.
    peak = subprocess.run([util.program("tests/integration/peakrss"), util.program("pgregentctl"), "-c", n0.yml, "list"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    size = int(peak.stderr.split()[-1])
    row("pgregentctl list", "20 ms, 10 MiB", took, floor="peak %.1f MiB" % (size / 1024))


def requests(c, seconds):
    def total():
        with urllib.request.urlopen("http://%s/metrics" % c.etcd.url, timeout=5) as r:
            text = r.read().decode()
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("grpc_server_started_total"))
    before, t0 = total(), time.monotonic()
    time.sleep(seconds)
    return (total() - before) * 60 / (time.monotonic() - t0)


def pids(m):
    return [m.proc.pid] + [p for p in (m.helper(h) for h in HELPERS) if p]


def cpu(m):
    total = 0
    for p in pids(m):
        with open("/proc/%d/schedstat" % p) as f:
            total += int(f.read().split()[0]) / 1e6
    return total


def pss(pid):
    values = {}
    with open("/proc/%d/smaps_rollup" % pid) as f:
        for line in f:
            word = line.split()
            if len(word) == 3 and word[2] == "kB":
                values[word[0]] = values.get(word[0], 0) + int(word[1])
    return values["Pss:"], values["Private_Dirty:"]


def node_loss(base, runs):
    # loop_wait 2: the longest that ttl 5 allows beside retry_timeout 1. A lease that is renewed more often than every
    # third of the ttl ends later.
    with running(base, ttl=5, loop_wait=2, retry_timeout=1) as c:
        gaps = []
        for _ in range(runs):
            old = settled(c)
            with WriteProbe(c) as probe:
                acked(probe)
                t0 = time.monotonic()
                old.kill_all()
                old.proc.wait(5)
                c.wait_leader(40, but=old)
                acked(probe)
            assert probe.overlaps() == []
            gaps.append(gap_after(probe, t0) / 1000)
            old.start()
    row("node loss at ttl 5: write gap", "p50 5 s, p99 6.5 s", gaps, unit="s", digits=2)


class running:
    def __init__(self, base, n=3, start=None, **dcs):
        self.base, self.n, self.start, self.dcs = tempfile.mkdtemp(dir=base), n, start, dcs

    def __enter__(self):
        self.c = Cluster(self.base, n=self.n, **self.dcs)
        try:
            if self.start == 1:
                n0 = self.c.members[0]
                n0.start()
                wait_until(lambda: self.c.etcd.get("leader") == "n0" and n0.is_primary(), 60, "n0 leads")
            else:
                self.c.start()
            self.c.leader().sql("CREATE TABLE probe(v bigint, who text)")
        except BaseException:
            self.c.stop()
            raise
        return self.c

    def __exit__(self, *exc):
        self.c.stop()


GROUPS = {"switchover": switchover, "processes": processes, "rest": at_rest, "tls": with_tls, "loss": node_loss}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--only", choices=sorted(GROUPS))
    p.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    a = p.parse_args()
    os.environ["PGREGENT_BUILD"] = a.build
    os.environ["TZ"] = "UTC"
    time.tzset()
    if os.geteuid() == 0:
        u = pwd.getpwnam("postgres")
        base = tempfile.mkdtemp(prefix="pgregent-bench.", dir="/tmp")
        os.chown(base, u.pw_uid, u.pw_gid)
        os.initgroups("postgres", u.pw_gid)
        os.setgid(u.pw_gid)
        os.setuid(u.pw_uid)
        os.environ["HOME"] = base
    else:
        base = tempfile.mkdtemp(prefix="pgregent-bench.", dir="/tmp")
    global util, psycopg2, Cluster, WriteProbe, wait_until
    import psycopg2
    import util
    from cluster import Cluster, WriteProbe
    from util import wait_until
    print("%-62s %-28s %-34s %s" % ("what", "bound", "least / median / most", "by hand, beside it"))
    for name, group in GROUPS.items():
        if a.only in (None, name):
            group(base, a.runs)
    print("host %s, %d processors, %s, logs in %s" % (socket.gethostname(), os.cpu_count(),
                                                     subprocess.run([util.pg_bin("postgres"), "--version"], stdout=subprocess.PIPE,
                                                                    check=True).stdout.decode().strip(), base))


if __name__ == "__main__":
    main()
