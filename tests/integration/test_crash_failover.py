"""A crashed primary that must not, or cannot, come up again (ha 1.4): another takes over, and the old one rejoins by itself."""
import os

from faults import Writers, cluster, kill, settled, shared, wait_until  # noqa: F401
from killrig import GatedMember

MEMBER = GatedMember


def test_no_time_to_start_again(cluster):
    """primary_start_timeout 0: a crash is a failover, while a member can take over."""
    c = cluster
    n0 = c.leader()
    assert n0.status("/config", "PATCH", {"primary_start_timeout": 0})[0] == 200
    wait_until(lambda: all("primary_start_timeout" in m.status("/config")[1] for m in c.members), 10, "all know it")
    since = len(n0.proc.text())
    with Writers(c) as w:
        kill(n0.postmaster())
        new = c.wait_leader(25, but=n0)
        w.wait_ack(new)
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
    assert "rule=B1" in n0.proc.text()[since:]
    assert new.status("/config", "PATCH", {"primary_start_timeout": None})[0] == 200


def test_cannot_start_again(cluster):
    """The program is broken (an upgrade that went wrong): tried once, then the lock goes to another; mended, the member is back."""
    c = cluster
    n0 = c.leader()
    program = os.path.join(c.base, "b" + n0.name, "postgres")
    real = os.readlink(program)
    with Writers(c) as w:
        os.unlink(program)
        n0.script(os.path.dirname(program), "postgres", "false")
        kill(n0.postmaster())
        new = c.wait_leader(40, but=n0)
        w.wait_ack(new)
        assert n0.status("/primary")[0] == 503
        os.unlink(program)
        os.symlink(real, program)
        assert settled(c, 60) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
