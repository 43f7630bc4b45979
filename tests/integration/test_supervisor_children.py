"""What the supervisor gives to its children and owes them: how they begin, how often, who ends with whom, who is reaped; and
that none of it allocates."""
import os
import signal
import sys
import time

import util
from pace import Pace
from sup import (CODE, FAST, FENCED, IMMEDIATE, KILL, PG_NONE, SIGNAL, Supervisor)

# What a careless service script may hand down: blocked and ignored signals, a mask, a descriptor.
HOSTILE = [sys.executable, "-c", """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)) - {32, 33})
for n in (1, 2, 3, 10, 12, 13, 14, 15, 17):
    signal.signal(n, signal.SIG_IGN)
os.umask(0o027)
os.dup2(os.open("/dev/zero", os.O_RDONLY), 50)
os.execv(sys.argv[1], sys.argv[1:])
"""]


def status(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(x.rstrip("\n").split(":\t", 1) for x in f if ":\t" in x)


def descriptors(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    return names


def replace_helper(sup, role, text):
    """The program of this role is this script from now on. Returns what puts the old one back."""
    link = os.path.join(sup.libexec, f"pgregent-{role}")
    target = os.readlink(link)

    def put(script):
        os.unlink(link)
        if script is None:
            os.symlink(target, link)
            return
        with open(link, "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(link, 0o755)
    put(text)
    return lambda: put(None)


# ---- how they begin ----------------------------------------------------------------------------------------------------


def test_children_begin_clean_whatever_the_supervisor_was_started_with(work, postgres):
    s = Supervisor(work, postgres, prefix=HOSTILE)
    try:
        s.start()
        pid = s.start_pg()
        st = s.wait_status(deadman_acked=1)
        assert status(st["pid"])["Umask"] == "0027" and "/dev/zero" in descriptors(st["pid"])
        mid = s.worker.do("job", "facts", 0, 0, 0, "sh", "-c",
                          "grep -E 'SigBlk|SigIgn' /proc/self/status; umask; ls -l /proc/self/fd | wc -l")
        s.worker.wait(rf"JOB_EVENT job={mid} .* running=0")
        s.worker.do("output", mid)
        text = s.worker.wait(rf"JOB_OUTPUT .* job={mid} .*text=(.*)")[1].split("|")
        assert text[:4] == ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0027", "5"], text
        assert status(pid)["Umask"] == "0077"  # as the order said
        for role in ("worker", "api"):  # the test worker, which leaves it as it was
            assert int(status(st[role])["SigBlk"], 16) == 0 and int(status(st[role])["SigIgn"], 16) == 0, role
        for child in (pid, st["worker"], st["files"], st["api"], st["deadman"]):
            assert "/dev/zero" not in descriptors(child)
        # Of ours the postmaster has its output, the lifeline and the life file, nothing else.
        ours = set(descriptors(st["pid"]))
        shared = {d for d in descriptors(pid) if d in ours and not d.startswith(("/dev/null", "anon_inode:", s.proc.log))}
        assert len([d for d in shared if d.startswith("pipe:")]) == 1
        assert {d for d in shared if not d.startswith("pipe:")} == {os.path.join(s.dir, "life")}
        assert not [d for d in descriptors(pid) if "timerfd" in d or "pidfd" in d or d.startswith("/memfd:")]
    finally:
        s.kill_all()


def test_supervisor_has_no_network_and_no_name_service(sup):
    sup.start()
    st = sup.wait_status(deadman_acked=1)
    with open("/proc/net/unix") as f:
        unix = {line.split()[6] for line in f.readlines()[1:]}
    for p in (st["pid"], st["deadman"]):
        sockets = [d[8:-1] for d in descriptors(p) if d.startswith("socket:[")]
        assert sockets and not set(sockets) - unix
        with open(f"/proc/{p}/maps") as f:
            libraries = {os.path.basename(line.split()[-1]) for line in f if ".so" in line}
        known = ("libc.", "libcap.", "ld-linux", "libasan.", "libubsan.", "libm.", "libgcc_s.", "libstdc++.")
        assert not [x for x in libraries if not x.startswith(known)], libraries


# ---- how often ---------------------------------------------------------------------------------------------------------


def test_helper_that_dies_at_once_is_started_with_back_off_for_ever(sup):
    """At once, then after 125, 250, 500 ms, then every second."""
    sup.start()
    old = sup.wait_status(deadman_acked=1)
    restore = replace_helper(sup, "files", "exit 1\n")
    before = old["files_restarts"]
    os.kill(old["files"], signal.SIGKILL)
    with Pace() as pace:
        began = time.monotonic()
        util.wait_until(lambda: sup.status()["files_restarts"] >= before + 7, 20, "seven deaths")
        # 0 + 125 + 250 + 500 + 1000 + 1000
        assert time.monotonic() - began > 2.5 and pace.took(began) < 8
        restore()
        # One of the bad ones may run at this moment.
        at_most, ended = sup.status()["files_restarts"] + 1, time.monotonic()

        def runs_again():
            st = sup.status()
            return st["files"] and st["files_restarts"] <= at_most and os.path.basename(
                os.readlink(f"/proc/{st['files']}/exe")) == "pgregent-files"
        util.wait_until(runs_again, 5, "it runs again")
        assert pace.took(ended) < 3


def test_helper_that_does_not_get_ready_is_killed(sup):
    sup.start()
    st = sup.wait_status(deadman_acked=1)
    restore = replace_helper(sup, "api", "exec sleep 7213\n")
    began = time.monotonic()
    os.kill(st["api"], signal.SIGKILL)
    hung = util.wait_until(lambda: util.processes_with("sleep 7213"), 10, "one that never says a word")
    restore()
    util.wait_until(lambda: not util.processes_with("sleep 7213"), 12, "it is killed")
    assert 1.8 < time.monotonic() - began
    util.wait_until(lambda: f"api killed pid={hung[0]}: not ready in time" in sup.proc.text(), 5, "it is said")
    util.wait_until(lambda: sup.status()["api"] not in (0, hung[0]), 10, "another one runs")


# ---- who ends with whom ------------------------------------------------------------------------------------------------


def test_parent_death_signal_reaches_every_helper(sup):
    """Also one that looks at no socket: stopped here, so that what the kernel has sent it can be seen."""
    sup.start()
    st = sup.wait_status(deadman_acked=1)
    pids = [st[r] for r in ("worker", "files", "api")]
    for p in pids:
        util.freeze(p)
        assert int(status(p)["ShdPnd"], 16) & 1 << signal.SIGTERM - 1 == 0
    sup.proc.signal(signal.SIGKILL)
    sup.proc.wait()
    for p in pids:
        util.wait_until(lambda p=p: int(status(p)["ShdPnd"], 16) & 1 << signal.SIGTERM - 1, 10, "SIGTERM is pending")


def test_new_worker_starts_only_when_the_old_one_is_gone(sup):
    """The old worker is stopped and outlives its supervisor: never two of them."""
    sup.start()
    old = sup.wait_status(deadman_acked=1)["worker"]
    util.freeze(old)
    sup.proc.signal(signal.SIGKILL)
    sup.proc.wait()
    sup.worker.close()
    os.unlink(sup.worker.path)  # the old one listens there, but does not answer
    n = len(sup.worker.seen)
    sup.start(wait=False)
    sup.worker.wait("WELCOME", 10, since=n)
    assert not util.alive(old)
    assert f"worker of an earlier supervisor still runs, killed pid={old}" in sup.proc.text()


def test_orphans_become_children_of_the_supervisor(sup, work):
    """Who is not PID 1 is a subreaper: what a job leaves behind stays below the supervisor, and is reaped by it."""
    sup.start()
    mark = os.path.join(work, "orphan")
    mid = sup.worker.do("job", "orphans", 0, 100, 0, "sh", "-c",
                        f"for i in 1 2 3 4 5; do ( setsid sh -c 'n=0; while ! test -e {mark} && [ $((n += 1)) -lt 300 ]; do sleep 0.05; done' & ) ; "
                        "done")
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=0 exit_class={CODE} exit_code=0")
    orphans = util.wait_until(lambda: (lambda p: p if len(p) == 5 else None)(
        [p for p in util.processes_with(f"test -e {mark} ") if int(status(p)["PPid"]) == sup.proc.pid]), 10,
        "five children of the supervisor that it did not start")
    open(mark, "w").close()
    for p in orphans:
        util.wait_until(lambda p=p: util.pid_state(p) is None, 10, "it is reaped")


# ---- signals and ends --------------------------------------------------------------------------------------------------


def test_signals_of_the_supervisor(sup):
    sup.start()
    for signo in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        sup.proc.signal(signo)
    sup.proc.signal(signal.SIGHUP)
    sup.worker.wait("ORDER kind=1")
    assert sup.lease()[0] and not [m for m in sup.worker.seen if m.startswith("ORDER kind=2")]
    sup.proc.signal(signal.SIGINT)
    sup.worker.wait("ORDER kind=2")
    sup.worker.done(0, 0)
    assert sup.proc.wait() == 0


def test_exit_classes_and_stop_modes(sup):
    sup.start()
    pid = sup.start_pg(ttl=60000)
    os.kill(pid, signal.SIGKILL)
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE} .* exit_class={SIGNAL} exit_code=9")
    for generation, mode, seen, state in (
            (2, FAST, rf"exit_class={CODE} exit_code=0 stop_mode=2", "shut down"),
            (3, IMMEDIATE, rf"exit_class={CODE} exit_code=0 stop_mode=3", "in production"),
            (4, KILL, rf"exit_class={FENCED} .* stop_mode=4", "in production")):
        pid = sup.start_pg(renew=False, ttl=60000)
        code, text = sup.worker.answer(sup.worker.do("stop", mode, 10000))
        assert code == 0, text
        sup.worker.wait(rf"PG_EVENT generation={generation} pid=0 state={PG_NONE} .* {seen}")
        assert not util.alive(pid)
        assert f":               {state}\n" in util.run_pg(["pg_controldata", "-D", sup.pg.data]).stdout


# ---- no allocation in the loop -----------------------------------------------------------------------------------------


def test_loop_does_not_allocate(work, postgres):
    s = Supervisor(work, postgres, binary=util.program("tests/integration/nomalloc"))
    try:
        s.start()
        pid = s.start_pg(ttl=6000)
        mid = s.worker.do("job", "talk", 0, 100, 1, "sh", "-c", "echo hello; seq 1 5000")
        s.worker.wait(rf"JOB_EVENT job={mid} .* running=0")
        s.worker.do("output", mid)
        st = s.wait_status(deadman_acked=1)
        os.kill(st["deadman"], signal.SIGKILL)
        os.kill(st["files"], signal.SIGKILL)
        os.kill(st["worker"], signal.SIGKILL)
        s.worker.close()
        s.worker.wait("WELCOME incarnation=2", 10)
        s.wait_status(deadman_acked=1)
        s.lease(6000, 2000)
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
        assert not util.alive(pid)
        s.proc.signal(signal.SIGHUP)
        s.proc.signal(signal.SIGTERM)
        s.worker.wait("ORDER kind=2")
        s.worker.done(0, 0)
        assert s.proc.wait() == 0
    finally:
        s.kill_all()


def test_dead_man_does_not_allocate(work, postgres):
    """Not when it is started, nor when it hands over, nor in a fence that it makes alone."""
    s = Supervisor(work, postgres)
    link = os.path.join(s.libexec, "pgregent-deadman")
    os.unlink(link)
    os.symlink(util.program("tests/integration/nomalloc_dm"), link)
    try:
        s.start()
        pid = s.start_pg(ttl=20000)
        old = s.wait_status(deadman_acked=1)["deadman"]
        s.proc.signal(signal.SIGKILL)
        s.proc.wait()
        n = len(s.worker.seen)
        s.start(wait=False)
        s.worker.wait("WELCOME .* in_handover=1", 10, since=n)
        util.wait_until(lambda: not util.alive(old), 15, "the old dead-man leaves")
        assert s.lease(4000)[0]
        s.wait_status(deadman_acked=1)
        s.proc.signal(signal.SIGSTOP)
        util.wait_until(lambda: not util.alive(pid), 6, "the dead-man fences")
        s.proc.signal(signal.SIGCONT)
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 8, since=n)
        assert "ALLOCATION" not in s.proc.text()
    finally:
        s.kill_all()


def test_an_allocation_in_the_loop_is_seen(work, postgres):
    s = Supervisor(work, postgres, binary=util.program("tests/integration/nomalloc"),
                   env={"PGREGENT_TEST_ALLOCATE": "1"})
    try:
        s.start(wait=False)
        assert s.proc.wait() == 99
        assert "ALLOCATION IN THE LOOP" in s.proc.text()
    finally:
        s.kill_all()
