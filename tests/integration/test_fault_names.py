"""A name server that falls silent, with names in place of addresses everywhere: the last good addresses serve. Run as root: the
members see a resolv.conf of their own."""
import os
import random
import signal
import socket
import struct
import threading
import time

import pytest

import mounts
from faults import Cluster, Etcd, Member, Writers, kill, made, pg_start, settled, wait_until

pytestmark = pytest.mark.root
TTL = 6
DOMAIN = ".it.test"


class NameServer:
    """Answers 127.0.0.1 for every name below DOMAIN while it is not mute. On an address of its own on loopback."""

    def __init__(self):
        self.mute, self.asked = False, []
        self.address = "127.%d.%d.%d" % tuple(random.randint(1, 250) for _ in range(3))
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((self.address, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, peer = self.sock.recvfrom(512)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            question, kind = query[12:at + 5], query[at + 1:at + 3]
            self.asked.append(".".join(labels))
            if self.mute:
                continue
            known = self.asked[-1].endswith(DOMAIN)
            answer = known and kind == b"\0\1"  # an address of version 4; of version 6 there is none
            out = query[:2] + struct.pack(">HHHHH", 0x8580 if known else 0x8583, 1, int(answer), 0, 0) + question
            if answer:
                out += b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 1, 4) + socket.inet_aton("127.0.0.1")
            self.sock.sendto(out, peer)

    def close(self):
        self.sock.close()


class NamedEtcd(Etcd):
    def section(self, name):
        return {"hosts": ["etcd%s:%d" % (DOMAIN, self.client)], "use_proxies": True}


@pytest.fixture
def names(work):
    mounts.private()
    server = NameServer()
    conf, place = os.path.join(work, "resolv.conf"), os.path.realpath("/etc/resolv.conf")
    with open(conf, "w") as f:
        f.write("nameserver %s\noptions timeout:1 attempts:1\n" % server.address)
    mounts.bind(conf, place)
    yield server
    mounts.unmount(place)
    server.close()


@pytest.fixture
def cluster(work, names):
    c = Cluster(work, etcd=NamedEtcd(work), member=lambda c, name: Member(c, name, host=name + DOMAIN))
    try:
        yield made(c)
    finally:
        c.stop()


def test_silent_name_server(cluster, names):
    c = cluster
    n0 = c.leader()
    assert {"etcd" + DOMAIN, "n0" + DOMAIN} <= set(names.asked)
    with Writers(c) as w:
        started = pg_start(n0)
        names.mute = True
        # Connections that are lost are made again.
        c.etcd.proc.kill()
        c.etcd.start()
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + TTL + 1, TTL + 2, "longer than the lease", every=0.2)
        assert c.leader() is n0 and pg_start(n0) == started
        w.wait_ack(n0)
        # The next leader asks its peers, by names.
        n0.kill_all()
        new = c.wait_leader(25, but=n0)
        w.wait_ack(new)
        names.mute = False
        n0.start()
        assert settled(c) is new
        w.wait_ack(new)
    w.handed_over(n0, new)


def test_silent_name_server_and_a_new_worker(cluster, names):
    """A worker that dies meanwhile leaves its successor the addresses."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        started = pg_start(n0)
        names.mute = True
        old = n0.helper("worker")
        kill(old)
        begin = time.monotonic()
        wait_until(lambda: n0.helper("worker") not in (None, old), 5, "a new worker")
        wait_until(lambda: time.monotonic() > begin + TTL + 1, TTL + 2, "longer than the lease", every=0.2)
        w.wait_ack(n0)
        assert c.leader() is n0 and pg_start(n0) == started
        names.mute = False
        assert settled(c) is n0
    assert w.overlaps() == [] and w.missing_on(n0) == []
