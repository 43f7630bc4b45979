"""WAL of a timeline that ended: what waited for the archive gets there before pg_rewind or crash recovery can lose it, and
what pg_rewind misses comes back from the archive."""
import os

import pytest

from cluster import Cluster
from faults import frozen, nobody_streams, thawed
from util import give_to_pg_user, wait_until

# Both run in the data directory, as PostgreSQL runs them. The segment is taken away: as a checkpoint would do with those
# that are archived, if nothing else held them.
ARCHIVE = "test -e ../open && test ! -e ../archive/%f && cp %p ../archive/%f && rm %p"
RESTORE = "cp ../archive/%f %p"


def segments(path, end=""):
    return sorted(f[:len(f) - len(end)] for f in os.listdir(path) if f.endswith(end) and len(f) == 24 + len(end))


@pytest.fixture
def two(work):
    c = Cluster(work, 2, maximum_lag_on_failover=1 << 30, postgresql={
        "use_pg_rewind": True, "parameters": {"archive_mode": "on", "archive_command": ARCHIVE,
                                              "restore_command": RESTORE, "wal_keep_size": "128MB"}})
    for m in c.members:
        os.mkdir(m.dir + "/archive")
        give_to_pg_user(m.dir + "/archive")
    yield c
    c.stop()


def diverge(c):
    """n0 writes what n1 never sees, is killed, and n1 leads."""
    n0, n1 = c.members
    wait_until(lambda: (c.etcd.json("members/n1") or {}).get("state") == "running", 20, "n1 is known")
    stopped = frozen([n1])
    try:
        nobody_streams(n0)
        for i in range(3):
            n0.sql("CREATE TABLE lost%d AS SELECT generate_series(1, 100) AS v" % i)
            n0.sql("SELECT pg_switch_wal()")
            n0.sql("CHECKPOINT")
        n0.sql("CREATE TABLE lost3 AS SELECT generate_series(1, 100) AS v")
        n0.kill_all()
    finally:
        thawed(stopped)
    wait_until(lambda: n1.is_primary() and c.etcd.get("leader") == "n1", 40, "n1 leads")
    n1.sql("CREATE TABLE kept AS SELECT generate_series(1, 100) AS v")
    n0.proc.wait(10)


def test_the_ended_timeline_is_archived_and_read_from_there(two):
    two.start()
    n0 = two.members[0]
    diverge(two)
    wal = n0.dir + "/data/pg_wal"
    waiting = segments(wal + "/archive_status", ".ready")
    assert len(waiting) >= 3 and os.listdir(n0.dir + "/archive") == []
    open(n0.dir + "/open", "w").close()
    n0.start()
    wait_until(n0.streams_from_somebody, 60, "n0 streams")
    wait_until(lambda: n0.try_sql("SELECT count(*) FROM kept") == [(100,)], 20, "n0 has n1's rows")
    assert n0.sql("SELECT to_regclass('lost3')") == [(None,)]
    with open(n0.log) as f:
        log = f.read()
    # Before the first thing that could lose them, and whole.
    assert set(waiting) <= set(os.listdir(n0.dir + "/archive"))
    for name in waiting:
        assert os.path.getsize(n0.dir + "/archive/" + name) == 16 * 1024 * 1024
    assert log.index("archiving segment " + waiting[-1]) < log.index("job started name=crash recovery")
    assert log.index("job started name=crash recovery") < log.index("job started name=pg_rewind")
    # The fork lies in a segment that was only in the archive by then.
    assert "with restore_command" in log and "pg_rewind succeeded" in log
