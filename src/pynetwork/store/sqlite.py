"""The embedded default: one SQLite file that several processes and threads use at once, no daemon.

Readers never wait for the writer (write-ahead log), and a writer holds the file's lock for the tens
of microseconds of its own transaction only.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.store._checkpoint import Checkpointer
from pynetwork.store._database import Attempt, Database
from pynetwork.store._index import Index
from pynetwork.store._polling import PollingWatcher
from pynetwork.store._rules import check_operations
from pynetwork.store._state_file import PLACE_BITS, prepare
from pynetwork.store.port import (
    Change,
    Changes,
    Entry,
    Snapshot,
    Store,
)

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

    from pynetwork.store.port import Compare, Operation, Watcher

__all__ = ["SqliteStore"]

_VALUE: Final = "SELECT value FROM entries WHERE id = ?"
_LIST: Final = "SELECT key, value, id FROM entries WHERE id < ? ORDER BY id"
_LAST_ID: Final = "SELECT max(id) FROM entries"  # the newest row is never forgotten
_NEWER: Final = "SELECT key, value, id, time FROM entries WHERE id >= ? ORDER BY id"
_SOME: Final = f"{_NEWER} LIMIT ?"
_PUT: Final = "INSERT INTO entries (id, key, value, time) VALUES (?, ?, ?, ?)"
_REST: Final = "SELECT key, value, id, time FROM entries WHERE id > ? AND id < ? ORDER BY id"
_REMOVE: Final = "DELETE FROM entries WHERE id = ?"
_COMPACTED: Final = "SELECT compacted FROM history"
_SET_COMPACTED: Final = "UPDATE history SET compacted = ?"
_SHARES: Final = 1024  # of the history are forgotten at a time, or so


class SqliteStore(Store):
    """
    A store in one file of a private directory, which outlives the process.

    A forked child may go on using it. An open store that is dropped gives a ``ResourceWarning``.

    Args:
        directory: Created with mode 0700 if missing; the mode of an existing one is left alone.
        name: Of the state file, which is kept at mode 0600.
        timeout: Seconds to wait for a lock of another process.
        history: How many rows of the past, deletions and what was overtaken, are remembered at least.
        remembered: First words of the keys (up to the first ``/``) whose past is remembered; None for all.
            The same for all processes.
        clock: Seconds since the epoch.

    Raises:
        StoreError: The directory or the file cannot be created, read, or understood.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        name: str = "state.db",
        timeout: float = 10.0,
        history: int = 4096,
        remembered: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        path = Path(directory).absolute() / name  # a later chdir must not move the store
        prepare(path)
        self._history = history
        self._interval = max(1, history // _SHARES)
        self._database = Database(path, timeout)
        self._index = Index(_remembers(remembered))
        self._clock = clock
        self._lock = self._database.lock
        self._reading = Attempt(self._database, "read")
        self._writing = Attempt(self._database, "write to")
        with self._lock, Attempt(self._database, "open"):
            pass  # what is wrong with the file is said here, not at the first use
        self._checkpointer = Checkpointer(path, timeout)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._database.path}>"

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*, None when there is none."""
        with self._lock, self._reading as cursor:
            cursor.execute("BEGIN")
            self._index.catch_up(cursor, _revision(cursor))
            row = self._index.rows.get(key)
            found = None if row is None else cursor.execute(_VALUE, (row,)).fetchone()
            cursor.execute("COMMIT")
        return None if row is None or found is None else Entry(key, found[0], row >> PLACE_BITS)

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix* and the store's revision, in one consistent read."""
        with self._lock, self._reading as cursor:
            cursor.execute("BEGIN")
            revision = _revision(cursor)
            entries = _entries(cursor, prefix, revision)
            cursor.execute("COMMIT")
        return Snapshot(revision, entries)

    def past(self, revision: int) -> Snapshot | None:
        """Return all entries as they were at *revision*; see :meth:`Store.past`."""
        with self._lock, self._reading as cursor:
            cursor.execute("BEGIN")
            (compacted,) = cursor.execute(_COMPACTED).fetchone()
            is_known = compacted <= revision <= _revision(cursor)
            entries = _entries(cursor, "", revision) if is_known else ()
            cursor.execute("COMMIT")
        return Snapshot(revision, entries) if is_known else None

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        """Apply all *operations* if all *compares* hold; see :meth:`Store.transact`."""
        check_operations(operations, leases=False)
        index = self._index
        with self._lock, self._writing as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            self._database.check_in_place()
            index.catch_up(cursor, _revision(cursor))
            if index.revision != seen and not all(map(index.holds, compares)):
                cursor.execute("ROLLBACK")
                return None
            rows = index.plan(operations)
            if rows.old:
                cursor.executemany(_REMOVE, rows.old)
            if rows.new:
                now = self._clock()
                cursor.executemany(_PUT, [(*row, now) for row in rows.new])
                forgotten = self._trim(cursor)
            cursor.execute("COMMIT")
            if rows.new:
                self._checkpointer.count()
                index.written(rows)
                if forgotten:
                    index.forget(forgotten)
            return index.revision

    def changes(self, since: int) -> Changes | None:
        """Return what happened after revision *since*; see :meth:`Store.changes`."""
        changes = self._news(since, _NEWER, ())
        if changes is None:
            return None
        latest: dict[str, Change] = {}
        for change in changes:
            latest.pop(change.key, None)  # it moves to the end
            latest[change.key] = change
        return Changes(changes[-1].revision if changes else since, tuple(latest.values()))

    def history(self, since: int, *, limit: int = 1024) -> Changes | None:
        """Return every change after revision *since*; see :meth:`Store.history`."""
        changes = self._news(since, _SOME, (limit,))
        if not changes:
            return None if changes is None else Changes(since, ())
        return Changes(changes[-1].revision, tuple(changes))

    def _news(self, since: int, query: str, limit: tuple[int, ...]) -> Sequence[Change] | None:
        with self._lock, self._reading as cursor:
            revision = _revision(cursor)
            if since == revision:
                return []
            if not 0 <= since < revision:
                return None
            cursor.execute("BEGIN")
            (compacted,) = cursor.execute(_COMPACTED).fetchone()
            rows = cursor.execute(query, (since + 1 << PLACE_BITS, *limit)).fetchall()
            if limit and len(rows) == limit[0]:
                last = rows[-1][2]
                end = (last >> PLACE_BITS) + 1 << PLACE_BITS
                rows += cursor.execute(_REST, (last, end)).fetchall()
            cursor.execute("COMMIT")
        if since < compacted:
            return None
        return [Change(key, value, row >> PLACE_BITS, at) for key, value, row, at in rows]

    def watcher(self) -> Watcher:
        """Return something that follows prefixes; see :meth:`Store.watcher`."""
        return PollingWatcher(self)

    def erase(self) -> None:
        """Close the store and remove its files, and the directory if nothing else is in it."""
        self.close()
        path = self._database.path
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files are in it
            path.parent.rmdir()

    def close(self) -> None:
        """Close the state file. Closing twice is fine, using the store afterwards is an error."""
        self._checkpointer.close()
        self._database.close()

    def _trim(self, cursor: sqlite3.Cursor) -> int:
        """
        Forget the oldest of the history, now and then: the cost is shared by the transactions in between.

        The revision decides when, so that short-lived processes do their share as well. What is being
        written is not touched. Returns the id that all which became history by older rows is forgotten.
        """
        index = self._index
        surplus = index.size - self._history
        if index.revision % self._interval or surplus <= 0:
            return 0
        compacted = index.oldest(surplus)
        first_kept = compacted + 1 << PLACE_BITS
        cursor.executemany(_REMOVE, [(row,) for row in index.older(first_kept)])
        cursor.execute(_SET_COMPACTED, (compacted,))
        return first_kept


def _remembers(words: Collection[str] | None) -> Callable[[str], bool]:
    if words is None:
        return lambda _: True
    chosen = frozenset(words)
    return lambda key: key.partition("/")[0] in chosen


def _entries(cursor: sqlite3.Cursor, prefix: str, revision: int) -> tuple[Entry, ...]:
    """Return what was under *prefix* at *revision*, by key."""
    found = {row[0]: row for row in cursor.execute(_LIST, (revision + 1 << PLACE_BITS,))}
    rows = sorted(row for key, row in found.items() if row[1] is not None and key.startswith(prefix))
    return tuple(Entry(key, value, row >> PLACE_BITS) for key, value, row in rows)


def _revision(cursor: sqlite3.Cursor) -> int:
    (last_id,) = cursor.execute(_LAST_ID).fetchone()
    return 0 if last_id is None else int(last_id >> PLACE_BITS)
