"""The worker as its parent sees it: started when first needed, started again when it died."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pynetwork.errors import UnavailableError
from pynetwork.kernel.iptables import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.iptables.wire import Message

__all__ = ["Worker", "WorkerLostError"]

_START_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 60.0
_END_SECONDS: Final = 5.0


class WorkerLostError(Exception):
    """The worker ended, or fell silent, in the middle of a request."""


class _EndedError(WorkerLostError):
    """It ended."""


class Worker:
    """
    One process of :mod:`pynetwork.kernel.iptables.worker`. For one caller at a time.

    Args:
        version: 4 or 6.
        home: Calls a function in the host's network namespace.
    """

    def __init__(self, version: int, home: Callable[[Callable[[], object]], object]) -> None:
        self._version = version
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._messages = -1
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Message, hear: Callable[[Message], None] = lambda _: None) -> Message:
        """
        Return the answer to *request*, with ``done`` or ``error``.

        Args:
            request: What it should do.
            hear: Called with what it says before that.

        Raises:
            WorkerLostError: It died meanwhile.
            UnavailableError: It cannot be had.
        """
        heard: list[Message] = []
        with self._lock:
            try:
                return self._ask(request, hear, heard)
            except _EndedError:
                if heard:
                    raise
            # It was dead before, or did nothing that anybody saw.
            return self._ask(request, hear, heard)

    def _ask(self, request: Message, hear: Callable[[Message], None], heard: list[Message]) -> Message:
        process = self._running()
        try:
            answer = self._exchange(process, request)
            while "done" not in answer and "error" not in answer:
                heard.append(answer)
                hear(answer)
                answer = self._exchange(process)
        except BaseException:
            self._end(kill=True)
            raise
        return answer

    def close(self) -> None:
        """End it. Idempotent."""
        with self._lock:
            self._end()

    def _exchange(self, process: subprocess.Popen[bytes], request: Message | None = None) -> Message:
        try:
            if request is not None:
                wire.send(_descriptor(process.stdin), request)
            answer = wire.receive(_descriptor(process.stdout), _ANSWER_SECONDS)
        except BrokenPipeError:
            answer = None
        except TimeoutError:
            msg = f"the iptables worker has not answered for {_ANSWER_SECONDS:.0f} seconds"
            raise WorkerLostError(msg) from None
        if answer is None:
            process.kill()  # it may only have lost its wits
            status = process.wait()
            said = self._said()
            msg = f"the iptables worker ended with status {status}" + (f": {said}" if said else "")
            raise _EndedError(msg)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            self._start()
        assert self._process is not None  # noqa: S101 - just started
        return self._process

    def _start(self) -> None:
        # Warnings of python-iptables are none of the user's business, nor may they become errors.
        code = ("-W", "ignore", "-m", "pynetwork.kernel.iptables.worker")
        command = [sys.executable, *code, str(self._version), str(os.getpid())]
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" is this directory
        # python-iptables imports distutils, for which setuptools, if it is there, has a slow substitute.
        environment = {
            "SETUPTOOLS_USE_DISTUTILS": "stdlib",
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
        }
        self._messages = os.memfd_create("pynetwork-iptables")

        def start() -> None:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                env=environment,
                bufsize=0,
            )

        try:
            self._home(start)
            assert self._process is not None  # noqa: S101 - or there was an error
            self._greet(self._process)
        except BaseException:
            self._end(kill=True)
            raise

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        try:
            hello = wire.receive(_descriptor(process.stdout), _START_SECONDS)
        except TimeoutError:
            hello = None
        if hello is None or "error" in hello:
            process.kill()
            status = process.wait()
            said = self._said() if hello is None else hello["message"]
            why = said or f"the worker does not start, and ended with status {status}"
            msg = f"iptables rules cannot be written: {why}"
            raise UnavailableError(msg)

    def _said(self) -> str:
        """Return the last line of what it wrote for people."""
        size = os.fstat(self._messages).st_size
        lines = os.pread(self._messages, 4096, max(0, size - 4096)).decode(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def _end(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            if kill:
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()
            process.wait()
        if self._messages >= 0:
            os.close(self._messages)
            self._messages = -1


def _descriptor(pipe: object) -> int:
    return pipe.fileno()  # type: ignore[attr-defined,no-any-return]  # asked for as a pipe
