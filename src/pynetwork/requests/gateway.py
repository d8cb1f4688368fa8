"""What a sandbox has of its host's gateway network: the way out of networks that have none of their own.

Such networks span hosts, and no host is in them. Their endpoints go out, and are reached from outside, by
another interface of their sandbox, on a bridge of its host (libnetwork's ``docker_gwbridge``). That is an
endpoint like any other, of a bridge network like any other; only nobody sees it in a list. The network has
the id of the instance, and the endpoint that of the sandbox: there is one of each, and no name to be taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.engine.codec import changed
from pynetwork.plan import Plan
from pynetwork.records import Row
from pynetwork.requests.addresses import release_addresses, take_addresses
from pynetwork.requests.common import join_scope, network_scope, next_hop
from pynetwork.specs import EndpointSpec
from pynetwork.store import Delete
from pynetwork.types import random_mac

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.records import AnyNetworkSpec
    from pynetwork.specs import SandboxSpec

__all__ = ["end_gateway", "gateway_for", "is_gateway_needed", "is_gateway_of_use", "ways_in"]


def is_gateway_of_use(core: Core, members: Iterable[EndpointSpec]) -> bool:
    """Return whether any of the endpoints is in a network whose way out is the host's gateway network."""
    return any(core.network(spec.network).spec.host_gateway for spec in members)


def is_gateway_needed(core: Core, members: Sequence[EndpointSpec]) -> bool:
    """
    Return whether a sandbox with these endpoints has no other way out.

    In some address family of an endpoint whose own network has none, no other endpoint provides one either.
    Libnetwork asks this of IPv4 alone (``needDefaultGW``).
    """
    networks = {spec.network: core.network(spec.network).spec for spec in members}
    versions = {
        address.version
        for spec in members
        if networks[spec.network].host_gateway
        for address in spec.addresses
    }
    return any(
        all(next_hop(networks[spec.network], spec, version) is None for spec in members)
        for version in versions.intersection(_versions(core))
    )


def _versions(core: Core) -> set[int]:
    return {subnet.version for subnet in core.network(core.instance).spec.subnets}


def gateway_for(core: Core, draft: Draft, sandbox: SandboxSpec) -> Row[EndpointSpec]:
    """Return the endpoint of a sandbox in the gateway network, a new one when it has none yet."""
    network = core.network(core.instance).spec
    draft.undisturbed.add(network_scope(network.id))
    row = core.records.endpoints.get(sandbox.id)
    if row is not None:
        draft.rely_on(row.key, row.revision)
        return row
    mac = random_mac(core.surroundings.random)
    addresses = take_addresses(core, draft, network, mac)
    spec = EndpointSpec(
        id=sandbox.id,
        name="gateway",
        network=network.id,
        addresses=addresses,
        mac=mac,
        announce=any(core.allocations.was_used(network.ipam, network.space, each.ip) for each in addresses),
        system=True,
        created=core.surroundings.clock(),
    )
    return Row(f"endpoint/{network.id}/{spec.id}", spec, 0)


def end_gateway(core: Core, draft: Draft, sandbox: str) -> None:
    """Draft that the sandbox of that id has nothing of the gateway network any more, if it had."""
    row = core.records.endpoints.get(sandbox)
    if row is None:
        return
    draft.rely_on(row.key, row.revision)
    draft.plans[join_scope(sandbox)] = Plan()
    release_addresses(core, draft, core.network(row.spec.network).spec, row.spec)
    draft.on_commit.append(Delete(row.key))


def ways_in(
    core: Core, endpoint: EndpointSpec, members: Iterable[EndpointSpec]
) -> Iterator[tuple[AnyNetworkSpec, EndpointSpec]]:
    """
    Yield the networks through which an endpoint is reached from outside, each with it as it is there.

    What its own network does not do, those do through which its sandbox answers: there it has the
    addresses of the endpoints that provide the default routes. It is told by its own names, whichever way
    that is: a port that goes another way is nobody else's.

    Args:
        core: The instance.
        endpoint: The endpoint, joined.
        members: All endpoints of its sandbox.
    """
    network = core.network(endpoint.network).spec
    if not network.host_gateway:
        yield network, endpoint
        return
    for member in members:
        versions = {via.version for via in member.default_via}
        addresses = tuple(address for address in member.addresses if address.version in versions)
        if addresses:
            way = core.network(member.network).spec
            yield changed(way, name=network.name), changed(endpoint, addresses=addresses)
