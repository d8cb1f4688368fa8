"""Addresses, neighbours and routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.resources.base import Effect, Resource, inside, link_key, netns_keys

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pynetwork.resources.base import Key

__all__ = ["Address", "Announce", "ForgetNeighbour", "Neighbour", "Route"]


@attrs.frozen(kw_only=True)
class Announce(Effect):
    """
    Tell the neighbours of an interface where an address is now: gratuitous ARP (RFC 5227 section
    3), unsolicited neighbour advertisement (RFC 4861 section 7.2.6).

    Args:
        netns: Path of the namespace.
        dev: The interface.
        address: IPv4 or IPv6 address.
    """

    kind = "announce"

    netns: str
    dev: str
    address: str

    @property
    def key(self) -> Key:
        return ("announce", self.netns, self.dev, self.address)

    def render(self) -> tuple[str, ...]:
        if ":" in self.address:
            return (f"{inside(self.netns)}ndsend {self.address} {self.dev}",)
        return (f"{inside(self.netns)}arping -c 1 -U -I {self.dev} {self.address}",)

    def render_delete(self) -> tuple[str, ...]:
        return ()


@attrs.frozen(kw_only=True)
class ForgetNeighbour(Effect):
    """
    Forget which MAC the host knows for an address: the next to have it has another.

    While the host asks the old one in vain, which takes seconds, it does not heed the new one's requests
    (arp(7), ``locktime``).

    Args:
        dev: The interface of the host.
        address: IPv4 or IPv6 address.
    """

    kind = "forget_neighbour"

    dev: str
    address: str = attrs.field(converter=str)

    @property
    def key(self) -> Key:
        return ("forget_neighbour", self.dev, self.address)

    def render(self) -> tuple[str, ...]:
        return (f"ip neighbour delete {self.address} dev {self.dev}",)

    def render_delete(self) -> tuple[str, ...]:
        return ()


_DEFAULT_METRIC = {False: 0, True: 1024}  # of IPv4 and IPv6 routes that are given none


def _lost_address(what: str, netns: str | None, dev: str, gone: AbstractSet[Key]) -> bool:
    """Return whether an IPv4 address of the link went: the last one takes routes and neighbours along."""
    return ":" not in what and any(
        key[:3] == ("address", netns, dev) and ":" not in str(key[3]) for key in gone
    )


@attrs.frozen(kw_only=True)
class Address(Resource):
    """
    An IPv4 or IPv6 address of an interface; IPv6 without duplicate address detection.

    Args:
        netns: Path of the namespace; None is the host's.
        dev: The interface.
        cidr: Address and prefix length, ``10.88.0.2/24``, in canonical text.
        adopt: Take one that exists as it is, and leave it behind on deletion unless it is ours.
        announce: Tell the neighbours, who may know it of another interface.
    """

    kind = "address"
    rank = 50

    netns: str | None = None
    dev: str
    cidr: str = attrs.field(converter=str)
    adopt: bool = False
    announce: bool = attrs.field(default=False, eq=False)

    @property
    def key(self) -> Key:
        return ("address", self.netns, self.dev, self.cidr)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.dev), *netns_keys(self.netns))

    def effects(self) -> tuple[Effect, ...]:
        if self.netns is None or not self.announce:
            return ()
        return (Announce(netns=self.netns, dev=self.dev, address=self.cidr.partition("/")[0]),)

    def render(self) -> tuple[str, ...]:
        nodad = " nodad" if ":" in self.cidr else ""
        return (f"{inside(self.netns)}ip address add {self.cidr} dev {self.dev}{nodad}",)

    def render_delete(self) -> tuple[str, ...]:
        return (f"{inside(self.netns)}ip address delete {self.cidr} dev {self.dev}",)


@attrs.frozen(kw_only=True)
class Neighbour(Resource):
    """
    A permanent ARP or neighbour discovery entry.

    Args:
        netns: Path of the namespace; None is the host's.
        dev: The interface.
        address: IPv4 or IPv6 address, canonical text.
        mac: Its MAC (``lladdr``).
    """

    kind = "neighbour"
    rank = 70
    mutable = frozenset({"mac"})

    netns: str | None = None
    dev: str
    address: str = attrs.field(converter=str)
    mac: str

    @property
    def key(self) -> Key:
        return ("neighbour", self.netns, self.dev, self.address)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.dev), *netns_keys(self.netns))

    def after(self, gone: AbstractSet[Key]) -> Resource | None:
        return None if _lost_address(self.address, self.netns, self.dev, gone) else super().after(gone)

    def _line(self, verb: str) -> str:
        return (
            f"{inside(self.netns)}ip neighbour {verb} {self.address} lladdr {self.mac} "
            f"dev {self.dev} nud permanent"
        )

    def render(self) -> tuple[str, ...]:
        return (self._line("add"),)

    def render_delete(self) -> tuple[str, ...]:
        return (f"{inside(self.netns)}ip neighbour delete {self.address} dev {self.dev}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - replace finds it by its key
        return (self._line("replace"),)


@attrs.frozen(kw_only=True)
class Route(Resource):
    """
    A route in the main table.

    Args:
        netns: Path of the namespace; None is the host's.
        dst: Destination network, canonical text; ``0.0.0.0/0`` and ``::/0`` are the defaults.
        via: Next hop; None for a destination on the link itself (scope link).
        dev: Outgoing interface.
        metric: Priority, lower wins; None is the kernel's choice (0 for IPv4, 1024 for IPv6).
    """

    kind = "route"
    rank = 80
    mutable = frozenset({"via", "dev"})

    netns: str | None = None
    dst: str = attrs.field(converter=str)
    via: str | None = attrs.field(default=None, converter=attrs.converters.optional(str))
    dev: str
    metric: int | None = None

    @property
    def key(self) -> Key:
        metric = _DEFAULT_METRIC[":" in self.dst] if self.metric is None else self.metric
        return ("route", self.netns, self.dst, str(metric))

    @property
    def order(self) -> int:
        # A next hop may be reached through a route of its own.
        return self.rank + (self.via is not None)

    def after(self, gone: AbstractSet[Key]) -> Resource | None:
        return None if _lost_address(self.dst, self.netns, self.dev, gone) else super().after(gone)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.dev), *netns_keys(self.netns))

    def _line(self, verb: str) -> str:
        via = f" via {self.via}" if self.via else ""
        metric = "" if self.metric is None else f" metric {self.metric}"
        return f"{inside(self.netns)}ip route {verb} {self.dst}{via} dev {self.dev}{metric}"

    def render(self) -> tuple[str, ...]:
        return (self._line("add"),)

    def render_delete(self) -> tuple[str, ...]:
        return (self._line("delete"),)

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - replace finds it by its key
        return (self._line("replace"),)
