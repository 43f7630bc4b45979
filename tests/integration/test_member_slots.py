"""What stays for a member that is away (ha 7.2, 7.3), and the script that runs before PostgreSQL is stopped (ha 10)."""
import os
import time

from faults import Member, settled, wait_until
from util import give_to_pg_user

TTL = 6


def slots(m):
    return [name for name, in m.sql("SELECT slot_name FROM pg_replication_slots ORDER BY 1")]


def copies_of(m):
    with open(m.log) as f:
        return f.read().count("job started name=pg_basebackup")


def away(c, m):
    """The node is off and its member key is gone with its lease. When the key was there for the last time, as far as we know."""
    m.kill_all()
    seen = [0.0]

    def vanished():
        asked = time.monotonic()
        if c.etcd.get("members/" + m.name) is None:
            return True
        seen[0] = asked
        return False
    wait_until(vanished, 3 * TTL, m.name + " is not in the store any more")
    return seen[0]


def test_slot_of_a_member_outlives_it_for_a_while(make):
    c = make(member_slots_ttl=8)
    n0, n1, n2 = c.members
    wait_until(lambda: slots(n0) == ["n1", "n2"], 20, lambda: "slots on the leader: %s" % slots(n0))
    # Every member keeps a slot for every other: whoever leads next has what the others need.
    wait_until(lambda: slots(n1) == ["n0", "n2"], 20, lambda: "slots on n1: %s" % slots(n1))
    seen = away(c, n2)
    wait_until(lambda: "n2" in (c.etcd.json("status") or {}).get("retain_slots", []), 7, "the slot of n2 is told to be kept")
    kept = n0.sql("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'n2'")
    assert kept and kept[0][0] is not None
    n0.sql("SELECT pg_switch_wal()")
    wait_until(lambda: slots(n0) == ["n1"], 30, lambda: "slots on the leader: %s" % slots(n0))
    # Counted from the last time the leader saw it as a member: a turn before we did, or more if it was not its turn.
    assert time.monotonic() - seen > 8 - 3
    wait_until(lambda: slots(n1) == ["n0"], 20, lambda: "slots on n1: %s" % slots(n1))
    wait_until(lambda: "n2" not in (c.etcd.json("status") or {}).get("retain_slots", []), 20, "nor is it told to be kept")
    n2.start()
    assert settled(c) is n0
    wait_until(lambda: slots(n0) == ["n1", "n2"], 20, lambda: "slots on the leader: %s" % slots(n0))


def test_slot_that_outlives_a_leader(make):
    """A switchover does not begin the count anew for nothing: the new leader keeps what the old one kept."""
    c = make(member_slots_ttl=600)
    n0, n1, n2 = c.members
    wait_until(lambda: "n2" in slots(n1), 20, "n1 has a slot for n2")
    copies = copies_of(n2)
    assert copies == 1
    away(c, n2)
    wait_until(lambda: "n2" in (c.etcd.json("status") or {}).get("retain_slots", []), 20, "the slot of n2 is told to be kept")
    code, text = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1"}, 40)
    assert code == 200, text
    wait_until(lambda: n0.streams_from_somebody(), 30, "n0 streams")
    assert "n2" in slots(n1)
    n1.sql("INSERT INTO probe VALUES (1, 'x'); SELECT pg_switch_wal(); CHECKPOINT")
    n2.start()
    assert settled(c) is n1
    # It came back by what was kept for it, not by a new copy.
    assert copies_of(n2) == copies
    wait_until(lambda: n2.try_sql("SELECT v FROM probe") == [(1,)], 20, "n2 has what was written while it was away")


def test_no_slot_outlives_its_member_without_a_time(make):
    c = make(member_slots_ttl=0)
    n0, n1, n2 = c.members
    wait_until(lambda: slots(n0) == ["n1", "n2"], 20, lambda: "slots on the leader: %s" % slots(n0))
    assert slots(n1) == []
    away(c, n2)
    wait_until(lambda: slots(n0) == ["n1"], 20, lambda: "slots on the leader: %s" % slots(n0))
    assert "retain_slots" not in (c.etcd.json("status") or {})


class StoppingMember(Member):
    """before_stop writes down whether PostgreSQL was still there; what it does then is told by a file."""

    def __init__(self, cluster, name, **kw):
        super().__init__(cluster, name, **kw)
        self.said = os.path.join(cluster.base, name + ".said")
        self.how = os.path.join(cluster.base, name + ".how")
        script = os.path.join(cluster.base, name + ".before_stop")
        with open(script, "w") as f:
            f.write("#!/bin/sh\n[ -e %s/data/postmaster.pid ] && echo there >> %s || echo gone >> %s\n[ ! -e %s ] || . %s\nexit 3\n"
                    % (self.dir, self.said, self.said, self.how, self.how))
        os.chmod(script, 0o755)
        give_to_pg_user(script)
        with open(self.yml) as f:
            text = f.read()
        with open(self.yml, "w") as f:
            f.write(text.replace("  parameters:\n", "  before_stop: %s\n  parameters:\n" % script, 1))

    def calls(self):
        try:
            with open(self.said) as f:
                return f.read().split()
        except FileNotFoundError:
            return []


def test_before_stop(make):
    c = make(member=StoppingMember)
    n0, n1, n2 = c.members
    # Waited for, before PostgreSQL is told anything; what it says does not count.
    c.wait_followed(n0)
    code, text = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1"}, 40)
    assert code == 200, text
    assert settled(c) is n1
    assert n0.calls() == ["there"]
    assert n1.calls() == [] and n2.calls() == []
    # One that hangs costs a ttl, not the switchover: the lease is held meanwhile.
    with open(n1.how, "w") as f:
        f.write("sleep 1000\n")
    give_to_pg_user(n1.how)
    c.wait_followed(n1)
    begun = time.monotonic()
    n1.status("/switchover", "POST", {"leader": "n1", "candidate": "n0"}, 60)
    wait_until(lambda: c.leader() is n0 and n0.is_primary(), 40, "n0 leads")
    assert time.monotonic() - begun > TTL - 1
    assert settled(c) is n0
    assert n1.calls() == ["there"]
    os.unlink(n1.how)
    # The end of the agent stops PostgreSQL, too.
    n2.proc.signal(15)
    n2.proc.wait(20)
    assert n2.calls() == ["there"]
