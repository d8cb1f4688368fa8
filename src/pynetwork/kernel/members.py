"""Processes as /proc shows them: who is in a control group, or in a network namespace."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Process", "is_process", "pids_in_namespace", "process", "tasks_of"]


@attrs.frozen(kw_only=True)
class Process:
    """
    A process in a sandbox.

    Args:
        pid: Its id, in the pid namespace of the caller.
        name: What the kernel calls it, 15 bytes at most (``comm``).
        argv: Program and arguments, as it shows them; empty for one that has ended and was not waited for.
    """

    pid: int
    name: str
    argv: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.pid} {' '.join(self.argv) or self.name}"


def process(pid: int) -> Process | None:
    """Return the process of that id, None when there is none."""
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes()
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    words = line.decode(errors="replace").split("\0")[:-1]
    return Process(pid=pid, name=name.decode(errors="replace").rstrip("\n"), argv=tuple(words))


def tasks_of(directory: Path, file: str) -> set[int]:
    """Return the ids in *file* of a control group and of those below it; one that is gone is empty."""
    found: set[int] = set()
    with suppress(OSError):
        found.update(map(int, (directory / file).read_text(encoding="ascii").split()))
        found.update(
            task for child in os.scandir(directory) if child.is_dir() for task in tasks_of(Path(child), file)
        )
    return found


def is_process(task: int, tasks: Collection[int]) -> bool:
    """Return whether *task* of a control group stands for its process: its first thread, or what is left."""
    try:
        status = Path(f"/proc/{task}/status").read_bytes()
    except OSError:
        return False
    leader = int(status.partition(b"\nTgid:")[2].split(b"\n", 1)[0])
    if leader == task:
        return not _has_ended(status)
    if leader in tasks:
        return False
    with suppress(OSError):
        return _has_ended(Path(f"/proc/{leader}/status").read_bytes())
    return False


def _has_ended(status: bytes) -> bool:
    return status.partition(b"\nState:")[2].split(maxsplit=1)[0] in {b"Z", b"X"}


def pids_in_namespace(path: str) -> list[int]:
    """Return the ids of the processes that are in the network namespace that *path* is."""
    try:
        wanted = os.stat(path)  # noqa: PTH116 - as below
    except OSError:
        return []
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{entry.name}/ns/net"), wanted):  # noqa: PTH116
                    found.append(int(entry.name))
    return sorted(found)
