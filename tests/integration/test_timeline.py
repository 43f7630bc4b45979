"""Which timeline a standby is on, where pg_control does not know it yet."""
import os
import subprocess

from cluster import Cluster
from util import pg_bin, wait_until


def control(m, label):
    out = subprocess.run([pg_bin("pg_controldata"), m.dir + "/data"], env=dict(os.environ, LC_ALL="C"), stdout=subprocess.PIPE,
                         check=True).stdout.decode()
    return next(line.split(":", 1)[1].strip() for line in out.splitlines() if line.startswith(label))


def test_a_standby_alone_knows_its_timeline(work):
    """Both nodes are lost, the standby comes back alone. It replays its leader's timeline from pg_wal and streams from nobody; pg_control
    learns of that timeline with the next page that is written. Taken for the one before, its last records would be on a dead branch, and
    nobody would lead."""
    c = Cluster(work, n=2, postgresql={"use_pg_rewind": True, "parameters": {"max_connections": 60, "bgwriter_lru_maxpages": 0}})
    try:
        c.start()
        n0, n1 = c.members
        n0.sql("CREATE TABLE t(v int)")
        c.wait_followed(n0)
        code, text = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1"}, 40)
        assert code == 200, text
        wait_until(lambda: c.leader() is n1 and n1.is_primary(), 20, "n1 leads")
        wait_until(n0.streams_from_somebody, 30, "n0 streams")
        wait_until(lambda: c.etcd.json("history"), 20, "the promotion is in /history")
        n1.sql("INSERT INTO t VALUES (1)")
        wait_until(lambda: n0.try_sql("SELECT v FROM t") == [(1,)], 20, "n0 replays the new timeline")
        for m in (n1, n0):
            m.kill_all()
            m.proc.wait(5)
        assert control(n0, "Min recovery ending loc's timeline") == "1" == control(n0, "Latest checkpoint's TimeLineID")
        n0.start()
        wait_until(lambda: c.leader() is n0 and n0.is_primary(), 40, "n0 leads")
        assert n0.sql("SELECT v FROM t") == [(1,)]
    finally:
        c.stop()
