"""A store in a dict, for tests and for controllers whose networks need not outlive the process."""

from __future__ import annotations

import threading
from itertools import takewhile
from typing import TYPE_CHECKING

import attrs

from pynetwork.store._polling import poll_changes
from pynetwork.store._rules import check_operations
from pynetwork.store.port import (
    Absent,
    Change,
    Changes,
    Entry,
    PrefixUnchanged,
    Put,
    Snapshot,
    Store,
    Unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pynetwork.store.port import Compare, Operation

__all__ = ["MemoryStore"]


@attrs.define(eq=False, repr=False, kw_only=True)
class MemoryStore(Store):
    """
    A store that lives as long as the object. Several controllers of a process may share one.

    Args:
        history: How many deletions :meth:`changes` remembers at least.
    """

    _history: int = 4096
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _revision: int = attrs.field(default=0, init=False)
    _compacted: int = attrs.field(default=0, init=False)
    # The last change of each key, deletions included, oldest first: a changed key moves to the end.
    _latest: dict[str, Change] = attrs.field(factory=dict, init=False)

    def __repr__(self) -> str:
        return f"<MemoryStore revision={self._revision}>"

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*, None when there is none."""
        with self._lock:
            return _entry(self._latest.get(key))

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix* and the store's revision, in one consistent read."""
        with self._lock:
            found = (_entry(change) for change in self._latest.values() if change.key.startswith(prefix))
            entries = sorted((entry for entry in found if entry), key=lambda entry: entry.key)
            return Snapshot(self._revision, tuple(entries))

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        """Apply all *operations* if all *compares* hold; see :meth:`Store.transact`."""
        check_operations(operations)
        with self._lock:
            if self._revision != seen and not all(self._holds(compare) for compare in compares):
                return None
            effective = [operation for operation in operations if self._has_effect(operation)]
            if effective:
                self._revision += 1
                for operation in effective:
                    self._write(operation)
                self._trim()
            return self._revision

    def changes(self, since: int) -> Changes | None:
        """Return what happened after revision *since*; see :meth:`Store.changes`."""
        with self._lock:
            if not self._compacted <= since <= self._revision:
                return None
            return Changes(self._revision, tuple(reversed(tuple(self._newer(since)))))

    def watch(
        self, prefix: str, since: int, *, poll: float = 0.1, stop: threading.Event | None = None
    ) -> Iterator[Change]:
        """Yield the changes under *prefix* after revision *since*; see :meth:`Store.watch`."""
        return poll_changes(self, prefix, since, poll=poll, stop=stop)

    def close(self) -> None:
        """Do nothing: no handle is held, and others may share the store."""

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

    def _write(self, operation: Operation) -> None:
        self._latest.pop(operation.key, None)
        value = operation.value if isinstance(operation, Put) else None
        self._latest[operation.key] = Change(operation.key, value, self._revision)

    def _trim(self) -> None:
        """Forget old deletions, now and then: the cost is shared by the transactions in between."""
        if self._revision % max(1, self._history // 4):
            return
        deletions = [change for change in self._latest.values() if change.value is None]
        if len(deletions) <= self._history:
            return
        self._compacted = deletions[-self._history - 1].revision
        for change in deletions:
            if change.revision <= self._compacted:
                del self._latest[change.key]


def _entry(change: Change | None) -> Entry | None:
    if change is None or change.value is None:
        return None
    return Entry(change.key, change.value, change.revision)
