"""The name server in a process of its own, as a controller sees it: started when needed, and asked."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from pynetwork.dns.statistics import DnsStatistics
from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pynetwork.dns.place import Place
    from pynetwork.engine.mirror import Mirror
    from pynetwork.records import Records

__all__ = ["Companion", "command"]

_ANSWER_SECONDS: Final = 2.0
_START_SECONDS: Final = 15.0
_AGAIN_SECONDS: Final = 0.02


def command(state_dir: Path, run_dir: Path) -> list[str]:
    """Return how a companion is started: it returns 0 once the companion serves, which goes on alone."""
    directories = ["--state-dir", str(state_dir.absolute()), "--run-dir", str(run_dir.absolute())]
    return [sys.executable, "-m", "pynetwork.dns", *directories, "--detach"]


class Companion:
    """
    Has the sandboxes of an instance served by a process that outlives this one.

    Args:
        mirror: The instance's store.
        records: The mirror's table of networks, endpoints and sandboxes.
        place: Where the instance's processes meet.
        home: Calls a function in the host's network namespace.
        argv: Starts a companion, see :func:`command`.
    """

    def __init__(
        self,
        mirror: Mirror,
        records: Records,
        place: Place,
        home: Callable[[Callable[[], subprocess.Popen[bytes]]], subprocess.Popen[bytes]],
        argv: Sequence[str],
    ) -> None:
        self._mirror = mirror
        self._records = records
        self._place = place
        self._home = home
        self._argv = tuple(argv)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        with mirror.lock:
            records.follow(self._follow)

    def ensure(self, sandbox: str) -> None:
        """Return once the names of the sandbox of that id can be asked in it, as far as it is to have any."""
        if not any(row.spec.addresses for row in self._records.joined(sandbox)):
            return
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            found = self._place.ask({"op": "ready", "sandbox": sandbox}, _ANSWER_SECONDS)
            if found is not None and found.get("companion") and found.get("settled"):
                return
            if not self._start():
                break
            time.sleep(_AGAIN_SECONDS)
        logger().warning("dns: sandbox %s has no name server yet", sandbox[:12])

    def statistics(self) -> DnsStatistics:
        """Return what the companion has done so far; all zero when there is none."""
        found = self._place.ask({"op": "statistics"}, _ANSWER_SECONDS)
        return DnsStatistics() if found is None else DnsStatistics(**found)

    def revive(self) -> None:
        """Start it again if it is gone and there is something to serve; have it look after its sockets."""
        if self._records.has_joined() and self._start():
            self._place.ask({"op": "check"}, _ANSWER_SECONDS)

    def close(self) -> None:
        """See a start to its end; the companion stays. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            with self._mirror.lock:
                self._records.followers.remove(self._follow)
        if self._thread is not None:
            self._thread.join()

    def _follow(self, key: str, spec: Any) -> None:  # noqa: ANN401 - of the kind that the key says
        """Start it, beside what the caller does, when the first endpoint joins."""
        if self._thread is None and key.startswith("endpoint/") and spec is not None and spec.sandbox:
            self._thread = threading.Thread(target=self._start, name="pynetwork-companion", daemon=True)
            self._thread.start()

    def _start(self) -> bool:
        """Start it unless it runs; returns whether it does."""
        with self._starting:
            found = self._place.ask({"op": "who"}, _ANSWER_SECONDS)
            if found is not None and found.get("companion"):
                return True
            try:
                why = self._run()
            except (OSError, subprocess.TimeoutExpired) as error:
                why = str(error)
            if why is not None:
                logger().warning("dns: the companion cannot be started: %s", why)
            return why is None

    def _run(self) -> str | None:
        """Start it, and wait until it serves; returns why it does not."""
        with self._home(self._popen) as process:
            try:
                _, errors = process.communicate(timeout=_START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return None if not process.returncode else errors.decode(errors="replace").strip()[-500:]

    def _popen(self) -> subprocess.Popen[bytes]:
        """Start the process; whoever calls is where it is going to be."""
        return subprocess.Popen(  # noqa: S603 - this very interpreter
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
