"""A cluster whose store asks for client certificates and a password, and whose tokens end every few seconds: nobody notices, also
not while the password changes, a role is taken away and given back, or the store begins anew."""
import json
import os
import subprocess
import time

import pytest

from faults import Cluster, Etcd, LeaseWatch, Writers, made, pg_start, settled, wait_until
from test_etcd3 import openssl
from util import Process, as_pg_user, give_to_pg_user

TTL = 20  # a store with TLS and passwords may need some seconds to begin anew
TOKEN_S = 3


class SecuredEtcd(Etcd):
    """TLS in both directions, authentication, and tokens that are signed (JWT) and end after TOKEN_S."""

    def __init__(self, base):
        super().__init__(base)
        self.pem = {n: os.path.join(base, n) for n in ("ca.pem", "ca.key", "s.pem", "s.key", "c.pem", "c.key", "jwt.pem", "jwt.key", "x.csr",
                                                       "ext")}
        p = self.pem
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", p["ca.key"], "-out", p["ca.pem"])
        with open(p["ext"], "w") as f:
            f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
        for who in ("s", "c"):
            # Without a name: etcd would take one for a user.
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=it", "-keyout", p[who + ".key"], "-out", p["x.csr"])
            openssl("x509", "-req", "-in", p["x.csr"], "-CA", p["ca.pem"], "-CAkey", p["ca.key"], "-CAcreateserial", "-days", "2",
                    "-extfile", p["ext"], "-out", p[who + ".pem"])
        # A large key makes long tokens.
        openssl("genrsa", "-out", p["jwt.key"], "4096")
        openssl("rsa", "-in", p["jwt.key"], "-pubout", "-out", p["jwt.pem"])
        for path in p.values():
            give_to_pg_user(path)
        self.user, self.password = None, "first"

    def start(self):
        c, peer, p = "https://" + self.url, "http://127.0.0.1:%d" % self.peer, self.pem
        self.proc = Process(["etcd", "--name", "e0", "--data-dir", self.base + "/etcd", "--logger", "zap", "--cert-file", p["s.pem"],
                             "--key-file", p["s.key"], "--client-cert-auth", "--trusted-ca-file", p["ca.pem"], "--bcrypt-cost", "4", "--auth-token",
                             "jwt,pub-key=%s,priv-key=%s,sign-method=RS256,ttl=%ds" % (p["jwt.pem"], p["jwt.key"], TOKEN_S),
                             "--listen-client-urls", c, "--advertise-client-urls", c, "--listen-peer-urls", peer,
                             "--initial-advertise-peer-urls", peer, "--initial-cluster", "e0=" + peer],
                            self.base + "/etcd.log", **as_pg_user())
        # Not at full speed: each question has etcd check a password.
        wait_until(lambda: self.ctl("get", "x") is not None, 20, "etcd answers", every=0.1)
        if self.user is None:
            for args in (("user", "add", "root:top"), ("role", "add", "root"), ("user", "grant-role", "root", "root"),
                         ("user", "add", "pgregent:first"), ("role", "add", "it"),
                         ("role", "grant-permission", "it", "readwrite", "/service/it/", "--prefix"),
                         ("user", "grant-role", "pgregent", "it"), ("auth", "enable")):
                assert self.ctl(*args) is not None, args
            self.user = "root"

    def ctl(self, *args):
        p, user = self.pem, ["--user", "root:top"] if self.user else []
        r = subprocess.run(["etcdctl", "--endpoints", "https://" + self.url, "--cacert", p["ca.pem"], "--cert", p["c.pem"], "--key",
                            p["c.key"], *user, *args], env=dict(os.environ, ETCDCTL_API="3"), stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, timeout=10)
        return r.stdout.decode() if r.returncode == 0 else None

    def value(self, key):
        return self.ctl("get", key, "--print-value-only") or None

    def section(self, name):
        p = self.pem
        return {"host": "localhost:%d" % self.client, "protocol": "https", "cacert": p["ca.pem"], "cert": p["c.pem"], "key": p["c.key"],
                "username": "pgregent", "password": self.password}


@pytest.fixture
def cluster(work):
    c = Cluster(work, etcd=SecuredEtcd(work), ttl=TTL, loop_wait=1, retry_timeout=8)
    try:
        yield made(c)
    finally:
        c.stop()


def passed(seconds, what):
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, seconds + 1, what, every=0.1)


def refused(c):
    """Without the right password, or without a certificate, the store tells nothing."""
    p = c.etcd.pem
    args = ["etcdctl", "--endpoints", "https://" + c.etcd.url, "--cacert", p["ca.pem"], "--dial-timeout=1s", "--command-timeout=1s"]
    for more in (["--cert", p["c.pem"], "--key", p["c.key"]], ["--user", "root:top"]):
        r = subprocess.run(args + more + ["get", "/service/it/leader"], env=dict(os.environ, ETCDCTL_API="3"), capture_output=True, timeout=10)
        assert r.returncode != 0 and b"n0" not in r.stdout, more


def tokens_end(c):
    n0 = c.leader()
    refused(c)
    with Writers(c) as w:
        started = pg_start(n0)
        with LeaseWatch(n0) as lease:
            passed(4 * TOKEN_S, "four tokens ended")
            # The store begins anew within the lease; every other change of its users makes all tokens old.
            assert c.etcd.ctl("user", "add", "somebody:else") is not None
            passed(1, "and were made anew")
            began = time.monotonic()
            c.etcd.proc.kill()
            c.etcd.start()
            away = time.monotonic() - began  # nobody can renew meanwhile
            passed(2 * TOKEN_S, "two more")
            assert lease.least_left() > min(TTL / 3, TTL * 2 / 3 - away) * 1000, away
        assert c.leader() is n0 and pg_start(n0) == started
        assert settled(c) is n0
        n1 = c.others(n0)[0]
        code, text = n0.status("/switchover", "POST", {"leader": n0.name, "candidate": n1.name}, 40)
        assert code == 200, text
        assert settled(c) is n1
        w.wait_ack(n1)
    w.handed_over(n0, n1)
    assert w.missing_on(n1) == []
    # The watch goes on under new tokens too: a change is seen at once.
    assert n1.status("/config", "PATCH", {"postgresql": {"parameters": {"work_mem": "7MB"}}})[0] == 200
    for m in c.members:
        wait_until(lambda: m.try_sql("SHOW work_mem") == [("7MB",)], 10, "work_mem on " + m.name)


def role_taken_away(c):
    """Refused is not unknown: the primary says so and gives up before its lease ends, and takes up again when it may."""
    n0 = c.leader()
    with Writers(c) as w:
        since = len(n0.proc.text())
        assert c.etcd.ctl("user", "revoke-role", "pgregent", "it") is not None
        wait_until(lambda: not n0.is_primary(), TTL + 1, "n0 gives up")
        assert "permission denied" in n0.proc.text()[since:]
        passed(TTL, "longer than the lease")
        assert not any(m.is_primary() for m in c.members)
        assert c.etcd.ctl("user", "grant-role", "pgregent", "it") is not None
        new = settled(c)
        w.wait_ack(new)
    assert w.overlaps() == []
    assert json.loads(new.status("/cluster")[1])["members"]


def test_tokens_end_and_a_role_is_taken_away(cluster):
    tokens_end(cluster)
    role_taken_away(cluster)
