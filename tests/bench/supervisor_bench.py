#!/usr/bin/env python3
"""What supervisor and dead-man cost when nothing happens, and how soon a helper that was killed is there again.

usage: supervisor_bench.py [--runs N] [--idle SECONDS] [--build DIR]    (default 3 runs, 60 s, build/release)
The test worker stands in the worker's place: its own start is a fraction of the real one's, so that the figures are the
supervisor's. Run it as root to see real-time scheduling as well."""
import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
import util  # noqa: E402


def cpu_ms(pid):
    with open(f"/proc/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e6


def memory_kib(pid):
    values = {}
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            word = line.split()
            if len(word) == 3 and word[2] == "kB":
                values[word[0]] = values.get(word[0], 0) + int(word[1])
    return values["Pss:"], values["Private_Dirty:"]


def wakeups(pid):
    with open(f"/proc/{pid}/status") as f:
        return sum(int(x.split()[1]) for x in f if x.startswith("voluntary_ctxt"))


def poll_until(cond, bound=10):
    """As util.wait_until, without a sleep that would be measured; returns the moment."""
    end = time.monotonic() + bound
    while time.monotonic() < end:
        if cond():
            return time.monotonic()
        time.sleep(0.0002)
    raise AssertionError("not in time")


def idle(sup, seconds):
    st = sup.wait_status(deadman_acked=1)
    print(f"{'at rest, ttl 30 s':<22}  {'CPU ms/min':>10}  {'wake-ups/min':>12}  {'PSS KiB':>8}  {'private dirty KiB':>17}")
    before = {r: (cpu_ms(st[r]), wakeups(st[r])) for r in ("pid", "deadman")}
    time.sleep(seconds)
    for role, name in (("pid", "supervisor"), ("deadman", "dead-man")):
        cpu, wakes = cpu_ms(st[role]) - before[role][0], wakeups(st[role]) - before[role][1]
        pss, dirty = memory_kib(st[role])
        print(f"{name:<22}  {cpu * 60 / seconds:>10.2f}  {wakes * 60 / seconds:>12.0f}  {pss:>8}  {dirty:>17}", flush=True)


def killed_worker(sup, lease_log):
    """Until its successor has sent for the lease again, by the store's record."""
    old = sup.status()["worker"]
    sup.worker.close()
    size = os.path.getsize(lease_log)
    begin = time.monotonic()
    os.kill(old, signal.SIGKILL)
    end = poll_until(lambda: os.path.getsize(lease_log) > size)
    sup.worker.wait("WELCOME", 10)
    return (end - begin) * 1000


def killed_helper(sup, role):
    old = sup.status()[role]
    begin = time.monotonic()
    os.kill(old, signal.SIGKILL)

    def there():
        st = sup.status()
        return st[role] not in (0, old) and (role != "deadman" or st["deadman_acked"])
    return (poll_until(there) - begin) * 1000


def restarts(sup, lease_log, runs):
    print(f"\n{'killed':<22}  {'back after ms':>13}  {'worst':>6}   what is waited for")
    for role, what in (("worker", "its successor asks the store for the lease"), ("files", "its successor is started"),
                       ("api", "its successor is started"), ("deadman", "its successor has acknowledged the state")):
        took = []
        for _ in range(runs):
            took.append(killed_worker(sup, lease_log) if role == "worker" else killed_helper(sup, role))
            time.sleep(14)  # a calm run: the first restart after it does not wait
        print(f"{role:<22}  {statistics.median(took):>13.1f}  {max(took):>6.1f}   {what}", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--idle", type=int, default=60)
    ap.add_argument("--build", default="build/release")
    a = ap.parse_args()
    util.BUILD = os.path.join(ROOT, a.build)
    from sup import Supervisor
    base = tempfile.mkdtemp(prefix="pgs", dir="/tmp")
    os.chmod(base, 0o755)
    util.give_to_pg_user(base)
    work = os.path.join(base, "w")
    os.mkdir(work)
    util.give_to_pg_user(work)
    pg = util.Postgres(util.make_template(os.path.join(base, "template")), work)
    # A PING as seldom as the real ones send it: ttl/10.
    sup = Supervisor(work, pg, user={} if os.geteuid() == 0 else None, env={"TESTWORKER_PING_MS": "3000"})
    lease_log = os.path.join(work, "leases")
    with open(sup.config, "a") as f:
        f.write(f"auto_ttl=30000\nauto_every=10000\nlease_log={lease_log}\n")
    try:
        sup.start()
        util.wait_until(lambda: os.path.exists(lease_log) and os.path.getsize(lease_log), 10)
        sup.start_pg(renew=False, ttl=30000)
        print("as root, real-time scheduling" if os.geteuid() == 0 else "as an ordinary user")
        idle(sup, a.idle)
        restarts(sup, lease_log, a.runs)
    finally:
        sup.kill_all()
        pg.kill_leftovers()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
