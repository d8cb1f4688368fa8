"""Endpoints on other hosts: what is known of each, and what that amounts to for whoever forwards to them.

They come and go without requests of this host, so they are no resources of a plan. A datapath is told of
each change, and compared as a whole now and then, through :class:`Peers`; the changes are worked out by
:class:`PeerTable`, for one record at a time.
"""

from __future__ import annotations

import functools
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs

from pynetwork.types import parse_address, parse_mac

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pynetwork.types import IPAddress

__all__ = [
    "Admitting",
    "Change",
    "Entry",
    "Flood",
    "Peer",
    "PeerTable",
    "Peers",
    "Reach",
    "Reached",
    "Resolve",
    "Slot",
    "Underlay",
]

#: What can be one thing at a time: where a MAC is, whose an address is, whether a host gets a copy.
Slot: TypeAlias = tuple[str, str]


def _vtep(value: object) -> str:
    return _known_vtep(value)


@functools.lru_cache(maxsize=4096)  # there are many endpoints, and few hosts
def _known_vtep(value: object) -> str:
    return str(parse_address(value, "VTEP address"))


def _addresses(values: Iterable[object]) -> tuple[str, ...]:
    return tuple([str(parse_address(value)) for value in values])


def _names(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


@attrs.frozen(kw_only=True)
class Peer:
    """
    An endpoint that is joined, as its host announces it.

    Args:
        host: Name of the host.
        vtep: Address that frames for it are sent to, of that host; text, as all here, for there may be very
            many of them.
        mac: Its MAC address.
        addresses: Its addresses, without prefix length.
        name: Its name in the network.
        aliases: Its further names there.
    """

    host: str
    vtep: str = attrs.field(converter=_vtep)
    mac: str = attrs.field(converter=parse_mac)
    addresses: tuple[str, ...] = attrs.field(default=(), converter=_addresses)
    name: str = ""
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_names)


@attrs.frozen(kw_only=True)
class Underlay:
    """
    How a host reaches the others.

    Args:
        vtep: Its address, which the others send to (VTEP: VXLAN tunnel end point).
        mtu: Bytes of the interface that has it.
        port: UDP port, the same on all hosts.
        link: The interface that has it.
    """

    vtep: IPAddress = attrs.field(converter=parse_address)
    mtu: int
    port: int = 4789
    link: str = ""

    @property
    def overhead(self) -> int:
        """Bytes that VXLAN adds: inner Ethernet, VXLAN, UDP and IP headers."""
        return 14 + 8 + 8 + (20 if self.vtep.version == 4 else 40)

    @property
    def room(self) -> int:
        """The largest MTU of what is sent through it, bytes."""
        return self.mtu - self.overhead


class Reached(StrEnum):
    """What was found out about the way to another host."""

    FULL = "full"  # packets of the full size arrive
    SMALL = "small"  # only smaller ones do
    NOT = "not"  # none do


@attrs.frozen
class Reach:
    """Frames to *mac* go to the host with the address *vtep*."""

    mac: str
    vtep: str

    @property
    def slot(self) -> Slot:
        """What it is about: there is one entry of a slot."""
        return ("mac", self.mac)


@attrs.frozen
class Resolve:
    """Who asks for the IP address *address* is told *mac*, without asking on another host."""

    address: str
    mac: str

    @property
    def slot(self) -> Slot:
        """What it is about: there is one entry of a slot."""
        return ("address", self.address)


@attrs.frozen
class Flood:
    """The host with the address *vtep* gets a copy of what is for everybody."""

    vtep: str

    @property
    def slot(self) -> Slot:
        """What it is about: there is one entry of a slot."""
        return ("vtep", self.vtep)


Entry: TypeAlias = Reach | Resolve | Flood


@attrs.frozen
class Change:
    """Entries that there are now, in the place of others of their slots or not, and those that are gone."""

    put: tuple[Entry, ...] = ()
    drop: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.drop)


class Peers(Protocol):
    """A datapath, as far as endpoints on other hosts are concerned. Called from one thread at a time."""

    def apply(self, vni: int, change: Change) -> None:
        """
        Put what is new in place, then drop what is gone.

        Args:
            vni: Of the network.
            change: What became of it.

        Raises:
            OSError: Some of it could not be done, ENODEV when this host has nothing of that network.
        """
        ...

    def reconcile(self, vni: int, wanted: Collection[Entry]) -> int:
        """
        Make the entries of a network *wanted*, whatever they are.

        Returns:
            How many were missing, wrong or too many.

        Raises:
            OSError: As :meth:`apply`.
        """
        ...


class Admitting(Protocol):
    """What a datapath has as well if somebody must tell it from whom it takes packets."""

    def admit(self, port: int, members: Mapping[int, Collection[str]]) -> None:
        """
        Take packets of networks from the hosts that are in them only, as far as this can be told.

        Args:
            port: UDP port of VXLAN.
            members: VNI to the VTEPs of the other hosts that have endpoints there; empty when this host is
                in no network.

        Raises:
            UnavailableError: It cannot be told.
        """
        ...


#: What an endpoint wants of a slot, from a revision of the store on; None: it is on this very host.
_Claim: TypeAlias = "tuple[int, Entry | None]"


@attrs.define
class PeerTable:
    """
    The entries that the records of a network amount to.

    Records arrive in any order, and addresses and MACs are used again by other endpoints: of several that
    claim a slot the one with the highest revision has it. An endpoint of this host has its slots whatever
    the others say, and needs no entry.

    Args:
        host: Name of this host.
        flood: Whether other hosts get a copy of what is for everybody.
    """

    host: str
    flood: bool = False
    _claims: dict[Slot, dict[str, _Claim]] = attrs.field(factory=dict, init=False)
    _peers: dict[str, tuple[Peer, int]] = attrs.field(factory=dict, init=False)
    _vteps: Counter[str] = attrs.field(factory=Counter, init=False)
    _vteps_now: frozenset[str] | None = attrs.field(default=None, init=False)

    @property
    def vteps(self) -> frozenset[str]:
        """Where the other hosts are that have endpoints: the same object until a host comes or goes."""
        if self._vteps_now is None:
            self._vteps_now = frozenset(self._vteps)
        return self._vteps_now

    @property
    def peers(self) -> dict[str, tuple[Peer, int]]:
        """The endpoints by id, each with the revision of its record."""
        return dict(self._peers)

    def revision(self, endpoint: str) -> int | None:
        """Return the revision of the record of an endpoint by its id, None when there is none."""
        found = self._peers.get(endpoint)
        return None if found is None else found[1]

    def entries(self) -> Iterator[Entry]:
        """Return all entries."""
        return (entry for claims in self._claims.values() if (entry := _winner(claims)) is not None)

    def put(self, endpoint: str, peer: Peer | None, revision: int) -> Change:
        """
        Take in what is known of an endpoint now.

        Args:
            endpoint: Its id.
            peer: What it is; None when it is gone.
            revision: Of its record.

        Returns:
            What changes.
        """
        old = self._peers.pop(endpoint, None)
        wanted: dict[Slot, Entry] = {}
        self._count(peer, 1)
        self._count(None if old is None else old[0], -1)
        if peer is not None:
            self._peers[endpoint] = (peer, revision)
            wanted = {entry.slot: entry for entry in self._entries(peer)}
        touched = wanted
        if old is not None:
            touched = {**{entry.slot: entry for entry in self._entries(old[0])}, **wanted}
        is_here = peer is not None and peer.host == self.host
        put: list[Entry] = []
        drop: list[Entry] = []
        for slot in touched:
            entry = wanted.get(slot)
            claims = self._claims.setdefault(slot, {})
            before = _winner(claims) if claims else None
            claims.pop(endpoint, None)
            if entry is not None:
                claims[endpoint] = (revision, None if is_here else entry)
            after = _winner(claims)
            if not claims:
                del self._claims[slot]
            if after is None:
                drop += () if before is None else (before,)
            elif after != before:
                put.append(after)
        return Change(tuple(put), tuple(drop))

    def _count(self, peer: Peer | None, change: int) -> None:
        if peer is not None and peer.host != self.host:
            before = self._vteps[peer.vtep]
            self._vteps[peer.vtep] += change
            if not self._vteps[peer.vtep]:
                del self._vteps[peer.vtep]
            if not before or peer.vtep not in self._vteps:
                self._vteps_now = None

    def _entries(self, peer: Peer) -> list[Entry]:
        """Return what an endpoint claims, were it on another host."""
        mac, vtep = peer.mac, peer.vtep
        entries: list[Entry] = [Reach(mac, vtep)]
        entries += [Resolve(address, mac) for address in peer.addresses]
        if self.flood and peer.host != self.host:
            entries.append(Flood(vtep))
        return entries


def _winner(claims: dict[str, _Claim]) -> Entry | None:
    """Return the entry of a slot that endpoints claim."""
    best, found = -1, None
    for revision, entry in claims.values():
        if entry is None:
            return None
        if revision > best:
            best, found = revision, entry
    return found
