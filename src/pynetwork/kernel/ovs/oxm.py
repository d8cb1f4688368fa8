"""Matches and actions as OpenFlow 1.4 has them on the wire: from the text of a flow to bytes.

The text has been read strictly, or made by us, so it is not checked again.

Codes are those of the OpenFlow Switch Specification 1.4.0, section 7.2, and for what that lacks those of
Nicira's and Ericsson's extensions, see ovs-fields(7) and ovs-actions(7).
"""

from __future__ import annotations

import functools
import socket
import struct
from typing import Final

from pynetwork.resources.flow_text import FIELDS, PROTOCOLS

__all__ = ["pack_instructions", "pack_match"]

_BASIC: Final = 0x8000
_NICIRA: Final = 0x0001
_ERICSSON: Final = 0x1000
_CODES: Final[dict[str, tuple[int, int]]] = {
    "in_port": (_BASIC, 0),
    "metadata": (_BASIC, 2),
    "eth_dst": (_BASIC, 3),
    "eth_src": (_BASIC, 4),
    "ip_src": (_BASIC, 11),
    "ip_dst": (_BASIC, 12),
    "tcp_src": (_BASIC, 13),
    "tcp_dst": (_BASIC, 14),
    "udp_src": (_BASIC, 15),
    "udp_dst": (_BASIC, 16),
    "arp_op": (_BASIC, 21),
    "arp_spa": (_BASIC, 22),
    "arp_tpa": (_BASIC, 23),
    "arp_sha": (_BASIC, 24),
    "arp_tha": (_BASIC, 25),
    "ipv6_src": (_BASIC, 26),
    "ipv6_dst": (_BASIC, 27),
    "icmpv6_type": (_BASIC, 29),
    "icmpv6_code": (_BASIC, 30),
    "nd_target": (_BASIC, 31),
    "nd_sll": (_BASIC, 32),
    "nd_tll": (_BASIC, 33),
    "tun_id": (_BASIC, 38),
    "reg0": (_NICIRA, 0),
    "tun_src": (_NICIRA, 31),
    "tun_dst": (_NICIRA, 32),
    "tun_ipv6_src": (_NICIRA, 109),
    "tun_ipv6_dst": (_NICIRA, 110),
    "nd_reserved": (_ERICSSON, 1),
    "nd_options_type": (_ERICSSON, 2),
}
# What some of them were called before (nicira-ext.h).
_OLD_CODES: Final[dict[str, tuple[int, int]]] = {
    "eth_dst": (0, 1),
    "eth_src": (0, 2),
    "arp_spa": (0, 16),
    "arp_tpa": (0, 17),
    "arp_sha": (_NICIRA, 17),
    "arp_tha": (_NICIRA, 18),
    "ipv6_src": (_NICIRA, 19),
    "ipv6_dst": (_NICIRA, 20),
    "nd_target": (_NICIRA, 23),
}
_ETH_TYPE: Final = struct.Struct("!HBBH")  # OXM 5, two bytes
_IP_PROTO: Final = struct.Struct("!HBBB")  # OXM 10, one byte

# Instructions, which stand for themselves, behind the list of actions.
_LATE: Final = ("write_metadata:", "goto_table:")
_IN_PORT: Final = 0xFFFFFFF8
_OLD_IN_PORT: Final = 0xFFF8
_NX_VENDOR: Final = 0x00002320
_REG_MOVE: Final = 6
_RESUBMIT_TABLE: Final = 14

_OUTPUT_ACTION: Final = struct.Struct("!HHIH6x")
_MOVE: Final = struct.Struct("!HHH")
_RESUBMIT: Final = struct.Struct("!HB3x")
_GOTO: Final = struct.Struct("!HHB3x")
_WRITE_METADATA: Final = struct.Struct("!HH4xQQ")
_APPLY: Final = struct.Struct("!HH4x")


def pack_match(text: str) -> bytes:
    """
    Return a match on the wire, padded.

    Args:
        text: In the form that :class:`~pynetwork.resources.Flow` gives it.
    """
    oxms = b"".join(map(_pack_condition, text.split(","))) if text else b""
    length = 4 + len(oxms)
    return struct.pack("!HH", 1, length) + oxms + bytes(-length % 8)


def pack_instructions(text: str) -> bytes:
    """
    Return actions on the wire, as instructions.

    Args:
        text: In the form that :class:`~pynetwork.resources.Flow` gives it.
    """
    if text == "drop":
        return b""
    # A comma in brackets is the one of resubmit(,N).
    words = text.replace("(,", "(").split(",")
    actions = b"".join([_pack_action(word) for word in words if not word.startswith(_LATE)])
    late = b"".join([_pack_instruction(word) for word in words if word.startswith(_LATE)])
    return (_APPLY.pack(4, 8 + len(actions)) + actions if actions else b"") + late


@functools.lru_cache(maxsize=4096)
def _pack_condition(text: str) -> bytes:
    name, _, value = text.partition("=")
    if not value:
        ether_type, protocol = PROTOCOLS[name]
        packed = _ETH_TYPE.pack(_BASIC, 5 << 1, 2, ether_type)
        return packed if protocol is None else packed + _IP_PROTO.pack(_BASIC, 10 << 1, 1, protocol)
    value, _, mask = value.partition("/")
    if not mask:
        return _header(name) + _pack_value(name, value)
    return _header(name, masked=True) + _pack_value(name, value) + _pack_mask(name, mask)


@functools.cache
def _header(name: str, *, masked: bool = False) -> bytes:
    """Return the header of a field: its class, its number, whether it is masked, its length."""
    kind, number = _CODES[name]
    size = FIELDS[name].bits // 8 * (2 if masked else 1)
    return struct.pack("!HBB", kind, number << 1 | masked, size)


def _moved(name: str) -> bytes:
    """Return the header of a field in the action that moves it, in the words the switch gives it back in."""
    code = _OLD_CODES.get(name)
    return (
        _header(name) if code is None else struct.pack("!HBB", code[0], code[1] << 1, FIELDS[name].bits // 8)
    )


def _pack_value(name: str, text: str) -> bytes:
    field = FIELDS[name]
    match field.kind:
        case "mac":
            return bytes.fromhex(text.replace(":", ""))
        case "ipv4":
            return socket.inet_aton(text)
        case "ipv6":
            return socket.inet_pton(socket.AF_INET6, text)
    return int(text, 0).to_bytes(field.bits // 8, "big")


def _pack_mask(name: str, text: str) -> bytes:
    """Return a mask: a MAC, or the length of a prefix."""
    bits = FIELDS[name].bits
    if ":" in text:
        return _pack_value(name, text)
    return ((1 << bits) - (1 << bits - int(text))).to_bytes(bits // 8, "big")


def _pack_instruction(text: str) -> bytes:
    name, _, value = text.partition(":")
    if name == "goto_table":
        return _GOTO.pack(1, 8, int(value))
    return _WRITE_METADATA.pack(2, 24, int(value, 0), (1 << 64) - 1)


@functools.lru_cache(maxsize=4096)
def _pack_action(text: str) -> bytes:
    name, _, rest = text.partition(":")
    if name == "output":
        return _OUTPUT_ACTION.pack(0, 16, int(rest), 0)
    if name == "in_port":
        return _OUTPUT_ACTION.pack(0, 16, _IN_PORT, 0)
    if name == "set_field":
        value, _, field = rest.partition("->")
        return _padded(25, b"", _header(field) + _pack_value(field, value))
    if name == "move":
        source, _, field = rest.partition("->")
        body = _MOVE.pack(FIELDS[field].bits, 0, 0) + _moved(source) + _moved(field)
        return _padded(0xFFFF, struct.pack("!IH", _NX_VENDOR, _REG_MOVE), body)
    extension = struct.pack("!IH", _NX_VENDOR, _RESUBMIT_TABLE)
    table = int(text.removeprefix("resubmit(").removesuffix(")"))
    return _padded(0xFFFF, extension, _RESUBMIT.pack(_OLD_IN_PORT, table))


def _padded(kind: int, head: bytes, body: bytes) -> bytes:
    length = 4 + len(head) + len(body)
    padding = -length % 8
    return struct.pack("!HH", kind, length + padding) + head + body + bytes(padding)
