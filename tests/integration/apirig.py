"""Drives apihost, which plays supervisor and worker for one real pgregent-api."""
import http.client
import json
import os
import queue
import re
import socket
import subprocess
import threading
import time

import util


def enum(name):
    """Values of an enum of our headers by name: the tests follow the headers."""
    for header in ("shm_layout.h", "ipc_msgs.h"):
        with open(os.path.join(util.ROOT, "common/core", header)) as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        m = re.search(r"enum %s \{(.*?)\}" % name, text, flags=re.S)
        if m:
            values, n = {}, 0
            for part in m.group(1).split(","):
                part = part.strip()
                if not part:
                    continue
                if "=" in part:
                    part, number = (p.strip() for p in part.split("="))
                    n = int(number, 0)
                values[part] = n
                n += 1
            return values
    raise AssertionError(f"enum {name} not found")


WRK = enum("shm_worker_scalar")
SUP = enum("shm_sup_scalar")
DOC = enum("shm_worker_doc")
KIND = enum("api_kind")
ROLE = {"uninitialized": 0, "replica": 1, "primary": 2, "standby_leader": 3, "demoted": 4, "promoted": 5}
RUNNING, STOPPED = 5, 12

PRIMARY_FACTS = {"in_recovery": False, "postmaster_start_time": "2024-08-28 19:39:26.352526+00:00",
                 "server_version": 150020, "xlog": {"location": 67419744}, "timeline": 3,
                 "replication": [{"usename": "rep", "application_name": "n2", "client_addr": "10.0.0.2",
                                  "state": "streaming", "sync_state": "async", "sync_priority": 0}]}
REPLICA_FACTS = {"in_recovery": True, "postmaster_start_time": "2024-08-28 19:39:26+00:00",
                 "server_version": 150020,
                 "xlog": {"received_location": 1000, "replayed_location": 1000,
                          "replayed_timestamp": None, "paused": False},
                 "timeline": 3, "replication_state": "streaming", "latest_end_lsn": 1000}
CLUSTER = {"leader": "n1", "sync": None, "failover": None, "last_lsn": 2000, "members": [
    {"name": "n1", "data": {"conn_url": "postgres://10.0.0.1:5433/postgres", "api_url": "http://127.0.0.1:8008/patroni",
                            "state": "running", "role": "primary", "xlog_location": 2000, "timeline": 3}},
    {"name": "n2", "data": {"conn_url": "postgres://[fe80::2]/postgres", "api_url": "http://10.0.0.2:8008/patroni",
                            "state": "running", "replication_state": "streaming", "role": "replica",
                            "xlog_location": 1500, "receive_lsn": 1500, "replay_lsn": 1000, "timeline": 3}}]}


class Rig:
    def __init__(self, tmp, **settings):
        self.dir = str(tmp)
        self.port = util.free_port()
        self.settings = {"scope": "demo", "name": "n1", "version": "0.1.0", "patroni_version": "4.1.4", "ttl": 30,
                         "loop_wait": 10, "listen": f"127.0.0.1:{self.port}", **settings}
        self.lines = queue.Queue()
        self.requests = queue.Queue()
        self.states = queue.Queue()
        self.log = open(os.path.join(self.dir, "api.log"), "w")
        data = os.path.join(self.dir, "data")
        os.makedirs(data, exist_ok=True)
        self.proc = subprocess.Popen([util.program("tests/integration/apihost"), util.program("pgregent-api"),
                                      self.dir, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=self.log, text=True)
        self.exit_code = None
        threading.Thread(target=self._read, daemon=True).start()
        self.get_line("ready")

    def _read(self):
        for line in self.proc.stdout:
            line = line.rstrip("\n")
            if line.startswith("req "):
                _, kind, body = line.split(" ", 2)
                self.requests.put((int(kind), json.loads(body) if body else None))
            elif line.startswith("state "):
                self.states.put(line.split(" ", 2)[1:])
            elif line.startswith("exit "):
                self.exit_code = int(line.split()[1])
            else:
                self.lines.put(line)

    def get_line(self, start):
        line = self.lines.get(timeout=20)
        assert line.startswith(start), (line, open(os.path.join(self.dir, "api.log")).read())
        return line

    def cmd(self, text):
        self.proc.stdin.write(text + "\n")
        self.proc.stdin.flush()
        return self.get_line("ok")

    def set(self, **values):
        for name, value in values.items():
            self.cmd(f"set {WRK['WRK_' + name.upper()]} {value}")

    def sup(self, **values):
        for name, value in values.items():
            self.cmd(f"sup {SUP['SUP_' + name.upper()]} {value}")

    def doc(self, name, value):
        self.cmd(f"doc {DOC['DOC_' + name.upper()]} {'' if value is None else json.dumps(value)}")

    def answer(self, kind, status, text="", content=0, lsn=-1):
        self.cmd(f"answer {KIND['API_' + kind.upper()]} {status} {content} {lsn} {text}")

    def facts(self, value):
        self.answer("pg_facts", 200 if value else 503, json.dumps(value) if value else "", 1)

    def asked(self):
        self.proc.stdin.write("facts-asked\n")
        self.proc.stdin.flush()
        n = int(self.get_line("facts-asked").split()[1])
        self.get_line("ok")
        return n

    def configure(self, wait=True, **changes):
        self.settings.update(changes)
        self.cmd("settings " + json.dumps(self.settings))
        return self.states.get(timeout=20) if wait else None

    def publish(self, role="primary", lease=True, cluster=CLUSTER, **more):
        """A worker page of a running member."""
        values = {"role": ROLE[role], "state": RUNNING, "ttl_ms": 30000, "loop_wait_ms": 10000,
                  "next_cycle_ms": "+10000", "cluster_read_ms": "+0" if cluster else 0, "postmaster_alive": 1,
                  "dcs_last_seen_s": 1692356928, "lease_until_ms": "+25000" if lease else 0,
                  "max_lag_on_failover": 1048576, "last_lsn": (cluster or {}).get("last_lsn", 0)}
        values.update(more)
        self.set(**values)
        self.sup(policy=0, lease_until_ms="+25000" if lease else 0)
        self.doc("cluster", cluster)
        self.doc("config", {"ttl": 30, "loop_wait": 10})
        self.doc("history", [[1, 1000, "no recovery target specified"]])
        self.doc("member", {"tags": {"clonefrom": True}, "database_system_identifier": "7268616322854375442"})
        self.doc("failsafe", None)
        self.set(complete=1)
        self.facts(PRIMARY_FACTS if role == "primary" else REPLICA_FACTS)

    def http(self, method, path, body=None, headers=None, port=None, timeout=10, local=False, context=None, source=None):
        """(status, headers, body bytes) of one request on its own connection."""
        if local:
            conn = http.client.HTTPConnection("localhost", timeout=timeout)
            conn.sock = socket.socket(socket.AF_UNIX)
            conn.sock.settimeout(timeout)
            conn.sock.connect(os.path.join(self.dir, "api.sock"))
        elif context:
            conn = http.client.HTTPSConnection("127.0.0.1", port or self.port, timeout=timeout, context=context)
        else:
            conn = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout, source_address=source)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            conn.request(method, path, body=body, headers=headers or {})
            r = conn.getresponse()
            return r.status, r.headers, r.read()
        finally:
            conn.close()

    def status(self, path, method="GET", **kw):
        return self.http(method, path, **kw)[0]

    def json(self, path, **kw):
        s, _, b = self.http("GET", path, **kw)
        return s, json.loads(b)

    def text(self, method, path, body=None, **kw):
        s, _, b = self.http(method, path, body, **kw)
        return s, b.decode()

    def raw(self, data, timeout=10):
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            s.sendall(data)
            out = b""
            while True:
                try:
                    chunk = s.recv(65536)
                except ConnectionResetError:
                    return out
                if not chunk:
                    return out
                out += chunk

    def close(self):
        self.proc.stdin.close()
        code = self.proc.wait(timeout=15)
        self.log.close()
        with open(os.path.join(self.dir, "api.log")) as f:
            text = f.read()
        assert "Sanitizer" not in text and "runtime error" not in text and "invariant" not in text.lower(), text
        return code
