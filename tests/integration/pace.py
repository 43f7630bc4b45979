"""Time as the machine had it. A virtual machine may stand still for a second, all of it or one of its processors; a bound of some hundred
milliseconds says nothing about the product then. What stood still is measured here, and left out."""
import contextlib
import os
import threading
import time

STEP, SLACK = 0.01, 0.05  # seconds; a watcher that wakes up later than that has seen its processor stand still
DISTURBED = 0.1


class Pace:
    """Watches every processor while it is entered."""

    def __enter__(self):
        self.gaps, self.ending = [], threading.Event()
        cpus = sorted(os.sched_getaffinity(0))
        self.last = {cpu: time.monotonic() for cpu in cpus}
        self.threads = [threading.Thread(target=self._watch, args=(cpu,), daemon=True) for cpu in cpus]
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.ending.set()
        for t in self.threads:
            t.join(10)

    def _watch(self, cpu):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpu})  # this thread alone
        while not self.ending.is_set():
            time.sleep(STEP)
            now = time.monotonic()
            if now - self.last[cpu] > STEP + SLACK:
                self.gaps.append((self.last[cpu], now))
            self.last[cpu] = now

    def lost(self, since=0.0, until=None):
        """Seconds of this stretch in which a processor stood still."""
        until = time.monotonic() if until is None else until
        while min(self.last.values()) < until and any(t.is_alive() for t in self.threads):
            time.sleep(STEP)  # a gap is known at its end
        total, covered = 0.0, since
        for begin, end in sorted(self.gaps):
            begin, end = max(begin, covered), min(end, until)
            if end > begin:
                total, covered = total + end - begin, end
        return total

    def longest(self, since):
        """The longest that a processor stood still since then."""
        self.lost(since)
        return max((end - begin for begin, end in list(self.gaps) if end > since), default=0.0)

    def took(self, since, until=None):
        """Seconds of this stretch in which the machine ran."""
        until = time.monotonic() if until is None else until
        return until - since - self.lost(since, until)


def undisturbed(attempt, tries=5):
    """What attempt() returns. When it fails while the machine stands still, that says nothing and it is made again; a failure of its own
    counts at once."""
    for left in reversed(range(tries)):
        with Pace() as pace:
            try:
                return attempt()
            except AssertionError:
                if left == 0 or pace.lost() < DISTURBED:
                    raise
