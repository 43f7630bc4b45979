"""pgregentctl from the store alone, without a member that runs: what it shows of keys as members of several versions write them,
and of keys that make no sense. The expected texts are those of patronictl 4.1 on the same keys."""
import json
import os
import re
import socket

import pytest

from cluster import Etcd
from test_ctl import Ctl

MEMBERS = {
    "a": {"conn_url": "postgres://h1:5432/postgres", "api_url": "http://127.0.0.1:1/patroni", "state": "running", "role": "primary",
          "xlog_location": 100663296, "timeline": 4, "pending_restart": True,
          "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "101"},
                                     "shared_preload_libraries": {"old_value": "a" * 38, "new_value": "b" * 11}}},
    "b": {"conn_url": "postgres://h2:5432/postgres", "state": "running", "role": "replica", "xlog_location": 90000000,
          "receive_lsn": 98566144, "replay_lsn": 90000000, "replication_state": "streaming", "timeline": 4,
          "tags": {"clonefrom": True, "x": 5, "nested": {"a": [1, 2]}},
          "scheduled_restart": {"schedule": "2030-01-01T00:00:00+00:00", "postgres_version": "16.0"}},
    # one position only, as agents before 4.1 write it
    "old1": {"conn_url": "postgres://h3:5432/postgres", "state": "running", "role": "replica", "replication_state": "streaming",
             "xlog_location": 98566144, "timeline": 4, "tags": {"replicatefrom": "b"}},
    "old2": {"conn_url": "postgres://h4:5432/postgres", "state": "running", "role": "replica", "xlog_location": 98566144},
    "d": {"conn_url": "postgres://[::1]:5432/postgres", "state": "running", "role": "replica", "replay_lsn": 5, "timeline": 3,
          "replication_state": "in archive recovery", "tags": {"replicatefrom": "old1"},
          "scheduled_restart": {"schedule": "2030-01-01T00:00:00+00:00"}},
    "e": {"state": "creating replica", "role": "replica"},
    "f": "garbage",
    "g": {"conn_url": "postgres://user:pw@h5/db", "state": "stopped", "role": "uninitialized", "tags": {"replicatefrom": "g"}},
}
TREE = ["a", "+ b", "  + old1", "    + d", "+ e", "+ f", "+ g", "+ old2"]


class Store:
    """A Cluster in name only: an etcd and a configuration file for Ctl."""

    def __init__(self, base):
        self.base, self.etcd, self.members = base, Etcd(base), [self]
        self.yml = os.path.join(base, "ctl.yml")
        with open(self.yml, "w") as f:
            f.write("scope: it\nnamespace: service\netcd3: {hosts: '%s'}\n" % self.etcd.url)

    def put(self, key, value):
        text = value if isinstance(value, str) else json.dumps(value)
        assert self.etcd.ctl("put", "/service/" + key, text) is not None


@pytest.fixture
def store(work):
    s = Store(work)
    try:
        s.etcd.start()
        yield s, Ctl(s)
    finally:
        s.etcd.stop()


def fill(s):
    for name, value in MEMBERS.items():
        s.put("it/members/" + name, value)
    s.put("it/initialize", "123")
    s.put("it/leader", "a")
    s.put("it/status", {"optime": 100663296})
    s.put("it/config", {"ttl": 30, "synchronous_mode": True, "pause": True, "cost": 100.0, "at": "2030-01-01"})
    s.put("it/sync", {"leader": "a", "sync_standby": "b,D"})
    s.put("it/failover", {"leader": "a", "member": "b", "scheduled_at": "2030-01-01T00:00:00+02:00"})
    s.put("it/history", [[1, 67108864, "no recovery target specified"],
                         [2, 67109864, "no recovery target specified", "2025-01-01T00:00:00.123456+00:00", "a"]])


def test_views_of_the_store(store):
    s, ctl = store
    fill(s)
    rows = ctl.rows()
    assert [n for n in rows] == sorted(MEMBERS)
    assert rows["a"] == {
        "Cluster": "it", "Member": "a", "Host": "h1", "Role": "Leader", "State": "running", "TL": 4, "Pending restart": "*",
        "Pending restart reason": "max_connections: 100->101\nshared_preload_libraries: %s->%s" % ("a" * 38, "b" * 11)}
    assert rows["b"] == {
        "Cluster": "it", "Member": "b", "Host": "h2", "Role": "Sync Standby", "State": "streaming", "TL": 4,
        "Receive LSN": "0/5E00000", "Receive Lag": 2, "Replay LSN": "0/55D4A80", "Replay Lag": 10,
        "Scheduled restart": "2030-01-01T00:00:00+00:00 if version < 16.0", "Tags": MEMBERS["b"]["tags"]}
    positions = {n: [r.get(k) for k in ("Receive LSN", "Receive Lag", "Replay LSN", "Replay Lag")] for n, r in rows.items()}
    assert positions["old1"] == ["0/5E00000", 2, "unknown", None]
    assert positions["old2"] == ["unknown", None, "0/5E00000", 2]
    assert positions["d"] == ["unknown", None, "0/5", 96] and rows["d"]["Role"] == "Sync Standby" and rows["d"]["Host"] == "::1"
    assert positions["e"] == positions["f"] == ["unknown", None, "unknown", None]
    assert "Host" not in rows["e"] and "State" not in rows["f"] and rows["g"]["Host"] == "h5"

    lines = ctl.ok("list").splitlines()
    assert lines[0].startswith("+ Cluster: it (123) -") and len({len(line) for line in lines[:-4]}) == 1
    assert any("shared_preload_libraries: [hidden - too long] " in line for line in lines)
    assert lines[-4:] == [" Maintenance mode: on", " Switchover scheduled at: 2030-01-01T00:00:00+02:00",
                          "                    from: a", "                      to: b"]
    tree = [line.split("|")[1][1:].rstrip() for line in ctl.ok("topology").splitlines() if line.startswith("|")]
    assert [name for name in tree if name not in ("", "Member")] == TREE
    assert ctl.ok("show-config") == ("at: '2030-01-01'\ncost: 100.0\npause: true\nsynchronous_mode: true\nttl: 30\n\n")
    assert ctl.ok("history", "-f", "yaml").splitlines()[:10] == [
        "- LSN: 67108864", "  New Leader: ''", "  Reason: no recovery target specified", "  TL: 1", "  Timestamp: ''",
        "- LSN: 67109864", "  New Leader: a", "  Reason: no recovery target specified", "  TL: 2",
        "  Timestamp: '2025-01-01T00:00:00.123456+00:00'"]


def test_standby_cluster_and_garbage(store):
    s, ctl = store
    s.put("sb/initialize", "")
    s.put("sb/leader", "b")
    s.put("sb/config", {"standby_cluster": {"host": "x", "port": 1}, "synchronous_mode": "quorum"})
    s.put("sb/sync", {"leader": "b", "sync_standby": "c", "quorum": 1})
    for name, role in (("b", "standby_leader"), ("c", "replica")):
        s.put("sb/members/" + name, {"conn_url": "postgres://h2:5433/postgres", "state": "running", "role": role,
                                     "replication_state": "streaming", "receive_lsn": 5, "replay_lsn": 5})
    out = ctl.ok("list", "sb")
    assert out.startswith("+ Cluster: sb (initializing) -")
    assert "| b      | h2:5433 | Standby Leader | streaming |" in out and "| c      | h2:5433 | Replica        |" in out
    for key in ("config", "history", "sync", "failover", "status", "members/c"):
        s.put("gh/" + key, "garbage")
    s.put("gh/leader", "ghost")
    assert [r["Member"] for r in json.loads(ctl.ok("list", "gh", "-f", "json"))] == ["c"]
    assert ctl.ok("history", "gh", "-f", "json") == "[]\n"
    assert "doesn't have any members" in ctl.run("restart", "nothere", "--force").stderr.decode()
    assert ctl.ok("list", "nothere").startswith("+ Cluster: nothere (uninitialized) ")


def test_edit_config_replace(store):
    """A patch of nothing: what is null on top is not there, inside of what is new it stays."""
    s, ctl = store
    fill(s)
    assert s.etcd.json("config")["ttl"] == 30
    path = os.path.join(s.base, "new.yml")
    with open(path, "w") as f:
        f.write("ttl: 40\nn: null\ncost: 1e+2\nnew: {k: null}\n")
    out = ctl.ok("edit-config", "--replace", path, "-p", "work_mem=4MB", "--force")
    assert out.endswith("Configuration changed\n") and "+ttl: 40\n" in out and "-cost: 100.0\n" in out
    assert s.etcd.json("config") == {"ttl": 40, "cost": "1e+2", "new": {"k": None}, "postgresql": {"parameters": {"work_mem": "4MB"}}}
    assert ctl.ok("edit-config", "-s", "new.k=null", "-s", "ttl=40", "--force") != ""
    assert ctl.ok("edit-config", "-q", "-s", "ttl=40", "--force") == ""


def test_nobody_answers(store):
    """A member that cannot be reached holds nothing up; a scheduled switchover is taken back, and one asked for, in the store."""
    s, ctl = store
    fill(s)
    r = ctl.run("reload", "it", "a", "b", "--force")
    assert r.returncode == 1 and r.stdout.decode().count("Failed: reload for member ") == 2
    assert b"Error: Can not find accessible cluster member" in ctl.run("resume").stderr
    out = ctl.ok("flush", "it", "switchover")
    assert re.search(r"(?m)^[0-9-]{10} [0-9:]{8}\.[0-9]{5} Could not find any accessible member of cluster it$", out)
    assert s.etcd.json("failover") == {}
    out = ctl.ok("switchover", "--force", "--candidate", "b")
    assert re.search(r"(?m)^[0-9-]{10} [0-9:]{8}\.[0-9]{5} Could not switchover using Patroni api, falling back to DCS$", out)
    assert s.etcd.json("failover") == {"leader": "a", "member": "b"}
    # nofailover decides where it is set, the priority only without it
    for name, tags in (("p0", {"nofailover": False, "failover_priority": 0}), ("p1", {"failover_priority": "0"}),
                       ("p2", {"nofailover": True, "failover_priority": 5}), ("p3", {"failover_priority": "2"})):
        s.put("it/members/" + name, dict(MEMBERS["old2"], tags=tags))
    out = ctl.run("switchover", text="\n").stdout.decode()
    assert "Candidate ['b', 'd', 'e', 'f', 'g', 'old1', 'old2', 'p0', 'p3'] []: " in out
    # what is logged looks as it does there
    no_scope = os.path.join(s.base, "noscope.yml")
    with open(no_scope, "w") as f:
        f.write("etcd3: {hosts: '%s'}\n" % s.etcd.url)
    s.yml = no_scope
    r = ctl.run("list")
    assert r.returncode == 0 and r.stdout == b""
    assert re.match(r"[0-9-]{10} [0-9:]{8},[0-9]{3} - WARNING - Listing members: No cluster names were provided\n$", r.stderr.decode())
    r = ctl.run("edit-config", "it", "--apply", "/nosuch", "--force")
    assert r.returncode == 1 and r.stderr.decode() == "Error: /nosuch: No such file or directory\n"


def test_two_agents_on_a_node(store):
    """Without a word it must not be chance which cluster is meant; the name of the cluster tells them apart, a third is nobody's."""
    s, ctl = store
    env = {"RUNTIME_DIRECTORY": s.base}
    ends = []
    for scope in ("first", "second"):
        os.mkdir(os.path.join(s.base, scope + ".n1"))
        ends.append(socket.socket(socket.AF_UNIX))
        ends[-1].bind(os.path.join(s.base, scope + ".n1", "api.sock"))  # nobody listens: whoever picks it says so
    r = ctl.run("list", store=False, env=env)
    said = r.stderr.decode()
    assert r.returncode == 1 and said.startswith("Error: Several agents run on this host, name the cluster or use -c: ")
    assert "/first.n1/api.sock" in said and "/second.n1/api.sock" in said
    r = ctl.run("list", "second", store=False, env=env)
    assert r.returncode == 1 and b"Several" not in r.stderr and r.stderr.startswith(b"Error: ")
    r = ctl.run("list", "third", store=False, env=env)
    assert r.returncode == 1 and r.stderr.startswith(b"Error: Can not find suitable configuration of distributed configuration store\n")
    for end in ends:
        end.close()
