"""The host's own name servers, read again when its files have changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from pynetwork.dns.zone import Server
from pynetwork.kernel import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["HostServers"]

_LOOK_SECONDS: Final = 0.1
_SERVERS_MAX: Final = 3  # MAXNS of resolv.conf(5)


class HostServers:
    """
    The host's name servers, as ``/etc/resolv.conf`` says at the time.

    Whoever asks looks whether the file has changed, now and then; nothing happens when nobody asks. It may be
    written, replaced, or be a link to another that is.

    Args:
        clock: Seconds.
        files: What is looked at.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        files: tuple[Path, Path] = (facts.RESOLV_CONF, facts.RESOLVED_CONF),
    ) -> None:
        self._clock = clock
        self._files = files
        self._next = float("-inf")
        self._mark: object = None
        self._servers: tuple[Server, ...] = ()

    def __call__(self) -> Sequence[Server]:
        """Return them."""
        now = self._clock()
        if now >= self._next:
            self._next = now + _LOOK_SECONDS
            mark = [_mark(path) for path in self._files]
            if mark != self._mark:
                self._mark = mark
                found = facts.nameservers(*self._files)
                self._servers = tuple(Server(str(address)) for address in found[:_SERVERS_MAX])
        return self._servers


def _mark(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_dev
