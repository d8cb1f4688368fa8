"""nftables by netlink: transactions of set elements, questions about tables, dumps of sets.

What nft does in a process of three milliseconds takes twenty microseconds here. Only what the library
needs at run time is here; the skeleton of rules is loaded by nft itself, once.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pynetwork.kernel.netlink import (
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkError,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "FAMILIES",
    "Item",
    "add_elements",
    "add_interval_set",
    "add_table",
    "delete_elements",
    "delete_table",
    "dump_chains",
    "dump_elements",
    "dump_forward_chains",
    "dump_rules",
    "dump_sets",
    "flush_set",
    "generation",
    "has_element",
    "has_table",
    "open_socket",
    "transact",
]

_NETFILTER: Final = 12  # NETLINK_NETFILTER
_SEND_BUFFER: Final = 16 << 20  # a transaction is one message to the kernel
#: Families of tables.
FAMILIES: Final = {"inet": 1, "bridge": 7}

_BATCH_BEGIN, _BATCH_END = 16, 17
_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
# linux/netfilter/nf_tables.h
_NEWTABLE, _GETTABLE, _DELTABLE, _GETCHAIN, _GETRULE = 0, 1, 2, 4, 7
_NEWSET, _GETSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 9, 10, 12, 13, 14, 16
_HOOK_FORWARD: Final = 2  # NF_INET_FORWARD
_SET_INTERVAL: Final = 4
_ELEM_INTERVAL_END: Final = 1
_IPV6_TYPE: Final = 8  # nft's own number of ipv6_addr
_NONE: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL})  # the last two: no nftables
_HEADER: Final = struct.Struct("!BBH")
_U32: Final = struct.Struct("!I")
_NESTED: Final = struct.Struct("=HH")
_VALUE: Final = struct.Struct("=HHHH")
_MOST_BYTES: Final = 60_000  # of an attribute: its length is 16 bits
_END: Final = attribute(3, _U32.pack(_ELEM_INTERVAL_END))


class Item(NamedTuple):
    """
    An element on its way to or from the kernel.

    Args:
        key: Packed.
        key_end: The last key of an interval of concatenated fields.
        data: What a map yields, packed.
        is_end: Whether it ends the interval that the one before began (sets of one field).
        comment: Kept by the kernel, for whoever looks.
    """

    key: bytes
    key_end: bytes = b""
    data: bytes = b""
    is_end: bool = False
    comment: bytes = b""


def _message(kind: int, flags: int, family: int, *parts: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, _HEADER.pack(family, 0, 0) + b"".join(parts))


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def open_socket() -> NetlinkSocket:
    """
    Return a netfilter socket in the network namespace of the calling thread.

    It should stay open: to close one shortly after a deletion waits for an RCU grace period.
    """
    return NetlinkSocket(_NETFILTER, send_buffer=_SEND_BUFFER)


def transact(nft: NetlinkSocket, messages: Sequence[Message], *, generation: int | None = None) -> None:
    """
    Carry out *messages* in one transaction, all or none.

    Args:
        nft: A netfilter socket.
        messages: Changes.
        generation: Fail with ERESTART unless nothing has changed since then.

    Raises:
        NetlinkError: Refused; its ``number`` attribute is the index of the message it is about.
    """
    if not messages:
        return
    of = b"" if generation is None else _u32(1, generation)
    begin = Message(_BATCH_BEGIN, 0, _HEADER.pack(0, 0, _SUBSYSTEM) + of)
    end = Message(_BATCH_END, 0, _HEADER.pack(0, 0, _SUBSYSTEM))
    errors = nft.transaction(begin, messages, end)
    if errors:
        number = min(errors)
        error = errors[number]
        error.number = number  # type: ignore[attr-defined]  # which message, for whoever wants to know
        raise error


def add_table(family: int, table: str) -> Message:
    """Return the creation of a table, if there is none."""
    return _message(_NEWTABLE, NLM_F_CREATE, family, text(1, table))


def delete_table(family: int, table: str) -> Message:
    """Return the deletion of a table and all in it."""
    return _message(_DELTABLE, 0, family, text(1, table))


def add_interval_set(family: int, table: str, name: str, number: int) -> Message:
    """Return the creation of a set of intervals of IPv6 addresses, if there is none; *number* is any."""
    return _message(
        _NEWSET,
        NLM_F_CREATE,
        family,
        text(1, table),
        text(2, name),
        _u32(3, _SET_INTERVAL),
        _u32(4, _IPV6_TYPE),
        _u32(5, 16),
        _u32(10, number),
    )


def add_elements(
    family: int, table: str, name: str, items: Sequence[Item], *, exclusive: bool = False
) -> Iterator[Message]:
    """Yield the addition of *items* to a set; with *exclusive* it is an error when one exists."""
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
    return _elements(_NEWSETELEM, flags, family, (table, name), items)


def delete_elements(family: int, table: str, name: str, items: Sequence[Item]) -> Iterator[Message]:
    """Yield the deletion of *items* from a set."""
    return _elements(_DELSETELEM, 0, family, (table, name), items)


def flush_set(family: int, table: str, name: str) -> Message:
    """Return the deletion of all elements of a set."""
    return _message(_DELSETELEM, 0, family, text(1, table), text(2, name))


def _elements(
    kind: int, flags: int, family: int, place: tuple[str, str], items: Sequence[Item]
) -> Iterator[Message]:
    head = text(1, place[0]) + text(2, place[1])
    parts: list[bytes] = []
    size = 0
    for item in items:
        part = _item(item)
        # The two ends of an interval go together.
        if size + len(part) > _MOST_BYTES and not item.is_end:
            yield _message(kind, flags, family, head, nested(3, *parts))
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _message(kind, flags, family, head, nested(3, *parts))


def _item(item: Item) -> bytes:
    # What is written most often, so put together by hand.
    parts = _END if item.is_end else b""
    for kind, value in ((1, item.key), (10, item.key_end), (2, item.data)):
        if value:
            size = len(value)
            padded = size + (-size % 4)
            # NFTA_SET_ELEM_KEY, _KEY_END or _DATA, and in it NFTA_DATA_VALUE.
            parts += _VALUE.pack(8 + padded, kind | NLA_F_NESTED, 4 + size, 1)
            parts += value if size == padded else value.ljust(padded, b"\0")
    if item.comment:
        parts += attribute(6, item.comment)
    return _NESTED.pack(4 + len(parts), 1 | NLA_F_NESTED) + parts


def has_table(nft: NetlinkSocket, family: int, table: str) -> bool:
    """Whether there is a table of that name."""
    try:
        nft.ask(_message(_GETTABLE, 0, family, text(1, table)))
    except NetlinkError as error:
        if error.errno in _NONE:
            return False
        raise
    return True


def generation(nft: NetlinkSocket) -> int:
    """Return the number of the ruleset's generation: it grows with each transaction of anybody."""
    answer = nft.ask(_message(_GETGEN, 0, socket.AF_UNSPEC))
    return int(_U32.unpack(attributes(answer, 4)[1])[0])


def dump_chains(nft: NetlinkSocket, family: int, table: str) -> dict[str, int]:
    """Return the chains of a table: the number of rules of each by its name."""
    counts: dict[str, int] = {}
    for payload in nft.dump(_message(_GETCHAIN, 0, family)):
        found = attributes(payload, 4)
        if _string(found[1]) == table:
            counts[_string(found[3])] = 0
    for payload in nft.dump(_message(_GETRULE, 0, family, text(1, table))) if counts else ():
        found = attributes(payload, 4)
        if _string(found[1]) == table:
            counts[_string(found[2])] += 1
    return counts


def dump_forward_chains(nft: NetlinkSocket) -> list[tuple[str, str, str, str]]:
    """Return family, table, name and policy of all chains at the forward hook of IP packets."""
    families = {1: "inet", socket.AF_INET: "ip", socket.AF_INET6: "ip6"}
    found = []
    for payload in nft.dump(_message(_GETCHAIN, 0, socket.AF_UNSPEC)):
        fields = attributes(payload, 4)
        family = families.get(payload[0])
        hook = attributes(fields.get(4, b"")).get(1)
        if family is not None and hook is not None and _U32.unpack(hook)[0] == _HOOK_FORWARD:
            policy = "drop" if fields.get(5) == _U32.pack(0) else "accept"
            found.append((family, _string(fields[1]), _string(fields[3]), policy))
    return found


def dump_rules(nft: NetlinkSocket, family: int, table: str) -> list[bytes]:
    """Return the rules of a table, each as the kernel describes it, in their order."""
    return nft.dump(_message(_GETRULE, 0, family, text(1, table)))


def dump_sets(nft: NetlinkSocket, family: int, table: str) -> list[str]:
    """Return the names of the sets and maps of a table."""
    payloads = nft.dump(_message(_GETSET, 0, family, text(1, table)))
    return [_string(attributes(payload, 4)[2]) for payload in payloads]


def has_element(nft: NetlinkSocket, family: int, table: str, name: str, key: bytes) -> bool:
    """Whether a set, if there is one, has an element of that key."""
    wanted = nested(3, _item(Item(key)))
    try:
        nft.ask(_message(_GETSETELEM, 0, family, text(1, table), text(2, name), wanted))
    except NetlinkError as error:
        if error.errno in _NONE:
            return False
        raise
    return True


def dump_elements(nft: NetlinkSocket, family: int, table: str, name: str) -> list[Item]:
    """Return the elements of a set, in its order."""
    items: list[Item] = []
    for payload in nft.dump(_message(_GETSETELEM, 0, family, text(1, table), text(2, name))):
        items += map(_parse_item, _list(attributes(payload, 4).get(3, b"")))
    return items


def _parse_item(payload: bytes) -> Item:
    found = attributes(payload)
    flags = found.get(3)
    return Item(
        key=_value(found.get(1)),
        key_end=_value(found.get(10)),
        data=_value(found.get(2)),
        is_end=flags is not None and bool(_U32.unpack(flags)[0] & _ELEM_INTERVAL_END),
        comment=found.get(6, b""),
    )


def _value(payload: bytes | None) -> bytes:
    return b"" if payload is None else attributes(payload).get(1, b"")


def _list(payload: bytes) -> Iterator[bytes]:
    """Yield the payloads of attributes that are all of one type."""
    offset = 0
    while offset + 4 <= len(payload):
        (length,) = struct.unpack_from("=H", payload, offset)
        yield payload[offset + 4 : offset + length]
        offset += length + (-length % 4)


def _string(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")
