"""The supervisor where the machine gives it little or much: no processes, no memory, a log that nobody reads, hundreds of
backends, processes that a debugger holds, a hundred thousand orphans."""
import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import subprocess
import time

import pytest

import util
from pace import Pace
from sup import (FENCED, PG_NONE, PG_RUNNING, PRIMARY, Supervisor)

BOUND_MS = 100  # DESIGN 8
LATE_MS = 400   # on a machine that runs other tests as well: the bound itself is measured by make bench
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
F_SETPIPE_SZ = 1031

pytestmark = pytest.mark.alone


@pytest.fixture
def sup(work, postgres):
    s = Supervisor(work, postgres)
    yield s
    s.kill_all()


def lease_that_ends(sup, length_ms, ttl=4000):
    """The last lease of a worker; the moment (time.monotonic) before which the supervisor does not fence; it does as much later as the
    order needed to reach the worker."""
    sup.worker.do("autolease", 0, 0)
    began = time.monotonic()
    ok, why = sup.lease(ttl, length_ms)
    assert ok, why
    return began + (length_ms - 1000) / 1000


def all_dead(pids):
    return not any(util.alive(p) for p in pids)


# ---- many, and held fast ---------------------------------------------------------------------------------------------


def test_500_backends_die_at_the_deadline(work, postgres):
    with open(os.path.join(postgres.data, "postgresql.conf"), "a") as f:
        f.write("max_connections = 520\n")
    s = Supervisor(work, postgres)
    load = None
    try:
        s.start()
        pid = s.start_pg(ttl=30000)
        with open(os.path.join(work, "q.sql"), "w") as f:
            f.write("select pg_sleep(100);\n")
        load = subprocess.Popen([util.pg_bin("pgbench"), "-h", postgres.base, "-p", str(postgres.port), "-U", util.PG_USER,
                                 "-n", "-c", "500", "-T", "300", "-f", os.path.join(work, "q.sql"), "postgres"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        util.wait_until(lambda: len(util.descendants(pid)) > 500, 40, "500 backends")
        everything = util.descendants(pid) | {pid}
        with Pace() as pace:
            deadline = lease_that_ends(s, 3000)
            time.sleep(max(0, deadline - time.monotonic() - 0.2))
            lives, at = util.alive(pid), time.monotonic()
            assert lives or at > deadline
            # Seen from here: when the last one is dead, its pages and descriptors given back.
            util.wait_until(lambda: all_dead(everything), 8, "all of them are dead")
            s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
            took = [line for line in s.proc.text().splitlines() if "fence: the lease is spent" in line]
            pending_ms = int(took[0].split("backends_us=")[1].split()[0]) / 1000
            assert pending_ms < LATE_MS + 1000 * pace.lost(deadline), took[0]
    finally:
        if load is not None:
            load.kill()
            load.wait()
        s.kill_all()


@contextlib.contextmanager
def debugger(pids):
    """Holds the processes by ptrace, and never waits for one: an end of theirs is not seen by their parent either, until
    the debugger goes away."""
    libc = ctypes.CDLL(None, use_errno=True)
    rd, wr = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(rd)
        # One that ended meanwhile (the startup process does) needs no debugger.
        good = all((libc.ptrace(PTRACE_SEIZE, p, 0, 0) == 0 and libc.ptrace(PTRACE_INTERRUPT, p, 0, 0) == 0)
                   or ctypes.get_errno() == errno.ESRCH for p in pids)
        os.write(wr, b"1" if good else b"0")
        signal.pause()
        os._exit(0)
    os.close(wr)
    try:
        assert os.read(rd, 1) == b"1", "ptrace is not allowed here"
        yield
    finally:
        os.close(rd)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("whom", ["backends", "postmaster"])
def test_processes_held_by_a_debugger_die(sup, whom):
    sup.start()
    pid = sup.start_pg(ttl=20000)
    backends = util.descendants(pid)
    held = backends if whom == "backends" else {pid}
    with debugger(held):
        util.wait_until(lambda: all(util.pid_state(p) in ("t", "Z", None) for p in held), 5, "they are held")
        assert any(util.pid_state(p) == "t" for p in held)
        with Pace() as pace:
            deadline = lease_that_ends(sup, 2500)
            util.wait_until(lambda: all_dead(backends | {pid}), 6, "the fence kills what a debugger holds")
            assert time.monotonic() > deadline - 0.1 and pace.took(deadline) < 2
        # The life file was closed at their end, seen or not: the proof does not wait for the debugger.
        if whom == "backends":
            sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
    # Its end is reaped now; the next one starts.
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
    assert util.alive(sup.start_pg())


def test_stopped_backends_and_archiver_with_grandchildren_die_at_the_deadline(work, postgres):
    mark = os.path.join(work, "archive")
    with open(os.path.join(postgres.data, "postgresql.conf"), "a") as f:
        f.write(f"archive_mode = on\narchive_command = 'sh -c \"sleep 7111; : {mark}\" & sleep 7112; : {mark}'\n")
    s = Supervisor(work, postgres)
    try:
        s.start()
        pid = s.start_pg(ttl=20000)
        postgres.sql("create table t as select 1")
        postgres.sql("select pg_switch_wal()")
        util.wait_until(lambda: len(util.processes_with(mark)) >= 2, 15, "archive_command runs")
        everything = util.descendants(pid) | {pid} | set(util.processes_with(mark))
        for p in everything - {pid}:
            with contextlib.suppress(ProcessLookupError):  # the backend of a statement that has just ended
                os.kill(p, signal.SIGSTOP)
        lease_that_ends(s, 2500)
        util.wait_until(lambda: all_dead(everything), 6, "the fence kills stopped processes and grandchildren")
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
        assert not util.processes_with(mark)
    finally:
        s.kill_all()
        for p in util.processes_with(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, signal.SIGKILL)


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_log_pipe_that_nobody_reads(work, postgres):
    """A log reader that hangs must not hang the supervisor: lines are lost and counted, the fence comes in time."""
    s = Supervisor(work, postgres)
    path = os.path.join(work, "supervisor.log")
    os.mkfifo(path)
    util.give_to_pg_user(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, F_SETPIPE_SZ, 4096)
    try:
        s.start()
        pid = s.start_pg(ttl=20000)
        for _ in range(80):  # each refusal is a line
            s.worker.answer(s.worker.do("promote"))
        everything = util.descendants(pid) | {pid}
        with Pace() as pace:
            deadline = lease_that_ends(s, 2500)
            util.wait_until(lambda: all_dead(everything), 6, "the fence does not wait for the log")
            assert pace.took(deadline) < 1
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
        text = b""
        for _ in range(10):
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 1 << 16)
            s.worker.answer(s.worker.do("promote"))
        assert b"log lines lost=" in text
        s.worker.done(0, 0)
        assert s.proc.wait() == 0
    finally:
        s.kill_all()
        os.close(reader)
        os.unlink(path)


# ---- nothing to be had -----------------------------------------------------------------------------------------------


def test_fork_refused(sup):
    """The node has no process left for us: what cannot be started is tried again, PostgreSQL runs on, and is fenced by the
    deadline like any other when no worker comes back."""
    sup.start()
    pid = sup.start_pg(ttl=15000)
    st = sup.wait_status(deadman_acked=1)
    limits = resource.prlimit(st["pid"], resource.RLIMIT_NPROC)
    resource.prlimit(st["pid"], resource.RLIMIT_NPROC, (0, limits[1]))
    n = len(sup.worker.seen)
    os.kill(st["worker"], signal.SIGKILL)
    os.kill(st["deadman"], signal.SIGKILL)
    sup.worker.close()
    util.wait_until(lambda: "worker not started: fork" in sup.proc.text() and "dead-man not started: fork" in sup.proc.text(),
                    8, "fork is refused")
    assert util.alive(pid)
    resource.prlimit(st["pid"], resource.RLIMIT_NPROC, limits)
    sup.worker.wait("WELCOME incarnation=[2-9]", 8, since=n)
    assert sup.lease(15000)[0]
    assert sup.wait_status(deadman_acked=1)["pg_pid"] == pid
    # And without a worker at all the lease ends as it must.
    sup.worker.do("autolease", 0, 0)
    deadline = lease_that_ends(sup, 3000)
    resource.prlimit(st["pid"], resource.RLIMIT_NPROC, (0, limits[1]))
    os.kill(sup.status()["worker"], signal.SIGKILL)
    sup.worker.close()
    util.wait_until(lambda: not util.alive(pid), 6, "fenced at the deadline")
    assert time.monotonic() > deadline - 0.3
    resource.prlimit(st["pid"], resource.RLIMIT_NPROC, limits)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10, since=n)


def test_postmaster_that_cannot_be_forked(sup):
    sup.start()
    st = sup.wait_status(deadman_acked=1)
    assert sup.lease(15000)[0]
    limits = resource.prlimit(st["pid"], resource.RLIMIT_NPROC)
    resource.prlimit(st["pid"], resource.RLIMIT_NPROC, (0, limits[1]))
    code, text = sup.worker.answer(sup.worker.do("start", PRIMARY, 4000, 0o77, *sup.pg.argv()))
    assert code == 2 and "fork" in text
    resource.prlimit(st["pid"], resource.RLIMIT_NPROC, limits)
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 10)
    assert util.alive(sup.start_pg())


def test_memory_refused(sup):
    """No address space: children that cannot begin are started again, the loop needs none itself."""
    sup.start()
    pid = sup.start_pg(ttl=15000)
    st = sup.wait_status(deadman_acked=1)
    limits = resource.prlimit(st["pid"], resource.RLIMIT_AS)
    resource.prlimit(st["pid"], resource.RLIMIT_AS, (1 << 20, limits[1]))
    os.kill(st["files"], signal.SIGKILL)
    util.wait_until(lambda: sup.status()["files_restarts"] >= 3, 12, "files cannot begin, again and again")
    assert sup.lease(15000)[0] and util.alive(pid)
    resource.prlimit(st["pid"], resource.RLIMIT_AS, limits)
    files = util.wait_until(lambda: sup.status()["files"], 10)
    assert files != st["files"]
    resource.prlimit(st["pid"], resource.RLIMIT_AS, (1 << 20, limits[1]))
    everything = util.descendants(pid) | {pid}
    lease_that_ends(sup, 2500)
    util.wait_until(lambda: all_dead(everything), 6, "fenced at the deadline without memory")
    resource.prlimit(st["pid"], resource.RLIMIT_AS, limits)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)


# ---- a hundred thousand orphans --------------------------------------------------------------------------------------


def test_100000_orphans_are_reaped(sup):
    """A burst of dead processes is ours to reap: the loop goes on renewing, answering, and fences in time meanwhile."""
    sup.start()
    pid = sup.start_pg(ttl=12000)
    mid = sup.worker.do("job", "orphans", 0, 100, 0, util.program("tests/integration/orphans"), "100000", "1000")
    worst_ms, ended = 0, None
    with Pace() as pace:
        begin = time.monotonic()
        while ended is None:
            asked = time.monotonic()
            ok, why = sup.lease(12000)
            assert ok, why
            worst_ms = max(worst_ms, pace.took(asked) * 1000)
            ended = next((m for m in sup.worker.poll() if m.startswith(f"JOB_EVENT job={mid} ") and "running=0" in m), None)
            assert time.monotonic() - begin < 240, "the job does not end"
            time.sleep(0.05)
    assert "exit_class=1 exit_code=0" in ended, ended
    assert worst_ms < 2000, f"an answer took {worst_ms:.0f} ms"
    util.wait_until(lambda: not [p for p in util.descendants(sup.proc.pid) if util.pid_state(p) == "Z"], 10, "all reaped")
    st = sup.status()
    assert st["pg_pid"] == pid and st["pg_state"] == PG_RUNNING and st["fences"] == 0
