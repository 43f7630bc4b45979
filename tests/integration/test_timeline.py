"""Which timeline a standby is on, where pg_control does not know it yet."""
import os
import signal
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


def test_a_killed_standby_that_was_ahead_is_rewound(work):
    """A standby is killed together with its leader, with records that the next leader never got. If its recovery is ended before
    pg_rewind, it must not end on a number that the leader, of which it has not heard, has taken."""
    c = Cluster(work, n=3)
    try:
        c.start()
        n0, n1, n2 = c.members
        n0.sql("CREATE TABLE t(v int)")
        c.wait_followed(n0)
        sender = n0.sql("SELECT pid FROM pg_stat_replication WHERE application_name = 'n2'")[0][0]
        os.kill(sender, signal.SIGSTOP)
        n0.sql("INSERT INTO t VALUES (1)")
        n0.sql("CHECKPOINT")
        end = n0.sql("SELECT pg_current_wal_lsn()")[0][0]
        wait_until(lambda: n1.try_sql("SELECT pg_last_wal_replay_lsn() >= '%s'" % end) == [(True,)], 20, "n1 is ahead of n2")
        n1.sql("CHECKPOINT")  # a restart point: pg_control knows how far it is
        for m in (n0, n1):
            m.kill_all()
            m.proc.wait(5)
        wait_until(lambda: c.leader() is n2 and n2.is_primary(), 40, "n2 leads")
        assert n2.sql("SELECT v FROM t") == []
        n2.sql("INSERT INTO t VALUES (2)")
        assert control(n1, "Database cluster state") == "in archive recovery"
        for m in (n1, n0):
            m.start()
            wait_until(m.streams_from_somebody, 60, m.name + " streams")
            wait_until(lambda: m.try_sql("SELECT v FROM t") == [(2,)], 20, m.name + " has what n2 has")
            assert not os.path.exists(m.dir + "/data.unfinished")
        with open(n1.log, errors="replace") as f:
            assert "pg_rewind succeeded" in f.read()
    finally:
        c.stop()
