"""What a sandbox can resolve: looking names up in its networks, in turn, and preparing the answers."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pynetwork.dns import codec
from pynetwork.dns.codec import AAAA, ANY, PTR, SRV, A

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pynetwork.dns.codec import Body, Question, Record
    from pynetwork.dns.zone import Member, Zone
    from pynetwork.types import IPAddress

__all__ = ["TTL", "Prepared", "View"]

#: Seconds that an answer may be remembered: names move with their containers.
TTL: Final = 1
_ORDERS: Final = 16  # that the addresses of a name are given in
_BYTES_MAX: Final = 1 << 18  # of what is prepared for all that are alike
_OVERHEAD: Final = 200  # of bytes and tables, for each
_PROTOCOLS: Final = {b"_tcp": "tcp", b"_udp": "udp", b"_sctp": "sctp"}
_ROOT: Final = b"\0"

#: An answer after its id; or several that say the same in different orders.
Prepared: TypeAlias = "bytes | tuple[bytes, ...]"


class _Found(NamedTuple):
    """A name of ours: where it was found, and the endpoints that it stands for, perhaps none."""

    apex: bytes
    zone: Zone | None = None
    members: tuple[Member, ...] = ()
    is_reverse: bool = False
    exists: bool = True


class _Said(NamedTuple):
    """Records, those that whoever asks for them wants next, and whether there is such a name at all."""

    records: Sequence[Record] = ()
    more: Sequence[Record] = ()
    exists: bool = True


class _Service(NamedTuple):
    """What ``_http._tcp.web`` asks for (RFC 2782); the port None when it is unknown, 0 for any."""

    name: bytes
    proto: str | None
    port: int | None


class View:
    """
    The names of some networks, the first of which counts most.

    Args:
        zones: The networks' zones, each with the names that only its endpoint knows (links).

    Attributes:
        cache: Questions, as they are on the wire after their id, to prepared answers. Emptied by a zone
            that changes.
    """

    def __init__(self, zones: Sequence[tuple[Zone, Mapping[bytes, bytes]]]) -> None:
        self.cache: dict[bytes, Prepared] = {}
        self._bodies: dict[tuple[object, ...], tuple[Body, ...]] = {}
        self._bytes = 0
        self._zones = tuple(zones)
        self._random = Random(os.urandom(8))  # noqa: S311 - nothing depends on nobody's guessing the order

    def bodies(self, question: Question, limit: int) -> tuple[Body, ...] | None:
        """
        Return what is answered, in several orders if there are several answers; None: the name is not ours.

        Args:
            question: What is asked; of its name only the letters matter, not their case.
            limit: Bytes that the message may have.
        """
        if question.klass != codec.IN:
            return None
        key = (question.key, question.type, question.edns, question.dnssec, limit)
        known = self._bodies.get(key)
        if known is not None:
            return known
        service = _service(question)
        found = self._find(service.name, question.type)
        if found is None:
            return None
        made = self._made(question, limit, _said(question, service, found), found.apex)
        self._count(sum(len(body.records) + _OVERHEAD for body in made))
        self._bodies[key] = made
        return made

    def remember(self, question: bytes, replies: tuple[bytes, ...]) -> None:
        """Keep *replies*, without their id, for the next who asks the very same."""
        self._count(sum(len(reply) + _OVERHEAD for reply in replies))
        self.cache[question] = replies if len(replies) > 1 else replies[0]

    def forget(self) -> None:
        """Forget what was prepared: names have changed."""
        self.cache.clear()
        self._bodies.clear()
        self._bytes = 0

    def _count(self, more: int) -> None:
        """Make room for so many bytes: who draws random names or cases could ask for any number."""
        if self._bytes + more > _BYTES_MAX:
            self.forget()
        self._bytes += more

    def _made(self, question: Question, limit: int, said: _Said, apex: bytes) -> tuple[Body, ...]:
        if said.records:
            orders = self._orders(said.records)
            return tuple(
                codec.prepare(question, limit=limit, answers=order, additional=said.more) for order in orders
            )
        rcode = codec.NOERROR if said.exists else codec.NXDOMAIN
        authority = (codec.soa_record(apex, TTL),)
        return (codec.prepare(question, limit=limit, rcode=rcode, authority=authority),)

    def _orders(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Yield *records* in several random orders, each of them first in turn unless they are very many."""
        shuffled = self._random.sample(records, len(records))
        for first in range(min(len(shuffled), _ORDERS)):
            rest = shuffled[:first] + shuffled[first + 1 :]
            self._random.shuffle(rest)
            yield [shuffled[first], *rest]

    def _find(self, name: bytes, wanted: int) -> _Found | None:
        """Find a name as it stands, or without the name of a network at its end."""
        for zone, _ in self._zones:
            members = zone.reverse.get(name)
            if members is not None:
                return _Found(name, zone, members, is_reverse=True)
        found = self._find_in(name, wanted, self._zones)
        if found is not None:
            return found._replace(apex=name)
        unknown = None
        for start in _labels(name):
            suffix = name[start:]
            zones = [each for each in self._zones if each[0].suffix == suffix != _ROOT]
            if zones:
                found = self._find_in(name[:start] + _ROOT, wanted, zones) if start else None
                if found is not None:
                    return found
                unknown = unknown or _Found(suffix, exists=not start)
        return unknown

    def _find_in(
        self, name: bytes, wanted: int, zones: Sequence[tuple[Zone, Mapping[bytes, bytes]]]
    ) -> _Found | None:
        """Return who is called *name* in the first network where that has what is *wanted*."""
        known = None
        for zone, links in zones:
            members = zone.names.get(links.get(name, name)) or zone.names.get(name)
            if members:
                found = _Found(zone.suffix, zone, members)
                if wanted not in {A, AAAA} or any(True for _ in _addresses(found.members, wanted)):
                    return found
                known = known or found
        return known


def _said(question: Question, service: _Service, found: _Found) -> _Said:
    """Return what is said of a name that was found."""
    zone, kind = found.zone, question.type
    if zone is None:
        return _Said(exists=found.exists and service.port == 0)
    if found.is_reverse:
        names = {_full_name(member, zone): None for member in found.members if kind in {PTR, ANY}}
        return _Said([codec.ptr_record(name, TTL) for name in names])
    if service.proto is None and kind != SRV:
        addresses = dict.fromkeys(_addresses(found.members, kind))
        return _Said([codec.address_record(address, TTL) for address in addresses])
    chosen = [
        (member, port)
        for member in found.members
        for proto, port in member.ports
        if service.proto in {None, proto} and service.port in {0, port}
    ]
    if kind not in {SRV, ANY}:
        return _Said(exists=bool(chosen))
    more = [
        codec.address_record(address, TTL, _full_name(member, zone))
        for member in dict.fromkeys(member for member, _ in chosen)
        for address in member.addresses
    ]
    records = [codec.srv_record(_full_name(member, zone), port, TTL) for member, port in chosen]
    return _Said(records, more, exists=bool(chosen) or service.proto is None)


def _addresses(members: Sequence[Member], kind: int) -> Iterator[IPAddress]:
    for member in members:
        for address in member.addresses:
            if kind in {ANY, A if address.version == 4 else AAAA}:
                yield address


def _full_name(member: Member, zone: Zone) -> bytes:
    """Return the name that means the same in all of a network's sandboxes."""
    whole = member.name[:-1] + zone.suffix
    return whole if len(whole) <= codec.NAME_MAX else member.name


def _labels(name: bytes) -> Iterator[int]:
    """Yield where the labels of a name begin."""
    at = 0
    while name[at]:
        yield at
        at += 1 + name[at]


def _service(question: Question) -> _Service:
    """Take ``_port._proto`` off the front of a name: the port's number, or its name in services(5)."""
    key = question.key
    if not key.startswith(b"_", 1):
        return _Service(key, None, 0)
    starts = list(_labels(key))
    labels = [key[start + 1 : start + 1 + key[start]] for start in starts[:2]]
    proto = _PROTOCOLS.get(labels[-1]) if len(starts) > 2 else None
    if proto is None:
        return _Service(key, None, 0)
    text = labels[0][1:].decode("ascii", "replace")
    port = int(text) if text.isascii() and text.isdigit() else None
    if port is None:
        with suppress(OSError, ValueError):
            port = socket.getservbyname(text, proto)
    return _Service(key[starts[2] :], proto, port or None)
