"""Helpers of the primary, and its supervisor alone, that are killed or stopped once or again and again: PostgreSQL stays the same process,
no lease is missed, no write fails; unless the supervisor does not come back. Under writers, one of them pipelined."""
import os
import signal
import threading
import time

from faults import LeaseWatch, Writers, cluster, gone, kill, pg_start, settled, shared, wait_until, with_ttl  # noqa: F401
from test_fault_process import server_of
from util import alive

TTL = 6
AGAIN_S = 60
SLOW_S = 2


class RestWatch:
    """Asks for the role all the time; what was not answered by 200, or not within SLOW_S, what the machine cost not counted."""

    def __init__(self, m, stalls):
        self.m, self.stalls, self.bad, self.count = m, stalls, [], 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.ended.wait(0.02):
            asked = time.monotonic()
            code, text = self.m.status("/primary", timeout=5)
            answered = time.monotonic()
            self.count += 1
            if code != 200 or answered - asked > SLOW_S and self.stalls.took(asked) > SLOW_S:
                self.bad.append((asked, answered - asked, code, text[:200]))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        self.thread.join()


def connections(m):
    """Those of the two writers. A write that fails ends its connection."""
    return m.sql("SELECT pid, backend_start FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE "
                 "'INSERT INTO probe%' ORDER BY 1")


class Undisturbed:
    """Around a fault that must not be noticed: same server, same leader, a lease that is always far from its end, and writers that keep
    their connections."""

    def __init__(self, c, supervisor_stays=True):
        self.c, self.m = c, c.leader()
        self.w = Writers(c)
        self.lease = LeaseWatch(self.m) if supervisor_stays else None

    def __enter__(self):
        self.w.__enter__()
        # Those of writers before may be about to end.
        wait_until(lambda: len(connections(self.m)) == 2, 10, lambda: "two writers: %s" % connections(self.m))
        self.started, self.pm, self.open = pg_start(self.m), self.m.postmaster(), connections(self.m)
        if self.lease:
            self.lease.__enter__()
        return self

    def __exit__(self, kind, *exc):
        try:
            if kind is None:
                self.w.wait_ack(self.m)
                assert settled(self.c) is self.m
                assert connections(self.m) == self.open, "a write failed"
                assert self.m.postmaster() == self.pm and pg_start(self.m) == self.started
                if self.lease:
                    assert self.lease.least_left(self.w.stalls) > TTL / 2 * 1000
        finally:
            if self.lease:
                self.lease.__exit__()
            self.w.__exit__()
        if kind is None:
            assert self.w.overlaps() == [] and self.w.missing_on(self.m) == []
            assert [name for name, rows in self.w.acks.items() if rows] == [self.m.name]


def replaced(m, helper, old, bound=15):
    wait_until(lambda: m.helper(helper) not in (None, old), bound, "a new " + helper)
    return m.helper(helper)


def test_worker_killed_every_two_seconds(cluster):
    with Undisturbed(cluster) as around, RestWatch(around.m, around.w.stalls) as rest:
        n0 = around.m
        for _ in range(AGAIN_S // 2):
            old, killed = n0.helper("worker"), time.monotonic()
            kill(old)
            replaced(n0, "worker", old)
            # Never less than two seconds, also after the machine stood still.
            wait_until(lambda: time.monotonic() > killed + 2, 3, every=0.05)
    assert rest.bad == [] and rest.count > 100


def test_worker_stopped(cluster):
    """Its successor is there after ttl/6, and what had to be renewed meanwhile is renewed."""
    with Undisturbed(cluster) as around, RestWatch(around.m, around.w.stalls) as rest:
        n0 = around.m
        old = n0.helper("worker")
        stopped = time.monotonic()
        kill(old, signo=signal.SIGSTOP)
        around.w.stalls.wait(lambda: n0.helper("worker") not in (None, old), TTL / 2, "a new worker")
        assert not alive(old)
        wait_until(lambda: time.monotonic() > stopped + TTL + 1, TTL + 2, "longer than the lease", every=0.1)
    assert rest.bad == []


def test_api_killed(cluster):
    with Undisturbed(cluster) as around:
        n0 = around.m
        others = {h: n0.helper(h) for h in ("worker", "files", "deadman")}
        for _ in range(5):
            old = n0.helper("api")
            kill(old)
            around.w.stalls.wait(lambda: n0.status("/primary", timeout=1)[0] == 200, 2, "api answers again")
            assert replaced(n0, "api", old) != old
        assert {h: n0.helper(h) for h in others} == others


def test_supervisor_killed_and_started_again(cluster):
    """The same postmaster and lease under a new supervisor."""
    with Undisturbed(cluster, supervisor_stays=False) as around:
        n0 = around.m
        for _ in range(2):
            key = cluster.etcd.ctl("get", "/service/it/leader", "-w", "json")
            assert '"create_revision"' in key
            kill(n0.proc.pid)
            n0.proc.wait(5)
            killed = time.monotonic()
            wait_until(lambda: time.monotonic() > killed + 1, 2)
            n0.start()
            wait_until(lambda: n0.status("/primary", timeout=2)[0] == 200, 15, "primary again")
            assert cluster.leader() is n0
            wait_until(lambda: time.monotonic() > killed + TTL + 1, TTL + 2, "longer than the lease", every=0.1)
            assert cluster.leader() is n0


def test_supervisor_killed_for_good(cluster):
    """ttl 6: the dead-man's grace is what is left of the lease."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        server = server_of(n0)
        kill(n0.proc.pid)
        w.stalls.wait(lambda: all(map(gone, server)), TTL, "PostgreSQL is gone before the lease ends")
        n0.proc.wait(5)
        new = c.wait_leader(20, but=n0)
        w.wait_ack(new)
        n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)


def test_supervisor_killed_for_good_with_a_long_lease(cluster):
    """ttl 20: the dead-man waits 10 s for a successor, then fences, long before the lease ends; the replica is promoted when it is over."""
    c = cluster
    n0 = c.leader()
    with_ttl(n0, 20)
    with Writers(c) as w:
        server = server_of(n0)
        killed = time.monotonic()
        os.kill(n0.proc.pid, signal.SIGKILL)
        n0.proc.wait(5)
        wait_until(lambda: all(map(gone, server)), 20, "PostgreSQL is fenced")
        grace, undisturbed = time.monotonic() - killed, w.stalls.took(killed)
        assert grace > 8 and undisturbed < 12, "fenced after %.1f s" % grace
        assert c.etcd.get("leader") == n0.name, "long before the lease ends"
        new = c.wait_leader(30, but=n0)
        w.wait_ack(new)
        n0.start()
        assert settled(c) is new
        assert new.status("/config", "PATCH", {"ttl": TTL})[0] == 200
    w.handed_over(n0, new)
