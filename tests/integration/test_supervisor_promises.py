"""Sentences of DESIGN 1 and 2 about the trusted base that no other file tests on real processes; each test has the name of
its sentence."""
import os
import shutil
import signal
import time

import pytest

import util
from sup import FAST, FENCED, PAUSED, PG_NONE, PG_RUNNING, PG_STARTING, PRIMARY, STANDBY, Supervisor, clean_env
from test_fence_leftovers import stopped_backend

pytestmark = pytest.mark.alone
REFUSED, TIMEOUT = 1, 3
PROOF_SHUTDOWN = 3


# ---- before the loop -------------------------------------------------------------------------------------------------


def test_launch_of_the_worker_is_bounded(sup, work):
    """--launch that does not answer: 10 s, then an error that says so, and no process is left."""
    script = os.path.join(sup.libexec, "pgregent-worker")
    os.unlink(script)
    with open(script, "w") as f:
        f.write("#!/bin/sh\nexec sleep 7211\n")
    os.chmod(script, 0o755)
    began = time.monotonic()
    sup.start(wait=False)
    assert sup.proc.wait(30) == 1
    assert 9 < time.monotonic() - began < 25
    assert "--launch: no answer within 10000 ms" in sup.proc.text()
    util.wait_until(lambda: not util.processes_with("sleep 7211"), 5, "it is killed")


@pytest.mark.parametrize("given, expected", [
    ({"RUNTIME_DIRECTORY": "{work}/systemd:{work}/other", "XDG_RUNTIME_DIR": "{work}/xdg"}, "{work}/systemd"),
    ({"XDG_RUNTIME_DIR": "{work}/xdg"}, "{work}/xdg/pgregent"),
    ({}, "/tmp/pgregent-{uid}"),
])
def test_run_time_directory_is_the_first_of_the_list(work, postgres, given, expected):
    """$RUNTIME_DIRECTORY, else /run/pgregent, else $XDG_RUNTIME_DIR/pgregent, else /tmp/pgregent-<uid>, which is our own."""
    if "RUNTIME_DIRECTORY" not in given and (os.geteuid() == 0 or os.path.exists("/run/pgregent")):
        pytest.skip("/run/pgregent can be had here and comes first")
    s = Supervisor(work, postgres, scope="s" + os.path.basename(work))
    for d in ("systemd", "other", "xdg"):
        os.mkdir(os.path.join(work, d))
        util.give_to_pg_user(os.path.join(work, d))
    env = dict(clean_env(), PGREGENT_LIBEXEC=s.libexec, **{k: v.format(work=work) for k, v in given.items()})
    for name in {"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} - set(given):
        env.pop(name, None)
    base = expected.format(work=work, uid=os.geteuid())
    own = os.path.join(base, f"{s.scope}.n1")
    try:
        s.proc = util.Process([s.binary, s.config], os.path.join(work, "supervisor.log"), env=env, **s.who)
        s.procs.append(s.proc)
        s.worker.wait("WELCOME", 15)
        assert os.path.exists(os.path.join(own, "lock"))
        assert f"runtime_dir={own}\n" in s.proc.text()
        if not given:
            assert os.stat(base).st_mode & 0o777 == 0o700 and os.stat(base).st_uid == os.geteuid()
    finally:
        s.kill_all()
        if not base.startswith(work):
            shutil.rmtree(own, ignore_errors=True)


def test_run_time_directory_of_somebody_else_is_refused(sup):
    """Who owns it could put another lock there, or another socket of a dead-man."""
    sup.runtime = "/usr"
    sup.start(wait=False)
    assert sup.proc.wait(15) == 1
    assert "run-time directory: /usr belongs to uid 0, not to us" in sup.proc.text()


# ---- processes -------------------------------------------------------------------------------------------------------


def test_helpers_end_with_their_supervisor_and_postgres_goes_on(sup):
    sup.start()
    pid = sup.start_pg(ttl=20000)
    st = sup.wait_status(deadman_acked=1)
    os.kill(sup.proc.pid, signal.SIGKILL)
    sup.proc.wait()
    for role in ("worker", "api"):
        util.wait_until(lambda r=role: not util.alive(st[r]), 10, f"{role} ends")
    assert util.alive(pid) and util.alive(st["deadman"])


def test_frozen_dead_man_is_replaced_after_three_missed_messages(sup):
    sup.start()
    pid = sup.start_pg(ttl=12000)
    old = sup.wait_status(deadman_acked=1)["deadman"]
    util.freeze(old)
    began = time.monotonic()

    def replaced():
        st = sup.status()
        return st["deadman"] not in (0, old) and st["deadman_acked"]
    util.wait_until(replaced, 10, "another one has acknowledged everything")
    assert time.monotonic() - began > 0.3 and "the dead-man is silent" in sup.proc.text()
    assert not util.alive(old) and util.alive(pid) and sup.status()["fences"] == 0


def test_one_helper_that_sees_both_enforcers_dead_kills_what_is_left(sup):
    """The kernel kills the postmaster; a backend that does not notice is pgregent-files' to find."""
    sup.start()
    pid = sup.start_pg(ttl=20000)
    st = sup.wait_status(deadman_acked=1)
    with stopped_backend(sup, pid) as backend:
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for p in (st["worker"], st["api"], st["deadman"], st["pid"]):
                os.kill(p, sig)
        util.wait_until(lambda: not util.alive(pid), 5, "the kernel kills the postmaster")
        util.wait_until(lambda: not util.alive(backend), 5, "files kills the backend")
    util.wait_until(lambda: not util.alive(st["files"]), 12, "and ends")
    assert "last fence signalled=" in sup.proc.text()


@pytest.mark.parametrize("resumed", [False, True])
def test_enforcers_killed_in_pause_leave_postgres_running(sup, resumed):
    """Outside the promise nobody kills: not the kernel, no helper. The next ENFORCE sets the lifeline again."""
    sup.start()
    pid = sup.start_pg(ttl=30000)
    st = sup.wait_status(deadman_acked=1)
    sup.worker.do("autolease", 0, 0)
    assert sup.lease(30000, policy=PAUSED)[0]
    if resumed:
        assert sup.lease(30000)[0]
    sup.wait_status(deadman_acked=1)
    util.freeze(st["files"])  # the others are enough, and this one's last words can be waited for
    for sig in (signal.SIGSTOP, signal.SIGKILL):
        for p in (st["worker"], st["api"], st["deadman"], st["pid"]):
            os.kill(p, sig)
    if resumed:
        util.wait_until(lambda: not util.alive(pid), 3, "the kernel kills the postmaster")
    os.kill(st["files"], signal.SIGCONT)
    util.wait_until(lambda: not util.alive(st["files"]), 12, "the last helper ends")
    assert util.alive(pid) != resumed and ("is killed" in sup.proc.text()) == resumed
    assert resumed or sup.pg.up()


# ---- the lease and the fence -----------------------------------------------------------------------------------------


def test_thawed_supervisor_does_not_do_yesterdays_work(sup):
    """Orders that waited in its socket while it was frozen, and whose deadline has passed."""
    sup.start()
    sup.wait_status(deadman_acked=1)
    ok, why = sup.lease(60000)
    assert ok, why
    util.freeze(sup.proc.pid)
    mid = sup.worker.do("start", PRIMARY, 1000, 0o77, *sup.pg.argv())
    time.sleep(1.2)  # the deadline itself is what must pass
    sup.proc.signal(signal.SIGCONT)
    code, text = sup.worker.answer(mid)
    assert code in (REFUSED, TIMEOUT), text
    assert not os.path.exists(os.path.join(sup.pg.data, "postmaster.pid")) and sup.status()["pg_state"] == PG_NONE


def test_new_postmaster_waits_until_the_dead_man_has_acknowledged_it(sup):
    """The dead-man is frozen: what is forked waits at the gate, nothing of PostgreSQL is executed, and in time it is refused."""
    sup.start()
    st = sup.wait_status(deadman_acked=1)
    ok, why = sup.lease(60000)
    assert ok, why
    util.freeze(st["deadman"])
    mid = sup.worker.do("start", PRIMARY, 4000, 0o77, *sup.pg.argv())
    waiting = sup.wait_status(pg_state=PG_STARTING)
    with open(f"/proc/{waiting['pg_pid']}/cmdline", "rb") as f:
        assert b"postgres" not in f.read().split(b"\0")[0]
    code, text = sup.worker.answer(mid)
    assert code == TIMEOUT and "the dead-man did not acknowledge" in text
    util.wait_until(lambda: not util.alive(waiting["pg_pid"]), 5, "the child at the gate ends")
    assert not os.path.exists(os.path.join(sup.pg.data, "postmaster.pid"))
    sup.wait_status(20, deadman_acked=1, pg_state=PG_NONE)  # replaced, and nothing is left over
    assert sup.status()["fences"] == 0 and sup.start_pg(ttl=60000)


def test_wall_clock_that_jumps_voids_the_lease(work, postgres):
    """By more than the margin: nothing new rests on the lease, and it ends earlier by the jump."""
    jump = os.path.join(work, "jump")
    s = Supervisor(work, postgres, binary=util.program("tests/integration/wallsup"), env={"PGREGENT_TEST_WALL": jump})
    try:
        s.start()
        pid = s.start_pg(ttl=20000)
        s.wait_status(deadman_acked=1)
        s.worker.do("autolease", 0, 0)
        assert s.lease(20000)[0]
        sent = time.monotonic()
        before = s.status()["lease_until"]
        with open(jump + ".new", "w") as f:
            f.write("13")
        os.rename(jump + ".new", jump)
        st = util.wait_until(lambda: (lambda x: x if x["lease_until"] < before else None)(s.status()), 5, "it is noticed")
        assert before - st["lease_until"] in range(12900, 13100)
        code, text = s.worker.answer(s.worker.do("promote"))
        assert code == REFUSED
        util.wait_until(lambda: not util.alive(pid), 12, "it is fenced at the end of what is left")
        assert 4 < time.monotonic() - sent < 12  # 20 - 13 - 1; without the jump 19
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 5)
        assert "wall clock jumped" in s.proc.text()
    finally:
        s.kill_all()


def test_postmaster_that_has_shut_down_may_finish_archiving_without_the_lease(work, postgres):
    """`shut down` in pg_control after it was told to stop: it can write no more, and is not killed for the lease."""
    with open(os.path.join(postgres.data, "postgresql.conf"), "a") as f:
        f.write(f"archive_mode = on\narchive_command = 'while ! test -e {work}/go; do sleep 0.05; done'\n")
    s = Supervisor(work, postgres)
    try:
        s.start()
        pid = s.start_pg(ttl=4000)
        s.wait_status(deadman_acked=1)
        postgres.sql("create table t (i int)")
        postgres.sql("select pg_switch_wal()")
        code, text = s.worker.answer(s.worker.do("stop", FAST, 60000))
        assert code == 0, text

        def shut_down():
            out = util.run_pg(["pg_controldata", "-D", postgres.data])
            return "shut down\n" in out.stdout
        util.wait_until(shut_down, 10, "pg_control says shut down")
        assert util.alive(pid)
        s.worker.do("proof", PROOF_SHUTDOWN)
        s.worker.do("autolease", 0, 0)
        ok, why = s.lease(4000, 0)  # the key may be given away
        assert ok, why
        time.sleep(4.5)  # longer than any lease that was ever reported
        assert util.alive(pid) and s.status()["fences"] == 0
        open(os.path.join(work, "go"), "w").close()
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class=1", 15)
        assert s.status()["fences"] == 0
    finally:
        s.kill_all()


def test_standby_needs_no_lease_but_its_proofs(sup):
    """Without either it is asked for a proof, stopped after one more ttl/2, and not fenced when it stops in time."""
    sup.pg.standby()
    sup.start()
    assert sup.lease(3000, 0)[0]
    sup.start_pg(kind=STANDBY)
    sup.wait_status(pg_state=PG_RUNNING, deadman_acked=1)
    sup.worker.do("autoproof", 0)
    sup.worker.wait("PROOF_WANTED", 10)
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class=1", 15)
    assert "not proven in recovery for a whole ttl" in sup.proc.text() and sup.status()["fences"] == 0
