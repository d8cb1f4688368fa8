"""The agent of a host: announces what it has joined, and tells its datapath what others have.

One thread does both, in the order in which things happen; one waits for changes in all networks of the host,
another one renews the lease. When the store does not answer, all stays as it is: nothing is withdrawn that
was not said to be gone.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.cluster.watching import Listed, Watches, network_of
from pynetwork.errors import NotFoundError, PynetworkError, StoreError
from pynetwork.log import logger
from pynetwork.store import Change, LeaseKeeper

if TYPE_CHECKING:
    from random import Random

    from pynetwork.cluster.worker import Worker
    from pynetwork.store import Lease, LeasingStore

__all__ = ["Agent"]

_LOOK_SECONDS: Final = 0.05  # at what other processes of this host have joined
_RETRY_SECONDS: Final = 1.0
_SPREAD_SECONDS: Final = 0.3  # earlier at most: hosts that fail together do not come back together


@attrs.frozen
class _Poke:
    repair: bool = False


@attrs.frozen
class _Lost:
    lease: Lease


class _Stop:
    pass


class Agent:
    """
    Follows a cluster from threads of its own, from :meth:`start` to :meth:`close`.

    Args:
        worker: Does the work.
        store: The cluster's.
        random: How long it waits until it tries again what has failed.
    """

    def __init__(self, worker: Worker, store: LeasingStore, random: Random) -> None:
        self._worker = worker
        self._store = store
        self._random = random
        self._events: queue.SimpleQueue[_Poke | _Lost | _Stop | Listed | Change] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._watches = Watches(store, self._events.put, self._note)
        self._thread: threading.Thread | None = None
        self._keeper: LeaseKeeper | None = None
        self._is_failing = False

    def start(self) -> None:
        """
        Register the host, and follow the cluster from now on; as soon as its store answers, if it does not.

        Raises:
            ConflictError: Another host has this one's name, or the cluster another UDP port.
        """
        try:
            self._register()
        except (StoreError, NotFoundError) as error:  # or it takes longer than the lease lasts
            self._note(error)
        self._thread = threading.Thread(target=self._work, name="pynetwork-agent", daemon=True)
        self._thread.start()

    def poke(self, *, repair: bool = False) -> None:
        """Look at what this host has joined; with *repair* also at what its datapath has."""
        self._events.put(_Poke(repair))

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._stopped.set()
        self._events.put(_Stop())
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._watches.close()
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        self._worker.stand_down()

    def _register(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        if self._worker.stand_up():
            self._watches.expect()  # it takes in what this host has, and leaves no news of it
            lease = self._worker.register()
            self._keeper = LeaseKeeper(self._store, lease, on_loss=lambda lost: self._events.put(_Lost(lost)))

    def _work(self) -> None:
        while True:
            event = self._next()
            if isinstance(event, _Stop):
                return
            try:
                self._take(event)
            except PynetworkError as error:
                self._note(error)
                self._missed(event)
                self._stopped.wait(_RETRY_SECONDS - self._random.uniform(0.0, _SPREAD_SECONDS))
                self._worker.is_behind = True
            else:
                self._note(None)

    def _next(self) -> _Poke | _Lost | _Stop | Listed | Change:
        try:
            return self._events.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return _Poke()

    def _take(self, event: _Poke | _Lost | Listed | Change) -> None:
        worker = self._worker
        if isinstance(event, _Lost):
            if worker.lease == event.lease:
                self._register()
        elif self._keeper is None:
            self._register()  # another process of this host may have ended
        if isinstance(event, _Poke | _Lost):
            is_news = worker.look(repair=isinstance(event, _Poke) and event.repair)
            worker.keep_up()
            if not (is_news or self._watches.is_due):
                return  # as nearly always
        else:
            worker.take(event)
        self._watches.follow(worker.networks())
        if self._events.empty():  # many at once are one write
            worker.finish()

    def _missed(self, event: object) -> None:
        """See to it that what an event said, and could not be taken in, is found out anew."""
        if isinstance(event, Listed | Change):
            network = network_of(event)
            self._watches.again(network)
            self._worker.forget(network)

    def _note(self, error: PynetworkError | None) -> None:
        """Log the first of several failures, and the end of them."""
        if error is not None and not self._is_failing:
            logger().warning("the cluster cannot be followed, all stays as it is: %s", error)
        elif error is None and self._is_failing:
            logger().info("the cluster is followed again")
        self._is_failing = error is not None
