"""A dead-man that sees the end of a postmaster late must not take the next one for what the first left."""
import os
import signal
import threading

import pytest

from cluster import Cluster
from util import wait_until


@pytest.fixture
def one(work):
    c = Cluster(work, 1, ttl=60, loop_wait=1)
    yield c
    c.stop()


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return set(map(int, f.read().split()))


def waits_to_be_postgres(n):
    """A child of the supervisor that is still its program: it stands at the gate."""
    for pid in children(n.proc.pid):
        try:
            if os.readlink("/proc/%d/exe" % pid) == os.readlink("/proc/%d/exe" % n.proc.pid):
                return pid
        except OSError:
            continue
    return None


def test_restart_while_the_deadman_is_slow(one):
    one.start()
    n = one.members[0]
    wait_until(lambda: (one.etcd.json("members/n0") or {}).get("state") == "running", 20,
               "the bootstrap has ended")
    deadman = n.helper("deadman")
    answer = []
    os.kill(deadman, signal.SIGSTOP)
    try:
        ask = threading.Thread(target=lambda: answer.append(n.status("/restart", "POST", {}, 40)))
        ask.start()
        # The old one has ended, the new one is forked and waits for the dead-man's word.
        wait_until(lambda: waits_to_be_postgres(n), 20, "the new postmaster stands at the gate", 0.005)
    finally:
        os.kill(deadman, signal.SIGCONT)
    ask.join(50)
    assert answer == [(200, "restarted successfully")]
    assert n.is_primary()
    assert n.helper("deadman") == deadman
