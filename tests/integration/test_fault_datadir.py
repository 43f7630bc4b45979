"""A data directory that is not as it should be: wrong mode, wrong owner, another cluster's, one in which another postmaster runs or that
another supervisor holds. A clear error each time, and not a byte is lost; put right, the member is back by itself."""
import hashlib
import os
import re
import shutil

import pytest

from faults import Process, Writers, alive, cluster, free_port, settled, shared, wait_until  # noqa: F401
from util import as_pg_user, give_to_pg_user, program, run_pg


MEMBERS = 3


def stop(m):
    m.proc.signal(15)
    m.proc.wait(20)


def contents(path):
    """Names and contents of everything below, but for what any start may write anew."""
    found = {}
    for d, dirs, files in os.walk(path):
        for name in files:
            if name in ("postmaster.pid", "postmaster.opts", "postgresql.conf", "postgresql.base.conf", "pg_hba.conf",
                        "pg_ident.conf", "patroni.dynamic.json", "standby.signal"):
                continue
            with open(os.path.join(d, name), "rb") as f:
                found[os.path.relpath(os.path.join(d, name), path)] = hashlib.sha256(f.read()).hexdigest()
    return found


def said(m, since, pattern, bound=15):
    return wait_until(lambda: re.search(pattern, m.proc.text()[since:]), bound, "%s says %r" % (m.name, pattern))


def test_a_rewind_was_interrupted(cluster):
    """Whoever the leader is by now: what an interrupted pg_rewind left is no server, also when there is nothing to rewind (X42)."""
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[0]
    with Writers(c) as w:
        stop(n1)
        since = len(n1.proc.text())
        with open(n1.dir + "/data.unfinished", "w") as f:
            f.write("rewind\n")
        give_to_pg_user(n1.dir + "/data.unfinished")
        n1.start()
        said(n1, since, "pg_rewind failed: it has nothing to rewind from %s in a directory that an interrupted run left" % n0.name)
        said(n1, since, "cannot be repeated: reinitialize this member")
        assert "PostgreSQL started" not in n1.proc.text()[since:]
        assert n1.post_when_free("/reinitialize") == (200, "reinitialize started")
        wait_until(n1.streams_from_somebody, 30, "a new copy streams")
        assert not os.path.exists(n1.dir + "/data.unfinished")
        assert settled(c) is n0
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []


def test_wrong_mode(cluster):
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[0]
    data = n1.dir + "/data"
    with Writers(c) as w:
        stop(n1)
        before, since = contents(data), len(n1.proc.text())
        os.chmod(data, 0o777)
        n1.start()
        said(n1, since, "has mode 0777, allowed are 0700 and 0750")
        # It tries again and does no harm: a few rounds of it.
        beat = n1.proc.text().count("Lock owner")
        wait_until(lambda: n1.proc.text().count("Lock owner") >= beat + 4, 20, "it goes on trying")
        assert contents(data) == before
        os.chmod(data, 0o700)
        assert settled(c) is n0
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert "remove data directory" not in n1.proc.text()[since:]


@pytest.mark.root
def test_wrong_owner(cluster):
    """Nothing can be locked there: it ends, and whoever started it starts it again."""
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[0]
    data = n1.dir + "/data"
    with Writers(c) as w:
        stop(n1)
        before, since = contents(data), len(n1.proc.text())
        os.chown(data, 0, 0)
        n1.start()
        said(n1, since, re.escape(data) + ": Permission denied")
        assert n1.proc.wait(20) != 0
        assert contents(data) == before
        give_to_pg_user(data)
        n1.start()
        assert settled(c) is n0
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []
    assert "remove data directory" not in n1.proc.text()[since:]


def test_data_of_another_cluster(cluster):
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[0]
    data = n1.dir + "/data"
    with Writers(c) as w:
        stop(n1)
        os.rename(data, data + ".mine")
        run_pg(["initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"])
        before = contents(data)
        since = len(n1.proc.text())
        n1.start()
        assert n1.proc.wait(20) == 1
        said(n1, since, "system ID mismatch, node %s belongs to a different cluster: [0-9]+ != [0-9]+" % n1.name)
        assert contents(data) == before
        shutil.rmtree(data)
        os.rename(data + ".mine", data)
        n1.start()
        assert settled(c) is n0
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []


def test_postmaster_started_by_hand_is_taken_over(cluster):
    """In the member's own directory, by the member's own user: it is proven to be ours and goes on."""
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[0]
    with Writers(c) as w:
        stop(n1)
        run_pg(["pg_ctl", "-D", n1.dir + "/data", "-w", "-l", n1.dir + "/hand.log", "start"])
        pm = n1.postmaster()
        n1.start()
        wait_until(lambda: n1.status("/replica", timeout=2)[0] == 200, 30, "n1 is a replica")
        assert settled(c) is n0
        assert n1.postmaster() == pm and alive(pm)
        w.wait_ack(n0)
    assert w.overlaps() == [] and w.missing_on(n0) == []


def test_second_supervisor_on_one_directory(cluster):
    """Another name and another run-time directory, the primary's data: refused before anything is touched."""
    c = cluster
    n0 = c.leader()
    with Writers(c) as w:
        pm, before = n0.postmaster(), open(n0.dir + "/data/postgresql.conf").read()
        with open(n0.yml) as f:
            text = f.read().replace("name: " + n0.name, "name: n9").replace(":%d" % n0.rest, ":%d" % free_port())
        yml, run = os.path.join(c.base, "n9.yml"), os.path.join(c.base, "rn9")
        with open(yml, "w") as f:
            f.write(text)
        os.mkdir(run)
        give_to_pg_user(run)
        p = Process([program("pgregent"), yml], os.path.join(c.base, "n9.log"),
                    env=dict(os.environ, RUNTIME_DIRECTORY=run, HOME=n0.dir), **as_pg_user())
        try:
            assert p.wait(15) != 0
            assert "another pgregent supervisor runs: it holds %s/data" % n0.dir in p.text()
            w.wait_ack(n0)
        finally:
            p.kill()
        assert n0.postmaster() == pm and open(n0.dir + "/data/postgresql.conf").read() == before
        assert c.leader() is n0 and c.etcd.get("members/n9") is None
    assert w.overlaps() == [] and w.missing_on(n0) == []
