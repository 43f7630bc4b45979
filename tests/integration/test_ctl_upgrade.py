"""pgregentctl upgrade: the new program in the same process, PostgreSQL untouched; and the way back."""
import os
import shutil
import subprocess

import pytest

import util
from cluster import Cluster, Member
from util import Process, as_pg_user, program, wait_until

HELPERS = ("pgregent", "pgregent-worker", "pgregent-files", "pgregent-api", "pgregent-deadman")


class Installed(Member):
    """Runs from a directory of its own, whose program can be replaced as a package does it."""

    def start(self):
        self.bin = self.dir + "/bin"
        os.mkdir(self.bin)
        for name in HELPERS:
            shutil.copy(program(name), self.bin + "/" + name)
        env = dict(os.environ, RUNTIME_DIRECTORY=self.run, HOME=self.dir, PATRONI_LOG_LEVEL="INFO")
        self.proc = Process([self.bin + "/pgregent", self.yml], self.log, env=env, **as_pg_user())

    def replace(self, source):
        shutil.copy(source, self.bin + "/new")
        os.rename(self.bin + "/new", self.bin + "/pgregent")

    def upgrade(self):
        env = dict(os.environ, RUNTIME_DIRECTORY=self.run, HOME=self.dir)
        return subprocess.run([program("pgregentctl"), "-c", self.yml, "upgrade"], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, **as_pg_user())


@pytest.fixture
def one(work):
    c = Cluster(work, 1, member=Installed, ttl=20, loop_wait=2, retry_timeout=3)
    yield c
    c.stop()


def test_upgrade(one):
    one.start()
    m = one.members[0]
    postmaster, pid = m.postmaster(), m.proc.pid
    started = m.sql("SELECT pg_postmaster_start_time()")

    # A program that does not even start is refused, nothing changes.
    m.replace("/bin/true")
    r = m.upgrade()
    assert r.returncode == 1 and b"is refused" in r.stdout and b"not a pgregent that starts" in r.stdout, r.stdout
    # One that passes its check and then hangs is left again.
    m.replace(program("tests/integration/hangsup"))
    r = m.upgrade()
    assert r.returncode == 1 and b"did not come up" in r.stdout and b"(pid %d)" % pid in r.stdout, r.stdout
    # And a good one.
    m.replace(program("pgregent"))
    r = m.upgrade()
    assert r.returncode == 0 and b"Success: n0 of cluster it runs pgregent " in r.stdout, r.stdout
    assert b"(pid %d)" % pid in r.stdout
    assert os.readlink("/proc/%d/exe" % pid) == os.path.realpath(m.bin + "/pgregent")
    # The same server, the same leader, and a lease that goes on.
    assert m.postmaster() == postmaster and m.sql("SELECT pg_postmaster_start_time()") == started
    assert one.etcd.get("leader") == "n0" and m.is_primary()
    wait_until(lambda: m.status("/primary")[0] == 200, 10, "n0 is primary by its lease")
    assert util.alive(postmaster)


def test_without_an_agent(work):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PATRONI")}
    env.update(RUNTIME_DIRECTORY=work, HOME=work, XDG_RUNTIME_DIR=work)
    r = subprocess.run([program("pgregentctl"), "upgrade", "nobody"], env=env, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, timeout=20)
    assert r.returncode == 1 and b"No agent of cluster nobody was found on this host" in r.stdout
