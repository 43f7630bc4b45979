"""What the machine costs writers while a test measures: pace.py, and beside the processors the disk, which may take a second for a
block; then nobody writes, renews or answers in time. A figure is held to its bound without those times."""
import os
import threading
import time

from pace import Pace
from util import give_to_pg_user, wait_until

EVERY_S, SLOW_S = 0.1, 0.05


class Stalls(Pace):
    """The disk is the one below `path`."""

    def __init__(self, path):
        self.path = os.path.join(path, "stalls.%d" % id(self))

    def __enter__(self):
        with open(self.path, "wb"):
            give_to_pg_user(self.path)
        super().__enter__()
        self.writer = threading.Thread(target=self.write, daemon=True)
        self.writer.start()
        return self

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.writer.join(10)
        os.unlink(self.path)

    def write(self):
        with open(self.path, "wb", buffering=0) as f:
            while not self.ending.wait(EVERY_S):
                begin = time.monotonic()
                f.seek(0)
                f.write(b"x" * 8192)
                os.fsync(f.fileno())
                now = time.monotonic()
                if now - begin > SLOW_S:
                    self.gaps.append((begin, now))

    def longest_gap(self, times):
        """The longest time between two of these instants, as the machine ran."""
        times, longest = sorted(times), 0.0
        for a, b in sorted(zip(times, times[1:]), key=lambda x: x[0] - x[1]):
            if b - a <= longest:
                break
            longest = max(longest, self.took(a, b))
        return longest

    def wait(self, cond, seconds, what):
        """The condition holds before the machine ran for so many seconds."""
        begin = time.monotonic()
        wait_until(cond, 2 * seconds + 5, what)
        took = self.took(begin)
        assert took <= seconds, "%s: after %.1f s, allowed are %.1f" % (what, took, seconds)
