"""Configuration of the real processes: the log file and its format, reload, pending restart, the command line's modes."""
import json
import os
import signal
import subprocess

import pytest

from cluster import Cluster
from util import as_pg_user, give_to_pg_user, pg_bin, program, wait_until


@pytest.fixture
def single(work):
    logs = os.path.join(work, "logs")
    os.mkdir(logs)
    give_to_pg_user(logs)
    c = Cluster(work, 1)
    m = c.members[0]
    with open(m.yml, "a") as f:
        f.write("log: {dir: '%s', type: json, format: [message, {levelname: level}, name], static_fields: {app: it},"
                " mode: 0640, loggers: {patroni.dcs: ERROR}}\n" % logs)
    try:
        c.start()
        yield c, m, logs
    finally:
        c.stop()


def lines(logs, name="patroni.log"):
    try:
        with open(os.path.join(logs, name)) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]  # the last one may be half written
    except OSError:
        return []


def edit(m, old, new):
    with open(m.yml) as f:
        text = f.read()
    assert old in text
    with open(m.yml, "w") as f:
        f.write(text.replace(old, new))


def patroni(m):
    return json.loads(m.status()[1])


def test_log_file_and_reload(single):
    c, m, logs = single
    wait_until(lambda: any(x["name"] == "patroni.ha" for x in lines(logs)), 15, "decisions are in the log file")
    first = lines(logs)[0]
    assert list(first) == ["message", "level", "name", "app"] and first["app"] == "it"
    assert os.stat(logs + "/patroni.log").st_mode & 0o777 == 0o640

    # A worker that starts anew takes the file over.
    old = m.helper("worker")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: len([x for x in lines(logs) if x["message"] == "log file opened"]) >= 2, 15,
               "the next worker writes to the file")

    # A setting of PostgreSQL that a reload brings, one that waits for a restart, and a format that is refused.
    edit(m, "logging_collector: 'off'", "logging_collector: 'off'\n    work_mem: 7MB\n    max_files_per_process: 900")
    edit(m, "format: [message", "format: [lineno, message")
    m.proc.signal(signal.SIGHUP)
    wait_until(lambda: m.try_sql("SHOW work_mem") == [("7MB",)], 10, "work_mem is in force")
    wait_until(lambda: patroni(m).get("pending_restart"), 10, "a restart is pending")
    reason = patroni(m)["pending_restart_reason"]
    assert reason == {"max_files_per_process": {"old_value": "1000", "new_value": "900"}}
    wait_until(lambda: (c.etcd.json("members/n0") or {}).get("pending_restart"), 10, "the member key says so")
    assert c.etcd.json("members/n0")["pending_restart_reason"] == reason
    wait_until(lambda: "lineno" in lines(logs)[-1], 10, "the new format is in force")
    edit(m, "format: [lineno, message, {levelname: level}, name]", "format: '%(loud)s'")
    m.proc.signal(signal.SIGHUP)
    wait_until(lambda: any("log.format: %(loud)" in x["message"] for x in lines(logs)), 10, "the format is refused")
    assert m.status("/restart", "POST", {}, 40)[0] == 200
    wait_until(lambda: not patroni(m).get("pending_restart"), 10, "nothing is pending")
    assert m.sql("SHOW max_files_per_process") == [("900",)]


def test_setting_set_back(single):
    """A setting that is changed and changed back is no pending restart, and its old value is in the file again."""
    c, m, _ = single
    assert m.status("/config", "PATCH", {"postgresql": {"parameters": {"max_connections": 70}}})[0] == 200
    wait_until(lambda: patroni(m).get("pending_restart"), 10, "a restart is pending")
    assert patroni(m)["pending_restart_reason"] == {"max_connections": {"old_value": "60", "new_value": "70"}}
    assert m.status("/config", "PATCH", {"postgresql": {"parameters": {"max_connections": 60}}})[0] == 200
    wait_until(lambda: not patroni(m).get("pending_restart"), 10, "nothing is pending")

    def conf():
        with open(m.dir + "/data/postgresql.conf") as f:
            return f.read()
    wait_until(lambda: "max_connections = '60'" in conf(), 10, "the old value is in the file")


def run(*args, env=None):
    e = {k: v for k, v in os.environ.items() if not k.startswith(("PATRONI", "PG"))}
    e.update(PATH=os.path.dirname(pg_bin("postgres")) + ":" + os.environ["PATH"], **(env or {}))
    r = subprocess.run([program("pgregent"), *args], env=e, timeout=30, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **as_pg_user())
    return r.returncode, r.stdout.decode(), r.stderr.decode()


def test_modes(single):
    c, m, _ = single
    # The member runs: its ports are in use, and it is reached through loopback.
    code, out, err = run("--validate-config", m.yml)
    assert code == 1 and out == ""
    assert "restapi.listen 127.0.0.1:%d didn't pass validation: Port %d is already in use." % (m.rest, m.rest) in err
    assert "restapi.connect_address 127.0.0.1:%d didn't pass validation: must not contain" % m.rest in err
    edit(m, "connect_address: 127.0.0.1", "connect_address: 10.0.0.1")
    # A low ttl is allowed while all members are pgregent.
    code, out, err = run("--validate-config", "-i", m.yml)
    assert code == 0 and out == "" and "bootstrap.dcs.ttl 6: warning: only while every member is pgregent" in err
    edit(m, '"ttl": 6', '"ttl": 2')
    assert "bootstrap.dcs.ttl 2 didn't pass validation: Wrong value" in run("--validate-config", m.yml)[2]
    edit(m, '"ttl": 2', '"ttl": 20')
    edit(m, '"retry_timeout": 2', '"retry_timeout": 3')
    assert run("--validate-config", "-i", m.yml) == (0, "", "")
    code, out, err = run("--validate-config", "-ip", m.yml, env={"PATRONI_SCOPE": "of the environment"})
    assert code == 0 and "scope: of the environment\n" in out and "super-pass" in out

    dsn = "host=127.0.0.1 port=%d user=postgres password=x dbname=postgres" % m.pg
    code, text, err = run("--generate-config", "--dsn", dsn)
    assert code == 0, err
    assert "scope: it\n" in text and "  data_dir: %s/data\n" % m.dir in text and "max_connections: '60'" in text
    assert "connect_address: " in text and "  bin_dir: %s\n" % os.path.dirname(pg_bin("postgres")) in text
    assert run("--generate-config", "--dsn", "no equals sign")[0] == 1
    code, text, err = run("--generate-sample-config", env={"PATRONI_ETCD3_HOSTS": "a:1,b:2"})
    assert code == 0 and "etcd3:\n  hosts:\n  - a:1\n  - b:2\n" in text
    assert run("--validate-config", "--generate-config")[0] == 2


@pytest.mark.parametrize("whose", ["ours", "its own"])
def test_custom_bootstrap(work, whose):
    """A cluster from a base backup and its archive: all of the archive is replayed, then it promotes itself; by recovery_conf,
    or by what the command left in the copy. Meanwhile nobody but us comes in."""
    src, archive, backup = (os.path.join(work, n) for n in ("src", "archive", "backup"))
    os.mkdir(archive)
    give_to_pg_user(archive)

    def tool(*args):
        subprocess.run([pg_bin(args[0]), *args[1:]], check=True, timeout=60, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, **as_pg_user())
    tool("initdb", "-D", src, "-U", "postgres", "-A", "trust", "-N")
    with open(src + "/postgresql.conf", "a") as f:
        f.write("listen_addresses = ''\nunix_socket_directories = '%s'\narchive_mode = on\n"
                "archive_command = 'cp %%p %s/%%f'\n" % (src, archive))
    tool("pg_ctl", "-D", src, "-w", "-l", work + "/src.log", "start")
    try:
        psql = ["psql", "-h", src, "-U", "postgres", "-c"]
        tool(*psql, "CREATE TABLE t AS SELECT 1 AS n")
        tool("pg_basebackup", "-h", src, "-U", "postgres", "-D", backup, "-c", "fast", "-X", "none")
        tool(*psql, "INSERT INTO t VALUES (2)")
        tool(*psql, "SELECT pg_switch_wal()")
    finally:
        tool("pg_ctl", "-D", src, "-w", "-m", "fast", "stop")

    c = Cluster(work, 1)
    m = c.members[0]
    script = os.path.join(work, "copy.sh")
    with open(script, "w") as f:
        f.write('#!/bin/sh\necho "$@" >%s/args\ncp -a %s %s/data\necho "# of the copy" >>%s/data/pg_hba.conf\n'
                % (m.dir, backup, m.dir, m.dir))
        if whose == "its own":
            f.write("touch %s/data/recovery.signal\nrm %s/data/pg_ident.conf\n" % (m.dir, m.dir))
            f.write("echo \"restore_command = 'cp %s/%%f %%p'\" >>%s/data/postgresql.auto.conf\n" % (archive, m.dir))
            f.write("echo \"recovery_target_action = 'promote'\" >>%s/data/postgresql.auto.conf\n" % m.dir)
    os.chmod(script, 0o755)
    seen = os.path.join(work, "seen.sh")
    with open(seen, "w") as f:
        f.write('#!/bin/sh\ncat %s/data/pg_hba.conf >%s/hba\n' % (m.dir, m.dir))
    os.chmod(seen, 0o755)
    recovery = """    keep_existing_recovery_conf: true
""" if whose == "its own" else """    recovery_conf:
      restore_command: cp %s/%%f %%p
      recovery_target_action: promote
      recovery_target_timeline: latest
""" % archive
    edit(m, "  initdb:", """  method: copy
  post_bootstrap: %s
  copy:
    command: %s
    speed: fast
%s  initdb:""" % (seen, script, recovery))
    try:
        c.start()
        wait_until(lambda: m.try_sql("SELECT n FROM t ORDER BY n") == [(1,), (2,)], 10, "all of the archive is there")
        with open(m.dir + "/args") as f:
            assert f.read().split() == ["--scope=it", "--datadir=%s/data" % m.dir, "--speed=fast"]

        def clean():
            with open(m.dir + "/data/postgresql.conf") as f:
                conf = f.read()
            with open(m.dir + "/data/postgresql.auto.conf") as f:
                conf += f.read()
            return "recovery_target_action" not in conf
        wait_until(clean, 10, "the recovery settings have gone")
        assert not os.path.exists(m.dir + "/data/recovery.signal") and os.path.exists(m.dir + "/data/pg_ident.conf")
        with open(m.dir + "/hba") as f:
            during = f.read()
        assert "of the copy" not in during and "host\tall\tpostgres\t127.0.0.1/32\ttrust\n" in during

        def restored():
            try:
                with open(m.dir + "/data/pg_hba.conf") as f, open(m.dir + "/data/pg_hba.conf.backup") as g:
                    return "of the copy" in f.read() and "of the copy" in g.read()
            except FileNotFoundError:
                return False
        wait_until(restored, 10, "the copy's own rules are back")
        assert m.sql("SELECT rolname FROM pg_roles WHERE rolname = 'replicator'") == [("replicator",)]
    finally:
        c.stop()


def test_one_log_file_for_all(work):
    """Plain lines of all processes stand in the file, also those that are written while there is no worker."""
    logs = os.path.join(work, "logs")
    os.mkdir(logs)
    give_to_pg_user(logs)
    c = Cluster(work, 1)
    m = c.members[0]
    with open(m.yml, "a") as f:
        f.write("\nlog: {dir: %s}\n" % logs)

    def has(*words):
        try:
            with open(logs + "/patroni.log") as f:
                return any(all(w in line for w in words) for line in f)
        except OSError:
            return False

    def count(what):
        with open(logs + "/patroni.log") as f:
            return f.read().count(what)
    try:
        c.start()
        wait_until(lambda: has("INFO: supervisor: ", "PostgreSQL started"), 10, "the supervisor's lines are in the file")
        worker, api, dm = (wait_until(lambda: m.helper(x), 10, x + " runs") for x in ("worker", "api", "deadman"))
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: has("supervisor: worker", str(worker)), 10, "the end of the worker is in the file")
        # Those that start later are told where the log is.
        wait_until(lambda: m.helper("worker") not in (None, worker) and has("n0", "no action"), 15, "a new worker decides")
        for how in (signal.SIGKILL, signal.SIGTERM):
            lines = count("INFO: listening host=")
            os.kill(api, how)
            wait_until(lambda: m.helper("api") not in (None, api), 10, "a new api runs")
            wait_until(lambda: count("INFO: listening host=") > lines, 10, "the new api's line is in the file")
            api = wait_until(lambda: m.helper("api"), 10, "it runs")
        os.kill(dm, signal.SIGKILL)
        wait_until(lambda: m.helper("deadman") not in (None, dm), 10, "a new dead-man runs")
        m.proc.signal(signal.SIGTERM)
        m.proc.wait(20)
        wait_until(lambda: has("INFO: deadman: "), 10, "the dead-man's lines are in the file")
    finally:
        c.stop()
