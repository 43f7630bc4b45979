"""The remote primary of a standby cluster is replaced by one that lacks its last records (ha F5): the standby cluster
has them, so it cannot stream from the new one until it was rewound."""
import os

import pytest

from cluster import Cluster
from util import wait_until


@pytest.fixture
def sites(work):
    made = []
    for sub in ("a", "b"):
        os.mkdir(os.path.join(work, sub))
    try:
        a = Cluster(os.path.join(work, "a"), n=2)
        made.append(a)
        a.start()
        a.members[0].sql("CREATE TABLE t(v int)")
        hosts = {"host": "127.0.0.1,127.0.0.1", "port": "%d,%d" % tuple(m.pg for m in a.members),
                 "create_replica_methods": ["basebackup"]}
        b = Cluster(os.path.join(work, "b"), n=2, standby_cluster=hosts)
        made.append(b)
        b.members[0].start()
        wait_until(lambda: b.etcd.get("leader") == "n0" and b.members[0].streams_from_somebody(), 60, "n0 leads")
        b.members[1].start()
        yield a, b
    finally:
        for c in made:
            c.stop()


def has(m, v):
    return (m.try_sql("SELECT v FROM t WHERE v = %d" % v) or []) == [(v,)]


def test_remote_primary_is_replaced_by_one_behind(sites):
    a, b = sites
    old, new = a.members
    wait_until(new.streams_from_somebody, 40, "the remote replica streams")
    wait_until(lambda: all(m.streams_from_somebody() for m in b.members), 60, "the standby cluster streams")
    new.kill_all()
    new.proc.wait(5)
    old.sql("INSERT INTO t VALUES (5)")
    wait_until(lambda: all(has(m, 5) for m in b.members), 20, "the standby cluster has the row")
    old.kill_all()
    old.proc.wait(5)
    new.start()
    wait_until(new.is_primary, 60, "the replica without the row is promoted")
    new.sql("INSERT INTO t VALUES (6)")
    wait_until(lambda: all(has(m, 6) and not has(m, 5) for m in b.members), 90,
               "the standby cluster is rewound and follows")
    assert not any(m.is_primary() for m in b.members)
