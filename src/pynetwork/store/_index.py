"""Which row of the state file is a key's: kept in memory, brought up to date at the start of each use."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.store._state_file import PLACE_BITS
from pynetwork.store.port import Absent, Delete, PrefixUnchanged, Put, Unchanged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from pynetwork.store.port import Compare, Operation

__all__ = ["Index", "Rows"]

_COMPACTED: Final = "SELECT compacted FROM history"
_ALL: Final = "SELECT id, key, value IS NULL FROM entries ORDER BY id"
_NEWER: Final = "SELECT id, key, value IS NULL FROM entries WHERE id >= ? ORDER BY id"


@attrs.frozen
class Rows:
    """What a transaction does to the file: rows that go, and rows that come (id, key, value or None)."""

    old: list[tuple[int]]
    new: list[tuple[int, str, str | None]]


@attrs.define
class Index:
    """
    Row ids by key.

    Attributes:
        revision: The one of the store that it is up to date with; -1 before it was read at all.
        rows: Ids of the rows of existing keys, oldest first.
        deleted: Ids of the rows that say of a key that it was deleted, oldest first.
    """

    revision: int = -1
    rows: dict[str, int] = attrs.field(factory=dict)
    deleted: dict[str, int] = attrs.field(factory=dict)

    def catch_up(self, cursor: sqlite3.Cursor, revision: int) -> None:
        """Take in what others have written; *cursor* is in a transaction that sees *revision*."""
        if self.revision == revision:
            return
        (compacted,) = cursor.execute(_COMPACTED).fetchone()
        if self.revision < compacted:
            self.rows.clear()
            self.deleted.clear()
            news = cursor.execute(_ALL)
        else:
            news = cursor.execute(_NEWER, (self.revision + 1 << PLACE_BITS,))
        for row, key, is_deleted in news:
            self._take(row, key, is_deleted=bool(is_deleted))
        self.revision = revision

    def holds(self, compare: Compare) -> bool:
        """Whether *compare* is true."""
        match compare:
            case Absent(key):
                return key not in self.rows
            case Unchanged(key, revision):
                return self.rows.get(key, -1) >> PLACE_BITS == revision
            case PrefixUnchanged(prefix, revision):
                first = revision + 1 << PLACE_BITS
                newer = takewhile(lambda item: item[1] >= first, reversed(self.rows.items()))
                return not any(key.startswith(prefix) for key, _ in newer)

    def plan(self, operations: Sequence[Operation]) -> Rows:
        """Return what *operations* do to the rows, those without effect left out."""
        rows, deleted = self.rows, self.deleted
        plan = Rows([], [])
        for row, operation in enumerate(operations, self.revision + 1 << PLACE_BITS):
            key = operation.key
            was = rows.get(key)
            if isinstance(operation, Put):
                plan.new.append((row, key, operation.value))
                was = deleted.get(key) if was is None else was
            elif isinstance(operation, Delete) and was is not None:
                plan.new.append((row, key, None))
            if was is not None:
                plan.old.append((was,))
        return plan

    def written(self, rows: Rows) -> None:
        """Note that *rows* were written as the next revision."""
        for row, key, value in rows.new:
            self._take(row, key, is_deleted=value is None)
        self.revision += bool(rows.new)

    def forget(self, before: int) -> None:
        """Forget the deletions whose rows are older than the id *before*."""
        old = [key for key, row in self.deleted.items() if row < before]
        for key in old:
            del self.deleted[key]

    def _take(self, row: int, key: str, *, is_deleted: bool) -> None:
        self.deleted.pop(key, None)  # both, in any case: it keeps their order
        self.rows.pop(key, None)
        (self.deleted if is_deleted else self.rows)[key] = row
