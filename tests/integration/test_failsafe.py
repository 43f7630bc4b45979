"""Failsafe mode and manual promotion in pause on the real thing (ha 9.4, 9.5)."""
import json
import os
import signal
import time

import pytest

from cluster import Cluster, WriteProbe
from util import freeze, wait_until


def all_named(c):
    """The store names all members, and each of them knows it: whoever asks, and whoever is asked."""
    def everybody(text):
        return set(json.loads(text or "{}")) == {"n0", "n1", "n2"}
    wait_until(lambda: everybody(c.etcd.get("failsafe")), 30, "/failsafe names all")
    for m in c.members:
        def knows():
            code, text = m.status("/failsafe")
            return code == 200 and everybody(text)
        wait_until(knows, 15, lambda: "%s knows it: %s" % (m.name, m.status("/failsafe")))


@pytest.fixture
def cluster(work):
    c = Cluster(work, failsafe_mode=True)
    try:
        c.start()
        c.leader().sql("CREATE TABLE probe(v bigint, who text)")
        all_named(c)
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
    freeze(c.etcd.proc.pid)


def store_back(c):
    os.kill(c.etcd.proc.pid, signal.SIGCONT)


def whole_again(c, probe):
    wait_until(lambda: c.etcd.get("leader") == "n0", 20, "n0 has the key again")
    acked(probe, 20)
    for m in c.others(c.members[0]):
        wait_until(m.streams_from_somebody, 40, m.name + " streams")


def undisturbed(n0, probe, started):
    """All the time n0 wrote, the same PostgreSQL, and nobody else; nothing is lost."""
    assert probe.overlaps() == [] and probe.missing_on(n0) == [] and probe.longest_gap() < 3
    assert n0.sql("SELECT pg_postmaster_start_time()") == started
    assert [len(a) for n, a in probe.acks.items() if n != "n0"] == [0, 0]


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
        whole_again(c, probe)
    undisturbed(n0, probe, started)


def test_store_away_workers_end(cluster):
    """Every member's worker ends while the store is away, the primary's again and again: each new one goes on with what the one before
    it left, and gives its word without having seen the store."""
    c = cluster
    n0 = c.leader()
    started = n0.sql("SELECT pg_postmaster_start_time()")

    def replaced(m):
        old, at = m.helper("worker"), os.path.getsize(m.log)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: m.helper("worker") not in (None, old), 5, "a new worker of " + m.name)
        return at

    with WriteProbe(c) as probe:
        acked(probe, 20)
        at = os.path.getsize(n0.log)
        store_stopped(c)
        try:
            # One before the store counts as away, the others while the primary stands on the word of the others.
            for _ in range(4):
                at = replaced(n0)
                wait_until(lambda: said(n0, at, "rule=X74"), 10, "it takes over what was known")
                at = os.path.getsize(n0.log)
                wait_until(lambda: said(n0, at, "rule=J1"), 10, "it goes on in failsafe mode")
                wait_until(lambda: n0.status("/primary", timeout=5)[0] == 200, 5, "shown as primary")
            for m in c.others(n0):
                replaced(m)
                # A ttl of rounds, in which the new one gave its word too.
                end = time.monotonic() + 7
                wait_until(lambda: time.monotonic() > end and probe.acks["n0"][-1][1] > end, 12, "writes for 7 s")
                assert n0.status("/primary", timeout=5)[0] == 200
        finally:
            store_back(c)
        whole_again(c, probe)
    undisturbed(n0, probe, started)


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
    wait_until(lambda: c.etcd.json("failsafe") == {}, 20, lambda: "/failsafe is empty: %s" % c.etcd.get("failsafe"))
    for m in c.members:
        wait_until(lambda: m.status("/failsafe") == (200, "{}"), 15, "REST shows the key as it is")
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
    all_named(c)
    with WriteProbe(c) as probe:
        acked(probe, 20)
        at = os.path.getsize(leader.log)
        store_stopped(c)
        try:
            wait_until(lambda: said(leader, at, "continue to run as a leader because failsafe mode"), 15, "failsafe mode")
            acked(probe, 50)
        finally:
            store_back(c)
        # The key may have ended with the store away: its holder takes it again.
        wait_until(lambda: c.leader() is leader, 20, "the same leader has the key")
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
            wait_until(lambda: json.loads(m.status("/patroni")[1] or "{}").get("pause") is True, 20, m.name + " in pause")
        n1.sql("SELECT pg_promote()")
        wait_until(n1.is_primary, 20, "n1 is promoted by hand")
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
