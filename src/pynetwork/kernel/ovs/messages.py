"""The messages of OpenFlow 1.4 that we send and understand, see the OpenFlow Switch Specification 1.4.0."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from pynetwork.kernel.ovs.oxm import pack_instructions, pack_match

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HEADER",
    "VERSION",
    "BundleControl",
    "Kind",
    "Seen",
    "add_flow",
    "bundle_add",
    "bundle_control",
    "delete_all",
    "delete_flow",
    "explain",
    "flows_request",
    "message",
    "parse_flows",
]

VERSION: Final = 5  # 1.4
HEADER: Final = struct.Struct("!BBHI")

_ALL_TABLES: Final = 0xFF
_ANY: Final = 0xFFFFFFFF
_FLOW_MOD: Final = struct.Struct("!QQBBHHHIIIHH")
_ADD: Final = 0
_DELETE: Final = 3
_BUNDLE: Final = struct.Struct("!IHH")
_ATOMIC_ORDERED: Final = 3
_FLOW_STATS: Final = 1
_FLOW_REQUEST: Final = struct.Struct("!HH4xB3xII4xQQ")
_FLOW_ENTRY: Final = struct.Struct("!HBxIIHHHHH2xQQQ")
_PRIORITY_AT: Final = 12  # in an entry
_MULTIPART: Final = struct.Struct("!HH4x")
_EMPTY_MATCH: Final = pack_match("")


class Kind(IntEnum):
    """Types of messages."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    FLOW_MOD = 14
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    BUNDLE_CONTROL = 33
    BUNDLE_ADD = 34


class BundleControl(IntEnum):
    """What is asked for or confirmed of a bundle."""

    OPEN = 0
    OPENED = 1
    COMMIT = 4
    COMMITTED = 5
    DISCARD = 6
    DISCARDED = 7


class Seen(NamedTuple):
    """A flow that is on the switch."""

    table: int
    cookie: int


def message(kind: Kind, number: int, body: bytes = b"") -> bytes:
    """Return a message with the transaction id *number*."""
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), number) + body


def add_flow(table: int, priority: int, match: str, actions: str, cookie: int) -> bytes:
    """Return the body of a message that adds a flow, in the place of one of the same match and priority."""
    head = _FLOW_MOD.pack(cookie, 0, table, _ADD, 0, 0, priority, _ANY, _ANY, _ANY, 0, 0)
    return head + pack_match(match) + pack_instructions(actions)


def delete_flow(table: int, cookie: int) -> bytes:
    """Return the body of a message that deletes the flow with a cookie, if it is there."""
    mask = (1 << 64) - 1
    return _FLOW_MOD.pack(cookie, mask, table, _DELETE, 0, 0, 0, _ANY, _ANY, _ANY, 0, 0) + _EMPTY_MATCH


def bundle_control(number: int, what: BundleControl) -> bytes:
    """Return the body of a message about bundle *number*: all of it or nothing, in order."""
    return _BUNDLE.pack(number, what, _ATOMIC_ORDERED)


def bundle_add(bundle: int, number: int, flow_mod: bytes) -> bytes:
    """Return the message, of transaction id *number*, that puts a change of a flow into a bundle."""
    inner = HEADER.pack(VERSION, Kind.FLOW_MOD, HEADER.size + len(flow_mod), number)
    length = HEADER.size + _BUNDLE.size + len(inner) + len(flow_mod)
    head = HEADER.pack(VERSION, Kind.BUNDLE_ADD, length, number)
    return head + _BUNDLE.pack(bundle, 0, _ATOMIC_ORDERED) + inner + flow_mod


def delete_all(owner: int, match: str) -> bytes:
    """Return the body of a message that deletes all flows of an owner that match *match*, and more or not."""
    cookie, mask = owner << 48, 0xFFFF << 48
    head = _FLOW_MOD.pack(cookie, mask, _ALL_TABLES, _DELETE, 0, 0, 0, _ANY, _ANY, _ANY, 0, 0)
    return head + pack_match(match)


def flows_request(owner: int, match: str = "", table: int | None = None) -> bytes:
    """
    Return the body of a message that asks for flows.

    Args:
        owner: First 16 bits of their cookies.
        match: What they all match, and more or not.
        table: Their table; None for all.
    """
    mask = 0xFFFF << 48
    number = _ALL_TABLES if table is None else table
    head = _FLOW_REQUEST.pack(_FLOW_STATS, 0, number, _ANY, _ANY, owner << 48, mask)
    return head + pack_match(match)


def parse_flows(body: bytes) -> tuple[list[Seen], bool]:
    """Return the flows that the body of an answer lists, and whether more answers follow."""
    _, flags = _MULTIPART.unpack_from(body)
    return list(_entries(body)), bool(flags & 1)


def parse_contents(body: bytes) -> tuple[list[tuple[Seen, bytes]], bool]:
    """Return as :func:`parse_flows`, each flow with its priority, match and instructions as they are."""
    _, flags = _MULTIPART.unpack_from(body)
    found = []
    offset = _MULTIPART.size
    while offset < len(body):
        length, table, *_, cookie, _, _ = _FLOW_ENTRY.unpack_from(body, offset)
        what = body[offset + _PRIORITY_AT : offset + _PRIORITY_AT + 2]
        what += body[offset + _FLOW_ENTRY.size : offset + length]
        found.append((Seen(table, cookie), what))
        offset += length
    return found, bool(flags & 1)


def _entries(body: bytes) -> Iterator[Seen]:
    offset = _MULTIPART.size
    while offset < len(body):
        length, table, *_, cookie, _, _ = _FLOW_ENTRY.unpack_from(body, offset)
        yield Seen(table, cookie)
        offset += length


_TYPES: Final = {
    0: "hello failed",
    1: "bad request",
    2: "bad action",
    3: "bad instruction",
    4: "bad match",
    5: "flow mod failed",
    17: "bundle failed",
}
_REASONS: Final = {
    (0, 0): "no version in common",
    (2, 0): "unknown action",
    (2, 4): "port out of range",
    (2, 14): "field that cannot be set",
    (3, 1): "unsupported instruction",
    (3, 2): "table out of range",
    (4, 6): "unsupported field",
    (4, 7): "bad value",
    (4, 9): "a field without what it depends on",
    (5, 1): "table is full",
    (5, 2): "no such table",
}


def explain(body: bytes) -> str:
    """Return what the body of an error message says, in words."""
    kind, code = struct.unpack_from("!HH", body)
    words = _TYPES.get(kind, f"error {kind:#x}")
    return f"{words}: {_REASONS.get((kind, code), f'code {code}')}"
