"""What the drafts of several kinds of objects have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from pynetwork.engine.codec import encode
from pynetwork.errors import ConflictError, UnavailableError
from pynetwork.ipam import Pool
from pynetwork.store import Delete, PrefixUnchanged, Put

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.records import AnyDriver, AnyNetworkSpec, Row
    from pynetwork.specs import EndpointSpec, PortSpec, Subnet
    from pynetwork.types import IPAddress

__all__ = [
    "by_claim",
    "driver_of",
    "join_scope",
    "network_scope",
    "next_hop",
    "plain",
    "pool_of",
    "port_key",
    "ports_of",
    "rename",
    "sandbox_lock",
    "sandbox_scope",
]


def network_scope(identity: str) -> str:
    """Return the scope of what exists as long as a network does."""
    return f"network/{identity}"


def sandbox_scope(identity: str) -> str:
    """Return the scope of what exists as long as a sandbox does."""
    return f"sandbox/{identity}"


def join_scope(endpoint: str) -> str:
    """Return the scope of what exists as long as an endpoint is joined."""
    return f"join/{endpoint}"


def port_key(endpoint: str, port: str) -> str:
    """Return the key of the record of a published port, which is the scope of its rules, too."""
    return f"port/{endpoint}/{port}"


def ports_of(core: Core, draft: Draft, endpoint: str) -> list[Row[PortSpec]]:
    """Return all that the endpoint of that id publishes; *draft* is void if another process changes it."""
    rows = core.records.ports_of(endpoint)
    draft.compares.append(PrefixUnchanged(port_key(endpoint, ""), core.engine.mirror.revision))
    for row in rows:  # a deletion is not seen by the prefix
        draft.rely_on(row.key, row.revision)
    return rows


def sandbox_lock(identity: str) -> str:
    """Return the lock of all requests that change which endpoints a sandbox has."""
    return f"members/{identity}"


def pool_of(network: AnyNetworkSpec, subnet: Subnet) -> Pool:
    """Return the pool that *subnet* of *network* was allocated from."""
    return Pool(space=network.space, subnet=subnet.network, sub_pool=subnet.sub_pool)


def driver_of(core: Core, network: AnyNetworkSpec) -> AnyDriver:
    """
    Return the driver of *network*.

    Raises:
        UnknownDriverError: It is not installed here.
        UnavailableError: The network's options are not those of the driver that is.
    """
    driver = core.drivers[network.driver]
    if not isinstance(network.options, driver.options_type):
        msg = (
            f"network {network.name!r} was made by another version of driver {network.driver!r}: the one "
            f"installed here does not understand its options, {network.options!r}"
        )
        raise UnavailableError(msg)
    return driver


def by_claim(core: Core, members: Iterable[EndpointSpec]) -> list[EndpointSpec]:
    """
    Return the endpoints of a sandbox by their claim to provide its default routes, the highest first.

    What it has of the host's gateway network comes last. Else: higher priority; not internal; more address
    families; joined earlier (libnetwork's order, with age in place of the network's name).
    """
    return sorted(
        members,
        key=lambda spec: (
            spec.system,
            -spec.priority,
            core.network(spec.network).spec.internal,
            -len(spec.addresses),
            spec.joined,
        ),
    )


def next_hop(network: AnyNetworkSpec, endpoint: EndpointSpec, version: int) -> IPAddress | None:
    """Return the next hop of the default route that *endpoint* of *network* could provide, if any."""
    address = endpoint.address(version)
    if network.internal or network.host_gateway or address is None:
        return None
    return next((subnet.default_via for subnet in network.subnets if address.ip in subnet.network), None)


def rename(draft: Draft, row: Row[Any], taken: str | None, owner: str, name: str) -> None:
    """
    Draft another name of an object.

    Args:
        draft: To fill in.
        row: The object's record.
        taken: Id of the object that has the new name, if any.
        owner: ``network``, ``sandbox`` or ``endpoint/<network id>``: where names are unique.
        name: The new name.
    """
    old = row.spec.name
    if name == old:
        return
    if taken is not None:
        msg = f"{owner.partition('/')[0]} with name {name!r} already exists"
        raise ConflictError(msg)
    draft.rely_on(row.key, row.revision)
    draft.reserve(Put(f"name/{owner}/{name}", row.spec.id))
    draft.operations += (Delete(f"name/{owner}/{old}"), row.replaced(attrs.evolve(row.spec, name=name)))


def plain(spec: object) -> dict[str, Any]:
    """Return *spec* as plain data, ready for JSON."""
    data: dict[str, Any] = json.loads(encode(spec))
    data.pop("v")
    return data
