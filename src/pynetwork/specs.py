"""What was asked for, together with what was allocated for it: the input of a driver's plan.

Specs are frozen and hold no handles, sockets or kernel indexes. The same values are what the store
keeps, so a spec read back years later makes the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.ports import PortBinding
from pynetwork.types import (
    Scope,
    check_interface_name,
    check_labels,
    check_name,
    parse_address,
    parse_each,
    parse_interface,
    parse_mac,
    parse_network,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.types import IPAddress, IPInterface, IPNetwork

__all__ = [
    "Capabilities",
    "EndpointSpec",
    "NetworkSpec",
    "PortSpec",
    "SandboxSpec",
    "StaticRoute",
    "Subnet",
]

O = TypeVar("O")  # noqa: E741 - "options"; the one type parameter of networks and drivers
_T = TypeVar("_T")

#: Auxiliary addresses of these names replace the gateway as next hop of the default route, as in
#: libnetwork: the router of an existing LAN, say.
DEFAULT_GATEWAY = MappingProxyType({4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"})


def _subnets(values: Iterable[object]) -> tuple[Subnet, ...]:
    return parse_each("subnets", values, Subnet.parse) if values else ()


def _routes(values: Iterable[object]) -> tuple[StaticRoute, ...]:
    return parse_each("routes", values, StaticRoute.parse) if values else ()


def _interfaces(values: Iterable[object]) -> tuple[IPInterface, ...]:
    return parse_each("addresses", values, parse_interface) if values else ()


def _addresses(values: Iterable[object]) -> tuple[IPAddress, ...]:
    return parse_each("addresses", values, parse_address) if values else ()


def _names(values: Iterable[object]) -> tuple[str, ...]:
    return parse_each("names", values, str) if values else ()


def _made_of(cls: type[_T], values: Iterable[object], fields: Mapping[str, object]) -> _T:
    """Return a *cls*, or say which fields it has."""
    try:
        return cls(*values, **fields)
    except TypeError:
        names = ", ".join(field.name for field in attrs.fields(cast("type[Any]", cls)))
        msg = f"invalid {cls.__name__} {fields or values!r}: its fields are {names}"
        raise InvalidValueError(msg) from None


def _gateway(value: object) -> IPAddress | None:
    return None if value is None else parse_address(value, "gateway")


def _versions(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _binding(value: Any) -> PortBinding:  # noqa: ANN401 - a record's field
    return PortBinding(**value) if isinstance(value, dict) else value


def _sub_pool(value: object) -> IPNetwork | None:
    return None if value is None else parse_network(value, "sub-pool")


def _destination(value: object) -> IPNetwork:
    return parse_network(value, "route destination")


def _next_hop(value: object) -> IPAddress | None:
    return None if value is None else parse_address(value, "next hop")


def _interface_name(value: object) -> str | None:
    return None if value is None else check_interface_name(value)


def _addresses_by_name(value: Mapping[str, object]) -> Mapping[str, IPAddress]:
    if not isinstance(value, Mapping):
        msg = f"invalid auxiliary addresses {value!r}: a dict of name to address is expected"
        raise InvalidValueError(msg)
    return MappingProxyType(
        {
            check_name("auxiliary address", name): parse_address(address, "auxiliary address")
            for name, address in value.items()
        }
    )


def _labels(value: Mapping[str, str]) -> Mapping[str, str]:
    # A proxy can only come from here: it is checked already.
    return value if isinstance(value, MappingProxyType) else MappingProxyType(check_labels(value))


@attrs.frozen
class Subnet:
    """
    One subnet of a network, as asked for or as allocated.

    Args:
        network: CIDR. ``0.0.0.0/24`` and ``::/64`` ask for any free subnet of that size.
        gateway: The bridge's own address; the first free one when not given.
        sub_pool: Part of *network* that addresses are chosen from; all of it when not given.
        auxiliary: Named addresses that are never handed out (libnetwork's AuxAddresses).
    """

    network: IPNetwork = attrs.field(converter=parse_network)
    gateway: IPAddress | None = attrs.field(default=None, kw_only=True, converter=_gateway)
    sub_pool: IPNetwork | None = attrs.field(default=None, kw_only=True, converter=_sub_pool)
    auxiliary: Mapping[str, IPAddress] = attrs.field(
        factory=dict, kw_only=True, converter=_addresses_by_name, hash=False
    )

    def __attrs_post_init__(self) -> None:
        """Check what the fields say of each other; what depends on other pools is IPAM's to check."""
        inner = [
            ("gateway", self.gateway),
            *((f"auxiliary address {k}", v) for k, v in self.auxiliary.items()),
        ]
        if self.is_size_only and (self.sub_pool or any(address for _, address in inner)):
            msg = f"subnet {self.network} only asks for a size: it cannot have addresses or a sub-pool"
            raise InvalidValueError(msg)
        for what, address in inner:
            if address is not None and address not in self.network:
                msg = f"invalid {what} {address}: it is not in subnet {self.network}"
                raise InvalidValueError(msg)

    @property
    def is_size_only(self) -> bool:
        """Whether any subnet of this size will do."""
        return int(self.network.network_address) == 0 and self.network.prefixlen > 0

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network.version

    @property
    def default_via(self) -> IPAddress | None:
        """Next hop of a default route through this subnet."""
        return self.auxiliary.get(DEFAULT_GATEWAY[self.version], self.gateway)

    @classmethod
    def parse(cls, value: object) -> Subnet:
        """Return *value*, a Subnet, a CIDR or a mapping of the fields, as a Subnet."""
        if isinstance(value, cls):
            return value
        if isinstance(value, dict):
            return _made_of(cls, (), value)
        return cls(value)


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
            return _made_of(cls, (), value)
        return _made_of(cls, value, {}) if isinstance(value, tuple | list) else cls(value)


@attrs.frozen
class Capabilities:
    """
    What the controller must know of a driver before it plans.

    Args:
        scope: How far its networks reach (libnetwork's DataScope).
        addressed: Whether endpoints get addresses from IPAM.
        singleton: Whether there is one network of this type at most, which cannot be deleted
            (libnetwork's host and null).
        host_sandbox: Whether its endpoints join the host's own namespace, and only that.
        max_subnets: Subnets of one family a network may have.
    """

    scope: Scope = Scope.LOCAL
    addressed: bool = True
    singleton: bool = False
    host_sandbox: bool = False
    max_subnets: int = 1


@attrs.frozen(kw_only=True)
class NetworkSpec(Generic[O]):
    """
    A network.

    Args:
        id: 32 hexadecimal digits.
        name: Unique in its controller.
        driver: Name of its driver.
        options: The driver's own options, typed by it.
        subnets: Allocated; none for drivers without addresses.
        ipam: Name of the IPAM driver that gave them.
        space: Their address space.
        internal: No way out, no default route.
        labels: The caller's.
        created: Seconds since the epoch.
    """

    id: str
    name: str
    driver: str
    options: O
    subnets: tuple[Subnet, ...] = attrs.field(default=(), converter=_subnets)
    ipam: str = "default"
    space: str = "local"
    internal: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=_labels, hash=False)
    created: float = 0.0


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
        created: Seconds since the epoch.
    """

    id: str
    name: str
    network: str
    addresses: tuple[IPInterface, ...] = attrs.field(default=(), converter=_interfaces)
    mac: str = attrs.field(converter=parse_mac)
    link_local: tuple[IPInterface, ...] = attrs.field(default=(), converter=_interfaces)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_names)
    routes: tuple[StaticRoute, ...] = attrs.field(default=(), converter=_routes)
    sysctls: Mapping[str, str] = attrs.field(factory=dict, converter=_labels, hash=False)
    announce: bool = False
    priority: int = 0
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=_labels, hash=False)
    interface: str | None = attrs.field(default=None, converter=_interface_name)
    fixed_interface: bool = False
    link: str | None = None
    sandbox: str | None = None
    joined: int = 0
    default_via: tuple[IPAddress, ...] = attrs.field(default=(), converter=_addresses)
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


@attrs.frozen(kw_only=True)
class SandboxSpec:
    """
    A sandbox: the network stack of one container.

    Args:
        id: 32 hexadecimal digits.
        name: Unique in its controller.
        netns: Path of the file that pins its namespace; None is the host's own namespace.
        adopted: Path of the namespace it was made over, when that was someone else's.
        hostname: The container's own name.
        labels: The caller's.
        created: Seconds since the epoch.
    """

    id: str
    name: str
    netns: str | None = None
    adopted: str | None = None
    hostname: str | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=_labels, hash=False)
    created: float = 0.0
