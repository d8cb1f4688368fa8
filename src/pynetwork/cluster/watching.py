"""Waiting, in one thread, for what others do in the networks of this host: not in the whole cluster."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.cluster.layout import NAMES, peer_key, peer_of
from pynetwork.errors import HistoryLostError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pynetwork.store import Change, Snapshot, Store, Watcher

__all__ = ["Listed", "Watches", "network_of"]

_ALL: Final = ""  # for an id: what all networks are called
_NEVER: Final = -1
_RETRY_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.005  # of stores that are not told of changes


@attrs.frozen
class Listed:
    """All that is joined in a network, as it was looked at anew; of network ``""`` the names of all."""

    network: str
    snapshot: Snapshot


class Watches:
    """
    Passes on what is joined and left in networks. Its methods are for one thread, the agent's.

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
        self._made: dict[str, int] = {}  # of the networks that are watched
        self._missed: set[str] = set()  # of whose changes some were not told
        self._watcher: Watcher | None = None
        self._thread: threading.Thread | None = None
        self._retry_due = 0.0
        self._is_incomplete = False

    @property
    def is_due(self) -> bool:
        """Whether :meth:`follow` has work, also if the networks are still the same."""
        return self._is_incomplete or (self._thread is not None and not self._thread.is_alive())

    def follow(self, networks: Mapping[str, tuple[int, int]]) -> None:
        """
        Watch *networks* and no others.

        Args:
            networks: Id of each to what tells it from an earlier stay of it on this host, and to the revision
                at which it was looked at as a whole.

        Raises:
            StoreError: Some are not watched yet: call again.
        """
        self._is_incomplete = True  # until the end
        if self._thread is not None and not self._thread.is_alive():  # it ended with an error
            self._missed.update(self._made)
            self._end()
            self._retry_due = time.monotonic() + _RETRY_SECONDS
        if time.monotonic() < self._retry_due:
            return
        wanted = {**networks, _ALL: (_NEVER, _NEVER)} if networks else {}
        for identity, made in list(self._made.items()):
            if identity not in wanted or wanted[identity][0] != made:
                self.again(identity)
        self._missed &= wanted.keys()
        for identity, (made, since) in wanted.items():
            if identity not in self._made:
                self._add(identity, since)
                self._made[identity] = made
        self._is_incomplete = False

    def expect(self) -> None:
        """Have work for :meth:`follow`: the networks may be others by now."""
        self._is_incomplete = True

    def again(self, network: str) -> None:
        """Forget a network, which is going to be followed anew."""
        if self._made.pop(network, None) is not None and self._watcher is not None:
            self._watcher.drop(_prefix(network))

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._end()

    def _add(self, network: str, since: int) -> None:
        if self._watcher is None:
            self._watcher = self._store.watcher()
        prefix = _prefix(network)
        try:
            if network not in self._missed:
                self._watcher.add(prefix, since)
        except HistoryLostError:
            self._missed.add(network)
        if network in self._missed:
            snapshot = self._store.list(prefix)
            self._tell(Listed(network, snapshot))
            self._watcher.add(prefix, snapshot.revision)
            self._missed.discard(network)
        if self._thread is None:
            name, arguments = "pynetwork-watch", (self._watcher,)
            self._thread = threading.Thread(target=self._watch, args=arguments, name=name, daemon=True)
            self._thread.start()

    def _end(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        if self._thread is not None:
            self._thread.join()
        self._watcher = self._thread = None
        self._made.clear()

    def _watch(self, watcher: Watcher) -> None:
        """Pass changes on, until the watcher is closed or cannot go on."""
        try:
            for change in watcher.changes(poll=_POLL_SECONDS):
                self._tell(change)
        except StoreError as error:
            self._note(error)


def network_of(news: Listed | Change) -> str:
    """Return the id of the network that *news* is of, ``""`` if it is of all."""
    if isinstance(news, Listed):
        return news.network
    return _ALL if news.key.startswith(NAMES) else peer_of(news.key)[0]


def _prefix(network: str) -> str:
    return NAMES if network == _ALL else peer_key(network)
