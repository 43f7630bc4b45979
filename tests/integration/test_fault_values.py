"""Garbage, truncated and huge values in every key of the scope: ignored or refused by rule, no crash, and no demotion while the leader key
is held by the leader's lease."""
import json
import os
import subprocess

from faults import Writers, alive, cluster, kill, pg_start, settled, shared, wait_until, with_ttl  # noqa: F401

TTL = 6
HUGE = 1400 * 1024  # etcd takes 1.5 MiB in one request
KEYS = ("config", "status", "optime/leader", "failover", "sync", "history", "failsafe", "initialize", "members/n0", "members/n1",
        "members/ghost", "members/", "members/a/b", "initialize/x", "unknown")
VALUES = (b"", b"{", b"[1,2", b"null", b"-1", b"1e999", b"\x01\x02\xff\xfe", b'"' + b"x" * 5000 + b'"', b"[" * 5000,
          b'{"leader": {"a": [1]}, "sync_standby": 7, "conn_url": [], "ttl": {}, "optime": -5, "slots": 3}',
          b'[[1,2,3],[1],"x",[9223372036854775807,-1,null]]')


def put(c, key, value, *options):
    """From standard input: a value of this size is no argument."""
    r = subprocess.run(["etcdctl", "--endpoints", c.etcd.url, "put", *options, "/service/it/" + key] + ([] if value else [""]),
                       input=value,
                       env=dict(os.environ, ETCDCTL_API="3"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10)
    assert r.returncode == 0, r.stderr


def put_back(c, good):
    for key, value in good.items():
        if value is None:
            c.etcd.ctl("del", "/service/it/" + key)
        else:
            put(c, key, value.encode())


def pids(c):
    return {(m.name, h): m.helper(h) for m in c.members for h in ("worker", "files", "api", "deadman")}


def unharmed(c, w, leader, before):
    """All members have seen what was written (their own keys come after it), and go on."""
    for m in c.members:
        put(c, "members/" + m.name, b"{}")
    for m in c.members:
        wait_until(lambda: (c.etcd.json("members/" + m.name) or {}).get("conn_url"), 30, m.name + " writes its key again")
    w.wait_ack(leader)
    assert c.leader() is leader and leader.is_primary() and pg_start(leader) == before[0]
    assert pids(c) == before[1]
    wait_until(lambda: leader.status("/primary")[0] == 200, 15, "the leader's health check")
    for m in c.others(leader):
        wait_until(lambda: m.status("/replica")[0] == 200, 15, "health check of " + m.name)


def test_values_that_mean_nothing(cluster):
    c = cluster
    n0 = c.leader()
    good = {k: c.etcd.get(k) for k in KEYS}
    with Writers(c) as w:
        before = pg_start(n0), pids(c)
        for key in KEYS:
            text = (good[key] or '{"a": 1}').encode()
            for value in VALUES + (text[:len(text) // 2], text[:-1]):
                # A valid object in `config` would be a configuration, not garbage; ten digits in `initialize` another cluster.
                if (key, value[:1]) != ("config", b"{") or value == b"{":
                    if key != "initialize" or not value[:10].isdigit():
                        put(c, key, value)
        unharmed(c, w, n0, before)
        wait_until(lambda: c.etcd.get("initialize") == good["initialize"], 20, "the system identifier is written again")
        put_back(c, good)
        assert settled(c) is n0
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert [name for name, rows in w.acks.items() if rows] == [n0.name]


def test_huge_values(cluster):
    """Also in all keys at once: the whole is then larger than what a member is ready to read. To read all that takes a worker with the
    sanitizers seconds on a slow machine: the ttl leaves room for it."""
    c = cluster
    n0 = c.leader()
    with_ttl(n0, 30)
    good = {k: c.etcd.get(k) for k in KEYS}
    with Writers(c) as w:
        before = pg_start(n0), pids(c)
        shapes = (b"x" * HUGE, b'{"tags": "' + b"y" * (HUGE - 20) + b'"}', b"[" + b"1," * (HUGE // 2 - 2) + b"1]")
        for shape in shapes[1:]:
            for key in ("history", "sync", "members/n1"):
                put(c, key, shape)
        for key in KEYS[:-3]:
            put(c, key, shapes[0])
        for i in range(5):
            put(c, "members/huge%d" % i, shapes[1])
        unharmed(c, w, n0, before)
        for i in range(5):
            c.etcd.ctl("del", "/service/it/members/huge%d" % i)
        for key in ("optime/leader", "failsafe", "members/ghost"):
            put(c, key, b"{}")
        # A new worker has to read all that is left before its lease ends: still more than one answer may hold (4 MiB).
        old = n0.helper("worker")
        kill(old)
        wait_until(lambda: n0.helper("worker") not in (None, old), 15, "a new worker")
        unharmed(c, w, n0, (before[0], pids(c)))
        put_back(c, good)
        assert settled(c) is n0
        for m in c.others(n0):
            assert m.proc.text().count("is read in pages") <= 1
        with_ttl(n0, TTL)
    assert w.overlaps() == [] and w.missing_on(n0) == []


def test_garbage_in_the_leader_key(cluster):
    """Under the leader's lease the key is the leader's whatever it says; without, the leader gives up, and never are there two."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        before = pg_start(n0), pids(c)
        for value in (b"", b"\xff\xfe", c.others(n0)[0].name.encode(), b"z" * 100000):
            raw = json.loads(c.etcd.ctl("get", "/service/it/leader", "-w", "json"))["kvs"][0]
            put(c, "leader", value, "--lease=%x" % raw["lease"])
            wait_until(lambda: c.etcd.get("leader") == n0.name, 15, "the name is mended")
        unharmed(c, w, n0, before)
        put(c, "leader", b"nobody")
        w.stalls.wait(lambda: not n0.is_primary(), 6, "n0 gives up")
        c.etcd.ctl("del", "/service/it/leader")
        new = settled(c)
        w.wait_ack(new)
    assert w.overlaps() == []
    assert all(alive(m.proc.pid) for m in c.members)
