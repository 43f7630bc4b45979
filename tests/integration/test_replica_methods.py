"""How a replica is made (ha 8.4): methods in their order, the first that succeeds counts; from a member with the tag clonefrom; what a failed
one leaves behind is in nobody's way."""
import os

from cluster import Cluster, Member
from util import give_to_pg_user, wait_until

METHODS = """  create_replica_methods: [broken, mine, basebackup]
  broken: {{command: '{base}/broken', no_leader: false}}
  mine: {{command: '{base}/mine', speed: fast}}
  basebackup: [{{checkpoint: fast}}, {{label: its-own}}]
"""
BROKEN = """#!/bin/sh
echo "broken $*" >> {base}/calls
mkdir -p {base}/{name}/data && echo rubbish > {base}/{name}/data/PG_VERSION
exit 3
"""
MINE = """#!/bin/sh
echo "mine $*" >> {base}/calls
[ -e {base}/mine.fails ] && exit 1
for a; do case $a in --datadir=*) dir=${{a#*=}} ;; --connstring=*) to=${{a#*=}} ;; esac; done
exec {bin}/pg_basebackup -D "$dir" -X stream -c fast -d "$to"
"""


class MethodsMember(Member):
    def __init__(self, cluster, name):
        super().__init__(cluster, name, tags={"clonefrom": True} if name == "n1" else None)
        if name == "n0":
            return
        base = os.path.join(cluster.base, "m" + name)
        os.mkdir(base)
        give_to_pg_user(base)
        self.base = base
        with open(self.yml) as f:
            text = f.read()
        bin_dir = text.split("bin_dir: ")[1].split("\n")[0]
        for what, script in (("broken", BROKEN), ("mine", MINE)):
            with open(os.path.join(base, what), "w") as f:
                f.write(script.format(base=base, name=name, bin=bin_dir).replace(base + "/" + name + "/data", self.dir + "/data"))
            os.chmod(os.path.join(base, what), 0o755)
        with open(self.yml, "w") as f:
            f.write(text.replace("  basebackup:\n  - no-sync\n", METHODS.format(base=base), 1))

    def calls(self):
        try:
            with open(os.path.join(self.base, "calls")) as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []


def arguments(call):
    words = call.split(" --")
    return words[0], dict(w.split("=", 1) for w in words[1:])


def test_methods_in_their_order(work):
    c = Cluster(work, member=MethodsMember)
    n0, n1, n2 = c.members
    try:
        c.start()
        wait_until(lambda: "clonefrom" in (c.etcd.get("members/n1") or ""), 20, "the tag is in n1's key")
        for m in (n1, n2):
            assert [x.split()[0] for x in m.calls()] == ["broken", "mine"]
            name, args = arguments(m.calls()[1])
            assert args["scope"] == "it" and args["role"] == "replica" and args["datadir"] == m.dir + "/data" and args["speed"] == "fast"
            assert "--command" not in m.calls()[1]
        assert "port=%d" % n0.pg in n1.calls()[1]
        # It is offered when its key says that it runs, to whoever has seen that.
        c.wait_listed(n2, lambda row: row["state"] in ("running", "streaming"))
        # Made anew: from n1, which offers itself; and by PostgreSQL's own program when the others fail.
        with open(n2.base + "/mine.fails", "w"):
            pass
        wait_until(lambda: n2.status("/reinitialize", "POST", {}, 30)[0] == 200, 20, "n2 is made anew")
        wait_until(lambda: len(n2.calls()) == 4, 30, "both were tried again")
        wait_until(n2.streams_from_somebody, 60, "n2 streams")
        assert "port=%d" % n1.pg in n2.calls()[3]
        text = n2.proc.text()
        assert "job started name=pg_basebackup" in text
        with open(n2.dir + "/data/backup_label.old") as f:
            assert "LABEL: its-own" in f.read()
        os.unlink(n2.base + "/mine.fails")
        # From the leader, by name of the request: PostgreSQL's own program alone.
        wait_until(lambda: n2.status("/reinitialize", "POST", {"from-leader": True}, 30)[0] == 200, 20, "n2 is made anew")
        wait_until(lambda: n2.proc.text().count("job started name=pg_basebackup") == 2, 30, "by pg_basebackup")
        wait_until(n2.streams_from_somebody, 60, "n2 streams")
        assert len(n2.calls()) == 4
    finally:
        c.stop()
