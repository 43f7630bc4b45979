"""pgregent-api alone: real process, real sockets, supervisor and worker played by apihost."""
import base64
import concurrent.futures
import fcntl
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time

import pytest

import apirig
import util
from apirig import CLUSTER, KIND, PRIMARY_FACTS, REPLICA_FACTS
from pace import Pace, undisturbed


@pytest.fixture
def rig(work):
    r = apirig.Rig(work)
    assert r.configure()[0] == "1"
    yield r
    r.close()


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pki(work_base):
    """A CA, a server certificate for 127.0.0.1, a client certificate, and a stranger's."""
    d = os.path.join(work_base, f"pki{os.getpid()}")
    os.makedirs(d, exist_ok=True)

    def ca(name):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout",
                f"{d}/{name}.key", "-out", f"{d}/{name}.crt")

    def cert(name, issuer, ext):
        with open(f"{d}/{name}.ext", "w") as f:
            f.write(ext)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{d}/{name}.key", "-out",
                f"{d}/{name}.csr")
        openssl("x509", "-req", "-in", f"{d}/{name}.csr", "-CA", f"{d}/{issuer}.crt", "-CAkey", f"{d}/{issuer}.key",
                "-CAcreateserial", "-days", "2", "-extfile", f"{d}/{name}.ext", "-out", f"{d}/{name}.crt")

    ca("ca")
    ca("other")
    cert("server", "ca", "subjectAltName=IP:127.0.0.1\n")
    cert("server2", "ca", "subjectAltName=IP:127.0.0.1\n")
    cert("client", "ca", "extendedKeyUsage=clientAuth\n")
    cert("stranger", "other", "extendedKeyUsage=clientAuth\n")
    yield d
    for f in os.listdir(d):
        os.unlink(os.path.join(d, f))
    os.rmdir(d)


def context(pki, client=None):
    c = ssl.create_default_context(cafile=f"{pki}/ca.crt")
    if client:
        c.load_cert_chain(f"{pki}/{client}.crt", f"{pki}/{client}.key")
    return c


# ---- reading


def test_before_the_worker_published(rig):
    assert rig.status("/primary") == 503
    assert rig.status("/health") == 503
    assert rig.status("/liveness") == 503
    assert rig.status("/cluster") == 503
    assert rig.status("/config") == 502


def test_primary_documents(rig):
    rig.publish()
    status, d = rig.json("/patroni")
    assert status == 200
    assert list(d) == ["state", "postmaster_start_time", "role", "server_version", "xlog", "timeline", "replication",
                       "dcs_last_seen", "tags", "database_system_identifier", "patroni"]
    assert d["xlog"] == {"location": 67419744} and d["timeline"] == 3
    assert d["patroni"] == {"version": "4.1.4", "scope": "demo", "name": "n1"}
    for path, code in (("/", 200), ("/primary", 200), ("/replica", 503), ("/read-only", 200), ("/health", 200),
                       ("/standby-leader", 503), ("/foo", 503), ("/liveness", 200), ("/readiness", 200)):
        assert rig.status(path) == code, path
        if path not in ("/liveness", "/readiness"):
            assert rig.status(path, "HEAD") == code, path
            assert rig.status(path, "OPTIONS") == code, path
    assert rig.status("/liveness", "HEAD") == 503
    s, h, body = rig.http("GET", "/foo")
    assert s == 503 and json.loads(body)["state"] == "running"
    status, c = rig.json("/cluster")
    assert status == 200 and c["scope"] == "demo"
    assert c["members"][0] == {"name": "n1", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5433,
                               "api_url": "http://127.0.0.1:8008/patroni", "timeline": 3}
    assert c["members"][1]["lag"] == 500 and c["members"][1]["replay_lag"] == 1000
    assert c["members"][1]["state"] == "streaming" and c["members"][1]["host"] == "fe80::2"
    assert rig.json("/config") == (200, {"ttl": 30, "loop_wait": 10})
    assert rig.json("/history")[1] == [[1, 1000, "no recovery target specified"]]
    assert rig.status("/failsafe") == 502
    rig.doc("failsafe", {"n1": "u"})
    assert rig.json("/failsafe") == (200, {"n1": "u"})
    s, h, body = rig.http("GET", "/metrics")
    assert s == 200 and h["Content-Type"] == "text/plain"
    assert b'\npatroni_failsafe_member{scope="demo",name="n1"} 1\n' in body
    assert b'\npatroni_primary{scope="demo",name="n1"} 1\n' in body


def test_replica_checks(rig):
    rig.publish("replica", lease=False, cluster={**CLUSTER, "leader": "n2", "last_lsn": 3000,
                                                 "sync": {"leader": "n2", "voters": ["N1"], "quorum": 0}}, sync_mode=1)
    assert rig.json("/replica")[1]["sync_standby"] is True
    assert rig.status("/sync") == 200 and rig.status("/async") == 503
    assert rig.status("/replica?lag=2000") == 200
    assert rig.status("/replica?lag=1999") == 503
    assert rig.status("/replica?replication_state=streaming&tag_clonefrom=true") == 200
    assert rig.status("/replica?tag_clonefrom=false") == 503
    rig.doc("member", {"tags": {"noloadbalance": True}})
    assert rig.status("/replica") == 503 and rig.status("/health") == 200
    rig.facts(None)
    s, d = rig.json("/patroni")
    assert s == 200 and d["state"] == "unknown" and "xlog" not in d and d["role"] == "replica"
    assert rig.status("/health") == 503


# ---- the lease


def runs_out(rig, put, length_ms):
    """Primary by a lease that `put` makes as long as that, and none any more to whoever asks after its end. The first needs an answer
    that came within the lease."""
    def seen():
        begin = time.monotonic()
        put(lease_until_ms=f"+{length_ms}")
        end = time.monotonic() + length_ms / 1000 + 0.01
        code = rig.status("/primary")
        assert code == 200 or time.monotonic() - begin > length_ms / 1000, "no primary within the lease"
        return end if code == 200 else None
    end = util.wait_until(seen, 10, "an answer within the lease")
    util.wait_until(lambda: time.monotonic() > end, 5, "the lease is over")
    assert rig.status("/primary") == 503


def test_no_primary_past_the_lease(rig):
    rig.publish()
    runs_out(rig, rig.set, 300)
    rig.set(lease_until_ms="+25000")
    assert rig.status("/primary") == 200


def test_no_primary_past_the_enforced_lease(rig):
    rig.publish()
    runs_out(rig, rig.sup, 300)
    rig.sup(policy=2)  # paused: not enforced
    assert rig.status("/primary") == 200
    rig.sup(pause_enforce=1)
    assert rig.status("/primary") == 503


def test_cluster_view_ages(rig):
    rig.publish()
    assert "cluster_unlocked" not in rig.json("/patroni")[1]
    rig.set(cluster_read_ms="+-29900")
    util.wait_until(lambda: rig.json("/patroni")[1].get("cluster_unlocked"), 5, "C is older than ttl")
    assert rig.status("/cluster") == 503
    assert rig.status("/primary") == 200


# ---- a PostgreSQL or a worker that hangs


def test_postgres_hangs(rig):
    rig.publish("replica", lease=False)
    rig.facts(None)
    rig.answer("pg_facts", 0)
    with Pace() as pace:
        t = time.monotonic()
        s, d = rig.json("/patroni")
        assert time.monotonic() - t > 0.45 and pace.took(t) < 1.5 and d["state"] == "unknown" and "xlog" not in d
        spans = []
        for path in ("/replica", "/health", "/replica?lag=1GB", "/patroni") * 10:
            t = time.monotonic()
            s = rig.status(path)
            spans.append((t, time.monotonic()))
            assert s == (200 if path == "/patroni" else 503)
        times = sorted(pace.took(*span) for span in spans)
    assert times[-2] < 0.1, times
    # It answers again: the question that was under way, or the next one, tells.
    rig.facts(REPLICA_FACTS)
    util.wait_until(lambda: rig.status("/replica") == 200, 15, "PostgreSQL answers again", 0.1)


def test_leader_questions_never_wait(rig):
    rig.publish()
    rig.answer("pg_facts", 0)
    with Pace() as pace:
        for path in ("/primary", "/", "/leader", "/standby-leader", "/liveness", "/readiness", "/cluster", "/config"):
            t = time.monotonic()
            rig.status(path)
            assert pace.took(t) < 0.2, path
    assert rig.asked() == 0


def calm(rig):
    """No question is under way, and PostgreSQL is known to answer."""
    rig.cmd("facts-delay 0")
    util.wait_until(lambda: "xlog" in rig.json("/patroni")[1], 10, "PostgreSQL answers")


def test_facts_are_shared_and_fresh(rig):
    rig.publish("replica", lease=False)

    def shared():
        calm(rig)
        rig.cmd("facts-delay 150")
        before, began = rig.asked(), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(rig.status, ["/replica"] * 16))
        took = time.monotonic() - began
        assert codes == [200] * 16
        # At most the first one alone, then those that came while it was under way; each is under way for 150 ms.
        assert 1 <= rig.asked() - before <= 1 + took / 0.15 <= 12

    def fresh():
        """A request that comes after the question was sent gets a question of its own."""
        rig.facts(REPLICA_FACTS)
        calm(rig)
        rig.cmd("facts-delay 150")
        before = rig.asked()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            a = pool.submit(rig.status, "/replica")
            util.wait_until(lambda: rig.asked() == before + 1, 5, "the question is sent", 0.005)
            rig.facts({**REPLICA_FACTS, "xlog": {**REPLICA_FACTS["xlog"], "replayed_location": 77}})
            b = pool.submit(rig.json, "/patroni")
            assert a.result() == 200
            assert b.result()[1]["xlog"]["replayed_location"] == 77
        assert rig.asked() - before == 2
    undisturbed(shared)
    undisturbed(fresh)


def test_worker_restart(rig):
    def attempt():
        """Who waits for the new worker does so for 500 ms."""
        try:
            restart_the_worker(rig)
        except AssertionError:
            rig.cmd("worker-new")
            raise
    undisturbed(attempt)


def restart_the_worker(rig):
    rig.publish("replica", lease=False)
    calm(rig)
    rig.answer("restart", 0)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = pool.submit(rig.text, "POST", "/restart", {})
        assert rig.requests.get(timeout=10)[0] == KIND["API_RESTART"]
        rig.cmd("worker-gone")
        s, text = waiting.result()
        assert s == 503 and "outcome is unknown" in text
        check = pool.submit(rig.status, "/replica")
        time.sleep(0.1)
        rig.cmd("page-new")
        # The old page serves until the new one is complete.
        assert rig.status("/config") == 200 and rig.status("/primary") == 503
        rig.publish("replica", lease=False)
        rig.cmd("worker-new")
        assert check.result() == 200
    assert rig.configure()[0] == "1"
    rig.cmd("worker-gone")
    assert rig.text("POST", "/reload") == (503, "the worker is not running")
    assert rig.status("/liveness") == 200


# ---- commands


def test_commands(rig):
    rig.publish()
    rig.answer("reload", 202, "reload scheduled")
    assert rig.text("POST", "/reload") == (202, "reload scheduled")
    assert rig.requests.get(timeout=10) == (KIND["API_RELOAD"], None)
    rig.answer("switchover", 200, 'Successfully switched over to "n2"')
    assert rig.text("POST", "/switchover", {"leader": "n1"}) == (200, 'Successfully switched over to "n2"')
    assert rig.requests.get(timeout=10) == (KIND["API_SWITCHOVER"], {"leader": "n1"})
    assert rig.text("POST", "/switchover", {"leader": "n2"}) == (412, "leader name does not match")
    assert rig.text("POST", "/switchover", {"leader": "n1", "candidate": "x"}) == (412, "candidate does not exists")
    rig.answer("config_patch", 200, '{"ttl": 20}', 1)
    s, h, body = rig.http("PATCH", "/config", {"ttl": 20})
    assert (s, json.loads(body), h["Content-Type"]) == (200, {"ttl": 20}, "application/json")
    assert rig.requests.get(timeout=10) == (KIND["API_CONFIG_PATCH"], {"ttl": 20})
    rig.answer("config_put", 200)
    assert rig.json("/config")[1] == json.loads(rig.http("PUT", "/config", {"a": 1})[2])
    rig.answer("config_patch", 409, "lost", 2)
    s, h, body = rig.http("PATCH", "/config", {"ttl": 20})
    assert s == 409 and b"409 - lost" in body and h["Content-Type"].startswith("text/html")
    assert rig.status("/config", "PATCH", body="[]") == 400
    assert rig.status("/config", "PATCH", body="{") == 400
    assert rig.status("/config", "PATCH", body="x" * 70000) == 413
    assert rig.raw(b"PATCH /config HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 411")
    s, text = rig.text("POST", "/nothing")
    assert s == 501 and "Server does not support this operation" in text and "Unsupported method (&#x27;" not in text
    assert rig.text("POST", "/restart", {"role": "x"})[0] == 400
    # failsafe
    body = {"name": "n2", "conn_url": "c", "api_url": "a"}
    assert rig.status("/failsafe", "POST", body=body) == 502
    rig.set(failsafe_mode=1)
    assert rig.text("POST", "/failsafe", body) == (500, "Running as a leader")
    rig.set(role=1)
    rig.answer("failsafe", 200, "Accepted", lsn=4711)
    s, h, text = rig.http("POST", "/failsafe", body)
    assert (s, text, h["lsn"]) == (200, b"Accepted", "4711")
    assert rig.status("/failsafe", "POST", body={"name": "n2"}) == 400


def test_local_socket(rig):
    rig.publish()
    rig.configure(authentication={"username": "u", "password": "p"})
    rig.answer("reload", 202, "reload scheduled")
    rig.answer("status_local", 200, "{}", 1)
    assert rig.text("POST", "/reload") == (401, "no auth header received")
    assert rig.text("POST", "/reload", local=True)[0] == 202
    assert rig.text("POST", "/status-local")[0] in (401, 501)
    assert rig.text("POST", "/status-local", local=True) == (200, "{}")
    assert rig.status("/primary", local=True) == 200


@pytest.mark.root
def test_local_socket_knows_its_callers(rig):
    """The kernel says who asks: root and the agent's own user may act, another user only look, even if the socket let it in."""
    rig.publish()
    rig.configure(authentication={"username": "u", "password": "p"})
    rig.answer("reload", 202, "reload scheduled")
    path = rig.dir + "/api.sock"
    assert os.stat(path).st_mode & 0o777 == 0o600
    for p in (path, rig.dir, os.path.dirname(rig.dir)):
        os.chmod(p, os.stat(p).st_mode | 0o777)
    ask = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
           "s.sendall((sys.argv[2] + ' HTTP/1.0\\r\\nContent-Length: 0\\r\\n\\r\\n').encode()); print(s.makefile().readline().split()[1])")

    def stranger(request):
        r = subprocess.run(["/usr/bin/python3", "-c", ask, path, request], stdout=subprocess.PIPE, timeout=10, **util.as_pg_user())
        return int(r.stdout)
    assert rig.text("POST", "/reload", local=True)[0] == 202
    assert stranger("POST /reload") == 403
    assert stranger("PATCH /config") == 403
    assert stranger("GET /primary") == 200


def test_guard(rig):
    rig.publish()
    rig.answer("reload", 202, "reload scheduled")
    rig.configure(authentication={"username": "u", "password": "p"}, http_extra_headers={"X-A": "1"},
                  server_tokens="minimal")
    s, h, text = rig.http("POST", "/reload")
    assert s == 401 and h["WWW-Authenticate"] == 'Basic realm="Patroni"'
    assert h["X-A"] == "1" and h["Server"] == "Patroni/4.1.4"
    good = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
    bad = {"Authorization": "Basic " + base64.b64encode(b"u:x").decode()}
    assert rig.text("POST", "/reload", headers=bad) == (401, "not authenticated")
    assert rig.text("POST", "/reload", headers=good) == (202, "reload scheduled")
    assert rig.text("POST", "/mpp", {"a": 1})[0] == 401
    rig.configure(authentication=None, allowlist=["10.0.0.0/8"])
    assert rig.text("POST", "/reload") == (403, "Access is denied")
    assert rig.status("/primary") == 200
    rig.configure(allowlist=["localhost"])
    util.wait_until(lambda: rig.status("/reload", "POST") == 202, 15, "the name is resolved")
    rig.configure(allowlist=["10.0.0.0/8"], allowlist_include_members=True)
    assert rig.status("/reload", "POST") == 202  # member n1 has 127.0.0.1
    assert rig.status("/reload", "POST", source=("127.0.0.9", 0)) == 403


# ---- transport


def test_garbage(rig):
    rig.publish()
    for data in (b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n\r\n",
                 b"GET / HTTP/1.0\r\n" + b"X: " + b"b" * 40000 + b"\r\n\r\n",
                 b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                 b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                 b"\x16\x03\x01\x02\x00" + os.urandom(300)):
        # Some of it is no line of anything: the library waits for more, until the bound of a first request.
        with socket.create_connection(("127.0.0.1", rig.port), timeout=0.5) as s:
            s.sendall(data)
            out = b""
            try:
                while chunk := s.recv(65536):
                    out += chunk
            except (ConnectionResetError, socket.timeout):
                pass
            assert not out.startswith(b"HTTP/1.1 2") and not out.startswith(b"HTTP/1.0 2"), (data[:40], out)
    assert rig.status("/primary") == 200
    out = rig.raw(b"OPTIONS / HTTP/1.0\r\n\r\n")
    assert out.startswith(b"HTTP/1.0 200") and out.endswith(b"\r\n\r\n")


def test_keep_alive_and_many(rig):
    rig.publish()

    def worker(n):
        c = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=10)
        codes = set()
        for i in range(50):
            c.request("GET" if i % 2 else "HEAD", "/primary" if i % 3 else "/health")
            r = c.getresponse()
            r.read()
            codes.add(r.status)
        c.close()
        return codes

    def all_at_once():
        calm(rig)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(c == {200} for c in pool.map(worker, range(16)))
    undisturbed(all_at_once)


def test_slow_clients_do_not_matter(rig):
    rig.publish()
    slow = []
    for i in range(100):
        s = socket.create_connection(("127.0.0.1", rig.port), timeout=30)
        s.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" if i % 2 else b"GET / HT")
        slow.append(s)
    with Pace() as pace:
        t = time.monotonic()
        assert rig.status("/primary") == 200
        assert pace.took(t) < 0.5
    # A request has a bound, however slowly it drips.
    begin = time.monotonic()
    s = slow[1]
    s.settimeout(1)
    closed = False
    while not closed and time.monotonic() - begin < 25:
        try:
            s.sendall(b"x" if time.monotonic() - begin < 5 else b"")
            closed = s.recv(100) == b""
        except socket.timeout:
            continue
        except (ConnectionResetError, BrokenPipeError):
            closed = True
    assert closed and time.monotonic() - begin < 20
    slow[0].settimeout(5)
    assert slow[0].recv(100) == b""  # no request line in that time
    for s in slow:
        s.close()


def test_tls(rig, pki):
    rig.publish()
    rig.answer("reload", 202, "reload scheduled")
    rig.configure(certfile=f"{pki}/server.crt", keyfile=f"{pki}/server.key", https_extra_headers={"X-S": "1"})
    s, h, body = rig.http("GET", "/primary", context=context(pki))
    assert s == 200 and h["X-S"] == "1"
    with pytest.raises((ConnectionResetError, http.client.HTTPException, OSError)):
        rig.http("GET", "/primary")
    # optional: unsafe calls need a certificate, and one that is sent must verify
    rig.configure(verify_client="optional", cafile=f"{pki}/ca.crt")
    assert rig.status("/primary", context=context(pki)) == 200
    assert rig.text("POST", "/reload", context=context(pki)) == (403, "client certificate required")
    assert rig.status("/reload", "POST", context=context(pki, "client")) == 202
    with pytest.raises(OSError):
        rig.http("GET", "/primary", context=context(pki, "stranger"))
    rig.configure(verify_client="required")
    assert rig.status("/reload", "POST", context=context(pki, "client")) == 202
    with pytest.raises(OSError):
        rig.http("GET", "/primary", context=context(pki))
    rig.configure(verify_client="none", ciphers="ECDHE+AESGCM:!SHA1")
    c = context(pki)
    c.maximum_version = ssl.TLSVersion.TLSv1_2
    assert rig.status("/primary", context=c) == 200
    c = context(pki)
    c.maximum_version = ssl.TLSVersion.TLSv1_2
    c.set_ciphers("AES256-SHA")
    with pytest.raises(OSError):
        rig.http("GET", "/primary", context=c)


def test_rebind(rig, pki, work):
    rig.publish()
    # What cannot be used leaves what was.
    state = rig.configure(certfile=f"{work}/absent.crt")
    assert "absent.crt" in state[1]
    assert rig.status("/primary") == 200
    state = rig.configure(certfile=f"{pki}/server.crt", keyfile=f"{pki}/client.key")
    assert "certfile" in state[1]
    assert rig.status("/primary") == 200
    state = rig.configure(keyfile=f"{pki}/server.key", ciphers="NONSENSE")
    assert "NONSENSE" in state[1]
    old = rig.port
    rig.port = util.free_port()
    assert rig.configure(certfile=None, keyfile=None, ciphers=None, listen=f"localhost:{rig.port}") == ["1", ""]
    assert rig.status("/primary") == 200
    with pytest.raises(ConnectionRefusedError):
        rig.http("GET", "/primary", port=old)
    # The same port on all addresses: the old socket must go first.
    assert rig.configure(listen=f"*:{rig.port}") == ["1", ""]
    assert rig.status("/primary") == 200
    # A port that somebody else has.
    with socket.socket() as s:
        s.bind(("127.0.0.1", old))
        s.listen()
        state = rig.configure(listen=f"127.0.0.1:{old}")
        assert "in use" in state[1]
        assert rig.status("/primary") == 200
    util.wait_until(lambda: rig.states.get(timeout=15) == ["1", ""], 15, "bound when the port is free")
    assert rig.status("/primary", port=old) == 200


def test_new_certificate_in_the_same_file(rig, pki, work):
    rig.publish()
    for name in ("crt", "key"):
        with open(f"{pki}/server.{name}") as f, open(f"{work}/s.{name}", "w") as g:
            g.write(f.read())
    rig.configure(certfile=f"{work}/s.crt", keyfile=f"{work}/s.key")

    def subject():
        with socket.create_connection(("127.0.0.1", rig.port), timeout=5) as s:
            with context(pki).wrap_socket(s, server_hostname="127.0.0.1") as t:
                return t.getpeercert()["subject"][0][0][1]

    assert subject() == "server"
    for name in ("crt", "key"):
        with open(f"{pki}/server2.{name}") as f, open(f"{work}/s.{name}", "w") as g:
            g.write(f.read())
    rig.configure()
    assert subject() == "server2"


# ---- the end


def test_ends_in_order(rig):
    rig.publish()
    rig.cmd("order-end")
    util.wait_until(lambda: rig.exit_code is not None, 15, "api ends")
    assert rig.exit_code == 0


def test_last_fence(work):
    """Both enforcers gone: what holds the life file is killed."""
    life = os.path.join(work, "life")
    open(life, "w").close()
    held = open(life)
    fcntl.flock(held, fcntl.LOCK_SH)  # as PostgreSQL has it from its start
    holder = subprocess.Popen(["sleep", "60"], stdin=held)
    held.close()
    r = apirig.Rig(work)
    try:
        r.configure()
        r.cmd("deadman-gone")
        time.sleep(0.2)
        assert r.exit_code is None and holder.poll() is None
        r.cmd("supervisor-gone")
        assert holder.wait(timeout=10) == -signal.SIGKILL
        util.wait_until(lambda: r.exit_code is not None, 15, "api ends")
    finally:
        holder.kill()
        r.close()
