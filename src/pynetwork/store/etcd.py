"""The store of a cluster: etcd, 3.4 or later, through its JSON gateway."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from pynetwork.errors import InvalidValueError, NotFoundError, StoreError
from pynetwork.store._rules import check_operations
from pynetwork.store.etcd_answers import NOT_FOUND, OUT_OF_RANGE, RefusedError
from pynetwork.store.etcd_client import Client
from pynetwork.store.etcd_endpoints import parse_endpoints, tls_context
from pynetwork.store.etcd_history import History
from pynetwork.store.etcd_leases import Leases
from pynetwork.store.etcd_watch import Watch
from pynetwork.store.etcd_wire import LARGEST, Layout, revision_of
from pynetwork.store.etcd_writer import Writers
from pynetwork.store.port import Change, Changes, LeasingStore, Put, Snapshot, Watcher

if TYPE_CHECKING:
    import ssl
    import threading
    from collections.abc import Iterator, Sequence

    from pynetwork.store.etcd_endpoints import Tls
    from pynetwork.store.port import Compare, Entry, Lease, Operation

__all__ = ["EtcdStore"]

_RANGE: Final = "/kv/range"
_TXN: Final = "/kv/txn"
# What etcd says of a transaction that it has no room for (etcdserver/api/v3rpc/rpctypes/error.go).
_TOO_MUCH: Final = {
    "etcdserver: too many operations in txn request": "--max-txn-ops, 128 if not set, one of which is ours",
    "etcdserver: request is too large": "--max-request-bytes, 1.5 MiB if not set",
}


class EtcdStore(LeasingStore):
    """
    A store in an etcd cluster, shared by all hosts that use the same cluster and prefix.

    It connects when it is first used. A call goes on trying, member by member, until *timeout* is over;
    a write whose answer was lost is found out about, for up to another *timeout*: it is not done twice,
    and not said to have failed when it was done.

    Revisions are the cluster's: they grow also by what others write in it.

    Args:
        endpoints: Of the members: ``["http://192.0.2.1:2379", ...]``, or one text with commas. With one
            the store is lost with that member; name all.
        prefix: Of the store's keys; a user needs read and write permission on it as a prefix.
        tls: For ``https`` endpoints: files, or a context of your own. By default the certificates that
            the system trusts.
        user: For a cluster with authentication.
        password: Of the user.
        timeout: Seconds.
        silence: Seconds after which a watch that hears nothing connects anew; most are quiet for so long
            because nothing happens, and some because the member hangs.
        refresh: Seconds after which a watch looks at the keys, and tells what it should have heard of, at the
            latest: watches that began together are to look at different times.

    Raises:
        InvalidValueError: An argument is malformed, or a file of *tls* is.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        prefix: str = "/pynetwork",
        tls: Tls | ssl.SSLContext | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout: float = 10.0,
        silence: float = 5.0,
        refresh: float = 600.0,
    ) -> None:
        parsed = parse_endpoints(endpoints, tls=tls is not None)
        self._layout = Layout.under(prefix)
        is_encrypted = any(endpoint.scheme == "https" for endpoint in parsed)
        self._client = Client(
            parsed,
            context=tls_context(tls) if is_encrypted else None,
            credentials=_credentials(user, password),
            timeout=_seconds("timeout", timeout),
        )
        self._silence = _seconds("silence", silence)
        self._refresh = _seconds("refresh", refresh)
        self._leases = Leases(self._client, self._layout)
        self._writers = Writers(self._client, self._layout, self._leases)
        self._history = History(self._client, self._layout, self._writers)

    def __repr__(self) -> str:
        return f"<EtcdStore {self._layout.prefix} in {self._client}>"

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*, None when there is none."""
        with _explained(what := f"read {key!r}"):
            answer = self._client.call(what, _RANGE, {"key": self._layout.key(key)})
            return next((self._layout.entry(item) for item in answer.get("kvs", ())), None)

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix* and the store's revision, in one consistent read."""
        with _explained(what := f"list {prefix!r}"):
            answer = self._client.call(what, _RANGE, self._layout.span(prefix))
            return Snapshot(revision_of(answer), tuple(map(self._layout.entry, answer.get("kvs", ()))))

    def transact(
        self,
        compares: Sequence[Compare],
        operations: Sequence[Operation],
        *,
        seen: int | None = None,  # noqa: ARG002 - of the port
    ) -> int | None:
        """
        Apply all *operations* if all *compares* hold; see :meth:`Store.transact`.

        The revision grows also by operations that have no effect. *seen* is of no use here.

        Raises:
            OutcomeUnknownError: The cluster stopped answering in the middle, and for longer than the
                store's time-out: what was asked for may be done, or not.
        """
        check_operations(operations)
        known = self._layout.compares(compares)
        if known is None:
            return None
        with _explained(what := f"write {_summary(operations)}", operations):
            if not operations:
                answer = self._client.call(what, _TXN, {"compare": known})
                return revision_of(answer) if answer.get("succeeded") else None
            return self._writers.write(what, known, self._layout.operations(operations))

    def changes(self, since: int) -> Changes | None:
        """
        Return what happened after revision *since*; see :meth:`Store.changes`.

        Deletions come last, with the revision at which they were noticed.
        """
        if not 0 <= since <= LARGEST:
            return None
        with _explained(what := f"read the changes after revision {since}"):
            span = self._layout.span("")
            # What was put since; how many there are; how many there were.
            body = {
                "success": [
                    {"request_range": {**span, "min_mod_revision": str(since + 1)}},
                    {"request_range": {**span, "count_only": True}},
                    {"request_range": {**span, "count_only": True, "revision": str(max(1, since))}},
                ]
            }
            try:
                answer = self._client.call(what, _TXN, body)
                put, now, then = (each["response_range"] for each in answer["responses"])
                items = put.get("kvs", ())
                created = sum(int(item["create_revision"]) > since for item in items)
                # Those that are older and still there are not among the created; the others went.
                is_complete = int(then.get("count", 0)) == int(now.get("count", 0)) - created
                gone = [] if is_complete else self._gone(what, since, revision_of(answer))
            except RefusedError as error:
                if error.code != OUT_OF_RANGE:
                    raise
                return None  # compacted, or not reached yet
        entries = sorted(map(self._layout.entry, items), key=lambda entry: entry.revision)
        puts = (Change(entry.key, entry.value, entry.revision) for entry in entries)
        revision = revision_of(answer)
        return Changes(revision, (*puts, *(Change(key, None, revision) for key in gone)))

    def past(self, revision: int) -> Snapshot | None:
        """Return all entries as they were at *revision*; see :meth:`Store.past`."""
        with _explained(f"look back at revision {revision}"):
            return self._history.at(revision)

    def history(self, since: int, *, limit: int = 1024) -> Changes | None:
        """
        Return every change after revision *since*; see :meth:`Store.history`.

        It also moves a mark in etcd, unless nothing has happened at all. Times are by the clocks of those
        who wrote; of what ended with a lease none is known, and it is 0.
        """
        with _explained(f"read the history after revision {since}"):
            return self._history.after(since, limit)

    def watcher(self) -> Watcher:
        """
        Return something that follows prefixes, on one connection; see :meth:`Store.watcher`.

        What was begun ends with the store only. While no member answers it waits; what happened meanwhile
        follows. When the history in between is gone, or the cluster was replaced by another, the difference
        is told: each key as it is now, and what is gone, once.

        Its methods raise :class:`StoreError`, as any other call; later, when the user may not watch.
        """
        return _EtcdWatcher(Watch(self._client, self._layout, silence=self._silence, refresh=self._refresh))

    def grant(self, ttl: float) -> Lease:
        """Return a new lease of *ttl* seconds, or what the cluster grants at least (two is common)."""
        with _explained("grant a lease"):
            return self._leases.grant(ttl)

    def keep_alive(self, lease: Lease) -> float | None:
        """Renew *lease*. Return the seconds it now lasts, or None when it has ended."""
        with _explained(f"renew {lease}"):
            return self._leases.keep_alive(lease)

    def remaining(self, lease: Lease) -> float | None:
        """Return the seconds that *lease* lasts unless it is renewed, or None when it has ended."""
        with _explained(f"look at {lease}"):
            return self._leases.remaining(lease)

    def revoke(self, lease: Lease) -> None:
        """End *lease* and delete its keys. One that has ended is no error."""
        with _explained(f"revoke {lease}"):
            self._leases.revoke(lease)

    def close(self) -> None:
        """Close the connections; watches end with an error. Leases go on until they end by themselves."""
        if not self._client.is_closed:
            self._writers.close()
            self._client.close()

    def _gone(self, what: str, since: int, now: int) -> Sequence[str]:
        """Return the keys that were there at revision *since* and are not at *now*."""
        keys = {**self._layout.span(""), "keys_only": True}
        then = self._client.call(what, _RANGE, {**keys, "revision": str(max(1, since))})
        left = self._client.call(what, _RANGE, {**keys, "revision": str(now)})
        names = [{self._layout.name(item) for item in answer.get("kvs", ())} for answer in (then, left)]
        return sorted(names[0] - names[1])


class _EtcdWatcher(Watcher):
    """Has *watch* do it, and explains what goes wrong."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def add(self, prefix: str, since: int) -> None:
        with _explained(f"watch {prefix!r}"):
            self._watch.add(prefix, since)

    def drop(self, prefix: str) -> None:
        self._watch.drop(prefix)

    def changes(self, *, poll: float = 0.1, stop: threading.Event | None = None) -> Iterator[Change]:
        with _explained("watch"):
            yield from self._watch.changes(stop, poll)

    def close(self) -> None:
        self._watch.close()


@contextlib.contextmanager
def _explained(what: str, operations: Sequence[Operation] = ()) -> Iterator[None]:
    """Turn what etcd refuses into an error of ours; *what* completes "cannot ..."."""
    try:
        yield
    except RefusedError as error:
        if limit := _TOO_MUCH.get(error.message):
            msg = f"cannot {what}: it is too much for etcd at {error.by}, {error.message} ({limit})"
            raise InvalidValueError(msg) from error
        leases = sorted({str(each.lease) for each in operations if isinstance(each, Put) and each.lease})
        if error.code == NOT_FOUND and leases:
            msg = f"cannot {what}: {' or '.join(leases)} has ended; nothing was written"
            raise NotFoundError(msg) from error
        msg = f"cannot {what}: etcd at {error.by} refuses: {error.message}"
        raise StoreError(msg) from error


def _summary(operations: Sequence[Operation]) -> str:
    if not operations:
        return "nothing"
    more = f" and {len(operations) - 1} more" if len(operations) > 1 else ""
    return f"{operations[0].key!r}{more}"


def _credentials(user: str | None, password: str | None) -> tuple[str, str] | None:
    if (user is None) != (password is None):
        msg = "user and password go together"
        raise InvalidValueError(msg)
    return None if user is None or password is None else (user, password)


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        msg = f"{name} is a number of seconds above 0, not {value!r}"
        raise InvalidValueError(msg)
    return float(value)
