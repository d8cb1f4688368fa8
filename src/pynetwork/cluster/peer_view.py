"""The other hosts of a network: from their records, and from what the agent has made of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import attrs

from pynetwork.cluster.layout import HOSTS, HostRecord, peer_key, peer_of, read
from pynetwork.cluster.status import PeerHost
from pynetwork.errors import StoreError
from pynetwork.peers import Peer
from pynetwork.store import Lease
from pynetwork.types import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.cluster.followed import Followed
    from pynetwork.cluster.ledger import Ledger
    from pynetwork.cluster.worker import Worker
    from pynetwork.store import Entry, LeasingStore

__all__ = ["Lag", "lagging", "peer_hosts"]

#: Records of endpoints, and their revisions.
_Records: TypeAlias = "dict[str, list[tuple[Peer, int]]]"


@attrs.frozen
class Lag:
    """
    What this host's datapath was not told of another one, in a network that it follows.

    Args:
        network: The network's id.
        host: Name of the other host.
        installed: Revision up to which it was told; None when it could not be told of something.
    """

    network: str
    host: str
    installed: int | None


def peer_hosts(ledger: Ledger, network: str, worker: Worker) -> tuple[PeerHost, ...]:
    """
    Return the other hosts that have endpoints of a network joined.

    Args:
        ledger: The books.
        network: The network's id.
        worker: What follows them on this host, if that is this process.

    Raises:
        StoreError: The store does not answer, and nothing on this host follows the network.
    """
    followed = worker.followed(network)
    there: Mapping[str, Entry] | None
    try:
        found = _by_host(ledger, network, followed)
        there = {entry.key.removeprefix(HOSTS): entry for entry in ledger.store.list(HOSTS).entries}
    except StoreError:
        if followed is None:
            raise
        found, there = _grouped(ledger, followed.records.values()), None
    return tuple(
        PeerHost(
            host=host,
            vtep=parse_address(records[0][0].vtep),
            alive=None if there is None else host in there,
            endpoints={peer.name: tuple(map(parse_address, peer.addresses)) for peer, _ in records},
            revision=max(revision for _, revision in records),
            installed=None if followed is None else followed.installed(host),
            heard=_heard(ledger.store, None if there is None else there.get(host)),
            probe=worker.probes.get(host),
        )
        for host, records in sorted(found.items())
    )


def lagging(ledger: Ledger, worker: Worker) -> list[Lag]:
    """
    Return the hosts of which this host's datapath does not know all, at this moment.

    Raises:
        StoreError: The store does not answer.
    """
    found = []
    for network in worker.networks():
        if (followed := worker.followed(network)) is None:
            continue  # it went meanwhile
        for host, records in sorted(_by_host(ledger, network, followed).items()):
            installed = followed.installed(host)
            if installed is None or installed < max(revision for _, revision in records):
                found.append(Lag(network, host, installed))
    return found


def _by_host(ledger: Ledger, network: str, followed: Followed | None) -> _Records:
    """Return the records of the other hosts of a network; what has just ended may still be forwarded to."""
    found = {} if followed is None else followed.records
    for entry in ledger.store.list(peer_key(network)).entries:
        found[peer_of(entry.key)[1]] = read(Peer, entry), entry.revision
    return _grouped(ledger, found.values())


def _grouped(ledger: Ledger, found: Iterable[tuple[Peer, int]]) -> _Records:
    hosts: _Records = {}
    for peer, revision in found:
        if peer.host != ledger.host:
            hosts.setdefault(peer.host, []).append((peer, revision))
    return hosts


def _heard(store: LeasingStore, entry: Entry | None) -> float | None:
    """Return how long ago a host renewed its lease, None when nobody can say."""
    with suppress(StoreError):
        record = None if entry is None else read(HostRecord, entry)
        if record is not None and record.lease:
            left = store.remaining(Lease(record.lease, record.ttl))
            return None if left is None else max(0.0, record.ttl - left)
    return None
