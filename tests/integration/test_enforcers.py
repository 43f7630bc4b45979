"""A short run of tests/chaos/enforcers.py: kills and stops of every process and of pairs of them under load. The seed is
printed; PGREGENT_CHAOS_SEED repeats a run."""
import os
import random
import sys

import pytest

import util

sys.path.insert(0, os.path.join(util.ROOT, "tests", "chaos"))
import enforcers  # noqa: E402

ROUNDS, CONNECTIONS = 30, 200


@pytest.mark.alone
def test_chaos_of_the_enforcers(work, pg_template):
    seed = int(os.environ.get("PGREGENT_CHAOS_SEED", 0)) or random.SystemRandom().randint(1, 999999)
    chaos = enforcers.run_chaos(work, pg_template, ROUNDS, seed, CONNECTIONS)
    assert chaos.count["rounds"] == ROUNDS and chaos.count["commits"] > 1000 and chaos.count["acknowledged"] > 100
