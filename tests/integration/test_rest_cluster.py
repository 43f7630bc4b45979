"""REST on three real members under writers: what test_api asks of pages that a test wrote, here of a cluster that does it (rest 6 to 10)."""
import datetime
import json

from faults import Writers, cluster, pg_start, settled, shared, wait_until  # noqa: F401

LATER = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)).isoformat()


def metrics(m):
    code, text = m.status("/metrics")
    assert code == 200
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and line[0] != "#"}


def test_health_and_metrics(cluster):
    c = cluster
    n0 = c.leader()
    for path, on_leader, on_replica in (("/liveness", 200, 200), ("/readiness", 200, 200), ("/health", 200, 200), ("/primary", 200, 503),
                                        ("/leader", 200, 503), ("/read-write", 200, 503), ("/replica", 503, 200), ("/read-only", 200, 200),
                                        ("/standby-leader", 503, 503), ("/synchronous", 503, 503), ("/asynchronous", 503, 200),
                                        ("/replica?lag=1MB", 503, 200), ("/replica?tag_nothing=x", 503, 503)):
        wait_until(lambda: n0.status(path)[0] == on_leader, 10, "%s on the leader is %d" % (path, on_leader))
        for m in c.others(n0):
            wait_until(lambda: m.status(path)[0] == on_replica, 10, "%s on %s is %d" % (path, m.name, on_replica))
    for m in c.members:
        seen = {}

        def as_it_is():
            seen.update(metrics(m))
            return (seen["patroni_primary"] == (m is n0) and seen["patroni_replica"] == (m is not n0)
                    and seen["patroni_postgres_running"] == 1 and seen["patroni_postgres_timeline"] == 1
                    and seen["patroni_postgres_streaming"] == (m is not n0)
                    and (seen["patroni_xlog_location"] > 0) == (m is n0)
                    and (seen["patroni_xlog_replayed_location"] > 0) == (m is not n0))
        wait_until(as_it_is, 10, lambda: "the metrics of %s: %s" % (m.name, seen))


def test_configuration(cluster):
    """PUT takes the place of everything; what was there comes back by PUT too."""
    c = cluster
    n0 = c.leader()
    code, text = n0.status("/config")
    before = json.loads(text)
    assert code == 200 and before == c.etcd.json("config")
    assert n0.status("/config", "PUT", [1])[0] == 400
    other = dict(before, postgresql={"use_pg_rewind": True, "parameters": {"work_mem": "9MB", "max_connections": 60}})
    code, text = c.others(n0)[0].status("/config", "PUT", other)
    assert code == 200 and json.loads(text) == other == c.etcd.json("config")
    for m in c.members:
        wait_until(lambda: m.try_sql("SHOW work_mem") == [("9MB",)], 10, "work_mem on " + m.name)
    assert n0.status("/config", "PUT", before)[0] == 200
    for m in c.members:
        wait_until(lambda: m.try_sql("SHOW work_mem") == [("4MB",)], 10, "work_mem on " + m.name)
    assert c.etcd.json("config") == before


def test_scheduled_and_taken_back(cluster):
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[0]
    assert n0.status("/switchover", "DELETE")[0] == 404
    assert n0.status("/switchover", "POST", {"leader": n0.name, "candidate": n1.name, "scheduled_at": LATER}) == (202, "Switchover scheduled")
    wait_until(lambda: json.loads(n1.status("/cluster")[1]).get("scheduled_switchover", {}).get("to") == n1.name, 10, "/cluster shows it")
    assert n0.status("/switchover", "DELETE")[0] == 200
    wait_until(lambda: "scheduled_switchover" not in json.loads(n1.status("/cluster")[1]), 10, "it is gone")
    assert n1.status("/restart", "DELETE")[0] == 404
    assert n1.status("/restart", "POST", {"schedule": LATER})[0] == 202
    wait_until(lambda: "scheduled_restart" in json.loads(n1.status("/patroni")[1]), 10, "/patroni shows it")
    assert n1.status("/restart", "POST", {"schedule": LATER})[0] == 409
    assert n1.status("/restart", "DELETE")[0] == 200
    wait_until(lambda: "scheduled_restart" not in json.loads(n1.status("/patroni")[1]), 10, "it is gone")


def test_failover_by_hand(cluster):
    """To a member by name; a restart with conditions that do not hold does nothing."""
    c = cluster
    n0 = c.leader()
    n1 = c.others(n0)[1]
    assert n0.status("/failover", "POST", {})[0] == 400 and n0.status("/failover", "POST", {"candidate": "nobody"})[0] in (412, 503)
    with Writers(c) as w:
        code, text = n0.status("/failover", "POST", {"candidate": n1.name}, 40)
        assert (code, text) == (200, 'Successfully failed over to "%s"' % n1.name)
        assert settled(c) is n1
        w.wait_ack(n1)
    w.handed_over(n0, n1)
    assert w.missing_on(n1) == []
    wait_until(lambda: [row[4:] for row in json.loads(n0.status("/history")[1])][-1:] == [[n1.name]], 15, "the history tells who leads")
    started = pg_start(n0)
    for body in ({"role": "primary"}, {"restart_pending": True}, {"postgres_version": "9.0.1"}):
        assert n0.status("/restart", "POST", body, 20)[0] == 503, body
    assert pg_start(n0) == started
