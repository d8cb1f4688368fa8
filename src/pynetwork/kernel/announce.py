"""Telling neighbours where an address is, without forgetting where theirs are.

The kernel does so by itself (``arp_notify``, ``ndisc_notify``) when a link is told its own MAC address
again; but then it forgets all neighbours of the link, and drops what waits for them to answer.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["announce"]

_ETH_P_IP, _ETH_P_ARP = 0x0800, 0x0806
_EVERYBODY: Final = b"\xff" * 6
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")  # RFC 4861 sections 4.4 and 4.6.1
_OVERRIDE: Final = 0x20000000
_ALL_NODES: Final = "ff02::1"
_HOPS: Final = 255


def announce(dev: str, addresses: Iterable[str]) -> None:
    """
    Announce addresses of an interface of the calling thread's network namespace.

    Args:
        dev: Its name.
        addresses: IPv4 by gratuitous ARP (RFC 5227 section 3), IPv6 by an unsolicited neighbour
            advertisement (RFC 4861 section 7.2.6).

    Raises:
        OSError: The interface is gone, or does not have one of the addresses any more.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as packet:
        packet.bind((dev, 0))
        mac = packet.getsockname()[4]
        for address in map(ipaddress.ip_address, addresses):
            if address.version == 6:
                _advertise(dev, address.packed, mac)
            else:
                _check_own(str(address))
                own = address.packed
                request = _ARP.pack(1, _ETH_P_IP, 6, 4, 1, mac, own, bytes(6), own)
                packet.sendto(request, (dev, _ETH_P_ARP, 0, 0, _EVERYBODY))


def _check_own(address: str) -> None:
    """Another may have it by now, and would be cut off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.bind((address, 0))


def _advertise(dev: str, address: bytes, mac: bytes) -> None:
    index = socket.if_nametoindex(dev)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        raw.bind((socket.inet_ntop(socket.AF_INET6, address), 0, 0, index))
        # The kernel fills in the checksum.
        raw.sendto(_ADVERTISEMENT.pack(136, 0, 0, _OVERRIDE, address, 2, 1, mac), (_ALL_NODES, 0, 0, index))
