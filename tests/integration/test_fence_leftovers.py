"""What is left of a postmaster that died before anybody could fence it: a backend that goes on without its postmaster.
A stopped one stands here for the one whose client never waits: neither notices that the postmaster has died."""
import contextlib
import os
import re
import signal
import subprocess

import pytest

import util
from sup import FAST, PG_NONE, PG_RUNNING, Supervisor

pytestmark = pytest.mark.alone


@pytest.fixture
def sup(work, postgres):
    s = Supervisor(work, postgres)
    yield s
    s.kill_all()


@contextlib.contextmanager
def stopped_backend(sup, postmaster):
    """A client's backend, stopped: it lives on when its postmaster dies, and its client believes in it."""
    client = subprocess.Popen([util.pg_bin("psql"), "-X", "-h", sup.pg.base, "-p", str(sup.pg.port), "-U", util.PG_USER,
                               "-c", "select pg_sleep(7205)", "postgres"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def backend():
        for p in util.descendants(postmaster):
            with contextlib.suppress(OSError), open(f"/proc/{p}/cmdline", "rb") as f:
                if re.search(rb"\bSELECT\b", f.read()):
                    return p
        return None
    try:
        pid = util.wait_until(backend, 10, "the client's backend")
        util.freeze(pid)
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        client.kill()
        client.wait()


def forget_socket_lock(sup):
    """PID 1 of a test machine may not reap: then PostgreSQL takes its predecessor for alive and refuses the socket."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(sup.pg.base, f".s.PGSQL.{sup.pg.port}.lock"))


def kill_all_of_ours(st):
    """All enforcers and all who would notice their end, at one moment: stopped first, so that none acts."""
    pids = [st[k] for k in ("worker", "files", "api", "deadman", "pid")]
    for sig in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, sig)
    for pid in pids:
        util.wait_until(lambda p=pid: not util.alive(p), 5, "all of ours are dead")


def test_backend_of_a_postmaster_that_died_with_all_of_ours(sup):
    sup.start()
    pid = sup.start_pg(ttl=20000)
    st = sup.wait_status(deadman_acked=1)
    with stopped_backend(sup, pid) as backend:
        kill_all_of_ours(st)
        sup.proc.wait()
        util.wait_until(lambda: not util.alive(pid), 5, "the kernel kills the postmaster")
        assert util.alive(backend)
        sup.worker.close()
        sup.worker.seen.clear()  # the next worker counts its requests from 1 again
        sup.start(wait=False)
        # The new supervisor inherits nothing and knows nothing of it; that there is no postmaster is said after the sweep.
        sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE}", 10)
        util.wait_until(lambda: not util.alive(backend), 10, "the backend is killed")
    forget_socket_lock(sup)
    assert sup.start_pg(ttl=20000) != pid


def test_no_start_beside_a_backend_of_a_dead_postmaster(sup):
    """The same, with a start that is asked for at once."""
    sup.start()
    pid = sup.start_pg(ttl=20000)
    st = sup.wait_status(deadman_acked=1)
    with stopped_backend(sup, pid) as backend:
        kill_all_of_ours(st)
        sup.proc.wait()
        util.wait_until(lambda: not util.alive(pid), 5, "the kernel kills the postmaster")
        sup.worker.close()
        sup.worker.seen.clear()
        forget_socket_lock(sup)
        sup.start()

        def started():
            ok, why = sup.lease(20000)
            assert ok, why
            code, _ = sup.worker.answer(sup.worker.do("start", 1, 8000, 0o77, *sup.pg.argv()))
            assert code != 0 or util.dead(backend), "started beside a backend that lives"
            return code == 0
        util.wait_until(started, 15, "it is started when nothing is left", every=0.01)
    sup.worker.do("autolease", 20000, 2000)
    sup.pg.wait_up()
    sup.worker.do("stop", FAST, 10000)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE}", 15)


def test_backend_of_an_adopted_postmaster_that_was_killed(sup):
    """One that somebody else started has no life file of ours: what it leaves is known by its working directory."""
    util.run_pg(["pg_ctl", "-D", sup.pg.data, "-w", "-l", os.path.join(sup.work, "pg.log"), "start"])
    pid = sup.pg.pid()
    sup.start()
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING}", 10)
    sup.worker.do("autolease", 20000, 2000)
    assert sup.lease(20000)[0]
    sup.wait_status(deadman_acked=1)
    with stopped_backend(sup, pid) as backend:
        os.kill(pid, signal.SIGKILL)
        sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 10)
        # Known by its working directory, it is gone for the proof as soon as it has given that back: an instant before
        # it is a zombie, but after its memory and its files.
        assert util.dead(backend)


def test_backend_of_an_adopted_postmaster_when_the_supervisor_is_dead(sup):
    """The dead-man alone must find it."""
    util.run_pg(["pg_ctl", "-D", sup.pg.data, "-w", "-l", os.path.join(sup.work, "pg.log"), "start"])
    pid = sup.pg.pid()
    sup.start()
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING}", 10)
    sup.worker.do("autolease", 20000, 2000)
    assert sup.lease(20000)[0]
    sup.wait_status(deadman_acked=1)
    with stopped_backend(sup, pid) as backend:
        os.kill(sup.proc.pid, signal.SIGKILL)
        sup.proc.wait()
        os.kill(pid, signal.SIGKILL)
        util.wait_until(lambda: not util.alive(backend), 8, "the dead-man finds it")


def test_adopted_postmaster_when_both_enforcers_are_dead(sup):
    """No lifeline, no life file: the helpers that are left kill it, and the backend that would not notice."""
    util.run_pg(["pg_ctl", "-D", sup.pg.data, "-w", "-l", os.path.join(sup.work, "pg.log"), "start"])
    pid = sup.pg.pid()
    sup.start()
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING}", 10)
    sup.worker.do("autolease", 20000, 2000)
    assert sup.lease(20000)[0]
    st = sup.wait_status(deadman_acked=1)
    with stopped_backend(sup, pid) as backend:
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for p in (st["deadman"], st["pid"]):
                os.kill(p, sig)
        util.wait_until(lambda: not util.alive(pid) and not util.alive(backend), 8, "both are killed")
