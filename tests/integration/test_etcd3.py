"""The etcd v3 backend against real servers: operations and their outcomes, lease, watch, outages, endpoints, access."""
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
import util
from pace import Pace

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="make deps-install installs etcd")


class Etcd:
    def __init__(self, work, name="e1", cluster=None, extra=(), scheme="http"):
        self.port, self.peer = util.free_port(), util.free_port()
        self.work, self.name, self.extra, self.scheme = work, name, list(extra), scheme
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.peer_url = f"http://127.0.0.1:{self.peer}"
        self.p = None

    def start(self, cluster=None, wait=True):
        cluster = cluster or f"{self.name}={self.peer_url}"
        self.log = open(os.path.join(self.work, self.name + ".log"), "ab")
        self.p = subprocess.Popen(
            ["etcd", "--name", self.name, "--data-dir", os.path.join(self.work, self.name + ".d"),
             "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
             "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
             "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "300"] + self.extra,
            stdout=self.log, stderr=self.log)
        if wait:
            self.wait()
        return self

    def wait(self):
        def ready():
            assert self.p.poll() is None, "etcd ended"
            try:
                self.call("/kv/range", {"key": "AA=="})
                return True
            except OSError:
                return False
        if self.scheme == "http":
            util.wait_until(ready, 30, "etcd answers")

    def call(self, path, body, token=None):
        req = urllib.request.Request(self.url + "/v3" + path, json.dumps(body).encode(),
                                     {"authorization": token} if token else {})
        with urllib.request.urlopen(req, timeout=10) as r:
            return json.load(r)

    def signal(self, sig):
        self.p.send_signal(sig)
        if sig == signal.SIGSTOP:  # all its threads: one that still ran would answer
            os.waitid(os.P_PID, self.p.pid, os.WSTOPPED | os.WNOWAIT)

    def stop(self):
        if self.p is not None and self.p.poll() is None:
            self.p.send_signal(signal.SIGCONT)
            self.p.kill()
            self.p.wait()
            self.log.close()


class Tool:
    """One backend under test. Answers and watch events are kept apart."""

    def __init__(self, work, section, name="pg1", ttl=3000, retry=3000, scope="batman"):
        self.err = open(os.path.join(work, f"tool-{name}.log"), "ab")
        self.p = subprocess.Popen([util.program("tests/integration/dcstool"), "etcd3", json.dumps(section), name,
                                   scope, str(ttl), str(retry)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.err, text=True)
        self.answers, self.events = queue.Queue(), queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.p.stdout:
            doc = json.loads(line)
            (self.events if doc["op"] == "watch" else self.answers).put(doc)

    def send(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()

    def op(self, line, bound=15):
        self.send(line)
        return self.answers.get(timeout=bound)

    def event(self, cond, bound=10):
        end = time.monotonic() + bound
        while True:
            doc = self.events.get(timeout=max(0.01, end - time.monotonic()))
            if cond(doc):
                return doc

    def close(self):
        if self.p.poll() is None:
            self.p.stdin.close()
            assert self.p.wait(10) == 0, "dcstool failed (sanitizer?), see its log"
        self.err.close()


@pytest.fixture
def world(work):
    things = []
    yield things.append
    failed = None
    for t in reversed(things):
        try:
            t.close() if isinstance(t, Tool) else t.stop()
        except (AssertionError, subprocess.TimeoutExpired) as e:
            failed = e
    if failed:
        raise failed


@pytest.fixture
def etcd(work, world):
    e = Etcd(work)
    world(e)
    return e.start()


@pytest.fixture
def tool(work, world):
    def make(section, name="pg1", **kw):
        if isinstance(section, Etcd):
            section = {"host": f"127.0.0.1:{section.port}"}
        t = Tool(work, section, name, **kw)
        world(t)
        return t
    return make


def test_leader_life(etcd, tool):
    a, b = tool(etcd, "pg1"), tool(etcd, "pg2")
    assert a.op("renew")["outcome"] == "conflict", "no lease, no renewal"
    got = a.op("acquire")
    assert got["outcome"] == "ok" and got["ttl"] == 3000 and got["session"] != ""
    assert got["sent_after"] <= got["took"]
    first = a.op("renew")
    assert first["outcome"] == "ok" and first["version"] == got["version"], "the revision of the key, not the store's"
    assert b.op("acquire")["outcome"] == "conflict"
    assert b.op("renew")["outcome"] == "conflict", "a living lease is no leader key"
    assert b.op("status value={\"optime\":1}")["outcome"] == "conflict", "only the holder writes status"
    assert a.op("status value={\"optime\":7}")["outcome"] == "ok"
    assert b.op("release")["outcome"] == "conflict"
    seen = b.op("read")
    assert seen["leader"] == "pg1" and seen["leader_session"] == got["session"] and seen["lsn"] == 7
    assert a.op("release")["outcome"] == "ok"
    assert a.op("renew")["outcome"] == "conflict"
    assert b.op("acquire")["outcome"] == "ok"
    assert b.op("read")["leader"] == "pg2"


def test_adoption_by_a_new_incarnation(etcd, tool):
    old = tool(etcd)
    got = old.op("acquire")
    new = tool(etcd)
    assert new.op("renew")["outcome"] == "conflict"
    assert new.op(f"adopt version={got['version'] + 1}")["outcome"] == "conflict"
    moved = new.op(f"adopt version={got['version']}")
    assert moved["outcome"] == "ok" and moved["session"] != got["session"]
    assert new.op("renew")["outcome"] == "ok"
    for late in ("renew", "release", "status value={}"):
        assert old.op(late)["outcome"] == "conflict", f"a late {late} of the dead predecessor"
    assert new.op("read")["leader_session"] == moved["session"]


def test_compare_and_swap(etcd, tool):
    a = tool(etcd)
    assert a.op("init_race")["outcome"] == "ok"
    assert a.op("init_race")["outcome"] == "conflict"
    assert a.op("init_set value=7381234567890123456")["outcome"] == "ok"
    assert a.op("init_set value=1 create")["outcome"] == "conflict"
    v = a.op("config value={\"ttl\":20}")["version"]
    assert a.op(f"config value={{}} version={v + 1}")["outcome"] == "conflict"
    assert a.op(f"config value={{\"ttl\":21}} version={v}")["outcome"] == "ok"
    assert a.op("config value={} leader_only")["outcome"] == "conflict"
    assert a.op("sync value={\"leader\":\"pg1\"} version=-1")["outcome"] == "ok"
    assert a.op("sync value={\"leader\":\"pg2\"} version=-1")["outcome"] == "conflict"
    seen = a.op("read")
    assert (seen["init"], seen["config"], seen["sync_leader"]) == ("7381234567890123456", '{"ttl":21}', "pg1")
    assert a.op(f"delete_sync version={seen['sync_version'] + 1}")["outcome"] == "conflict"
    assert a.op(f"delete_sync version={seen['sync_version']}")["outcome"] == "ok"
    assert a.op("delete_cluster")["outcome"] == "ok"
    seen = a.op("read")
    assert seen["outcome"] == "ok" and seen["init"] is None and seen["config"] is None


def test_lease_expiry_and_watch(etcd, tool):
    a, b = tool(etcd, "pg1"), tool(etcd, "pg2")
    b.send("watch")
    b.event(lambda d: d["current"])
    got = a.op("acquire")
    a.op("touch value={\"state\":\"running\"}")
    seen = b.event(lambda d: d.get("leader") == "pg1")
    assert seen["leader_changed"] and seen["leader_session"] == got["session"]
    # Both changes may have come in one message.
    if "pg1" not in seen["members"]:
        seen = b.event(lambda d: "pg1" in d.get("members", {}))
    assert seen["members_changed"] and seen["members"]["pg1"] == got["session"]
    etcd.call("/lease/revoke", {"ID": got["session"]})
    gone = b.event(lambda d: d["current"] and d.get("leader") is None)
    assert gone["leader_changed"] and "pg1" not in b.op("read")["members"]
    lost = a.op("renew")
    assert lost["outcome"] == "conflict" and lost["lease_gone"]
    again = a.op("touch value={}")
    assert again["outcome"] == "ok" and again["session"] != got["session"]


def test_member_key_lives_without_operations(etcd, tool):
    a, b = tool(etcd, "pg1", ttl=3000), tool(etcd, "pg2")
    a.op("touch value={}")
    end = time.monotonic() + 7
    while time.monotonic() < end:
        assert "pg1" in b.op("read")["members"]
        time.sleep(0.5)


def test_ttl_change_moves_keys(etcd, tool):
    a = tool(etcd, ttl=6000)
    got = a.op("acquire")
    a.send("ttl 4000")
    assert a.op("status value={}")["outcome"] == "ok", "still the holder before the move"
    moved = a.op("renew")
    assert moved["outcome"] == "ok" and moved["ttl"] == 4000 and moved["session"] != got["session"]
    assert a.op("read")["leader_session"] == moved["session"]
    assert a.op("renew")["version"] == moved["version"]
    assert a.op("release")["outcome"] == "ok"


def test_stopped_server_is_unknown_within_the_budget(etcd, tool):
    a = tool(etcd)
    a.op("acquire")
    a.send("watch")
    a.event(lambda d: d["current"])
    etcd.signal(signal.SIGSTOP)
    with Pace() as pace:
        asked = time.monotonic()
        lost = a.op("renew budget=1000")
        assert lost["outcome"] == "unknown" and 900 <= lost["took"] <= 1500 + 1000 * pace.lost(asked)
        assert a.event(lambda d: not d["current"], 8), "the view is not current while nobody answers"
        asked = time.monotonic()
        read = a.op("read")
        assert read["outcome"] == "unknown" and read["took"] <= 3500 + 1000 * pace.lost(asked)
    etcd.signal(signal.SIGCONT)
    assert a.event(lambda d: d["current"], 15)
    assert util.wait_until(lambda: a.op("acquire")["outcome"] in ("ok", "conflict"), 15)


def test_server_away_at_start(work, world, tool):
    e = Etcd(work)
    world(e)
    a = tool(e, retry=3000)
    assert a.op("acquire")["outcome"] == "unknown"
    a.send("watch")
    e.start()
    a.event(lambda d: d["current"], 20)
    util.wait_until(lambda: a.op("acquire")["outcome"] == "ok", 15, "it is acquired")


def test_compacted_watch_is_rebuilt(etcd, tool):
    a, b = tool(etcd, "pg1"), tool(etcd, "pg2")
    a.send("watch")
    a.event(lambda d: d["current"])
    v = 0
    for n in range(20):
        v = b.op(f"config value={{\"n\":{n}}}")["version"]
    etcd.call("/kv/compaction", {"revision": v, "physical": True})
    etcd.stop()
    etcd.start()
    util.wait_until(lambda: b.op("config value={\"n\":99}")["outcome"] == "ok", 15, "it is written")
    assert a.event(lambda d: d["current"] and d.get("config") == '{"n":99}', 20)


@pytest.fixture
def three(work, world):
    nodes = [Etcd(work, f"e{i}") for i in range(3)]
    cluster = ",".join(f"{n.name}={n.peer_url}" for n in nodes)
    for n in nodes:
        world(n)
        n.start(cluster, wait=False)
    for n in nodes:
        n.wait()
    return nodes


def test_one_of_three_stopped(three, tool):
    a = tool({"hosts": [f"127.0.0.1:{n.port}" for n in three]}, ttl=5000)
    util.wait_until(lambda: a.op("acquire")["outcome"] == "ok", 15, "it is acquired")
    for node in three:
        node.signal(signal.SIGSTOP)
        # A new raft leader may be needed first; the lease is 5 s. The renewal is sent twice, as the keeper does it.
        with Pace() as pace:
            stopped = time.monotonic()
            while True:
                began = time.monotonic()
                a.send("renew budget=2000")
                time.sleep(0.2)
                a.send("renew budget=2000 other")
                first = a.answers.get(timeout=10)
                took = pace.took(began)
                second = a.answers.get(timeout=10)
                if first["outcome"] == "ok" and took < 0.5:
                    break
                assert "conflict" not in (first["outcome"], second["outcome"])
                assert pace.took(stopped) < 4, f"no quick renewal with {node.name} stopped: {first}"
        node.signal(signal.SIGCONT)
        util.wait_until(lambda: a.op("renew")["outcome"] == "ok", 10)


def test_authentication(etcd, tool):
    for path, body in (("/auth/user/add", {"name": "root", "password": "secret"}),
                       ("/auth/role/add", {"name": "root"}),
                       ("/auth/user/grant", {"user": "root", "role": "root"}),
                       ("/auth/user/add", {"name": "weak", "password": "1234"})):
        etcd.call(path, body)
    host = {"host": f"127.0.0.1:{etcd.port}"}
    before = tool(dict(host, username="root", password="secret"), "pg0")
    assert before.op("acquire")["outcome"] == "ok", "credentials are no harm while authentication is off"
    etcd.call("/auth/enable", {})
    assert before.op("renew")["outcome"] == "ok", "authentication switched on under way"
    none, wrong = tool(host, "pg1"), tool(dict(host, username="root", password="wrong"), "pg2")
    weak = tool(dict(host, username="weak", password=1234), "pg3")
    by_url = tool({"url": f"http://root:secret@127.0.0.1:{etcd.port}"}, "pg4")
    assert none.op("read")["outcome"] == "denied"
    assert wrong.op("read")["outcome"] == "denied"
    refused = weak.op("touch value={}")
    assert refused["outcome"] == "denied" and "permission denied" in refused["text"]
    assert by_url.op("read")["leader"] == "pg0"
    token = etcd.call("/auth/authenticate", {"name": "root", "password": "secret"})["token"]
    etcd.call("/auth/user/changepw", {"name": "root", "password": "secret"}, token)
    assert before.op("renew")["outcome"] == "ok", "tokens thrown away by the server are fetched anew"


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30)


def test_tls_with_client_certificates(work, world, tool):
    p = {n: os.path.join(work, n) for n in ("ca.pem", "ca.key", "s.pem", "s.key", "s.csr", "ext")}
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", p["ca.key"],
            "-out", p["ca.pem"])
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=etcd", "-keyout", p["s.key"], "-out", p["s.csr"])
    with open(p["ext"], "w") as f:
        f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", p["s.csr"], "-CA", p["ca.pem"], "-CAkey", p["ca.key"], "-CAcreateserial", "-days",
            "2", "-extfile", p["ext"], "-out", p["s.pem"])
    e = Etcd(work, scheme="https", extra=["--cert-file", p["s.pem"], "--key-file", p["s.key"], "--client-cert-auth",
                                          "--trusted-ca-file", p["ca.pem"]])
    world(e)
    e.start()
    full = {"host": f"localhost:{e.port}", "protocol": "https", "cacert": p["ca.pem"], "cert": p["s.pem"],
            "key": p["s.key"]}
    a = tool(full)
    util.wait_until(lambda: a.op("read")["outcome"] == "ok", 30, "etcd answers over TLS")
    assert a.op("acquire")["outcome"] == "ok" and a.op("renew")["outcome"] == "ok"
    a.send("watch")
    a.event(lambda d: d["current"])
    b = tool({k: v for k, v in full.items() if k not in ("cert", "key")}, "pg2")
    assert b.op("read")["outcome"] == "unknown", "without a client certificate the server hangs up"
    c = tool({k: v for k, v in full.items() if k != "cacert"}, "pg3")
    assert c.op("read")["outcome"] == "unknown", "a server that the system store does not know is not trusted"
