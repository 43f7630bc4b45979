"""Mounts for tests that are root, in a mount namespace of the test run: they vanish with it, and nobody else sees them."""
import ctypes
import errno
import os
import signal
import subprocess

from util import Process, give_to_pg_user, program, wait_until

CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
libc = ctypes.CDLL(None, use_errno=True)
own = []


def private():
    """Once in this process; its children inherit it."""
    assert os.geteuid() == 0, "mounting needs root"
    if own:
        return
    for rc in (libc.unshare(CLONE_NEWNS), libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)):
        if rc != 0:
            raise OSError(ctypes.get_errno(), "a mount namespace of our own: " + os.strerror(ctypes.get_errno()))
    own.append(True)


def unmount(path):
    libc.umount2(path.encode(), MNT_DETACH)


def bind(what, path):
    """The file `what` is seen as `path`."""
    subprocess.run(["mount", "--bind", what, path], check=True, timeout=10)


class SmallDisk:
    """What is below `path` has this much space."""

    def __init__(self, path, size):
        private()
        self.path = path
        os.makedirs(path, 0o700, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d,mode=0700" % size, "none", path], check=True, timeout=10)
        give_to_pg_user(path)

    def fill(self):
        """Until not a byte fits."""
        with open(self.path + "/filler", "wb", buffering=0) as f:
            for size in (1 << 20, 4096, 1):
                try:
                    while f.write(b"x" * size) == size:
                        pass
                except OSError as e:
                    assert e.errno == errno.ENOSPC

    def free(self):
        os.unlink(self.path + "/filler")

    def close(self):
        unmount(self.path)


class StallingDisk:
    """What is below `path` is on a disk that can be told to stall."""

    def __init__(self, path):
        private()
        self.path = path
        for p in (path, path + ".disk"):
            os.makedirs(p, 0o700, exist_ok=True)
            give_to_pg_user(p)
        self.proc = Process([program("tests/integration/stallfs"), path + ".disk", path], path + ".stallfs.log")
        wait_until(lambda: os.path.ismount(path), 10, "the file system is mounted: " + self.proc.text())

    def stall(self):
        self.proc.signal(signal.SIGUSR1)

    def holds(self, pid):
        """This process has asked the stalled disk for something."""
        return f"{pid} waits\n" in self.proc.text()

    def resume(self):
        self.proc.signal(signal.SIGUSR2)

    def close(self):
        """Whoever sleeps in it wakes up with an error."""
        unmount(self.path)
        self.proc.kill()
