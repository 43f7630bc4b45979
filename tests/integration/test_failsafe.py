"""Failsafe mode and manual promotion in pause on the real thing (ha 9.4, 9.5)."""
import json
import os
import signal
import time

import pytest

from cluster import Cluster, WriteProbe
from util import wait_until


@pytest.fixture
def cluster(work):
    c = Cluster(work, failsafe_mode=True)
    try:
        c.start()
        c.leader().sql("CREATE TABLE probe(v bigint, who text)")
        wait_until(lambda: set(c.etcd.json("failsafe") or {}) == {"n0", "n1", "n2"}, 15, "/failsafe names all")
        yield c
    finally:
        c.stop()


def acked(probe, at_least):
    start = sum(len(a) for a in probe.acks.values())
    wait_until(lambda: sum(len(a) for a in probe.acks.values()) >= start + at_least, 15, "writers write")


def said(m, at, what):
    with open(m.log) as f:
        f.seek(at)
        return what in f.read()


def store_stopped(c):
    os.kill(c.etcd.proc.pid, signal.SIGSTOP)


def store_back(c):
    os.kill(c.etcd.proc.pid, signal.SIGCONT)


def test_store_away_the_primary_goes_on(cluster):
    """The store answers nobody for three ttl: everybody says yes in each round, so no commit is refused and nobody is promoted;
    the store comes back with an expired key and still knows an old view, and nothing changes hands."""
    c = cluster
    n0 = c.leader()
    started = n0.sql("SELECT pg_postmaster_start_time()")
    with WriteProbe(c) as probe:
        acked(probe, 20)
        at, began = os.path.getsize(n0.log), time.monotonic()
        store_stopped(c)
        try:
            wait_until(lambda: said(n0, at, "failsafe"), 15, "failsafe mode")
            n = sum(map(len, probe.acks.values()))
            # Three ttl of writes, at no less than a few a second.
            end = [probe.acks["n0"][-1][1] + 18]
            wait_until(lambda: probe.acks["n0"][-1][1] > end[0], 40, "writes for 18 s")
            assert sum(map(len, probe.acks.values())) > n + 100
            for m in c.others(n0):
                assert not m.is_primary()
            # The log stays readable: a decision once in loop_wait (1 s), however often it is made.
            with open(n0.log) as f:
                f.seek(at)
                lines = f.read()
            seconds = time.monotonic() - began
            assert lines.count("rule=J1") >= seconds / 3 and lines.count("ERROR") == 0
            for word in ("Lock owner: ", "rule=J1", "store renew leader"):
                assert lines.count(word) <= 1.2 * seconds + 4, word
        finally:
            store_back(c)
        wait_until(lambda: c.etcd.get("leader") == "n0", 20, "n0 has the key again")
        acked(probe, 20)
        for m in c.others(n0):
            wait_until(m.streams_from_somebody, 20, m.name + " streams")
    assert probe.overlaps() == [] and probe.missing_on(n0) == [] and probe.longest_gap() < 3
    assert n0.sql("SELECT pg_postmaster_start_time()") == started
    assert [len(a) for n, a in probe.acks.items() if n != "n0"] == [0, 0]


def test_one_member_silent_the_primary_steps_down(cluster):
    c = cluster
    n0, n1, n2 = c.members
    with WriteProbe(c) as probe:
        acked(probe, 20)
        n2.kill_all()
        n2.proc.wait(5)
        # Its entry goes with its key; until then its yes is asked for. The store is lost before that.
        store_stopped(c)
        try:
            wait_until(lambda: not n0.is_primary(), 25, "n0 steps down without n2's yes")
            assert not n1.is_primary()
        finally:
            store_back(c)
        new = c.wait_leader(30)
        assert new in (n0, n1)
        acked(probe, 20)
        n2.start()
        wait_until(n2.streams_from_somebody, 40, "n2 streams")
    assert probe.overlaps() == [] and probe.missing_on(new) == []


def test_mode_switched_off_and_on(cluster):
    """The map in the store says who may stand on it, so a leader that sees the mode off empties it, and no member is kept from the race
    by it any more; switched on again it is there again, and a lost store stops nobody."""
    c = cluster
    n0 = c.leader()
    assert n0.status("/failsafe")[0] == 200
    assert n0.status("/config", "PATCH", {"failsafe_mode": False})[0] == 200
    wait_until(lambda: c.etcd.json("failsafe") == {}, 10, lambda: "/failsafe is empty: %s" % c.etcd.get("failsafe"))
    wait_until(lambda: n0.status("/failsafe") == (200, "{}"), 5, "REST shows the key as it is")
    with WriteProbe(c) as probe:
        acked(probe, 20)
        # Without the mode the primary gives way before its lease ends, as ever.
        store_stopped(c)
        try:
            wait_until(lambda: not n0.is_primary(), 15, "n0 is no primary any more")
        finally:
            store_back(c)
        leader = c.wait_leader(30)
        acked(probe, 20)
    assert probe.overlaps() == []
    assert leader.status("/config", "PATCH", {"failsafe_mode": True})[0] == 200
    wait_until(lambda: set(c.etcd.json("failsafe") or {}) == {"n0", "n1", "n2"}, 15, "/failsafe names all again")
    with WriteProbe(c) as probe:
        acked(probe, 20)
        at = os.path.getsize(leader.log)
        store_stopped(c)
        try:
            wait_until(lambda: said(leader, at, "continue to run as a leader because failsafe mode"), 15, "failsafe mode")
            acked(probe, 50)
        finally:
            store_back(c)
        acked(probe, 20)
    assert c.leader() is leader
    assert probe.overlaps() == []


def test_pause_with_manual_promotion(work):
    """In pause a hand promotes a replica: both are left alone; at resume the one without the key becomes a replica (9.5)."""
    c = Cluster(work, n=2)
    try:
        c.start()
        n0, n1 = c.members
        n0.sql("CREATE TABLE probe(v bigint, who text)")
        assert n0.status("/config", "PATCH", {"pause": True})[0] == 200
        for m in c.members:
            wait_until(lambda: json.loads(m.status("/patroni")[1]).get("pause") is True, 10, m.name + " in pause")
        n1.sql("SELECT pg_promote()")
        wait_until(n1.is_primary, 10, "n1 is promoted by hand")
        at = os.path.getsize(n1.log)
        wait_until(lambda: said(n1, at, "without lock"), 10, "a cycle of n1")
        at = os.path.getsize(n1.log)
        wait_until(lambda: said(n1, at, "without lock"), 10, "another cycle of n1")
        assert n0.is_primary() and n1.is_primary() and c.etcd.get("leader") == "n0"
        n1.sql("CREATE TABLE only_here(v int)")
        assert n0.status("/config", "PATCH", {"pause": None})[0] == 200
        wait_until(n1.streams_from_somebody, 40, "n1 rejoined")
        assert n0.is_primary() and c.etcd.get("leader") == "n0"
        assert n1.sql("SELECT to_regclass('only_here')") == [(None,)]
    finally:
        c.stop()
