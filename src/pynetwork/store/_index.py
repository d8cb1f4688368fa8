"""Which row of the state file is a key's: kept in memory, brought up to date at the start of each use."""

from __future__ import annotations

from collections import deque
from heapq import merge
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.store._state_file import PLACE_BITS
from pynetwork.store.port import Absent, Delete, PrefixUnchanged, Put, Unchanged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

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

    Args:
        remembers: Whether rows of a key that were overtaken stay in the file, until the history is trimmed.

    Attributes:
        revision: The one of the store that it is up to date with; -1 before it was read at all.
        rows: Ids of the rows of existing keys, oldest first.
        deleted: Ids of the rows that say of a key that it was deleted, oldest first.
        overtaken: Ids of rows that were overtaken, each after that of the row which did it, oldest first.
    """

    remembers: Callable[[str], bool]
    revision: int = -1
    rows: dict[str, int] = attrs.field(factory=dict)
    deleted: dict[str, int] = attrs.field(factory=dict)
    overtaken: deque[tuple[int, int]] = attrs.field(factory=deque)

    def catch_up(self, cursor: sqlite3.Cursor, revision: int) -> None:
        """Take in what others have written; *cursor* is in a transaction that sees *revision*."""
        if self.revision == revision:
            return
        (compacted,) = cursor.execute(_COMPACTED).fetchone()
        anew = self.revision < compacted or self.revision < 0
        if anew:
            self.rows.clear()
            self.deleted.clear()
            self.overtaken.clear()
            news = cursor.execute(_ALL)
        else:
            news = cursor.execute(_NEWER, (self.revision + 1 << PLACE_BITS,))
        for row, key, is_deleted in news:
            self._take(row, key, is_deleted=bool(is_deleted), anew=anew)
        self.forget(compacted + 1 << PLACE_BITS)
        self.revision = revision

    def holds(self, compare: Compare) -> bool:
        """Whether *compare* is true."""
        match compare:
            case Absent(key):
                return key not in self.rows
            case Unchanged(key, revision):
                row = self.rows.get(key)
                return row is not None and row >> PLACE_BITS == revision
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
            if was is not None and not self.remembers(key):
                plan.old.append((was,))
        return plan

    def written(self, rows: Rows) -> None:
        """Note that *rows* were written as the next revision."""
        for row, key, value in rows.new:
            self._take(row, key, is_deleted=value is None)
        self.revision += bool(rows.new)

    @property
    def size(self) -> int:
        """How many rows are history."""
        return len(self.overtaken) + len(self.deleted)

    def oldest(self, count: int) -> int:
        """Return the revision at which the last of the *count* oldest rows of the history became so."""
        ages = merge((age for age, _ in self.overtaken), self.deleted.values())
        return next(islice(ages, count - 1, None)) >> PLACE_BITS

    def older(self, before: int) -> list[int]:
        """Return the rows of the history that became so by a row older than the id *before*."""
        overtaken = takewhile(lambda item: item[0] < before, self.overtaken)
        return [*(row for _, row in overtaken), *takewhile(lambda row: row < before, self.deleted.values())]

    def forget(self, before: int) -> None:
        """Forget the rows that :meth:`older` returns."""
        while self.overtaken and self.overtaken[0][0] < before:
            self.overtaken.popleft()
        for key in [key for key, _ in takewhile(lambda item: item[1] < before, self.deleted.items())]:
            del self.deleted[key]

    def _take(self, row: int, key: str, *, is_deleted: bool, anew: bool = False) -> None:
        was = self.deleted.pop(key, None)  # both, in any case: it keeps their order
        before = self.rows.pop(key, was)
        # Of what is found in the file when all of it is read, all was remembered.
        if before is not None and (anew or self.remembers(key)):
            self.overtaken.append((row, before))
        (self.deleted if is_deleted else self.rows)[key] = row
