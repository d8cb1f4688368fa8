"""Endpoints on other hosts: what is known of each, and what that amounts to for whoever forwards to them.

They come and go without requests of this host, so they are no resources of a plan. A datapath is told of
each change, and compared as a whole now and then, through :class:`Peers`; the changes are worked out by
:class:`PeerTable`, for one record at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs

from pynetwork.types import parse_address, parse_each, parse_mac

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from pynetwork.types import IPAddress

__all__ = ["Change", "Entry", "Flood", "Peer", "PeerTable", "Peers", "Reach", "Resolve", "Slot", "Underlay"]

#: What can be one thing at a time: where a MAC is, whose an address is, whether a host gets a copy.
Slot: TypeAlias = tuple[str, str]


def _addresses(values: Iterable[object]) -> tuple[IPAddress, ...]:
    return parse_each("addresses", values, parse_address)


def _names(values: Iterable[object]) -> tuple[str, ...]:
    return parse_each("names", values, str)


@attrs.frozen(kw_only=True)
class Peer:
    """
    An endpoint that is joined, as its host announces it.

    Args:
        host: Name of the host.
        vtep: Address that frames for it are sent to, of that host.
        mac: Its MAC address.
        addresses: Its addresses, without prefix length.
        name: Its name in the network.
        aliases: Its further names there.
    """

    host: str
    vtep: IPAddress = attrs.field(converter=parse_address)
    mac: str = attrs.field(converter=parse_mac)
    addresses: tuple[IPAddress, ...] = attrs.field(default=(), converter=_addresses)
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
    """

    vtep: IPAddress = attrs.field(converter=parse_address)
    mtu: int
    port: int = 4789

    @property
    def overhead(self) -> int:
        """Bytes that VXLAN adds: inner Ethernet, VXLAN, UDP and IP headers."""
        return 14 + 8 + 8 + (20 if self.vtep.version == 4 else 40)

    @property
    def room(self) -> int:
        """The largest MTU of what is sent through it, bytes."""
        return self.mtu - self.overhead


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


@attrs.frozen
class _Claim:
    """What an endpoint wants of a slot, from *revision* of the store on; None: it is on this very host."""

    revision: int
    entry: Entry | None


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
    _slots: dict[str, tuple[Slot, ...]] = attrs.field(factory=dict, init=False)
    _peers: dict[str, tuple[Peer, int]] = attrs.field(factory=dict, init=False)

    @property
    def peers(self) -> dict[str, tuple[Peer, int]]:
        """The endpoints by id, each with the revision of its record."""
        return dict(self._peers)

    def entries(self) -> Iterator[Entry]:
        """Return all entries."""
        return (entry for slot in self._claims if (entry := self._winner(slot)) is not None)

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
        claims = {} if peer is None else dict(self._claimed(peer, revision))
        touched = dict.fromkeys((*self._slots.get(endpoint, ()), *claims))
        before = {slot: self._winner(slot) for slot in touched}
        for slot in self._slots.pop(endpoint, ()):
            del self._claims[slot][endpoint]
        for slot, claim in claims.items():
            self._claims.setdefault(slot, {})[endpoint] = claim
        self._peers.pop(endpoint, None)
        if peer is not None:
            self._slots[endpoint] = tuple(claims)
            self._peers[endpoint] = (peer, revision)
        after = {slot: self._winner(slot) for slot in touched}
        for slot in touched:
            if not self._claims[slot]:
                del self._claims[slot]
        changed = [slot for slot in touched if before[slot] != after[slot]]
        return Change(
            put=tuple(entry for slot in changed if (entry := after[slot]) is not None),
            drop=tuple(e for slot in changed if (e := before[slot]) is not None and after[slot] is None),
        )

    def _claimed(self, peer: Peer, revision: int) -> Iterator[tuple[Slot, _Claim]]:
        vtep = str(peer.vtep)
        entries: list[Entry] = [Reach(peer.mac, vtep)]
        entries += (Resolve(str(address), peer.mac) for address in peer.addresses)
        if self.flood and peer.host != self.host:
            entries.append(Flood(vtep))
        for entry in entries:
            yield entry.slot, _Claim(revision, None if peer.host == self.host else entry)

    def _winner(self, slot: Slot) -> Entry | None:
        claims: Sequence[_Claim] = tuple(self._claims.get(slot, {}).values())
        if not claims or any(claim.entry is None for claim in claims):
            return None
        return max(claims, key=lambda claim: claim.revision).entry
