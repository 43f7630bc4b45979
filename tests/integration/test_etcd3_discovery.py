"""A store that is found by SRV records (dcs 3.2): three real members of etcd, a name server on loopback, members that know a domain and
nothing else. Run as root: the members see a resolv.conf of their own."""
import time

import pytest

from faults import Cluster, EtcdOfThree, Writers, alive, free_port, pg_start, settled, wait_until
from names import serving

pytestmark = pytest.mark.root
DOMAIN = "disc.test"
TTL = 8


class DiscoveredEtcd(EtcdOfThree):
    def section(self, name):
        return {"srv": DOMAIN}

    def move(self, i):
        """The same member and data behind another port, as after a move to another host."""
        e = self.nodes[i]
        e.proc.kill()
        e.client = free_port()
        e.url = "127.0.0.1:%d" % e.client
        self.run(i)


@pytest.fixture
def names(work):
    with serving(work, DOMAIN) as server:
        yield server


@pytest.fixture
def cluster(work, names):
    c = Cluster(work, etcd=DiscoveredEtcd(work), ttl=TTL, retry_timeout=3)
    try:
        yield c
    finally:
        c.stop()


def told(c, names, which):
    names.srv["_etcd-client._tcp." + DOMAIN] = [("e%d.%s" % (i, DOMAIN), c.etcd.nodes[i].client) for i in which]


def test_found_by_srv_records(cluster, names):
    """No record yet: members wait. One record: the others are found through that one. All move: the records say where."""
    c = cluster
    n0 = c.members[0]
    for m in c.members:
        m.start()
    wait_until(lambda: "no SRV record of %s" % DOMAIN in n0.proc.text(), 20, "n0 says what it waits for")
    asked = [n for n in names.asked if n.startswith("_")]
    assert asked[0] == "_etcd-client-ssl._tcp." + DOMAIN and "_etcd-server._tcp." + DOMAIN in asked
    assert all(alive(m.proc.pid) for m in c.members)
    told(c, names, [1])
    wait_until(lambda: c.leader() and c.leader().is_primary(), 40, "somebody leads")
    n0 = settled(c, 60)
    n0.sql("CREATE TABLE probe(v bigint, who text)")
    with Writers(c) as w:
        started = pg_start(n0)
        # The only one that the records name falls silent: the others are known by now.
        c.etcd.freeze(1)
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + TTL + 1, TTL + 2, "longer than the lease", every=0.1)
        wait_until(lambda: c.leader() is n0, 10, "n0 has the key")
        assert pg_start(n0) == started
        c.etcd.renew(1)
        wait_until(lambda: c.etcd.nodes[1].ctl("endpoint", "health") is not None, 20, "it is back")
        w.wait_ack(n0)
        # All at once behind other ports: nobody answers where anybody was.
        for i in range(3):
            c.etcd.move(i)
        told(c, names, [0, 1, 2])
        wait_until(lambda: c.etcd.leader() is not None, 20, "the store has a leader")
        new = settled(c, 60)
        w.wait_ack(new)
    assert w.overlaps() == []
    code, text = new.status("/config", "PATCH", {"postgresql": {"parameters": {"work_mem": "7MB"}}})
    assert code == 200, text
    for m in c.members:
        wait_until(lambda: m.try_sql("SHOW work_mem") == [("7MB",)], 20, "work_mem on " + m.name)
