"""A cluster of real members on loopback: pgregent, PostgreSQL, etcd; and a probe that writes to every member directly."""
import base64
import http.client
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import psycopg2

from stalls import Stalls
from util import (Process, alive, as_pg_user, free_port, give_to_pg_user, pg_bin, processes_with, program,
                  wait_until)

CONF = """
scope: it
name: {name}
restapi:
  listen: 127.0.0.1:{rest}
  connect_address: {host}:{rest}
etcd3: {etcd}
bootstrap:
  dcs: {dcs}
  initdb:
  - encoding: UTF8
  - data-checksums
  - auth-local: trust
  - auth-host: trust
  - no-sync
  pg_hba:
  - host replication replicator 127.0.0.1/32 trust
  - host all all 127.0.0.1/32 trust
postgresql:
  listen: 127.0.0.1:{pg}
  connect_address: {host}:{pg}
  data_dir: {dir}/data
  bin_dir: {bin_dir}
  pgpass: {dir}/pgpass
  authentication:
    superuser: {{username: postgres, password: super-pass}}
    replication: {{username: replicator, password: repl-pass}}
    rewind: {{username: rewind_user, password: rewind-pass}}
  basebackup:
  - no-sync
  parameters:
    unix_socket_directories: '{dir}'
    wal_retrieve_retry_interval: 100ms
    logging_collector: 'off'
tags: {tags}
"""


class Etcd:
    def __init__(self, base):
        self.base = base
        self.client, self.peer = free_port(), free_port()
        self.url = "127.0.0.1:%d" % self.client
        self.proc = None

    def start(self):
        c, p = "http://" + self.url, "http://127.0.0.1:%d" % self.peer
        self.proc = Process(["etcd", "--name", "e0", "--data-dir", self.base + "/etcd", "--logger", "zap",
                             "--listen-client-urls", c, "--advertise-client-urls", c, "--listen-peer-urls", p,
                             "--initial-advertise-peer-urls", p, "--initial-cluster", "e0=" + p],
                            self.base + "/etcd.log", **as_pg_user())
        wait_until(lambda: self.ctl("endpoint", "health") is not None, 20, "etcd is healthy")

    def stop(self):
        if self.proc is not None:
            self.proc.kill()

    def section(self, name):
        """What the configuration of this member says about the store."""
        return {"hosts": [self.url]}

    def ctl(self, *args):
        env = dict(os.environ, ETCDCTL_API="3")
        r = subprocess.run(["etcdctl", "--endpoints", self.url, *args], env=env, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, timeout=10)
        return r.stdout.decode(errors="replace") if r.returncode == 0 else None

    def value(self, key):
        """By the gateway: a program for each question would take a fifth of the machine. None: no such key, or no answer."""
        body = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
        try:
            with urllib.request.urlopen("http://%s/v3/kv/range" % self.url, body, timeout=5) as r:
                kvs = json.loads(r.read()).get("kvs")
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return base64.b64decode(kvs[0].get("value", "")).decode(errors="replace") if kvs else None

    def get(self, key):
        text = self.value("/service/it/" + key)
        return None if text is None else text.rstrip("\n")

    def json(self, key):
        text = self.get(key)
        return json.loads(text) if text else None


class Member:
    """`extra` stands at the end of the configuration; `prefix` before the command."""

    def __init__(self, cluster, name, tags=None, host="127.0.0.1", extra="", prefix=()):
        self.prefix = list(prefix)
        self.cluster, self.name = cluster, name
        self.dir = os.path.join(cluster.base, name)
        self.run = os.path.join(cluster.base, "r" + name)
        self.log = os.path.join(cluster.base, name + ".log")
        self.pg, self.rest = free_port(), free_port()
        self.proc = None
        for d in (self.dir, self.run):
            os.mkdir(d)
            give_to_pg_user(d)
        self.yml = os.path.join(cluster.base, name + ".yml")
        with open(self.yml, "w") as f:
            f.write(CONF.format(name=name, rest=self.rest, pg=self.pg, dir=self.dir, host=host,
                                etcd=json.dumps(cluster.etcd.section(name)),
                                bin_dir=os.path.dirname(pg_bin("postgres")), dcs=json.dumps(cluster.dcs),
                                tags=json.dumps(tags or {})) + extra)

    def start(self):
        env = dict(os.environ, RUNTIME_DIRECTORY=self.run, HOME=self.dir, PATRONI_LOG_LEVEL="INFO")
        # A prefix is for root and leaves it by itself.
        user = {} if self.prefix else as_pg_user()
        self.proc = Process(self.prefix + [program("pgregent"), self.yml], self.log, env=env, **user)

    def helper(self, what):
        """The pid of a process of this member: worker, files, api, deadman."""
        for pid in processes_with("pgregent-" + what):
            p = pid
            while p > 1:
                if p == self.proc.pid:
                    return pid
                try:
                    with open("/proc/%d/stat" % p) as f:
                        p = int(f.read().rsplit(")", 1)[1].split()[1])
                except OSError:
                    break
        return None

    def postmaster(self):
        try:
            with open(self.dir + "/data/postmaster.pid") as f:
                return int(f.readline())
        except (OSError, ValueError):
            return None

    def sql(self, text, timeout=3):
        c = psycopg2.connect(host="127.0.0.1", port=self.pg, user="postgres", dbname="postgres", connect_timeout=timeout)
        try:
            c.autocommit = True
            cur = c.cursor()
            cur.execute(text)
            return cur.fetchall() if cur.description else None
        finally:
            c.close()

    def try_sql(self, text):
        try:
            return self.sql(text)
        except psycopg2.Error:
            return None

    def status(self, path="/patroni", method="GET", body=None, timeout=5):
        req = urllib.request.Request("http://127.0.0.1:%d%s" % (self.rest, path), method=method,
                                     data=json.dumps(body).encode() if body is not None else None,
                                     headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(req, timeout=timeout) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""

    def post_when_free(self, path, body=None, bound=30):
        """The answer to this request. A server streams a moment before the task that started it has ended: asked again until none is in
        the way."""
        answers = []

        def free():
            answers.append(self.status(path, "POST", body or {}, 60))
            return "already in progress" not in answers[-1][1]
        wait_until(free, bound, self.name + " has no task")
        return answers[-1]

    def copies(self):
        """How often it was made by pg_basebackup."""
        return self.proc.text().count("job started name=pg_basebackup")

    def is_primary(self):
        return self.try_sql("SELECT pg_is_in_recovery()") == [(False,)]

    def streams_from_somebody(self):
        return self.try_sql("SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]

    def kill_all(self):
        """Node off: everything at once."""
        pm = self.postmaster()
        pids = [self.proc.pid] + [p for p in (self.helper(h) for h in ("worker", "files", "api", "deadman")) if p]
        if pm and alive(pm):
            from util import descendants
            pids += [pm] + list(descendants(pm))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass


class Cluster:
    def __init__(self, base, n=3, etcd=None, member=Member, **dcs):
        self.base = base
        self.dcs = {"ttl": 6, "loop_wait": 1, "retry_timeout": 2, "maximum_lag_on_failover": 1048576,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 60}}}
        self.dcs.update(dcs)
        self.etcd = etcd or Etcd(base)
        self.etcd.start()
        self.members = [member(self, "n%d" % i) for i in range(n)]

    def start(self):
        self.members[0].start()
        wait_until(lambda: self.etcd.get("leader") == "n0" and self.members[0].is_primary(), 40, "n0 leads")
        # The leader key comes first; configuration and identifier are written when the bootstrap has ended.
        wait_until(lambda: self.etcd.get("initialize"), 20, "the new cluster is published")
        for m in self.members[1:]:
            m.start()
        for m in self.members[1:]:
            wait_until(m.streams_from_somebody, 40, m.name + " streams")
        return self

    def leader(self):
        name = self.etcd.get("leader")
        return next((m for m in self.members if m.name == name), None)

    def others(self, m):
        return [x for x in self.members if x is not m]

    def wait_leader(self, bound, but=None):
        def there():
            m = self.leader()
            return m is not None and m is not but and m.is_primary()
        wait_until(there, bound, "a leader besides %s" % (but.name if but else "nobody"))
        return self.leader()

    def wait_listed(self, m, what, bound=20):
        """`what(row)` holds for each member in what m's REST API says of the cluster: m's own view, which follows the store."""
        def rows():
            code, text = m.status("/cluster")
            return {r["name"]: r for r in json.loads(text)["members"]} if code == 200 else {}

        def there():
            found = rows()
            return all(x.name in found and what(found[x.name]) for x in self.members)
        wait_until(there, bound, lambda: "%s lists: %s" % (m.name, rows()))

    def wait_followed(self, m, bound=30):
        """The leader m knows that everybody else streams, and can take over: whoever streams says so a moment later."""
        self.wait_listed(m, lambda row: row["name"] == m.name or row["state"] == "streaming", bound)

    def stop(self):
        for m in self.members:
            if m.proc is not None:
                try:
                    m.proc.signal(signal.SIGCONT)
                    m.proc.signal(signal.SIGTERM)
                except OSError:
                    pass
        for m in self.members:
            if m.proc is not None:
                try:
                    m.proc.wait(15)
                except Exception:
                    pass
                m.kill_all()
        self.etcd.stop()


class WriteProbe:
    """Writes to every member directly, many times a second, and records who acknowledged when (CLOCK_MONOTONIC). Two members
    that acknowledge in overlapping stretches of time are two primaries."""

    def __init__(self, cluster):
        self.acks = {m.name: [] for m in cluster.members}
        self.stalls = Stalls(cluster.base)
        self.lock = threading.Lock()
        self.stop_event = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(m,), daemon=True) for m in cluster.members]
        self.next = 0

    def __enter__(self):
        self.stalls.__enter__()
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.stop_event.set()
        for t in self.threads:
            t.join(10)
        self.stalls.__exit__()

    def run(self, m):
        conn = None
        while not self.stop_event.is_set():
            try:
                if conn is None:
                    # A standby refuses each of them: that fills no log.
                    conn = psycopg2.connect(host="127.0.0.1", port=m.pg, user="postgres", dbname="postgres",
                                            connect_timeout=2, options="-c log_min_messages=fatal")
                    conn.autocommit = True
                with self.lock:
                    self.next += 1
                    v = self.next
                sent = time.monotonic()
                cur = conn.cursor()
                cur.execute("INSERT INTO probe VALUES (%s, %s) RETURNING"
                            " ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int", (v, m.name))
                self.acks[m.name].append((sent, time.monotonic(), v, cur.fetchone()[0]))
            except psycopg2.errors.ReadOnlySqlTransaction:
                pass  # the same session may write when the member is promoted
            except psycopg2.Error:
                if conn is not None:
                    conn.close()
                conn = None
            self.stop_event.wait(0.01)

    def first_ack(self):
        """No fault before there is something to break."""
        wait_until(lambda: any(self.acks.values()), 20, "a writer is acknowledged")

    def overlaps(self):
        """Acknowledgements of an older timeline that were asked for after one of a newer timeline was given: each promotion makes
        a new timeline, so these are two primaries at once."""
        acks = [(sent, got, tli, name) for name, rows in self.acks.items() for sent, got, v, tli in rows]
        newest, found = {}, []
        for sent, got, tli, name in sorted(acks, key=lambda a: a[1]):
            for other, first in newest.items():
                if other > tli and sent > first:
                    found.append((name, tli, other, sent - first))
            newest.setdefault(tli, got)
        return found

    def missing_on(self, m):
        """Acknowledged values that the surviving primary does not have (asynchronous replication may lose the last ones)."""
        acked = [v for acks in self.acks.values() for _, _, v, _ in list(acks)]  # first: more may come while we ask
        have = {r[0] for r in m.sql("SELECT v FROM probe", 5)}
        return sorted(v for v in acked if v not in have)

    def longest_gap(self):
        """Between two acknowledgements, without what the machine cost."""
        return self.stalls.longest_gap(got for acks in self.acks.values() for _, got, _, _ in acks)
