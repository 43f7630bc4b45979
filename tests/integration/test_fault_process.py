"""Processes of the primary that are killed or stopped: its worker for ever, its enforcers in pairs. The lease runs out, PostgreSQL is
killed before it does, a replica takes over, and no two members accept writes at once; writers write all the time, one of
them pipelined. And PostgreSQL's own processes: an outage at most, on the same primary, without a loss."""
import os
import signal
import time

import pytest

from faults import Again, Writers, cluster, gone, kill, pg_start, settled, shared, wait_until  # noqa: F401
from util import dead, descendants

TTL = 6


def test_worker_stopped_again_at_each_start(cluster):
    c = cluster
    n0 = c.leader()
    pm, since = n0.postmaster(), len(n0.proc.text())
    with Writers(c) as w:
        with Again(n0, "pgregent-worker", lambda pid: os.kill(pid, signal.SIGSTOP)) as again:
            new = c.wait_leader(25, but=n0)
            assert gone(pm)
            w.wait_ack(new)
            wait_until(lambda: len(again.hit) >= 3, 10, "each new one is stopped")
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
    assert "FENCE" in n0.proc.text()[since:]


def server_of(m):
    """All processes of its PostgreSQL."""
    pm = m.postmaster()
    return {pm} | descendants(pm)


@pytest.mark.parametrize("victims, signo", [
    (("supervisor", "worker"), signal.SIGKILL), (("supervisor", "deadman"), signal.SIGKILL),
    (("supervisor",), signal.SIGSTOP), (("supervisor", "worker"), signal.SIGSTOP)],
    ids=["kill-supervisor-worker", "kill-supervisor-deadman", "stop-supervisor", "stop-supervisor-worker"])
def test_enforcers_of_the_primary(cluster, victims, signo):
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        pids = [n0.proc.pid if v == "supervisor" else n0.helper(v) for v in victims]
        server = server_of(n0)
        kill(*pids, signo=signo)
        # Without both enforcers the kernel and the remaining helpers act at once, else the dead-man before the store can end a lease
        # that is not renewed from now on.
        w.stalls.wait(lambda: all(map(gone, server)), 1 if "deadman" in victims else TTL, "PostgreSQL is gone before the lease ends")
        new = c.wait_leader(20, but=n0)
        w.wait_ack(new)
        if signo == signal.SIGSTOP:
            kill(*pids, signo=signal.SIGCONT)
        else:
            n0.proc.wait(15)
            n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)


def backend_of(m, what):
    return m.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE '%s'" % what)[0][0]


def test_worker_alone_sees_both_enforcers_dead(cluster):
    """The kernel kills the postmaster; a backend that would not notice is the worker's to find, when nobody else of ours is left."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        server, since = server_of(n0), len(n0.proc.text())
        backend = backend_of(n0, "INSERT INTO probe%")
        kill(backend, signo=signal.SIGSTOP)
        ours = [n0.helper(h) for h in ("files", "api", "deadman")] + [n0.proc.pid]
        kill(*ours, signo=signal.SIGSTOP)
        kill(*ours)
        w.stalls.wait(lambda: all(map(gone, server)), 5, "nothing of PostgreSQL is left")
        new = c.wait_leader(20, but=n0)
        w.wait_ack(new)
        n0.proc.wait(15)
        n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
    assert "last fence signalled=" in n0.proc.text()[since:]


@pytest.mark.parametrize("what", ["postmaster", "backend"])
def test_postgres_process_killed(cluster, what):
    """Even the backend that never looks up from its work is gone before a new postmaster starts."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        started = pg_start(n0)
        server = server_of(n0)
        kill(n0.postmaster() if what == "postmaster" else backend_of(n0, "INSERT INTO probe%"))
        if what == "postmaster":
            # An acknowledgement that was on its way when the postmaster died says nothing about the new one.
            wait_until(lambda: n0.try_sql("SELECT pg_postmaster_start_time()") not in (None, started), 30, "a new postmaster")
        w.wait_ack(n0)
        assert c.leader() is n0
        assert (pg_start(n0) != started) == (what == "postmaster")
        assert all(map(dead, server - {n0.postmaster()}))
        assert settled(c) is n0
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert [name for name, rows in w.acks.items() if rows] == [n0.name]


def test_postmaster_stopped(cluster):
    """No new connections, but those that are there write on, and the lease is renewed: also by a worker that cannot connect."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        started, pm = pg_start(n0), n0.postmaster()
        kill(pm, signo=signal.SIGSTOP)
        begin = time.monotonic()
        for _ in range(2):
            w.wait_ack(n0)
            worker = n0.helper("worker")
            kill(worker)
            wait_until(lambda: n0.helper("worker") not in (None, worker), 15, "a new worker")
            wait_until(lambda: time.monotonic() - begin > TTL, TTL + 1, "longer than the lease")
            begin = time.monotonic()
            assert c.etcd.get("leader") == n0.name
            w.wait_ack(n0)
        kill(pm, signo=signal.SIGCONT)
        wait_until(n0.is_primary, 15, "new connections again")
        assert settled(c) is n0
        wait_until(lambda: n0.status("/primary")[0] == 200, 15, "health check")
        w.wait_ack(n0)
        assert pg_start(n0) == started
    assert w.overlaps() == [] and w.missing_on(n0) == [] and w.gap_of(n0.name) < 1
