"""This host, as the others of its cluster see it: there as long as its lease, with what it has joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.cluster.layout import HOSTS, KNOWN, HostRecord, KnownRecord, peer_key, read, write
from pynetwork.errors import ConflictError, StoreError
from pynetwork.store import Absent, Delete, Put, Unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.peers import Peer
    from pynetwork.store import Compare, Entry, Lease, LeasingStore, Operation

__all__ = ["Member"]

_TOGETHER: Final = 100  # operations of a transaction: etcd takes 128
_TRIES: Final = 100


class Member:
    """
    Announces a host and its endpoints.

    Args:
        store: The cluster's.
        host: Name of the host.
        record: How the others reach it.
        ttl: Seconds that it is taken to be there after it was heard of.

    Attributes:
        lease: What is announced ends with it; None before the host was registered.
    """

    def __init__(self, store: LeasingStore, host: str, record: HostRecord, ttl: float) -> None:
        self._store = store
        self._host = host
        self._record = record
        self._ttl = ttl
        self.lease: Lease | None = None

    def check(self) -> None:
        """
        Check that the host can be in the cluster.

        Raises:
            ConflictError: Another host has its name, or the cluster another UDP port.
        """
        for entry in self._store.list(HOSTS).entries:
            self._check(entry)

    def _check(self, entry: Entry) -> None:
        """Check that the host can be in a cluster in which there is the host of *entry*."""
        other = read(HostRecord, entry)
        name = entry.key.removeprefix(HOSTS)
        if name == self._host and other.instance != self._record.instance:
            msg = (
                f"host {self._host!r} cannot join the cluster: another of that name is in it, with "
                f"VTEP {other.vtep}"
            )
            raise ConflictError(msg)
        if other.port != self._record.port:
            msg = (
                f"host {self._host!r} cannot join the cluster with VXLAN on port {self._record.port}: "
                f"host {name!r} has it on port {other.port}"
            )
            raise ConflictError(msg)

    def register(self) -> Lease:
        """
        Register the host with a lease of its own, whether or not it was registered before.

        All hosts are looked at the first time only: after an outage many register again at once.

        Raises:
            ConflictError: See :meth:`check`.
            StoreError: The store does not answer.
        """
        if self.lease is None:
            self.check()
        key = f"{HOSTS}{self._host}"
        lease: Lease | None = None
        for _ in range(_TRIES):
            entry = self._store.get(key)
            if entry is not None:
                self._check(entry)
            lease = lease or self._store.grant(self._ttl)
            record = write(attrs.evolve(self._record, lease=lease.id, ttl=lease.ttl))
            compare = Absent(key) if entry is None else Unchanged(key, entry.revision)
            puts = [
                Put(key, record, lease=lease),
                Put(f"{KNOWN}{self._host}", write(KnownRecord())),
            ]
            if self._store.transact([compare], puts) is not None:
                self.lease = lease
                return lease
        msg = f"cannot register host {self._host!r}: its record changes all the time"
        raise StoreError(msg)

    def announce(
        self, joined: Mapping[tuple[str, str], Peer], left: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """
        Announce endpoints that have joined, and others that have left, by ids of network and endpoint.

        Raises:
            NotFoundError: The lease has ended: register again, and announce all.
            StoreError: The store does not answer.
        """
        operations: list[Operation] = [Delete(peer_key(*ids)) for ids in left]
        operations += (Put(peer_key(*ids), write(peer), lease=self.lease) for ids, peer in joined.items())
        none: list[Compare] = []
        for start in range(0, len(operations), _TOGETHER):
            self._store.transact(none, operations[start : start + _TOGETHER])
