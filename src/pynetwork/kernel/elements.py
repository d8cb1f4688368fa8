"""Elements of sets as the kernel wants them: packed fields, intervals as it keeps them."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Final

from pynetwork.kernel.nfnetlink import Item
from pynetwork.resources.ruleset import SETS

if TYPE_CHECKING:
    from pynetwork.resources.ruleset import Element, Field

__all__ = ["PROTOCOLS", "pack"]

#: Numbers of the protocols that have ports.
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_SIZES: Final = {
    "ifname": 16,
    "inet_proto": 1,
    "inet_service": 2,
    "ipv4_addr": 4,
    "ipv6_addr": 16,
    "ether_addr": 6,
}


def pack(element: Element) -> list[Item]:
    """Return *element* as the kernel keeps it: one item, or two that are the ends of an interval."""
    kind = SETS[element.of]
    fields = [_bounds(field, type_) for field, type_ in zip(element.key, kind.key, strict=True)]
    data = _concatenated([_bounds(f, t)[0] for f, t in zip(element.data, kind.data, strict=True)])
    first = _concatenated([low for low, _ in fields])
    last = _concatenated([high for _, high in fields])
    if not kind.interval:
        return [Item(first, data=data)]
    if len(fields) > 1:
        return [Item(first, key_end=last, data=data)]
    # A set of one field keeps where an interval begins, and where the next thing does.
    after = int.from_bytes(last, "big") + 1
    if after >> 8 * len(last):
        return [Item(first, data=data)]
    return [Item(first, data=data), Item(after.to_bytes(len(last), "big"), is_end=True)]


def _concatenated(fields: list[bytes]) -> bytes:
    if len(fields) == 1:
        return fields[0]
    return b"".join(field + b"\0" * (-len(field) % 4) for field in fields)


def _bounds(field: Field, kind: str) -> tuple[bytes, bytes]:
    """Return the lowest and the highest value of a field."""
    if isinstance(field, tuple):
        return _pack(field[0], kind), _pack(field[1], kind)
    if isinstance(field, str) and "/" in field:
        network = ipaddress.ip_network(field)
        return network.network_address.packed, network.broadcast_address.packed
    packed = _pack(field, kind)
    return packed, packed


def _pack(value: str | int, kind: str) -> bytes:
    text = str(value)
    match kind:
        case "inet_service":
            return struct.pack("!H", int(value))
        case "inet_proto":
            return bytes([PROTOCOLS[text]])
        case "ipv4_addr":
            return socket.inet_pton(socket.AF_INET, text)
        case "ipv6_addr" | "@th,64,128":
            return socket.inet_pton(socket.AF_INET6, text)
        case "ether_addr":
            return bytes.fromhex(text.replace(":", ""))
    return text.encode().ljust(_SIZES[kind], b"\0")
