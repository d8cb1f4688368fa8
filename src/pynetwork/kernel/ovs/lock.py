"""Which of several processes is the host's agent: the one that holds a lock of the host's database.

Each may write records; only the holder programs flows. The server gives the lock to the next as soon as
the holder's connection is gone, however it ended (RFC 7047 section 4.1.8).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from pynetwork.errors import PynetworkError
from pynetwork.kernel.ovs.session import DATABASE, LostError, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.ovs.place import Place

__all__ = ["HostLock"]

_PAUSE_SECONDS: Final = 0.2  # between tries to reach a server that is away


class HostLock:
    """
    A place in the queue for the lock, held until it is closed.

    Args:
        place: Whose database.
        name: Of the lock; there is one of each name on a host.
        changed: Called, in a thread of ours, when the lock was won or lost.

    Raises:
        UnavailableError: The database does not answer.
    """

    def __init__(self, place: Place, name: str, changed: Callable[[bool], None] | None = None) -> None:
        self._place = place
        self._name = name
        self._changed = changed
        self._held = threading.Event()
        self._ending = threading.Event()
        session = self._open()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(
            target=self._work, args=(session,), name="pynetwork-ovs-lock", daemon=True
        )
        self._thread.start()

    @property
    def is_held(self) -> bool:
        """Whether it is ours."""
        return self._held.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is ours; returns whether it is."""
        return self._held.wait(seconds)

    def close(self) -> None:
        """Give it up. Idempotent."""
        if not self._ending.is_set():
            self._ending.set()
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)

    def _open(self) -> Session:
        session = Session(self._place, {DATABASE: ("cur_cfg",)})
        session.idl.set_lock(self._name)
        return session

    def _work(self, session: Session | None) -> None:
        while not self._ending.is_set():
            if session is None:
                session = self._again()
                continue
            try:
                session.run()
                self._tell(is_held=session.idl.has_lock)
                session.block(self._wake)
            except LostError:
                self._tell(is_held=False)
                session.close()
                session = None
        if session is not None:
            session.close()
        self._tell(is_held=False)

    def _again(self) -> Session | None:
        with contextlib.suppress(PynetworkError):
            return self._open()
        self._ending.wait(_PAUSE_SECONDS)
        return None

    def _tell(self, *, is_held: bool) -> None:
        if is_held == self._held.is_set():
            return
        if is_held:
            self._held.set()
        else:
            self._held.clear()
        if self._changed is not None:
            self._changed(is_held)
