"""Choosing the host ports of what an endpoint publishes, so that no two endpoints have the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from pynetwork.errors import ConflictError, ExhaustedError, InvalidValueError, PortTakenError
from pynetwork.port_index import PortIndex
from pynetwork.records import record
from pynetwork.requests.common import driver_of, port_key, ports_of
from pynetwork.specs import PortSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pynetwork.core import Core
    from pynetwork.drivers import Publishing
    from pynetwork.engine import Draft
    from pynetwork.ports import PortBinding
    from pynetwork.records import AnyNetworkSpec, Row
    from pynetwork.specs import EndpointSpec

__all__ = ["PORTS", "Avoided", "choose_ports", "rechoose"]

#: Whoever publishes takes a turn here: what is free is decided one request after the other.
PORTS: Final = "ports"
#: Protocols and ports that somebody else was found to have.
Avoided: TypeAlias = "Collection[tuple[str, int]]"


def choose_ports(
    core: Core, draft: Draft, spec: EndpointSpec, asked: Sequence[PortBinding], avoid: Avoided = ()
) -> list[PortSpec]:
    """
    Choose the host ports of what an endpoint is to publish, and have *draft* record them.

    Args:
        core: The instance.
        draft: The request they are for.
        spec: The endpoint, its addresses allotted.
        asked: What is to be published.
        avoid: What must not be chosen.

    Returns:
        What is published, in the order of *asked*.

    Raises:
        InvalidValueError: Nothing can be published there.
        PortTakenError: A host port is published already.
        ConflictError: Ports that are opened overlap a range that is.
        ExhaustedError: None is free.
    """
    if not asked:
        return []
    chooser = _Chooser(core, draft, spec, avoid)
    for number, binding in enumerate(asked):
        # In the order they were asked for, which is that of their keys.
        identity = f"{core.engine.mirror.revision + 1:012x}{number:04x}"
        port = chooser.choose(PortSpec(id=identity, endpoint=spec.id, binding=binding))
        draft.reserve(record(port_key(spec.id, port.id), port))
        chooser.given.add(port)
        chooser.chosen.append(port)
    return chooser.chosen


def rechoose(core: Core, draft: Draft, spec: EndpointSpec, row: Row[PortSpec], avoid: Avoided) -> PortSpec:
    """Return what *row* publishes with another host port, if it may have one and its own is to be avoided."""
    binding = row.spec.binding
    if not binding.is_flexible or not any((binding.proto, number) in avoid for number in binding.numbers()):
        return row.spec
    open_port = attrs.evolve(row.spec, binding=attrs.evolve(binding, host_port=None))
    port = _Chooser(core, draft, spec, avoid).choose(open_port)
    draft.rely_on(row.key, row.revision)
    draft.replace(row.replaced(port), row.replaced(row.spec))
    return port


@attrs.frozen
class _Chooser:
    """
    Chooses host ports for an endpoint.

    Args:
        core: The instance.
        draft: The request they are for.
        endpoint: Whose they are.
        avoid: What must not be chosen.
        given: The host ports chosen in the same request, and so not recorded yet.
        chosen: What they are of.
        network: The one through which they are published: the endpoint's, or the host's gateway network.
        how: Ports are published there.
        versions: Address families that the endpoint has there.
    """

    core: Core
    draft: Draft
    endpoint: EndpointSpec
    avoid: Avoided
    given: PortIndex = attrs.field(factory=PortIndex)
    chosen: list[PortSpec] = attrs.field(factory=list)
    network: AnyNetworkSpec = attrs.field(init=False)
    how: Publishing = attrs.field(init=False)
    versions: frozenset[int] = attrs.field(init=False)

    @network.default
    def _network(self) -> AnyNetworkSpec:
        own = self.core.network(self.endpoint.network).spec
        return self.core.network(self.core.instance).spec if own.host_gateway else own

    @how.default
    def _how(self) -> Publishing:
        return _publishing(self.core, self.network)

    @versions.default
    def _versions(self) -> frozenset[int]:
        own = self.network.id == self.endpoint.network
        return frozenset(each.version for each in (self.endpoint.addresses if own else self.network.subnets))

    def choose(self, port: PortSpec) -> PortSpec:
        """Return *port* with its host port chosen, where it has one."""
        how = self.how
        self.draft.turns.add(PORTS)
        wanted = self._checked(port.binding)
        versions = [v for v in wanted.versions if v in how.translated and v in self.versions]
        if versions:
            wanted = wanted.at(self._first_free(wanted, versions))
        if wanted.size > 1:
            self._check_apart(port.id, wanted, set(how.opened).intersection(wanted.versions))
        return PortSpec(id=port.id, endpoint=port.endpoint, binding=wanted, versions=versions)

    def _checked(self, binding: PortBinding) -> PortBinding:
        """Return *binding* with the network's own host address filled in, if it can be published at all."""
        network, how = self.network, self.how
        if binding.host_address is None and how.address is not None:
            binding = attrs.evolve(binding, host_address=how.address)
        address = binding.host_address
        known = self.versions.intersection((*how.translated, *how.opened))
        if known.isdisjoint(binding.versions):
            name = self.endpoint.name
            msg = f"cannot publish {binding}: endpoint {name!r} has no IPv{binding.versions[0]} address"
            raise InvalidValueError(msg)
        if address is None:
            return binding
        if address.is_multicast or (address.version == 6 and address.is_loopback):
            msg = f"cannot publish {binding}: what is sent to {address} does not reach an endpoint"
            raise InvalidValueError(msg)
        gateways = {subnet.gateway for subnet in network.subnets}
        if address not in gateways and any(address in subnet.network for subnet in network.subnets):
            msg = f"cannot publish {binding}: {address} is of network {network.name!r}, not the host's own"
            raise InvalidValueError(msg)
        return binding

    def _check_apart(self, identity: str, binding: PortBinding, versions: set[int]) -> None:
        """Check that a range that is opened is another one's equal, or has nothing in common with it."""
        if not versions:
            return
        recorded = (row.spec for row in ports_of(self.core, self.draft, self.endpoint.id))
        for port in (*recorded, *self.chosen):
            other = port.binding
            if (
                port.id != identity
                and other.size > 1
                and other.proto == binding.proto
                and (other.first, other.last) != (binding.first, binding.last)
                and max(other.first, binding.first) <= min(other.last, binding.last)
                and not versions.isdisjoint(other.versions)
            ):
                name = self.endpoint.name
                msg = f"cannot publish {binding} of endpoint {name!r}: it overlaps {other} in part"
                raise ConflictError(msg)

    def _first_free(self, binding: PortBinding, versions: Sequence[int]) -> int:
        """Return the first of host ports that no endpoint has."""
        low, high, start, reserved = self._range(binding)
        for begin, end in ((start, high), (low, min(high, start + binding.size - 2))):
            first = begin
            while first + binding.size - 1 <= end:
                blocker = self._blocker(binding, versions, first)
                if not binding.is_flexible:
                    if blocker is not None:
                        raise self._taken(binding, *blocker)
                    return first
                last = first + binding.size - 1
                bad = [blocker[0]] if blocker else []
                bad += (n for proto, n in self.avoid if proto == binding.proto and first <= n <= last)
                bad += (min(last, until) for since, until in reserved if since <= last and first <= until)
                if not bad:
                    return first
                first = max(bad) + 1
        what = "ephemeral ports" if binding.host_first is None else "ports of the range"
        msg = f"cannot publish {binding}: all {what} are taken"
        raise ExhaustedError(msg)

    def _range(self, binding: PortBinding) -> tuple[int, int, int, Sequence[tuple[int, int]]]:
        """Return the lowest and highest port to choose from, where to begin, and what is reserved."""
        if binding.host_first is not None and binding.host_last is not None:
            return binding.host_first, binding.host_last, binding.host_first, ()
        low, high, reserved = self.core.surroundings.ephemeral_ports()
        start = self.core.records.host_ports.last_chosen(binding.proto) + 1
        return low, high, start if low <= start <= high else low, reserved

    def _blocker(self, binding: PortBinding, versions: Sequence[int], first: int) -> tuple[int, str] | None:
        """Return the last of the ports from *first* on that an endpoint has, and its id."""
        address = binding.host_address
        address = None if address is None or address.is_unspecified else address
        last = first + binding.size - 1
        found = (
            index.taken(version, binding.proto, address, first, last)
            for index in (self.core.records.host_ports, self.given)
            for version in versions
        )
        return max((hit for hit in found if hit is not None), default=None)

    def _taken(self, binding: PortBinding, number: int, owner: str) -> PortTakenError:
        row = self.core.records.endpoints.get(owner)
        if row is None or owner == self.endpoint.id:
            who = "it already"
        else:
            network = self.core.network(row.spec.network).spec.name
            who = f"endpoint {row.spec.name!r} of network {network!r}"
        port = f"{number}/{binding.proto}"
        msg = (
            f"cannot publish {binding} of endpoint {self.endpoint.name!r}: port {port} is published by {who}"
        )
        return PortTakenError(msg, proto=binding.proto, port=number)


def _publishing(core: Core, network: AnyNetworkSpec) -> Publishing:
    driver: Any = driver_of(core, network)
    ask = getattr(driver, "publishing", None)
    if ask is None and not network.internal:
        msg = f"network {network.name!r} is of type {network.driver!r}, which publishes no ports"
        raise InvalidValueError(msg)
    how: Publishing | None = None if ask is None else ask(network)
    if how is None or not (how.translated or how.opened):
        msg = f"nothing can be published in network {network.name!r}: it is internal"
        raise InvalidValueError(msg)
    return how
