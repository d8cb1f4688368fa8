"""The rules about subnets that RFCs and libnetwork fix: which can be used, which addresses are kept free."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from pynetwork.errors import InvalidValueError

if TYPE_CHECKING:
    from pynetwork.types import IPNetwork

__all__ = ["check_sub_pool", "check_subnet", "reserved_offsets", "span"]

_UNUSABLE: Final[tuple[tuple[IPNetwork, str], ...]] = (
    (IPv4Network("0.0.0.0/8"), "addresses of 'this network', RFC 1122 3.2.1.3"),
    (IPv4Network("127.0.0.0/8"), "loopback, RFC 1122 3.2.1.3"),
    (IPv4Network("224.0.0.0/4"), "multicast, RFC 5771"),
    (IPv4Network("255.255.255.255/32"), "limited broadcast, RFC 919"),
    (IPv6Network("::/128"), "the unspecified address, RFC 4291 2.5.2"),
    (IPv6Network("::1/128"), "loopback, RFC 4291 2.5.3"),
    (IPv6Network("ff00::/8"), "multicast, RFC 4291 2.7"),
    (IPv6Network("fe80::/10"), "link-local, RFC 4291 2.5.6; only fe80::/64 itself can be a subnet"),
)
_LINK_LOCAL: Final = IPv6Network("fe80::/64")  # the one libnetwork's bridge driver accepts


def span(network: IPNetwork) -> tuple[int, int]:
    """Return the addresses of *network* as a half-open interval of integers."""
    first = int(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen))


def check_subnet(subnet: IPNetwork) -> None:
    """
    Refuse what no container network can use as its subnet.

    Raises:
        InvalidValueError: The subnet reaches into loopback, multicast, or the like.
    """
    if subnet == _LINK_LOCAL:
        return
    for network, what in _UNUSABLE:
        if subnet.overlaps(network):
            msg = f"invalid subnet {subnet}: it overlaps {network} ({what})"
            raise InvalidValueError(msg)


def reserved_offsets(subnet: IPNetwork) -> tuple[int, ...]:
    """
    Return which addresses of *subnet* are never assigned, as offsets from its first.

    IPv4 keeps the network and the broadcast address, save in a /31 (RFC 3021) and a /32. IPv6 keeps
    the subnet-router anycast address, the first (RFC 4291 2.6.1), save in a /127 (RFC 6164) and a
    /128; it has no broadcast.
    """
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return ()
    start, stop = span(subnet)
    return (0, stop - start - 1) if subnet.version == 4 else (0,)


def check_sub_pool(sub_pool: IPNetwork, subnet: IPNetwork | None) -> None:
    """
    Refuse a sub-pool from which no address of *subnet* could come.

    Args:
        sub_pool: Where addresses are to be chosen from.
        subnet: The subnet it is a part of; None when the driver is to choose that.

    Raises:
        InvalidValueError: There is no subnet to be part of, the sub-pool is not inside it, or is
            nothing but one of its reserved addresses.
    """
    if subnet is None:
        msg = f"invalid sub-pool {sub_pool}: a sub-pool needs the subnet it is a part of"
        raise InvalidValueError(msg)
    first, last = span(subnet)
    start, stop = span(sub_pool)
    if sub_pool.version != subnet.version or not first <= start < stop <= last:
        msg = f"invalid sub-pool {sub_pool}: it is not inside the subnet {subnet}"
        raise InvalidValueError(msg)
    if stop - start == 1 and start - first in reserved_offsets(subnet):
        msg = f"invalid sub-pool {sub_pool}: the subnet {subnet} reserves that address"
        raise InvalidValueError(msg)
