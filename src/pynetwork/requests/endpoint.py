"""Drafting an endpoint: its addresses, its MAC, its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import ConflictError, InvalidValueError
from pynetwork.ports import PortBinding
from pynetwork.records import record
from pynetwork.requests.addresses import release_addresses, take_addresses
from pynetwork.requests.common import join_scope, network_scope, ports_of
from pynetwork.requests.membership import leave
from pynetwork.requests.ports import choose_ports
from pynetwork.specs import DEFAULT_GATEWAY, EndpointSpec, StaticRoute
from pynetwork.store import Delete, PrefixUnchanged, Put
from pynetwork.types import (
    CLUSTER_SPACE,
    check_interface_name,
    check_labels,
    check_name,
    new_id,
    parse_address,
    parse_each,
    parse_interface,
    parse_mac,
    random_mac,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.records import AnyNetworkSpec
    from pynetwork.types import IPAddress, IPInterface

__all__ = ["EndpointRequest", "delete_endpoint"]

_LINK_LOCAL_PREFIX = {4: 16, 6: 64}  # RFC 3927, RFC 4291 section 2.5.6
_SYSCTL = re.compile(r"net(\.[a-z0-9_-]+){2,}\.IFNAME(\.[a-z0-9_-]+)+\Z")


def _wanted(values: Iterable[object]) -> tuple[IPAddress, ...]:
    return parse_each("addresses", values, _only_address)


def _only_address(value: object) -> IPAddress:
    text = str(value)
    return parse_interface(text).ip if "/" in text else parse_address(value)


def _link_local(values: Iterable[object]) -> tuple[IPInterface, ...]:
    found = parse_each("link-local addresses", values, _one_link_local)
    _check_distinct("link-local address", [interface.ip for interface in found])
    return found


def _one_link_local(value: object) -> IPInterface:
    address = _only_address(value)
    if not address.is_link_local:
        msg = f"invalid link-local address {value}: it is not link-local unicast"
        raise InvalidValueError(msg)
    given = "/" in str(value)
    return parse_interface(value if given else f"{address}/{_LINK_LOCAL_PREFIX[address.version]}")


def _check_distinct(what: str, values: Sequence[object]) -> None:
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        msg = f"invalid {what} {twice}: it is given twice"
        raise InvalidValueError(msg)


def _mac(value: object) -> str | None:
    return None if value is None else parse_mac(value)


def _interface(value: object) -> str | None:
    return None if value is None else check_interface_name(value)


def _name(value: object) -> str:
    return check_name("endpoint", value)


def _aliases(values: Iterable[object]) -> tuple[str, ...]:
    found = parse_each("aliases", values, partial(check_name, "alias"))
    return tuple(dict.fromkeys(found))


def _routes(values: Iterable[object]) -> tuple[StaticRoute, ...]:
    routes = parse_each("routes", values, StaticRoute.parse)
    _check_distinct("route to", [route.dst for route in routes])
    for route in routes:
        if not route.dst.prefixlen:
            msg = (
                f"invalid route to {route.dst}: default routes come from the network, through its gateway "
                f"or its auxiliary address {DEFAULT_GATEWAY[route.dst.version]!r}"
            )
            raise InvalidValueError(msg)
    return routes


def _sysctls(value: Mapping[str, object]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        msg = f"invalid interface settings {value!r}: a dict of name to value is expected"
        raise InvalidValueError(msg)
    for name, setting in value.items():
        if not isinstance(name, str) or not _SYSCTL.match(name):
            msg = f"invalid interface setting {name!r}: net.X.Y.IFNAME.Z is expected, IFNAME to the letter"
            raise InvalidValueError(msg)
        if isinstance(setting, bool) or not isinstance(setting, str | int) or not str(setting).isprintable():
            msg = f"invalid value {setting!r} of interface setting {name}: text or a number is expected"
            raise InvalidValueError(msg)
    return {name: str(setting) for name, setting in value.items()}


def _ports(values: Iterable[object]) -> tuple[PortBinding, ...]:
    return parse_each("ports", values, PortBinding.parse)


def _exposed(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parse_each("exposed ports", values, _one_exposed)))


def _one_exposed(value: object) -> str:
    port = PortBinding.parse(value)
    if port != PortBinding(proto=port.proto, first=port.first, last=port.last):
        msg = f"invalid exposed port {str(value)!r}: PORT[-END][/PROTO] is expected"
        raise InvalidValueError(msg)
    return str(port)


def _links(value: Mapping[str, str] | None) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        msg = f"invalid links {value!r}: a dict of alias to the name of an endpoint is expected"
        raise InvalidValueError(msg)
    return {check_name("link", alias): check_name("endpoint", name) for alias, name in value.items()}


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"invalid priority {value!r}: a whole number is expected"
        raise InvalidValueError(msg)
    return value


@attrs.frozen(kw_only=True)
class EndpointRequest:
    """
    The arguments of :meth:`Network.create_endpoint`, checked, and how an endpoint is made of them.

    The fields are that method's; *network*, the network's id; and *identity*, the id that it shall have.
    """

    network: str
    name: str = attrs.field(converter=_name)
    addresses: tuple[IPAddress, ...] = attrs.field(converter=_wanted)
    mac: str | None = attrs.field(converter=_mac)
    interface: str | None = attrs.field(converter=_interface)
    link_local: tuple[IPInterface, ...] = attrs.field(converter=_link_local)
    aliases: tuple[str, ...] = attrs.field(converter=_aliases)
    exposed: tuple[str, ...] = attrs.field(converter=_exposed)
    links: Mapping[str, str] = attrs.field(converter=_links)
    routes: tuple[StaticRoute, ...] = attrs.field(converter=_routes)
    sysctls: Mapping[str, str] = attrs.field(converter=_sysctls)
    ports: tuple[PortBinding, ...] = attrs.field(converter=_ports)
    priority: int = attrs.field(converter=_priority)
    labels: Mapping[str, str] = attrs.field(converter=check_labels)
    identity: str | None = None

    def build(self, core: Core, draft: Draft) -> str:
        """Draft the endpoint; returns its id."""
        network = core.network(self.network).spec
        draft.what = f"create endpoint {self.name!r} in network {network.name!r}"
        owner = f"endpoint/{network.id}"
        if core.records.named(owner, self.name) is not None:
            msg = f"endpoint with name {self.name!r} already exists in network {network.name!r}"
            raise ConflictError(msg)
        mac = self._choose_mac(core, draft, network)
        addresses = self._allocate(core, draft, network, mac)
        spec = EndpointSpec(
            id=self.identity or new_id(core.surroundings.random),
            name=self.name,
            network=network.id,
            addresses=addresses,
            mac=mac,
            announce=any(
                core.allocations.was_used(network.ipam, network.space, address.ip) for address in addresses
            ),
            link_local=self.link_local,
            aliases=self.aliases,
            exposed=self.exposed,
            links=self.links,
            routes=self.routes,
            sysctls=self.sysctls,
            priority=self.priority,
            labels=self.labels,
            interface=self.interface,
            fixed_interface=self.interface is not None,
            created=core.surroundings.clock(),
        )
        choose_ports(core, draft, spec, self.ports)
        draft.undisturbed.add(network_scope(network.id))
        draft.reserve(Put(f"name/{owner}/{spec.name}", spec.id))
        draft.operations.append(record(f"{owner}/{spec.id}", spec))
        return spec.id

    def _choose_mac(self, core: Core, draft: Draft, network: AnyNetworkSpec) -> str:
        if self.mac is None:
            return random_mac(core.surroundings.random)
        draft.compares.append(PrefixUnchanged(f"endpoint/{network.id}/", core.engine.mirror.revision))
        for row in core.records.endpoints.values():
            if row.spec.network == network.id and row.spec.mac == self.mac:
                msg = f"MAC address {self.mac} is in use by endpoint {row.spec.name!r}"
                raise ConflictError(msg)
        return self.mac

    def _allocate(
        self, core: Core, draft: Draft, network: AnyNetworkSpec, mac: str
    ) -> tuple[IPInterface, ...]:
        """Take one address of each family that the network has."""
        if network.space == CLUSTER_SPACE:
            return self._held(network)
        return take_addresses(core, draft, network, mac, self.addresses)

    def _held(self, network: AnyNetworkSpec) -> tuple[IPInterface, ...]:
        """Return the addresses asked for, which are the endpoint's own in the whole cluster."""
        return tuple(
            parse_interface(f"{address}/{subnet.network.prefixlen}")
            for address in self.addresses
            for subnet in network.subnets
            if address in subnet.network
        )


def delete_endpoint(core: Core, draft: Draft, identity: str, *, force: bool = False) -> None:
    """
    Draft the end of an endpoint and the release of its addresses.

    Args:
        core: The instance.
        draft: To fill in.
        identity: The endpoint's id.
        force: Leave its sandbox first, if it is in one.
    """
    row = core.endpoint(identity)
    spec = row.spec
    draft.undisturbed.add(join_scope(identity))
    if spec.sandbox is None:
        draft.rely_on(row.key, row.revision)
    elif force:
        leave(core, draft, identity)
    else:
        sandbox = core.sandbox(spec.sandbox).spec.name
        msg = f"endpoint with name {spec.name!r} is active: it is joined to sandbox {sandbox!r}"
        raise ConflictError(msg)
    draft.what = f"delete endpoint {spec.name!r}"
    network = core.network(spec.network).spec
    if network.space != CLUSTER_SPACE:
        release_addresses(core, draft, network, spec)
    draft.on_commit += (Delete(port.key) for port in ports_of(core, draft, identity))
    draft.on_commit += (Delete(f"name/endpoint/{spec.network}/{spec.name}"), Delete(row.key))
