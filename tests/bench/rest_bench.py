#!/usr/bin/env python3
"""GET /primary of a real pgregent-api: requests per second and latency with 16 connections, kept alive and closed, and
latency of health checks while PostgreSQL hangs. Prints a table. Needs the release build with its integration programs (make integration-bins)."""
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))
os.environ.setdefault("PGREGENT_BUILD", "build/release")
import apirig  # noqa: E402
import util  # noqa: E402

SECONDS = sys.argv[1] if len(sys.argv) > 1 else "5"


def load(rig, path, connections, mode):
    out = subprocess.run([util.program("tests/integration/restload"), str(rig.port), path, str(connections), mode, SECONDS],
                         capture_output=True, text=True, timeout=120, check=True).stdout
    print(f"{path:12} {connections:4} {mode:6} {out.strip()}")


def memory(rig):
    pid = [p for p in util.descendants(rig.proc.pid)][0]
    with open(f"/proc/{pid}/smaps_rollup") as f:
        rows = dict(line.split(":", 1) for line in f if ":" in line and "-" not in line.split(":")[0])
    print("memory", *(f"{k}={rows[k].split()[0]}kB" for k in ("Rss", "Pss", "Private_Dirty") if k in rows))


with tempfile.TemporaryDirectory(prefix="pgrb", dir="/tmp") as tmp:
    rig = apirig.Rig(tmp)
    rig.configure()
    rig.publish()
    memory(rig)
    for path in ("/primary", "/health"):
        load(rig, path, 16, "keep")
        load(rig, path, 16, "close")
    memory(rig)
    rig.answer("pg_facts", 0)
    rig.status("/health")
    for path in ("/primary", "/health"):
        load(rig, path, 16, "keep")
    rig.close()
