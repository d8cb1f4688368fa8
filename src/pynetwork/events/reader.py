"""Following an instance: a blocking iterator over what happens, from any revision that is remembered."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self

from pynetwork.errors import HistoryLostError, InvalidValueError, StoreError, UnavailableError
from pynetwork.events.kinds import Event, EventKind
from pynetwork.events.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from pynetwork.store import Snapshot, Store

__all__ = ["EventReader"]

_POLL_SECONDS: Final = 0.05
_CHUNK: Final = 512  # changes that are fetched and held at once


class EventReader(Iterator[Event]):
    """
    What happens, as it happens; made by :meth:`Controller.events`.

    It waits in ``next()`` and ends after the timeout, if it has one, or when it is closed, which any
    thread may do. After a timeout it can be gone on with, as a file that grows. Threads that share one get
    each event once.

    It reads ahead a few hundred changes at most. Whoever is slow falls behind the store's history in
    the end, and is told so by a HistoryLostError.
    """

    def __init__(
        self,
        store: Store,
        since: object,
        *,
        timeout: float | None,
        kinds: Collection[str] | None,
    ) -> None:
        self._store = store
        self._timeout = _seconds(timeout)
        self._kinds = None if kinds is None else _kinds(kinds)
        self._after = (since.revision, since.index) if isinstance(since, Event) else None
        start = _start(store, since)
        self._replay = Replay(start)
        self._fetched = start.revision
        self._ready: deque[Event] = deque()
        self._lock = threading.RLock()
        self._closed = threading.Event()

    @property
    def revision(self) -> int:
        """
        A revision to go on from, with ``events(since=...)``: all before it, and of it, were returned.

        Those of the next one may have been, too: to go on behind one event exactly, pass that event.
        """
        with self._lock:
            return self._ready[0].revision - 1 if self._ready else self._fetched

    @property
    def fetched(self) -> int:
        """The revision up to which it has read, ahead of what it has returned."""
        return self._fetched

    def __next__(self) -> Event:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._closed.is_set():
            with self._lock:
                if self._closed.is_set():
                    break
                if self._ready:
                    return self._ready.popleft()
                if self._fetch():
                    continue
            left = _POLL_SECONDS if deadline is None else min(_POLL_SECONDS, deadline - time.monotonic())
            if left <= 0:
                break
            self._closed.wait(left)
        raise StopIteration

    def close(self) -> None:
        """End it, in whichever thread it waits. Idempotent."""
        self._closed.set()
        with self._lock:  # nobody is at the store any more
            self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventReader at revision {self._fetched}{' (closed)' if self._closed.is_set() else ''}>"

    def _fetch(self) -> bool:
        """Read what came since the last time; returns whether there was anything."""
        news = self._store.history(self._fetched, limit=_CHUNK)
        if news is None:
            raise lost(self._fetched)
        if not news.changes:
            return False
        try:
            events = list(self._replay.feed(news.changes))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            msg = f"cannot tell what happened after revision {self._fetched}: a record is damaged: {error!r}"
            raise StoreError(msg) from error
        self._fetched = news.revision
        self._ready.extend(event for event in events if self._is_wanted(event))
        return True

    def _is_wanted(self, event: Event) -> bool:
        if self._after is not None and (event.revision, event.index) <= self._after:
            return False
        return self._kinds is None or event.kind in self._kinds


def lost(since: int) -> HistoryLostError:
    """Return the error that says that what happened after a revision is not known."""
    msg = (
        f"what happened after revision {since} is no longer known, too much has happened since: look at "
        "what there is now, and follow from there"
    )
    return HistoryLostError(msg, since=since)


def _start(store: Store, since: object) -> Snapshot:
    if not (hasattr(store, "past") and hasattr(store, "history")):
        msg = f"there are no events: {store!r} keeps no history"
        raise UnavailableError(msg)
    if since is None:
        return store.list("")
    # An event may not be the last one of its revision.
    revision = since.revision - 1 if isinstance(since, Event) else since
    if isinstance(revision, bool) or not isinstance(revision, int) or revision < 0:
        msg = f"invalid revision {since!r}: a whole number, or an event, is expected"
        raise InvalidValueError(msg)
    start = store.past(revision)
    if start is None:
        latest = store.list("").revision
        if revision > latest:
            msg = f"invalid revision {revision}: this instance is at revision {latest}"
            raise InvalidValueError(msg)
        raise lost(revision)
    return start


def _seconds(timeout: object) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        msg = f"invalid timeout {timeout!r}: seconds, 0 or more, are expected"
        raise InvalidValueError(msg)
    return float(timeout)


def _kinds(kinds: Collection[str]) -> frozenset[EventKind]:
    if isinstance(kinds, str):
        msg = f"invalid kinds of events {kinds!r}: several are expected, such as [{kinds!r}]"
        raise InvalidValueError(msg)
    try:
        return frozenset(EventKind(kind) for kind in kinds)
    except (TypeError, ValueError) as error:
        msg = f"invalid kinds of events: {error}; known are {', '.join(EventKind)}"
        raise InvalidValueError(msg) from error
