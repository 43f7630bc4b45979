"""What test_kills does to single steps, in a cluster of three under writers: the node of a member goes off inside of each step of clone,
promotion and rewind, before and after the program that does it, and is started again. Nobody acknowledges what another primary
already went past, and no member needs a hand."""
import pytest

from faults import Writers, cluster, frozen, nobody_streams, settled, shared, thawed, wait_until  # noqa: F401
from killrig import GatedMember


MEMBER = GatedMember


def whole(c, w):
    """Everybody streams, nothing half made is left, and writes are acknowledged."""
    leader = settled(c, 60)
    for m in c.members:
        wait_until(lambda: m.mark() is None, 20, "no mark is left on " + m.name)
    w.wait_ack(leader)
    return leader


def test_clone(cluster):
    c = cluster
    n0 = c.leader()
    n2 = c.others(n0)[1]
    with Writers(c) as w:
        for gate in ("pg_basebackup.before", "pg_basebackup.after"):
            n2.shut(gate)
            wait_until(lambda: n2.status("/reinitialize", "POST", {}, 30)[0] == 200, 20, "n2 is made anew")
            n2.hit("node", gate)
            assert whole(c, w) is n0
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert [name for name, rows in w.acks.items() if rows] == [n0.name]


@pytest.mark.parametrize("gate", ["pre_promote.before", "pre_promote.after"])
def test_promotion(cluster, gate):
    """The one that is about to be promoted goes off with the lock in its hands; the other one, or itself, leads in the end."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        for m in c.others(n0):
            m.shut(gate)
        n0.node_off()

        def chosen():
            return next((m for m in c.others(n0) if c.etcd.get("leader") == m.name), None)
        n1 = wait_until(chosen, 30, "somebody has the lock")
        other = next(m for m in c.others(n0) if m is not n1)
        other.open(gate)
        n1.hit("node", gate)
        new = c.wait_leader(40, but=n0)
        w.wait_ack(new)
        n0.start()
        leader = whole(c, w)
    assert w.overlaps() == []
    assert w.after(n0, new) == []
    assert leader.sql("SELECT count(*) > 0 FROM probe") == [(True,)]


def test_rewind(cluster):
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        pids = frozen(c.others(n0))
        try:
            nobody_streams(n0)
            n0.sql("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS v")
            n0.shut("pg_rewind.before")
            n0.shut("pg_rewind.after")
            n0.node_off()
        finally:
            thawed(pids)
        new = c.wait_leader(40, but=n0)
        w.wait_ack(new)
        n0.start()
        for gate in ("pg_rewind.before", "pg_rewind.after"):
            n0.arrived(gate, 60)
            assert n0.mark() == "rewind"
            n0.hit("node", gate)
        assert whole(c, w) is new
        assert n0.sql("SELECT to_regclass('lost')") == [(None,)]
    w.handed_over(n0, new)
    wait_until(lambda: w.missing_on(n0) == w.missing_on(new), 20, "n0 has what the new leader has")
