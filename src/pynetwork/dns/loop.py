"""One thread that waits for sockets, for moments in time and for calls from other threads."""

from __future__ import annotations

import heapq
import os
import select
import time
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READ", "WRITE", "Loop", "Timer"]

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
_MANY: Final = 256  # events of one look
_FAILED_SECONDS: Final = 1.0  # until it is tried again, when there is nothing else to do
_TIMERS: Final = 1024  # from so many on the cancelled ones are swept out


class Timer:
    """A call that is due at some time, unless it is cancelled."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function

    def cancel(self) -> None:
        """Never mind."""
        self.function = None


class Loop:
    """
    An event loop as small as it can be. All but :meth:`post` is for the thread that runs it.

    Args:
        before: Called each time after waiting, before anything else, with whether anything has happened. It
            returns the seconds that the next wait may take at most.
    """

    def __init__(self, before: Callable[[bool], float]) -> None:
        self._before = before
        self._epoll = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wakeup, READ)
        self._callbacks: dict[int, Callable[[int], None]] = {self._wakeup: self._woken}
        self._timers: list[tuple[float, int, Timer]] = []
        self._many = _TIMERS
        self._numbers = count()
        self._posted: deque[Callable[[], None]] = deque()
        self._is_running = True

    def add(self, fd: int, callback: Callable[[int], None], events: int = READ) -> None:
        """Call *callback* with what has happened each time one of *events* happens to *fd*."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Wait for other events."""
        self._epoll.modify(fd, events)

    def pause(self, fd: int, seconds: float) -> None:
        """Do not look at *fd* for some time: what has come to it cannot be taken, and stays."""
        callback = self._callbacks.get(fd)
        if callback is None:
            return
        self._epoll.modify(fd, 0)

        def resume() -> None:
            if self._callbacks.get(fd) is callback:  # else it was removed meanwhile, and is another's perhaps
                self._epoll.modify(fd, READ)

        self.later(seconds, resume)

    def remove(self, fd: int) -> None:
        """Wait for nothing any more. Before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call *function* in *seconds*."""
        if len(self._timers) >= self._many:  # most are cancelled before they are due
            self._timers = [each for each in self._timers if each[2].function is not None]
            heapq.heapify(self._timers)
            self._many = max(_TIMERS, 2 * len(self._timers))
        timer = Timer(function)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def post(self, function: Callable[[], None]) -> None:
        """Have *function* called by the loop's thread, from any other."""
        self._posted.append(function)
        os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """Return from :meth:`run` soon."""
        self._is_running = False

    def run(self) -> None:
        """Run until it is stopped. A callback that fails is logged, and harms no other."""
        logger()  # loads the module now: there may be no descriptor left for that when it is needed
        patience = 0.0
        while self._is_running:
            events = self._epoll.poll(self._patience(patience), _MANY)
            wanted = self._guarded(partial(self._before, bool(events)))
            patience = _FAILED_SECONDS if wanted is None else wanted
            callbacks = self._callbacks
            for fd, happened in events:
                callback = callbacks.get(fd)
                if callback is not None:  # else removed by one before it
                    try:
                        callback(happened)
                    except Exception:  # noqa: BLE001 - whatever it is, the others are served
                        logger().exception("dns: what came in could not be handled")
            self._run_due()

    def close(self) -> None:
        """Release what it holds, once it does not run any more."""
        self._epoll.close()
        os.close(self._wakeup)

    def _patience(self, most: float) -> float:
        if self._posted:
            return 0.0
        if not self._timers:
            return most
        return max(0.0, min(most, self._timers[0][0] - time.monotonic()))

    def _run_due(self) -> None:
        while self._posted:
            self._guarded(self._posted.popleft())
        now = time.monotonic() if self._timers else 0.0
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].function is None):
            function = heapq.heappop(self._timers)[2].function
            if function is not None:
                self._guarded(function)

    @staticmethod
    def _guarded(function: Callable[[], float | None]) -> float | None:
        try:
            return function()
        except Exception:  # noqa: BLE001 - likewise
            logger().exception("dns: a call of the server's failed")
            return None

    def _woken(self, _happened: int) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
