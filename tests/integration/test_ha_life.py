"""What a DBA plans: callbacks in their order (ha 10), a switchover and a restart at a given time, an agent that is told to stop while it leads,
tags. Three members under writers, one of them pipelined."""
import datetime
import os
import re
import time

from faults import Member, Writers, kill, pg_start, settled, wait_until
from util import give_to_pg_user

EVENTS = ("on_start", "on_stop", "on_restart", "on_reload", "on_role_change")


class CallbackMember(Member):
    def __init__(self, cluster, name, **kw):
        super().__init__(cluster, name, **kw)
        self.said = os.path.join(cluster.base, name + ".callbacks")
        script = os.path.join(cluster.base, name + ".callback")
        with open(script, "w") as f:
            f.write('#!/bin/sh\n[ ! -e %s.slow ] || sleep 0.3\necho "$@" >> %s\n' % (self.said, self.said))
        os.chmod(script, 0o755)
        give_to_pg_user(script)
        with open(self.yml) as f:
            text = f.read()
        calls = "".join("    %s: %s\n" % (e, script) for e in EVENTS)
        with open(self.yml, "w") as f:
            f.write(text.replace("  parameters:\n", "  callbacks:\n" + calls + "  parameters:\n", 1))

    def called(self):
        try:
            with open(self.said) as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []


class Called:
    """What was called on a member since, without on_reload, which any change of the configuration brings."""

    def __init__(self, m):
        self.m, self.since = m, len(m.called())

    def rows(self):
        return [x for x in self.m.called()[self.since:] if not x.startswith("on_reload")]

    def are(self, *expected):
        want = [x + " it" for x in expected]
        wait_until(lambda: len(self.rows()) >= len(want), 15, lambda: "callbacks of %s: %s, so far %s" % (self.m.name, want, self.rows()))
        assert self.rows() == want
        self.since = len(self.m.called())


def test_callbacks(make):
    c = make(member=CallbackMember)
    n0, n1, n2 = c.members
    calls = {m.name: Called(m) for m in c.members}
    for m in c.members:
        calls[m.name].since = 0
    calls["n0"].are("on_start primary")
    calls["n1"].are("on_start replica")
    calls["n2"].are("on_start replica")
    with Writers(c) as w:
        c.wait_followed(n0)
        code, text = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1"}, 40)
        assert code == 200, text
        assert settled(c) is n1
        calls["n1"].are("on_role_change primary")
        # A script that still runs when the next is called is ended.
        wait_until(lambda: "on_role_change replica it" in calls["n0"].rows(), 15, lambda: "callbacks of the old leader: %s" % calls["n0"].rows())
        assert calls["n0"].rows()[-1] == "on_role_change replica it" and len(calls["n0"].rows()) <= 2
        assert all(re.fullmatch("on_stop (primary|demoted) it", x) for x in calls["n0"].rows()[:-1])
        # Said when they run already.
        wait_until(lambda: re.findall(r"job started name=(on_(?:stop|role_change))", n0.proc.text()) == ["on_stop", "on_role_change"], 15,
                   "both were started, each once")
        calls["n0"].since = len(n0.called())
        assert n0.post_when_free("/restart") == (200, "restarted successfully")
        calls["n0"].are("on_restart replica")
        reloads = n0.called().count("on_reload replica it")
        assert n0.status("/reload", "POST")[0] == 202
        wait_until(lambda: n0.called().count("on_reload replica it") > reloads, 20, "on_reload")
        started = pg_start(n1)
        kill(n1.postmaster())
        wait_until(lambda: n1.try_sql("SELECT pg_postmaster_start_time()") not in (None, started), 40, "n1 is there again")
        calls["n1"].are("on_start primary")
        w.wait_ack(n1)
    assert w.overlaps() == []
    assert c.leader() is n1
    # The agent goes when its last script has ended, and not before.
    with open(n2.said + ".slow", "w"):
        pass
    n2.proc.signal(15)
    n2.proc.wait(20)
    calls["n2"].are("on_stop replica")
    assert calls["n0"].rows() == [] and calls["n1"].rows() == []


def soon(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at, at.isoformat()


def test_at_a_given_time(make):
    c = make()
    n0, n1, n2 = c.members
    with Writers(c) as w:
        at, text = soon(-60)
        assert n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1", "scheduled_at": text})[0] == 422
        c.wait_followed(n0)
        at, text = soon(4)
        code, answer = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1", "scheduled_at": text})
        assert (code, answer) == (202, "Switchover scheduled")
        assert (c.etcd.json("failover") or {}).get("scheduled_at"), "it is in the store"
        wait_until(lambda: c.leader() is n1, 30, "n1 leads")
        assert datetime.datetime.now(datetime.timezone.utc) >= at, "not before its time"
        assert settled(c) is n1
        w.wait_ack(n1)
        started = pg_start(n2)
        at, text = soon(4)
        code, answer = n2.status("/restart", "POST", {"schedule": text})
        assert (code, answer) == (202, "Restart scheduled")
        wait_until(lambda: (c.etcd.json("members/n2") or {}).get("scheduled_restart"), 10, "it is in its key")
        wait_until(lambda: n2.try_sql("SELECT pg_postmaster_start_time()") not in (None, started), 40, "n2 is restarted")
        assert pg_start(n2)[0][0] >= at, "not before its time"
        wait_until(lambda: "scheduled_restart" not in (c.etcd.json("members/n2") or {}), 20, "and is done with")
        assert settled(c) is n1
    w.handed_over(n0, n1)
    assert w.missing_on(n1) == []


def test_agent_of_the_leader_is_told_to_stop(make):
    """The key is released when PostgreSQL has stopped and all is sent: the others do not wait for the lease, of which at least ttl - loop_wait,
    25 s, are left."""
    c = make(ttl=30, loop_wait=5, retry_timeout=5)
    n0 = c.leader()
    with Writers(c) as w:
        told = time.monotonic()
        n0.proc.signal(15)
        new = c.wait_leader(30, but=n0)
        assert w.stalls.took(told) < 15, "half of the ttl"
        w.wait_ack(new)
        n0.proc.wait(20)
        assert n0.postmaster() is None
        # Its last write may be on its way to the store.
        wait_until(lambda: (c.etcd.json("members/n0") or {"state": "stopped"})["state"] == "stopped", 5, "its key says so")
        n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)
    assert w.missing_on(new) == []


TAGS = {"n1": {"nofailover": True}, "n2": {"replicatefrom": "n1"}}


def sender(m):
    return m.try_sql("SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'")


def test_tags(make):
    """n2 streams from n1 while n1 is there, from the leader else; n1 never leads, though it has as much as any."""
    c = make(member=lambda c, name: Member(c, name, tags=TAGS.get(name)))
    n0, n1, n2 = c.members
    wait_until(lambda: sender(n2) == [(n1.pg,)], 20, "n2 streams from n1")
    wait_until(lambda: sender(n1) == [(n0.pg,)], 20, "n1 streams from the leader")
    assert n1.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'n2'") == [(True,)]
    with Writers(c) as w:
        n1.kill_all()
        n1.proc.wait(5)
        wait_until(lambda: sender(n2) == [(n0.pg,)], 30, "n2 streams from the leader")
        n1.start()
        wait_until(lambda: sender(n2) == [(n1.pg,)], 40, "n2 streams from n1 again")
        code, text = n0.status("/switchover", "POST", {"leader": "n0", "candidate": "n1"}, 20)
        assert code == 412, text
        n0.kill_all()
        n0.proc.wait(5)
        new = c.wait_leader(30, but=n0)
        assert new is n2
        w.wait_ack(n2)
        wait_until(lambda: sender(n1) == [(n2.pg,)], 30, "n1 streams from n2")
        n0.start()
        assert settled(c) is n2
        w.wait_ack(n2)
    w.handed_over(n0, n2)
    assert w.acks["n1"] == []
