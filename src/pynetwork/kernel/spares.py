"""New network namespaces, made ahead: making one takes as long as all the rest of a container."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.netlink import NetlinkSocket

__all__ = ["Opened", "Spares"]

_FEW: Final = 2  # as few are made up for at once
_QUIET_SECONDS: Final = 0.005


class Opened(NamedTuple):
    """A namespace that is open: whoever holds this keeps it alive."""

    descriptor: int
    socket: NetlinkSocket

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
        self.socket.close()


class Spares:
    """
    New namespaces, made ahead by a thread of their own.

    They are made when nobody has wanted one for a while, or when few are left: making them takes the
    kernel's and the interpreter's locks from whoever is wiring containers just now.

    Args:
        make: Returns one. It runs in that thread.
        size: How many are kept; 0 for none, and no thread.
    """

    def __init__(self, make: Callable[[], Opened], size: int) -> None:
        self._make = make
        self._size = size
        self._ready: list[Opened] = []
        self._wanted = threading.Condition()
        self._last_taken = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self) -> Opened | None:
        """Return one that is ready, None when there is none; from now on some are made ahead."""
        if not self._size:
            return None
        with self._wanted:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="pynetwork-spares", daemon=True)
                self._thread.start()
            self._last_taken = time.monotonic()
            if len(self._ready) in {_FEW, self._size}:
                self._wanted.notify()
            return self._ready.pop() if self._ready else None

    def close(self) -> None:
        """Close those that are left and end the thread."""
        with self._wanted:
            self._closed = True
            self._wanted.notify()
        if self._thread is not None:
            self._thread.join()
        while self._ready:
            self._ready.pop().close()

    def _work(self) -> None:
        while self._wait():
            try:
                opened = self._make()
            except OSError:
                return  # the next caller makes its own, and hears why it cannot
            with self._wanted:
                self._ready.append(opened)

    def _wait(self) -> bool:
        """Wait until one should be made; False when it is time to end."""
        with self._wanted:
            while not self._closed:
                missing = self._size - len(self._ready)
                quiet = time.monotonic() - self._last_taken
                if missing and (len(self._ready) < _FEW or quiet >= _QUIET_SECONDS):
                    return True
                self._wanted.wait(_QUIET_SECONDS - quiet if missing else None)
        return False
