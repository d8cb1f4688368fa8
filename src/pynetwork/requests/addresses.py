"""Drafting which addresses an endpoint has, and that it has them no more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pynetwork.errors import ExhaustedError, InvalidValueError
from pynetwork.requests.common import pool_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.ipam import Pool
    from pynetwork.records import AnyNetworkSpec
    from pynetwork.specs import EndpointSpec
    from pynetwork.types import IPAddress, IPInterface

__all__ = ["release_addresses", "take_addresses"]


def take_addresses(
    core: Core, draft: Draft, network: AnyNetworkSpec, mac: str, asked: Iterable[IPAddress] = ()
) -> tuple[IPInterface, ...]:
    """
    Take one address of each family that a network of this host has.

    Args:
        core: The instance.
        draft: The request they are for.
        network: The network.
        mac: Whose they are.
        asked: Those that are wanted.

    Raises:
        InvalidValueError: One is in no subnet, or two are of one family.
        ConflictError: One is in use.
        ExhaustedError: None is free.
    """
    pools = [pool_of(network, subnet) for subnet in network.subnets if subnet.network.prefixlen]
    wanted: dict[int, IPAddress] = {}
    for address in asked:
        if not any(address in pool.subnet for pool in pools):
            msg = f"invalid address {address}: it does not belong to any of this network's subnets"
            raise InvalidValueError(msg)
        if wanted.setdefault(address.version, address) is not address:
            msg = f"invalid addresses: an endpoint has one IPv{address.version} address"
            raise InvalidValueError(msg)
    return tuple(
        _first_free(
            partial(core.allocations.request_address, draft, network.ipam, mac=mac),
            candidates,
            wanted.get(version),
        )
        for version in (4, 6)
        if (candidates := [pool for pool in pools if pool.subnet.version == version])
    )


def release_addresses(core: Core, draft: Draft, network: AnyNetworkSpec, endpoint: EndpointSpec) -> None:
    """Have *draft* release the addresses of an endpoint of *network*, one of this host, when it commits."""
    for address in endpoint.addresses:
        subnet = next(subnet for subnet in network.subnets if address.ip in subnet.network)
        core.allocations.release_address(draft, network.ipam, pool_of(network, subnet), address.ip)


def _first_free(
    request: Callable[..., IPInterface], pools: list[Pool], wanted: IPAddress | None
) -> IPInterface:
    """Take an address of the first pool that has room, or the one that is wanted."""
    if wanted is not None:
        pools = [pool for pool in pools if wanted in pool.subnet][:1]
    for pool in pools[:-1]:
        try:
            return request(pool, preferred=wanted)
        except ExhaustedError:
            continue  # the next subnet of this family may have room
    return request(pools[-1], preferred=wanted)
