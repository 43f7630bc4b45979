"""pgregentctl: what the first file leaves out: query, schedules and their flush, failover, reinit, standby cluster, remove;
over the store, over --dcs-url, over the agent's socket; members that are dead, a store that does not answer."""
import json
import signal

import pytest

from cluster import Cluster
from test_ctl import Ctl
from util import free_port, wait_until

LATER = "2030-01-01T10:00+00:00"


@pytest.fixture
def pair(work):
    c = Cluster(work, 2)
    try:
        c.start()
        ctl = Ctl(c)
        wait_until(lambda: ctl.rows().get("n1", {}).get("State") == "streaming", 20, "n1 is shown as streaming")
        yield c, ctl
    finally:
        c.stop()


def query(ctl, *args, env=None):
    e = {"PGUSER": "postgres", "PGDATABASE": "postgres"}
    e.update(env or {})
    return ctl.ok("query", *args, env=e)


def check_query(ctl):
    sql = "SELECT 1 AS a, true AS b, NULL AS c, 2.50::numeric AS d"
    assert query(ctl, "-c", sql) == "a\tb\tc\td\n1\tTrue\tNone\t2.50\n"
    assert json.loads(query(ctl, "-c", sql, "--format", "json")) == [{"a": 1, "b": True, "c": None, "d": "2.50"}]
    assert query(ctl, "-c", "SELECT 1 AS a, 2 AS b", "--delimiter", "|") == "a|b\n1|2\n"
    recovery = "SELECT pg_is_in_recovery() AS r"
    for role, value in (("leader", "False"), ("primary", "False"), ("replica", "True"), ("standby", "True")):
        assert query(ctl, "-c", recovery, "-r", role) == "r\n%s\n" % value
    assert query(ctl, "-c", recovery, "-m", "n1") == "r\nTrue\n"
    assert query(ctl, "-c", "SELECT 1/0").endswith("\tERROR, SQLSTATE: 22012\n")
    assert query(ctl, "-c", "CHECKPOINT").endswith("\tERROR, SQLSTATE: no results to fetch\n")
    assert query(ctl, "-c", "SELECT 1", "-m", "n9").endswith("\tNo connection to member n9 is available\n")
    assert "| Field 1 " in query(ctl, "-c", "SELECT 1/0", "--format", "pretty")
    assert json.loads(query(ctl, "-c", "SELECT 1/0", "--format", "json")) == [{}]
    for args, text in ((["-c", "x", "-f", "y"], b"--file and --command are mutually exclusive options"),
                       ([], b"You need to specify either --command or --file"),
                       (["-c", "x", "-m", "n1", "-r", "any"], b"--role and --member are mutually exclusive options")):
        r = ctl.run("query", *args)
        assert r.returncode == 1 and r.stderr == b"Error: " + text + b"\n"


def check_schedules(c, ctl, env):
    assert "Switchover scheduled" in ctl.ok("switchover", "--force", "--candidate", "n1", "--scheduled", LATER)
    lines = [" Switchover scheduled at: 2030-01-01T10:00:00+00:00", "                    from: n0",
             "                      to: n1"]
    assert ctl.ok("list").splitlines()[-3:] == lines
    wait_until(lambda: ctl.ok("list", store=False, env=env).splitlines()[-3:] == lines, 15, "the agent shows it too")
    assert ctl.ok("flush", "it", "switchover") == "Success: scheduled switchover deleted\n"
    assert ctl.ok("flush", "it", "switchover") == "No pending scheduled switchover\n"

    assert "Success: restart scheduled on member n1" in ctl.ok("restart", "it", "n1", "--force", "--scheduled", LATER)
    wait_until(lambda: ctl.rows()["n1"].get("Scheduled restart") == "2030-01-01T10:00:00+00:00", 15, "the key says so")
    # of the others nothing is shown, extended or not
    assert all("Scheduled restart" not in r for r in json.loads(ctl.ok("list", "-e", "-f", "json"))
               if r["Member"] == "n0")
    r = ctl.ok("restart", "it", "n1", "--scheduled", LATER, text="y\n\n")
    assert "Failed: another restart is already scheduled on member n1" in r
    out = ctl.ok("flush", "it", "restart", "--force")
    assert "No scheduled restart for member n0" in out
    assert "Success: flush scheduled restart for member n1" in out


def check_socket(ctl, env):
    def ok(*args, **kw):
        return ctl.ok(*args, store=False, env=env, **kw)
    assert "| + n1 " in ok("topology") and ok("dsn") == ctl.ok("dsn")
    assert ok("show-config") == ctl.ok("show-config") and ok("history") == ctl.ok("history")
    # Of a server that does not answer within half a second no version is told.
    wait_until(lambda: ok("version", "it").count("PostgreSQL") == 2, 15, "both tell their version")
    assert "Configuration changed" in ok("edit-config", "-s", "primary_start_timeout=77", "--force")
    wait_until(lambda: "primary_start_timeout: 77" in ctl.ok("show-config"), 15, "it is in the store")
    assert "is paused" in ok("pause", "--wait") and "is resumed" in ok("resume", "--wait")
    assert ok("reload", "it", "--force").count("Reload request received") == 2
    r = ctl.run("list", "other", store=False, env=env)
    assert r.returncode == 1 and r.stderr.startswith(b"Error: ")


def check_where(c, ctl):
    url = "etcd3://%s/service" % c.etcd.url
    r = ctl.run("-d", url, "list", "it", "-f", "json", store=False)
    assert r.returncode == 0 and len(json.loads(r.stdout)) == 2
    # Positions may go on between two of them.
    wait_until(lambda: ctl.ok("list", "it", store=False, env={"DCS_URL": url}) == ctl.ok("list"), 15, "the same list by DCS_URL")
    wait_until(lambda: ctl.ok("list", store=False, env={"PATRONICTL_CONFIG_FILE": c.members[0].yml}) == ctl.ok("list"), 15,
               "the same list by PATRONICTL_CONFIG_FILE")
    r = ctl.run("-d", "ftp://x", "list", "it", store=False)
    assert r.returncode == 1 and r.stderr == b"Error: Unknown dcs scheme: ftp\n"
    r = ctl.run("-c", "/nowhere.yml", "list", store=False)
    assert r.returncode == 1 and r.stderr.startswith(b"Error: Provided config file /nowhere.yml not existing or no")
    r = ctl.run("-d", "etcd3://127.0.0.1:%d" % free_port(), "list", "it")
    assert r.returncode == 1 and r.stderr.startswith(b"Error: Can not read cluster it from etcd3: ")


def test_ctl_commands(pair):
    c, ctl = pair
    env = {"RUNTIME_DIRECTORY": c.members[0].run}
    check_query(ctl)
    check_where(c, ctl)
    check_schedules(c, ctl, env)
    check_socket(ctl, env)


def test_ctl_roles(pair):
    c, ctl = pair
    r = ctl.run("failover", "--force")
    assert r.returncode == 1 and r.stderr == b"Error: Failover could be performed only to a specific candidate\n"
    r = ctl.run("failover", "--candidate", "n0", "--force")
    assert r.returncode == 1 and r.stderr == b"Error: Member n0 is already the leader of cluster it\n"
    assert 'Successfully failed over to "n1"' in ctl.ok("failover", "--candidate", "n1", "--force")
    wait_until(lambda: ctl.rows()["n0"].get("State") == "streaming", 20, "n0 follows")

    assert ctl.run("reinit", "it", text="n7\n").stderr.endswith(b"Error: n7 is not a member of cluster\n")
    out = ctl.ok("reinit", "it", "n0", "--force", "--wait")
    assert "Success: reinitialize for member n0" in out and out.endswith("Reinitialize is completed on: n0\n")
    wait_until(lambda: ctl.rows()["n0"].get("State") == "streaming", 20, "n0 follows again")

    # a standby cluster, and back
    r = ctl.run("demote-cluster", "--force")
    assert r.returncode == 1 and b"At least --host, --port or --restore-command should be specified" in r.stderr
    r = ctl.run("demote-cluster", "--host", "127.0.0.1", text="n\n")
    assert r.returncode == 1 and r.stderr == b"Error: Aborted cluster demotion\n"
    port = free_port()
    out = ctl.ok("demote-cluster", "--host", "127.0.0.1", "--port", str(port), "--force")
    assert "cluster is successfully demoted" in out and "| Standby Leader |" in out
    assert c.etcd.json("config")["standby_cluster"] == {"host": "127.0.0.1", "port": port}
    assert "cluster is successfully promoted" in ctl.ok("promote-cluster", "--force")
    assert "standby_cluster" not in c.etcd.json("config")
    r = ctl.run("promote-cluster", "--force")
    assert r.returncode == 1 and r.stderr == b"Error: Cluster is already in the required state\n"

    # a member that is gone does not hold up the others
    wait_until(lambda: sorted(x["Role"] for x in ctl.rows().values()) == ["Leader", "Replica"], 20, "both are there")
    gone = next(m for m in c.members if ctl.rows()[m.name]["Role"] == "Replica")
    gone.kill_all()
    r = ctl.run("reload", "it", "--force")
    assert r.returncode == 1 and b"Failed: reload for member %s, status code=0" % gone.name.encode() in r.stdout
    assert b"Reload request received" in r.stdout
    r = ctl.run("reload", "it", "n7", "--force")
    assert r.returncode == 1 and r.stderr == b"Error: No 'any' among provided members\n"


def test_ctl_without_leader(work):
    c = Cluster(work, 1)
    try:
        c.start()
        ctl = Ctl(c)
        for answers, text in (("x\n", b"Cluster names specified do not match"),
                              ("it\nyes\n", b'You did not exactly type "Yes I am aware"'),
                              ("it\nYes I am aware\nn7\n", b"You did not specify the current leader of the cluster")):
            r = ctl.run("remove", "it", text=answers)
            assert r.returncode == 1 and r.stderr == b"Error: " + text + b"\n"
        c.members[0].proc.signal(signal.SIGTERM)
        assert c.members[0].proc.wait(40) == 0  # its last writes are in the store
        assert c.etcd.get("leader") is None
        for args, text in ((["switchover", "--force"], b"This cluster has no leader"),
                           (["demote-cluster", "--host", "x"], b"Cluster has no leader, demotion is not possible"),
                           (["dsn"], b"Can not find a suitable member")):
            r = ctl.run(*args)
            assert r.returncode == 1 and r.stderr == b"Error: " + text + b"\n", args
        assert ctl.run("remove", "it", text="it\nYes I am aware\n").returncode == 0
        assert c.etcd.get("config") is None and c.etcd.get("initialize") is None
        assert "(uninitialized)" in ctl.ok("list")
    finally:
        c.stop()
