"""rtnetlink: the questions for links, addresses, routes and neighbours, and their answers."""

from __future__ import annotations

import socket
import sys
from typing import Final, NamedTuple

from pynetwork.kernel.netlink import Message, attributes
from pynetwork.kernel.rtnl import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFA_PROTO,
    IFADDR,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_BR_MCAST_SNOOPING,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_LEARNING,
    IFLA_BRPORT_MODE,
    IFLA_BRPORT_UNICAST_FLOOD,
    IFLA_GROUP,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_STATS64,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NUD_PERMANENT,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTMSG,
    RTN_UNICAST,
)

__all__ = [
    "AddressInfo",
    "LinkInfo",
    "NeighbourInfo",
    "RouteInfo",
    "dump_addresses",
    "dump_links",
    "dump_neighbours",
    "dump_routes",
    "ifindex_of",
    "parse_address",
    "parse_link",
    "parse_neighbour",
    "parse_route",
]


class LinkInfo(NamedTuple):
    """A link, as a dump describes it: *link* is the ifindex of a veth's peer, *data* is of its kind."""

    ifindex: int
    name: str
    up: bool
    kind: str
    group: int
    mac: str
    mtu: int
    master: int
    link: int
    multicast_snooping: bool
    isolated: bool
    hairpin: bool
    learning: bool
    flood: bool
    data: dict[int, bytes]
    statistics: bytes


class AddressInfo(NamedTuple):
    """An address: ifindex, CIDR, and the tag of whoever added it."""

    ifindex: int
    cidr: str
    protocol: int


class RouteInfo(NamedTuple):
    """A unicast route; *via* is None for a destination on the link, *index* 0 for several next hops."""

    dst: str
    ifindex: int
    via: str | None
    metric: int
    protocol: int
    table: int


class NeighbourInfo(NamedTuple):
    """A neighbour entry."""

    ifindex: int
    address: str
    mac: str
    permanent: bool


dump_links: Final = Message(RTM_GETLINK, 0, IFINFO.pack(0, 0, 0, 0, 0))
dump_addresses: Final = Message(RTM_GETADDR, 0, IFADDR.pack(0, 0, 0, 0, 0))
dump_routes: Final = Message(RTM_GETROUTE, 0, RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))
dump_neighbours: Final = Message(RTM_GETNEIGH, 0, NDMSG.pack(0, 0, 0, 0, 0))


def _number(found: dict[int, bytes], kind: int) -> int:
    value = found.get(kind)
    return 0 if value is None else int.from_bytes(value[:4], sys.byteorder)


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def ifindex_of(payload: bytes) -> int:
    """Return the ifindex of the link that an answer describes."""
    return int(IFINFO.unpack_from(payload)[2])


def parse_link(payload: bytes) -> LinkInfo:
    """Return the link that an answer describes."""
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    found = attributes(payload, IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    kind = _string(info.get(IFLA_INFO_KIND, b""))
    data = attributes(info.get(IFLA_INFO_DATA, b"")) if kind in {"bridge", "vxlan"} else {}
    port = attributes(info.get(IFLA_INFO_SLAVE_DATA, b""))
    return LinkInfo(
        ifindex=index,
        name=_string(found.get(IFLA_IFNAME, b"")),
        up=bool(flags & IFF_UP),
        kind=kind,
        group=_number(found, IFLA_GROUP),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found, IFLA_MTU),
        master=_number(found, IFLA_MASTER),
        link=_number(found, IFLA_LINK),
        isolated=bool(port.get(IFLA_BRPORT_ISOLATED, b"\0")[0]),
        hairpin=bool(port.get(IFLA_BRPORT_MODE, b"\0")[0]),
        multicast_snooping=bool(data.get(IFLA_BR_MCAST_SNOOPING, b"\0")[0]) and kind == "bridge",
        learning=bool(port.get(IFLA_BRPORT_LEARNING, b"\0")[0]),
        flood=bool(port.get(IFLA_BRPORT_UNICAST_FLOOD, b"\0")[0]),
        data=data,
        statistics=found.get(IFLA_STATS64, b""),
    )


def parse_address(payload: bytes) -> AddressInfo:
    """Return the address that an answer describes."""
    family, prefix, _, _, index = IFADDR.unpack_from(payload)
    found = attributes(payload, IFADDR.size)
    packed = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
    cidr = f"{socket.inet_ntop(family, packed)}/{prefix}"
    return AddressInfo(index, cidr, found.get(IFA_PROTO, b"\0")[0])


def parse_route(payload: bytes) -> RouteInfo | None:
    """Return the route that an answer describes; None for one that is not unicast IP."""
    family, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(payload)
    if kind != RTN_UNICAST or family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    found = attributes(payload, RTMSG.size)
    size = 4 if family == socket.AF_INET else 16
    dst = f"{socket.inet_ntop(family, found.get(RTA_DST, bytes(size)))}/{length}"
    gateway = found.get(RTA_GATEWAY)
    return RouteInfo(
        dst=dst,
        ifindex=_number(found, RTA_OIF),
        via=None if gateway is None else socket.inet_ntop(family, gateway),
        metric=_number(found, RTA_PRIORITY),
        protocol=protocol,
        table=_number(found, RTA_TABLE) or table,
    )


def parse_neighbour(payload: bytes) -> NeighbourInfo | None:
    """Return the neighbour that an answer describes; None for one that is not of IP."""
    family, index, state, _, _ = NDMSG.unpack_from(payload)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    found = attributes(payload, NDMSG.size)
    ip = socket.inet_ntop(family, found.get(NDA_DST, b""))
    return NeighbourInfo(index, ip, found.get(NDA_LLADDR, b"").hex(":"), bool(state & NUD_PERMANENT))
