"""Permanent logical slots: created on the primary in their database, copied to a standby, advanced behind the consumer, and
usable after a switchover from where the consumer stood."""
import pytest

from cluster import Cluster
from util import wait_until

PLUGIN = "test_decoding"


@pytest.fixture
def two(work):
    c = Cluster(work, 2, postgresql={"parameters": {"wal_level": "logical"}},
                slots={"one": {"type": "logical", "database": "postgres", "plugin": PLUGIN}})
    yield c
    c.stop()


def slots(m):
    rows = m.try_sql("SELECT slot_name, confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_type = 'logical'")
    return dict(rows or [])


def log_of(m):
    with open(m.log) as f:
        return f.read()


def in_sync(a, b, name):
    wait_until(lambda: name in slots(a) and slots(a).get(name) == slots(b).get(name), 40,
               "slot %s is where it is on the primary" % name)


def consume(m, name):
    """Text of the inserted rows since the last time."""
    return [r[0] for r in m.sql("SELECT data FROM pg_logical_slot_get_changes('%s', NULL, NULL)" % name) if "INSERT" in r[0]]


def test_copied_advanced_and_used_after_a_switchover(two):
    two.start()
    n0 = two.leader()
    n1 = two.others(n0)[0]
    wait_until(lambda: "one" in slots(n1), 30, "the slot is copied")
    wait_until(lambda: n1.try_sql("SHOW hot_standby_feedback") == [("on",)], 20, "the primary keeps the catalog for n1")
    n0.sql("CREATE TABLE t(v text)")
    n0.sql("INSERT INTO t VALUES ('first')")
    # A slot that is older than the base backup needs WAL that the standby never had: it is copied again when it has moved on.
    assert len(consume(n0, "one")) == 1
    in_sync(n0, n1, "one")
    postmaster, copied = n1.postmaster(), log_of(n1).count("logical slot one: copied from the primary")
    n0.sql("INSERT INTO t VALUES ('taken')")
    assert len(consume(n0, "one")) == 1
    in_sync(n0, n1, "one")
    assert n1.postmaster() == postmaster, "advancing needs no restart"
    assert log_of(n1).count("logical slot one: copied from the primary") == copied
    wait_until(lambda: "Logical slot one is safe to be used after a failover" in log_of(n1), 30, "the copy is proven")

    n0.sql("INSERT INTO t VALUES ('left')")
    two.wait_followed(n0)
    assert n0.status("/switchover", "POST", {"leader": n0.name, "candidate": n1.name}, 40)[0] == 200
    wait_until(n1.is_primary, 40, "n1 leads")
    left = consume(n1, "one")
    assert len(left) == 1 and "'left'" in left[0]
    assert "might be unsafe" not in log_of(n1)
    wait_until(lambda: "one" in slots(n0), 30, "the old primary keeps it, or has it copied")


def test_another_database_and_a_definition_that_changes(two):
    two.start()
    n0 = two.leader()
    n1 = two.others(n0)[0]
    wait_until(lambda: "one" in slots(n1), 30, "the slot is copied")
    n0.sql("CREATE DATABASE other")
    assert n0.status("/config", "PATCH", {"slots": {"two": {"type": "logical", "database": "other", "plugin": PLUGIN}}})[0] == 200
    wait_until(lambda: set(slots(n0)) == set(slots(n1)) == {"one", "two"}, 40, "both have both")
    # Copies are made by restarts.
    wait_until(lambda: n1.try_sql("SELECT database FROM pg_replication_slots WHERE slot_name = 'two'") == [("other",)], 20, "in its database")
    in_sync(n0, n1, "two")
    assert n0.status("/config", "PATCH", {"slots": {"one": None, "two": {"database": "postgres"}}})[0] == 200

    def moved(m):
        return m.try_sql("SELECT slot_name, database FROM pg_replication_slots WHERE slot_type = 'logical'")
    wait_until(lambda: moved(n0) == moved(n1) == [("two", "postgres")], 40, "made anew in the other database, on both")
