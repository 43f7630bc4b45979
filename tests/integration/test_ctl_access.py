"""pgregentctl as it is used by hand and by scripts: TLS with client certificates and a password, the editor and the pager of
edit-config, the choices of restart, the prompts of switchover and reinit."""
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import threading

import pytest

from cluster import Cluster, Member
from test_api import pki  # noqa: F401
from test_ctl import Ctl
from util import program, wait_until


class Secured(Member):
    """restapi with TLS, a client certificate for everybody, and a password."""

    def __init__(self, cluster, name, **more):
        super().__init__(cluster, name, **more)
        d = cluster.pki
        with open(self.yml) as f:
            text = f.read()
        text = text.replace("restapi:\n", "restapi:\n  certfile: %s/server.crt\n  keyfile: %s/server.key\n  cafile: %s/ca.crt\n"
                            "  verify_client: required\n  authentication: {username: ops, password: sec%%ret}\n" % (d, d, d), 1)
        text += "ctl:\n  certfile: %s/client.crt\n  keyfile: %s/client.key\n" % (d, d)
        with open(self.yml, "w") as f:
            f.write(text)


def changed(c, name, *pairs):
    """The configuration of n0 with something else in it, for ctl alone."""
    with open(c.members[0].yml) as f:
        text = f.read()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = os.path.join(c.base, name + ".yml")
    with open(path, "w") as f:
        f.write(text)
    return path


def test_tls_and_password(work, pki):  # noqa: F811
    class C(Cluster):
        pass
    C.pki = pki
    c = C(work, 2, member=Secured)
    try:
        c.start()
        ctl = Ctl(c)
        wait_until(lambda: ctl.rows().get("n1", {}).get("State") == "streaming", 20, "n1 streams")
        assert c.etcd.json("members/n0")["api_url"].startswith("https://")
        # Of a server that does not answer within half a second no version is told.
        wait_until(lambda: ctl.ok("version", "it").count("PostgreSQL") == 2, 15, "both tell their version")
        assert ctl.ok("reload", "it", "--force").count("Reload request received") == 2
        assert "Success: restart on member n1" in ctl.ok("restart", "it", "n1", "--force")
        wait_until(lambda: ctl.rows()["n1"].get("State") == "streaming", 20, "n1 streams again")

        def refused(path, *more, what):
            r = ctl.run("-c", path, *more, "reload", "it", "n1", "--force", store=False)
            assert what in r.stdout.decode(), (r.stdout, r.stderr)
            return r.returncode

        # The wrong password is an answer, exit 0; no handshake is none, exit 1.
        wrong = changed(c, "wrong", ("password: sec%ret", "password: guess"))
        assert refused(wrong, what="Failed: reload for member n1, status code=401, (not authenticated)") == 0
        none = changed(c, "none", ("  authentication: {username: ops, password: sec%ret}\n", ""))
        assert refused(none, what="status code=401, (no auth header received)") == 0
        cert = "  certfile: %s/client.crt\n  keyfile: %s/client.key\n" % (pki, pki)
        nocert = changed(c, "nocert", ("ctl:\n" + cert, ""))
        assert refused(nocert, what="Failed: reload for member n1, status code=0") == 1
        stranger = changed(c, "stranger", ("/client.", "/stranger."))
        assert refused(stranger, what="Failed: reload for member n1, status code=0") == 1
        # The server is verified, by ctl.cacert or restapi.cafile; insecure with a client certificate still checks the chain.
        otherca = changed(c, "otherca", ("/ca.crt", "/other.crt"))
        assert refused(otherca, what="Failed: reload for member n1, status code=0") == 1
        assert refused(otherca, "-k", what="Failed: reload for member n1, status code=0") == 1
        byctl = changed(c, "byctl", ("/ca.crt", "/other.crt"), ("ctl:\n", "ctl:\n  cacert: %s/ca.crt\n" % pki))
        assert refused(byctl, what="Reload request received") == 0
        # A name that the certificate does not have.
        env = {"PATRONI_CTL_USERNAME": "ops", "PATRONI_CTL_PASSWORD": "guess"}
        assert "status code=401" in ctl.ok("reload", "it", "n1", "--force", env=env)
        # Without an answer of the leader the key is written; members ask each other over TLS, too.
        r = ctl.run("-c", nocert, "switchover", "--candidate", "n1", "--force", store=False)
        assert r.returncode == 0 and b"Could not switchover using Patroni api, falling back to DCS" in r.stdout
        assert c.wait_leader(20, c.members[0]).name == "n1"
        wait_until(lambda: ctl.rows()["n0"].get("State") == "streaming", 20, "n0 follows")
        assert 'Successfully switched over to "n0"' in ctl.ok("switchover", "--candidate", "n0", "--force")
    finally:
        c.stop()


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


def script(c, name, text):
    path = os.path.join(c.base, name)
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return path


def on_terminal(c, *args, env, answer=b""):
    """Standard output is a terminal; what was shown there."""
    master, slave = pty.openpty()
    e = {k: v for k, v in os.environ.items() if not k.startswith("PATRONI")}
    e.update(env)
    p = subprocess.Popen([program("pgregentctl"), "-c", c.members[0].yml, *args], env=e, stdin=subprocess.PIPE,
                         stdout=slave, stderr=subprocess.STDOUT)
    os.close(slave)
    p.stdin.write(answer)
    p.stdin.close()
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert p.wait(20) == 0, shown
    return shown.decode()


def check_editor(c, ctl):
    seen = os.path.join(c.base, "seen")
    edit = script(c, "edit", 'echo "$1" > %s; cat "$1" >> %s; sed -i "s/^ttl: .*/ttl: 8/" "$1"\n' % (seen, seen))
    out = ctl.ok("edit-config", env={"EDITOR": edit}, text="n\n")
    assert "-ttl: 6\n+ttl: 8" in out and "Apply these changes? [y/N]: " in out and "changed" not in out
    with open(seen) as f:
        name, text = f.read().split("\n", 1)
    assert os.path.basename(name).startswith("it-config-") and name.endswith(".yaml") and not os.path.exists(name)
    assert text == ctl.ok("show-config")[:-1]
    assert c.etcd.json("config")["ttl"] == 6
    assert "Configuration changed" in ctl.ok("edit-config", env={"EDITOR": edit}, text="y\n")
    assert c.etcd.json("config")["ttl"] == 8
    assert ctl.ok("edit-config", env={"EDITOR": script(c, "look", "exit 0\n")}) == "Not changed\n"
    assert ctl.ok("edit-config", "-q", env={"EDITOR": script(c, "look", "exit 0\n")}) == ""
    r = ctl.run("edit-config", env={"EDITOR": script(c, "bad", "exit 3\n")})
    assert r.returncode == 1 and r.stderr == b"Error: Editor exited with return code 3\n"
    r = ctl.run("edit-config", env={"EDITOR": "", "PATH": "/nowhere"})
    assert r.returncode == 1 and b"EDITOR environment variable is not set" in r.stderr


def check_pager(c):
    pager = script(c, "page", 'echo "paged by $0"; cat\n')
    shown = on_terminal(c, "edit-config", "-s", "ttl=9", env={"PAGER": pager}, answer=b"n\n")
    assert "paged by" in shown and "\033[32m+ttl: 9\033[0m" in shown and "\033[31m-ttl: 8\033[0m" in shown
    assert shown.index("paged by") < shown.index("Apply these changes?")
    # One that is left before the end.
    shown = on_terminal(c, "edit-config", "-s", "ttl=9", env={"PAGER": script(c, "leave", "exit 0\n")}, answer=b"n\n")
    assert "Apply these changes?" in shown


def check_files(c, ctl):
    """--replace begins with nothing, --apply is a patch, -s comes after both."""
    stored = c.etcd.json("config")
    new, patch = os.path.join(c.base, "new.yaml"), os.path.join(c.base, "patch.yaml")
    with open(new, "w") as f:
        json.dump(dict(stored, ttl=10), f)
    with open(patch, "w") as f:
        f.write("retry_timeout: null\nslots:\n  one: {type: physical}\n")
    ctl.ok("edit-config", "--replace", new, "--apply", patch, "-s", "loop_wait=2", "-s", "a.b.c=off", "-p", " work_mem = 8MB ",
           "--force", "-q")
    want = dict(stored, ttl=10, loop_wait=2, slots={"one": {"type": "physical"}}, a={"b": {"c": False}})
    del want["retry_timeout"]
    want["postgresql"] = dict(stored["postgresql"], parameters=dict(stored["postgresql"]["parameters"], work_mem="8MB"))
    assert c.etcd.json("config") == want
    assert "Configuration changed" in ctl.ok("edit-config", "--replace", "-", "--force", text=json.dumps(stored))
    assert c.etcd.json("config") == stored
    for args, text in ((["-s", "ttl"], b"Invalid parameter setting ttl"),):
        r = ctl.run("edit-config", *args)
        assert r.returncode == 1 and r.stderr == b"Error: " + text + b"\n"
    assert ctl.run("edit-config", "--apply", "/nowhere").returncode == 1


def check_watch(c):
    """Rounds until it is interrupted; nothing clears a screen that is none."""
    for args, head in ((["list", "-t", "-w", "0.2"], b"+ Cluster: it "), (["topology", "-w", "0.2"], b"+ Cluster: it "),
                       (["query", "-c", "SELECT 7 AS seven", "-w", "0.2"], b"seven\n7\n")):
        e = dict(os.environ, PGUSER="postgres", PGDATABASE="postgres")
        p = subprocess.Popen([program("pgregentctl"), "-c", c.members[0].yml, *args], env=e, stdout=subprocess.PIPE)
        seen = b""
        while seen.count(head) < 3:
            part = os.read(p.stdout.fileno(), 65536)
            assert part, seen
            seen += part
        p.send_signal(signal.SIGINT)
        p.stdout.close()
        assert p.wait(10) != 0 and b"\033" not in seen


def test_edit_config(pair):
    c, ctl = pair
    check_watch(c)
    check_editor(c, ctl)
    check_pager(c)
    check_files(c, ctl)


def started(m):
    return m.sql("SELECT pg_postmaster_start_time()")[0][0]


def check_restart(c, ctl):
    n0, n1 = c.members
    at = {m.name: started(m) for m in c.members}

    def restarted():
        now = {m.name: started(m) for m in c.members}
        names = sorted(n for n in now if now[n] != at[n])
        at.update(now)
        return names

    out = ctl.ok("restart", "it", "-r", "replica", "--force")
    assert "Success: restart on member n1" in out and restarted() == ["n1"]
    out = ctl.ok("restart", "it", "--any", "--force", "--timeout", "1min")
    assert out.count("Success: restart on member") == 1 and len(restarted()) == 1
    # Of a version that is not reached: the member says no.
    out = ctl.ok("restart", "it", "n1", "--pg-version", "9.5.0", "--force")
    assert "Failed: restart for member n1, status code=503, (restart conditions are not satisfied)" in out
    out = ctl.ok("restart", "it", "n1", "--pg-version", "99.0", "--force")
    assert "Success: restart on member n1" in out and restarted() == ["n1"]
    r = ctl.run("restart", "it", "n1", "--pg-version", "abc", "--force")
    assert r.returncode == 1 and b"PostgreSQL version" in r.stderr
    out = ctl.ok("restart", "it", "n1", "--timeout", "-1", "--force")
    assert "status code=400, (Timeout should be a positive number of seconds)" in out
    r = ctl.run("restart", "it", text="now\nn\n")
    assert r.returncode == 1 and r.stderr == b"Error: Aborted restart\n"
    # Pending: those whose key says so.
    out = ctl.run("restart", "it", "--pending", "--force")
    assert b"Success" not in out.stdout and restarted() == []
    ctl.ok("edit-config", "-p", "max_connections=70", "--force", "-q")
    wait_until(lambda: all(r.get("Pending restart") == "*" for r in ctl.rows().values()), 15, "both are pending")
    assert "max_connections: 60->70" in ctl.rows()["n0"]["Pending restart reason"]
    # The standby first: it must not have less than the primary.
    out = ctl.ok("restart", "it", "n1", "--pending", "--force")
    assert "Success: restart on member n1" in out and restarted() == ["n1"]
    wait_until(lambda: "Pending restart" not in ctl.rows()["n1"], 15, "n1 is done")
    out = ctl.ok("restart", "it", "--pending", "--force")
    assert "Success: restart on member n0" in out and "on member n1" not in out and restarted() == ["n0"]
    wait_until(lambda: ctl.rows()["n1"].get("State") == "streaming", 20, "n1 streams")


def check_prompts(c, ctl):
    for text, error in (("n1\n", b"Member n1 is not the leader of cluster it"),
                        ("\nn7\n", b"Member n7 does not exist in cluster it or is tagged as nofailover"),
                        ("\nn0\n", b"Member n0 is already the leader of cluster it"),
                        ("\n\nnever\n", b"Unable to parse scheduled timestamp (never)."),
                        ("\n\n\nn\n", b"Aborting switchover"),
                        ("\n\n2031-01-01T10:00Z\nn\n", b"Aborting scheduled switchover")):
        r = ctl.run("switchover", text=text)
        assert r.returncode == 1 and r.stderr.startswith(b"Error: " + error), (text, r.stdout, r.stderr)
        assert r.stdout.startswith(b"Current cluster topology\n") and b"Primary [n0]: " in r.stdout
    r = ctl.run("switchover", "--leader", "n1", "--force")
    assert r.returncode == 1 and r.stderr == b"Error: Member n1 is not the leader of cluster it\n"
    r = ctl.run("failover", text="n1\nn\n")
    assert r.returncode == 1 and r.stderr == b"Error: Aborting failover\n" and b"Candidate ['n1'] []: " in r.stdout
    # Whatever was given is not asked for; any answer but yes and no is asked again.
    out = ctl.ok("switchover", "--leader", "n0", "--candidate", "n1", "--scheduled", "now", text="what\nY\n")
    assert "Primary [" not in out and 'Successfully switched over to "n1"' in out
    wait_until(lambda: ctl.rows()["n0"].get("State") == "streaming", 20, "n0 follows")


def check_reinit(c, ctl):
    assert ctl.ok("reinit", "it", "--force").count("Success") == 0
    r = ctl.run("reinit", "it", "n1", "--force")
    assert r.returncode == 1 and r.stderr == b"Error: No replica among provided members\n"
    r = ctl.run("reinit", "it", text="n0\nn\n")
    assert r.returncode == 1 and r.stderr == b"Error: Aborted reinitialize\n" and b"[n0]? []: " in r.stdout
    out = ctl.ok("reinit", "it", "--from-leader", "--wait", text="n0\ny\n")
    assert "Success: reinitialize for member n0" in out and "Waiting for reinitialize to complete on: n0" in out
    wait_until(lambda: ctl.rows()["n0"].get("State") == "streaming", 20, "n0 follows again")


def test_choices_and_prompts(pair):
    c, ctl = pair
    check_restart(c, ctl)
    check_prompts(c, ctl)
    check_reinit(c, ctl)


def test_help():
    """Each command says what it takes; help needs no cluster, and ends with 0."""
    def run(*args):
        return subprocess.run([program("pgregentctl"), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10)
    r = run("--help")
    text = r.stdout.decode()
    assert r.returncode == 0 and "Usage: " in text and r.stderr == b""
    commands = ["dsn", "edit-config", "failover", "flush", "history", "list", "pause", "query", "reinit", "reload", "remove",
                "restart", "resume", "show-config", "switchover", "topology", "version", "demote-cluster", "promote-cluster"]
    for name in commands:
        assert "\n  %s " % name in text
        r = run(name, "--help")
        assert r.returncode == 0 and name in r.stdout.decode().splitlines()[0] and "--help" in r.stdout.decode(), name
    options = {"restart": ["--any", "--pending", "--pg-version", "--timeout", "--scheduled", "-r, --role", "--group", "--force"],
               "edit-config": ["-s, --set", "-p, --pg", "--apply", "--replace", "-q, --quiet", "--force"],
               "reinit": ["--wait", "--from-leader"], "query": ["-d, --dbname", "-U, --username", "--delimiter"],
               "switchover": ["--leader", "--candidate", "--scheduled"], "list": ["-e, --extended", "-w, --watch", "-W"]}
    for name, words in options.items():
        text = run(name, "--help").stdout.decode()
        for word in words:
            assert word in text, (name, word)


def test_agents_of_this_host_are_found_in_order(work):
    """$RUNTIME_DIRECTORY (of a list the first), else $XDG_RUNTIME_DIR/pgregent; of several without a scope none is guessed."""
    if os.path.exists("/run/pgregent"):
        pytest.skip("several agents IS NOT TESTED: those of this machine in /run/pgregent come in between")
    listeners = []

    def agent(base, name):
        os.makedirs(os.path.join(work, base, name))
        s = socket.socket(socket.AF_UNIX)
        s.bind(os.path.join(work, base, name, "api.sock"))
        s.listen(8)
        threading.Thread(target=answer, args=(s, f"{base}/{name}"), daemon=True).start()
        listeners.append(s)

    def answer(s, who):
        with contextlib.suppress(OSError):
            while True:
                c = s.accept()[0]
                c.recv(4096)
                asked.append(who)
                c.close()

    def run(*args):
        del asked[:]
        env = {k: v for k, v in os.environ.items() if not k.startswith("PATRONI")}
        env.update(HOME=work, RUNTIME_DIRECTORY=f"{work}/one:{work}/two", XDG_RUNTIME_DIR=f"{work}/xdg")
        r = subprocess.run([program("pgregentctl"), "list", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, timeout=20)
        assert r.returncode == 1  # whom it asks says nothing
        return r.stderr.decode()
    asked = []
    try:
        agent("two", "a.n1")
        agent("xdg/pgregent", "a.n2")
        run()
        assert set(asked) == {"xdg/pgregent/a.n2"}
        agent("one", "a.n3")
        run()
        assert set(asked) == {"one/a.n3"}
        agent("one", "b.n4")
        text = run()
        assert "Several agents run on this host" in text and not asked
        for name in ("a.n3", "b.n4"):
            assert f"{work}/one/{name}/api.sock" in text
        run("b")
        assert set(asked) == {"one/b.n4"}
    finally:
        for s in listeners:
            s.close()
