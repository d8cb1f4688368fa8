"""Whether packets of a size reach other hosts undivided: echo requests that nobody may divide.

The kernel of the other host answers them (RFC 792, RFC 4443); no program is needed there.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from pynetwork.peers import Reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["probe"]

_ECHO: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}
_IP_HEADER: Final = {4: 20, 6: 40}
_HEAD: Final = struct.Struct("!BBHHH")
_SMALL: Final = 64  # bytes of a packet that passes everywhere
_TRIES: Final = 3  # a neighbour may have to be asked for first, and packets may get lost
_TRY_SECONDS: Final = 0.3
# linux/in.h, linux/in6.h: do not divide, and do not believe what was said of the way before
_DISCOVER: Final = {4: (socket.IPPROTO_IP, 10, 3), 6: (socket.IPPROTO_IPV6, 23, 3)}


def probe(
    targets: Iterable[str], size: int, open_sockets: Callable[[Callable[[], object]], object]
) -> Mapping[str, Reached]:
    """
    Return whether packets reach other hosts, small ones and ones of the full size.

    Args:
        targets: Their addresses.
        size: Of the packets, bytes with their IP header.
        open_sockets: Calls a function in the namespace of the host, and returns what that does.

    Raises:
        OSError: This host may not send such packets.
    """
    wanted = [(target, length) for target in dict.fromkeys(targets) for length in (_SMALL, size)]
    answered: set[tuple[str, int]] = set()
    too_big: set[tuple[str, int]] = set()
    with ExitStack() as stack:
        sockets: dict[int, socket.socket] = {}
        for version in {ipaddress.ip_address(target).version for target, _ in wanted}:
            opened = open_sockets(lambda version=version: _open(version))  # type: ignore[misc]  # a lambda
            assert isinstance(opened, socket.socket)  # noqa: S101 - what _open returns
            sockets[version] = stack.enter_context(opened)
        identity = int.from_bytes(os.urandom(2), "big")
        for _ in range(_TRIES):
            left = [each for each in wanted if each not in answered and each not in too_big]
            for number, (target, length) in enumerate(wanted):
                if (target, length) in left:
                    too_big.update(_send(sockets, identity, number, target, length))
            _receive(list(sockets.items()), identity, wanted, answered)
            if len(answered) + len(too_big) == len(wanted):
                break
    return {target: _verdict(target, size, answered) for target, _ in wanted}


def _verdict(target: str, size: int, answered: set[tuple[str, int]]) -> Reached:
    if (target, size) in answered:
        return Reached.FULL
    return Reached.SMALL if (target, _SMALL) in answered else Reached.NOT


def _open(version: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    proto = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, proto)
    opened.setsockopt(*_DISCOVER[version])
    return opened


def _send(
    sockets: Mapping[int, socket.socket], identity: int, number: int, target: str, length: int
) -> set[tuple[str, int]]:
    """Send a request; returns it when this host itself cannot send so much at once."""
    version = ipaddress.ip_address(target).version
    body = bytes(length - _IP_HEADER[version] - _HEAD.size)
    packet = _HEAD.pack(_ECHO[version], 0, 0, identity, number) + body
    if version == 4:  # of IPv6 the kernel does it, for it is of the addresses, too
        packet = packet[:2] + _checksum(packet) + packet[4:]
    try:
        sockets[version].sendto(packet, (target, 0))
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return {(target, length)}
        if error.errno not in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED}:
            raise
    return set()


def _receive(
    sockets: Sequence[tuple[int, socket.socket]],
    identity: int,
    wanted: Sequence[tuple[str, int]],
    answered: set[tuple[str, int]],
) -> None:
    """Take answers until all are there, or it takes too long."""
    deadline = time.monotonic() + _TRY_SECONDS
    while len(answered) < len(wanted) and (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([opened for _, opened in sockets], [], [], left)
        for version, opened in sockets:
            if opened not in readable:
                continue
            data, sender = opened.recvfrom(65535)
            message = data[(data[0] & 15) * 4 :] if version == 4 else data
            kind, _, _, found, number = _HEAD.unpack_from(message)
            if (kind, found) == (_REPLY[version], identity) and number < len(wanted):
                target, length = wanted[number]
                if sender[0] == target:
                    answered.add((target, length))


def _checksum(packet: bytes) -> bytes:
    """Return the Internet checksum of *packet* (RFC 1071)."""
    padded = packet + b"\0" * (len(packet) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
