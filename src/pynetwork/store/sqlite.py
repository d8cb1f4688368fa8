"""The embedded default: one SQLite file that several processes and threads use at once, no daemon.

Readers never wait for the writer (write-ahead log), and a writer holds the file's lock for the tens
of microseconds of its own transaction only.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.store._database import Attempt, Database
from pynetwork.store._polling import poll_changes
from pynetwork.store._rules import check_operations
from pynetwork.store._state_file import PLACE_BITS, prepare
from pynetwork.store.port import (
    Absent,
    Change,
    Changes,
    Delete,
    Entry,
    PrefixUnchanged,
    Put,
    Snapshot,
    Store,
    Unchanged,
)

if TYPE_CHECKING:
    import os
    import sqlite3
    import threading
    from collections.abc import Iterator, Sequence

    from pynetwork.store.port import Compare, Operation

__all__ = ["SqliteStore"]

_GET: Final = "SELECT id, value FROM entries WHERE key = ? AND value IS NOT NULL"
# No UTF-8 text contains the byte FF, so a prefix followed by FF is the end of the prefix's range.
_LIST: Final = """
    SELECT key, value, id FROM entries
    WHERE key >= ? AND key < ? || CAST(x'FF' AS TEXT) AND value IS NOT NULL ORDER BY key
"""
# Two ways to look for a key under a prefix that was put since an id: among what is new, among what is
# under the prefix. Readers are up to date, nearly always, and the first costs nothing then.
_PUT_AMONG_NEW: Final = """
    SELECT EXISTS (
        SELECT 1 FROM entries NOT INDEXED
        WHERE id >= ? AND key >= ? AND key < ? || CAST(x'FF' AS TEXT) AND value IS NOT NULL
    )
"""
_PUT_UNDER_PREFIX: Final = """
    SELECT EXISTS (
        SELECT 1 FROM entries INDEXED BY sqlite_autoindex_entries_1
        WHERE id >= ? AND key >= ? AND key < ? || CAST(x'FF' AS TEXT) AND value IS NOT NULL
    )
"""
_MANY_REVISIONS: Final = 256
_LAST_ID: Final = "SELECT max(id) FROM entries"  # the history keeps the newest row even if it is a deletion
_NEWER: Final = "SELECT key, value, id FROM entries WHERE id >= ? ORDER BY id"
_PUT: Final = "REPLACE INTO entries (id, key, value) VALUES (?, ?, ?)"
_DELETE: Final = "UPDATE entries SET id = ?, value = NULL WHERE key = ? AND value IS NOT NULL"
_COMPACTED: Final = "SELECT compacted FROM history"
_NTH_LAST_DELETION: Final = "SELECT id FROM entries WHERE value IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?"
_FORGET_DELETIONS: Final = "DELETE FROM entries WHERE value IS NULL AND id < ?"
_SET_COMPACTED: Final = "UPDATE history SET compacted = ?"


class SqliteStore(Store):
    """
    A store in one file of a private directory, which outlives the process.

    A forked child may go on using it. An open store that is dropped gives a ``ResourceWarning``.

    Args:
        directory: Created with mode 0700 if missing; the mode of an existing one is left alone.
        name: Of the state file, which is kept at mode 0600.
        timeout: Seconds to wait for a lock of another process.
        history: How many deletions :meth:`changes` remembers at least.

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
    ) -> None:
        path = Path(directory).absolute() / name  # a later chdir must not move the store
        prepare(path)
        self._history = history
        self._database = Database(path, timeout)
        self._lock = self._database.lock
        self._reading = Attempt(self._database, "read")
        self._writing = Attempt(self._database, "write to")
        with self._lock, Attempt(self._database, "open"):
            pass  # what is wrong with the file is said here, not at the first use

    def __repr__(self) -> str:
        return f"<SqliteStore {self._database.path}>"

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*, None when there is none."""
        with self._lock, self._reading as cursor:
            row = cursor.execute(_GET, (key,)).fetchone()
        return None if row is None else Entry(key, row[1], row[0] >> PLACE_BITS)

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix* and the store's revision, in one consistent read."""
        with self._lock, self._reading as cursor:
            cursor.execute("BEGIN")
            revision = _revision(cursor)
            rows = cursor.execute(_LIST, (prefix, prefix)).fetchall()
            cursor.execute("COMMIT")
        return Snapshot(revision, tuple(Entry(key, value, row >> PLACE_BITS) for key, value, row in rows))

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        """Apply all *operations* if all *compares* hold; see :meth:`Store.transact`."""
        check_operations(operations)
        with self._lock, self._writing as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            self._database.check_in_place()
            revision = _revision(cursor)
            if revision != seen and not all(_holds(cursor, compare, revision) for compare in compares):
                cursor.execute("ROLLBACK")
                return None
            if _write(cursor, revision + 1, operations):
                revision += 1
                self._trim(cursor, revision)
            cursor.execute("COMMIT")
        return revision

    def changes(self, since: int) -> Changes | None:
        """Return what happened after revision *since*; see :meth:`Store.changes`."""
        with self._lock, self._reading as cursor:
            revision = _revision(cursor)
            if since == revision:
                return Changes(since, ())
            if not 0 <= since < revision:
                return None
            cursor.execute("BEGIN")
            (compacted,) = cursor.execute(_COMPACTED).fetchone()
            rows = cursor.execute(_NEWER, (since + 1 << PLACE_BITS,)).fetchall()
            cursor.execute("COMMIT")
        if since < compacted:
            return None
        changes = tuple(Change(key, value, row >> PLACE_BITS) for key, value, row in rows)
        return Changes(changes[-1].revision, changes)

    def watch(
        self, prefix: str, since: int, *, poll: float = 0.1, stop: threading.Event | None = None
    ) -> Iterator[Change]:
        """Yield the changes under *prefix* after revision *since*; see :meth:`Store.watch`."""
        return poll_changes(self, prefix, since, poll=poll, stop=stop)

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
        self._database.close()

    def _trim(self, cursor: sqlite3.Cursor, revision: int) -> None:
        """
        Forget old deletions, now and then: the cost is shared by the transactions in between.

        *revision* decides when, so that short-lived processes do their share as well.
        """
        if revision % max(1, self._history // 4):
            return
        row = cursor.execute(_NTH_LAST_DELETION, (self._history,)).fetchone()
        if row is None:
            return
        # Deletions of one revision go together, and those of the newest stay: they tell the revision.
        compacted = min(row[0] >> PLACE_BITS, revision - 1)
        cursor.execute(_FORGET_DELETIONS, (compacted + 1 << PLACE_BITS,))
        cursor.execute(_SET_COMPACTED, (compacted,))


def _revision(cursor: sqlite3.Cursor) -> int:
    (last_id,) = cursor.execute(_LAST_ID).fetchone()
    return 0 if last_id is None else int(last_id >> PLACE_BITS)


def _holds(cursor: sqlite3.Cursor, compare: Compare, now: int) -> bool:
    match compare:
        case Absent(key):
            return cursor.execute(_GET, (key,)).fetchone() is None
        case Unchanged(key, revision):
            row = cursor.execute(_GET, (key,)).fetchone()
            return row is not None and row[0] >> PLACE_BITS == revision
        case PrefixUnchanged(prefix, revision):
            if revision >= now:
                return True
            query = _PUT_AMONG_NEW if now - revision < _MANY_REVISIONS else _PUT_UNDER_PREFIX
            (is_put,) = cursor.execute(query, (revision + 1 << PLACE_BITS, prefix, prefix)).fetchone()
            return not is_put


def _write(cursor: sqlite3.Cursor, revision: int, operations: Sequence[Operation]) -> bool:
    """Write *operations* as of *revision*; return whether they had any effect."""
    numbered = tuple(enumerate(operations, revision << PLACE_BITS))
    puts = [
        (row, operation.key, operation.value) for row, operation in numbered if isinstance(operation, Put)
    ]
    deletes = [(row, operation.key) for row, operation in numbered if isinstance(operation, Delete)]
    if puts:
        cursor.executemany(_PUT, puts)
    if not deletes:
        return bool(puts)
    return cursor.executemany(_DELETE, deletes).rowcount > 0 or bool(puts)
