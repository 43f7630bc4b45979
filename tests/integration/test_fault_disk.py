"""The primary's disk stalls, and fills up. Run as root: it takes mounts."""
import threading
import time

import pytest

from faults import Cluster, LeaseWatch, Writers, made, pg_start, settled, wait_until
from mounts import StallingDisk

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
                assert n0.status("/primary", timeout=1)[0] == 200
                assert c.etcd.get("leader") == n0.name
                threading.Event().wait(0.5)
        finally:
            disk.resume()
        last = [max(r[1] for r in rows) for rows in (w.acks[n0.name], w.pipelined(n0.name))]
        assert max(last) < begin + 2, "the disk did not stall"
        w.wait_ack(n0)
        assert lease.least_left() > TTL / 2 * 1000
        assert settled(c) is n0 and pg_start(n0) == started
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert [name for name, rows in w.acks.items() if rows] == [n0.name]
