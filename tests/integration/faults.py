"""What the tests of faults share: writers (one of them pipelined), the processes of a member, a store of three members."""
import json
import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time

import psycopg2
import pytest

from cluster import Cluster, Etcd, Member, WriteProbe
from util import (Process, alive, as_pg_user, descendants, free_port, give_to_pg_user, pid_state, program,
                  wait_until)

PIPELINED_FROM = 10 ** 9  # its values, apart from those of the probe
ROUND = 10 ** 11
LOG_TAIL = 6000


class Writers(WriteProbe):
    """The probe, and beside it a pipelined writer for each member. Entered when both were acknowledged once: no fault
    comes before there is something to break."""

    rounds = 0

    def __init__(self, cluster):
        super().__init__(cluster)
        # No value comes twice, also when tests share a cluster.
        Writers.rounds += 1
        self.next = Writers.rounds * ROUND
        self.cluster, self.pipes = cluster, {}
        self.leader = cluster.leader()

    def __enter__(self):
        for i, m in enumerate(self.cluster.members):
            out = os.path.join(self.cluster.base, "pipe-%s-%d" % (m.name, Writers.rounds))
            first = Writers.rounds * ROUND + PIPELINED_FROM * (i + 1)
            self.pipes[m.name] = Process([program("tests/integration/pipewriter"), str(m.pg), m.name, str(first)], out)
        super().__enter__()
        try:
            self.wait_ack(self.leader)
        except BaseException:
            self.__exit__()
            raise
        return self

    def pipelined(self, name):
        rows = []
        for line in self.pipes[name].text().splitlines(keepends=True):
            words = line.split()
            if len(words) == 4 and line.endswith("\n"):
                rows.append((float(words[0]), float(words[1]), int(words[2]), int(words[3])))
        return rows

    def wait_ack(self, m, bound=20, since=None):
        """Both writers were acknowledged by this member, for something that they sent after `since` (now)."""
        since = time.monotonic() if since is None else since

        def acknowledged():
            rows = self.acks[m.name][-1:], self.pipelined(m.name)[-1:]
            return all(r and r[0][0] >= since for r in rows)
        wait_until(acknowledged, bound, "both writers are acknowledged by " + m.name)

    def __exit__(self, *exc):
        super().__exit__(*exc)
        for name, p in self.pipes.items():
            p.signal(signal.SIGTERM)
        for name, p in self.pipes.items():
            try:
                p.wait(15)
            finally:
                p.kill()
            self.acks[name] = sorted(self.acks[name] + self.pipelined(name))

    def gap_of(self, name):
        """The longest time between two acknowledgements of this member, of either writer, without what the machine cost."""
        return self.stalls.longest_gap(got for _, got, _, _ in self.acks[name])

    def after(self, old, new):
        """What old acknowledged after new's first (of this change of leaders). A writer whose processor stands still sees it late."""
        first = self.acks[new.name][0][1]
        return [r for r in self.acks[old.name] if r[1] >= first and r[1] - self.stalls.lost(r[0], r[1]) >= first]

    def handed_over(self, old, new):
        """Old acknowledged nothing after new's first, and new did acknowledge."""
        assert self.acks[new.name], new.name + " acknowledged nothing"
        assert self.overlaps() == []
        assert self.after(old, new) == []


class EtcdOfThree:
    """Three members of one store; `ctl` asks those that run."""

    def __init__(self, base):
        self.base = base
        self.nodes = [Etcd(base) for _ in range(3)]
        self.stopped = set()

    def start(self):
        for i in range(3):
            self.run(i)
        for e in self.nodes:
            wait_until(lambda: e.ctl("endpoint", "health") is not None, 20, "etcd is healthy")

    def run(self, i):
        e = self.nodes[i]
        c, p = "http://" + e.url, "http://127.0.0.1:%d" % e.peer
        peers = ",".join("e%d=http://127.0.0.1:%d" % (k, n.peer) for k, n in enumerate(self.nodes))
        e.proc = Process(["etcd", "--name", "e%d" % i, "--data-dir", "%s/etcd%d" % (self.base, i), "--logger", "zap",
                          "--listen-client-urls", c, "--advertise-client-urls", c, "--listen-peer-urls", p,
                          "--initial-advertise-peer-urls", p, "--initial-cluster", peers,
                          "--heartbeat-interval", "100", "--election-timeout", "1000"],
                         "%s/etcd%d.log" % (self.base, i), **as_pg_user())

    def renew(self, i):
        """A frozen member begins anew from its data. It is not asked before it answers."""
        self.nodes[i].proc.kill()
        self.run(i)
        wait_until(lambda: self.nodes[i].ctl("endpoint", "health") is not None, 20, "etcd is healthy")
        self.stopped.discard(i)

    def section(self, name):
        return {"hosts": [e.url for e in self.nodes]}

    def running(self):
        return [e for i, e in enumerate(self.nodes) if i not in self.stopped]

    def ctl(self, *args):
        return self.running()[0].ctl(*args)

    def get(self, key):
        return self.running()[0].get(key)

    def json(self, key):
        return self.running()[0].json(key)

    def leader(self):
        """Index of the member that leads the store."""
        for i, e in enumerate(self.nodes):
            if i in self.stopped:
                continue
            text = e.ctl("endpoint", "status", "-w", "json")
            if text:
                st = json.loads(text)[0]["Status"]
                if st["header"]["member_id"] == st.get("leader", 0):  # left out while there is none
                    return i
        return None

    def freeze(self, i):
        self.stopped.add(i)
        self.nodes[i].proc.signal(signal.SIGSTOP)

    def thaw(self, i):
        self.nodes[i].proc.signal(signal.SIGCONT)
        self.stopped.discard(i)

    def stop(self):
        for e in self.nodes:
            e.stop()


class Proxy:
    """A TCP proxy that can be cut. `mute`: connections are taken and stay open, nothing passes; `refuse`: nobody listens, what was
    open is reset."""

    def __init__(self, to_port):
        self.to, self.how, self.lock = to_port, None, threading.Lock()
        self.port = free_port()
        self.url = "127.0.0.1:%d" % self.port
        self.open, self.listener = [], None
        self.heal()

    def heal(self):
        """What stood in a mute connection is gone with it: the network lost it."""
        self.how = None
        self.reset()
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def cut(self, how):
        self.how = how
        if how == "refuse":
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
            self.reset()

    def close(self):
        if self.how != "refuse":
            self.cut("refuse")

    def reset(self):
        with self.lock:
            for s in self.open:
                try:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                s.close()
            self.open = []

    def accept(self, listener):
        while True:
            try:
                a, _ = listener.accept()
                b = socket.create_connection(("127.0.0.1", self.to), 2)
            except OSError:
                if self.listener is not listener:
                    return
                continue
            b.settimeout(None)
            with self.lock:
                self.open += [a, b]
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self.pump, args=(x, y), daemon=True).start()

    def pump(self, x, y):
        try:
            while True:
                data = x.recv(65536)
                if not data:
                    break
                if self.how is None:
                    y.sendall(data)
        except OSError:
            pass
        if self.how is None:
            for s in (x, y):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class LeaseWatch:
    """Each change of the lease that this member's supervisor enforces: (when, new end, left of the old), milliseconds."""

    def __init__(self, m):
        self.m = m

    def __enter__(self):
        out = os.path.join(self.m.cluster.base, "lease-%s-%d" % (self.m.name, time.monotonic_ns()))
        self.p = Process([program("tests/integration/leasewatch"), str(self.m.proc.pid)], out)
        wait_until(self.rows, 15, "the supervisor's page is read")
        return self

    def __exit__(self, *exc):
        self.p.kill()

    def rows(self):
        return [tuple(map(int, x.split())) for x in self.p.text().splitlines(keepends=True) if x.endswith("\n")]

    def least_left(self, stalls=None):
        """With what the machine cost since the renewal before."""
        rows, ahead = self.rows(), time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

        def cost_ms(a, b):
            return 1000 * stalls.lost(a / 1000 - ahead, b / 1000 - ahead) if stalls else 0
        return min((b[2] + cost_ms(a[0], b[0]) for a, b in zip(rows, rows[1:])), default=None)

    def longest_wait(self):
        at = [r[0] for r in self.rows()]
        return max((b - a for a, b in zip(at, at[1:])), default=None)


def with_ttl(m, ttl):
    """The leader m has a lease of this many seconds from here on."""
    code, text = m.status("/config", "PATCH", {"ttl": ttl})
    assert code == 200, text

    def granted():
        with LeaseWatch(m) as lease:
            left_s = lease.rows()[-1][1] / 1000 - time.clock_gettime(time.CLOCK_BOOTTIME)
            return ttl * 0.7 < left_s <= ttl
    wait_until(granted, 40, "the lease is as long as the new ttl")

    def in_store():
        """The worker counts by a shorter ttl before the store has given a lease of that length."""
        kvs = json.loads(m.cluster.etcd.ctl("get", "/service/it/leader", "-w", "json") or "{}").get("kvs")
        text = m.cluster.etcd.ctl("lease", "timetolive", "%x" % kvs[0]["lease"], "-w", "json") if kvs else None
        return text is not None and json.loads(text)["granted-ttl"] == ttl
    wait_until(in_store, 40, "the store has given a lease of the new ttl", every=0.2)


def made(cluster):
    """The cluster is started and has the table that writers write to."""
    cluster.start()
    cluster.leader().sql("CREATE TABLE probe(v bigint, who text)")
    return cluster


class SharedCluster:
    """One cluster for the tests of a file: each leaves it whole. After one that failed there is a new one."""

    def __init__(self, base, members, member=Member):
        self.base, self.members, self.member = base, members, member
        self.dir, self.c = None, None

    def get(self):
        if self.c is None:
            self.dir = tempfile.mkdtemp(prefix="t", dir=self.base)
            os.chmod(self.dir, 0o755)
            give_to_pg_user(self.dir)
            self.c = Cluster(self.dir, n=self.members, member=self.member)
            made(self.c)
        settled(self.c)
        return self.c

    def failed(self):
        """Its logs are shown, its directory stays."""
        self.c.stop()
        for m in self.c.members:
            print("\n---- %s\n%s" % (m.log, m.proc.text()[-LOG_TAIL:] if m.proc else ""))
        self.c = None

    def close(self):
        if self.c is not None:
            self.c.stop()
            shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(request, work_base):
    box = SharedCluster(work_base, getattr(request.module, "MEMBERS", 3), getattr(request.module, "MEMBER", Member))
    yield box
    box.close()


@pytest.fixture
def cluster(request, shared):
    """Of as many members as the test's file says (MEMBERS), and of what kind (MEMBER)."""
    try:
        yield shared.get()
    finally:
        report = getattr(request.node, "report_call", None)
        if shared.c is not None and (report is None or not report.passed):
            shared.failed()


def settled(c, bound=40):
    """Everybody but the leader streams from it."""
    leader = c.wait_leader(30)
    for m in c.others(leader):
        wait_until(m.streams_from_somebody, bound, m.name + " streams again")
    return leader


def pg_start(m):
    return m.sql("SELECT pg_postmaster_start_time()")


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(x) for x in f.read().split()]
    except OSError:
        return []


def name_of(pid):
    try:
        with open("/proc/%d/comm" % pid) as f:
            return f.read().strip()
    except OSError:
        return ""


def own_child(m, comm):
    """Faster than Member.helper: a child of the running supervisor, by the first 15 letters of its name."""
    return next((p for p in children(m.proc.pid) if name_of(p) == comm[:15]), None)


def kill(*pids, signo=signal.SIGKILL):
    for p in pids:
        os.kill(p, signo)


def gone(pid):
    return not alive(pid)


def frozen(members):
    """Stops these members, supervisor and PostgreSQL; what is stopped. A process that ends just then (of a connection that was
    closed) is none of it."""
    pids = []

    def stop(which):
        for p in which:
            try:
                kill(p, signo=signal.SIGSTOP)
                pids.append(p)
            except ProcessLookupError:
                pass
        wait_until(lambda: all(pid_state(p) in ("T", "Z", None) for p in pids), 10, "all are stopped")
    for m in members:
        pm = m.postmaster()
        stop([m.proc.pid, pm])
        stop(descendants(pm))  # now there are no more of them
    return pids


def thawed(pids):
    for p in pids:
        try:
            kill(p, signo=signal.SIGCONT)
        except ProcessLookupError:
            pass


def nobody_streams(m):
    """From m: what it writes from now on is its own alone. Its standbys are frozen."""
    m.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    wait_until(lambda: m.sql("SELECT count(*) FROM pg_stat_replication") == [(0,)], 20, "nobody streams from " + m.name)


class Again(threading.Thread):
    """Calls `act(pid)` on each new child of that name, until stopped: faster than it can do anything."""

    def __init__(self, m, comm, act):
        super().__init__(daemon=True)
        self.m, self.comm, self.act = m, comm, act
        self.hit, self.ending = [], threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.ending.set()
        self.join(5)

    def run(self):
        while not self.ending.wait(0.005):
            pid = own_child(self.m, self.comm)
            if pid is not None and (not self.hit or self.hit[-1] != pid):
                try:
                    self.act(pid)
                    self.hit.append(pid)
                except ProcessLookupError:
                    pass


__all__ = ["Again", "Cluster", "Etcd", "EtcdOfThree", "LeaseWatch", "Member", "Process", "Proxy", "Writers", "alive", "children", "cluster",
           "free_port", "frozen", "gone", "kill", "made", "name_of", "nobody_streams", "own_child", "pg_start", "psycopg2", "settled", "shared",
           "thawed", "wait_until", "with_ttl"]
