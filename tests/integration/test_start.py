"""A standby that is started and cannot become consistent by itself."""
import os
import re

from cluster import Cluster
from test_ha_life import CallbackMember, Called
from test_timeline import control
from util import wait_until


def segment(lsn):
    high, low = (int(x, 16) for x in lsn.split("/"))
    return high << 8 | low >> 24


def test_start_hears_of_the_next_leader(work):
    """A standby lost records of its own that pages on its disk rest on, and is started while its leader has just died: what it waits for
    comes from the next leader, which it has to be told although it accepts no connections (X77). PostgreSQL's own limit is a minute."""
    c = Cluster(work, n=3, ttl=10, member=CallbackMember, postgresql={
        "use_pg_rewind": True, "parameters": {"max_connections": 60, "shared_buffers": "1MB", "wal_keep_size": "256MB"}})
    try:
        c.start()
        n0, n1, n2 = c.members
        n0.sql("CREATE TABLE t(v int, filler text)")
        c.wait_followed(n0)
        n0.sql("CHECKPOINT")
        n2.sql("CHECKPOINT")
        for _ in range(2):
            n0.sql("SELECT pg_switch_wal()")
            n0.sql("INSERT INTO t SELECT v, repeat('x', 500) FROM generate_series(1, 10000) v")
        for m in (n1, n2):
            wait_until(lambda: m.try_sql("SELECT count(*) FROM t") == [(20000,)], 30, m.name + " has all")
        n2.kill_all()
        n2.proc.wait(5)
        redo, needed = (segment(control(n2, label)) for label in ("Latest checkpoint's REDO location", "Minimum recovery ending location"))
        assert redo < needed
        for f in os.listdir(n2.dir + "/data/pg_wal"):
            if re.fullmatch("[0-9A-F]{24}", f) and (int(f[8:16], 16) << 8 | int(f[16:], 16)) > redo:
                os.unlink(n2.dir + "/data/pg_wal/" + f)
        n0.kill_all()
        n0.proc.wait(5)
        calls = Called(n2)
        n2.start()
        wait_until(lambda: c.leader() is n1 and n1.is_primary(), 40, "n1 leads")
        wait_until(n2.streams_from_somebody, 20, "n2 streams from n1")
        wait_until(lambda: n2.try_sql("SELECT count(*) FROM t") == [(20000,)], 20, "n2 has all")
        with open(n2.log, errors="replace") as f:
            said = f.read()
        assert "rule=X77" in said
        calls.are("on_start replica")
        # By a reload: it is the server that was started.
        assert said.count("PostgreSQL started") == 2
    finally:
        c.stop()
