"""Patroni and pgregent side by side in one cluster, and a member that changes from one to the other with its data directory. Patroni is
the program in PGREGENT_PATRONI, else that of a newer Debian (tests/unpack-deb.sh): 4.0 knows the roles that pgregent writes."""
import os

import pytest

from cluster import Cluster, Member, WriteProbe
from util import Process, alive, as_pg_user, descendants, wait_until

DEBS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/debs/trixie/usr")
OTHER = os.environ.get("PGREGENT_PATRONI")
PATRONI = [OTHER] if OTHER else ["/usr/bin/python3", "-B", DEBS + "/bin/patroni"]


class Either(Member):
    """A member that runs one program or the other with the same file."""
    program = "pgregent"

    def start(self):
        if self.program == "pgregent":
            super().start()
            return
        env = dict(os.environ, HOME=self.dir, PATRONI_LOG_LEVEL="INFO", PYTHONPATH=DEBS + "/lib/python3/dist-packages")
        self.proc = Process(PATRONI + [self.yml], self.log, env=env, **as_pg_user())

    def kill_all(self):
        pids = {self.proc.pid, *descendants(self.proc.pid)}
        pm = self.postmaster()
        if pm and alive(pm):
            pids |= {pm, *descendants(pm)}
        pids |= {p for p in (self.helper(h) for h in ("worker", "files", "api", "deadman")) if p}
        for pid in pids:
            try:
                os.kill(pid, 9)
            except OSError:
                pass

    def stop(self):
        self.proc.signal(15)
        self.proc.wait(30)


@pytest.fixture
def mixed(work):
    """n0 is Patroni, n1 and n2 are pgregent; who creates the cluster is the test's."""
    c = Cluster(work, member=Either, ttl=20, loop_wait=2, retry_timeout=3)
    c.members[0].program = "patroni"
    yield c
    c.stop()


def switch(c, old, new):
    c.wait_followed(old)
    code, text = old.status("/switchover", "POST", {"leader": old.name, "candidate": new.name}, 40)
    assert code == 200, text
    wait_until(lambda: c.leader() is new and new.is_primary(), 40, "%s (%s) leads" % (new.name, new.program))
    for m in c.others(new):
        wait_until(m.streams_from_somebody, 40, "%s (%s) streams" % (m.name, m.program))


def start_from(c, first):
    first.start()
    wait_until(lambda: c.leader() is first and first.is_primary(), 60, first.name + " leads")
    for m in c.others(first):
        m.start()
    for m in c.others(first):
        wait_until(m.streams_from_somebody, 60, m.name + " streams")
    first.sql("CREATE TABLE probe (v bigint PRIMARY KEY, who text)")


def test_they_lead_and_follow_each_other(mixed):
    c = mixed
    n0, n1, n2 = c.members
    start_from(c, n0)
    with WriteProbe(c) as w:
        w.first_ack()
        switch(c, n0, n1)
        switch(c, n1, n0)
        switch(c, n0, n2)
        switch(c, n2, n0)
        # Patroni's node goes off; a pgregent member takes over, and Patroni follows it.
        n0.kill_all()
        new = c.wait_leader(40, n0)
        n0.start()
        wait_until(n0.streams_from_somebody, 60, "n0 (patroni) streams again")
        switch(c, new, n0)
    assert w.overlaps() == []


def test_a_cluster_is_migrated_member_by_member(mixed):
    c = mixed
    for m in c.members:
        m.program = "patroni"
    start_from(c, c.members[0])
    with WriteProbe(c) as w:
        w.first_ack()
        for m in c.members[1:]:
            m.stop()
            m.program = "pgregent"
            m.start()
            wait_until(m.streams_from_somebody, 40, m.name + " streams under pgregent")
        switch(c, c.members[0], c.members[1])
        c.members[0].stop()
        c.members[0].program = "pgregent"
        c.members[0].start()
        wait_until(c.members[0].streams_from_somebody, 40, "n0 streams under pgregent")
        switch(c, c.members[1], c.members[0])
        assert w.missing_on(c.members[0]) == []
        # And back: nothing that pgregent wrote is in Patroni's way.
        c.members[2].stop()
        c.members[2].program = "patroni"
        c.members[2].start()
        wait_until(c.members[2].streams_from_somebody, 40, "n2 streams under Patroni again")
        switch(c, c.members[0], c.members[2])
    assert w.overlaps() == []
