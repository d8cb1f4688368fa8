"""Endpoints: their routes and their ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.ports import PortBinding
from pynetwork.specs._convert import made_of, to_addresses, to_interfaces, to_labels, to_names
from pynetwork.types import check_interface_name, parse_address, parse_each, parse_mac, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.types import IPAddress, IPInterface, IPNetwork

__all__ = ["EndpointSpec", "PortSpec", "StaticRoute"]


def _routes(values: Iterable[object]) -> tuple[StaticRoute, ...]:
    return parse_each("routes", values, StaticRoute.parse) if values else ()


def _versions(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _binding(value: Any) -> PortBinding:  # noqa: ANN401 - a record's field
    return PortBinding(**value) if isinstance(value, dict) else value


def _destination(value: object) -> IPNetwork:
    return parse_network(value, "route destination")


def _next_hop(value: object) -> IPAddress | None:
    return None if value is None else parse_address(value, "next hop")


def _interface_name(value: object) -> str | None:
    return None if value is None else check_interface_name(value)


@attrs.frozen
class StaticRoute:
    """
    A route that an endpoint brings into its sandbox.

    Args:
        dst: Destination network.
        via: Next hop; None means the destination is on the link itself.
    """

    dst: IPNetwork = attrs.field(converter=_destination)
    via: IPAddress | None = attrs.field(default=None, converter=_next_hop)

    def __attrs_post_init__(self) -> None:
        """Refuse a next hop of the other family."""
        if self.via is not None and self.via.version != self.dst.version:
            msg = f"invalid route to {self.dst}: next hop {self.via} is of the other address family"
            raise InvalidValueError(msg)

    @classmethod
    def parse(cls, value: object) -> StaticRoute:
        """Return *value*, a StaticRoute, its fields, a CIDR, or CIDR and next hop, as a StaticRoute."""
        if isinstance(value, cls):
            return value
        if isinstance(value, dict):
            return made_of(cls, (), value)
        return made_of(cls, value, {}) if isinstance(value, tuple | list) else cls(value)


@attrs.frozen(kw_only=True)
class EndpointSpec:
    """
    An endpoint: a network's address and interface for one sandbox at a time.

    Args:
        id: 32 hexadecimal digits.
        name: Unique in its network.
        network: The network's id.
        addresses: Allocated, with prefix length; at most one of each subnet.
        mac: Of the interface in the sandbox.
        link_local: Further addresses of link scope.
        aliases: Further names in its network.
        exposed: Ports it serves, ``80/tcp``, or ``8000-8010/udp``; those it publishes need not be named.
        links: Names that only its sandbox knows, to the names of endpoints of its network.
        routes: Brought into the sandbox.
        sysctls: Settings of the interface: ``net.X.Y.IFNAME.Z`` to value.
        announce: Whether neighbours may remember its addresses with another MAC.
        priority: The sandbox's default gateway is that of its endpoint of highest priority.
        labels: The caller's.
        interface: Name in the sandbox: asked for, or chosen at join.
        fixed_interface: Whether the name was asked for.
        link: Name of the host's end while joined, chosen at join.
        sandbox: The sandbox's id while joined.
        joined: Revision of the store when it joined: orders the endpoints of a sandbox by age.
        default_via: Next hops of the default routes this endpoint owns in its sandbox.
        system: It is what a sandbox has in the host's gateway network: it comes and goes with what needs it.
        created: Seconds since the epoch.
    """

    id: str
    name: str
    network: str
    addresses: tuple[IPInterface, ...] = attrs.field(default=(), converter=to_interfaces)
    mac: str = attrs.field(converter=parse_mac)
    link_local: tuple[IPInterface, ...] = attrs.field(default=(), converter=to_interfaces)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=to_names)
    exposed: tuple[str, ...] = attrs.field(default=(), converter=to_names)
    links: Mapping[str, str] = attrs.field(factory=dict, converter=to_labels, hash=False)
    routes: tuple[StaticRoute, ...] = attrs.field(default=(), converter=_routes)
    sysctls: Mapping[str, str] = attrs.field(factory=dict, converter=to_labels, hash=False)
    announce: bool = False
    priority: int = 0
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=to_labels, hash=False)
    interface: str | None = attrs.field(default=None, converter=_interface_name)
    fixed_interface: bool = False
    link: str | None = None
    sandbox: str | None = None
    joined: int = 0
    default_via: tuple[IPAddress, ...] = attrs.field(default=(), converter=to_addresses)
    system: bool = False
    created: float = 0.0

    def address(self, version: int) -> IPInterface | None:
        """Return its address of family *version* (4 or 6), if it has one."""
        return next((address for address in self.addresses if address.version == version), None)


@attrs.frozen(kw_only=True)
class PortSpec:
    """
    A published port of an endpoint, in force while that is joined.

    Args:
        id: 16 hexadecimal digits, those of an endpoint in the order they were asked for.
        endpoint: The endpoint's id.
        binding: What is published, its host port chosen.
        versions: Address families, 4 and 6, that the host's port is taken in.
    """

    id: str
    endpoint: str
    binding: PortBinding = attrs.field(converter=_binding)
    versions: tuple[int, ...] = attrs.field(default=(), converter=_versions)
