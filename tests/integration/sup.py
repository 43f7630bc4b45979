"""A supervisor with the test worker in the worker's place."""
import contextlib
import os
import re
import signal
import socket

import util

PG_NONE, PG_STARTING, PG_RUNNING, PG_STOPPING, PG_FENCING = range(5)
PRIMARY, STANDBY = 1, 2
SMART, FAST, IMMEDIATE, KILL = 1, 2, 3, 4
ENFORCE, FAILSAFE, PAUSED = 0, 1, 2
CODE, SIGNAL, UNKNOWN, FENCED = 1, 2, 3, 4
STATUS = """at pid worker files api deadman worker_ready worker_restarts files_restarts api_restarts deadman_restarts
pg_pid pg_state pg_generation pg_kind pg_started pg_promote_sent lease_until ttl policy pause_enforce proof_until
fence_at fences wd_armed wd_timeout deadman_acked jobs ending""".split()


def clean_env():
    """Ours without what belongs to the test run."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PGREGENT_", "PATRONI_"))}


class Worker:
    """Commands to the test worker, and the messages that it got."""

    def __init__(self, path):
        self.path, self.seen, self.sock, self.buf = path, [], None, b""
        self.asked = {}  # message id -> what was seen before it: workers of two supervisors use the same ids

    def close(self):
        if self.sock is not None:
            self.sock.close()
        self.sock, self.buf = None, b""

    def _connect(self):
        def attempt():
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(5)
            try:
                s.connect(self.path)
                return s
            except OSError:
                s.close()
                return None
        self.sock = util.wait_until(attempt, 10, f"the test worker listens on {self.path}")

    def ask(self, *words):
        """Reply lines of one command; the last is the message id. When the worker goes away meanwhile, its successor
        is asked."""
        line = "\t".join(str(w) for w in words).encode() + b"\n"

        def attempt():
            try:
                if self.sock is None:
                    self._connect()
                self.sock.sendall(line)
                return self._reply()
            except (OSError, EOFError):
                self.close()
                return None
        return util.wait_until(attempt, 20, f"the test worker answers {words[0]}")

    def _reply(self):
        while b"\n.\n" not in self.buf:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError
            self.buf += more
        text, self.buf = self.buf.split(b"\n.\n", 1)
        return text.decode(errors="replace").split("\n")

    def done(self, leave=0, code=0):
        """The last message of a worker; the supervisor may end it before it can reply."""
        self.last("done", leave, code)

    def last(self, *words):
        if self.sock is None:
            self._connect()
        try:
            self.sock.sendall("\t".join(str(w) for w in words).encode() + b"\n")
            self._reply()
        except (OSError, EOFError):
            self.close()

    def do(self, *words):
        """A command that sends a message; its id."""
        n = len(self.seen)
        mid = int(self.ask(*words)[-1].split("=")[1])
        self.asked[mid] = n
        return mid

    def poll(self):
        self.seen += [m for m in self.ask("take") if not m.startswith("id=")]
        return self.seen

    def wait(self, pattern, bound=10, since=0):
        """The first message at or after index `since` that matches; its match."""
        rx = re.compile(pattern)

        def look():
            for m in self.poll()[since:]:
                hit = rx.match(m)
                if hit:
                    return hit
            return None
        try:
            return util.wait_until(look, bound)
        except AssertionError:
            raise AssertionError(f"no message {pattern!r} within {bound} s in {self.seen[since:]}") from None

    def answer(self, mid, bound=10):
        hit = self.wait(rf"ANSWER id={mid} code=(\d+) text=(.*)", bound, self.asked.get(mid, 0))
        return int(hit[1]), hit[2]

    def acked(self, mid, bound=10):
        hit = self.wait(rf"LEASE_ACK id={mid} seq=\d+ accepted=(\d) fence_at=(-?\d+) reason=(.*)", bound, self.asked.get(mid, 0))
        return hit[1] == "1", hit[3]

    def status(self):
        line = [x for x in self.ask("status") if x.startswith("STATUS ")][0]
        return dict(zip(STATUS, (int(x) for x in line.split()[1:])))

    def env(self):
        return dict(x[4:].split("=", 1) for x in self.ask("env") if x.startswith("ENV "))


class Supervisor:
    """Starts pgregent; the helpers' directory holds the test worker under the names of worker and api."""

    def __init__(self, work, pg, scope="sc", name="n1", env=None, prefix=(), options=(), binary=None, user=None):
        self.work, self.pg, self.scope, self.name = work, pg, scope, name
        self.config = os.path.join(work, "config")
        self.runtime = os.path.join(work, "run")
        self.dir = os.path.join(self.runtime, f"{scope}.{name}")
        self.worker = Worker(os.path.join(work, "control"))
        self.libexec = os.path.join(work, "libexec")
        self.binary = binary or util.program("pgregent")
        self.env = dict(clean_env(), PGREGENT_LIBEXEC=self.libexec, **(env or {}))
        self.prefix, self.options = list(prefix), list(options)
        self.procs = []
        self.who = util.as_pg_user() if user is None else user
        if not os.path.exists(self.libexec):
            os.mkdir(self.libexec)
            os.mkdir(self.runtime)
            util.give_to_pg_user(self.runtime)
            test_worker = util.program("tests/integration/testworker")
            for role, target in (("worker", test_worker), ("api", test_worker),
                                 ("files", util.program("pgregent-files")),
                                 ("deadman", util.program("pgregent-deadman"))):
                os.symlink(target, os.path.join(self.libexec, f"pgregent-{role}"))
        with open(self.config, "w") as f:
            f.write(f"data_dir={pg.data}\nscope={scope}\nname={name}\ncontrol={self.worker.path}\n")

    def start(self, wait=True):
        argv = self.prefix + [self.binary, "--runtime-dir", self.runtime] + self.options + [self.config]
        self.proc = util.Process(argv, os.path.join(self.work, "supervisor.log"), env=self.env, **self.who)
        self.procs.append(self.proc)
        if wait:
            self.worker.wait("WELCOME", 15)
        return self

    @property
    def pid(self):
        return self.status()["pid"]

    def status(self):
        return self.worker.status()

    def wait_status(self, bound=10, **want):
        def look():
            st = self.status()
            return st if all(st[k] == v for k, v in want.items()) else None
        return util.wait_until(look, bound, f"status {want}")

    def lease(self, ttl=10000, length=None, policy=ENFORCE, pause_enforce=0):
        mid = self.worker.do("lease", ttl, ttl if length is None else length, policy, pause_enforce)
        return self.worker.acked(mid)

    def start_pg(self, kind=PRIMARY, ttl=10000, renew=True):
        """Lease (for a primary), start, wait until it accepts connections. The postmaster's pid."""
        if kind == PRIMARY:
            if renew:
                self.worker.do("autolease", ttl, max(200, ttl // 10))
            ok, why = self.lease(ttl)
            assert ok, why
        code, text = self.worker.answer(self.worker.do("start", kind, 8000, 0o77, *self.pg.argv()))
        assert code == 0, text
        if kind == STANDBY:
            self.worker.do("autoproof", 300)
        self.pg.wait_up()
        return int(text.split()[1])

    def kill_all(self):
        """After a test: end what it started, by pid."""
        self.worker.close()
        pids = set()
        for p in self.procs:
            pids |= util.descendants(p.pid)
        pids |= set(util.processes_with(self.libexec)) | set(util.processes_with(self.config))
        for p in self.procs:
            p.kill()
        for pid in pids | set(util.processes_with(self.libexec)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
