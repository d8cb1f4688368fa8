"""Forgetting connections, so that no packet follows a translation that is gone.

A filter that the kernel applies itself costs a millisecond among thousands of entries; kernels that
have none for deletions are asked for all entries, and to delete those that match.

The kernel's filter by IPv6 address must not be used: up to Linux 6.18, the last that was tried, it
matches all addresses but the one that is given.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.kernel.elements import PROTOCOLS
from pynetwork.kernel.netlink import Message, NetlinkError, attribute, attributes, nested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.kernel.netlink import NetlinkSocket
    from pynetwork.resources import Conntrack

__all__ = ["Flow", "forget"]

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_HEADER: Final = struct.Struct("!BBH")
# linux/netfilter/nfnetlink_conntrack.h
_ORIG, _REPLY, _FILTER = 1, 2, 25
_IP, _PROTO = 1, 2
_SRC, _DST = {4: 1, 6: 3}, {4: 2, 6: 4}
_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_F_SRC, _F_DST, _F_NUM, _F_DST_PORT = 1, 2, 8, 32
_MOST_REQUESTS: Final = 16  # ports; beyond, one look at all entries is cheaper
#: No conntrack in this kernel, or not loaded: there is nothing to forget.
_NOTHING: Final = frozenset({errno.ENOENT, errno.EPROTONOSUPPORT})
_UNKNOWN: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL})


@attrs.frozen
class Flow:
    """
    What connections have in common.

    Args:
        version: 4 or 6.
        is_reply: Whether the rest is about the direction of the answers.
        src: Source address; None for any.
        dst: Destination address; None for any.
        proto: Protocol; None for any.
        port: Destination port, with a protocol; None for any.
    """

    version: int
    is_reply: bool = False
    src: str | None = None
    dst: str | None = None
    proto: str | None = None
    port: int | None = None

    def filter(self) -> bytes:
        """Return the attributes of a filtered request."""
        family = _FAMILIES[self.version]
        parts, flags = [], 0
        for address, kind, flag in ((self.src, _SRC, _F_SRC), (self.dst, _DST, _F_DST)):
            if address is not None:
                parts.append(attribute(kind[self.version], socket.inet_pton(family, address)))
                flags |= flag
        tuple_parts = [nested(_IP, *parts)] if parts else []
        if self.proto is not None:
            proto = [attribute(_NUM, bytes([PROTOCOLS[self.proto]]))]
            flags |= _F_NUM
            if self.port is not None:
                proto.append(attribute(_DST_PORT, struct.pack("!H", self.port)))
                flags |= _F_DST_PORT
            tuple_parts.append(nested(_PROTO, *proto))
        # The flags of both directions are read, whichever is asked for.
        orig, reply = (0, flags) if self.is_reply else (flags, 0)
        return nested(_REPLY if self.is_reply else _ORIG, *tuple_parts) + nested(
            _FILTER, attribute(1, struct.pack("=I", orig)), attribute(2, struct.pack("=I", reply))
        )


def forget(netfilter: NetlinkSocket, effect: Conntrack) -> None:
    """
    Forget the connections that *effect* is about.

    Args:
        netfilter: A netfilter socket in the host's namespace.
        effect: Which.

    Raises:
        NetlinkError: The kernel refuses.
    """
    ports = (effect.last or 0) - (effect.first or 0) + 1
    has_v6_address = effect.version == 6 and (effect.address or effect.destination) is not None
    try:
        if has_v6_address or (effect.address is None and ports > _MOST_REQUESTS):
            _forget_one_by_one(netfilter, effect)
            return
        for flow in _flows(effect):
            netfilter.request(_message(_DELETE, effect.version, flow.filter()))
    except NetlinkError as error:
        if error.errno in _NOTHING:
            return
        if error.errno not in _UNKNOWN:
            raise
        _forget_one_by_one(netfilter, effect)


def _flows(effect: Conntrack) -> Iterator[Flow]:
    version, address = effect.version, effect.address
    if address is not None:
        yield Flow(version, src=address)
        yield Flow(version, dst=address)
        yield Flow(version, is_reply=True, src=address)
        return
    for port in range(effect.first or 0, (effect.last or 0) + 1):
        yield Flow(version, dst=effect.destination, proto=effect.proto, port=port)


def _message(kind: int, version: int, payload: bytes = b"") -> Message:
    return Message(kind, 0, _HEADER.pack(_FAMILIES[version], 0, 0) + payload)


def _forget_one_by_one(netfilter: NetlinkSocket, effect: Conntrack) -> None:
    """Look at all entries, and delete those that match."""
    try:
        entries = netfilter.dump(_message(_GET, effect.version))
    except NetlinkError as error:
        if error.errno in _NOTHING | _UNKNOWN:
            return
        raise
    for payload in entries:
        found = attributes(payload, _HEADER.size)
        if _matches(effect, found):
            request = _message(_DELETE, effect.version, nested(_ORIG, found[_ORIG]))
            try:
                netfilter.request(request)
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # it went by itself
                    raise


def _matches(effect: Conntrack, entry: dict[int, bytes]) -> bool:
    family = _FAMILIES[effect.version]
    orig = attributes(entry[_ORIG])
    ends = attributes(orig.get(_IP, b""))
    if effect.address is not None:
        address = socket.inet_pton(family, effect.address)
        answers = attributes(attributes(entry.get(_REPLY, b"")).get(_IP, b""))
        src, dst = _SRC[effect.version], _DST[effect.version]
        return address in {ends.get(src), ends.get(dst), answers.get(src)}
    proto = attributes(orig.get(_PROTO, b""))
    if effect.proto is not None and proto.get(_NUM) != bytes([PROTOCOLS[effect.proto]]):
        return False
    if effect.destination is not None:
        wanted = socket.inet_pton(family, effect.destination)
        if ends.get(_DST[effect.version]) != wanted:
            return False
    port = int.from_bytes(proto.get(_DST_PORT, b"\0\0"), "big")
    return (effect.first or 0) <= port <= (effect.last or 0)
