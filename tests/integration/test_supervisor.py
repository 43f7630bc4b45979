"""The supervisor on real PostgreSQL, with a test worker that does what the test says."""
import os
import signal
import time

import pytest

import util
from pace import Pace
from sup import (CODE, FAST, FENCED, PAUSED, PG_NONE, PG_RUNNING, PRIMARY, STANDBY, Supervisor)


def test_start_and_orderly_stop(sup):
    sup.start()
    pid = sup.start_pg()
    assert util.alive(pid) and sup.pg.pid() == pid
    assert sup.status()["pg_state"] == PG_RUNNING
    sup.proc.signal(signal.SIGTERM)
    sup.worker.wait("ORDER kind=2")
    sup.proc.signal(signal.SIGTERM)  # a second one changes nothing
    code, text = sup.worker.answer(sup.worker.do("stop", FAST, 10000))
    assert code == 0, text
    sup.worker.wait(f"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={CODE} exit_code=0")
    sup.worker.done(0, 0)
    assert sup.proc.wait() == 0
    assert not util.alive(pid)


def test_fence_at_lease_end(sup):
    sup.start()
    pid = sup.start_pg(ttl=4000)
    backends = util.descendants(pid)
    assert len(backends) > 3
    sup.worker.do("autolease", 0, 0)
    with Pace() as pace:
        sent = time.monotonic()
        ok, why = sup.lease(ttl=4000, length=2500)
        assert ok, why
        sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
        # Margin 1 s before the end of 2.5 s.
        assert time.monotonic() - sent > 1.0 and pace.took(sent) < 2.5
    assert all(util.dead(p) for p in backends | {pid})


# ---- helpers -----------------------------------------------------------------------------------------------


def test_killed_and_stopped_worker_is_replaced(sup):
    sup.start()
    pid = sup.start_pg(ttl=12000)
    first = sup.status()
    os.kill(first["worker"], signal.SIGKILL)
    sup.worker.wait(r"WELCOME incarnation=2", 8)
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING}")
    ok, why = sup.lease(12000)
    assert ok, why
    second = sup.status()["worker"]
    assert second != first["worker"]
    with Pace() as pace:
        stopped = time.monotonic()
        os.kill(second, signal.SIGSTOP)
        sup.worker.close()
        util.wait_until(lambda: not util.alive(second), 6, "the stopped worker is killed")
        assert pace.took(stopped) < 3.0  # ttl / 6 = 2 s
    sup.worker.wait(r"WELCOME incarnation=3", 8)
    ok, why = sup.lease(12000)
    assert ok, why
    st = sup.status()
    assert st["pg_pid"] == pid and st["fences"] == 0 and util.alive(pid)


@pytest.mark.parametrize("role", ["files", "api", "deadman"])
def test_other_helpers_are_replaced(sup, role):
    sup.start()
    old = util.wait_until(lambda: sup.status()[role], 10, f"{role} runs")
    sup.wait_status(deadman_acked=1)
    os.kill(old, signal.SIGSTOP if role == "deadman" else signal.SIGKILL)
    util.wait_until(lambda: sup.status()[role] not in (0, old), 20, f"{role} is replaced")
    assert not util.alive(old)
    sup.wait_status(deadman_acked=1)


def test_bad_message_costs_the_worker_its_life(sup):
    sup.start()
    n = len(sup.worker.seen)
    sup.worker.last("garbage")
    sup.worker.wait("WELCOME incarnation=2", 10, since=n)


def test_crashing_worker_is_started_for_ever(sup):
    sup.start()
    for i in range(2, 6):
        sup.worker.ask("take")
        sup.worker.last("exit", 1)
        sup.worker.wait(f"WELCOME incarnation=[{i}-9]", 10)


def test_secrets_go_to_the_worker_only(work, postgres):
    s = Supervisor(work, postgres, env={"PATRONI_X_PASSWORD": "s3cret", "KUBERNETES_PORT": "s3cret", "PLAIN": "yes",
                                        "NOTIFY_SOCKET": "@pgregent-nobody", "PG_MALLOC_ARENA_MAX": "7"})
    try:
        s.start()
        pid = s.start_pg()
        env = s.worker.env()
        assert env["PATRONI_X_PASSWORD"] == "s3cret" and env["KUBERNETES_PORT"] == "s3cret" and env["PLAIN"] == "yes"
        st = s.wait_status(deadman_acked=1)

        def of(p):
            with open(f"/proc/{p}/environ") as f:
                return f.read()
        for p in (st["files"], st["api"], st["deadman"], pid):
            assert "s3cret" not in of(p) and "PLAIN=yes" in of(p) and "NOTIFY_SOCKET" not in of(p)
        assert "NOTIFY_SOCKET" not in env
        # The postmaster keeps its environment elsewhere for its title; a backend of it shows the same start.
        assert "\0MALLOC_ARENA_MAX=7" in "\0" + of(pid) and "PG_MALLOC" not in of(pid)
        mid = s.worker.do("job", "env", 0, 0, 0, "env")
        s.worker.wait(rf"JOB_EVENT job={mid} .* running=0")
        s.worker.do("output", mid)
        text = s.worker.wait(rf"JOB_OUTPUT .* job={mid} .*text=(.*)")[1]
        assert "PLAIN=yes" in text and "s3cret" not in text and "PGREGENT" not in text
    finally:
        s.kill_all()


# ---- lease and standby ------------------------------------------------------------------------------------------


def test_start_without_lease_is_refused(sup):
    sup.start()
    sup.wait_status(deadman_acked=1)
    code, text = sup.worker.answer(sup.worker.do("start", PRIMARY, 5000, 0o77, *sup.pg.argv()))
    assert code == 1 and "lease" in text
    assert sup.pg.pid() is None


def test_release_waits_for_the_stop(sup):
    sup.start()
    sup.start_pg()
    sup.worker.do("autolease", 0, 0)
    ok, why = sup.lease(10000, 0)
    assert not ok and "stop it first" in why
    code, text = sup.worker.answer(sup.worker.do("stop", FAST, 10000))
    assert code == 0, text
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}")
    ok, why = sup.lease(10000, 0)
    assert ok, why


def test_standby_runs_on_proof_and_promotes_on_a_lease(sup):
    sup.pg.standby()
    sup.start()
    sup.wait_status(deadman_acked=1)
    pid = sup.start_pg(STANDBY)
    assert sup.pg.sql("select pg_is_in_recovery()") == "t"
    code, text = sup.worker.answer(sup.worker.do("promote"))
    assert code == 1 and "lease" in text
    sup.worker.do("autolease", 10000, 1000)
    ok, why = sup.lease(10000)
    assert ok, why
    code, text = sup.worker.answer(sup.worker.do("promote"))
    assert code == 0, text
    path = os.path.join(sup.pg.data, "promote")
    open(path, "w").close()
    code, text = sup.worker.answer(sup.worker.do("signal", int(signal.SIGUSR1), 1))
    assert code == 0, text
    util.wait_until(lambda: sup.pg.sql("select pg_is_in_recovery()") == "f", 10, "promoted")
    assert sup.status()["pg_pid"] == pid and sup.status()["pg_promote_sent"] == 1


def test_unproven_standby_is_stopped(sup):
    sup.pg.standby()
    sup.start()
    ok, why = sup.lease(3000, 0)  # names the ttl: a proof lasts 1.5 s
    assert ok, why
    pid = sup.start_pg(STANDBY)
    sup.worker.do("autoproof", 0)
    sup.worker.wait("PROOF_WANTED", 10)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={CODE} exit_code=0", 15)
    assert not util.alive(pid) and sup.status()["fences"] == 0


def test_stop_gets_harder(sup):
    sup.start()
    sup.start_pg(ttl=20000)
    # A smart stop waits for its clients; one that stays makes it fast after the time-out.
    import subprocess
    psql = subprocess.Popen([util.pg_bin("psql"), "-X", "-h", sup.pg.base, "-p", str(sup.pg.port), "-U", "postgres",
                             "-d", "postgres", "-c", "select pg_sleep(60)"], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    try:
        util.wait_until(lambda: sup.pg.sql("select count(*) from pg_stat_activity where query like '%pg_sleep(60)'"
                                           " and pid <> pg_backend_pid()") == "1", 15)
        code, text = sup.worker.answer(sup.worker.do("stop", 1, 700))
        assert code == 0, text
        sup.worker.wait(r"PG_EVENT .* stop_mode=1")
        sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={CODE} exit_code=0 stop_mode=2", 15)
    finally:
        psql.wait(timeout=10)


# ---- the enforcers -----------------------------------------------------------------------------------------------


def test_frozen_supervisor_deadman_fences(sup):
    sup.start()
    pid = sup.start_pg(ttl=4000)
    sup.wait_status(deadman_acked=1)
    backends = util.descendants(pid)
    ok, _ = sup.lease(4000)
    assert ok
    with Pace() as pace:
        frozen = time.monotonic()
        sup.proc.signal(signal.SIGSTOP)
        util.wait_until(lambda: not any(util.alive(p) for p in backends | {pid}), 6, "the dead-man fences")
        assert pace.took(frozen) < 4.0
    sup.proc.signal(signal.SIGCONT)
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 15)


def test_kernel_kills_when_both_enforcers_die(sup):
    sup.start()
    pid = sup.start_pg(ttl=20000)
    st = sup.wait_status(deadman_acked=1)
    os.kill(sup.proc.pid, signal.SIGSTOP)
    os.kill(st["deadman"], signal.SIGKILL)
    assert util.alive(pid)
    os.kill(sup.proc.pid, signal.SIGKILL)
    util.wait_until(lambda: not util.alive(pid), 1, "the kernel kills the postmaster")


# ---- hand-over -----------------------------------------------------------------------------------------------------


def test_killed_supervisor_is_succeeded(sup):
    sup.start()
    pid = sup.start_pg(ttl=10000)
    born = util.start_time(pid)
    old = sup.wait_status(deadman_acked=1)
    os.kill(sup.proc.pid, signal.SIGKILL)
    sup.proc.wait()
    sup.worker.close()
    n = len(sup.worker.seen)
    sup.start(wait=False)
    sup.worker.wait("WELCOME incarnation=1 adopted=1 in_handover=1", 10, since=n)
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING} kind={PRIMARY} is_child=0", since=n)
    sup.worker.do("autolease", 10000, 1000)
    ok, why = sup.lease()
    assert ok, why
    st = sup.wait_status(deadman_acked=1)
    assert st["lease_until"] > 0 and st["deadman"] != old["deadman"]
    util.wait_until(lambda: not util.alive(old["deadman"]), 15, "the old dead-man leaves")
    assert util.alive(pid) and util.start_time(pid) == born
    # An adopted postmaster is stopped and fenced like a child; its exit status is not known.
    code, text = sup.worker.answer(sup.worker.do("stop", FAST, 10000))
    assert code == 0, text
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE} .* exit_class=3", 10, since=n)
    # And the next generation is a child again.
    assert sup.start_pg(renew=False) != pid


def test_lease_ends_after_the_supervisor(sup):
    sup.start()
    pid = sup.start_pg(ttl=4000)
    sup.wait_status(deadman_acked=1)
    with Pace() as pace:
        gone = time.monotonic()
        os.kill(sup.proc.pid, signal.SIGKILL)
        util.wait_until(lambda: not util.alive(pid), 6, "the dead-man fences at the end of the lease")
        assert pace.took(gone) < 4.0


def test_second_supervisor_is_refused(sup, work):
    sup.start()
    second = util.Process(sup.proc.argv, os.path.join(work, "second.log"), env=sup.env, **sup.who)
    assert second.wait(15) == 1
    assert "another pgregent supervisor runs" in second.text()
    assert "Can't start; there is already a node named " in second.text()
    other = os.path.join(work, "other-run")
    os.mkdir(other)
    util.give_to_pg_user(other)
    argv = [other if a == sup.runtime else a for a in sup.proc.argv]
    third = util.Process(argv, os.path.join(work, "third.log"), env=sup.env, **sup.who)
    assert third.wait(15) == 1
    assert f"it holds {sup.pg.data}" in third.text()


def test_foreign_postmaster_is_adopted_and_must_prove_itself(sup):
    util.run_pg(["pg_ctl", "-D", sup.pg.data, "-w", "-l", os.path.join(sup.work, "pg.log"), "start"])
    pid = sup.pg.pid()
    sup.start()
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING} kind=0 is_child=0", 10)
    code, text = sup.worker.answer(sup.worker.do("start", STANDBY, 3000, 0o77, *sup.pg.argv()))
    assert code == 1
    ok, why = sup.lease(20000)
    assert ok, why
    time.sleep(6)  # longer than the grace of an adopted one
    assert util.alive(pid)
    sup.worker.do("stop", FAST, 10000)
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 15)
    # Without lease, proof or pause it is fenced after the grace.
    assert sup.lease(20000, 0)[0]
    util.run_pg(["pg_ctl", "-D", sup.pg.data, "-w", "-l", os.path.join(sup.work, "pg.log"), "start"])
    pid = sup.pg.pid()
    util.wait_until(lambda: not util.alive(pid), 20, "an adopted postmaster without a lease is fenced")


def test_stale_pid_file_is_removed(sup):
    # The pid of a live process that is no postmaster: PostgreSQL itself would refuse to start.
    with open(os.path.join(sup.pg.data, "postmaster.pid"), "w") as f:
        f.write(f"{os.getpid()}\n{sup.pg.data}\n{int(time.time())}\n{sup.pg.port}\n{sup.pg.base}\n\n  1 2\n")
    sup.start()
    # Before any start: what else runs on the directory would take that process for a postmaster.
    util.wait_until(lambda: not os.path.exists(os.path.join(sup.pg.data, "postmaster.pid")), 5, "it is removed at once")
    assert util.alive(sup.start_pg())


def test_pause_leaves_postgres_running(sup):
    sup.start()
    pid = sup.start_pg()
    sup.worker.do("autolease", 0, 0)
    ok, why = sup.lease(policy=PAUSED)
    assert ok, why
    sup.proc.signal(signal.SIGTERM)
    sup.worker.wait("ORDER kind=2")
    sup.worker.done(1, 0)
    assert sup.proc.wait() == 0
    assert util.alive(pid) and sup.pg.up()
    assert "PostgreSQL is killed" not in sup.proc.text()
    util.wait_until(lambda: not util.processes_with(sup.libexec), 5, "nothing of ours is left")
    sup.worker.close()
    n = len(sup.worker.seen)
    sup.start(wait=False)
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING} kind=0", 10, since=n)


def test_standby_may_be_left_running(sup):
    """Not in pause: the lifeline must not fire when the last enforcer leaves in good order. A primary is not left."""
    sup.pg.standby()
    sup.start()
    sup.wait_status(deadman_acked=1)
    pid = sup.start_pg(STANDBY)
    sup.worker.done(1, 1)
    assert sup.proc.wait() == 1
    time.sleep(0.3)
    assert util.alive(pid) and sup.pg.up()


def test_primary_is_not_left_running(sup):
    sup.start()
    pid = sup.start_pg()
    sup.worker.done(1, 0)
    assert sup.proc.wait() == 0
    assert not util.alive(pid) and sup.pg.pid() is None


def test_reload_signal_reaches_postgres(sup):
    sup.start()
    sup.start_pg()
    with open(os.path.join(sup.pg.data, "postgresql.conf"), "a") as f:
        f.write("work_mem = '5MB'\n")
    code, text = sup.worker.answer(sup.worker.do("signal", int(signal.SIGHUP), 0))
    assert code == 0, text
    util.wait_until(lambda: sup.pg.sql("show work_mem") == "5MB", 15, "the setting is in force")


def test_unproven_single_user_server(sup):
    """A process that could be a single-user server of our directory is neither adopted nor removed."""
    import subprocess
    p = subprocess.Popen([util.pg_bin("postgres"), "--single", "-D", sup.pg.data, "postgres"], stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        util.wait_until(lambda: sup.pg.pid() == -p.pid, 10, "postmaster.pid of the single-user server")
        sup.start()
        sup.worker.wait(rf"PG_EVENT generation=0 pid=0 state={PG_NONE} .* unproven=1 text=.*single-user", 10)
        assert sup.lease(10000)[0]
        code, text = sup.worker.answer(sup.worker.do("start", PRIMARY, 5000, 0o77, *sup.pg.argv()))
        assert code == 1 and "single-user" in text
        assert p.poll() is None
    finally:
        p.stdin.close()
        p.wait(timeout=20)
    util.wait_until(lambda: "unproven=0" in [m for m in sup.worker.poll() if m.startswith("PG_EVENT")][-1], 20)
    assert util.alive(sup.start_pg())


# ---- ending ----------------------------------------------------------------------------------------------------------


def test_shutdown_without_a_worker(sup):
    """The worker dies again and again: PostgreSQL is stopped fast by the supervisor itself."""
    sup.start()
    pid = sup.start_pg(ttl=60000)
    os.unlink(os.path.join(sup.libexec, "pgregent-worker"))
    os.kill(sup.status()["worker"], signal.SIGKILL)
    sup.proc.signal(signal.SIGTERM)
    assert sup.proc.wait(20) == 0
    assert not util.alive(pid) and sup.pg.pid() is None
    assert "database system is shut down" in sup.proc.text() or "shut down" in util.run_pg(
        ["pg_controldata", sup.pg.data]).stdout


def test_fatal_worker_sets_the_exit_status(sup):
    sup.start()
    sup.worker.done(0, 3)
    assert sup.proc.wait(10) == 3


def test_notify(work, postgres):
    import socket
    path = os.path.join(work, "notify")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    sock.settimeout(10)
    extend = b"EXTEND_TIMEOUT_USEC=30000000"

    def next_word():
        """A start that takes long asks for more time every five seconds."""
        while (word := sock.recv(300)) == extend:
            pass
        return word
    s = Supervisor(work, postgres, env={"NOTIFY_SOCKET": path})
    try:
        s.start()
        assert sock.recv(300) == extend
        s.worker.do("notify", "READY=1")
        assert next_word() == b"READY=1"
        s.worker.do("notify", "RELOADING=1")
        assert sock.recv(300).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        s.proc.signal(signal.SIGHUP)
        s.worker.wait("ORDER kind=1")
        s.proc.signal(signal.SIGUSR1)  # ignored
        s.proc.signal(signal.SIGTERM)
        assert sock.recv(300) == b"STOPPING=1"
        s.worker.wait("ORDER kind=2")
        s.worker.done(0, 0)
        assert s.proc.wait() == 0
    finally:
        s.kill_all()
        sock.close()


# ---- upgrade -----------------------------------------------------------------------------------------------------------


def test_upgrade_in_place(sup, work):
    sup.start()
    pid = sup.start_pg(ttl=20000)
    old = sup.wait_status(deadman_acked=1)
    code, text = sup.worker.answer(sup.worker.do("upgrade", "/bin/true"))
    assert code == 1 and "not a pgregent" in text
    copy = os.path.join(work, "pgregent-new")
    import shutil
    shutil.copy(sup.binary, copy)
    n = len(sup.worker.seen)
    sup.worker.do("upgrade", copy)
    sup.worker.wait("WELCOME .* adopted=0 in_handover=1", 10, since=n)
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING} kind=1 is_child=1", since=n)
    assert os.readlink(f"/proc/{sup.proc.pid}/exe") == copy
    ok, why = sup.lease(20000)
    assert ok, why
    st = sup.wait_status(deadman_acked=1)
    assert st["pid"] == sup.proc.pid == old["pid"] and st["deadman"] != old["deadman"]
    util.wait_until(lambda: not util.alive(old["deadman"]), 15, "the old dead-man leaves")
    assert sup.pg.up() and util.alive(pid)
    # Still our child: its status is known.
    sup.worker.do("stop", FAST, 10000)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={CODE} exit_code=0", 10, since=n)


@pytest.mark.parametrize("how", ["hang", "crash", "fail"])
def test_upgrade_that_does_not_come_up_is_rolled_back(work, postgres, how):
    """A program that passes the check and then hangs (for 5 s), dies of a fault or gives up: the old one runs again,
    PostgreSQL never noticed."""
    s = Supervisor(work, postgres, env={"PGREGENT_TEST_UPGRADE": how})
    try:
        s.start()
        pid = s.start_pg(ttl=30000)
        s.wait_status(deadman_acked=1)
        hangs = util.program("tests/integration/hangsup")
        n = len(s.worker.seen)
        with Pace() as pace:
            began = time.monotonic()
            s.worker.do("upgrade", hangs)
            util.wait_until(lambda: "back to the old one" in s.proc.text(), 20, "it goes back")
            assert time.monotonic() - began > 4.5 if how == "hang" else pace.took(began) < 4.5
        util.wait_until(lambda: os.readlink(f"/proc/{s.proc.pid}/exe") == os.path.realpath(s.binary), 15,
                        "the old program runs again")
        s.worker.close()
        s.worker.wait("WELCOME .* adopted=0 in_handover=1", 10, since=n)
        ok, why = s.lease(30000)
        assert ok, why
        s.wait_status(deadman_acked=1)
        assert util.alive(pid) and s.pg.up() and s.status()["fences"] == 0
    finally:
        s.kill_all()


# ---- watchdog --------------------------------------------------------------------------------------------------------------


def test_watchdog_testing_driver(sup, work):
    fifo = os.path.join(work, "wd")
    os.mkfifo(fifo)
    rd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    sup.start()
    code, text = sup.worker.answer(sup.worker.do("watchdog", 2, 2, 4000, fifo))
    assert code == 0, text
    sup.start_pg(ttl=10000)
    sup.wait_status(wd_armed=1, pg_state=PG_RUNNING)
    got = b""

    def fed():
        nonlocal got
        try:
            got += os.read(rd, 4096)
        except BlockingIOError:
            pass
        return got.count(b"1") >= 3
    util.wait_until(fed, 15, "keepalives arrive")
    n = len(sup.worker.poll())
    sup.worker.do("stop", FAST, 10000)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE}", 10, since=n)
    sup.worker.do("autolease", 0, 0)
    ok, why = sup.lease(10000, 0)
    assert ok, why
    sup.wait_status(wd_armed=0)
    os.close(rd)


# ---- command line ----------------------------------------------------------------------------------------------------------


def test_other_options_go_to_the_worker(sup, work):
    import subprocess
    worker = os.path.join(sup.libexec, "pgregent-worker")
    os.unlink(worker)
    with open(worker, "w") as f:
        f.write("#!/bin/sh\necho \"worker $*\"\nexit 4\n")
    os.chmod(worker, 0o755)
    for args in (["--validate-config", "-i", "x.yml"], ["--version"], ["-h"], ["--generate-sample-config"],
                 ["--unknown"], ["one.yml", "two.yml"]):
        r = subprocess.run([sup.binary] + args, env=sup.env, capture_output=True, text=True, timeout=10)
        assert r.returncode == 4 and r.stdout == "worker " + " ".join(args) + "\n"
    r = subprocess.run([sup.binary, "--user"], env=sup.env, capture_output=True, text=True, timeout=10)
    assert r.returncode == 2 and "--user needs a value" in r.stderr
    # A configuration that the worker refuses ends the start with its status, before anything is touched.
    sup.start(wait=False)
    assert sup.proc.wait() == 4
    assert os.listdir(sup.runtime) == []
