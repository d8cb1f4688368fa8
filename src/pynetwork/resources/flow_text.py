"""The language of flows: what a packet is like, and what is done with it, as ``ovs-ofctl`` writes it.

A small part of what ovs-fields(7) and ovs-actions(7) describe, read strictly and written in one way only,
so that two texts are the same flow exactly when they are equal.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Final, TypeAlias

import attrs

from pynetwork.errors import InvalidValueError

__all__ = [
    "FIELDS",
    "PROTOCOLS",
    "Action",
    "Condition",
    "Field",
    "parse_action",
    "parse_actions",
    "parse_condition",
    "parse_match",
]


@attrs.frozen
class Field:
    """
    A field of a packet, or of what is known about it.

    Args:
        kind: How its values are written: ``int``, ``hex``, ``mac``, ``ipv4`` or ``ipv6``.
        bits: Their size.
        of: Protocols that have it; none for all.
        types: ICMPv6 types of the messages that have it; none for all.
        masked: Whether a mask may be given.
        last: The highest value that the switch takes, when not all bits may be set.
    """

    kind: str
    bits: int
    of: tuple[str, ...] = ()
    types: tuple[int, ...] = ()
    masked: bool = False
    last: int | None = None


#: Protocols a packet may be of, with Ethernet type and IP protocol. One of them stands in a match by itself.
PROTOCOLS: Final[dict[str, tuple[int, int | None]]] = {
    "arp": (0x0806, None),
    "ip": (0x0800, None),
    "icmp": (0x0800, 1),
    "tcp": (0x0800, 6),
    "udp": (0x0800, 17),
    "ipv6": (0x86DD, None),
    "icmp6": (0x86DD, 58),
    "tcp6": (0x86DD, 6),
    "udp6": (0x86DD, 17),
}
_IP: Final = ("ip", "icmp", "tcp", "udp")
_IPV6: Final = ("ipv6", "icmp6", "tcp6", "udp6")

#: Every field, in the order that a match has them.
FIELDS: Final[dict[str, Field]] = {
    "in_port": Field("int", 32),
    "tun_id": Field("hex", 64),
    "tun_src": Field("ipv4", 32),
    "tun_dst": Field("ipv4", 32),
    "tun_ipv6_src": Field("ipv6", 128),
    "tun_ipv6_dst": Field("ipv6", 128),
    "metadata": Field("hex", 64),
    "reg0": Field("hex", 32),
    "eth_src": Field("mac", 48, masked=True),
    "eth_dst": Field("mac", 48, masked=True),
    "ip_src": Field("ipv4", 32, _IP, masked=True),
    "ip_dst": Field("ipv4", 32, _IP, masked=True),
    "ipv6_src": Field("ipv6", 128, _IPV6, masked=True),
    "ipv6_dst": Field("ipv6", 128, _IPV6, masked=True),
    "tcp_src": Field("int", 16, ("tcp", "tcp6")),
    "tcp_dst": Field("int", 16, ("tcp", "tcp6")),
    "udp_src": Field("int", 16, ("udp", "udp6")),
    "udp_dst": Field("int", 16, ("udp", "udp6")),
    "arp_op": Field("int", 16, ("arp",), last=255),
    "arp_spa": Field("ipv4", 32, ("arp",)),
    "arp_tpa": Field("ipv4", 32, ("arp",)),
    "arp_sha": Field("mac", 48, ("arp",)),
    "arp_tha": Field("mac", 48, ("arp",)),
    "icmpv6_type": Field("int", 8, ("icmp6",)),
    "icmpv6_code": Field("int", 8, ("icmp6",)),
    "nd_target": Field("ipv6", 128, ("icmp6",), (135, 136), masked=True),
    "nd_sll": Field("mac", 48, ("icmp6",), (135,)),
    "nd_tll": Field("mac", 48, ("icmp6",), (136,)),
    "nd_reserved": Field("hex", 32, ("icmp6",), (135, 136)),
    "nd_options_type": Field("int", 8, ("icmp6",), (135, 136)),
}
_ORDER: Final = {name: number for number, name in enumerate((*PROTOCOLS, *FIELDS))}
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_NUMBER: Final = re.compile(r"(0x[0-9a-f]+|0|[1-9][0-9]*)\Z")


@attrs.frozen
class Condition:
    """
    One condition of a match: a protocol, or a field and its value.

    Args:
        name: Of the protocol or the field.
        value: The field's; None for a protocol.
        mask: Bits of it that count; None for all.
    """

    name: str
    value: int | None = None
    mask: int | None = None

    def __str__(self) -> str:
        if self.value is None:
            return self.name
        kind = FIELDS[self.name].kind
        text = _written(kind, self.value)
        if self.mask is None:
            return f"{self.name}={text}"
        if kind == "mac":
            return f"{self.name}={text}/{_written(kind, self.mask)}"
        return f"{self.name}={text}/{self.mask.bit_count()}"


@attrs.frozen
class Action:
    """
    One thing done with a packet.

    Args:
        name: ``output``, ``in_port``, ``set_field``, ``move``, ``resubmit``, ``write_metadata`` or
            ``goto_table``.
        value: A port, a table, or what a field is set to.
        field: The field that is set, or moved to.
        source: The field that is moved.
    """

    name: str
    value: int = 0
    field: str = ""
    source: str = ""

    def __str__(self) -> str:
        match self.name:
            case "in_port":
                return "in_port"
            case "set_field":
                return f"set_field:{_written(FIELDS[self.field].kind, self.value)}->{self.field}"
            case "move":
                return f"move:{self.source}->{self.field}"
            case "resubmit":
                return f"resubmit(,{self.value})"
            case "write_metadata":
                return f"write_metadata:{self.value:#x}"
        return f"{self.name}:{self.value}"


Actions: TypeAlias = tuple[Action, ...]
_TABLES: Final = 253  # 254 is the switch's own, 255 stands for all
_PORTS: Final = 0xFF00  # OFPP_MAX of OpenFlow 1.0, beyond which ports have a meaning of their own
# Instructions, which a switch takes after all actions, in this order.
_LATE: Final = ("write_metadata", "goto_table")


def parse_match(text: str) -> tuple[Condition, ...]:
    """
    Return the conditions that *text* states, in order.

    Args:
        text: ``arp,metadata=0x3e9,arp_op=1``: at most one protocol, and fields of it. Empty for any packet.

    Raises:
        InvalidValueError: A field is unknown, its value malformed, or there twice, or of another protocol.
    """
    found = tuple(map(parse_condition, text.split(","))) if text else ()
    found = tuple(sorted(found, key=lambda condition: _ORDER[condition.name]))
    names = [condition.name for condition in found]
    if len(set(names)) != len(names) or sum(name in PROTOCOLS for name in names) > 1:
        msg = f"invalid match {text!r}: something is there twice"
        raise InvalidValueError(msg)
    for condition in found:
        _check_place(text, condition, found)
    return found


@functools.lru_cache(maxsize=4096)
def parse_condition(text: str) -> Condition:
    """
    Return the condition that *text* is, such as ``ip_src=10.0.0.0/8``, see :func:`parse_match`.

    Raises:
        InvalidValueError: It is malformed.
    """
    name, _, rest = text.partition("=")
    if text in PROTOCOLS:
        return Condition(text)
    field = FIELDS.get(name)
    if field is None:
        msg = f"invalid match {text!r}: unknown field {name!r}"
        raise InvalidValueError(msg)
    value_text, slash, mask_text = rest.partition("/")
    value = _read(field, value_text, text)
    if not slash:
        return Condition(name, value)
    mask = _mask(field, mask_text, text)
    if not field.masked or value & ~mask:
        msg = f"invalid match {text!r}: {name} cannot be masked like that"
        raise InvalidValueError(msg)
    return Condition(name, value, None if mask == _all(field) else mask)


def parse_actions(text: str) -> Actions:
    """
    Return the actions that *text* states.

    Args:
        text: ``set_field:0x3e9->tun_id,output:1``, or ``drop``.

    Raises:
        InvalidValueError: One is unknown or malformed, or stands before one that must come first.
    """
    if text == "drop":
        return ()
    found = tuple(map(parse_action, re.split(r",(?![^(]*\))", text)))
    late = [_LATE.index(action.name) for action in found if action.name in _LATE]
    names = [action.name for action in found[len(found) - len(late) :]]
    if names != [_LATE[number] for number in sorted(set(late))]:
        msg = f"invalid actions {text!r}: write_metadata and goto_table come last, in this order, once each"
        raise InvalidValueError(msg)
    return found


@functools.lru_cache(maxsize=4096)
def parse_action(text: str) -> Action:
    """
    Return the action that *text* is, such as ``output:1``, see :func:`parse_actions`.

    Raises:
        InvalidValueError: It is malformed.
    """
    name, _, rest = text.partition(":")
    if text == "in_port":
        return Action("in_port")
    if name in {"set_field", "move"}:
        return _rewriting(text, name, rest)
    if name.startswith("resubmit(,") and name.endswith(")") and not rest:
        return Action("resubmit", _number(name[10:-1], _TABLES, text))
    limits = {"output": _PORTS - 1, "goto_table": _TABLES, "write_metadata": (1 << 64) - 1}
    if name not in limits:
        msg = f"invalid action {text!r}: unknown"
        raise InvalidValueError(msg)
    return Action(name, _number(rest, limits[name], text))


def _rewriting(text: str, name: str, rest: str) -> Action:
    source, _, target = rest.partition("->")
    field = FIELDS.get(target)
    if field is None:
        msg = f"invalid action {text!r}: unknown field {target!r}"
        raise InvalidValueError(msg)
    if name == "set_field":
        return Action("set_field", _read(field, source, text), target)
    if source not in FIELDS or FIELDS[source].bits != field.bits:
        msg = f"invalid action {text!r}: {source!r} is no field of the size of {target}"
        raise InvalidValueError(msg)
    return Action("move", 0, target, source)


def _check_place(text: str, condition: Condition, found: tuple[Condition, ...]) -> None:
    field = FIELDS.get(condition.name)
    if field is None or not field.of:
        return
    types = [other.value for other in found if other.name == "icmpv6_type"]
    if not any(other.name in field.of for other in found):
        msg = f"invalid match {text!r}: {condition.name} is a field of {' or '.join(field.of)}"
        raise InvalidValueError(msg)
    if field.types and not any(kind in field.types for kind in types):
        wanted = " or ".join(f"icmpv6_type={kind}" for kind in field.types)
        msg = f"invalid match {text!r}: {condition.name} needs {wanted}"
        raise InvalidValueError(msg)


def _all(field: Field) -> int:
    return (1 << field.bits) - 1


def _read(field: Field, text: str, whole: str) -> int:
    match field.kind:
        case "mac":
            return _mac(text, whole)
        case "ipv4" | "ipv6":
            cls = ipaddress.IPv4Address if field.kind == "ipv4" else ipaddress.IPv6Address
            try:
                return int(cls(text))
            except ValueError as error:
                msg = f"invalid flow: {whole!r}: {error}"
                raise InvalidValueError(msg) from error
    return _number(text, _all(field) if field.last is None else field.last, whole)


def _mask(field: Field, text: str, whole: str) -> int:
    if field.kind == "mac":
        return _mac(text, whole)
    length = _number(text, field.bits, whole)
    return _all(field) ^ (_all(field) >> length)


def _mac(text: str, whole: str) -> int:
    if not _MAC.match(text):
        msg = f"invalid flow: {whole!r}: {text!r} is no MAC address in lower case"
        raise InvalidValueError(msg)
    return int(text.replace(":", ""), 16)


def _number(text: str, last: int, whole: str) -> int:
    if not _NUMBER.match(text) or int(text, 0) > last:
        msg = f"invalid flow: {whole!r}: {text!r} is no number up to {last}"
        raise InvalidValueError(msg)
    return int(text, 0)


def _written(kind: str, value: int) -> str:
    match kind:
        case "mac":
            return value.to_bytes(6, "big").hex(":")
        case "ipv4":
            return str(ipaddress.IPv4Address(value))
        case "ipv6":
            return str(ipaddress.IPv6Address(value))
        case "hex":
            return hex(value)
    return str(value)
