"""The store as this process knows it: tables in memory that follow the store's revisions.

Every request reads the tables, never the store; what it read is compared when it writes, so a stale
table costs a second try and never a wrong decision. As long as nobody else writes, nothing is read
from the store at all.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

import attrs

from pynetwork.errors import PynetworkError, StoreError
from pynetwork.store import Put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pynetwork.store import Compare, Delete, Store

__all__ = ["Known", "Mirror", "Table"]


class Table(Protocol):
    """Holds the records whose keys start with one word."""

    def put(self, key: str, value: str, revision: int, decoded: object = None) -> None:
        """
        Take a record in, new or changed. Seeing one twice has no further effect.

        *decoded* is what *value* says, when this process wrote it.
        """
        ...

    def delete(self, key: str) -> None:
        """Drop a record, known or not."""
        ...

    def clear(self) -> None:
        """Forget everything: the history is gone and all records follow anew."""
        ...


@attrs.frozen
class Known(Put):
    """A put whose value the writer holds decoded: its tables need not parse what was just encoded."""

    decoded: object = attrs.field(kw_only=True, eq=False, repr=False)


class Mirror:
    """
    Keeps tables up to date with a store.

    Args:
        store: The store.
        tables: First word of a key (up to the first ``/``) to the table of such records.

    Attributes:
        lock: Held by whoever reads the tables or writes through :meth:`transact`. Never held while
            the host is changed.
    """

    def __init__(self, store: Store, tables: Mapping[str, Table]) -> None:
        self.lock = threading.RLock()
        self.store = store
        self.revision = 0
        self._tables = tables

    def load(self) -> None:
        """Read everything."""
        with self.lock:
            for table in set(self._tables.values()):
                table.clear()
            snapshot = self.store.list("")
            for entry in snapshot.entries:
                self._put(entry.key, entry.value, entry.revision)
            self.revision = snapshot.revision

    def refresh(self) -> bool:
        """Take in what others have written since the last look; returns whether there was anything."""
        with self.lock:
            news = self.store.changes(self.revision)
            if news is None:
                self.load()
                return True
            for change in news.changes:
                if change.value is None:
                    self._delete(change.key)
                else:
                    self._put(change.key, change.value, change.revision)
            self.revision = news.revision
            return bool(news.changes)

    def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int | None:
        """Write to the store and the tables. Returns the revision, or None when a compare failed."""
        with self.lock:
            revision = self.store.transact(compares, operations, seen=self.revision)
            if revision is None:
                return None
            if revision != self.revision + 1:
                self.refresh()  # others wrote in between; their changes come first
                return revision
            for operation in operations:
                if isinstance(operation, Known):
                    self._put(operation.key, operation.value, revision, operation.decoded)
                elif isinstance(operation, Put):
                    self._put(operation.key, operation.value, revision)
                else:
                    self._delete(operation.key)
            self.revision = revision
            return revision

    def _put(self, key: str, value: str, revision: int, decoded: object = None) -> None:
        table = self._tables.get(key.partition("/")[0])
        if table is None:
            return
        try:
            table.put(key, value, revision, decoded)
        except PynetworkError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            msg = f"record {key} is damaged: {error!r}"
            raise StoreError(msg) from error

    def _delete(self, key: str) -> None:
        table = self._tables.get(key.partition("/")[0])
        if table is not None:
            table.delete(key)
