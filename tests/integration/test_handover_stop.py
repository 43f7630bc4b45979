"""A clean stop of the leader: who has its last record leads at once, also while the old server is still archiving (ha 3.5, V11); and
when nobody is left to ask, nothing is waited for."""
import json
import os
import signal
import time

import pytest

from cluster import Cluster
from pace import Pace
from util import alive, wait_until


@pytest.fixture
def cluster(work):
    gate = os.path.join(work, "gate")
    with open(gate, "w"):
        pass
    os.chmod(gate, 0o666)
    command = "while [ ! -e %s ]; do sleep 0.05; done" % gate
    c = Cluster(work, postgresql={
        "use_pg_rewind": True, "parameters": {"archive_mode": "on", "archive_command": command}})
    c.gate = gate
    try:
        yield c.start()
    finally:
        if not os.path.exists(gate):
            with open(gate, "w"):
                pass
        c.stop()


def ended(pid):
    """Gone, or waiting for a parent that does not look."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def said(m, what):
    return what in m.proc.text()


def test_the_key_is_given_away_while_the_old_server_archives(cluster):
    c = cluster
    n0 = c.leader()
    n0.sql("CREATE TABLE t(i int)")
    n0.sql("INSERT INTO t VALUES (1)")
    os.unlink(c.gate)
    n0.sql("SELECT pg_switch_wal()")
    n0.sql("INSERT INTO t VALUES (2)")
    pm = n0.postmaster()
    n0.proc.signal(signal.SIGTERM)
    wait_until(lambda: said(n0, "the leader key is given away now"), 20, "n0 gives the key away")
    new = c.wait_leader(5, n0)
    assert alive(pm), "the old postmaster still archives"
    # It writes no more, and the supervisor knows: nothing is fenced when the old lease runs out.
    new.sql("INSERT INTO t VALUES (3)")
    end = time.monotonic() + c.dcs["ttl"] + 1
    wait_until(lambda: time.monotonic() > end, c.dcs["ttl"] + 3, "the old lease is over")
    assert alive(pm)
    with open(c.gate, "w"):
        pass
    assert n0.proc.wait(30) == 0
    assert not alive(pm)
    assert new.sql("SELECT i FROM t ORDER BY i") == [(1,), (2,), (3,)]
    # It comes back as a replica, without a rewind.
    n0.start()
    wait_until(n0.streams_from_somebody, 30, "n0 streams")
    assert not said(n0, "running pg_rewind")


def test_nobody_is_left_to_ask(cluster):
    c = cluster
    n0 = c.leader()
    for m in c.others(n0):
        m.kill_all()
        m.proc.wait(5)
    pm = n0.postmaster()
    n0.proc.signal(signal.SIGTERM)
    wait_until(lambda: not alive(pm), 30, "PostgreSQL has ended")
    with Pace() as pace:
        began = time.monotonic()
        assert n0.proc.wait(20) == 0
        assert pace.took(began) < 2.5
    assert c.etcd.get("leader") is None


def test_a_server_that_the_deadman_fenced_is_not_shown_as_running(work):
    """The supervisor is frozen and cannot tell; the worker sees by itself that the postmaster has ended."""
    c = Cluster(work, n=1)
    try:
        m = c.members[0]
        m.start()
        wait_until(lambda: said(m, "initialized a new cluster") and m.is_primary(), 40, "n0 leads")
        pm = m.postmaster()
        wait_until(lambda: json.loads(m.status()[1] or "{}").get("state") == "running", 10, "it runs")
        os.kill(m.proc.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: ended(pm), c.dcs["ttl"] + 3, "the dead-man fences")
            # Crashed, or stopping, when the rules gave up for the store (J2) before the worker looked.
            wait_until(lambda: (c.etcd.json("members/n0") or {}).get("state") in ("crashed", "stopping"), 10, "the member key says so")
            wait_until(lambda: json.loads(m.status()[1] or "{}").get("state") in ("crashed", "stopping"), 10, "the API says so")
            wait_until(lambda: m.status("/readiness")[0] == 503, 10, "the lease is over")
        finally:
            os.kill(m.proc.pid, signal.SIGCONT)
        wait_until(lambda: c.etcd.get("leader") == "n0" and m.is_primary(), 40, "n0 leads again")
        wait_until(lambda: (c.etcd.json("members/n0") or {}).get("state") == "running", 15, "and is shown")
    finally:
        c.stop()
