"""Gates in the programs that a member runs, so that a kill hits it inside a step and not beside it: a gate says when the
program stands in it and keeps it there until it is opened."""
import os

from cluster import Cluster, Member
from util import alive, give_to_pg_user, pg_bin, wait_until

GATED = ("initdb", "pg_basebackup", "pg_rewind")
WRAPPER = """#!/bin/sh
gate() {{
	[ -e '{gates}'/"$1" ] || return 0
	echo $$ > '{gates}'/"$1".at
	while [ -e '{gates}'/"$1" ]; do sleep 0.02; done
}}
gate {name}.before
{run}
rc=$?
gate {name}.after
exit $rc
"""


class GatedMember(Member):
    def __init__(self, cluster, name, bootstrap="", **kw):
        super().__init__(cluster, name, **kw)
        self.gates = os.path.join(cluster.base, "g" + name)
        bindir = os.path.join(cluster.base, "b" + name)
        for d in (self.gates, bindir):
            os.mkdir(d)
            give_to_pg_user(d)
        real = os.path.dirname(pg_bin("postgres"))
        for p in os.listdir(real):
            if p not in GATED:
                os.symlink(os.path.join(real, p), os.path.join(bindir, p))
        for p in GATED:
            self.script(bindir, p, "'%s/%s' \"$@\"" % (real, p))
        self.script(self.gates, "pre_promote", "true")
        self.script(self.gates, "post_bootstrap", 'psql -X -q -d "$1" -c "CREATE TABLE IF NOT EXISTS made (v int)"')
        with open(self.yml) as f:
            text = f.read()
        text = text.replace("bin_dir: " + real, "bin_dir: %s\n  pre_promote: %s/pre_promote" % (bindir, self.gates))
        text = text.replace("bootstrap:\n", "bootstrap:\n  post_bootstrap: %s/post_bootstrap\n%s" % (self.gates, bootstrap), 1)
        with open(self.yml, "w") as f:
            f.write(text)

    def script(self, where, name, run):
        path = os.path.join(where, name)
        with open(path, "w") as f:
            f.write(WRAPPER.format(gates=self.gates, name=name, run=run))
        os.chmod(path, 0o755)

    def shut(self, gate):
        with open(os.path.join(self.gates, gate), "w"):
            pass

    def arrived(self, gate, bound=30):
        """Wait until the program stands in the gate; its pid."""
        def pid():
            try:
                with open(os.path.join(self.gates, gate + ".at")) as f:
                    return int(f.read() or 0)
            except OSError:
                return 0
        wait_until(pid, bound, "%s stands in %s" % (self.name, gate))
        return pid()

    def open(self, gate):
        for name in (gate, gate + ".at"):
            try:
                os.unlink(os.path.join(self.gates, name))
            except FileNotFoundError:
                pass

    def count(self, text):
        return self.proc.text().count(text)

    def logged(self, text, bound=20):
        wait_until(lambda: text in self.proc.text(), bound, '%s logs "%s"' % (self.name, text))

    def mark(self):
        try:
            with open(self.dir + "/data.unfinished") as f:
                return f.read().strip()
        except FileNotFoundError:
            return None

    def kill_worker(self):
        pid = self.helper("worker")
        os.kill(pid, 9)
        wait_until(lambda: self.helper("worker") not in (None, pid), 15, "a new worker")

    def node_off(self):
        """Everything at once, and proof that it is over."""
        self.kill_all()
        self.proc.wait(5)
        pm = self.postmaster()
        # Reaped, too: PostgreSQL takes a zombie for the owner of its socket.
        wait_until(lambda: pm is None or not os.path.exists("/proc/%d" % pm), 10, "no postmaster")

    def hit(self, what, gate):
        """Kill inside of the gate, then open it. A killed node is started again. Was the program still there afterwards?"""
        pid = self.arrived(gate)
        if what == "worker":
            self.kill_worker()
            survived = alive(pid)
            self.open(gate)
        else:
            self.node_off()
            wait_until(lambda: not alive(pid), 15, "the program ended with its agent")
            survived = False
            self.open(gate)
            self.start()
        return survived


def make(work, n, **dcs):
    return Cluster(work, n, member=GatedMember, **dcs)
