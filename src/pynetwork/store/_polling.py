"""Following the changes of stores that do not tell of them: they look again every now and then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import HistoryLostError
from pynetwork.store.port import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.store.port import Change, Changes, Store

__all__ = ["PollingWatcher"]


@attrs.define(eq=False)
class _Followed:
    """A prefix, and the revision until which all was told."""

    prefix: str
    since: int


class PollingWatcher(Watcher):
    """Asks *store* for its changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: dict[str, _Followed] = {}
        self._closed = threading.Event()

    def add(self, prefix: str, since: int) -> None:
        """Follow *prefix*, too; see :meth:`Watcher.add <pynetwork.store.port.Watcher.add>`."""
        self._news({prefix}, since)
        self._followed[prefix] = _Followed(prefix, since)

    def drop(self, prefix: str) -> None:
        """Follow *prefix* no more."""
        self._followed.pop(prefix, None)

    def changes(self, *, poll: float = 0.1, stop: threading.Event | None = None) -> Iterator[Change]:
        """Yield the changes under all prefixes."""
        stop = stop or self._closed
        while not (stop.is_set() or self._closed.is_set()):
            behind: dict[int, list[_Followed]] = {}
            for followed in list(self._followed.values()):
                behind.setdefault(followed.since, []).append(followed)
            for since, group in behind.items():  # one, unless some were just added
                try:
                    news = self._news({followed.prefix for followed in group}, since)
                except HistoryLostError:
                    for followed in group:
                        self._followed.pop(followed.prefix, None)
                    raise
                for followed in group:
                    followed.since = news.revision
                    yield from (each for each in news.changes if each.key.startswith(followed.prefix))
            stop.wait(poll)

    def close(self) -> None:
        """End. Idempotent."""
        self._closed.set()

    def _news(self, prefixes: set[str], since: int) -> Changes:
        news = self._store.changes(since)
        if news is None:
            words = " and ".join(map(repr, sorted(prefixes)))
            msg = (
                f"cannot watch {words}: the changes after revision {since} are no longer known; "
                "list it again and watch from the revision of that snapshot"
            )
            raise HistoryLostError(msg, since=since)
        return news
