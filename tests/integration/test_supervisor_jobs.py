"""Jobs of the supervisor: output, deadlines, whole trees of processes, and what nobody waits for."""
import os
import signal
import time

import util
from sup import CODE


def test_job_output_and_status(sup):
    sup.start()
    mid = sup.worker.do("job", "talk", 0, 100, 0, "sh", "-c", "echo out; echo err >&2; exit 7")
    sup.worker.wait(rf"JOB_EVENT job={mid} pid=\d+ running=1")
    sup.worker.wait(rf"JOB_EVENT job={mid} pid=\d+ running=0 exit_class={CODE} exit_code=7 cancelled=0 timed_out=0")
    sup.worker.do("output", mid)
    hit = sup.worker.wait(rf"JOB_OUTPUT .* job={mid} total=8 stream=1 .*text=(.*)")
    assert sorted(hit[1].split("|")) == ["", "err", "out"]
    # More than the ring holds: the end is kept, the count is of all.
    mid = sup.worker.do("job", "long", 0, 100, 0, "sh", "-c", "seq 1 20000")
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=0", 15)
    sup.worker.do("output", mid)
    hit = sup.worker.wait(rf"JOB_OUTPUT .* job={mid} total=108894 stream=1 len=16384 text=(.*)")
    assert hit[1].endswith("|19999|20000|")
    mid = sup.worker.do("job", "missing", 0, 100, 0, "/no/such/program")
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=0 exit_class={CODE} exit_code=127")


def test_job_tree_is_cancelled(sup, work):
    sup.start()
    mark = os.path.join(work, "tree")
    # A leader that ignores TERM, children in sessions of their own, and one whose parent has gone.
    script = (f"trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1; done # {mark}\" & "
              f"( setsid sh -c \"trap '' TERM; sleep 99; : {mark}\" & ) ; while :; do sleep 1; done # {mark}")
    mid = sup.worker.do("job", "tree", 0, 300, 0, "sh", "-c", script)
    pid = int(sup.worker.wait(rf"JOB_EVENT job={mid} pid=(\d+) running=1")[1])
    util.wait_until(lambda: len([p for p in util.processes_with(mark) if util.pid_state(p) == "S"]) >= 3, 10,
                    "the tree stands")
    time.sleep(0.2)  # a subshell has the command line of its parent until it executes: nothing else tells
    sup.worker.do("cancel", mid)
    sup.worker.wait(rf"JOB_EVENT job={mid} pid={pid} running=0 exit_class=2 exit_code=9 cancelled=1", 10)
    util.wait_until(lambda: not util.processes_with(mark), 5, "nothing of the tree is left")


def test_job_deadline_and_slots(sup):
    sup.start()
    mid = sup.worker.do("job", "slow", 400, 200, 0, "sleep", "60")
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=0 exit_class=2 exit_code=15 cancelled=0 timed_out=1", 10)
    ids = [sup.worker.do("job", f"j{i}", 0, 100, 0, "sleep", "60") for i in range(9)]
    code, text = sup.worker.answer(ids[8])
    assert code == 1 and "8 jobs" in text
    for i in ids[:8]:
        sup.worker.do("cancel", i)
    for i in ids[:8]:
        sup.worker.wait(rf"JOB_EVENT job={i} .* running=0", 10)


def test_jobs_survive_the_worker(sup):
    sup.start()
    mid = sup.worker.do("job", "keep", 0, 100, 0, "sh", "-c", "sleep 1; echo done")
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=1")
    n = len(sup.worker.seen)
    os.kill(sup.status()["worker"], signal.SIGKILL)
    sup.worker.close()
    sup.worker.wait("WELCOME incarnation=2", 10)
    sup.worker.wait(rf"JOB_EVENT job={mid} .* running=0 exit_class=1 exit_code=0", 10, since=n)
    sup.worker.do("output", mid)
    sup.worker.wait(rf"JOB_OUTPUT .* job={mid} .*text=done")
