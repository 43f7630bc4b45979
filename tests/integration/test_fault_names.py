"""A name server that falls silent, with names in place of addresses everywhere: the last good addresses serve. Run as root: the
members see a resolv.conf of their own."""
import time

import pytest

from names import serving
from faults import Cluster, Etcd, Member, Proxy, Writers, kill, made, pg_start, settled, wait_until

pytestmark = pytest.mark.root
TTL = 6
DOMAIN = ".it.test"


class NamedEtcd(Etcd):
    """Behind a proxy: connections can be lost without an outage of the store, which costs more than a lease where it starts slowly."""

    def __init__(self, base):
        super().__init__(base)
        self.proxy = Proxy(self.client)

    def section(self, name):
        return {"hosts": ["etcd%s:%d" % (DOMAIN, self.proxy.port)], "use_proxies": True}

    def stop(self):
        super().stop()
        self.proxy.close()


@pytest.fixture
def names(work):
    with serving(work, DOMAIN[1:]) as server:
        yield server


@pytest.fixture
def cluster(work, names):
    c = Cluster(work, etcd=NamedEtcd(work), member=lambda c, name: Member(c, name, host=name + DOMAIN))
    try:
        yield made(c)
    finally:
        c.stop()


def test_silent_name_server(cluster, names):
    c = cluster
    n0 = c.leader()
    assert {"etcd" + DOMAIN, "n0" + DOMAIN} <= set(names.asked)
    with Writers(c) as w:
        started = pg_start(n0)
        names.mute = True
        # Connections that are lost are made again.
        c.etcd.proxy.reset()
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + TTL + 1, TTL + 2, "longer than the lease", every=0.2)
        assert c.leader() is n0 and pg_start(n0) == started
        w.wait_ack(n0)
        # The next leader asks its peers, by names.
        n0.kill_all()
        new = c.wait_leader(25, but=n0)
        w.wait_ack(new)
        names.mute = False
        n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)


def test_silent_name_server_and_a_new_worker(cluster, names):
    """A worker that dies meanwhile leaves its successor the addresses."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        started = pg_start(n0)
        names.mute = True
        old = n0.helper("worker")
        kill(old)
        begin = time.monotonic()
        wait_until(lambda: n0.helper("worker") not in (None, old), 15, "a new worker")
        wait_until(lambda: time.monotonic() > begin + TTL + 1, TTL + 2, "longer than the lease", every=0.2)
        w.wait_ack(n0)
        assert c.leader() is n0 and pg_start(n0) == started
        names.mute = False
        assert settled(c) is n0
    assert w.overlaps() == [] and w.missing_on(n0) == []
