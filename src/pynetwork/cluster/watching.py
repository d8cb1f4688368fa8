"""Waiting for what others do in the networks of this host, a thread for each: not in the whole cluster."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.cluster.layout import peer_key
from pynetwork.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pynetwork.store import Change, Snapshot, Store

__all__ = ["Listed", "Watches"]

_RETRY_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.005  # of stores that are not told of changes


@attrs.frozen
class Listed:
    """All that is joined in a network, as it was looked at anew."""

    network: str
    snapshot: Snapshot


@attrs.frozen(eq=False)
class _Watch:
    made: int
    stop: threading.Event
    thread: threading.Thread


class Watches:
    """
    Passes on what is joined and left in networks.

    Args:
        store: The cluster's.
        tell: Called with each change, or with all that there is; from any thread.
        note: Called with what keeps a watch from its work.
    """

    def __init__(
        self, store: Store, tell: Callable[[Listed | Change], object], note: Callable[[StoreError], object]
    ) -> None:
        self._store = store
        self._tell = tell
        self._note = note
        self._watches: dict[str, _Watch] = {}
        self._ending: list[_Watch] = []

    def follow(self, networks: Mapping[str, tuple[int, int]]) -> None:
        """
        Watch *networks* and no others.

        Args:
            networks: Id of each to what tells it from an earlier stay of it on this host, and to the revision
                at which it was looked at as a whole.
        """
        for identity, watch in list(self._watches.items()):
            if identity not in networks or networks[identity][0] != watch.made:
                self._end(identity)
        for identity, (made, since) in networks.items():
            if identity not in self._watches:
                stop = threading.Event()
                name = f"pynetwork-watch-{identity[:8]}"
                arguments = (identity, since, stop)
                thread = threading.Thread(target=self._watch, args=arguments, name=name, daemon=True)
                self._watches[identity] = _Watch(made, stop, thread)
                thread.start()
        self._ending = [watch for watch in self._ending if watch.thread.is_alive()]

    def again(self, network: str) -> None:
        """Forget a network, which is going to be followed anew."""
        if network in self._watches:
            self._end(network)

    def close(self) -> None:
        """End all threads. Idempotent."""
        for identity in list(self._watches):
            self._end(identity)
        for watch in self._ending:
            watch.thread.join()
        self._ending = []

    def _end(self, network: str) -> None:
        watch = self._watches.pop(network)
        watch.stop.set()
        self._ending.append(watch)

    def _watch(self, network: str, since: int, stop: threading.Event) -> None:
        """Pass on the changes in a network; all that there is, whenever some may have been missed."""
        prefix = peer_key(network)
        while not stop.is_set():
            try:
                for change in self._store.watch(prefix, since, poll=_POLL_SECONDS, stop=stop):
                    self._tell(change)
            except StoreError as error:
                self._note(error)
                stop.wait(_RETRY_SECONDS)
            if stop.is_set():
                return
            try:
                snapshot = self._store.list(prefix)
            except StoreError as error:
                self._note(error)
                stop.wait(_RETRY_SECONDS)
            else:
                since = snapshot.revision
                self._tell(Listed(network, snapshot))
