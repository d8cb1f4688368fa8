"""Crash tests with a real ``SIGKILL``: code in a process of its own that dies at a chosen step.

The child inherits the namespaces of the thread that starts it, so it works on the same private host
as its test. What it runs wraps its kernel or store in :class:`SuicidalKernel` or
:class:`SuicidalStore`, or says that it has got somewhere with :func:`reach` and is killed there::

    with Child("from pynetwork.testing import reach; reach('here')") as child:
        child.wait_for("here")
        child.kill()
"""

from __future__ import annotations

import contextlib
import inspect
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from typing import IO, TYPE_CHECKING, Final, NoReturn, Self, cast

from pynetwork.testing.chaos import Chaos, ChaosStore, Fate

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pynetwork.kernel.port import Kernel
    from pynetwork.store.port import Store

__all__ = ["Child", "SuicidalKernel", "SuicidalStore", "reach"]

_MARK: Final = "reached "


class _Suicide(Fate):
    def kill(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        # The signal is pending when kill() returns, at the latest; nothing below runs.
        raise AssertionError


class SuicidalKernel(Chaos):
    """
    A kernel that kills its process, really, with ``SIGKILL``.

    Args:
        kernel: The host.
        at: After this many steps, see ``die_at`` of :class:`~pynetwork.testing.Chaos`.
    """

    def __init__(self, kernel: Kernel, at: int) -> None:
        super().__init__(kernel, die_at=at, fate=_Suicide())


class SuicidalStore(ChaosStore):
    """
    A store that kills its process, really, with ``SIGKILL``.

    Args:
        store: The records.
        at: The transaction, counted from 0.
        after: Once it is written, else before.
    """

    def __init__(self, store: Store, at: int, *, after: bool = False) -> None:
        super().__init__(store, die_at=at, after=after, fate=_Suicide())


def reach(point: str) -> None:
    """Tell the parent that *point* is reached, and wait for :meth:`Child.proceed`, or to be killed."""
    sys.stdout.write(f"{_MARK}{point}\n")
    sys.stdout.flush()
    sys.stdin.readline()


class Child:
    """
    Python code in a process of its own, killed at the end of the ``with`` block if not before.

    Args:
        code: Source text; or a function that needs nothing but its arguments, which are text (its
            source is what is run, so it imports what it uses).
        args: ``sys.argv[1:]`` of the source text, or the arguments of the function.
        timeout: Seconds until waiting for it is an error.

    Attributes:
        pid: Its process id.
        output: The lines it has printed so far, its points not among them.
    """

    def __init__(self, code: str | Callable[..., object], *args: str, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._process = subprocess.Popen(  # noqa: S603 - runs this very interpreter on a test's own code
            [sys.executable, "-c", _source(code), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._unread = b""
        self.pid = self._process.pid
        self.output: list[str] = []

    def __repr__(self) -> str:
        return f"<Child(pid={self.pid}, status={self._process.returncode})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._close()

    def wait_for(self, point: str) -> None:
        """
        Wait until the child reaches *point*, where it stops.

        Raises:
            TimeoutError: It does not get there in time.
            RuntimeError: It ended, or stopped at another point.
        """
        deadline = time.monotonic() + self._timeout
        while line := self._read_line(deadline):
            line = line.rstrip("\n")
            if line == f"{_MARK}{point}":
                return
            if line.startswith(_MARK):
                msg = f"{self} stopped at {line.removeprefix(_MARK)!r}, not at {point!r}"
                raise RuntimeError(msg)
            self.output.append(line)
        if line is None:
            msg = f"{self} did not reach {point!r} within {self._timeout} seconds"
            raise TimeoutError(msg)
        msg = f"{self} ended with status {self.wait()} before it reached {point!r}"
        raise RuntimeError(msg)

    def proceed(self) -> None:
        """Let a child go on that stopped at a point."""
        self._stdin.write(b"\n")
        self._stdin.flush()

    def kill(self) -> int:
        """Kill it with ``SIGKILL``, if it still runs, and return its exit status."""
        self._process.kill()
        # What it started may hold its output open, so the end of that is not waited for.
        status = self._process.wait(self._timeout)
        self._read_all(time.monotonic())
        return status

    def wait(self) -> int:
        """
        Wait for its end and return its exit status: ``-signal.SIGKILL`` when it was killed.

        Raises:
            TimeoutError: It does not end in time.
        """
        deadline = time.monotonic() + self._timeout
        if self._process.poll() is None:
            self._read_all(deadline)
        try:
            status = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            msg = f"{self} still runs after {self._timeout} seconds"
            raise TimeoutError(msg) from error
        self._read_all(time.monotonic())
        return status

    def _read_all(self, deadline: float) -> None:
        """Read its output, as far as there is any by *deadline*."""
        while not self._stdout.closed and (line := self._read_line(deadline)):
            self.output.append(line.rstrip("\n"))

    def _read_line(self, deadline: float) -> str | None:
        """Return the next line of its output, empty at the end, or None when there is none by *deadline*."""
        while b"\n" not in self._unread:
            poll = select.poll()
            poll.register(self._stdout, select.POLLIN)
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(self._stdout.fileno(), 65536)
            if not chunk:
                last, self._unread = self._unread, b""
                return last.decode()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return f"{line.decode()}\n"

    def _close(self) -> None:
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # of a proceed() that came too late
            self._stdin.close()


def _source(code: str | Callable[..., object]) -> str:
    if isinstance(code, str):
        return textwrap.dedent(code)
    definition = textwrap.dedent(inspect.getsource(code))
    return f"from __future__ import annotations\nimport sys\n{definition}\n{code.__name__}(*sys.argv[1:])\n"
