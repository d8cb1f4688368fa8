"""rtnetlink: VXLAN devices, what bridges do at their ports, and forwarding databases."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pynetwork.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    attributes,
    nested,
    text,
)
from pynetwork.kernel.rtnl import (
    IFINFO,
    IFLA_BRPORT_LEARNING,
    IFLA_BRPORT_UNICAST_FLOOD,
    IFLA_GROUP,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    U32,
    pack_address,
    unpack_address,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ANYONE", "FdbInfo", "VxlanInfo", "dump", "fdb", "parse", "parse_vxlan", "port", "vxlan"]

#: The MAC whose destinations get what is for everybody (vxlan's default entry).
ANYONE: Final = "00:00:00:00:00:00"

# linux/if_link.h
IFLA_VXLAN_ID: Final = 1
IFLA_VXLAN_LOCAL: Final = 4
IFLA_VXLAN_LEARNING: Final = 7
IFLA_VXLAN_PROXY: Final = 11
IFLA_VXLAN_PORT: Final = 15
IFLA_VXLAN_LOCAL6: Final = 17
# linux/neighbour.h
NTF_SELF: Final = 0x02
NTF_MASTER: Final = 0x04
NUD_NOARP: Final = 0x40
NDA_MASTER: Final = 9

_PORT: Final = struct.Struct("!H")


class VxlanInfo(NamedTuple):
    """What is fixed when a VXLAN device is made."""

    vni: int
    local: str
    port: int


class FdbInfo(NamedTuple):
    """An entry: of the VXLAN device itself, with the host that it leads to, or else of its bridge."""

    mac: str
    remote: str | None
    own: bool
    static: bool


def vxlan(name: str, *, vni: int, local: str, dstport: int, mtu: int, group: int, master: int) -> Message:
    """
    Return the creation of a VXLAN device that is down, learns nothing and answers for its neighbours.

    Args:
        name: Interface name.
        vni: VXLAN network identifier.
        local: Its own address, IPv4 or IPv6.
        dstport: UDP port.
        mtu: Bytes.
        group: Of links that are ours.
        master: ifindex of the bridge; 0 for none.
    """
    family, packed = pack_address(local)
    data = nested(
        IFLA_INFO_DATA,
        attribute(IFLA_VXLAN_ID, U32.pack(vni)),
        attribute(IFLA_VXLAN_LOCAL if family == socket.AF_INET else IFLA_VXLAN_LOCAL6, packed),
        attribute(IFLA_VXLAN_LEARNING, b"\0"),
        attribute(IFLA_VXLAN_PROXY, b"\1"),
        attribute(IFLA_VXLAN_PORT, _PORT.pack(dstport)),
    )
    payload = b"".join(
        (
            IFINFO.pack(0, 0, 0, 0, 0),
            text(IFLA_IFNAME, name),
            attribute(IFLA_GROUP, U32.pack(group)),
            attribute(IFLA_MTU, U32.pack(mtu)),
            attribute(IFLA_MASTER, U32.pack(master)) if master else b"",
            nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vxlan"), data),
        )
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)


def parse_vxlan(data: Mapping[int, bytes]) -> VxlanInfo:
    """Return what the attributes in the link info of a VXLAN device say."""
    packed = data.get(IFLA_VXLAN_LOCAL) or data.get(IFLA_VXLAN_LOCAL6) or bytes(4)
    vni, dstport = data.get(IFLA_VXLAN_ID, bytes(4)), data.get(IFLA_VXLAN_PORT, bytes(2))
    return VxlanInfo(U32.unpack(vni)[0], unpack_address(packed), _PORT.unpack(dstport)[0])


def port(name: str, *, learning: bool, flood: bool) -> Message:
    """Return the change of a bridge's port: whether it is learned from, and flooded to."""
    flags = attribute(IFLA_BRPORT_LEARNING, bytes([learning]))
    flags += attribute(IFLA_BRPORT_UNICAST_FLOOD, bytes([flood]))
    of = nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), nested(IFLA_INFO_SLAVE_DATA, flags))
    return Message(RTM_NEWLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + of)


def fdb(
    mac: str, index: int, *, remote: str | None = None, delete: bool = False, append: bool = False
) -> Message:
    """
    Return the creation, replacement or deletion of a static entry.

    Args:
        mac: The address that is forwarded.
        index: ifindex of the port.
        remote: The host that a VXLAN device sends it to: the entry is the device's. None for an entry of
            the bridge: the address is behind that port, and moves there from another one.
        delete: Delete it. The bridge's is deleted only from that port.
        append: Add a destination to those that there are.
    """
    flags, state = (NTF_MASTER, NUD_NOARP) if remote is None else (NTF_SELF, NUD_NOARP | NUD_PERMANENT)
    payload = NDMSG.pack(socket.AF_BRIDGE, index, state, flags, 0)
    payload += attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    if remote is not None:
        payload += attribute(NDA_DST, pack_address(remote)[1])
    if delete:
        return Message(RTM_DELNEIGH, 0, payload)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | (NLM_F_APPEND if append else NLM_F_REPLACE), payload)


def dump(index: int) -> Message:
    """Return the question for the entries of a port: the bridge's and, of a VXLAN device, its own."""
    return Message(RTM_GETNEIGH, 0, IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0))


def parse(payload: bytes) -> FdbInfo:
    """Return the entry that an answer describes."""
    _, _, state, flags, _ = NDMSG.unpack_from(payload)
    found = attributes(payload, NDMSG.size)
    remote = found.get(NDA_DST)
    return FdbInfo(
        mac=found.get(NDA_LLADDR, b"").hex(":"),
        remote=None if remote is None else unpack_address(remote),
        own=bool(flags & NTF_SELF) and NDA_MASTER not in found,
        static=bool(state & NUD_NOARP),
    )
