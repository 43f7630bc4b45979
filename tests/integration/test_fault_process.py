"""Processes of the primary that are killed or stopped: its worker for ever, its enforcers in pairs. The lease runs out, PostgreSQL is
killed before it does, a replica takes over, and no two members accept writes at once; writers write all the time, one of
them pipelined. And PostgreSQL's own processes: an outage at most, on the same primary, without a loss."""
import os
import re
import signal
import time

import pytest

from faults import Again, Member, Process, Writers, cluster, gone, kill, pg_start, settled, shared, wait_until  # noqa: F401
from util import as_pg_user, dead, descendants, give_to_pg_user

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


class TwoSockets(Member):
    """Its server listens in two directories, one of them named in quotes."""

    def __init__(self, cluster, name, **kw):
        super().__init__(cluster, name, **kw)
        second = self.dir + "/a, b"
        os.mkdir(second)
        give_to_pg_user(second)
        self.locks = ["%s/.s.PGSQL.%d.lock" % (d, self.pg) for d in (self.dir, second)]
        with open(self.yml) as f:
            text = f.read()
        one = "unix_socket_directories: '%s'" % self.dir
        assert one in text
        with open(self.yml, "w") as f:
            f.write(text.replace(one, "unix_socket_directories: '%s, \"%s\"'" % (self.dir, second)))

    def rewrite_locks(self, pid, data_dir=None):
        """As a restarted container finds them: the number is a live process's by now."""
        for path in self.locks:
            with open(path) as f:
                lines = f.read().splitlines()
            lines[0] = str(pid)
            lines[1] = data_dir or lines[1]
            with open(path, "w") as f:
                f.write("\n".join(lines) + "\n")


def test_dead_postmasters_number_is_in_use_again(make):
    """PostgreSQL alone would not start for ever: it takes the process for the owner of its sockets' lock files. Another cluster's
    files are left to it."""
    c = make(n=1, member=TwoSockets)
    n0 = c.members[0]
    other = Process(["sleep", "600"], n0.dir + "/sleep.log", **as_pg_user())
    try:
        n0.sql("CREATE TABLE t AS SELECT 1 AS a")
        n0.kill_all()
        n0.proc.wait(5)
        n0.rewrite_locks(other.pid)
        since = len(n0.proc.text())
        n0.start()
        wait_until(n0.is_primary, 40, lambda: "n0 is the primary again: " + n0.proc.text()[since:][-3000:])
        removed = re.findall(r"stale socket lock file (.*) pid=%d is removed" % other.pid, n0.proc.text()[since:])
        assert removed == n0.locks
        assert n0.sql("SELECT a FROM t") == [(1,)]
        wait_until(lambda: c.etcd.get("leader") == "n0", 20, "n0 leads")
        n0.kill_all()
        n0.proc.wait(5)
        n0.rewrite_locks(other.pid, n0.dir + "/data2")
        since = len(n0.proc.text())
        n0.start()
        wait_until(lambda: 'lock file "%s" already exists' % n0.locks[0] in n0.proc.text()[since:], 40, "PostgreSQL says what is in its way")
        assert "stale socket lock file" not in n0.proc.text()[since:] and all(map(os.path.exists, n0.locks))
        other.kill()
        wait_until(n0.is_primary, 40, "n0 is the primary again")
    finally:
        other.kill()
