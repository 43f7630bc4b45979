"""Synchronous and quorum commit on real PostgreSQL (ha 5): whoever is promoted has every acknowledged commit."""
import os
import signal

import psycopg2
import pytest

from cluster import Cluster, WriteProbe
from util import wait_until


@pytest.fixture
def make(work):
    made = []

    def build(**dcs):
        c = Cluster(work, **dcs)
        made.append(c)
        c.start()
        c.leader().sql("CREATE TABLE probe(v bigint, who text)")
        return c
    yield build
    for c in made:
        c.stop()


def patch(c, **what):
    code, text = c.leader().status("/config", "PATCH", what)
    assert code == 200, text


def promise(c):
    """(leader, voters, quorum) of /sync."""
    s = c.etcd.json("sync") or {}
    names = s.get("sync_standby") or ""
    return s.get("leader"), sorted(n for n in names.split(",") if n), s.get("quorum") or 0


def wait_promise(c, voters, quorum=0, leader=None, bound=20):
    leader = leader or c.leader().name
    wait_until(lambda: promise(c) == (leader, sorted(voters), quorum), bound,
               lambda: "/sync names %s, quorum %d of %s: %s" % (voters, quorum, leader, promise(c)))


def wait_names(m, names, bound=20):
    """Whom commits wait for: the store and PostgreSQL are told one after the other."""
    wait_until(lambda: m.sql("SHOW synchronous_standby_names") == [(names,)], bound,
               lambda: "%s waits for '%s': %s" % (m.name, names, m.sql("SHOW synchronous_standby_names")))


def wait_one(c, bound=20):
    """One synchronous standby, promised and waited for; its name."""
    wait_until(lambda: len(promise(c)[1]) == 1, bound, "one synchronous standby")
    voter = promise(c)[1][0]
    wait_names(c.leader(), voter)
    return voter


def wait_status(m, path, code, bound=15):
    wait_until(lambda: m.status(path)[0] == code, bound, lambda: "%s of %s answers %d: %s" % (path, m.name, code, m.status(path)))


def states(m):
    return {n: s for n, s in m.sql("SELECT application_name, sync_state FROM pg_stat_replication")}


def acked(probe, at_least):
    """The probe has got this many more acknowledgements than now."""
    start = sum(len(a) for a in probe.acks.values())
    wait_until(lambda: sum(len(a) for a in probe.acks.values()) >= start + at_least, 15, "writers write")


def node_off_and_back(c, probe):
    """The leader's node goes off under load; returns the old one after it streams again."""
    acked(probe, 50)
    old = c.leader()
    old.kill_all()
    old.proc.wait(5)
    new = c.wait_leader(30, but=old)
    acked(probe, 1)
    old.start()
    wait_until(old.streams_from_somebody, 40, old.name + " streams again")
    return old, new


def test_priority_failover_loses_no_acknowledged_commit(make):
    c = make(synchronous_mode=True)
    n0, voter = c.leader(), wait_one(c)
    wait_until(lambda: states(n0).get(voter) == "sync", 15, "sync")
    other = next(m for m in c.others(n0) if m.name != voter)
    sync = next(m for m in c.members if m.name == voter)
    # Each member answers from its own view of the store.
    wait_status(sync, "/synchronous", 200)
    wait_status(other, "/asynchronous", 200)
    assert other.status("/synchronous")[0] == 503 and sync.status("/asynchronous")[0] == 503
    with WriteProbe(c) as probe:
        old, new = node_off_and_back(c, probe)
        assert new.name == voter
        wait_until(lambda: promise(c)[0] == new.name and len(promise(c)[1]) == 1, 20, "a promise of the new leader")
        acked(probe, 20)
        wait_until(lambda: probe.missing_on(new) == [], 15, "all acknowledged commits")
    assert probe.overlaps() == []
    assert probe.missing_on(new) == []


def test_priority_switchover_goes_to_a_voter_only(make):
    c = make(synchronous_mode=True)
    old, voter = c.leader(), wait_one(c)
    c.wait_listed(old, lambda row: (row["role"] == "sync_standby") == (row["name"] == voter))
    other = next(m for m in c.others(old) if m.name != voter)
    code, text = old.status("/switchover", "POST", {"leader": old.name, "candidate": other.name}, 20)
    assert code == 412, text
    with WriteProbe(c) as probe:
        acked(probe, 20)
        code, text = old.status("/switchover", "POST", {"leader": old.name, "candidate": voter}, 40)
        assert code == 200, text
        wait_until(lambda: promise(c)[0] == voter and len(promise(c)[1]) == 1, 20, "a promise of the new leader")
        acked(probe, 20)
    assert probe.overlaps() == [] and probe.missing_on(c.leader()) == []


def test_node_count_and_standbys_dying(make):
    c = make(synchronous_mode=True, synchronous_node_count=2)
    n0, n1, n2 = c.members
    wait_promise(c, ["n1", "n2"])
    wait_names(n0, "2 (n1,n2)")
    with WriteProbe(c) as probe:
        acked(probe, 20)
        n2.kill_all()
        n2.proc.wait(5)
        wait_promise(c, ["n1"])
        wait_names(n0, "n1")
        acked(probe, 20)
        n1.kill_all()
        n1.proc.wait(5)
        wait_promise(c, [])
        wait_names(n0, "")  # since not strict
        acked(probe, 20)
        n1.start()
        n2.start()
        wait_promise(c, ["n1", "n2"], bound=40)
        patch(c, synchronous_node_count=1)
        wait_one(c)
        patch(c, synchronous_mode=False)
        wait_until(lambda: c.etcd.get("sync") is None, 20, "/sync is gone")
        wait_names(n0, "")
        acked(probe, 20)
    assert c.leader() is n0 and probe.missing_on(n0) == []


def test_strict_waits_for_a_standby(make):
    c = make(synchronous_mode=True, synchronous_mode_strict=True)
    n0, n1, n2 = c.members
    wait_one(c)
    for m in (n1, n2):
        m.kill_all()
        m.proc.wait(5)
    assert n0.sql("SHOW synchronous_standby_names")[0][0] != ""
    waiter = psycopg2.connect(host="127.0.0.1", port=n0.pg, user="postgres", dbname="postgres", async_=1)
    wait_until(lambda: waiter.poll() == psycopg2.extensions.POLL_OK, 15, "connected")
    wcur = waiter.cursor()
    wcur.execute("INSERT INTO probe VALUES (1, 'strict')")
    wait_until(lambda: n0.sql("SELECT wait_event FROM pg_stat_activity WHERE query LIKE 'INSERT INTO probe%'")
               == [("SyncRep",)], 15, "the commit waits")
    assert n0.status("/primary")[0] == 200
    n1.start()
    wait_until(lambda: waiter.poll() == psycopg2.extensions.POLL_OK, 40, "the commit is confirmed")
    wait_until(lambda: promise(c)[1] == ["n1"], 20, "n1 is the promise")


@pytest.mark.parametrize("count", [1, 2])
def test_quorum_failover_loses_no_acknowledged_commit(make, count):
    c = make(synchronous_mode="quorum", synchronous_node_count=count)
    n0 = c.leader()
    wait_promise(c, ["n1", "n2"], 2 - count)
    wait_names(n0, "ANY %d (n1,n2)" % count)
    for m in c.others(n0):
        wait_status(m, "/quorum", 200)
        assert m.status("/synchronous")[0] == 503
    with WriteProbe(c) as probe:
        old, new = node_off_and_back(c, probe)
        wait_promise(c, [m.name for m in c.others(new)], 2 - count, bound=40)
        acked(probe, 20)
    assert probe.overlaps() == []
    assert probe.missing_on(c.leader()) == []


def test_quorum_with_a_lost_half_does_not_promote(make):
    """With node_count 1 of two voters one commit lives on the leader and one of the two: when the leader and one standby go
    away, the other one may lack commits and must not be promoted (5.8)."""
    c = make(synchronous_mode="quorum")
    n0 = c.leader()
    wait_promise(c, ["n1", "n2"], 1)
    with WriteProbe(c) as probe:
        acked(probe, 50)
        n1, n2 = c.others(n0)
        # The leader first: it would drop a standby that goes from its promise, and n2 might lead then.
        for m in (n0, n1):
            m.kill_all()
            m.proc.wait(5)
        wait_until(lambda: c.etcd.get("leader") is None, 15, "the lease is over")
        # n2 sees the free key for several cycles and says so in its log.
        at = os.path.getsize(n2.log)

        def refused_often():
            with open(n2.log) as f:
                f.seek(at)
                return sum("not the healthiest node" in line for line in f) >= 2
        wait_until(refused_often, 20, "n2 refuses")
        assert not n2.is_primary() and c.etcd.get("leader") is None
        n1.start()
        new = c.wait_leader(30)
        assert new in (n1, n2)
        n0.start()
        wait_until(n0.streams_from_somebody, 40, "n0 streams")
    assert probe.overlaps() == [] and probe.missing_on(c.leader()) == []


def test_mode_switched_under_load(make):
    c = make()
    n0 = c.leader()
    with WriteProbe(c) as probe:
        for mode, count, check in ((True, 1, lambda: len(promise(c)[1]) == 1),
                                   ("quorum", 1, lambda: promise(c)[1:] == (["n1", "n2"], 1)),
                                   ("quorum", 2, lambda: promise(c)[1:] == (["n1", "n2"], 0)),
                                   (True, 2, lambda: promise(c)[1:] == (["n1", "n2"], 0)),
                                   (False, 1, lambda: c.etcd.get("sync") is None)):
            patch(c, synchronous_mode=mode, synchronous_node_count=count)
            wait_until(check, 20, lambda: "mode %s, %d: %s" % (mode, count, promise(c)))
            acked(probe, 20)
            assert n0.status("/primary")[0] == 200
    assert c.leader() is n0 and probe.missing_on(n0) == [] and probe.longest_gap() < 3


def test_nosync_and_frozen_standby(make):
    """A stopped walreceiver stalls commits until the standby is dropped from the promise."""
    c = make(synchronous_mode=True, postgresql={"parameters": {"wal_sender_timeout": "3s", "max_connections": 60}})
    n0 = c.leader()
    name = wait_one(c)
    voter = next(m for m in c.members if m.name == name)
    with WriteProbe(c) as probe:
        acked(probe, 20)
        pids = voter.sql("SELECT pid FROM pg_stat_wal_receiver")
        os.kill(pids[0][0], signal.SIGSTOP)
        try:
            wait_until(lambda: promise(c)[1] not in ([], [voter.name]), 30, "the other one is synchronous")
            acked(probe, 20)
        finally:
            os.kill(pids[0][0], signal.SIGCONT)
    assert c.leader() is n0 and probe.missing_on(n0) == []


def test_a_new_worker_keeps_what_commits_wait_for(make):
    """The worker dies: PostgreSQL goes on waiting for whom /sync names, before and after the new worker looks (S7)."""
    c = make(synchronous_mode=True)
    n0 = c.leader()
    voter = wait_one(c)
    with WriteProbe(c) as probe:
        for _ in range(3):
            at = os.path.getsize(n0.log)
            pid = n0.helper("worker")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: n0.helper("worker") not in (None, pid), 15, "a new worker")
            seen = os.path.getsize(n0.log)  # what stands before it may be the old worker's

            def settled():
                with open(n0.log) as f:
                    f.seek(seen)
                    return "the leader with the lock" in f.read()
            wait_until(settled, 15, "a cycle of the new worker")
            acked(probe, 20)
            with open(n0.log) as f:
                f.seek(at)
                assert 'parameter "synchronous_standby_names"' not in f.read()
            assert n0.sql("SHOW synchronous_standby_names") == [(voter,)]
    assert promise(c)[1] == [voter] and c.leader() is n0 and probe.missing_on(n0) == []
