"""A thread that keeps a lease alive, and tells when it was lost all the same."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Self

from pynetwork.errors import StoreError
from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pynetwork.store.port import Lease, Leasing

__all__ = ["LeaseKeeper"]

_RENEWALS_PER_TTL: Final = 3  # so that one or two may fail; what etcd's own client does
_RETRIES_PER_RENEWAL: Final = 4
_MOST_PAUSE_SECONDS: Final = 0.1  # a store that cannot be reached has been given time to answer already


class LeaseKeeper:
    """
    Renews a lease from a thread of its own until it is stopped, or the lease is lost.

    A store that does not answer is asked again, and again: the lease may well be there when it is back
    (etcd starts all times to live anew with a new leader). Until then :meth:`seconds_left` sinks below
    zero, which says that the lease may have ended. It is lost once the store says so.

    Stopping leaves the lease alone: it ends by itself, or goes on with the next keeper. Revoke it if
    what was put with it shall go at once.

    Args:
        store: Granted the lease.
        lease: Kept alive from now on.
        on_loss: Called once with the lease, after it was lost, from the thread that noticed: the
            keeper's own as a rule.
        interval: Seconds between two renewals, by default a third of the time to live.
        clock: Seconds, from anywhere on, for :meth:`seconds_left`.

    Attributes:
        lease: The lease.
        lost: Set when the lease was lost.
    """

    def __init__(
        self,
        store: Leasing,
        lease: Lease,
        *,
        on_loss: Callable[[Lease], object] | None = None,
        interval: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease = lease
        self.lost = threading.Event()
        self._store = store
        self._on_loss = on_loss
        self._interval = lease.ttl / _RENEWALS_PER_TTL if interval is None else interval
        self._clock = clock
        self._lock = threading.Lock()  # a renewal of a caller's, or one of the thread's
        self._stopped = threading.Event()
        self._is_failing = False
        self._ends = clock()  # nothing is known yet
        self._thread = threading.Thread(target=self._run, name=f"pynetwork-lease-{lease.id:x}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<LeaseKeeper({self.lease}, lost={self.lost.is_set()})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def seconds_left(self) -> float:
        """Return for how many seconds the lease lasts in any case; below zero it may have ended."""
        return self._ends - self._clock()

    def renew(self) -> bool:
        """
        Renew the lease now, whatever the interval.

        Returns:
            Whether it is alive.

        Raises:
            StoreError: The store does not answer.
        """
        with self._lock:
            if self.lost.is_set():
                return False
            asked = self._clock()
            left = self._store.keep_alive(self.lease)
            if left is not None:
                self._ends = asked + left
                return True
            self.lost.set()
        logger().warning("lost %s: it has ended, and what was put with it is deleted", self.lease)
        if self._on_loss is not None:
            self._on_loss(self.lease)
        return False

    def stop(self) -> None:
        """End the thread, after the renewal it is in the middle of. Stopping twice is fine."""
        self._stopped.set()
        if self._thread is not threading.current_thread():  # on_loss may stop its keeper
            self._thread.join()

    def _run(self) -> None:
        delay = 0.0
        while not self._stopped.wait(delay):
            try:
                if not self.renew():
                    return
                self._note(None)
                delay = self._interval
            except StoreError as error:
                self._note(error)
                delay = min(self._interval / _RETRIES_PER_RENEWAL, _MOST_PAUSE_SECONDS)

    def _note(self, error: StoreError | None) -> None:
        """Log the first of several failures, and the end of them."""
        if error is not None and not self._is_failing:
            logger().warning("cannot renew %s, trying again: %s", self.lease, error)
        elif error is None and self._is_failing:
            logger().info("renewed %s again", self.lease)
        self._is_failing = error is not None
