"""What a host knows of the others in each of its networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from pynetwork.peers import Peer, PeerTable

__all__ = ["Followed", "Ids"]

#: Of a network and an endpoint in it.
Ids: TypeAlias = tuple[str, str]


@attrs.define
class Followed:
    """
    A network that this host has a part in.

    Args:
        vni: Its VNI.
        made: Revision of this host's own store at which the network came to it: it may go and come again
            between two looks, and what the datapath was told goes with it.
        table: What its records amount to.
        since: Revision of the store at which it was looked at as a whole: older changes are in it.
        local: Ids of its endpoints that this host has joined.
        is_behind: Whether the datapath could not be told of something.
    """

    vni: int
    made: int
    table: PeerTable
    since: int = 0
    local: set[str] = attrs.field(factory=set)
    is_behind: bool = False

    @property
    def records(self) -> dict[str, tuple[Peer, int]]:
        """The endpoints of other hosts by id, and the revisions of their records."""
        return {key: value for key, value in self.table.peers.items() if key not in self.local}

    def installed(self, host: str) -> int | None:
        """Return the revision up to which the datapath was told of the endpoints of a host."""
        if self.is_behind:
            return None
        return max((revision for peer, revision in self.records.values() if peer.host == host), default=None)
