"""A member, or its worker alone, is killed inside each step of bootstrap, clone, promotion and rewind: the next start goes
on, or begins anew, or says what to do; nothing half made is ever taken for a server, and `initialize` is left by nobody."""
import os

import pytest

from killrig import make
from faults import frozen, nobody_streams, thawed
from util import freeze, wait_until

# What is killed, and in which gate. Each step is hit by both; the other half of the matrix behaves alike and costs
# minutes: PGREGENT_TEST_FULL=1 runs it too.
FULL = os.environ.get("PGREGENT_TEST_FULL") == "1"


def matrix(steps, *usual):
    return pytest.mark.parametrize("what,gate", [(w, g) for w in ("worker", "node") for g in steps] if FULL else usual)


ROLES = {"postgres", "replicator", "rewind_user"}


@pytest.fixture
def one(work):
    c = make(work, 1)
    yield c
    c.stop()


@pytest.fixture
def two(work):
    c = make(work, 2)
    yield c
    c.stop()


def complete(c, m, bound=40):
    """The cluster is there, with everything that a bootstrap makes."""
    wait_until(lambda: c.etcd.get("leader") == m.name and m.is_primary() and c.etcd.get("initialize") and c.etcd.get("config"), bound,
               m.name + " leads")
    assert c.etcd.get("initialize") == str(m.sql("SELECT system_identifier FROM pg_control_system()")[0][0])
    assert {r[0] for r in m.sql("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'")} == ROLES
    assert m.sql("SELECT count(*) FROM made") == [(0,)]
    assert c.etcd.json("config")["ttl"] == 6
    wait_until(lambda: m.mark() is None, 20, "no mark is left")


@matrix(["initdb.before", "initdb.after", "post_bootstrap.before", "post_bootstrap.after"], ("worker", "initdb.before"),
        ("worker", "post_bootstrap.after"), ("node", "initdb.after"), ("node", "post_bootstrap.before"))
def test_bootstrap(one, what, gate):
    m = one.members[0]
    m.shut(gate)
    m.start()
    m.arrived(gate)
    assert one.etcd.get("initialize") == ""
    assert m.mark() == ("bootstrap" if gate.startswith("initdb") else "roles")
    survived = m.hit(what, gate)
    complete(one, m)
    if what == "worker":
        # What outlived its worker was taken over, not begun a second time.
        assert survived and m.count("job started name=initdb") == 1 and m.count("job started name=post_bootstrap") == 1
    elif gate.startswith("initdb"):
        assert m.count("beginning an interrupted bootstrap anew") == 1
        assert os.path.isdir(m.dir + "/data.failed") == (gate == "initdb.after")
    else:
        assert m.count("job started name=initdb") == 1 and m.count("going on with an interrupted bootstrap") >= 1
        # The key of the first life is taken over; nobody asks the store for a key that is there.
        assert m.count("store acquire: conflict") == 0


def test_bootstrap_before_its_leader_key(one):
    """initdb is done, the store is away: nothing but the mark says that the directory is worth something."""
    m = one.members[0]
    m.shut("initdb.after")
    m.start()
    m.arrived("initdb.after")
    freeze(one.etcd.proc.pid)
    m.open("initdb.after")
    wait_until(lambda: m.mark() == "roles", 20, "initdb has ended")
    m.node_off()
    one.etcd.proc.signal(18)
    m.start()
    complete(one, m)
    assert m.count("job started name=initdb") == 1


def test_failed_bootstrap_leaves_nothing(one):
    m = one.members[0]
    m.script(m.gates, "post_bootstrap", "false")
    m.start()
    assert m.proc.wait(60) == 1
    assert one.etcd.get("initialize") is None and one.etcd.ctl("get", "/service/it/initialize") == ""
    assert os.path.isdir(m.dir + "/data.failed") and not os.path.exists(m.dir + "/data") and m.mark() is None
    m.script(m.gates, "post_bootstrap", 'psql -X -q -d "$1" -c "CREATE TABLE made (v int)"')
    m.start()
    complete(one, m)


def test_nobody_clones_before_the_roles_are_there(two):
    n0, n1 = two.members
    n0.shut("post_bootstrap.before")
    n0.start()
    n0.arrived("post_bootstrap.before")
    n1.start()
    n1.logged("waiting for leader 'n0' to end its bootstrap")
    assert n1.count("pg_basebackup") == 0
    n0.open("post_bootstrap.before")
    wait_until(n1.streams_from_somebody, 40, "n1 streams")
    # Copied once, and that went well: no attempt was refused for a role that is not there yet.
    assert n1.count("job started name=pg_basebackup") == 1 == n1.count("job ended name=pg_basebackup")
    assert [line for line in n1.proc.text().splitlines() if "failed" in line and ("clone" in line or "basebackup" in line)] == []
    assert "role \"replicator\" does not exist" not in n0.proc.text() + n1.proc.text()


@matrix(["pg_basebackup.before", "pg_basebackup.after"], ("worker", "pg_basebackup.before"), ("node", "pg_basebackup.after"))
def test_clone(two, what, gate):
    n0, n1 = two.members
    n0.start()
    complete(two, n0)
    n1.shut(gate)
    n1.start()
    n1.arrived(gate)
    assert n1.mark() == "copying"
    survived = n1.hit(what, gate)
    wait_until(n1.streams_from_somebody, 40, "n1 streams")
    wait_until(lambda: n1.mark() is None, 20, "no mark is left")
    if what == "worker":
        assert survived and n1.count("job started name=pg_basebackup") == 1


@matrix(["pre_promote.before", "pre_promote.after"], ("worker", "pre_promote.before"), ("node", "pre_promote.after"))
def test_promotion(two, what, gate):
    n0, n1 = two.members
    n0.start()
    complete(two, n0)
    n1.start()
    wait_until(n1.streams_from_somebody, 40, "n1 streams")
    n0.sql("CREATE TABLE t AS SELECT 1 AS v")
    wait_until(lambda: n1.try_sql("SELECT v FROM t") == [(1,)], 20, "n1 has it")
    n1.shut(gate)
    n0.node_off()
    n1.arrived(gate)
    n1.hit(what, gate)
    if what == "node":
        # Who was there last has everything; either of the two may lead.
        n0.start()
    wait_until(lambda: any(m.is_primary() and two.etcd.get("leader") == m.name for m in (n0, n1)), 40, "somebody leads")
    leader = two.leader()
    assert leader.sql("SELECT v FROM t") == [(1,)]
    if what == "worker":
        assert leader is n1
        n0.start()
    other = n0 if leader is n1 else n1
    wait_until(other.streams_from_somebody, 60, "the other follows")


@matrix(["pg_rewind.before", "pg_rewind.after"], ("node", "pg_rewind.after"))
def test_rewind(two, what, gate):
    n0, n1 = two.members
    n0.start()
    complete(two, n0)
    n1.start()
    wait_until(n1.streams_from_somebody, 40, "n1 streams")
    # What only n0 has, written while n1 is stopped: n0 diverges when n1 is promoted.
    wait_until(lambda: (two.etcd.json("members/n1") or {}).get("state") == "running", 20, "n1 is known")
    stopped = frozen([n1])
    try:
        nobody_streams(n0)  # nothing may wait for n1 in a socket
        n0.sql("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS v")
        n0.shut(gate)
        n0.node_off()
    finally:
        thawed(stopped)
    wait_until(lambda: n1.is_primary() and two.etcd.get("leader") == "n1", 40, "n1 leads")
    n1.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS v")
    n0.start()
    n0.arrived(gate, 60)
    assert n0.mark() == "rewind"
    survived = n0.hit(what, gate)
    wait_until(n0.streams_from_somebody, 60, "n0 streams")
    wait_until(lambda: n0.try_sql("SELECT count(*) FROM kept") == [(1000,)], 20, "n0 has n1's rows")
    assert n0.sql("SELECT to_regclass('lost')") == [(None,)]
    wait_until(lambda: n0.mark() is None, 20, "no mark is left")
    if what == "worker":
        assert survived and n0.count("job started name=pg_rewind") == 1
