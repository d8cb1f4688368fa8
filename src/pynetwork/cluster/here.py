"""What there is of its cluster on a host: by the records of the host alone, whichever process made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.peers import Peer
from pynetwork.requests.common import join_scope, network_scope
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from collections.abc import Collection

    from pynetwork.cluster.followed import Ids
    from pynetwork.core import Core
    from pynetwork.records import AnyNetworkSpec, Row
    from pynetwork.specs import EndpointSpec
    from pynetwork.types import IPAddress

__all__ = ["Here", "HereView"]


@attrs.define
class Here:
    """
    What there is of the cluster on this host.

    Args:
        networks: Networks that it has a part in.
        joined: Endpoints that are joined, or are about to be.
        pending: Those that are about to be.
        is_unfinished: Whether a request is under way, so that it will be otherwise soon.
    """

    networks: dict[str, Row[AnyNetworkSpec]] = attrs.field(factory=dict)
    joined: dict[Ids, Peer] = attrs.field(factory=dict)
    pending: set[Ids] = attrs.field(factory=set)
    is_unfinished: bool = False


class HereView:
    """
    Looks at what there is of the cluster on a host.

    Args:
        core: The instance.
        host: Name of the host.
        vtep: Its address for the others.
    """

    def __init__(self, core: Core, host: str, vtep: IPAddress) -> None:
        self._core = core
        self._host = host
        self._vtep = vtep
        self._peers: dict[str, tuple[EndpointSpec, Peer]] = {}  # most are as they were at the last look

    def find(self, quarantined: Collection[str]) -> Here:
        """
        Return what there is; whoever calls reads the records.

        Args:
            quarantined: Ids of endpoints that are not to be announced.
        """
        records, world = self._core.records, self._core.engine.world
        held = {scope for intent in world.under_way() if not intent.finish for scope in intent.holds}
        here = Here()
        for identity, network in records.networks.items():
            if network.spec.space != CLUSTER_SPACE:
                continue
            if network_scope(identity) in held:
                here.is_unfinished = True
            else:
                here.networks[identity] = network
        known, self._peers = self._peers, {}
        for spec in (row.spec for row in records.endpoints.values()):
            sandbox = None if spec.sandbox is None else records.sandboxes.get(spec.sandbox)
            if sandbox is None or not sandbox.spec.attached:  # it waits for a namespace
                continue
            if spec.network not in here.networks or spec.id in quarantined:
                continue
            before = known.get(spec.id)
            peer = before[1] if before is not None and before[0] is spec else self._peer(spec)
            self._peers[spec.id] = (spec, peer)
            here.joined[spec.network, spec.id] = peer
            if join_scope(spec.id) in held:
                here.pending.add((spec.network, spec.id))
                here.is_unfinished = True
        return here

    def _peer(self, spec: EndpointSpec) -> Peer:
        return Peer(
            host=self._host,
            vtep=self._vtep,
            mac=spec.mac,
            addresses=[address.ip for address in spec.addresses],
            name=spec.name,
            aliases=spec.aliases,
        )
