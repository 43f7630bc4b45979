"""The primary's disk stalls, and fills up. Run as root: it takes mounts."""
import threading
import time

import pytest

from faults import Cluster, LeaseWatch, Writers, made, pg_start, psycopg2, settled, wait_until
from mounts import SmallDisk, StallingDisk

pytestmark = pytest.mark.root
TTL = 6
STALL_S = 20


@pytest.fixture
def make(work):
    """A cluster whose first member has its data directory on what `mount(path)` makes; it has `close` and is handed out too."""
    undo = []

    def of(mount, n=3):
        c = Cluster(work, n=n)
        disk = mount(c.members[0].dir + "/data")
        undo.extend((c.stop, disk.close))
        return made(c), disk
    yield of
    for f in undo:
        f()


def test_disk_stalled(make):
    """Whatever asks the disk hangs in the kernel, the file helper too; what renews the lease asks nothing of it."""
    c, disk = make(StallingDisk)
    n0 = c.leader()
    with Writers(c) as w, LeaseWatch(n0) as lease:
        started = pg_start(n0)
        begin = time.monotonic()
        try:
            disk.stall()
            while time.monotonic() < begin + STALL_S:
                asked = time.monotonic()
                assert n0.status("/primary", timeout=5)[0] == 200 and w.stalls.took(asked) < 1
                assert c.etcd.get("leader") == n0.name
                threading.Event().wait(0.5)
        finally:
            disk.resume()
        last = [max(r[1] for r in rows) for rows in (w.acks[n0.name], w.pipelined(n0.name))]
        assert max(last) < begin + STALL_S - 2 * TTL, "the disk did not stall"
        w.wait_ack(n0)
        assert lease.least_left(w.stalls) > TTL / 2 * 1000
        assert settled(c) is n0 and pg_start(n0) == started
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert [name for name, rows in w.acks.items() if rows] == [n0.name]


def grows(m, text):
    """What this statement needs more space for is not there."""
    with pytest.raises(psycopg2.Error):
        m.sql(text, 10)


def test_disk_full(make):
    """No space for data: writes are refused, the primary stays. No space for WAL: PostgreSQL dies and cannot come up, so another takes over.
    With space again everything goes on by itself."""
    c, disk = make(lambda path: SmallDisk(path, 160 << 20))
    n0 = c.leader()
    with Writers(c) as w:
        started = pg_start(n0)
        disk.fill()
        grows(n0, "CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
        full = time.monotonic()
        wait_until(lambda: time.monotonic() > full + TTL + 1, TTL + 2, "longer than the lease", every=0.2)
        assert c.leader() is n0 and n0.status("/primary")[0] == 200 and pg_start(n0) == started
        disk.free()
        w.wait_ack(n0)
        disk.fill()
        grows(n0, "SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1000000))) FROM generate_series(1, 300)")
        new = c.wait_leader(40, but=n0)
        w.wait_ack(new)
        assert "No space left on device" in n0.proc.text()
        disk.free()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
