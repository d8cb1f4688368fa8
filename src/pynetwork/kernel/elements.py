"""Elements of sets as the kernel wants them: packed fields, intervals as it keeps them."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any, Final

from pynetwork.kernel.nfnetlink import Item
from pynetwork.resources.ruleset import SETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pynetwork.resources.ruleset import Element, Field

__all__ = ["PROTOCOLS", "concatenated", "pack"]

#: Numbers of the protocols that have ports.
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_NAME_SIZE: Final = 16  # IFNAMSIZ


def pack(element: Element) -> list[Item]:
    """Return *element* as the kernel keeps it: one item, or two that are the ends of an interval."""
    kind = SETS[element.of]
    if not kind.interval:
        key, data = map(
            concatenated, (map(_pack, element.key, kind.key), map(_pack, element.data, kind.data))
        )
        return [Item(key, data=data)]
    fields = [_bounds(field, type_) for field, type_ in zip(element.key, kind.key, strict=True)]
    data = concatenated([_bounds(f, t)[0] for f, t in zip(element.data, kind.data, strict=True)])
    first = concatenated([low for low, _ in fields])
    last = concatenated([high for _, high in fields])
    if len(fields) > 1:
        return [Item(first, key_end=last, data=data)]
    # A set of one field keeps where an interval begins, and where the next thing does.
    after = int.from_bytes(last, "big") + 1
    if after >> 8 * len(last):
        return [Item(first, data=data)]
    return [Item(first, data=data), Item(after.to_bytes(len(last), "big"), is_end=True)]


def concatenated(fields: Iterable[bytes]) -> bytes:
    """Return a key of several fields, each filled up to whole registers of four bytes."""
    parts = [*fields]
    if len(parts) == 1:
        return parts[0]
    return b"".join([part.ljust(len(part) + 3 & ~3, b"\0") for part in parts])


def _bounds(field: Field, kind: str) -> tuple[bytes, bytes]:
    """Return the lowest and the highest value of a field."""
    if isinstance(field, tuple):
        return _pack(field[0], kind), _pack(field[1], kind)
    if isinstance(field, str) and "/" in field:
        network = ipaddress.ip_network(field)
        return network.network_address.packed, network.broadcast_address.packed
    packed = _pack(field, kind)
    return packed, packed


def _pack(value: Field, kind: str) -> bytes:
    return _PACKERS[kind](value)


def _packed_address(value: Any) -> bytes:  # noqa: ANN401 - a field that the set's type says is text
    return socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)


#: How a value of each type is packed.
_PACKERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "inet_service": lambda port: int(port).to_bytes(2, "big"),
    "inet_proto": lambda name: bytes((PROTOCOLS[name],)),
    "ipv4_addr": _packed_address,
    "ipv6_addr": _packed_address,
    "@th,64,128": _packed_address,
    "ether_addr": lambda mac: bytes.fromhex(mac.replace(":", "")),
    "ifname": lambda name: name.encode().ljust(_NAME_SIZE, b"\0"),
}
