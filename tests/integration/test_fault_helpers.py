"""Helpers of the primary, and its supervisor alone, that are killed or stopped once or again and again: PostgreSQL stays the same process,
no lease is missed, no write fails; unless the supervisor does not come back. Under writers, one of them pipelined."""
import os
import signal
import threading
import time

from faults import LeaseWatch, Writers, cluster, gone, kill, pg_start, settled, shared, wait_until  # noqa: F401
from test_fault_process import server_of
from util import alive

TTL = 6
AGAIN_S = 60


class RestWatch:
    """Asks for the role all the time; what was not answered by 200, and how long the longest answer took."""

    def __init__(self, m):
        self.m, self.bad, self.longest, self.count = m, [], 0, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.ended.wait(0.02):
            asked = time.monotonic()
            code, text = self.m.status("/primary", timeout=2)
            self.count += 1
            self.longest = max(self.longest, time.monotonic() - asked)
            if code != 200:
                self.bad.append((asked, code, text[:200]))

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
        self.started, self.pm, self.open = pg_start(self.m), self.m.postmaster(), connections(self.m)
        assert len(self.open) == 2
        if self.lease:
            self.lease.__enter__()
        return self.m

    def __exit__(self, kind, *exc):
        try:
            if kind is None:
                self.w.wait_ack(self.m)
                assert settled(self.c) is self.m
                assert connections(self.m) == self.open, "a write failed"
                assert self.m.postmaster() == self.pm and pg_start(self.m) == self.started
                if self.lease:
                    assert self.lease.least_left() > TTL / 2 * 1000
        finally:
            if self.lease:
                self.lease.__exit__()
            self.w.__exit__()
        if kind is None:
            assert self.w.overlaps() == [] and self.w.missing_on(self.m) == []
            assert [name for name, rows in self.w.acks.items() if rows] == [self.m.name]


def replaced(m, helper, old, bound=5):
    wait_until(lambda: m.helper(helper) not in (None, old), bound, "a new " + helper)
    return m.helper(helper)


def test_worker_killed_every_two_seconds(cluster):
    with Undisturbed(cluster) as n0, RestWatch(n0) as rest:
        begin = time.monotonic()
        killed = 0
        while time.monotonic() < begin + AGAIN_S:
            old = n0.helper("worker")
            kill(old)
            killed += 1
            replaced(n0, "worker", old)
            wait_until(lambda: time.monotonic() > begin + 2 * killed, 3, every=0.05)
        assert killed >= AGAIN_S / 2
    assert rest.bad == [] and rest.count > 100


def test_worker_stopped(cluster):
    """Its successor is there after ttl/6, and what had to be renewed meanwhile is renewed."""
    with Undisturbed(cluster) as n0, RestWatch(n0) as rest:
        old = n0.helper("worker")
        stopped = time.monotonic()
        kill(old, signo=signal.SIGSTOP)
        replaced(n0, "worker", old, TTL / 2)
        assert not alive(old)
        wait_until(lambda: time.monotonic() > stopped + TTL + 1, TTL + 2, "longer than the lease", every=0.1)
    assert rest.bad == []


def test_api_killed(cluster):
    with Undisturbed(cluster) as n0:
        others = {h: n0.helper(h) for h in ("worker", "files", "deadman")}
        for _ in range(5):
            old = n0.helper("api")
            kill(old)
            wait_until(lambda: n0.status("/primary", timeout=1)[0] == 200, 2, "api answers again", every=0.01)
            assert replaced(n0, "api", old) != old
        assert {h: n0.helper(h) for h in others} == others


def test_supervisor_killed_and_started_again(cluster):
    """The same postmaster and lease under a new supervisor."""
    with Undisturbed(cluster, supervisor_stays=False) as n0:
        for _ in range(2):
            key = cluster.etcd.ctl("get", "/service/it/leader", "-w", "json")
            assert '"create_revision"' in key
            kill(n0.proc.pid)
            n0.proc.wait(5)
            killed = time.monotonic()
            wait_until(lambda: time.monotonic() > killed + 1, 2)
            n0.start()
            wait_until(lambda: n0.status("/primary", timeout=1)[0] == 200, 10, "primary again")
            assert cluster.leader() is n0
            wait_until(lambda: time.monotonic() > killed + TTL + 1, TTL + 2, "longer than the lease", every=0.1)
            assert cluster.leader() is n0


def test_supervisor_killed_for_good(cluster):
    """ttl 6: the dead-man's grace is what is left of the lease."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        server = server_of(n0)
        killed = time.monotonic()
        kill(n0.proc.pid)
        n0.proc.wait(5)
        wait_until(lambda: all(map(gone, server)), TTL - (time.monotonic() - killed), "PostgreSQL is gone before the lease ends")
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
    assert n0.status("/config", "PATCH", {"ttl": 20})[0] == 200

    def granted():
        with LeaseWatch(n0) as lease:
            now_ms = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
            return lease.rows()[-1][1] - now_ms > 15000
    wait_until(granted, 10, "the lease is as long as the new ttl")
    with Writers(c) as w:
        server = server_of(n0)
        killed = time.monotonic()
        os.kill(n0.proc.pid, signal.SIGKILL)
        n0.proc.wait(5)
        wait_until(lambda: all(map(gone, server)), 15, "PostgreSQL is fenced")
        grace = time.monotonic() - killed
        assert 8 < grace < 12, "fenced after %.1f s" % grace
        assert c.etcd.get("leader") == n0.name, "long before the lease ends"
        new = c.wait_leader(30, but=n0)
        w.wait_ack(new)
        n0.start()
        assert settled(c) is new
        assert new.status("/config", "PATCH", {"ttl": TTL})[0] == 200
    w.handed_over(n0, new)
