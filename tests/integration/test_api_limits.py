"""The API at its limits: answers longer than a message, bodies that are too long, requests that wait behind a slow question."""
import concurrent.futures
import json
import time

import pytest

import apirig
from apirig import REPLICA_FACTS
from faults import Cluster, made, wait_until
from pace import undisturbed


@pytest.fixture
def rig(work):
    r = apirig.Rig(work)
    assert r.configure()[0] == "1"
    yield r
    r.close()


@pytest.fixture
def one(work):
    c = Cluster(work, n=1)
    yield made(c)
    c.stop()


def test_nobody_waits_behind_two_questions(rig):
    """The first question is answered late but in time, the second never: who comes third waits 500 ms, not for its end."""
    rig.publish("replica", lease=False)

    def timed(path):
        asked = time.monotonic()
        s = rig.status(path)
        return s, time.monotonic() - asked

    def three_in_a_row():
        rig.cmd("facts-delay 0")
        wait_until(lambda: "xlog" in rig.json("/patroni")[1], 10, "PostgreSQL answers, nothing is under way")
        before = rig.asked()
        rig.cmd("facts-delay 400")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            began = time.monotonic()
            first = pool.submit(timed, "/patroni")
            wait_until(lambda: rig.asked() == before + 1, 2, "the first question", 0.01)
            rig.cmd("facts-delay 1300")
            time.sleep(max(0, began + 0.1 - time.monotonic()))
            second = pool.submit(timed, "/patroni")
            wait_until(lambda: rig.asked() == before + 2, 2, "the second question", 0.01)
            # The second request is gone before the question that was sent for it is 500 ms old.
            assert second.result()[1] < 0.75
            third = pool.submit(timed, "/patroni")
            assert first.result()[0] == 200 and first.result()[1] < 0.75
            s, took = third.result()
            assert s == 200 and took < 0.7, took
    undisturbed(three_in_a_row)


def test_long_facts(rig):
    rig.publish("replica", lease=False)
    rows = [{"usename": "replicator", "application_name": "member-%d" % i, "client_addr": "10.0.0.1", "state": "streaming",
             "sync_state": "async", "sync_priority": 0} for i in range(3000)]
    rig.facts({**REPLICA_FACTS, "replication": rows})
    s, d = rig.json("/patroni")
    assert s == 200 and d["replication"] == rows


def test_too_long_a_body_names_the_limit(rig):
    rig.publish()
    s, text = rig.text("PATCH", "/config", json.dumps({"x": "y" * 70000}))
    assert s == 413 and "at most 64512 bytes are allowed" in text


def test_long_configuration(one):
    """Longer than one message: written and answered. Longer than what members can show: refused, nothing is written."""
    m = one.members[0]
    part = "z" * 60000
    want = one.etcd.json("config")
    for i in range(4):
        s, text = m.status("/config", "PATCH", {"part%d" % i: part})
        want["part%d" % i] = part
        assert s == 200 and json.loads(text) == want
    assert one.etcd.json("config") == want
    wait_until(lambda: m.status("/config") == (200, text), 15, "the page shows it")
    s, text = m.status("/config", "PATCH", {"part4": part})
    assert s == 413 and "at most 262144 are allowed" in text
    assert one.etcd.json("config") == want
    s, text = m.status("/config", "PATCH", {k: None for k in want if k.startswith("part")})
    assert s == 200 and set(json.loads(text)) == {k for k in want if not k.startswith("part")}


def test_changes_while_the_bootstrap_ends(work):
    """What was written in between is not put back by the bootstrap's last step."""
    c = Cluster(work, n=1)
    try:
        m = c.members[0]
        m.start()
        written, more, until = set(), 0, time.monotonic() + 60
        while more < 10:
            key = "k%d" % len(written)
            # Long, so that a step of the worker lies between the answer and its own view of the change.
            if m.status("/config", "PATCH", {key: 1, "long": key + "z" * 60000})[0] == 200:
                written.add(key)
            # The identifier is written together with the configuration.
            more += bool(c.etcd.get("initialize"))
            assert time.monotonic() < until, "n0 leads"
        assert written and written <= set(c.etcd.json("config"))
    finally:
        c.stop()


def test_values_of_arrays_keep_their_type(one):
    m = one.members[0]
    for value in (["1"], [1], [1.5], [True], ["True"]):
        s, text = m.status("/config", "PATCH", {"list": value})
        got = json.loads(text)["list"]
        assert s == 200 and got == value and [type(x) for x in got] == [type(x) for x in value]
        assert one.etcd.json("config")["list"] == value


def test_mpp_events_are_refused(one):
    m = one.members[0]
    event = {"type": "before_demote", "group": 1, "leader": "w0", "timeout": 1, "cooldown": 1}
    for path in ("/citus", "/mpp"):
        s, text = m.status(path, "POST", event)
        assert s == 501 and "not built yet" in text


def test_a_stray_member_key_leaves_the_ttl(one):
    """Only what looks like a running Patroni brings its minimums back."""
    m = one.members[0]
    assert one.etcd.json("config")["ttl"] == 6
    for value in ("{}", "null", "[]", "17", "not json", '{"state": "running"}'):
        assert one.etcd.ctl("put", "/service/it/members/stray", value) is not None
    wait_until(lambda: '"stray"' in m.status("/cluster")[1], 10, "the stray key is seen")
    assert "are adjusted to" not in m.proc.text()
    one.etcd.ctl("put", "/service/it/members/real", json.dumps(
        {"conn_url": "postgres://127.0.0.1:1/postgres", "api_url": "http://127.0.0.1:1/patroni", "state": "running",
         "role": "replica", "version": "4.1.4"}))
    wait_until(lambda: "are adjusted to 20" in m.proc.text(), 10, "a Patroni member is noticed")
