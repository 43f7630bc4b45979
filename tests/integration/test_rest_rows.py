"""The rows of the REST contract (rest 1, 6 to 10) on a real cluster: code, text and shape of each refusal and each acceptance that
does not change who leads."""
import json
import socket

import pytest

from cluster import Cluster, Member
from util import wait_until

LATER = "2031-01-01T10:00:00+00:00"


def n1_on(m):
    members = json.loads(m.status("/cluster")[1] or "{}").get("members", [])
    return next((x for x in members if x["name"] == "n1"), {})


@pytest.fixture
def pair(work):
    c = Cluster(work, 2, member=lambda c, name: Member(c, name, tags={"nofailover": True} if name == "n1" else None))
    try:
        c.start()
        # The rows are judged by what n0 knows of n1.
        wait_until(lambda: n1_on(c.members[0]).get("state") == "streaming" and "nofailover" in n1_on(c.members[0]).get("tags", {}), 15,
                   "n0 shows n1 as it is")
        yield c
    finally:
        c.stop()


def raw(m, text):
    """The answer to these bytes: code, headers, body."""
    with socket.create_connection(("127.0.0.1", m.rest), 10) as s:
        s.sendall(text.encode())
        s.shutdown(socket.SHUT_WR)
        got = b""
        while True:
            part = s.recv(65536)
            if not part:
                break
            got += part
    head, _, body = got.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, body


def is_page(head, body, code):
    return "text/html" in head.lower() and body.lstrip().lower().startswith("<!doctype html") and str(code) in body


def check_rows(m, rows):
    for method, path, body, code, text in rows:
        got = m.status(path, method, body, 20)
        assert got[0] == code and (got[1] == text if text is not None else True), (method, path, body, got)


SWITCHOVER = [
    ("DELETE", "/switchover", None, 404, "no switchover is scheduled"),
    ("POST", "/switchover", {"leader": "n0", "scheduled_at": LATER}, 202, "Switchover scheduled"),
    ("DELETE", "/switchover", None, 200, "scheduled switchover deleted"),
    ("POST", "/switchover", {"candidate": "n1"}, 400, "Switchover could be performed only from a specific leader"),
    ("POST", "/failover", {"leader": "n0"}, 400, "Failover could be performed only to a specific candidate"),
    ("POST", "/failover", {"candidate": "n1", "scheduled_at": LATER}, 400, "Failover can't be scheduled"),
    ("POST", "/switchover", {"leader": "n0", "scheduled_at": "2031-01-01T10:00"}, 400,
     "Timezone information is mandatory for the scheduled switchover"),
    ("POST", "/switchover", {"leader": "n0", "scheduled_at": "2001-01-01T10:00Z"}, 422,
     "Cannot schedule switchover in the past"),
    ("POST", "/switchover", {"leader": "n0", "scheduled_at": "soon"}, 422,
     "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"),
    ("POST", "/switchover", {"leader": "n0", "candidate": "n0"}, 400, "Switchover target and source are the same"),
    ("POST", "/switchover", {"leader": "n1", "candidate": "n0"}, 412, "leader name does not match"),
    ("POST", "/switchover", {"leader": "n0", "candidate": "n9"}, 412, "candidate does not exists"),
    # n1 may not lead, by its tag
    ("POST", "/switchover", {"leader": "n0", "candidate": "n1"}, 412,
     "switchover is not possible: no good candidates have been found"),
    ("POST", "/switchover", {"leader": "n0"}, 412, "switchover is not possible: no good candidates have been found"),
    ("POST", "/failover", {"member": "n1"}, 412, "failover is not possible: no good candidates have been found"),
]

RESTART = [
    ("DELETE", "/restart", None, 404, "no restarts are scheduled"),
    ("POST", "/restart", {"schedule": LATER, "role": "replica", "postgres_version": "99.0"}, 202, "Restart scheduled"),
    ("POST", "/restart", {"schedule": LATER}, 409, "Another restart is already scheduled"),
    ("DELETE", "/restart", None, 200, "scheduled restart deleted"),
    ("DELETE", "/restart", None, 404, "no restarts are scheduled"),
    ("POST", "/restart", {"schedule": "2001-01-01T10:00Z"}, 422, "Cannot schedule restart in the past"),
    ("POST", "/restart", {"role": "master"}, 400,
     "PostgreSQL role should be either primary, standby_leader, or replica"),
    ("POST", "/restart", {"postgres_version": "1.2.3.4"}, 400,
     "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 1.2.3.4"),
    ("POST", "/restart", {"timeout": 0}, 400, "Timeout should be a positive number of seconds"),
    ("POST", "/restart", {"when": "now"}, 400, "Unknown filter for the scheduled restart: when"),
    ("POST", "/restart", {"restart_pending": True}, 503, "restart conditions are not satisfied"),
    ("POST", "/restart", {"role": "primary"}, 503, "restart conditions are not satisfied"),
    ("POST", "/restart", {"postgres_version": "9.5.0"}, 503, "restart conditions are not satisfied"),
]

OTHERS = [
    ("POST", "/reload", None, 202, "reload scheduled"),
    ("POST", "/sigterm", None, 202, "shutdown scheduled"),
    ("POST", "/reinitialize", {"force": False}, 503, "I am the leader, can not reinitialize"),
]

PAUSED = [
    ("POST", "/switchover", {"leader": "n0", "scheduled_at": LATER}, 400,
     "Can't schedule switchover in the paused state"),
    ("POST", "/switchover", {"leader": "n0"}, 400,
     "Switchover is possible only to a specific candidate in a paused state"),
    ("POST", "/restart", {"schedule": LATER}, 500, "Can't schedule restart in the paused state"),
]

# verb and path, code, a word of the page
PAGES = [
    ("POST / HTTP/1.0", "Content-Length: 2\r\n\r\n{}", 501, "Server does not support this operation"),
    ("DELETE /config HTTP/1.0", "\r\n", 501, "Server does not support this operation"),
    ("POST /nothing HTTP/1.0", "\r\n", 501, "Unsupported method ('POST')"),
    ("PATCH /config HTTP/1.0", "\r\n", 411, "Content-Length"),
    ("PATCH /config HTTP/1.0", "Content-Length: 2\r\n\r\n{}", 400, "400"),
    ("PUT /config HTTP/1.0", "Content-Length: 3\r\n\r\n[1]", 400, "400"),
    ("POST /switchover HTTP/1.0", "\r\n", 411, "Content-Length"),
    ("POST /switchover HTTP/1.0", "Content-Length: 4\r\n\r\n{\"a\"", 400, "400"),
    ("POST /reinitialize HTTP/1.0", "Content-Length: 4\r\n\r\nnope", 400, "400"),
    ("GET /failsafe HTTP/1.0", "\r\n", 502, "502"),
    ("POST /failsafe HTTP/1.0", "Content-Length: 2\r\n\r\n{}", 502, "502"),
]

# HEAD and OPTIONS are health checks of the whole path, whatever a GET of it is.
LINES = [("HEAD", "/liveness", 503), ("HEAD", "/patroni", 503), ("HEAD", "/metrics", 503), ("HEAD", "/health", 200),
         ("OPTIONS", "/", 200), ("HEAD", "/replica", 503), ("OPTIONS", "/read-only", 200), ("GET", "/liveness", 200),
         ("GET", "/readiness", 200)]


def check_pages(m):
    for line, rest, code, word in PAGES:
        got, head, body = raw(m, line + "\r\n" + rest)
        assert got == code and is_page(head, body, code) and word in body, (line, rest, got, head, body)
    for verb, path, code in LINES:
        got, head, body = raw(m, "%s %s HTTP/1.0\r\n\r\n" % (verb, path))
        assert got == code and body == "", (verb, path, got, head, body)
    # What nobody knows is a health check that fails, with the whole document.
    got, body = m.status("/foo")
    assert got == 503 and json.loads(body)["patroni"]["scope"] == "it"


def check_config(c, m):
    stored = c.etcd.json("config")
    assert m.status("/config") == (200, json.dumps(stored))
    # A patch: text alike is no change, null removes, objects are merged.
    code, body = m.status("/config", "PATCH", {"ttl": str(stored["ttl"]), "x": {"y": [1], "z": None}})
    assert code == 200 and json.loads(body)["ttl"] == stored["ttl"] and json.loads(body)["x"] == {"y": [1], "z": None}
    code, body = m.status("/config", "PATCH", {"x": {"y": None}})
    assert json.loads(body)["x"] == {"z": None}
    code, body = m.status("/config", "PATCH", {"x": None})
    assert code == 200 and json.loads(body) == stored == c.etcd.json("config")
    assert m.status("/config", "PUT", dict(stored, primary_start_timeout=77))[0] == 200
    wait_until(lambda: c.etcd.json("config")["primary_start_timeout"] == 77, 15, "it is written")


def test_rows(pair):
    c = pair
    n0, n1 = c.members
    check_rows(n0, SWITCHOVER + OTHERS)
    check_rows(n1, RESTART)
    check_pages(n0)
    check_config(c, n0)
    assert n0.status("/config", "PATCH", {"pause": True})[0] == 200
    wait_until(lambda: json.loads(n0.status()[1]).get("pause"), 10, "n0 is paused")
    check_rows(n0, PAUSED)
    assert n0.status("/config", "PATCH", {"pause": None})[0] == 200
    assert c.etcd.get("leader") == "n0" and n0.is_primary()

    # nothing is written any more, and a replica reads only what its watch brings: its view is current all the same
    def seen():
        return json.loads(c.members[1].status()[1])["dcs_last_seen"]
    before = seen()
    wait_until(lambda: seen() >= before + 3, 15, "dcs_last_seen of a replica at rest goes on")
