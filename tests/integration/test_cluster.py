"""Three members end to end on real PostgreSQL and etcd, under writers that write to every member directly: bootstrap, replication, switchover,
node loss, pause, restart, reinitialise. The faults of processes, store and disk: test_fault_*."""
import os
import signal
import time

import pytest

from cluster import Cluster, WriteProbe
from faults import Writers
from util import wait_until


@pytest.fixture
def cluster(work):
    c = Cluster(work)
    try:
        c.start()
        c.leader().sql("CREATE TABLE probe(v bigint, who text)")
        yield c
    finally:
        c.stop()


def settled(c):
    """Everybody but the leader streams from it."""
    leader = c.wait_leader(30)
    for m in c.others(leader):
        wait_until(m.streams_from_somebody, 40, m.name + " streams again")
    return leader


def pg_start(m):
    return m.sql("SELECT pg_postmaster_start_time()")


def test_bootstrap_keys_roles_and_rest(cluster):
    c = cluster
    n0 = c.members[0]
    assert c.etcd.get("initialize") == str(n0.sql("SELECT system_identifier FROM pg_control_system()")[0][0])
    config = c.etcd.json("config")
    assert config["ttl"] == 6 and config["postgresql"]["parameters"]["max_connections"] == 60
    users = {r[0] for r in n0.sql("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'")}
    assert users == {"postgres", "replicator", "rewind_user"}
    wait_until(lambda: (c.etcd.json("members/n1") or {}).get("replication_state") == "streaming", 20, "n1's key")
    assert n0.sql("SELECT count(*) FROM pg_replication_slots WHERE active")[0][0] == 2
    wait_until(lambda: n0.status("/primary")[0] == 200, 15, "n0 says that it is primary")
    wait_until(lambda: c.members[1].status("/replica")[0] == 200, 15, "n1 says that it is a replica")
    assert n0.status("/replica")[0] == 503 and c.members[1].status("/primary")[0] == 503
    c.wait_listed(c.members[2], lambda row: row["role"] == ("leader" if row["name"] == "n0" else "replica"))
    assert n0.status("/config", "PATCH", {"postgresql": {"parameters": {"work_mem": "7MB"}}})[0] == 200
    for m in c.members:
        wait_until(lambda: m.sql("SHOW work_mem") == [("7MB",)], 20, "work_mem on " + m.name)


def test_switchover_and_back_loses_nothing(cluster):
    c = cluster
    with WriteProbe(c) as probe:
        probe.first_ack()
        for target in ("n1", "n0"):
            old = c.leader()
            c.wait_followed(old)
            code, text = old.status("/switchover", "POST", {"leader": old.name, "candidate": target}, 40)
            assert (code, text) == (200, 'Successfully switched over to "%s"' % target)
            assert c.wait_leader(20, but=old).name == target
            settled(c)
    assert probe.overlaps() == []
    assert probe.missing_on(c.leader()) == []


def test_node_off_failover_and_rejoin(cluster):
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        n0.kill_all()
        new = c.wait_leader(25, but=n0)
        w.wait_ack(new)
        n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
    history = wait_until(lambda: c.etcd.json("history"), 20, "history")
    assert history[-1][0] == 1 and history[-1][4] == new.name


def test_pause_and_resume(cluster):
    c = cluster
    n0 = c.leader()
    assert n0.status("/config", "PATCH", {"pause": True})[0] == 200
    wait_until(lambda: all((c.etcd.json("members/" + m.name) or {}).get("pause") for m in c.members), 20, "pause is seen")
    os.kill(n0.postmaster(), signal.SIGKILL)
    time.sleep(4)
    assert not any(m.is_primary() for m in c.members)
    assert n0.status("/config", "PATCH", {"pause": None})[0] == 200
    settled(c)


def test_restart_reload_reinitialize(cluster):
    c = cluster
    n1 = c.members[1]
    before = pg_start(n1)
    assert n1.post_when_free("/restart") == (200, "restarted successfully")
    assert pg_start(n1) != before
    settled(c)
    assert n1.status("/reload", "POST")[0] == 202
    assert c.leader().status("/reinitialize", "POST") == (503, "I am the leader, can not reinitialize")
    copies = n1.copies()
    assert n1.post_when_free("/reinitialize") == (200, "reinitialize started")
    wait_until(lambda: n1.copies() > copies, 30, "n1 is being made anew")
    settled(c)


def test_ttl_changes_without_a_failover(cluster):
    c = cluster
    n0 = c.leader()
    started = pg_start(n0)
    with WriteProbe(c) as probe:
        for ttl in (20, 5, 9):
            assert n0.status("/config", "PATCH", {"ttl": ttl})[0] == 200
            time.sleep(4)
            assert c.leader() is n0
    assert pg_start(n0) == started
    assert probe.missing_on(n0) == [] and probe.longest_gap() < 1.0
