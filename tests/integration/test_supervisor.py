"""The supervisor on real PostgreSQL, with a test worker that does what the test says."""
import os
import signal
import time

import pytest

import util
from sup import (CODE, ENFORCE, FAST, FENCED, PAUSED, PG_NONE, PG_RUNNING, PRIMARY, STANDBY, Supervisor)


@pytest.fixture
def sup(work, postgres):
    s = Supervisor(work, postgres)
    yield s
    s.kill_all()


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
    sup.worker.do("done", 0, 0)
    assert sup.proc.wait() == 0
    assert not util.alive(pid)


def test_fence_at_lease_end(sup):
    sup.start()
    pid = sup.start_pg(ttl=4000)
    backends = util.descendants(pid)
    assert len(backends) > 3
    sup.worker.do("autolease", 0, 0)
    ok, why = sup.lease(ttl=4000, length=2500)
    assert ok, why
    sent = time.monotonic()
    sup.worker.wait(rf"PG_EVENT .* pid=0 state={PG_NONE} .* exit_class={FENCED}", 10)
    took = time.monotonic() - sent
    assert 1.0 < took < 2.5, took  # margin 1 s before the end of 2.5 s
    assert not any(util.alive(p) for p in backends | {pid})
