#!/usr/bin/python3
"""A cluster at ttl 5 under pgbench with every processor busy, for an hour: no failover, no fence, no restart of PostgreSQL.

usage: soak.py [--minutes N] [--clients N] [--build DIR]         (default 60 minutes, 16 clients, build/release)
As root it turns into the PostgreSQL user. Exit status 1 and what happened when something did."""
import argparse
import glob
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
# What a log must not say in a quiet hour.
ALARMS = re.compile(r"FENCE|demot|promoted self|woke late|is replaced|killed pid|CRITICAL|silent")


def become_postgres():
    if os.geteuid() != 0:
        return
    u = pwd.getpwnam("postgres")
    os.initgroups("postgres", u.pw_gid)
    os.setgid(u.pw_gid)
    os.setuid(u.pw_uid)


def leader_key(c):
    """Who holds it, and since which revision: a key that was lost and taken again has another one."""
    text = c.etcd.ctl("get", "/service/it/leader", "-w", "json")
    kvs = json.loads(text).get("kvs") if text else None
    return kvs and (kvs[0]["create_revision"], kvs[0]["lease"])


def facts(c, n0):
    return {"leader key": leader_key(c), "start of PostgreSQL": n0.try_sql("SELECT pg_postmaster_start_time()::text"),
            "timeline": n0.try_sql("SELECT timeline_id FROM pg_control_checkpoint()")}


def alarms(c, since):
    found = []
    for m in c.members:
        with open(m.log, errors="replace") as f:
            f.seek(since[m.name])
            found += ["%s: %s" % (m.name, line.strip()) for line in f if ALARMS.search(line)]
    return found


def soak(c, minutes, clients):
    n0 = c.leader()
    bench = ["-h", "127.0.0.1", "-p", str(n0.pg), "-U", "postgres", "postgres"]
    subprocess.run([util.pg_bin("pgbench"), "-i", "-q", "-s", "20"] + bench, check=True, stderr=subprocess.DEVNULL)
    before, since = facts(c, n0), {m.name: os.path.getsize(m.log) for m in c.members}
    load = [subprocess.Popen([util.pg_bin("pgbench"), "-c", str(clients), "-j", "2", "-T", str(minutes * 60), "-P", "60"] + bench,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)]
    # pgbench waits for its commits; these wait for nothing.
    load += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    end, bad, looks = time.monotonic() + minutes * 60, [], 0
    try:
        while time.monotonic() < end and not bad and load[0].poll() is None:
            time.sleep(1)  # a look each second, not a wait for something
            now, looks = facts(c, n0), looks + 1
            bad = ["%s was %s and is %s" % (k, before[k], now[k]) for k in before if now[k] != before[k] and now[k] is not None]
        tail = load[0].communicate(timeout=60)[0].decode().splitlines() if not bad else []
    finally:
        for p in load:
            p.kill()
            p.wait()
    bad += alarms(c, since)
    print("\n".join(line for line in tail if re.match(r"(tps|latency average|number of (transactions|failed))", line)))
    print("%d looks in %d minutes, load average %s, leader %s" % (looks, minutes, open("/proc/loadavg").read().split()[0], n0.name))
    return bad


def main():
    global util
    p = argparse.ArgumentParser()
    p.add_argument("--minutes", type=int, default=60)
    p.add_argument("--clients", type=int, default=16)
    p.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    a = p.parse_args()
    os.environ["PGREGENT_BUILD"] = a.build
    become_postgres()
    # Also where a shell has set it to be ignored: what was started is stopped again.
    for n in (signal.SIGTERM, signal.SIGINT):
        signal.signal(n, lambda *_: sys.exit(130))
    base = tempfile.mkdtemp(prefix="pgregent-soak.", dir="/tmp")
    os.environ["HOME"] = base
    import util
    from cluster import Cluster
    c = Cluster(base, ttl=5, loop_wait=1, retry_timeout=2)
    try:
        c.start()
        bad = soak(c, a.minutes, a.clients)
    finally:
        c.stop()
    print("\n".join(bad) if bad else "nothing happened, as it should")
    print("logs: " + " ".join(sorted(glob.glob(base + "/*.log"))))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
