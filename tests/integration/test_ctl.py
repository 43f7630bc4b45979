"""pgregentctl against a real cluster of two members: from the store with -c, and over the agent's local socket."""
import json
import os
import subprocess

import pytest

from cluster import Cluster
from util import program, wait_until


class Ctl:
    def __init__(self, cluster):
        self.cluster = cluster

    def run(self, *args, text="", env=None, store=True):
        e = {k: v for k, v in os.environ.items() if not k.startswith("PATRONI") and k != "RUNTIME_DIRECTORY"}
        e.update(HOME=self.cluster.base, **(env or {}))
        way = ["-c", self.cluster.members[0].yml] if store else []
        return subprocess.run([program("pgregentctl"), *way, *args], input=text.encode(), env=e, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ok(self, *args, **kw):
        r = self.run(*args, **kw)
        assert r.returncode == 0, (args, r.stdout, r.stderr)
        return r.stdout.decode()

    def rows(self):
        return {r["Member"]: r for r in json.loads(self.ok("list", "-f", "json"))}


@pytest.fixture
def pair(work):
    c = Cluster(work, 2)
    try:
        c.start()
        yield c, Ctl(c)
    finally:
        c.stop()


def test_ctl(pair):
    c, ctl = pair

    def shown():
        rows = ctl.rows()
        return rows if rows.get("n1", {}).get("State") == "streaming" and rows.get("n0", {}).get("State") == "running" else None
    rows = wait_until(shown, 20, "n0 is shown as running, n1 as streaming")
    assert rows["n0"]["Role"] == "Leader" and rows["n0"]["TL"] == 1
    assert rows["n0"]["Host"] == "127.0.0.1:%d" % c.members[0].pg and rows["n1"]["Role"] == "Replica"
    assert "Receive LSN" in rows["n1"] and "Receive LSN" not in rows["n0"]

    pretty = ctl.ok("list").splitlines()
    assert pretty[0].startswith("+ Cluster: it (%s) -" % c.etcd.get("initialize"))
    assert pretty[1].startswith("| Member | Host") and len({len(line) for line in pretty}) == 1
    assert ctl.ok("list", "-f", "tsv").splitlines()[0].split("\t")[:4] == ["Cluster", "Member", "Host", "Role"]
    assert "- Cluster: it\n" in ctl.ok("list", "-f", "yaml")
    assert "| + n1 " in ctl.ok("topology")
    assert ctl.ok("dsn").strip() == "host=127.0.0.1 port=%d" % c.members[0].pg
    assert "n0: Patroni" in ctl.ok("version", "it")
    # the same over the socket of the agent on this node
    socket_env = {"RUNTIME_DIRECTORY": c.members[0].run}
    assert "| n0 " in ctl.ok("list", store=False, env=socket_env)

    # usage and errors
    assert ctl.run("list", "--nope").returncode == 2 and ctl.run("nope").returncode == 2
    assert ctl.run("restart", "it", "n1", "--scheduled", "nonsense", "--force").returncode == 1
    r = ctl.run("switchover", "--candidate", "n1", text="")
    assert r.returncode == 1 and b"Aborted!" in r.stderr

    # configuration
    out = ctl.ok("edit-config", "-s", "ttl=7", "-p", "ext.guc=1", "--force")
    assert "+ttl: 7" in out and "-ttl: 6" in out and "Configuration changed" in out
    assert c.etcd.json("config")["postgresql"]["parameters"]["ext.guc"] == 1
    assert ctl.ok("edit-config", "-s", "ttl=7", "--force") == "Not changed\n"
    assert "ttl: 7" in ctl.ok("show-config")
    assert "Use --force option" in ctl.ok("edit-config", "--apply", "-", text="ttl: 9\n")
    assert c.etcd.json("config")["ttl"] == 7
    ctl.ok("edit-config", "-p", "ext.guc=null", text="y\n")
    assert "ext.guc" not in c.etcd.json("config")["postgresql"]["parameters"]

    # pause
    out = ctl.ok("pause", "--wait")
    assert out.endswith("Success: cluster management is paused\n") and "'pause' request sent" in out
    assert "Maintenance mode: on" in ctl.ok("list")
    r = ctl.run("pause")
    assert r.returncode == 1 and r.stderr == b"Error: Cluster is already paused\n"
    assert "resumed" in ctl.ok("resume", "--wait")

    # reload and restart of a replica, then the handover
    assert "Reload request received for member n1" in ctl.ok("reload", "it", "n1", "--force")
    assert "Success: restart on member n1" in ctl.ok("restart", "it", "n1", "--force")
    wait_until(lambda: ctl.rows()["n1"].get("State") == "streaming", 20, "n1 streams again")
    out = ctl.ok("switchover", text="n0\nn1\nnow\ny\n")
    assert "Candidate ['n1'] []: " in out and 'Successfully switched over to "n1"' in out
    wait_until(lambda: ctl.rows()["n1"]["Role"] == "Leader", 20, "n1 is shown as leader")
    wait_until(lambda: json.loads(ctl.ok("history", "-f", "json")), 20, "the history has a row")
    assert json.loads(ctl.ok("history", "-f", "json"))[0]["TL"] == 1
