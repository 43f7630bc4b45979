"""The store that does not answer: for one member, for all, in part; and what others may have written into it."""
import signal
import time

import pytest

from faults import Cluster, Etcd, EtcdOfThree, LeaseWatch, Proxy, Writers, made, pg_start, settled, wait_until

TTL = 6


@pytest.fixture
def make(work):
    made_ones = []

    def of(**kw):
        made_ones.append(Cluster(work, **kw))
        return made(made_ones[-1])
    yield of
    for c in made_ones:
        c.stop()


class EtcdThroughProxies(Etcd):
    """Each member reaches the store through a proxy of its own."""

    def __init__(self, base):
        super().__init__(base)
        self.proxies = {}

    def section(self, name):
        self.proxies[name] = Proxy(self.client)
        return {"hosts": [self.proxies[name].url], "use_proxies": True}

    def stop(self):
        super().stop()
        for p in self.proxies.values():
            p.close()


@pytest.mark.parametrize("how", ["mute", "refuse"])
def test_primary_cut_off_from_the_store(make, work, how):
    c = make(etcd=EtcdThroughProxies(work))
    n0 = c.leader()
    with Writers(c) as w:
        c.etcd.proxies[n0.name].cut(how)
        new = c.wait_leader(20, but=n0)
        w.wait_ack(new)
        c.etcd.proxies[n0.name].heal()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_store_away_for_all(make, how):
    c = make()
    n0 = c.leader()
    with Writers(c) as w:
        asked = time.monotonic()
        if how == "killed":
            c.etcd.proc.kill()
        else:
            c.etcd.proc.signal(signal.SIGSTOP)
        wait_until(lambda: not n0.is_primary(), TTL, "n0 gave up before its lease ended")
        wait_until(lambda: time.monotonic() > asked + TTL + 2, TTL + 3, "well past the lease")
        silent = time.monotonic()
        assert not any(m.is_primary() for m in c.members)
        if how == "killed":
            c.etcd.start()
        else:
            c.etcd.proc.signal(signal.SIGCONT)
        new = settled(c)
        w.wait_ack(new)
    assert w.overlaps() == []
    between = [got for rows in w.acks.values() for sent, got, _, _ in rows if asked + TTL < got < silent]
    assert between == []


@pytest.mark.xfail(strict=False, reason="open: with ttl 6 on a busy machine the leading store member's freeze now and then costs the "
                                        "lease; whether by the election or by how soon another endpoint is asked is not known yet")
def test_one_of_three_store_members_frozen(make, work, capsys):
    """A follower, then the one that leads: nobody is demoted. The longest time that each costs a renewal is printed."""
    c = make(etcd=EtcdOfThree(work))
    n0 = c.leader()
    started = pg_start(n0)
    with Writers(c) as w:
        for which in ("follower", "leader"):
            wait_until(lambda: c.etcd.leader() is not None, 10, "the store has a leader")
            i = c.etcd.leader()
            i = i if which == "leader" else (i + 1) % 3
            c.etcd.freeze(i)
            with LeaseWatch(n0) as lease:
                since = time.monotonic()
                c.etcd.freeze(i)
                wait_until(lambda: c.etcd.leader() not in (None, i), 10, "the store has another leader")
                # Longer than the lease, then until the next renewal, however late.
                wait_until(lambda: time.monotonic() > since + TTL, TTL + 1, every=0.1)
                count = len(lease.rows())
                wait_until(lambda: len(lease.rows()) > count, TTL, "the lease is renewed", every=0.1)
                with capsys.disabled():
                    print("\n%s of the store frozen: longest time between two renewals %d ms, least left of the lease %d ms"
                          % (which, lease.longest_wait(), lease.least_left()))
            c.etcd.thaw(i)
            assert c.leader() is n0
            w.wait_ack(n0)
    assert pg_start(n0) == started and w.overlaps() == [] and w.missing_on(n0) == []
    assert [name for name, rows in w.acks.items() if rows] == [n0.name]
