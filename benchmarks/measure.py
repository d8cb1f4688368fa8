"""What the benchmarks share: order statistics, readings of a process, tables, programs that take commands.

Nothing here knows what is measured. The readings come from ``/proc`` and are taken from outside,
so that taking them costs the measured program nothing.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = [
    "ROOT",
    "Figures",
    "Program",
    "ProgramError",
    "machine",
    "percentile",
    "print_table",
    "python",
    "window",
]

#: The root of the repository; programs run there, so that ``python -m benchmarks.x`` finds its module.
ROOT = Path(__file__).resolve().parents[1]

#: What a study found: figures by name, by contestant.
Figures: TypeAlias = dict[str, dict[str, float]]

POLL_SECONDS = 0.0005
GONE_TIMEOUT_SECONDS = 60.0


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that *percent* of all samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def window(samples: Sequence[float], position: int, half_width: int = 10) -> Sequence[float]:
    """Return the samples around the *position*-th (counted from 1), fewer at the ends."""
    return samples[max(0, position - 1 - half_width) : position + half_width]


def machine() -> dict[str, object]:
    """Return what a reader needs to know to compare figures: kernel, Python and number of cores."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, the first column to the left and numbers to the right."""
    lines = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        first, *others = (
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(("", first, *others)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return str(value)


class ProgramError(Exception):
    """A program could not start, or broke off; the text says why."""


class Program:
    """
    A program that answers ``wire N`` and ``unwire N`` on its standard streams, see ``floor.c``.

    It makes itself a private network namespace, so its process id is the key to its links and mounts.

    Args:
        name: For tables.
        argv: How to start it. ``{state}`` stands for a directory that lives as long as the program.
    """

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self.name = name
        self._state = tempfile.TemporaryDirectory(prefix="pynetwork-benchmark-")
        self._process = subprocess.Popen(
            [word.replace("{state}", self._state.name) for word in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            self._expect_ready()
        except ProgramError:
            self.close()
            raise
        self._links_at_start = self.links()
        self.wired = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program: it cleans up at the end of its input."""
        self._process.communicate()
        self._state.cleanup()
        if self._process.returncode:
            print(f"{self.name} ended with status {self._process.returncode}", file=sys.stderr)

    def wire(self, count: int, threads: int = 1) -> tuple[list[list[float]], float]:
        """Wire *count* containers; return the microseconds of each (total, then parts if any), and of all."""
        self.wired += count
        return self._ask(f"wire {count}" if threads == 1 else f"wire {count} {threads}")

    def unwire(self, count: int) -> list[float]:
        """Unwire the *count* oldest containers; return the microseconds the caller waited for each."""
        samples = [row[0] for row in self._ask(f"unwire {count}")[0]]
        self.wired -= len(samples)
        return samples

    def wait_gone(self) -> None:
        """Wait until the host links of what was unwired are gone."""
        deadline = time.monotonic() + GONE_TIMEOUT_SECONDS
        while self.links() > self._links_at_start + self.wired:
            if time.monotonic() > deadline:
                message = f"{self.name}: {self.links()} links are there for {self.wired} containers"
                raise ProgramError(message)
            time.sleep(POLL_SECONDS)

    def links(self) -> int:
        """Count the links of the program's host namespace."""
        return len(self._proc("net/dev").read_text().splitlines()) - 2

    def namespaces(self) -> int:
        """Count the namespaces that are pinned by a mount."""
        return self._proc("mountinfo").read_text().count(" - nsfs ")

    def descriptors(self) -> int:
        """Count the open file descriptors."""
        return len(list(self._proc("fd").iterdir()))

    def resident_kib(self) -> int:
        """Return the resident memory in KiB."""
        status = self._proc("status").read_text()
        return int(status.split("VmRSS:", 1)[1].split(None, 1)[0])

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self._process.pid}", name)

    def _expect_ready(self) -> None:
        answer = self._read_line()
        if answer != "ready":
            raise ProgramError(answer.removeprefix("unavailable "))

    def _ask(self, command: str) -> tuple[list[list[float]], float]:
        if self._process.stdin is None:  # never: it is a pipe
            raise ProgramError(self.name)
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            message = f"{self.name} is gone, see its messages above"
            raise ProgramError(message) from None
        rows: list[list[float]] = []
        while not (line := self._read_line()).startswith("wall "):
            rows.append([float(field) for field in line.split()])
        return rows, float(line.split()[1])

    def _read_line(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            message = f"{self.name} ended with status {self._process.wait()}, see its messages above"
            raise ProgramError(message)
        return line.rstrip("\n")


def python(*arguments: str) -> list[str]:
    """Return the command line of this Python with *arguments*."""
    return [sys.executable, *arguments]
