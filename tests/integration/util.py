"""Helpers shared by all integration tests: bounded waits, ports, a PostgreSQL template, processes with logs."""
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("PGREGENT_BUILD", "build/san"))
PG_USER = "postgres"
RESERVED_MAX = 200  # far more than a test has, far less than descriptors


def pg_bin(program):
    """Path of a PostgreSQL program: PGREGENT_PG_BIN, else the newest version that is installed."""
    fixed = os.environ.get("PGREGENT_PG_BIN")
    if fixed:
        return os.path.join(fixed, program)
    base = "/usr/lib/postgresql"
    versions = sorted((v for v in os.listdir(base) if v.isdigit()), key=int)
    return os.path.join(base, versions[-1], "bin", program)


def program(name):
    path = os.path.join(BUILD, name)
    assert os.path.exists(path), f"{path} is not built: make integration builds it"
    return path


def wait_until(cond, bound=10.0, what="", every=0.02):
    """The first true value of cond(); an AssertionError that says what was waited for after `bound` seconds. Time in which the
    machine stands still does not count: nobody could have made it true."""
    end = time.monotonic() + bound
    while True:
        value = cond()
        if value:
            return value
        now = time.monotonic()
        if now >= end:
            said = what() if callable(what) else what or getattr(cond, '__name__', cond)
            raise AssertionError(f"not within {bound} s: {said}")
        time.sleep(every)
        late = time.monotonic() - now - every
        end += late if late > 0.1 else 0


reserved = []


def free_port():
    """A port that nobody listens on and that is outside the range from which the kernel picks on its own. Some are bound only later, or
    again after a restart: to all test runs of this machine it is taken meanwhile, by an abstract socket of its number."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    for _ in range(200):
        port = random.randrange(10000, min(low, 32000))
        word = socket.socket(socket.AF_UNIX)
        try:
            word.bind(f"\0pgregent-test-port-{port}")
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            word.close()
            continue
        reserved.append(word)
        if len(reserved) > RESERVED_MAX:
            reserved.pop(0).close()
        return port
    raise AssertionError("no free port found")


def as_pg_user():
    """For subprocess: run as the PostgreSQL user when we are root; nothing otherwise."""
    if os.geteuid() != 0:
        return {}
    u = pwd.getpwnam(PG_USER)
    return {"user": u.pw_uid, "group": u.pw_gid, "extra_groups": [u.pw_gid]}


def give_to_pg_user(path):
    if os.geteuid() == 0:
        u = pwd.getpwnam(PG_USER)
        os.chown(path, u.pw_uid, u.pw_gid)


def run_pg(args, **kw):
    return subprocess.run([pg_bin(args[0])] + list(args[1:]), check=True, capture_output=True, text=True, timeout=60,
                          **as_pg_user(), **kw)


def pid_state(pid):
    """The state letter of /proc/<pid>/stat, None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def freeze(pid):
    """SIGSTOP, and it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: pid_state(pid) == "T", 5, f"{pid} is stopped")


def alive(pid):
    return pid_state(pid) not in (None, "Z", "X")


def dead(pid):
    """Nothing of it runs any more: it has ended, or it is on its last way through the kernel, which takes the memory before it gives
    back files and directories, and only then shows the end."""
    if not alive(pid):
        return True
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read(1) == b""
    except (FileNotFoundError, ProcessLookupError):
        return True


def start_time(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[19]


def processes_with(text):
    """Pids (zombies left out) whose command line holds text."""
    found = []
    for d in os.listdir("/proc"):
        if not d.isdigit():
            continue
        try:
            with open(f"/proc/{d}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and alive(int(d)) and int(d) != os.getpid():
            found.append(int(d))
    return found


def descendants(pid):
    """Pids below pid."""
    parents = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{d}/stat") as f:
                    parents[int(d)] = int(f.read().rsplit(")", 1)[1].split()[1])
    below, grown = {pid}, True
    while grown:
        more = {p for p, pp in parents.items() if pp in below and p not in below}
        grown = bool(more)
        below |= more
    return below - {pid}


class Process:
    """A child with its log in a file. Ended by pid at the end of the test, whatever happened."""

    def __init__(self, argv, log, env=None, **kw):
        self.argv, self.log = argv, log
        with open(log, "ab") as out:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, **kw)
        self.pid = self.proc.pid

    def wait(self, bound=20):
        return self.proc.wait(timeout=bound)

    def signal(self, signo):
        os.kill(self.pid, signo)

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def kill(self):
        if self.proc.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
                self.proc.kill()
            self.proc.wait(timeout=10)


class Postgres:
    """A data directory copied from the template, and SQL on the server that runs in it."""

    def __init__(self, template, base):
        self.base = str(base)
        self.data = os.path.join(self.base, "data")
        self.port = free_port()
        subprocess.run(["cp", "-a", template, self.data], check=True, timeout=60)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{self.base}'\n"
                    "fsync = off\nshared_buffers = 16MB\nautovacuum = off\n"
                    "log_min_messages = warning\n")

    def argv(self):
        return [pg_bin("postgres"), "-D", self.data]

    def sql(self, query, bound=10):
        r = subprocess.run([pg_bin("psql"), "-XAtq", "-h", self.base, "-p", str(self.port), "-U", PG_USER, "-d",
                            "postgres", "-c", query], capture_output=True, text=True, timeout=bound)
        if r.returncode != 0:
            raise RuntimeError(r.stderr.strip())
        return r.stdout.strip()

    def up(self):
        try:
            return self.sql("select 1") == "1"
        except (RuntimeError, subprocess.TimeoutExpired):
            return False

    def wait_up(self, bound=20):
        wait_until(self.up, bound, "PostgreSQL accepts connections")

    def pid(self):
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
            with open(os.path.join(self.data, "postmaster.pid")) as f:
                return int(f.readline())
        return None

    def standby(self):
        """Make it a standby that waits for WAL from nowhere."""
        path = os.path.join(self.data, "standby.signal")
        open(path, "w").close()
        give_to_pg_user(path)

    def kill_leftovers(self):
        """Whatever still runs in this data directory. Ours: its name is in no other command line."""
        for pid in processes_with(self.data):
            for child in descendants(pid) | {pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def make_template(path):
    """initdb once per run; tests copy it."""
    r = subprocess.run([pg_bin("initdb"), "-D", path, "-U", PG_USER, "-A", "trust", "-N", "--locale=C", "-E", "UTF8"],
                       capture_output=True, text=True, timeout=120, **as_pg_user())
    assert r.returncode == 0, r.stderr
    return path


def remove_tree(path):
    shutil.rmtree(path, ignore_errors=True)
