"""The supervisor when things happen at once: two of them started, killed during the hand-over, signals at bad moments,
postmasters that are not ours."""
import os
import shutil
import signal
import subprocess
import time

import pytest

import util
from pace import Pace, undisturbed
from sup import (FAST, FENCED, PG_NONE, PG_RUNNING, PRIMARY, STANDBY, Supervisor)


@pytest.fixture
def sup(work, postgres):
    s = Supervisor(work, postgres)
    yield s
    s.kill_all()


def second_node(work, pg, name):
    """Another supervisor for the same data directory, with a run-time directory of its own."""
    path = os.path.join(work, name)
    os.mkdir(path)
    util.give_to_pg_user(path)
    return Supervisor(path, pg)


def pg_ctl_start(pg, work):
    util.run_pg(["pg_ctl", "-D", pg.data, "-w", "-l", os.path.join(work, "pg.log"), "start"])
    return pg.pid()


# ---- one supervisor for a data directory ---------------------------------------------------------------------------


def test_two_supervisors_at_once(work, postgres):
    both = [second_node(work, postgres, n) for n in ("a", "b")]
    try:
        for s in both:
            s.start(wait=False)
        gone = util.wait_until(lambda: [s for s in both if s.proc.proc.poll() is not None], 15, "one of them gives up")
        assert len(gone) == 1 and gone[0].proc.wait() == 1
        assert f"it holds {postgres.data}" in gone[0].proc.text()
        stays = both[0] if gone[0] is both[1] else both[1]
        assert util.alive(stays.start_pg())
    finally:
        for s in both:
            s.kill_all()


def test_two_supervisors_before_there_is_a_data_directory(work, postgres):
    """Neither can lock what does not exist; whoever starts PostgreSQL in it first has it, the other one neither starts
    nor adopts anything there."""
    kept = postgres.data + ".kept"
    os.rename(postgres.data, kept)
    first, second = [second_node(work, postgres, n) for n in ("a", "b")]
    try:
        for s in (first, second):
            s.start()
            s.worker.wait(rf"PG_EVENT generation=0 pid=0 state={PG_NONE} .* unproven=0", 10)
        os.rename(kept, postgres.data)
        pid = first.start_pg()
        assert "data directory locked" in first.proc.text()
        second.worker.wait(r"PG_EVENT generation=0 pid=0 .* unproven=1 text=another pgregent supervisor holds", 15)
        assert second.lease()[0]
        code, text = second.worker.answer(second.worker.do("start", PRIMARY, 4000, 0o77, *postgres.argv()))
        assert code == 1 and "another pgregent supervisor holds" in text
        assert util.alive(pid) and second.status()["pg_pid"] == 0
        # When the first one leaves in good order, the second gets it.
        first.worker.do("stop", FAST, 10000)
        first.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}")
        first.worker.done(0, 0)
        assert first.proc.wait() == 0
        util.wait_until(lambda: "unproven=0" in [m for m in second.worker.poll() if m.startswith("PG_EVENT")][-1], 20)
        assert util.alive(second.start_pg())
    finally:
        for s in (first, second):
            s.kill_all()


def test_lock_follows_a_directory_that_is_made_anew(work, postgres):
    first = second_node(work, postgres, "a")
    second = second_node(work, postgres, "b")
    try:
        first.start()
        first.worker.wait(rf"PG_EVENT generation=0 pid=0 state={PG_NONE}", 10)
        # As a failed bootstrap does it: the old directory is moved away, a new one takes its name.
        shutil.copytree(postgres.data, postgres.data + ".new", symlinks=True)
        os.chmod(postgres.data + ".new", 0o700)
        os.rename(postgres.data, postgres.data + ".failed")
        os.rename(postgres.data + ".new", postgres.data)
        first.start_pg()
        second.start(wait=False)
        assert second.proc.wait(15) == 1
        assert f"it holds {postgres.data}" in second.proc.text()
    finally:
        for s in (first, second):
            s.kill_all()


# ---- the hand-over, cut at every point -------------------------------------------------------------------------------


def test_supervisor_killed_at_every_point_of_the_hand_over(sup):
    sup.start()
    pid = sup.start_pg(ttl=60000)
    born = util.start_time(pid)
    sup.wait_status(deadman_acked=1)
    sup.worker.close()
    for after_ms in list(range(0, 120, 4)) + [150, 200, 300]:
        sup.proc.signal(signal.SIGKILL)
        sup.proc.wait()
        sup.start(wait=False)
        time.sleep(after_ms / 1000)
        assert util.alive(pid), f"PostgreSQL died when a new supervisor was killed after {after_ms} ms"
    n = len(sup.worker.seen)
    sup.worker.wait("WELCOME .* in_handover=1", 10, since=n)
    sup.worker.do("autolease", 60000, 1000)
    assert sup.lease(60000)[0]
    st = sup.wait_status(deadman_acked=1)
    assert st["pg_pid"] == pid and util.start_time(pid) == born and sup.pg.up()
    assert "FENCE" not in sup.proc.text() and "is killed" not in sup.proc.text()

    def one_of_each():
        return all(len(util.processes_with(os.path.join(sup.libexec, "pgregent-" + r))) == 1
                   for r in ("worker", "files", "deadman"))
    util.wait_until(one_of_each, 15, "one of each process is left")


def test_old_dead_man_while_no_new_one_comes_up(sup):
    """Supervisors come and die, and never get a dead-man of their own: the first one's enforces, so nobody fences; and it
    is watched all the time, so that PostgreSQL does not outlive it."""
    sup.start()
    pid = sup.start_pg(ttl=60000)
    first = sup.wait_status(deadman_acked=1)["deadman"]
    link = os.path.join(sup.libexec, "pgregent-deadman")
    os.unlink(link)
    os.symlink("/bin/false", link)
    for _ in range(3):
        sup.proc.signal(signal.SIGKILL)
        sup.proc.wait()
        n = len(sup.worker.seen)
        sup.start(wait=False)
        sup.worker.wait("WELCOME .* in_handover=1", 10, since=n)
        assert util.alive(pid) and util.alive(first)
    sup.proc.signal(signal.SIGKILL)
    sup.proc.wait()
    time.sleep(0.5)
    files = util.processes_with(os.path.join(sup.libexec, "pgregent-files"))
    assert files and util.alive(pid) and util.alive(first) and "is killed" not in sup.proc.text()
    os.kill(first, signal.SIGKILL)
    util.wait_until(lambda: not util.processes_with(sup.pg.data), 10, "nothing of PostgreSQL is left")
    util.wait_until(lambda: "last fence" in sup.proc.text(), 10, "the last fence was made")
    util.wait_until(lambda: not any(util.alive(f) for f in files), 15, "the watchers end")


# ---- signals at bad moments ------------------------------------------------------------------------------------------


def test_sigterm_during_the_start_of_the_supervisor(sup):
    """At any moment before its loop: it ends, in good order or at once, and leaves nothing behind."""
    for after_ms in range(0, 60, 12):
        sup.worker.close()
        if os.path.exists(sup.worker.path):
            os.unlink(sup.worker.path)  # whoever listened there has ended
        sup.start(wait=False)
        time.sleep(after_ms / 1000)
        sup.proc.signal(signal.SIGTERM)
        if sup.proc.proc.poll() is None:
            # It may have a worker by now, which must be told.
            def ended():
                if sup.proc.proc.poll() is not None:
                    return True
                if os.path.exists(sup.worker.path):
                    try:
                        sup.worker.last("done", 0, 0)
                    except AssertionError:
                        pass
                return False
            util.wait_until(ended, 30, f"SIGTERM after {after_ms} ms ends it")
        util.wait_until(lambda: not util.processes_with(sup.libexec), 10, "nothing is left")


def test_sigterm_while_postgres_starts(sup):
    """The gate is held shut by a frozen dead-man: the start is refused or PostgreSQL is stopped, never left behind."""
    sup.start()
    sup.worker.do("autolease", 20000, 1000)
    assert sup.lease(20000)[0]
    st = sup.wait_status(deadman_acked=1)
    os.kill(st["deadman"], signal.SIGSTOP)
    mid = sup.worker.do("start", PRIMARY, 8000, 0o77, *sup.pg.argv())
    sup.worker.wait("PG_EVENT generation=1 .* state=1", 10)
    sup.proc.signal(signal.SIGTERM)
    sup.worker.wait("ORDER kind=2")
    sup.worker.done(0, 0)
    assert sup.proc.wait(20) == 0
    assert mid and sup.pg.pid() is None and not util.processes_with(sup.pg.data)


def test_sigterm_while_postgres_stops_and_while_it_is_fenced(sup):
    sup.start()
    pid = sup.start_pg(ttl=20000)
    os.kill(pid, signal.SIGSTOP)  # a stop that does not come to its end: fast, immediate, then the fence
    code, text = sup.worker.answer(sup.worker.do("stop", FAST, 500))
    assert code == 0, text
    sup.proc.signal(signal.SIGTERM)
    sup.worker.wait("ORDER kind=2")
    sup.worker.done(0, 7)
    assert sup.proc.wait(20) == 7
    assert not util.alive(pid) and not util.processes_with(sup.pg.data)
    assert "FENCE" in sup.proc.text()


def test_ttl_that_is_cut_short(sup):
    """Helpers say that they live as often as the ttl asks for, every three seconds with 30: when it becomes 3, they hear of
    it before their silence counts."""
    sup.start()

    def cut():
        """With a ttl of 3 half a second of silence is too long, also when nobody could say a word."""
        since = len(sup.proc.text())
        sup.worker.do("autolease", 30000, 300)
        assert sup.lease(30000)[0]
        # PINGs leave at multiples of three seconds: the next one is two seconds away.
        util.wait_until(lambda: 0.1 < time.clock_gettime(time.CLOCK_BOOTTIME) % 3 < 1, 5, "just after a PING")
        sup.worker.do("autolease", 3000, 300)
        assert sup.lease(3000)[0]
        time.sleep(2)
        said = sup.proc.text()[since:]
        assert "silent" not in said and "killed pid" not in said
    undisturbed(cut)


def test_quiet_helpers_that_freeze_beside_a_running_postmaster(sup):
    """A PING of files and api alone does not wake the supervisor; their silence is noticed in time all the same."""
    sup.start()
    ttl = 12000  # with a shorter one all are silent for too long when the machine stands still for a second
    sup.start_pg(ttl=ttl)
    for role in ("files", "api"):
        old = sup.status()[role]
        with Pace() as pace:
            began = time.monotonic()
            os.kill(old, signal.SIGSTOP)
            util.wait_until(lambda: sup.status()[role] not in (0, old), 8, "a new " + role)
            assert pace.took(began) < ttl / 6 / 1000 + 1.5, role
    assert sup.proc.text().count("silent") == 2
    assert sup.status()["pg_state"] == PG_RUNNING


# ---- postmasters that are not ours -----------------------------------------------------------------------------------


def test_postmaster_swapped_for_another(sup):
    """Ours dies and somebody else starts one in the same directory: it is another generation, must prove itself, and no
    order for the old one reaches it."""
    sup.start()
    pid = sup.start_pg(ttl=20000)
    sup.worker.do("autolease", 0, 0)
    os.kill(pid, signal.SIGKILL)
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 10)
    assert sup.lease(20000, 0)[0]
    other = pg_ctl_start(sup.pg, sup.work)
    sup.worker.wait(rf"PG_EVENT generation=2 pid={other} state={PG_RUNNING} kind=0 is_child=0", 10)
    util.wait_until(lambda: not util.alive(other), 20, "without lease or proof it is fenced")
    sup.worker.wait(rf"PG_EVENT generation=2 pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)


def test_postmaster_of_another_directory_is_left_alone(sup, pg_template):
    """postmaster.pid names a live postmaster, of another data directory: never signalled, the file is removed."""
    other_base = os.path.join(sup.work, "other")
    os.mkdir(other_base)
    util.give_to_pg_user(other_base)
    other = util.Postgres(pg_template, other_base)
    try:
        pid = pg_ctl_start(other, other_base)
        with open(os.path.join(other.data, "postmaster.pid")) as f:
            lines = f.read().split("\n")
        lines[1] = sup.pg.data
        with open(os.path.join(sup.pg.data, "postmaster.pid"), "w") as f:
            f.write("\n".join(lines))
        sup.start()
        mine = sup.start_pg()
        assert mine != pid and util.alive(pid) and other.up()
        sup.worker.do("autolease", 0, 0)
        sup.lease(4000, 1500)
        util.wait_until(lambda: not util.alive(mine), 6, "ours is fenced")
        assert util.alive(pid) and other.up()
    finally:
        other.kill_leftovers()


def test_pid_of_a_dead_postmaster_is_reused(sup):
    """The pid in the file belongs to a process that was started later and is no postmaster; it has the data directory as
    its working directory, so that only executable and start time tell."""
    sleeper = subprocess.Popen(["sleep", "60"], cwd=sup.pg.data, **util.as_pg_user())
    try:
        with open(os.path.join(sup.pg.data, "postmaster.pid"), "w") as f:
            f.write(f"{sleeper.pid}\n{sup.pg.data}\n{int(time.time()) - 5000}\n{sup.pg.port}\n{sup.pg.base}\n\n  1 2\n")
        sup.start()
        assert util.alive(sup.start_pg()) and sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_orders_for_another_generation_are_refused(sup):
    sup.pg.standby()
    sup.start()
    sup.wait_status(deadman_acked=1)
    pid = sup.start_pg(STANDBY)
    os.kill(pid, signal.SIGKILL)
    sup.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 10)
    for words in (("stop", FAST, 1000), ("signal", int(signal.SIGHUP), 0), ("promote",)):
        code, text = sup.worker.answer(sup.worker.do(*words))
        assert code == 1, (words, text)


# ---- jobs ----------------------------------------------------------------------------------------------------------


def test_job_that_is_forked_while_another_is_killed(sup):
    """Until its exec it has what the supervisor has open, the other's output too: that makes it no process of the other."""
    sup.start()
    for i in range(40):
        old = sup.worker.do("job", f"old{i}", 0, 0, 0, "sleep", "60")
        sup.worker.wait(rf"JOB_EVENT job={old} .* running=1", 10)
        sup.worker.do("cancel", old)
        new = sup.worker.do("job", f"new{i}", 0, 0, 0, "sh", "-c", "exit 7")
        sup.worker.wait(rf"JOB_EVENT job={old} .* running=0 .* cancelled=1", 10)
        m = sup.worker.wait(rf"JOB_EVENT job={new} .* running=0 exit_class=(\d+) exit_code=(\d+)", 10)
        assert (m[1], m[2]) == ("1", "7"), "the successor was killed with the one before it"


# ---- a node that stood still ------------------------------------------------------------------------------------------


def test_time_in_which_the_supervisor_did_not_run_is_no_silence(sup):
    """The whole node stands still (a hypervisor that takes the processor away) for longer than a helper may be silent: nobody is
    killed for it. One that is silent while the supervisor runs is, as ever."""
    sup.start()
    sup.start_pg(ttl=6000)
    st = sup.wait_status(deadman_acked=1)
    everybody = [st[r] for r in ("worker", "files", "api")]
    for pid in [sup.proc.pid] + everybody:
        util.freeze(pid)
    stood = time.monotonic()
    util.wait_until(lambda: time.monotonic() - stood > 1.5, 5, "longer than ttl/6")
    os.kill(sup.proc.pid, signal.SIGCONT)
    util.wait_until(lambda: "woke late" in sup.proc.text(), 3, "it has seen that it was frozen")
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    now = sup.wait_status(deadman_acked=1)
    assert [now[r] for r in ("worker", "files", "api")] == everybody
    assert "silent" not in sup.proc.text() and sup.status()["fences"] == 0
    util.freeze(everybody[1])
    util.wait_until(lambda: sup.status()["files"] not in (0, everybody[1]), 5, "a new pgregent-files")
    assert "silent" in sup.proc.text()
