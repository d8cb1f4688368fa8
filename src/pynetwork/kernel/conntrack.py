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
_ORIG, _REPLY, _ZONE, _FILTER = 1, 2, 18, 25
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
        src: Source address; None for any.
        dst: Destination address; None for any.
        proto: Protocol; None for any.
        port: Destination port, with a protocol; None for any.
        answerer: Source address of the answers; None for any.
    """

    version: int
    src: str | None = None
    dst: str | None = None
    proto: str | None = None
    port: int | None = None
    answerer: str | None = None

    def filter(self) -> bytes:
        """Return the attributes of a filtered request."""
        orig, orig_flags = self._addresses(self.src, self.dst)
        reply, reply_flags = self._addresses(self.answerer, None)
        if self.proto is not None:
            proto = [attribute(_NUM, bytes([PROTOCOLS[self.proto]]))]
            orig_flags |= _F_NUM
            if self.port is not None:
                proto.append(attribute(_DST_PORT, struct.pack("!H", self.port)))
                orig_flags |= _F_DST_PORT
            orig += nested(_PROTO, *proto)
        # The flags of both directions are read, whichever is asked for.
        flags = (struct.pack("=I", each) for each in (orig_flags, reply_flags))
        asked = nested(_FILTER, *(attribute(kind, each) for kind, each in enumerate(flags, 1)))
        return (nested(_ORIG, orig) if orig else b"") + (nested(_REPLY, reply) if reply else b"") + asked

    def _addresses(self, src: str | None, dst: str | None) -> tuple[bytes, int]:
        parts, flags = [], 0
        for address, kind, flag in ((src, _SRC, _F_SRC), (dst, _DST, _F_DST)):
            if address is not None:
                packed = socket.inet_pton(_FAMILIES[self.version], address)
                parts.append(attribute(kind[self.version], packed))
                flags |= flag
        return nested(_IP, *parts) if parts else b"", flags


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
    ends = (effect.address, effect.destination, effect.target)
    # Neither an IPv6 address nor what is to be spared can be left to the kernel's filter.
    is_to_look = (effect.version == 6 and any(ends)) or effect.sparing is not None
    try:
        if effect.address is None and ports > _MOST_REQUESTS:
            _forget_one_by_one(netfilter, effect)
            return
        if is_to_look:
            only = Flow(effect.version, proto=effect.proto, port=effect.first if ports == 1 else None)
            _forget_one_by_one(netfilter, effect, b"" if effect.address else only.filter())
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
        yield Flow(version, answerer=address)
        return
    for port in range(effect.first or 0, (effect.last or 0) + 1):
        yield Flow(version, dst=effect.destination, proto=effect.proto, port=port, answerer=effect.target)


def _message(kind: int, version: int, payload: bytes = b"") -> Message:
    return Message(kind, 0, _HEADER.pack(_FAMILIES[version], 0, 0) + payload)


def _forget_one_by_one(netfilter: NetlinkSocket, effect: Conntrack, only: bytes = b"") -> None:
    """Look at all entries, or those that the filter *only* lets through, and delete those that match."""
    try:
        entries = netfilter.dump(_message(_GET, effect.version, only))
    except NetlinkError as error:
        if error.errno in _NOTHING or (error.errno in _UNKNOWN and not only):
            return
        raise
    every = (attributes(payload, _HEADER.size) for payload in entries)
    requests = [_deletion(effect.version, entry) for entry in every if _matches(effect, entry)]
    for refusal in netfilter.batch(requests).values():
        if refusal.errno != errno.ENOENT:  # it went by itself
            raise refusal


def _deletion(version: int, entry: dict[int, bytes]) -> Message:
    """Return the deletion of one entry, in its zone."""
    zone = attribute(_ZONE, entry[_ZONE]) if _ZONE in entry else b""
    return _message(_DELETE, version, nested(_ORIG, entry[_ORIG]) + zone)


def _matches(effect: Conntrack, entry: dict[int, bytes]) -> bool:
    family = _FAMILIES[effect.version]
    orig = attributes(entry[_ORIG])
    ends = attributes(orig.get(_IP, b""))
    src, dst = _SRC[effect.version], _DST[effect.version]
    answerer = attributes(attributes(entry.get(_REPLY, b"")).get(_IP, b"")).get(src)
    if effect.address is not None:
        address = socket.inet_pton(family, effect.address)
        return address in {ends.get(src), ends.get(dst), answerer}
    if effect.sparing is not None and answerer == socket.inet_pton(family, effect.sparing):
        return False
    if effect.target is not None and answerer != socket.inet_pton(family, effect.target):
        return False
    proto = attributes(orig.get(_PROTO, b""))
    if effect.proto is not None and proto.get(_NUM) != bytes([PROTOCOLS[effect.proto]]):
        return False
    if effect.destination is not None:
        wanted = socket.inet_pton(family, effect.destination)
        if ends.get(dst) != wanted:
            return False
    port = int.from_bytes(proto.get(_DST_PORT, b"\0\0"), "big")
    return (effect.first or 0) <= port <= (effect.last or 0)
