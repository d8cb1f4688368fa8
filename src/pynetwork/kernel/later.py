"""What need not be waited for: links deleted in groups, announcements once a bridge port forwards.

Deleting a link waits for RCU grace periods, some 20 ms with the CPU idle; deleting a hundred by their
group waits as long. So a link is handed over by giving it a doomed group, which is cheap, and a
thread deletes the group.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Later"]

_IDLE_SECONDS: Final = 5.0


class Later:
    """
    Calls functions a little later, in a thread of its own that lives while there is work.

    Args:
        idle_seconds: How much longer it lives, so that the next work needs no new one.
    """

    def __init__(self, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._condition = threading.Condition()
        self._due: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self._running = False
        self._closed = False

    def call(self, key: Hashable, seconds: float, function: Callable[[], None]) -> None:
        """Call *function* in *seconds*, unless a call of the same *key* is due already: one does for both."""
        with self._condition:
            if key in self._due or self._closed:
                return
            self._due[key] = (time.monotonic() + seconds, function)
            if self._thread is None or not self._thread.is_alive():  # it is not in a forked child
                self._thread = threading.Thread(target=self._work, name="pynetwork-later", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def flush(self) -> None:
        """Make all calls that are due, now or later, and return when they have been made."""
        with self._condition:
            self._due = {key: (0.0, function) for key, (_, function) in self._due.items()}
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._due and not self._running)

    def close(self) -> None:
        """Make all calls, and end the thread. Idempotent."""
        self.flush()
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except OSError as error:
                logger().warning("what was put off has failed: %s", error)
            with self._condition:
                self._running = False
                self._condition.notify_all()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next function that is due; None when the thread should end."""
        with self._condition:
            idle_until = time.monotonic() + self._idle_seconds
            while not self._closed:
                now = time.monotonic()
                key = min(self._due, key=lambda key: self._due[key][0], default=None)
                if key is None:
                    if now >= idle_until:
                        break
                    self._condition.wait(idle_until - now)
                    continue
                when, function = self._due[key]
                if when <= now:
                    del self._due[key]
                    self._running = True
                    return function
                self._condition.wait(when - now)
            self._thread = None
            return None
