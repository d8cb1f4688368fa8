"""Choosing what is free in a cluster without asking for all that is taken: addresses, subnets, VNIs.

Each host begins somewhere else and goes on from where it was, so that as a rule the first thing it tries
is free. Only when that turns out to be taken, all that is gets read.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import ExhaustedError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from random import Random

    from pynetwork.records import AnyNetworkSpec
    from pynetwork.specs import Subnet
    from pynetwork.types import IPAddress

__all__ = ["Chooser", "mac_for", "network_numbers", "wanted_in"]

_MOST: Final = 1 << 24  # of a larger subnet, the first so many addresses are handed out


def network_numbers(subnet: Subnet) -> tuple[int, int]:
    """Return how far the first address that may be handed out is into a subnet, and how many there are."""
    pool = subnet.sub_pool or subnet.network
    first = int(pool.network_address) - int(subnet.network.network_address)
    size, spare = pool.num_addresses, 0
    if subnet.network.num_addresses > 2:
        if first == 0:
            first, size = 1, size - 1  # the network's own address; of IPv6, the subnet-router anycast
        if subnet.version == 4 and pool.broadcast_address == subnet.network.broadcast_address:
            spare = 1
    return first, min(size - spare, _MOST)


def wanted_in(network: AnyNetworkSpec, address: IPAddress) -> Subnet:
    """
    Return the subnet of *network* that an address asked for is in.

    Raises:
        InvalidValueError: In none, or it is not to be handed out.
    """
    for subnet in network.subnets:
        if address in subnet.network:
            ends = {subnet.network.network_address, subnet.network.broadcast_address}
            if subnet.version == 6:
                ends = {subnet.network.network_address}
            if address in {*_kept(subnet), *(ends if subnet.network.num_addresses > 2 else ())}:
                msg = f"invalid address {address}: it is reserved in network {network.name!r}"
                raise InvalidValueError(msg)
            return subnet
    msg = f"invalid address {address}: it does not belong to any of this network's subnets"
    raise InvalidValueError(msg)


def mac_for(addresses: Iterable[IPAddress], random: Random) -> str:
    """
    Return the MAC of an endpoint that asks for none: ``02:42`` and its IPv4 address, as in libnetwork.

    Who has the address next then has the same MAC, so what others remember of it stays true.
    """
    for address in addresses:
        if address.version == 4:
            return (b"\x02\x42" + address.packed).hex(":")
    return (b"\x02\x42" + random.getrandbits(32).to_bytes(4, "big")).hex(":")


def _kept(subnet: Subnet) -> tuple[IPAddress | None, ...]:
    return (subnet.gateway, *subnet.auxiliary.values())


@attrs.define
class Chooser:
    """
    Chooses addresses for the endpoints of a host.

    Not locked itself.

    Args:
        host: Its name.
        random: For where to go on when others were found to be where it was.
    """

    host: str
    random: Random
    _next: dict[tuple[str, Subnet], int] = attrs.field(factory=dict, init=False)

    def choose(self, network: AnyNetworkSpec, version: int, taken: Collection[str] = ()) -> IPAddress:
        """
        Return an address for an endpoint of *network*, and go on behind it the next time.

        Args:
            network: The network.
            version: 4 or 6.
            taken: Addresses known to be taken; others may be as well.

        Raises:
            ExhaustedError: All are known to be taken.
        """
        subnets = [subnet for subnet in network.subnets if subnet.version == version]
        for subnet in subnets:
            found = self._in(network, subnet, taken)
            if found is not None:
                return found
        pools = ", ".join(str(subnet.sub_pool or subnet.network) for subnet in subnets)
        msg = (
            f"no free address in {pools} of network {network.name!r}: all are taken, on this host and "
            "others; delete endpoints, or use a larger subnet"
        )
        raise ExhaustedError(msg)

    def _in(self, network: AnyNetworkSpec, subnet: Subnet, taken: Collection[str]) -> IPAddress | None:
        first, size = network_numbers(subnet)
        kept = {str(address) for address in _kept(subnet)}
        key = (network.id, subnet)
        start = self._next.get(key)
        if taken:  # beside others it would run into them again and again
            start = self.random.randrange(max(size, 1))
        elif start is None:
            seed = hashlib.blake2b(f"{self.host}/{network.id}".encode(), digest_size=8).digest()
            start = int.from_bytes(seed, "big") % max(size, 1)
        for step in range(size):
            offset = (start + step) % size
            address = subnet.network[first + offset]
            if str(address) not in kept and str(address) not in taken:
                self._next[key] = offset + 1
                return address
        return None
