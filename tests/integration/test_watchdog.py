"""A watchdog that is required, on the real thing: whoever has one takes the lead, whoever has none does not."""
import os
import signal

import pytest

from cluster import Cluster, Member
from util import give_to_pg_user, wait_until

WATCHDOG = "watchdog:\n  mode: required\n  driver: testing\n  device: %s\n"


def device(base, name):
    return os.path.join(base, name + ".watchdog")


def member(cluster, name):
    return Member(cluster, name, extra=WATCHDOG % device(cluster.base, name))


@pytest.fixture
def cluster(work):
    readers = []
    for name in ("n0", "n1"):
        os.mkfifo(device(work, name))
        give_to_pg_user(device(work, name))
        readers.append(os.open(device(work, name), os.O_RDWR | os.O_NONBLOCK))
    c = Cluster(work, n=2, member=member)
    try:
        yield c.start()
    finally:
        c.stop()
        for fd in readers:
            os.close(fd)


def test_member_with_data_takes_the_lead(cluster):
    """A replica was never asked for its watchdog: that is no failure, neither to itself nor to its peers. The same holds for a
    member that starts with data, alone."""
    n0, n1 = cluster.members
    assert "watchdog_failed" not in n1.status()[1]
    n0.proc.signal(signal.SIGTERM)
    n0.proc.wait(20)
    assert cluster.wait_leader(15, but=n0) is n1
    n1.proc.signal(signal.SIGTERM)
    n1.proc.wait(20)
    n1.start()
    assert cluster.wait_leader(25) is n1
    wait_until(lambda: n1.status("/primary")[0] == 200, 15, "n1 answers as primary")
