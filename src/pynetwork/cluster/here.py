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
    from pynetwork.types import IPAddress

__all__ = ["Here", "find_here"]


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


def find_here(core: Core, host: str, vtep: IPAddress, quarantined: Collection[str]) -> Here:
    """
    Return what there is of the cluster on a host, whose records are being read.

    Args:
        core: The instance.
        host: Name of the host.
        vtep: Its address for the others.
        quarantined: Ids of endpoints that are not to be announced.
    """
    records, world = core.records, core.engine.world
    held = {scope for intent in world.under_way() if not intent.finish for scope in intent.holds}
    here = Here()
    for identity, network in records.networks.items():
        if network.spec.space != CLUSTER_SPACE:
            continue
        if network_scope(identity) in held:
            here.is_unfinished = True
        else:
            here.networks[identity] = network
    for spec in (row.spec for row in records.endpoints.values()):
        sandbox = None if spec.sandbox is None else records.sandboxes.get(spec.sandbox)
        if sandbox is None or not sandbox.spec.attached:  # it waits for a namespace
            continue
        if spec.network not in here.networks or spec.id in quarantined:
            continue
        here.joined[spec.network, spec.id] = Peer(
            host=host,
            vtep=vtep,
            mac=spec.mac,
            addresses=[address.ip for address in spec.addresses],
            name=spec.name,
            aliases=spec.aliases,
        )
        if join_scope(spec.id) in held:
            here.pending.add((spec.network, spec.id))
            here.is_unfinished = True
    return here
