"""A name server of the tests' own, and the resolv.conf that leads to it. For tests that run as root."""
import contextlib
import os
import random
import socket
import struct
import threading

import mounts


def wire(name):
    return b"".join(bytes([len(x)]) + x.encode() for x in name.split(".")) + b"\0"


class NameServer:
    """Answers 127.0.0.1 for every name below the domain and what stands in `srv` (service -> [(host, port)]) while it is not mute, on an
    address of its own on loopback."""

    def __init__(self, domain):
        self.domain, self.srv, self.asked, self.mute = domain, {}, [], False
        self.address = "127.%d.%d.%d" % tuple(random.randint(1, 250) for _ in range(3))
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((self.address, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def answers(self, name, kind):
        if kind == 33:
            rows = self.srv.get(name, [])
            return [struct.pack(">HHH", 1, 1, port) + wire(host) for host, port in rows]
        return [socket.inet_aton("127.0.0.1")] if kind == 1 and name.endswith("." + self.domain) and not name.startswith("_") else []

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
            question, kind = query[12:at + 5], struct.unpack(">H", query[at + 1:at + 3])[0]
            name = ".".join(labels)
            self.asked.append(name)
            if self.mute:
                continue
            found = self.answers(name, kind)
            known = found or (name.endswith("." + self.domain) and not name.startswith("_"))
            out = query[:2] + struct.pack(">HHHHH", 0x8580 if known else 0x8583, 1, len(found), 0, 0) + question
            for data in found:
                out += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 1, len(data)) + data
            try:
                self.sock.sendto(out, peer)
            except OSError:
                return

    def close(self):
        self.sock.close()


@contextlib.contextmanager
def serving(work, domain):
    """For all processes that are started meanwhile."""
    mounts.private()
    server = NameServer(domain)
    conf, place = os.path.join(work, "resolv.conf"), os.path.realpath("/etc/resolv.conf")
    with open(conf, "w") as f:
        f.write("nameserver %s\noptions timeout:1 attempts:1\n" % server.address)
    mounts.bind(conf, place)
    try:
        yield server
    finally:
        mounts.unmount(place)
        server.close()
