"""The other hosts of a network: from their records, and from what the agent has made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.cluster.layout import HOSTS, peer_key, peer_of, read
from pynetwork.cluster.status import PeerHost
from pynetwork.errors import StoreError
from pynetwork.peers import Peer
from pynetwork.types import parse_address

if TYPE_CHECKING:
    from pynetwork.cluster.ledger import Ledger
    from pynetwork.cluster.worker import Worker

__all__ = ["peer_hosts"]


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
    there: set[str] | None
    try:
        entries = ledger.store.list(peer_key(network)).entries
        there = {entry.key.removeprefix(HOSTS) for entry in ledger.store.list(HOSTS).entries}
    except StoreError:
        if followed is None:
            raise
        found, there = followed.records, None
    else:
        # What has ended a moment ago may still be forwarded to.
        found = {} if followed is None else followed.records
        found |= {peer_of(entry.key)[1]: (read(Peer, entry), entry.revision) for entry in entries}
    hosts: dict[str, list[tuple[Peer, int]]] = {}
    for peer, revision in found.values():
        hosts.setdefault(peer.host, []).append((peer, revision))
    return tuple(
        PeerHost(
            host=host,
            vtep=parse_address(records[0][0].vtep),
            alive=None if there is None else host in there,
            endpoints={peer.name: tuple(map(parse_address, peer.addresses)) for peer, _ in records},
            revision=max(revision for _, revision in records),
            installed=None if followed is None else followed.installed(host),
        )
        for host, records in sorted(hosts.items())
        if host != ledger.host
    )
