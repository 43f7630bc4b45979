"""The supervisor as root: users, capabilities, PID 1. Run by run-integration.sh apart from the others."""
import os
import pwd
import signal
import subprocess
import time

import pytest

import util
from faults import children
from mounts import StallingDisk
from sup import FAST, FENCED, PG_FENCING, PG_NONE, PG_RUNNING, PRIMARY, Supervisor

pytestmark = pytest.mark.root


@pytest.fixture
def sup(work, postgres):
    assert os.geteuid() == 0, "this test needs root"
    s = Supervisor(work, postgres, user={})
    yield s
    s.kill_all()


def status(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(x.rstrip("\n").split(":\t", 1) for x in f if ":\t" in x)


def caps(*names):
    order = {"KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "IPC_LOCK": 14, "SYS_NICE": 23, "SYS_RESOURCE": 24}
    return sum(1 << order[n] for n in names)


def test_users_and_capabilities(sup):
    sup.start()
    pid = sup.start_pg()
    st = sup.wait_status(deadman_acked=1)
    uid = str(pwd.getpwnam("postgres").pw_uid)
    bounding = int(status(os.getpid())["CapBnd"], 16)
    own = status(st["pid"])
    assert own["Uid"].split() == ["0"] * 4
    kept = int(own["CapEff"], 16)
    assert kept & caps("KILL", "SETUID", "SETGID", "SETPCAP") == caps("KILL", "SETUID", "SETGID", "SETPCAP")
    assert kept & ~caps("KILL", "SETUID", "SETGID", "SETPCAP", "SYS_NICE", "IPC_LOCK", "SYS_RESOURCE") == 0
    assert int(own["CapBnd"], 16) == bounding
    for role in ("worker", "files", "api", "deadman"):
        x = status(st[role])
        assert x["Uid"].split() == [uid] * 4 and x["NoNewPrivs"] == "1"
        assert int(x["CapBnd"], 16) == 0 and int(x["CapPrm"], 16) == 0, role
        groups = set(x["Groups"].split())
        assert groups == {str(g) for g in os.getgrouplist("postgres", pwd.getpwnam("postgres").pw_gid)}
    x = status(pid)
    assert x["Uid"].split() == [uid] * 4 and x["NoNewPrivs"] == "0" and int(x["CapBnd"], 16) == bounding
    # Scheduling: the supervisor in real time where it may, its children as everybody.
    if kept & caps("SYS_NICE"):
        assert os.sched_getscheduler(st["pid"]) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        assert os.sched_getscheduler(st["deadman"]) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    # The dead-man inherits the score as the supervisor has it. Whether memory is locked, only a build without the
    # sanitizer shows: it swallows mlockall.
    lowered = bool(kept & caps("SYS_RESOURCE"))
    assert ("OOM score not lowered" in sup.proc.text()) != lowered
    for p in (st["pid"], st["deadman"]):
        with open(f"/proc/{p}/oom_score_adj") as f:
            assert (f.read() == "-1000\n") == lowered
    for p in (st["worker"], st["files"], st["api"], pid):
        assert os.sched_getscheduler(p) == os.SCHED_OTHER
    with open(f"/proc/{pid}/oom_score_adj") as f, open("/proc/self/oom_score_adj") as g:
        assert f.read() == g.read()
    # What a job finds: an ordinary login of that user.
    mid = sup.worker.do("job", "env", 0, 0, 0, "sh", "-c", "env | grep -E '^(HOME|USER|PATRONI_[A-Z_]*|NOTIFY_SOCKET)='; grep -E 'NoNewPrivs|CapBnd|SigBlk|SigIgn' "
                        "/proc/self/status; umask; ls -l /proc/self/fd | wc -l")
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=0")
    sup.worker.do("output", mid)
    text = sup.worker.wait(rf"JOB_OUTPUT .* job={mid} .*text=(.*)")[1].split("|")
    home = pwd.getpwnam("postgres").pw_dir
    for want in (f"HOME={home}", "USER=postgres", "NoNewPrivs:\t0", f"CapBnd:\t{bounding:016x}",
                 "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"):
        assert want in text, (want, text)
    assert text[-2] == "5"  # "total", 0, 1, 2, and the directory itself


def test_root_fences_and_is_succeeded(sup):
    sup.start()
    pid = sup.start_pg(ttl=10000)
    sup.wait_status(deadman_acked=1)
    os.kill(sup.proc.pid, signal.SIGKILL)
    sup.proc.wait()
    sup.worker.close()
    n = len(sup.worker.seen)
    sup.start(wait=False)
    sup.worker.wait("WELCOME incarnation=1 adopted=1 in_handover=1", 10, since=n)
    ok, why = sup.lease(5000, 2000)
    assert ok, why
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10, since=n)
    assert util.dead(pid)


def test_root_adopts_a_postmaster_of_the_user(sup):
    """Without CAP_SYS_PTRACE the proof reads /proc with the file system ids of that user."""
    util.run_pg(["pg_ctl", "-D", sup.pg.data, "-w", "-l", os.path.join(sup.work, "pg.log"), "start"])
    pid = sup.pg.pid()
    sup.start()
    sup.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING} kind=0 is_child=0", 10)


def test_root_upgrades_in_place_but_only_to_itself(sup, request):
    import shutil
    # Not below the test directory: that is the PostgreSQL user's alone, and CAP_DAC_OVERRIDE is not kept.
    import tempfile
    place = tempfile.mkdtemp(prefix="pgregent-bin.", dir="/tmp")
    request.addfinalizer(lambda: shutil.rmtree(place))
    os.chmod(place, 0o755)
    copy = os.path.join(place, "pgregent")
    shutil.copy(sup.binary, copy)
    sup.binary = copy
    sup.start()
    pid = sup.start_pg(ttl=20000)
    old = sup.wait_status(deadman_acked=1)
    code, text = sup.worker.answer(sup.worker.do("upgrade", util.program("pgregent")))
    assert code == 1 and "as root only the same file" in text
    # As a package does it: another file under the same name.
    shutil.copy(copy, copy + ".new")
    os.rename(copy + ".new", copy)
    n = len(sup.worker.seen)
    caps_before = status(sup.proc.pid)["CapEff"]
    sup.worker.do("upgrade")
    sup.worker.wait("WELCOME .* adopted=0 in_handover=1", 10, since=n)
    assert sup.lease(20000)[0]
    st = sup.wait_status(deadman_acked=1)
    assert os.readlink(f"/proc/{sup.proc.pid}/exe") == copy and st["pg_pid"] == pid and util.alive(pid)
    assert status(sup.proc.pid)["CapEff"] == caps_before
    util.wait_until(lambda: not util.alive(old["deadman"]), 15, "the old dead-man leaves")
    with open(f"/proc/{st['worker']}/oom_score_adj") as f, open("/proc/self/oom_score_adj") as g:
        assert f.read() == g.read()


@pytest.mark.parametrize("name", ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"])
def test_missing_capability_is_named(work, postgres, name):
    s = Supervisor(work, postgres, user={}, prefix=["capsh", f"--drop={name.lower()}", "--", "-c", 'exec "$0" "$@"'])
    try:
        s.start(wait=False)
        assert s.proc.wait() == 1
        assert f"{name} is missing, needed to " in s.proc.text() and not os.listdir(s.runtime)
    finally:
        s.kill_all()


def test_capabilities_that_may_be_missing_cost_a_line_each(work, postgres):
    names = ("CAP_SYS_NICE", "CAP_IPC_LOCK", "CAP_SYS_RESOURCE")
    s = Supervisor(work, postgres, user={}, prefix=[
        "capsh", f"--drop={','.join(names).lower()}", "--", "-c", 'ulimit -l 64; ulimit -r 0; exec "$0" "$@"'])
    try:
        s.start()
        pid = s.start_pg()
        st = s.wait_status(deadman_acked=1)
        for n in names:
            assert f"capability missing name={n} so no " in s.proc.text()
        for line in ("no real-time scheduling, the fence may be late", "OOM score not lowered"):
            assert line in s.proc.text()
        assert int(status(st["pid"])["CapEff"], 16) == caps("KILL", "SETUID", "SETGID", "SETPCAP")
        assert os.sched_getscheduler(st["pid"]) == os.SCHED_OTHER
        s.worker.do("autolease", 0, 0)
        assert s.lease(4000, 2000)[0]
        s.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 8)
        assert not util.alive(pid)
    finally:
        s.kill_all()


def test_root_needs_another_user(work, postgres):
    for user, text in (("root", "PostgreSQL refuses to run as root"), ("no-such-user", "does not exist")):
        s = Supervisor(work, postgres, user={}, options=["--user", user])
        try:
            s.start(wait=False)
            assert s.proc.wait() == 1 and text in s.proc.text()
        finally:
            s.kill_all()


def test_parent_death_signal_outlives_the_change_of_user(sup):
    """It is cleared by a change of credentials, so it has to be set after the last one."""
    sup.start()
    st = sup.wait_status(deadman_acked=1)
    pids = [st[r] for r in ("worker", "files", "api")]
    for p in pids:
        util.freeze(p)
    sup.proc.signal(signal.SIGKILL)
    sup.proc.wait()
    for p in pids:
        util.wait_until(lambda p=p: int(status(p)["ShdPnd"], 16) & 1 << signal.SIGTERM - 1, 10, "SIGTERM is pending")


@pytest.mark.parametrize("sigterm", [False, True])
def test_what_sleeps_in_the_disk_blocks_only_a_new_start(work, postgres, sigterm):
    """A backend that cannot even be killed: it is reported as killed and not yet dead; the lease may be given away, nothing
    new starts beside it, and when the disk answers it is over. A SIGTERM meanwhile does not end the fence."""
    os.rename(postgres.data, postgres.data + ".disk")
    disk = StallingDisk(postgres.data)
    s, client = Supervisor(work, postgres), None
    try:
        s.start()
        pid = s.start_pg(ttl=20000)
        before = util.descendants(pid)
        disk.stall()
        client = subprocess.Popen([util.pg_bin("psql"), "-X", "-h", postgres.base, "-p", str(postgres.port), "-U", util.PG_USER,
                                   "-c", "create table t (i int)", "postgres"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        backend = util.wait_until(lambda: util.descendants(pid) - before, 10, "its backend").pop()
        util.wait_until(lambda: disk.holds(backend), 10, "it waits for the disk")
        s.worker.do("autolease", 0, 0)
        assert s.lease(4000, 2000)[0]
        util.wait_until(lambda: not util.alive(pid), 10, "the postmaster is dead")
        if sigterm:
            s.proc.signal(signal.SIGTERM)
            s.worker.wait("ORDER kind=2")
            s.worker.done(0, 6)
            util.wait_until(lambda: "worker is done" in s.proc.text(), 10, "the worker has said its last word")
            util.wait_until(lambda: util.pid_state(backend) == "D", 5, "the backend cannot be killed")
            assert s.proc.proc.poll() is None
            disk.resume()
            assert s.proc.wait(20) == 6 and util.dead(backend)
            return
        util.wait_until(lambda: "fence: killed, not yet dead" in s.proc.text(), 10, "it is reported")
        util.wait_until(lambda: util.pid_state(backend) == "D", 5, "the backend cannot be killed")
        assert s.status()["pg_state"] == PG_FENCING
        assert s.lease(4000, 0)[0], "SIGKILL is pending on everything: the lease may go"
        assert s.lease(20000)[0]
        code, text = s.worker.answer(s.worker.do("start", PRIMARY, 4000, 0o77, *postgres.argv()))
        assert code == 1 and text == "a postmaster exists", text
        disk.resume()
        s.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
        assert util.dead(backend) and util.alive(s.start_pg(ttl=20000))
    finally:
        disk.resume()
        s.kill_all()
        postgres.kill_leftovers()
        if client is not None:
            client.kill()
            client.wait()
        disk.close()


def test_pid_1(work, postgres):
    s = Supervisor(work, postgres, user={}, prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    try:
        s.start(wait=False)
        s.worker.wait("WELCOME .* pid1=1", 10)
        s.worker.do("autolease", 20000, 1000)
        assert s.lease(20000)[0]
        code, text = s.worker.answer(s.worker.do("start", 1, 8000, 0o77, *s.pg.argv()))
        assert code == 0, text
        s.pg.wait_up()
        # Orphans are ours to reap: the job's grandchildren lose their parent.
        mid = s.worker.do("job", "orphans", 0, 100, 0, "sh", "-c", "for i in 1 2 3; do ( sleep 0.2 & ) ; done")
        s.worker.wait(rf"JOB_EVENT job={mid} .* running=0")
        inside = children(s.proc.pid)[0]
        util.wait_until(lambda: not [p for p in util.descendants(inside) if util.pid_state(p) == "Z"], 10)
        # unshare passes no signal on: PID 1 of the namespace gets it.
        os.kill(inside, signal.SIGTERM)
        s.worker.wait("ORDER kind=2")
        code, text = s.worker.answer(s.worker.do("stop", FAST, 10000))
        assert code == 0, text
        s.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}")
        s.worker.done(0, 5)
        assert s.proc.wait() == 5  # the real status
    finally:
        s.kill_all()


def test_pid_1_whose_small_pids_repeat(work, postgres):
    """In a container a stale postmaster.pid names a pid that one of our own processes has now: PostgreSQL itself would
    refuse to start, we know that it is none."""
    s = Supervisor(work, postgres, user={}, prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    try:
        for stale in range(1, 9):
            with open(os.path.join(postgres.data, "postmaster.pid"), "w") as f:
                f.write(f"{stale}\n{postgres.data}\n{int(time.time())}\n{postgres.port}\n{postgres.base}\n\n  1 2\n")
            util.give_to_pg_user(os.path.join(postgres.data, "postmaster.pid"))
            n = len(s.worker.seen)
            s.start(wait=False)
            s.worker.wait("WELCOME .* pid1=1", 10, since=n)
            assert s.lease(20000)[0]
            code, text = s.worker.answer(s.worker.do("start", 1, 8000, 0o77, *postgres.argv()))
            assert code == 0, f"with pid {stale} in the file: {text}"
            postgres.wait_up()
            os.kill(children(s.proc.pid)[0], signal.SIGKILL)  # the container's end
            s.proc.wait()
            s.worker.close()
    finally:
        s.kill_all()


HIDDEN = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
          'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"]
AS_USER = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


@pytest.mark.parametrize("who", ["root", "user"])
def test_hidepid(work, postgres, who):
    """/proc shows processes to their own user only: adoption, the fence and its proof work all the same."""
    s = Supervisor(work, postgres, user={}, prefix=HIDDEN + (AS_USER if who == "user" else []))
    try:
        util.run_pg(["pg_ctl", "-D", postgres.data, "-w", "-l", os.path.join(work, "pg.out"), "start"])
        pid = postgres.pid()
        s.start()
        s.worker.wait(rf"PG_EVENT generation=1 pid={pid} state={PG_RUNNING} kind=0 is_child=0", 15)
        assert s.lease(20000)[0]
        code, text = s.worker.answer(s.worker.do("stop", FAST, 10000))
        assert code == 0, text
        s.worker.wait(rf"PG_EVENT generation=1 pid=0 state={PG_NONE}", 10)
        pid = s.start_pg(ttl=10000)
        everything = util.descendants(pid) | {pid}
        # One that has lost its parent is found by the life file alone.
        mark = os.path.join(work, "lost")
        postgres.sql(f"copy (select 1 where false) to program 'setsid sh -c \"sleep 7200; : {mark}\" > /dev/null 2>&1 &'")
        lost = set(util.wait_until(lambda: util.processes_with(mark), 10, "a process without its parent"))
        s.worker.do("autolease", 0, 0)
        assert s.lease(4000, 2500)[0]
        s.worker.wait(rf"PG_EVENT generation=2 pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
        assert all(util.dead(p) for p in everything | lost)
    finally:
        s.kill_all()
