"""A standby cluster on the real thing (ha 9.1): made from a remote primary, switched over, promoted, demoted again."""
import json
import os
import signal

import pytest

from cluster import Cluster
from util import wait_until


@pytest.fixture
def clusters(work):
    made = []
    for sub in ("a", "b"):
        os.mkdir(os.path.join(work, sub))
    try:
        a = Cluster(os.path.join(work, "a"), n=1)
        made.append(a)
        a.start()
        a.members[0].sql("CREATE TABLE t(v int)")
        remote = {"host": "127.0.0.1", "port": a.members[0].pg, "create_replica_methods": ["basebackup"]}
        b = Cluster(os.path.join(work, "b"), n=2, standby_cluster=remote)
        made.append(b)
        b.members[0].start()
        wait_until(lambda: b.etcd.get("leader") == "n0" and b.members[0].streams_from_somebody(), 40, "n0 leads the standby cluster")
        b.members[1].start()
        wait_until(b.members[1].streams_from_somebody, 40, "n1 streams")
        yield a, b, remote
    finally:
        for c in made:
            c.stop()


def source(m):
    rows = m.try_sql("SELECT sender_port FROM pg_stat_wal_receiver")
    return rows[0][0] if rows else None


def role(m):
    text = m.status("/patroni")[1]
    return json.loads(text).get("role") if text else None


def has(m, v):
    return (m.try_sql("SELECT v FROM t WHERE v = %d" % v) or []) == [(v,)]


def logged(m, text):
    with open(m.log, errors="replace") as f:
        return f.read().count(text)


def test_standby_cluster_life(clusters):
    a, b, remote = clusters
    p, (n0, n1) = a.members[0], b.members
    assert b.etcd.get("initialize") == a.etcd.get("initialize")
    wait_until(lambda: source(n0) == p.pg and source(n1) == n0.pg, 20, "n0 streams from the remote primary, n1 from n0")
    wait_until(lambda: role(n0) == "standby_leader", 20, "role standby_leader")
    for path in ("/standby_leader", "/standby-leader", "/leader"):
        wait_until(lambda: n0.status(path)[0] == 200, 15, path)
    assert n0.status("/primary")[0] == 503
    wait_until(lambda: n1.status("/replica")[0] == 200, 20, "n1 says so")
    assert n1.status("/standby_leader")[0] == 503
    p.sql("INSERT INTO t VALUES (1)")
    wait_until(lambda: has(n0, 1) and has(n1, 1), 20, "rows come down the cascade")

    # The standby leader changes: the new one follows the remote, the old one follows the new one.
    b.wait_followed(n0)
    code, text = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1"}, 40)
    assert code == 200, text
    wait_until(lambda: b.etcd.get("leader") == "n1" and source(n1) == p.pg, 40, "n1 follows the remote primary")
    wait_until(lambda: source(n0) == n1.pg, 40, "n0 follows n1")
    p.sql("INSERT INTO t VALUES (2)")
    wait_until(lambda: has(n0, 2) and has(n1, 2), 20, "rows come down the cascade again")

    # And by failure.
    n1.kill_all()
    n1.proc.wait(5)
    wait_until(lambda: b.etcd.get("leader") == "n0" and source(n0) == p.pg, 40, "n0 follows the remote primary")
    n1.start()
    wait_until(lambda: source(n1) == n0.pg, 40, "n1 follows n0")
    assert not n0.is_primary() and not n1.is_primary()

    # Promotion of the cluster, and a life of its own.
    assert n0.status("/config", "PATCH", {"standby_cluster": None})[0] == 200
    wait_until(n0.is_primary, 40, "n0 is promoted")
    wait_until(lambda: n0.status("/primary")[0] == 200, 20, "n0 says so")
    n0.sql("INSERT INTO t VALUES (3)")
    wait_until(lambda: has(n1, 3), 40, "n1 follows the promotion")
    assert not has(p, 3)

    # Back under the remote primary, which has gone on as well: the divergence is rewound.
    p.sql("INSERT INTO t VALUES (4)")
    assert n0.status("/config", "PATCH", {"standby_cluster": remote})[0] == 200
    wait_until(lambda: source(n0) == p.pg or source(n1) == p.pg, 60, "a standby leader follows the remote primary")
    wait_until(lambda: has(n0, 4) and has(n1, 4), 60, "both have the remote primary's rows")
    assert not has(n0, 3) and not has(n1, 3)
    assert not n0.is_primary() and not n1.is_primary()


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed"])
def test_rewind_of_a_timeline_without_a_checkpoint(clusters, killed):
    """A standby that replayed the first records of a timeline, but no checkpoint on it: before 16 pg_rewind takes the timeline of the
    last checkpoint for the server's and finds nothing to do (X76)."""
    a, b, remote = clusters
    p, (n0, n1) = a.members[0], b.members
    wait_until(lambda: source(n0) == p.pg and source(n1) == n0.pg, 20, "n0 streams from the remote primary, n1 from n0")
    b.wait_followed(n0)
    checkpointer = n0.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")[0][0]
    os.kill(checkpointer, signal.SIGSTOP)
    assert n0.status("/config", "PATCH", {"standby_cluster": None})[0] == 200
    wait_until(n0.is_primary, 40, "n0 is promoted")
    n0.sql("INSERT INTO t VALUES (3)")
    wait_until(lambda: has(n1, 3), 40, "n1 follows the promotion")
    p.sql("INSERT INTO t VALUES (4)")
    config = json.loads(b.etcd.get("config"))
    config["standby_cluster"] = remote
    b.etcd.ctl("put", "/service/it/config", json.dumps(config))
    n0.kill_all()
    n0.proc.wait(5)
    if killed:
        n1.kill_all()
        n1.proc.wait(5)
        n1.start()
    wait_until(lambda: source(n1) == p.pg and has(n1, 4), 60, "n1 follows the remote primary")
    assert not os.path.exists(n1.dir + "/data.unfinished")
    assert not [f for f in os.listdir(n1.dir + "/data/pg_wal") if f.endswith(".history")]
    assert not has(n1, 3) and not n1.is_primary()
    # It has heard of no later timeline any more: nothing is left to check.
    looked = "checking whether this node diverged"
    quiet = "no action. I am (n1), the standby leader with the lock"
    seen, at = logged(n1, looked), logged(n1, quiet)
    wait_until(lambda: logged(n1, quiet) >= at + 4, 30, "four quiet cycles")
    assert logged(n1, looked) <= seen + 1, "checked at each cycle"


def setting(m, name):
    rows = m.try_sql("SELECT setting FROM pg_settings WHERE name = '%s'" % name)
    return rows[0][0] if rows else None


def test_changed_section_reaches_the_standby_leader(clusters):
    """Recovery settings that change are compared with those in force (ha 11.7), reloaded, and never restart in vain."""
    a, b, remote = clusters
    p, (n0, n1) = a.members[0], b.members
    started = [m.sql("SELECT pg_postmaster_start_time()") for m in (n0, n1)]

    def patch(section):
        assert n0.status("/config", "PATCH", {"standby_cluster": section})[0] == 200

    patch({"restore_command": "false %f", "recovery_min_apply_delay": "5s"})
    wait_until(lambda: setting(n0, "restore_command") == "false %f", 20, "restore_command reaches the standby leader")
    wait_until(lambda: setting(n1, "restore_command") == "false %f", 20, "and its replica")
    wait_until(lambda: setting(n0, "recovery_min_apply_delay") == "5000", 20, "the delay reaches the standby leader")
    assert setting(n1, "recovery_min_apply_delay") == "0"
    patch({"recovery_min_apply_delay": None})

    # Another address of the same primary; then the archive alone.
    patch({"host": "localhost"})
    wait_until(lambda: "host=localhost" in (setting(n0, "primary_conninfo") or ""), 20, "the new host is followed")
    wait_until(lambda: source(n0) == p.pg, 20, "n0 streams from the new host")
    patch({"host": None, "port": None})
    wait_until(lambda: setting(n0, "primary_conninfo") == "" and source(n0) is None, 20, "n0 streams no more")
    assert source(n1) == n0.pg
    patch({"host": "127.0.0.1", "port": p.pg})
    wait_until(lambda: source(n0) == p.pg, 30, "n0 streams again")
    p.sql("INSERT INTO t VALUES (9)")
    wait_until(lambda: has(n0, 9) and has(n1, 9), 20, "rows come down the cascade")
    assert started == [m.sql("SELECT pg_postmaster_start_time()") for m in (n0, n1)], "no restart"
