"""Noticing that a bridge has lost its flows: nothing passes until they are back.

They are gone when the switch was started anew, and when somebody has added the first controller or removed
the last one (ofproto/connmgr.c). A start ends a connection at once; of a controller nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from pynetwork.drivers.overlay_flows import NETWORKS
from pynetwork.errors import PynetworkError
from pynetwork.resources.ovs import PLANNED

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.ovs.channel import Channel

__all__ = ["SwitchWatch"]

_PAUSE_SECONDS: Final = 0.02  # between looks for a switch that is away
_LONG_PAUSE_SECONDS: Final = 1.0  # when it has been for a while, or there is no bridge yet
_SHORT_PAUSES: Final = 500
_LOOK_SECONDS: Final = 0.5  # between looks at the one table that has a flow of ours whenever any has
_MOST_LOOK_SECONDS: Final = 60.0  # when somebody takes them away again and again


class SwitchWatch:
    """
    Waits, in a thread of its own, on a connection that ends with the switch.

    Args:
        channel: Connection to the bridge, used for nothing else; closed with this.
        restore: Called in that thread when the bridge is there and has no flows any more; returns whether
            that was of use: else it is called again.
        is_wanted: Whether there should be such a bridge: to find it when it was missing is like a start.
        runs: Whether the switch runs, with or without the bridge.
    """

    def __init__(
        self,
        channel: Channel,
        restore: Callable[[], bool],
        is_wanted: Callable[[], bool],
        runs: Callable[[], bool],
    ) -> None:
        self._channel = channel
        self._restore = restore
        self._is_wanted = is_wanted
        self._runs = runs
        self._ending, self._poked = threading.Event(), threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._had_flows = False
        self._was_there = self._is_there()
        self._thread = threading.Thread(target=self._work, name="pynetwork-ovs-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Idempotent."""
        if not self._ending.is_set():
            self._ending.set()
            self._poked.set()
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)
            self._channel.close()

    def poke(self) -> None:
        """Look at once: there are flows of ours, on a bridge that was made just now, perhaps."""
        self._poked.set()

    def _is_there(self) -> bool:
        try:
            self._had_flows = self._has_flows()
        except PynetworkError:
            return False
        return True

    def _has_flows(self) -> bool:
        return bool(self._channel.flows(PLANNED, table=NETWORKS))

    def _work(self) -> None:
        is_there = self._was_there
        is_due = not is_there and self._is_wanted()  # it has lost what is on it, or is about to
        tries = 0
        while not self._ending.is_set():
            if is_there and not is_due:
                with contextlib.suppress(PynetworkError):  # gone already
                    self._look_until_it_ends()
                is_there, is_due, tries = False, True, 0
            elif (is_there := self._is_there()) or (is_due and tries > _SHORT_PAUSES and self._is_lost()):
                is_due = is_due and not self._restore()
                if is_due:
                    self._pause(_LONG_PAUSE_SECONDS)
            else:
                was_due, is_due = is_due, self._is_wanted()
                tries = tries + 1 if was_due or not is_due else 0
                is_long = not is_due or tries > _SHORT_PAUSES
                self._pause(_LONG_PAUSE_SECONDS if is_long else _PAUSE_SECONDS)

    def _pause(self, seconds: float) -> None:
        if self._poked.wait(seconds) and not self._ending.is_set():
            self._poked.clear()

    def _look_until_it_ends(self) -> None:
        """Wait until the switch, or this, ends; meanwhile see to it that the bridge has flows."""
        seconds, is_new = _LOOK_SECONDS, not self._had_flows
        while not self._channel.wait_for_end(self._wake, seconds):
            if self._ending.is_set():
                return
            if self._has_flows():
                seconds = _LOOK_SECONDS
            elif not is_new:
                self._restore()
                seconds = min(2 * seconds, _MOST_LOOK_SECONDS)
            is_new = False  # who has made the bridge gives it flows in no time

    def _is_lost(self) -> bool:
        """Whether the switch runs without a bridge that it should have: its database was lost."""
        return self._is_wanted() and self._runs()
