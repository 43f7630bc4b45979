"""Other PostgreSQL than Debian 12's: the life of a cluster on each version that tests/unpack-postgres.sh unpacked and PGREGENT_PG_VERSIONS
names (`make test`: the one of the next Debian, `make integration-versions`: all)."""
import os

import pytest

from cluster import Cluster
from faults import Writers, frozen, kill, nobody_streams, thawed
from test_logical_slots import PLUGIN, consume, in_sync, log_of, slots
from test_sync import promise, wait_promise
from util import ROOT, wait_until

VERSIONS = os.environ.get("PGREGENT_PG_VERSIONS", "17").split()
# Known from that version on, or up to it; with a value that is not its default. Without a restart first.
NEW = {13: ("hash_mem_multiplier", "2.5"), 14: ("idle_session_timeout", "1h"), 15: ("recursive_worktable_factor", "9"),
       16: ("vacuum_buffer_usage_limit", "512kB"), 17: ("event_triggers", "off"), 18: ("md5_password_warnings", "off")}
GONE = {14: "operator_precedence_warning", 15: "stats_temp_directory", 16: "force_parallel_mode", 17: "db_user_namespace",
        18: "old_snapshot_threshold"}


@pytest.fixture
def version(request, monkeypatch):
    top = os.path.join(ROOT, "build/debs/pg" + request.param)
    if os.path.exists(top + ".unavailable"):
        with open(top + ".unavailable") as f:
            pytest.skip("PostgreSQL %s IS NOT TESTED: %s" % (request.param, f.read().strip()))
    monkeypatch.setenv("PGREGENT_PG_BIN", "%s/usr/lib/postgresql/%s/bin" % (top, request.param))
    return int(request.param)


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


def switch(c, new):
    old = c.leader()
    c.wait_followed(old)
    code, text = old.status("/switchover", "POST", {"leader": old.name, "candidate": new.name}, 40)
    assert code == 200, text
    wait_until(lambda: c.leader() is new and new.is_primary(), 40, new.name + " leads")
    for m in c.others(new):
        wait_until(m.streams_from_somebody, 40, m.name + " follows " + new.name)
    return new


def shown(m, name):
    return m.sql("SELECT setting || coalesce(unit, '') FROM pg_settings WHERE name = '%s'" % name)


def parameters(c, version):
    """One that the next reload takes, one that needs a restart (standbys first, since it is raised), those of this version."""
    name, value = NEW[version]
    later = [n for v, (n, _) in NEW.items() if v > version]
    gone = [n for v, n in GONE.items() if v <= version]
    patch(c, postgresql={"parameters": {"work_mem": "7MB", "max_connections": 70, name: value,
                                        **{n: NEW[v][1] for v in NEW for n in [NEW[v][0]] if v > version},
                                        **{n: "off" for n in gone}}})
    leader = c.leader()
    for m in c.members:
        wait_until(lambda: m.sql("SHOW work_mem") == [("7MB",)], 20, "work_mem on " + m.name)
        assert m.sql("SHOW " + name) == [(value,)], m.name
        wait_until(lambda: "pending_restart" in m.status()[1], 20, m.name + " waits for a restart")
    for m in c.others(leader) + [leader]:
        code, text = m.post_when_free("/restart", {"restart_pending": True})
        assert code == 200, text
        wait_until(lambda: m.try_sql("SHOW max_connections") == [("70",)], 20, "max_connections on " + m.name)
        # What this version does not know is left out and named, and the server starts.
        for n in later + gone:
            assert n in log_of(m), "%s says nothing of %s" % (m.name, n)
            assert m.sql("SELECT count(*) FROM pg_settings WHERE name = '%s' AND source = 'configuration file'" % n) == [(0,)]
    for m in c.others(leader):
        wait_until(m.streams_from_somebody, 40, m.name + " streams again")


def diverge(c):
    """The leader's node goes off with rows that nobody else has; another one leads. Returns (old, new)."""
    old = c.leader()
    stopped = frozen(c.others(old))
    try:
        nobody_streams(old)
        old.sql("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS v")
        old.kill_all()
        old.proc.wait(5)
    finally:
        thawed(stopped)
    new = c.wait_leader(40, but=old)
    new.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS v")
    return old, new


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_life(make, version):
    c = make()
    n0, n1, n2 = c.members
    assert n0.sql("SHOW server_version_num")[0][0].startswith(str(version))
    assert '"server_version": %d' % version in n0.status()[1]
    parameters(c, version)
    with Writers(c) as w:
        switch(c, n1)
        w.wait_ack(n1)
        switch(c, n0)
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []
    with Writers(c) as w:
        old, new = diverge(c)
        w.wait_ack(new)
        old.start()
        wait_until(old.streams_from_somebody, 60, "the old primary streams")
        wait_until(lambda: old.try_sql("SELECT count(*) FROM kept") == [(1000,)], 20, "it has the new one's rows")
        assert old.sql("SELECT to_regclass('lost')") == [(None,)]
        assert "job started name=pg_rewind" in log_of(old)
    w.handed_over(old, new)
    # Crash of the server: the same primary again.
    pm = new.postmaster()
    kill(pm)
    wait_until(lambda: new.postmaster() != pm and new.is_primary(), 30, "the primary is back")
    assert c.leader() is new
    copies = old.copies()
    code, text = old.post_when_free("/reinitialize")
    assert code == 200, text
    wait_until(lambda: old.copies() > copies, 40, "it is made anew")
    wait_until(old.streams_from_somebody, 60, "and streams again")


@pytest.mark.parametrize("version", VERSIONS, indirect=True)
def test_slots_and_quorum(make, version):
    c = make(synchronous_mode="quorum", postgresql={"use_pg_rewind": True, "parameters": {"wal_level": "logical"}},
             slots={"one": {"type": "logical", "database": "postgres", "plugin": PLUGIN}, "other": {"type": "physical"}})
    n0, n1, n2 = c.members
    wait_promise(c, ["n1", "n2"], 1)
    for m in (n1, n2):
        wait_until(lambda: "one" in slots(m), 30, "the slot is copied to " + m.name)
        wait_until(lambda: "Logical slot one is safe to be used after a failover" in log_of(m), 30, "the copy is proven")
        wait_until(lambda: m.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'other'") == [(1,)], 20, "other")
    n0.sql("CREATE TABLE t(v text)")
    n0.sql("INSERT INTO t VALUES ('taken')")
    assert len(consume(n0, "one")) == 1
    for m in (n1, n2):
        in_sync(n0, m, "one")
    n0.sql("INSERT INTO t VALUES ('left')")
    # A copy whose WAL is gone is made again, and its standby starts anew for it.
    wait_promise(c, ["n1", "n2"], 1)
    wait_until(n1.streams_from_somebody, 40, "n1 streams")
    switch(c, n1)
    assert len(consume(n1, "one")) == 1
    wait_promise(c, ["n0", "n2"], 1)
    with Writers(c) as w:
        n1.kill_all()
        n1.proc.wait(5)
        new = c.wait_leader(40, but=n1)
        w.wait_ack(new)
        n1.start()
        wait_until(n1.streams_from_somebody, 60, "n1 streams again")
        wait_until(lambda: len(promise(c)[1]) == 2, 30, "two voters again")
    w.handed_over(n1, new)
    assert w.missing_on(new) == []
    wait_until(lambda: "one" in slots(n1), 30, "n1 has the slot")


@pytest.mark.parametrize("version", [v for v in VERSIONS if int(v) >= 17], indirect=True)
def test_failover_slots(make, version):
    """From 17 on PostgreSQL syncs slots itself; what a former primary has of them is in its way (ha 7.4-2)."""
    c = make(postgresql={"parameters": {"wal_level": "logical", "sync_replication_slots": "on", "hot_standby_feedback": "on"}})
    n0, n1, n2 = c.members
    n0.sql("SELECT pg_create_logical_replication_slot('fs', '%s', failover => true)" % PLUGIN)

    def synced(m):
        # An idle slot begins before what a standby still has: the consumer moves it on.
        c.leader().sql("SELECT pg_log_standby_snapshot()")
        consume(c.leader(), "fs")
        return m.try_sql("SELECT synced FROM pg_replication_slots WHERE slot_name = 'fs' AND NOT temporary") == [(True,)]
    for m in (n1, n2):
        wait_until(lambda: synced(m), 40, "fs is synced to " + m.name, every=0.2)
    n0.sql("CREATE TABLE t(v text)")
    n0.sql("INSERT INTO t VALUES ('a')")
    switch(c, n1)
    assert [x for x in consume(n1, "fs") if "'a'" in x]
    for m in (n0, n2):
        wait_until(lambda: synced(m), 40, "fs is synced to " + m.name, every=0.2)
    assert "dropping replication slot fs" in log_of(n0)
    assert "dropping replication slot fs" not in log_of(n2)
