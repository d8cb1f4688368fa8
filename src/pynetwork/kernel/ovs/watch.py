"""Noticing that a switch was started anew: it has no flows then, and nothing passes until they are back."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from pynetwork.errors import PynetworkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.ovs.channel import Channel

__all__ = ["SwitchWatch"]

_PAUSE_SECONDS: Final = 0.02  # between looks for a switch that is away
_LONG_PAUSE_SECONDS: Final = 1.0  # when it has been for a while, or there is no bridge yet
_SHORT_PAUSES: Final = 500


class SwitchWatch:
    """
    Waits, in a thread of its own, on an idle connection that ends with the switch.

    Args:
        channel: Connection to the bridge, used for nothing else; closed with this.
        restarted: Called in that thread when the switch is there again.
    """

    def __init__(self, channel: Channel, restarted: Callable[[], None]) -> None:
        self._channel = channel
        self._restarted = restarted
        self._ending = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._was_there = self._is_there()
        self._thread = threading.Thread(target=self._work, name="pynetwork-ovs-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Idempotent."""
        if not self._ending.is_set():
            self._ending.set()
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)
            self._channel.close()

    def _is_there(self) -> bool:
        try:
            self._channel.check()
        except PynetworkError:
            return False
        return True

    def _work(self) -> None:
        is_there = was_there = self._was_there
        tries = 0
        while not self._ending.is_set():
            if is_there:
                with contextlib.suppress(PynetworkError):  # gone already
                    self._channel.wait_for_end(self._wake)
                is_there, tries = False, 0
            elif self._is_there():
                if was_there:
                    self._restarted()
                is_there = was_there = True
            else:
                tries += 1
                is_long = not was_there or tries > _SHORT_PAUSES
                self._ending.wait(_LONG_PAUSE_SECONDS if is_long else _PAUSE_SECONDS)
