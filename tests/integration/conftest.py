"""Fixtures of all integration tests. Each test has a directory of its own below PGREGENT_TEST_DIR; it is removed when
the test passes, and its logs are shown and kept when it fails."""
import glob
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402
import util  # noqa: E402
from sup import Supervisor  # noqa: E402

LOG_TAIL = 30000
# A standby without an upstream says these ten times a second.
NOISE = ("could not connect to the primary server", "Is the server running on that host", "waiting for WAL to become available")


def pytest_configure(config):
    config.addinivalue_line("markers", "root: needs root (PID namespaces, capabilities); run apart by run-integration.sh")
    if os.environ.get("PGREGENT_ETCD_BIN"):
        os.environ["PATH"] = os.environ["PGREGENT_ETCD_BIN"] + ":" + os.environ["PATH"]
    config.addinivalue_line("markers", "alone: counts processes of its user or measures; no other test beside it")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    setattr(item, "report_" + report.when, report)


@pytest.fixture(scope="session")
def work_base():
    base = os.environ.get("PGREGENT_TEST_DIR")
    own = base is None
    if own:
        base = tempfile.mkdtemp(prefix="pgregent-it.", dir="/tmp")
        util.give_to_pg_user(base)
    yield base
    if own and not os.listdir(base):
        os.rmdir(base)


@pytest.fixture(scope="session")
def pg_template(work_base):
    path = os.path.join(work_base, "template" + ("-root" if os.geteuid() == 0 else "") + os.environ.get("PYTEST_XDIST_WORKER", ""))
    util.make_template(path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def work(request, work_base):
    """A short path (Unix socket names are limited), owned by the PostgreSQL user."""
    path = tempfile.mkdtemp(prefix="t", dir=work_base)
    os.chmod(path, 0o755)
    util.give_to_pg_user(path)
    yield path
    report = getattr(request.node, "report_call", None)
    if report is not None and report.passed:
        shutil.rmtree(path, ignore_errors=True)
        return
    for log in sorted(glob.glob(os.path.join(path, "*.log"))):
        with open(log, errors="replace") as f:
            text = "".join(line for line in f if not any(noise in line for noise in NOISE))
        print(f"\n---- {log}\n{text[-LOG_TAIL:]}")


@pytest.fixture
def postgres(work, pg_template):
    pg = util.Postgres(pg_template, work)
    yield pg
    pg.kill_leftovers()


@pytest.fixture
def make(work):
    """Clusters with the table that writers write to; they are stopped at the end. make(n=, member=, and dynamic keys)."""
    clusters = []

    def of(**kw):
        clusters.append(faults.Cluster(work, **kw))
        return faults.made(clusters[-1])
    yield of
    for c in clusters:
        c.stop()


@pytest.fixture
def sup(work, postgres):
    """A supervisor with a test worker over a server of its own."""
    s = Supervisor(work, postgres)
    yield s
    s.kill_all()
