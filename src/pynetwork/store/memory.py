"""A store in a dict, for tests and for controllers whose networks need not outlive the process."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import deque
from itertools import count, takewhile
from operator import attrgetter
from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import NotFoundError
from pynetwork.store._polling import PollingWatcher
from pynetwork.store._rules import check_operations, check_ttl
from pynetwork.store.port import (
    Absent,
    Change,
    Changes,
    Delete,
    Entry,
    Lease,
    LeasingStore,
    PrefixUnchanged,
    Put,
    Snapshot,
    Unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pynetwork.store.port import Compare, Operation, Watcher

__all__ = ["MemoryStore"]


@attrs.define
class _Granted:
    """A lease that has not ended: its time to live, when it ends, and what goes with it."""

    ttl: float
    deadline: float
    keys: set[str] = attrs.field(factory=set)


@attrs.define(eq=False, repr=False, kw_only=True)
class MemoryStore(LeasingStore):
    """
    A store that lives as long as the object. Several controllers of a process may share one.

    Args:
        history: How many changes of the past, deletions and what was overtaken, are remembered at least.
        clock: Seconds, from anywhere on; leases end by it. They are looked at whenever the store is used.
        wall_clock: Seconds since the epoch, which changes are dated by.
    """

    _history: int = 4096
    _clock: Callable[[], float] = time.monotonic
    _wall_clock: Callable[[], float] = time.time
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _revision: int = attrs.field(default=0, init=False)
    _compacted: int = attrs.field(default=0, init=False)
    # The last change of each key, deletions included, oldest first: a changed key moves to the end.
    _latest: dict[str, Change] = attrs.field(factory=dict, init=False)
    # All changes since the history begins, oldest first.
    _log: list[Change] = attrs.field(factory=list, init=False)
    # What was overtaken or deleted, and the revision at which it was, oldest first.
    _past: deque[tuple[int, Change]] = attrs.field(factory=deque, init=False)
    _leases: dict[int, _Granted] = attrs.field(factory=dict, init=False)
    _lease_of: dict[str, int] = attrs.field(factory=dict, init=False)  # by key
    _lease_ids: Iterator[int] = attrs.field(factory=lambda: count(1), init=False)

    def __repr__(self) -> str:
        return f"<MemoryStore revision={self._revision}>"

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*, None when there is none."""
        with self._lock:
            self._expire()
            return _entry(self._latest.get(key))

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix* and the store's revision, in one consistent read."""
        with self._lock:
            self._expire()
            found = (change for change in self._latest.values() if change.key.startswith(prefix))
            return Snapshot(self._revision, _sorted(found))

    def past(self, revision: int) -> Snapshot | None:
        """Return all entries as they were at *revision*; see :meth:`Store.past`."""
        with self._lock:
            self._expire()
            if not self._compacted <= revision <= self._revision:
                return None
            overtaken = (change for at, change in self._past if at > revision)
            found = {c.key: c for c in (*overtaken, *self._latest.values()) if c.revision <= revision}
            return Snapshot(revision, _sorted(found.values()))

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        """Apply all *operations* if all *compares* hold; see :meth:`Store.transact`."""
        check_operations(operations)
        with self._lock:
            self._expire()
            if self._revision != seen and not all(self._holds(compare) for compare in compares):
                return None
            self._check_leases(operations)
            effective = [operation for operation in operations if self._has_effect(operation)]
            if effective:
                self._write(effective)
            return self._revision

    def changes(self, since: int) -> Changes | None:
        """Return what happened after revision *since*; see :meth:`Store.changes`."""
        with self._lock:
            self._expire()
            if not self._compacted <= since <= self._revision:
                return None
            return Changes(self._revision, tuple(reversed(tuple(self._newer(since)))))

    def history(self, since: int, *, limit: int = 1024) -> Changes | None:
        """Return every change after revision *since*; see :meth:`Store.history`."""
        with self._lock:
            self._expire()
            if not self._compacted <= since <= self._revision:
                return None
            first = self._after(since)
            if len(self._log) - first <= limit:
                return Changes(self._revision, tuple(self._log[first:]))
            last = self._log[first + limit - 1].revision
            return Changes(last, tuple(self._log[first : self._after(last)]))

    def watcher(self) -> Watcher:
        """Return something that follows prefixes; see :meth:`Store.watcher`."""
        return PollingWatcher(self)

    def grant(self, ttl: float) -> Lease:
        """Return a new lease; see :meth:`Leasing.grant <pynetwork.store.port.Leasing.grant>`."""
        check_ttl(ttl)
        with self._lock:
            lease = Lease(next(self._lease_ids), ttl)
            self._leases[lease.id] = _Granted(ttl, self._clock() + ttl)
            return lease

    def keep_alive(self, lease: Lease) -> float | None:
        """Renew *lease*. Return the seconds it now lasts, or None when it has ended."""
        with self._lock:
            self._expire()
            granted = self._leases.get(lease.id)
            if granted is None:
                return None
            granted.deadline = self._clock() + granted.ttl
            return granted.ttl

    def remaining(self, lease: Lease) -> float | None:
        """Return the seconds that *lease* lasts unless it is renewed, or None when it has ended."""
        with self._lock:
            self._expire()
            granted = self._leases.get(lease.id)
            return None if granted is None else granted.deadline - self._clock()

    def revoke(self, lease: Lease) -> None:
        """End *lease* and delete its keys. One that has ended is no error."""
        with self._lock:
            self._expire()
            self._end(lease.id)

    def close(self) -> None:
        """Do nothing: no handle is held, and others may share the store."""

    def _after(self, revision: int) -> int:
        """Return the place in the log of the first change after *revision*."""
        return bisect_right(self._log, revision, key=attrgetter("revision"))

    def _newer(self, revision: int) -> Iterator[Change]:
        """Yield the changes after *revision*, newest first."""
        return takewhile(lambda change: change.revision > revision, reversed(self._latest.values()))

    def _holds(self, compare: Compare) -> bool:
        match compare:
            case Absent(key):
                return _entry(self._latest.get(key)) is None
            case Unchanged(key, revision):
                entry = _entry(self._latest.get(key))
                return entry is not None and entry.revision == revision
            case PrefixUnchanged(prefix, revision):
                puts = (change.key for change in self._newer(revision) if change.value is not None)
                return not any(key.startswith(prefix) for key in puts)

    def _has_effect(self, operation: Operation) -> bool:
        return isinstance(operation, Put) or _entry(self._latest.get(operation.key)) is not None

    def _write(self, operations: Sequence[Operation]) -> None:
        """Write *operations*, all of which have an effect, as one revision."""
        self._revision += 1
        now = self._wall_clock()
        for operation in operations:
            key = operation.key
            was = self._latest.pop(key, None)
            if was is not None and was.value is not None:
                self._past.append((self._revision, was))
            if (old := self._lease_of.pop(key, None)) is not None and old in self._leases:
                self._leases[old].keys.discard(key)
            value = operation.value if isinstance(operation, Put) else None
            self._latest[key] = Change(key, value, self._revision, now)
            self._log.append(self._latest[key])
            if isinstance(operation, Put) and operation.lease is not None:
                self._lease_of[key] = operation.lease.id
                self._leases[operation.lease.id].keys.add(key)
        self._trim()

    def _check_leases(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease.id not in self._leases:
                msg = f"cannot put {operation.key!r}: its {operation.lease} has ended; nothing was written"
                raise NotFoundError(msg)

    def _expire(self) -> None:
        """End the leases whose time is over, in the order in which they ended."""
        if not self._leases:
            return
        now = self._clock()
        over = [(lease.deadline, number) for number, lease in self._leases.items() if lease.deadline <= now]
        for _, number in sorted(over):
            self._end(number)

    def _end(self, number: int) -> None:
        granted = self._leases.pop(number, None)
        if granted is not None and granted.keys:
            self._write([Delete(key) for key in sorted(granted.keys)])

    def _trim(self) -> None:
        """Forget the oldest of the history, now and then: the transactions in between share the cost."""
        surplus = len(self._past) - self._history
        if self._revision % max(1, self._history // 4) or surplus <= 0:
            return
        self._compacted = self._past[surplus - 1][0]
        while self._past and self._past[0][0] <= self._compacted:
            _, change = self._past.popleft()
            latest = self._latest.get(change.key)
            if latest is not None and latest.value is None and latest.revision <= self._compacted:
                del self._latest[change.key]
        del self._log[: self._after(self._compacted)]


def _entry(change: Change | None) -> Entry | None:
    if change is None or change.value is None:
        return None
    return Entry(change.key, change.value, change.revision)


def _sorted(changes: Iterable[Change]) -> tuple[Entry, ...]:
    entries = (_entry(change) for change in changes)
    return tuple(sorted((entry for entry in entries if entry), key=lambda entry: entry.key))
