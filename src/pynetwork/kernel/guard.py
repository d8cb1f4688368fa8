"""Host ports are claimed in the kernel: one claim wins, whichever process or instance makes it.

All instances on a host share one nftables table of intervals. A port, a range, an address or all
addresses are each an interval, and the kernel refuses one that overlaps another. A claim is made in
the same transaction as the rule that needs it, so it lives as long as the rule: it survives the death
of the process, and goes with a reboot.

A set of intervals gets slower as it grows, so there is one for every 256 ports.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final

from pynetwork.kernel import nfnetlink
from pynetwork.kernel.elements import PROTOCOLS
from pynetwork.kernel.nfnetlink import FAMILIES, Item
from pynetwork.resources import PublishedPort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.kernel.netlink import Message, NetlinkSocket
    from pynetwork.resources import Resource

__all__ = [
    "TABLE",
    "claim",
    "claims",
    "holder",
    "is_claimed",
    "lines",
    "release",
    "release_all",
    "remove_if_empty",
    "together",
]

#: The table, in the family ``inet``. Its keys look like IPv6 addresses: version, protocol, port, address.
TABLE: Final = "pynetwork-ports"
_INET: Final = FAMILIES["inet"]
_BITS: Final = 8
_FIRST, _LAST = bytes(12), b"\xff" * 12
_COMMENT: Final = 0  # NFTNL_UDATA_SET_ELEM_COMMENT
_MOST_COMMENT: Final = 120


def claims(port: PublishedPort, instance: str) -> dict[str, list[Item]]:
    """Return the intervals that *port* claims, by the name of the set."""
    comment = _comment(f"{instance} {port.owner}")
    if port.first == port.last and port.host is None:
        head = int.from_bytes(_key(port, port.first, b""), "big")
        ends = ((head + each << 96).to_bytes(16, "big") for each in (0, 1))
        return {_set_name(port.first): [Item(next(ends), comment=comment), Item(next(ends), is_end=True)]}
    found: dict[str, list[Item]] = {}
    for first, last in _buckets(port.first, port.last):
        if port.host is None:
            bounds = [(_key(port, first, _FIRST), _key(port, last, _LAST))]
        else:
            address = _address(port.host)
            bounds = [(_key(port, number, address),) * 2 for number in range(first, last + 1)]
        found[_set_name(first)] = [
            item
            for low, high in bounds
            for item in (Item(low, comment=comment), Item(_next(high), is_end=True))
        ]
    return found


def claim(port: PublishedPort, instance: str, *, exclusive: bool) -> Iterator[Message]:
    """Yield what claims *port*, and makes the sets for that."""
    yield nfnetlink.add_table(_INET, TABLE)
    for number, (name, items) in enumerate(claims(port, instance).items(), 1):
        yield nfnetlink.add_interval_set(_INET, TABLE, name, number)
        yield from nfnetlink.add_elements(_INET, TABLE, name, items, exclusive=exclusive)


def together(
    ports: Iterable[PublishedPort], instance: str, known: set[str], *, delete: bool
) -> Iterator[Message]:
    """
    Yield what claims *ports*, or gives them up, with one message for each set.

    Args:
        ports: All.
        instance: Whose.
        known: Sets that there are, to the best of one's knowledge; those that are made are added.
        delete: Whether to give them up.
    """
    by_set: dict[str, list[Item]] = {}
    for port in ports:
        for name, items in claims(port, instance).items():
            by_set.setdefault(name, []).extend(items)
    for name, items in by_set.items():
        if delete:
            yield from nfnetlink.delete_elements(_INET, TABLE, name, items)
            continue
        if name not in known:
            known.add(name)
            yield nfnetlink.add_table(_INET, TABLE)
            yield nfnetlink.add_interval_set(_INET, TABLE, name, len(known))
        yield from nfnetlink.add_elements(_INET, TABLE, name, items, exclusive=True)


def release(port: PublishedPort, instance: str) -> Iterator[Message]:
    """Yield what gives *port* up."""
    for name, items in claims(port, instance).items():
        yield from nfnetlink.delete_elements(_INET, TABLE, name, items)


def lines(port: Resource, verb: str) -> tuple[str, ...]:
    """Return what claims or gives up *port* as lines of ``nft``, *verb* is ``add`` or ``delete``."""
    if not isinstance(port, PublishedPort) or not port.nat:
        return ()
    found = [f"nft add table inet {TABLE}"] if verb == "add" else []
    for name, items in claims(port, "").items():
        if verb == "add":
            found.append(f"nft add set inet {TABLE} {name} '{{ type ipv6_addr; flags interval; }}'")
        bounds = zip(items[::2], items[1::2], strict=True)
        texts = [f"{IPv6Address(low.key)}-{IPv6Address(_next(end.key, -1))}" for low, end in bounds]
        found.append(f"nft {verb} element inet {TABLE} {name} {{ {', '.join(texts)} }}")
    return tuple(found)


def is_claimed(nft: NetlinkSocket, port: PublishedPort, instance: str) -> bool:
    """Whether *port* is claimed as a whole, by this instance."""
    for name, items in claims(port, instance).items():
        there = {(item.key, item.is_end, _owner(item)[:8]) for item in _dump(nft, name) if not item.is_end}
        if not all((item.key, False, instance[:8]) in there for item in items if not item.is_end):
            return False
    return True


def holder(nft: NetlinkSocket, port: PublishedPort, instance: str) -> tuple[int, str] | None:
    """Return the first of the ports of *port* that another has claimed, and in words who."""
    for name, items in claims(port, instance).items():
        begin = None
        for item in sorted(_dump(nft, name), key=lambda item: (item.key, not item.is_end)):
            if item.is_end:
                if begin is not None and _overlaps(begin.key, item.key, items):
                    owner = _owner(begin)
                    number = max(port.first, int.from_bytes(begin.key[2:4], "big"))
                    if not owner.startswith(f"{instance} {port.owner}"):
                        return number, owner.partition(" ")[2] or "another instance"
                begin = None
            else:
                begin = item
    return None


def release_all(nft: NetlinkSocket, instance: str) -> None:
    """Give up all that an instance has claimed."""
    for name in nfnetlink.dump_sets(nft, _INET, TABLE) if nfnetlink.has_table(nft, _INET, TABLE) else ():
        ours: list[Item] = []
        begin = None
        for item in sorted(_dump(nft, name), key=lambda item: (item.key, not item.is_end)):
            if not item.is_end:
                begin = item if _owner(item).startswith(f"{instance} ") else None
            elif begin is not None:
                ours += (begin, item)
                begin = None
        nfnetlink.transact(nft, list(nfnetlink.delete_elements(_INET, TABLE, name, ours)))


def remove_if_empty(nft: NetlinkSocket) -> None:
    """Delete the table if nobody claims anything; a claim made meanwhile keeps it."""
    now = nfnetlink.generation(nft)
    if not nfnetlink.has_table(nft, _INET, TABLE):
        return
    if not any(_dump(nft, name) for name in nfnetlink.dump_sets(nft, _INET, TABLE)):
        nfnetlink.transact(nft, [nfnetlink.delete_table(_INET, TABLE)], generation=now)


def _overlaps(low: bytes, end: bytes, items: list[Item]) -> bool:
    """Whether the interval from *low* to before *end* overlaps one of *items*."""
    return any(low < items[n + 1].key and items[n].key < end for n in range(0, len(items), 2))


def _dump(nft: NetlinkSocket, name: str) -> list[Item]:
    try:
        return nfnetlink.dump_elements(nft, _INET, TABLE, name)
    except OSError as error:
        if error.errno == errno.ENOENT:  # no claim among these ports yet
            return []
        raise


def _buckets(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield *first* to *last* in parts that are each of one set."""
    while first <= last:
        end = min(last, first | (1 << _BITS) - 1)
        yield first, end
        first = end + 1


def _set_name(port: int) -> str:
    return f"ports-{port >> _BITS << _BITS}"


def _key(port: PublishedPort, number: int, address: bytes) -> bytes:
    return bytes([port.version, PROTOCOLS[port.proto]]) + number.to_bytes(2, "big") + address


def _address(address: str) -> bytes:
    if ":" not in address:
        return bytes(8) + socket.inet_pton(socket.AF_INET, address)
    return hashlib.sha256(socket.inet_pton(socket.AF_INET6, address)).digest()[:12]


def _next(key: bytes, by: int = 1) -> bytes:
    return (int.from_bytes(key, "big") + by).to_bytes(len(key), "big")


def _comment(text: str) -> bytes:
    packed = text.encode()[:_MOST_COMMENT] + b"\0"
    return bytes([_COMMENT, len(packed)]) + packed


def _owner(item: Item) -> str:
    return item.comment[2:].rstrip(b"\0").decode(errors="replace")
