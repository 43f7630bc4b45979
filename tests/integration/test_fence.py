"""The fence against a real PostgreSQL: connections that work, archive_command with children, processes that lost their
parent. What must hold afterwards: nothing of it lives, and the proof (lock on the life file) says so."""
import contextlib
import fcntl
import json
import os
import pwd
import signal
import subprocess
import time

import pytest

import util

PROVEN = 3

pytestmark = pytest.mark.alone


class Server:
    """PostgreSQL as pgregent starts it: the life file inherited with a shared lock."""

    def __init__(self, pg, work):
        self.pg = pg
        self.life_path = os.path.join(work, "life")
        open(self.life_path, "w").close()
        os.chmod(self.life_path, 0o666)  # the test as root opens it without the right to override
        util.give_to_pg_user(self.life_path)
        self.clients = []
        life = os.open(self.life_path, os.O_RDWR)
        fcntl.flock(life, fcntl.LOCK_SH)
        self.log = open(os.path.join(work, "postgres.log"), "w")
        self.proc = subprocess.Popen(pg.argv(), stdout=self.log, stderr=self.log, pass_fds=[life], **util.as_pg_user())
        os.close(life)
        pg.wait_up()

    def client(self, sql):
        """A psql that stays connected and runs sql."""
        p = subprocess.Popen([util.pg_bin("psql"), "-Xq", "-h", self.pg.base, "-p", str(self.pg.port), "-U", util.PG_USER,
                              "-d", "postgres"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        p.stdin.write((sql + "\n").encode())
        p.stdin.flush()
        self.clients.append(p)

    def backends(self):
        return util.descendants(self.proc.pid)

    def locked(self):
        """Somebody still holds the life file."""
        with open(self.life_path) as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
            except BlockingIOError:
                return True

    def close(self):
        for p in self.clients:
            p.kill()
            p.wait()
            p.stdin.close()
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        self.pg.kill_leftovers()
        self.log.close()


@pytest.fixture
def pg(work, pg_template):
    return util.Postgres(pg_template, work)


@pytest.fixture
def server(pg, work):
    with open(os.path.join(pg.data, "postgresql.conf"), "a") as f:
        # A shell with a child that loses it, one that leaves the session, and one in the foreground.
        f.write("archive_mode = on\narchive_command = 'sleep 7101 & setsid sleep 7102 & sleep 7103'\nmax_connections = 60\n")
    s = Server(pg, work)
    yield s
    s.close()
    for n in ("sleep 7101", "sleep 7102", "sleep 7103", "sleep 7104"):
        for pid in util.processes_with(n):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def fence(server, *options, prefix=(), **kw):
    kw = kw or util.as_pg_user()
    # By /proc: an open file description of its own, also where the path is closed to a root without its rights.
    life = os.open(server.life_path, os.O_RDWR)
    r = subprocess.run([*prefix, util.program("tests/integration/fencetool"), str(server.proc.pid),
                        f"/proc/self/fd/{life}", *options], capture_output=True, text=True, timeout=60, pass_fds=[life],
                       **kw)
    os.close(life)
    assert r.returncode == 0, r.stdout + r.stderr
    return json.loads(r.stdout), r.stderr


def sleeps(seconds):
    """Those that are it already: a shell that has yet to fork and execute it has its words in its command line, too."""
    found = []
    for pid in util.processes_with(f"sleep {seconds}"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            if f.read() == b"sleep\0%d\0" % seconds:
                found.append(pid)
    return found


def busy(server, count=16):
    server.pg.sql("create table t as select generate_series(1, 1000) i")
    for i in range(count):
        server.client(("select pg_sleep(7200);", "select count(*) from generate_series(1, 2000000000);", "select 1;",
                       "copy t to program 'sleep 7104';")[i % 4])
    server.pg.sql("select pg_switch_wal()")
    util.wait_until(lambda: all(sleeps(n) for n in (7101, 7102, 7103)), 20, "archive_command")
    util.wait_until(lambda: sleeps(7104), 20, "copy to program")
    util.wait_until(lambda: len(server.backends()) > count + 8, 20, "connections")


def nothing_left(server, before):
    assert not server.locked()
    for pid in before:
        assert util.dead(pid), f"{pid} lives"
    for n in ("sleep 7101", "sleep 7102", "sleep 7103", "sleep 7104"):
        assert util.processes_with(n) == []


def test_fence_kills_all(server):
    busy(server)
    before = server.backends() | {server.proc.pid}
    report, log = fence(server)
    assert report["phase"] == PROVEN
    assert report["stopped"] == 1 and report["denied"] == 0
    # Every child of the postmaster at once; what lost its parent by that was found by the life file.
    assert report["signalled"] >= 20
    nothing_left(server, before)
    assert "nothing of PostgreSQL is left" in log


def test_fence_finds_what_lost_its_parent(server):
    """setsid and double fork leave the tree before the fence comes: the life file finds them."""
    busy(server, 4)
    shell = [p for p in util.processes_with("sleep 7101 & setsid sleep 7102")
             if p in server.backends()]
    assert shell
    for p in shell:
        os.kill(p, signal.SIGKILL)
    lost = set(sleeps(7102))
    util.wait_until(lambda: lost - server.backends(), 10, "a child without its parent")
    before = server.backends() | {server.proc.pid} | lost
    report, _ = fence(server)
    assert report["phase"] == PROVEN
    nothing_left(server, before)


def test_sweep_after_the_postmaster_died(server):
    """A backend that never looks outlives its postmaster: here it is stopped, which is the same to it."""
    busy(server, 4)
    before = server.backends()
    victims = [p for p in before if util.pid_state(p) not in ("Z", None)]
    for p in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(p, signal.SIGSTOP)
    server.proc.kill()
    server.proc.wait()
    assert server.locked()
    report, _ = fence(server, "--sweep")
    assert report["phase"] == PROVEN and report["signalled"] > 0
    nothing_left(server, before)


def test_sweep_after_an_orderly_stop(server):
    server.pg.sql("alter system set archive_command = 'true'")
    server.pg.sql("select pg_reload_conf()")
    server.proc.send_signal(signal.SIGINT)
    server.proc.wait(20)
    util.wait_until(lambda: not server.locked(), 10, "the end of the archiver")
    report, _ = fence(server, "--sweep")
    assert report["phase"] == PROVEN and report["signalled"] == 0 and report["passes"] == 0


def test_stopped_backends_die(server):
    busy(server, 4)
    before = server.backends() | {server.proc.pid}
    for p in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(p, signal.SIGSTOP)
    report, _ = fence(server)
    assert report["phase"] == PROVEN
    nothing_left(server, before)


def test_others_are_left_alone(server, work):
    """A process of the same user that is no part of PostgreSQL, even one that reads in the same directory."""
    with open(os.path.join(work, "postgres.log")) as f:
        other = subprocess.Popen(["sleep", "30"], stdin=f, **util.as_pg_user())
    try:
        report, _ = fence(server)
        assert report["phase"] == PROVEN
        time.sleep(0.05)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_fence_as_root_without_ptrace(server):
    """The supervisor has CAP_KILL and little else: /proc/<pid>/fd of another user opens by setfsuid and setfsgid."""
    busy(server, 4)
    user = pwd.getpwnam(util.PG_USER)
    shell = [p for p in util.processes_with("sleep 7101 & setsid sleep 7102") if p in server.backends()]
    for p in shell:
        os.kill(p, signal.SIGKILL)
    before = server.backends() | {server.proc.pid} | set(sleeps(7102))
    report, _ = fence(server, "--uid", str(user.pw_uid), "--gid", str(user.pw_gid), user=0,
                      prefix=("setpriv", "--bounding-set", "-all,+kill,+setuid,+setgid", "--inh-caps", "-all"))
    assert report["phase"] == PROVEN
    nothing_left(server, before)
