"""rtnetlink: the messages that make, change and delete links, addresses, routes and neighbours."""

from __future__ import annotations

import socket
import struct
from typing import Final

from pynetwork.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    nested,
    text,
)

__all__ = [
    "PROTOCOL",
    "address",
    "ask_neighbour",
    "bridge",
    "bridge_port",
    "delete_group",
    "get_link",
    "neighbour",
    "no_autoconf",
    "pack_address",
    "route",
    "set_link",
    "unpack_address",
    "veth",
]

#: Our number in /etc/iproute2/rt_protos terms; marks routes and addresses as ours.
PROTOCOL: Final = 0x70

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30

# linux/if_link.h
IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_MASTER: Final = 10
IFLA_LINKINFO: Final = 18
IFLA_STATS64: Final = 23
IFLA_AF_SPEC: Final = 26
IFLA_GROUP: Final = 27
IFLA_NET_NS_FD: Final = 28
IFLA_NUM_TX_QUEUES: Final = 31
IFLA_NUM_RX_QUEUES: Final = 32
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_INFO_SLAVE_KIND: Final = 4
IFLA_INFO_SLAVE_DATA: Final = 5
IFLA_BRPORT_MODE: Final = 4
IFLA_BRPORT_LEARNING: Final = 8
IFLA_BRPORT_UNICAST_FLOOD: Final = 9
IFLA_BRPORT_ISOLATED: Final = 33
VETH_INFO_PEER: Final = 1
IFLA_BR_MCAST_SNOOPING: Final = 23
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IN6_ADDR_GEN_MODE_NONE: Final = 1
IFF_UP: Final = 1
# linux/if_addr.h
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_BROADCAST: Final = 4
IFA_PROTO: Final = 11
IFA_F_NODAD: Final = 0x02
# linux/rtnetlink.h
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PRIORITY: Final = 6
RTA_TABLE: Final = 15
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
RT_SCOPE_LINK: Final = 253
RTN_UNICAST: Final = 1
# linux/neighbour.h
NDA_DST: Final = 1
NDA_LLADDR: Final = 2
NUD_PROBE: Final = 0x10
NUD_PERMANENT: Final = 0x80

IFINFO: Final = struct.Struct("=BxHiII")
IFADDR: Final = struct.Struct("=BBBBI")
RTMSG: Final = struct.Struct("=BBBBBBBBI")
NDMSG: Final = struct.Struct("=BxxxiHBB")
U32: Final = struct.Struct("=I")

_ONE_QUEUE: Final = attribute(IFLA_NUM_TX_QUEUES, U32.pack(1)) + attribute(IFLA_NUM_RX_QUEUES, U32.pack(1))
_NO_AUTOCONF: Final = nested(
    IFLA_AF_SPEC,
    nested(socket.AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))),
)


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, U32.pack(value))


def _mac(value: str) -> bytes:
    return attribute(IFLA_ADDRESS, bytes.fromhex(value.replace(":", "")))


def pack_address(value: str) -> tuple[int, bytes]:
    """Return family and bytes of an address."""
    family = socket.AF_INET6 if ":" in value else socket.AF_INET
    return family, socket.inet_pton(family, value)


def unpack_address(value: bytes) -> str:
    """Return the text of an address."""
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def veth(
    name: str,
    *,
    peer: str,
    mac: str,
    netns: int,
    group: int,
    indexes: tuple[int, int] = (0, 0),
    mtu: int | None = None,
    master: int | None = None,
) -> Message:
    """
    Return the creation of a veth pair: one end up and in a bridge, its peer born in its namespace.

    Args:
        name: Of the host's end.
        peer: Name of the other end.
        mac: Of the other end.
        netns: Descriptor of the namespace of the other end.
        group: Of the host's end.
        indexes: ifindex of the host's and of the other end; 0 for the kernel's choice. The kernel heeds
            the second only together with the first.
        mtu: Of both ends, bytes; None for the kernel's choice.
        master: ifindex of the bridge; None for none.
    """
    size = b"" if mtu is None else _u32(IFLA_MTU, mtu)
    other = nested(
        VETH_INFO_PEER,
        IFINFO.pack(0, 0, indexes[1], 0, 0),
        text(IFLA_IFNAME, peer),
        _mac(mac),
        size,
        _ONE_QUEUE,
        _u32(IFLA_NET_NS_FD, netns),
    )
    payload = b"".join(
        (
            IFINFO.pack(0, 0, indexes[0], IFF_UP, IFF_UP),
            text(IFLA_IFNAME, name),
            _u32(IFLA_GROUP, group),
            size,
            _ONE_QUEUE,
            b"" if master is None else _u32(IFLA_MASTER, master),
            nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), nested(IFLA_INFO_DATA, other)),
        )
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)


def bridge(
    name: str,
    *,
    group: int | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    multicast_snooping: bool = False,
    change: bool = False,
) -> Message:
    """
    Return the creation of a bridge, still down, or with *change* a change of one.

    Its MAC and MTU are left alone where they are None.
    """
    snooping = attribute(IFLA_BR_MCAST_SNOOPING, bytes([multicast_snooping]))
    payload = b"".join(
        (
            IFINFO.pack(0, 0, 0, 0, 0),
            text(IFLA_IFNAME, name),
            b"" if group is None else _u32(IFLA_GROUP, group),
            b"" if mac is None else _mac(mac),
            b"" if mtu is None else _u32(IFLA_MTU, mtu),
            nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), nested(IFLA_INFO_DATA, snooping)),
        )
    )
    return Message(RTM_NEWLINK, 0 if change else NLM_F_CREATE | NLM_F_EXCL, payload)


def set_link(
    name: str = "",
    *,
    index: int = 0,
    up: bool | None = None,
    rename: str | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    group: int | None = None,
    master: int | None = None,
) -> Message:
    """
    Return a change of a link that is named by *name*, or by *index* if its name is what changes.

    *master* is the ifindex of a bridge, 0 for none; None leaves a property as it is.
    """
    payload = b"".join(
        (
            IFINFO.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP),
            b"" if not (rename or name) else text(IFLA_IFNAME, rename or name),
            b"" if mac is None else _mac(mac),
            b"" if mtu is None else _u32(IFLA_MTU, mtu),
            b"" if group is None else _u32(IFLA_GROUP, group),
            b"" if master is None else _u32(IFLA_MASTER, master),
        )
    )
    return Message(RTM_SETLINK, 0, payload)


def no_autoconf(name: str) -> Message:
    """
    Return that a link makes no IPv6 addresses of itself (addrgenmode none).

    The kernel refuses that as part of the creation (EAFNOSUPPORT).
    """
    return Message(RTM_SETLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + _NO_AUTOCONF)


def bridge_port(name: str, *, isolated: bool, hairpin: bool) -> Message:
    """Return the change of a bridge's port: kept from other isolated ones or not, sent back to or not."""
    flags = attribute(IFLA_BRPORT_ISOLATED, bytes([isolated])) + attribute(IFLA_BRPORT_MODE, bytes([hairpin]))
    of = nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), nested(IFLA_INFO_SLAVE_DATA, flags))
    return Message(RTM_NEWLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + of)


def delete_group(group: int) -> Message:
    """Return the deletion of all links of a group, in one grace period."""
    return Message(RTM_DELLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + _u32(IFLA_GROUP, group))


def get_link(name: str) -> Message:
    """Return the question for one link."""
    return Message(RTM_GETLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name))


def address(cidr: str, index: int, *, delete: bool = False) -> Message:
    """Return the creation or deletion of an address of the link *index*."""
    text_form, _, length = cidr.partition("/")
    family, packed = pack_address(text_form)
    prefix = int(length)
    v6 = family == socket.AF_INET6
    head = IFADDR.pack(family, prefix, IFA_F_NODAD if v6 else 0, 0, index)
    payload = head + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if delete:
        return Message(RTM_DELADDR, 0, payload)
    if not v6 and prefix < 31:
        host = (1 << (32 - prefix)) - 1
        payload += attribute(IFA_BROADCAST, _U32_BE.pack(_U32_BE.unpack(packed)[0] | host))
    payload += attribute(IFA_PROTO, bytes([PROTOCOL]))
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload)


_U32_BE: Final = struct.Struct("!I")


def route(
    dst: str,
    index: int,
    *,
    via: str | None,
    metric: int | None,
    replace: bool = False,
    delete: bool = False,
) -> Message:
    """Return the creation, replacement or deletion of a route in the main table."""
    text_form, _, length = dst.partition("/")
    family, packed = pack_address(text_form)
    on_link = via is None and family == socket.AF_INET
    scope = RT_SCOPE_LINK if on_link else 0
    head = RTMSG.pack(family, int(length), 0, 0, RT_TABLE_MAIN, PROTOCOL, scope, RTN_UNICAST, 0)
    payload = b"".join(
        (
            head,
            attribute(RTA_DST, packed) if int(length) else b"",
            _u32(RTA_OIF, index),
            b"" if via is None else attribute(RTA_GATEWAY, pack_address(via)[1]),
            b"" if metric is None else _u32(RTA_PRIORITY, metric),
        )
    )
    if delete:
        return Message(RTM_DELROUTE, 0, payload)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), payload)


def neighbour(ip: str, index: int, *, mac: str = "", replace: bool = False, delete: bool = False) -> Message:
    """Return the creation, replacement or deletion of a permanent neighbour entry."""
    family, packed = pack_address(ip)
    payload = NDMSG.pack(family, index, NUD_PERMANENT, 0, 0) + attribute(NDA_DST, packed)
    if delete:
        return Message(RTM_DELNEIGH, 0, payload)
    payload += attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), payload)


def ask_neighbour(ip: str, index: int) -> Message:
    """Return what has the kernel ask a neighbour that it knows whether it is still there (``nud probe``)."""
    family, packed = pack_address(ip)
    payload = NDMSG.pack(family, index, NUD_PROBE, 0, 0) + attribute(NDA_DST, packed)
    return Message(RTM_NEWNEIGH, NLM_F_REPLACE, payload)
