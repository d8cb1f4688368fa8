"""Runs a program on a host of its own: ``unshare ... python private_host.py SECONDS ARGV...``.

The caller makes the network and mount namespaces; this puts empty file systems where networks leave
files, runs the program, and fails when it leaves links, pinned namespaces or processes behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PRIVATE_DIRECTORIES = ("/run", "/var/lib")
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0  # the kernel removes a namespace's links a little after its last user left


def children() -> list[int]:
    """Return the process ids of the children: orphans of the program become ours."""
    lists = (task / "children" for task in Path("/proc/self/task").iterdir())
    return [int(pid) for one in lists for pid in one.read_text().split()]


def observe() -> set[str]:
    """Return what a program could leave behind, as text."""
    links = {f"link {name}" for _, name in socket.if_nameindex()}
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = {f"namespace {line.split()[4]}" for line in lines if " - nsfs " in line}
    processes = {f"process {pid} {Path(f'/proc/{pid}/comm').read_text().strip()}" for pid in children()}
    return links | mounts | processes


def prepare() -> None:
    for directory in PRIVATE_DIRECTORIES:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(argv: list[str], seconds: float) -> int:
    """Return the exit status of the program, or what a shell calls one that takes too long."""
    try:
        return subprocess.run(argv, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"still running after {seconds:.0f} s\n")
        return 124


def bury() -> None:
    """Wait for the orphans that have ended: nobody else does."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def leftovers(before: set[str]) -> set[str]:
    """Return what is there and was not before, with some patience, and end the processes among it."""
    deadline = time.monotonic() + GRACE_SECONDS
    bury()
    while (left := observe() - before) and time.monotonic() < deadline:
        bury()
        time.sleep(0.02)
        bury()
    for pid in children():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return left


def main() -> int:
    seconds, *argv = sys.argv[1:]
    prepare()
    before = observe()
    status = run(argv, float(seconds))
    left = leftovers(before)
    sys.stderr.writelines(f"left behind: {thing}\n" for thing in sorted(left))
    return status or int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
