#!/usr/bin/env python3
"""Kills and stops of every process of a node, and of every pair of them, at random moments, under load. What must hold:
no commit outside a lease that was sent for, none lost that a client was told of, nothing left over, and no outage where
the design promises none.

usage: enforcers.py [--rounds N] [--seed S] [--connections N] [--dir DIR]
The test worker stands in the worker's place and is the store as well: each lease that it sends is recorded first."""
import argparse
import bisect
import contextlib
import itertools
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))
import util  # noqa: E402
from pace import Pace  # noqa: E402
from sup import PG_RUNNING, Supervisor  # noqa: E402

ROLES = ["supervisor", "deadman", "worker", "files", "api", "postmaster"]
TTL_MS, RENEW_MS = 4000, 350
MARGIN_MS = 1000      # guard_margin_ms(TTL_MS); the dead-man fences half of it later
BOUND_MS = 300        # DESIGN 8 says 100 until SIGKILL is pending on every backend; this machine runs the load as well
RECOVER_S = 60
BATCH = 25            # rounds between two checks
WRITES_A_SECOND = 200
STARVED_MS = 300      # this program did not run for so long: a machine that does not schedule us owes no availability
RETURN_MS = 350       # a supervisor that is back this soon costs nobody anything


class Fault:
    def __init__(self, role, action, at_ms, stop_ms):
        self.role, self.action, self.at_ms, self.stop_ms = role, action, at_ms, stop_ms

    def __str__(self):
        length = f" for {self.stop_ms}" if self.action == "stop" else ""
        return f"{self.at_ms} ms: {self.action} {self.role}{length}"


def deck(rng):
    """Every process alone and every pair, each killed or stopped, in random order."""
    one = [((r, a),) for r in ROLES for a in ("kill", "stop")]
    two = [((r, a), (s, b)) for r, s in itertools.combinations(ROLES, 2) for a in ("kill", "stop")
           for b in ("kill", "stop")]
    cards = one + two
    while True:
        rng.shuffle(cards)
        yield from cards


def draw(rng, card):
    """The faults of a round: order, moments and lengths."""
    card = list(card)
    rng.shuffle(card)
    # Nobody enforces while one is stopped and the other is gone or stopped: that is left to the watchdog, so it must
    # end before the lease does.
    both = {r for r, _ in card} == {"supervisor", "deadman"} and any(a == "stop" for _, a in card)
    faults, at = [], rng.choice([0, 0, rng.randint(0, 400)])
    for role, action in card:
        long = rng.random() < 0.4 and not both
        faults.append(Fault(role, action, at, rng.randint(TTL_MS, TTL_MS + 2500) if long else rng.randint(20, 1000)))
        at += rng.choice([0, rng.randint(0, 30), rng.randint(0, 1200)])
    return faults


def costs_nothing(faults, return_ms):
    """PostgreSQL must run through it: no fence, no restart."""
    for f in faults:
        if f.role == "postmaster" and f.action == "kill":
            return False
        if f.role == "supervisor" and (f.action == "kill" and return_ms > RETURN_MS or
                                       f.action == "stop" and f.stop_ms > RETURN_MS):
            return False
    # Both enforcers at once, or the second while the first is not back: the kernel or a helper kills.
    return {f.role for f in faults} != {"supervisor", "deadman"}


class Load:
    """pgbench with one row for each transaction, and procedures that commit without ever waiting for a client."""

    def __init__(self, pg, work, connections):
        self.pg, self.work, self.connections = pg, work, connections
        self.run, self.procs = 0, []
        self.script("insert.sql", "\\set seq :seq + 1\ninsert into acked values (:run, :client_id, :seq);\n")
        self.script("spin.sql", "call spin(100);\n\\sleep 150 ms\n")

    def script(self, name, text):
        with open(os.path.join(self.work, name), "w") as f:
            f.write(text)

    def prepare(self):
        self.pg.sql("""drop table if exists acked, spun; create table acked(run int, client int, seq int);
            create table spun(i int); create or replace procedure spin(n int) language plpgsql as $$ begin
            for i in 1..n loop insert into spun values (i); commit; perform count(*) from generate_series(1, 3000);
            end loop; end $$""")

    def pgbench(self, clients, script, *options):
        log = open(os.path.join(self.work, "pgbench.out"), "ab")
        argv = [util.pg_bin("pgbench"), "-h", self.pg.base, "-p", str(self.pg.port), "-U", util.PG_USER, "-n", "-T", "7200",
                "-c", str(clients), "-f", os.path.join(self.work, script), *options, "postgres"]
        self.procs.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **util.as_pg_user()))
        log.close()

    def start(self):
        self.reap()
        if self.procs:
            return
        self.run += 1
        self.pgbench(self.connections, "insert.sql", "-j", "2", "-R", str(WRITES_A_SECOND), "-D", "seq=0", "-D",
                     f"run={self.run}", "-l", f"--log-prefix={self.work}/acked.{self.run}")
        self.pgbench(1, "spin.sql")

    def reap(self):
        """Clients whose server has gone are gone too; one of the two may see it late."""
        if any(p.poll() is not None for p in self.procs):
            for p in self.procs:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    p.wait(1)
                if p.poll() is None:
                    return
            self.procs = []

    def finish(self):
        """Its connections are ended by the server, so that pgbench writes its log out."""
        def gone():
            with contextlib.suppress(RuntimeError):
                self.pg.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'")
            return all(p.poll() is not None for p in self.procs)
        util.wait_until(gone, 30, "pgbench ends", every=0.1)
        self.procs = []

    def acknowledged(self):
        """(run, client) -> number of transactions that the client was told of."""
        told = {}
        for name in os.listdir(self.work):
            if not name.startswith("acked."):
                continue
            run = int(name.split(".")[1])
            with open(os.path.join(self.work, name)) as f:
                for line in f:
                    word = line.split()
                    if len(word) >= 6:
                        key = run, int(word[0])
                        told[key] = max(told.get(key, 0), int(word[1]))
            os.unlink(os.path.join(self.work, name))
        return told

    def kill(self):
        for p in self.procs:
            p.kill()
            p.wait()


class Leases:
    """The union of all leases that were sent for, on the wall clock, in ms."""

    def __init__(self, path):
        spans = []
        with open(path) as f:
            for line in f:
                sent, until = map(int, line.split())
                if spans and sent <= spans[-1][1]:
                    spans[-1][1] = max(spans[-1][1], until)
                else:
                    spans.append([sent, until])
        self.starts, self.spans = [s for s, _ in spans], spans

    def after_end_ms(self, at_ms):
        """How long after the deadline of the enforcers (negative: before). A commit before the first lease: infinite."""
        i = bisect.bisect_right(self.starts, at_ms) - 1
        return at_ms - (self.spans[i][1] - MARGIN_MS) if i >= 0 else float("inf")


class Chaos:
    def __init__(self, work, template, seed, connections, say=print):
        self.work, self.say = work, say
        self.rng = random.Random(seed)
        self.pg = util.Postgres(template, work)
        with open(os.path.join(self.pg.data, "postgresql.conf"), "a") as f:
            f.write(f"track_commit_timestamp = on\nmax_connections = {connections + 30}\nmax_wal_size = 256MB\n"
                    "restart_after_crash = off\n")
        self.sup = Supervisor(work, self.pg)
        api = os.path.join(self.sup.libexec, "pgregent-api")
        os.unlink(api)
        os.symlink(util.program("pgregent-api"), api)  # the real one: it runs the last fence
        self.lease_log = os.path.join(work, "leases")
        argv = "\t".join(self.pg.argv())
        with open(self.sup.config, "a") as f:
            f.write(f"auto_ttl={TTL_MS}\nauto_every={RENEW_MS}\nlease_log={self.lease_log}\nauto_start={argv}\n")
        self.load = Load(self.pg, work, connections)
        self.count = {"rounds": 0, "outages": 0, "commits": 0, "acknowledged": 0, "gaps": 0, "starved": 0}
        self.worst_ms, self.starved_ms = float("-inf"), 0.0
        self.pace = Pace()
        self.faults_seen = []

    # ---- who is who ----

    def pids(self, role):
        if role == "supervisor":
            return [self.sup.proc.pid] if self.sup.proc.proc.poll() is None else []
        if role == "postmaster":
            pid = self.pg.pid()
            return [pid] if pid and util.alive(pid) else []
        return util.processes_with(os.path.join(self.sup.libexec, "pgregent-" + role))

    def inject(self, fault):
        """The pidfds that it was done to: of a stopped process, to let it go on."""
        found = self.pids(fault.role)
        if not found:
            return []
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(self.rng.choice(sorted(found)))
            signal.pidfd_send_signal(fd, signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP)
            return [fd]
        return []

    @staticmethod
    def go_on(fds):
        for fd in fds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGCONT)
            os.close(fd)

    # ---- a round ----

    def carry_out(self, faults, return_ms):
        """All of it on one time line; ends when the last stopped process goes on and the supervisor was restarted."""
        begin = last = time.monotonic()
        todo = [(f.at_ms, i, f, None) for i, f in enumerate(faults)]
        dead = []
        doomed, down_since = self.sup.proc if ("supervisor", "kill") in [(f.role, f.action) for f in faults] else None, None
        while todo or down_since is not None or doomed is self.sup.proc:
            now_ms = (time.monotonic() - begin) * 1000
            self.starved_ms = max(self.starved_ms, (time.monotonic() - last) * 1000)
            last = time.monotonic()
            if down_since is None and self.sup.proc.proc.poll() is not None:
                down_since = now_ms
            if down_since is not None and now_ms >= down_since + return_ms:
                self.restart()
                down_since = None
            for entry in [t for t in todo if t[0] <= now_ms]:
                todo.remove(entry)
                _, i, f, fds = entry
                if fds is not None:
                    self.go_on(fds)
                    continue
                fds = self.inject(f)
                if f.action == "stop":
                    todo.append((now_ms + f.stop_ms, i, f, fds))
                    continue
                for fd in fds:
                    dead.append(fd)
            time.sleep(0.002)
        for fd in dead:  # what was killed is seen dead by everybody before anything is asked
            select.select([fd], [], [], 10)
            os.close(fd)

    def restart(self):
        self.sup.proc.proc.wait()
        self.sup.procs = [p for p in self.sup.procs if p.proc.poll() is None]
        self.sup.worker.close()
        self.sup.start(wait=False)

    def recovered(self):
        if self.sup.proc.proc.poll() is not None:
            self.restart()
        with contextlib.suppress(AssertionError, RuntimeError, subprocess.TimeoutExpired, IndexError, OSError):
            st = self.sup.status()
            if st["pid"] != self.sup.proc.pid or st["pg_state"] != PG_RUNNING or not st["deadman_acked"] or \
                    self.pg.pid() != st["pg_pid"] or \
                    not all(util.alive(st[r]) for r in ("deadman", "worker", "files", "api")):
                return None
            self.sup.worker.poll()
            self.sup.worker.seen.clear()
            self.pg.sql("insert into acked values (0, 0, 0)", 5)
            return st["pg_pid"]
        return None

    def settle(self):
        pid = util.wait_until(self.recovered, RECOVER_S, "the node writes again", every=0.05)
        self.load.start()
        return pid

    def round(self, card):
        faults = draw(self.rng, card)
        return_ms = self.rng.choice([0, self.rng.randint(0, RETURN_MS), self.rng.randint(0, 2000),
                                     self.rng.randint(TTL_MS, TTL_MS + 2000)])
        before, began = self.settle(), time.monotonic()
        time.sleep(self.rng.random() * 0.4)
        text = "; ".join(map(str, faults)) + f"; back after {return_ms}"
        self.faults_seen.append(f"{time.time():.3f} {text}")
        self.carry_out(faults, return_ms)
        after = self.settle()
        starved, self.starved_ms = max(self.starved_ms, self.pace.longest(began) * 1000) > STARVED_MS, 0
        self.count["rounds"] += 1
        self.count["outages"] += after != before
        self.count["starved"] += starved
        if after != before and not starved and costs_nothing(faults, return_ms):
            raise AssertionError(f"PostgreSQL did not run through this: {text}")

    # ---- what must hold ----

    def check(self):
        """After a batch: the load ends, everything that it left behind is judged."""
        self.load.finish()
        self.settled_processes()
        told = self.load.acknowledged()
        rows = dict(((int(r), int(c)), int(n)) for r, c, n in (x.split("|") for x in self.pg.sql(
            "select run, client, count(distinct seq) from acked where run > 0 group by 1, 2", 60).splitlines()))
        for key, n in told.items():
            if rows.get(key, 0) < n:
                raise AssertionError(f"lost: run.client {key} was told of {n} commits, {rows.get(key, 0)} are there")
        leases = Leases(self.lease_log)
        times = [int(x) / 1000 for x in self.pg.sql(
            "select (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from (select xmin from acked"
            " union all select xmin from spun) x", 120).splitlines()]
        # After the lease nothing at all; before that, the dead-man's deadline and the bound.
        late = sorted(at for at in times if leases.after_end_ms(at) > min(MARGIN_MS, MARGIN_MS / 2 + BOUND_MS))
        if times:
            self.worst_ms = max(self.worst_ms, max(leases.after_end_ms(at) for at in times))
        self.count["commits"] += len(times)
        self.count["acknowledged"] += sum(told.values())
        self.count["gaps"] = len(leases.spans) - 1
        if late:
            raise AssertionError(f"{len(late)} commits too late, the worst {leases.after_end_ms(late[-1]):.0f} ms after the "
                                 f"deadline, the first at {late[0] / 1000:.3f}")
        self.check_logs()
        self.load.prepare()

    def settled_processes(self):
        def one_of_each():
            return all(len(self.pids(r)) == 1 for r in ROLES)
        try:
            util.wait_until(one_of_each, 20)
        except AssertionError:
            raise AssertionError("not one of each: " + str({r: self.pids(r) for r in ROLES})) from None

    def check_logs(self):
        bad = ("ERROR: AddressSanitizer", "runtime error:", "invariant", "LeakSanitizer", "PANIC", "shared memory block",
               "bogus data in lock file", "refused: malformed")
        with open(os.path.join(self.work, "supervisor.log"), errors="replace") as f:
            for line in f:
                if any(b in line for b in bad):
                    raise AssertionError(f"in the log: {line.strip()}")

    def run(self, rounds):
        self.sup.start(wait=False)
        util.wait_until(self.pg.up, 30, "PostgreSQL starts")
        self.load.prepare()
        cards = deck(self.rng)
        for n in range(1, rounds + 1):
            self.round(next(cards))
            if n % BATCH == 0 or n == rounds:
                self.check()
                self.say(f"{n} rounds, " + self.summary())

    def summary(self):
        c = self.count
        return (f"{c['outages']} outages, {c['starved']} starved, {c['gaps']} leases ran out, {c['commits']} commits, {c['acknowledged']} of them "
                f"acknowledged, the last {self.worst_ms:.0f} ms after the supervisor's deadline")

    def close(self):
        self.load.kill()
        self.sup.kill_all()
        self.pg.kill_leftovers()


def run_chaos(work, template, rounds, seed, connections, say=print):
    """One whole run; on failure the last rounds are told, the directory stays."""
    say(f"chaos: rounds={rounds} seed={seed} connections={connections}")
    chaos = Chaos(work, template, seed, connections, say)
    try:
        with chaos.pace:
            chaos.run(rounds)
        say(chaos.summary())
    except BaseException:
        say(f"seed={seed}, after {chaos.count['rounds']} rounds; the last ones:")
        for line in chaos.faults_seen[-BATCH:]:
            say(line)
        raise
    finally:
        chaos.close()
    return chaos


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=1000)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randint(1, 999999))
    ap.add_argument("--connections", type=int, default=200)
    ap.add_argument("--dir", default="/tmp")
    a = ap.parse_args()
    # Also where a shell has set it to be ignored: what was started is stopped again.
    for n in (signal.SIGTERM, signal.SIGINT):
        signal.signal(n, lambda *_: sys.exit(130))
    base = tempfile.mkdtemp(prefix="pgc", dir=a.dir)
    os.chmod(base, 0o755)
    util.give_to_pg_user(base)
    work = os.path.join(base, "w")
    os.mkdir(work)
    util.give_to_pg_user(work)
    print(f"directory {base}", flush=True)
    chaos = run_chaos(work, util.make_template(os.path.join(base, "template")), a.rounds, a.seed, a.connections,
                      lambda text: print(text, flush=True))
    shutil.rmtree(base)
    c = chaos.count
    print(f"{c['rounds']} rounds passed: {c['commits']} commits, none late, none lost")


if __name__ == "__main__":
    main()
