"""Networks: subnets, and what a driver says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.specs._convert import made_of, to_addresses, to_labels
from pynetwork.types import Scope, check_name, parse_address, parse_each, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.types import IPAddress, IPNetwork

__all__ = ["DEFAULT_GATEWAY", "Capabilities", "NetworkSpec", "Subnet"]

O = TypeVar("O")  # noqa: E741 - "options"; the one type parameter of networks and drivers

#: Auxiliary addresses of these names replace the gateway as next hop of the default route, as in
#: libnetwork: the router of an existing LAN, say.
DEFAULT_GATEWAY = MappingProxyType({4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"})


def _subnets(values: Iterable[object]) -> tuple[Subnet, ...]:
    return parse_each("subnets", values, Subnet.parse) if values else ()


def _gateway(value: object) -> IPAddress | None:
    return None if value is None else parse_address(value, "gateway")


def _sub_pool(value: object) -> IPNetwork | None:
    return None if value is None else parse_network(value, "sub-pool")


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
            return made_of(cls, (), value)
        return cls(value)


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
        host_gateway: Whether its networks have no gateway of their own: their way out, and the ports they
            publish, are those of the host's gateway network (libnetwork's ``docker_gwbridge``).
    """

    scope: Scope = Scope.LOCAL
    addressed: bool = True
    singleton: bool = False
    host_sandbox: bool = False
    max_subnets: int = 1
    host_gateway: bool = False


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
        host_gateway: Its way out, and the ports it publishes, are those of the gateway network of each host.
        system: It is a host's gateway network: made along with what needs it, in nobody's list, and without
            a name of its own.
        dns: Name servers of its sandboxes, where these have none of their own.
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
    host_gateway: bool = False
    system: bool = False
    dns: tuple[IPAddress, ...] = attrs.field(default=(), converter=to_addresses)
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=to_labels, hash=False)
    created: float = 0.0
