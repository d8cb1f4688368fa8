"""The port every backend serves: get, list, transact with compares, follow by revision.

It is the part of etcd's model that the engine needs, so the same code runs on a file and on a cluster:

* A store has one **revision**, an int that grows with every transaction that changes something.
  A file begins at 0; in a cluster others write, too, and a store may begin anywhere.
* What must be true together is written together: :meth:`Store.transact` is all or nothing, and its
  **compares** say what the caller believed when it prepared the operations.
* A reader keeps a :class:`Snapshot` up to date by asking for the :class:`Changes` since its revision.
* What shall go when its writer dies is put with a **lease**, where a store has them (:class:`Leasing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import attrs

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from types import TracebackType

__all__ = [
    "Absent",
    "Change",
    "Changes",
    "Compare",
    "Delete",
    "Entry",
    "Lease",
    "Leasing",
    "LeasingStore",
    "Operation",
    "PrefixUnchanged",
    "Put",
    "Snapshot",
    "Store",
    "Unchanged",
    "Watcher",
]


@attrs.frozen
class Entry:
    """A key, its value, and the revision of the transaction that last put it."""

    key: str
    value: str
    revision: int


@attrs.frozen
class Snapshot:
    """The entries under a prefix, sorted by key, as they were at one revision of the store."""

    revision: int
    entries: tuple[Entry, ...]


@attrs.frozen
class Change:
    """
    What became of a key at a revision; a *value* of None says that it was deleted.

    *time* is when, in seconds since the epoch, 0 when the store does not know; two changes that differ
    in it only are equal.
    """

    key: str
    value: str | None
    revision: int
    time: float = attrs.field(default=0.0, eq=False)


@attrs.frozen
class Changes:
    """Changes in order of revision, and the revision of the store once they are applied."""

    revision: int
    changes: tuple[Change, ...]


@attrs.frozen
class Lease:
    """A time to live that several keys share, granted by a store. *ttl* is in seconds."""

    id: int
    ttl: float


@attrs.frozen
class Put:
    """
    Set *key* to *value*, whether or not it exists.

    With a *lease* the key is deleted when the lease ends. Without one it stays, also if it was put
    with a lease before.
    """

    key: str
    value: str
    lease: Lease | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Delete:
    """Remove *key*; one that is missing is no error and no change."""

    key: str


@attrs.frozen
class Absent:
    """*key* does not exist."""

    key: str


@attrs.frozen
class Unchanged:
    """*key* exists, and *revision* is the one that last put it."""

    key: str
    revision: int


@attrs.frozen
class PrefixUnchanged:
    """No key that exists under *prefix* was put after *revision*. Deletions are not seen."""

    prefix: str
    revision: int


Compare: TypeAlias = Absent | Unchanged | PrefixUnchanged
Operation: TypeAlias = Put | Delete


class Watcher(Protocol):
    """
    Follows any number of prefixes, for the price of one: a thread, and a connection where there are any.

    One thread takes the changes; any thread may add and drop prefixes meanwhile, and close the watcher.
    """

    def add(self, prefix: str, since: int) -> None:
        """
        Follow *prefix*, too; from revision *since* on also if it is followed already.

        No key may be under two prefixes.

        Args:
            prefix: The beginning of the keys to follow.
            since: The revision of the snapshot to keep up to date.

        Raises:
            HistoryLostError: The history after *since* is gone. List anew, add it from there.
        """
        ...

    def drop(self, prefix: str) -> None:
        """Follow *prefix* no more; what is known of it may still be told. Not followed is fine."""
        ...

    def changes(self, *, poll: float = 0.1, stop: threading.Event | None = None) -> Iterator[Change]:
        """
        Yield the changes under all prefixes, each in the order of its own; see :meth:`Store.watch`.

        Ends with :meth:`close`, too, and at once. After an error it may be called again.

        Raises:
            HistoryLostError: The history of some prefixes is gone; they are followed no more.
        """
        ...

    def close(self) -> None:
        """End. Idempotent."""
        ...


class Store(Protocol):
    """
    A key-value store with revisions.

    Keys and values are text that the store does not look inside. Keys sort by code point; a prefix is
    any beginning of a key, ``""`` is the beginning of all. Every method may be called from any thread,
    and raises :class:`~pynetwork.errors.StoreError` when the state cannot be read or written.
    """

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*, None when there is none."""
        ...

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix* and the store's revision, in one consistent read."""
        ...

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        """
        Apply all *operations* if all *compares* hold, else none.

        Args:
            compares: What must be true at the moment of writing.
            operations: What to write. A key may appear in one operation only.
            seen: A revision at which the caller knows the compares to hold. A store that is still at it
                need not look at them.

        Returns:
            The revision of the store after the transaction, shared by everything it wrote. When the
            operations had no effect it may be the old one, which may be 0. None when a compare failed.

        Raises:
            InvalidValueError: A key is empty or appears twice, a text cannot be encoded, or a put has a
                lease and the store knows none.
            NotFoundError: The compares hold, and the lease of a put has ended; nothing was written.
            OutcomeUnknownError: A store that is reached over the network stopped answering in the middle:
                all was written, or nothing.
            StoreError: The state cannot be written; nothing was.
        """
        ...

    def changes(self, since: int) -> Changes | None:
        """
        Return what happened after revision *since*. Free of charge, nearly, when nothing did.

        A key that changed several times appears once, as it is now. A key that came and went may appear
        as deleted to a reader who never saw it. The revision of a deletion may be a later one, at which
        it was noticed.

        Args:
            since: A revision this store gave out.

        Returns:
            The changes, none when the store is still at *since*. None when they are not known: the
            history was trimmed, or *since* is not a revision of this store. List anew.
        """
        ...

    def past(self, revision: int) -> Snapshot | None:
        """
        Return all entries as they were at *revision*; None when the history does not reach back to it.

        A store may remember the past of some keys only; of the others, those that changed since may be
        missing.
        """
        ...

    def history(self, since: int, *, limit: int = 1024) -> Changes | None:
        """
        Return every change after revision *since*, those that were overtaken as well, in their order.

        What :meth:`past` says of keys whose past is not remembered is true here, too: only their last
        change is among those returned.

        Args:
            since: A revision this store gave out.
            limit: About how many to return: a revision that is begun is completed.

        Returns:
            The changes, and the revision up to which they are complete. None when they are not known:
            the history was trimmed, or *since* is not a revision of this store.
        """
        ...

    def watcher(self) -> Watcher:
        """Return something that follows prefixes: none yet. It costs nothing until it has one."""
        ...

    def watch(
        self, prefix: str, since: int, *, poll: float = 0.1, stop: threading.Event | None = None
    ) -> Iterator[Change]:
        """
        Yield the changes under *prefix* after revision *since*, for ever, as they happen.

        All changes of a transaction carry its revision: who stops in the middle of one and resumes
        from there misses the rest of it.

        Args:
            prefix: The beginning of the keys to follow.
            since: The revision of the snapshot to keep up to date.
            poll: Seconds between two looks, for a store that is not told of changes.
            stop: Once set, the iterator ends, within *poll* seconds; of a store that is told of changes,
                within a twentieth of a second, or *poll* seconds.

        Raises:
            HistoryLostError: The history after *since* is gone. List anew, watch from there.
        """
        watcher = self.watcher()
        watcher.add(prefix, since)
        yield from watcher.changes(poll=poll, stop=stop)

    def close(self) -> None:
        """Release what the store holds of this process. The state stays. Closing twice is fine."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Leasing(Protocol):
    """
    What a store can do beyond :class:`Store` that takes back the keys of writers which are gone.

    The writer renews its lease well before the end, every third of its time to live, say: see
    :class:`~pynetwork.store.LeaseKeeper`. When it does not, the store deletes the lease's keys, all in
    one transaction, some time after the end and never before. Any writer may use any lease.
    """

    def grant(self, ttl: float) -> Lease:
        """
        Return a new lease.

        Args:
            ttl: Seconds until it ends if it is not renewed. A store may grant more, see :attr:`Lease.ttl`.

        Raises:
            InvalidValueError: *ttl* is not a positive number, or too large.
            StoreError: The store does not answer.
        """
        ...

    def keep_alive(self, lease: Lease) -> float | None:
        """Renew *lease*. Return the seconds it now lasts, or None when it has ended, with all its keys."""
        ...

    def remaining(self, lease: Lease) -> float | None:
        """Return the seconds that *lease* lasts unless it is renewed, or None when it has ended."""
        ...

    def revoke(self, lease: Lease) -> None:
        """End *lease* and delete its keys, in one transaction. One that has ended is no error."""
        ...


class LeasingStore(Store, Leasing, Protocol):
    """A :class:`Store` with leases."""
