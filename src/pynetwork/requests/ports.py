"""Choosing the host ports of what an endpoint publishes, so that no two endpoints have the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from pynetwork.errors import ExhaustedError, InvalidValueError, PortTakenError
from pynetwork.port_index import PortIndex
from pynetwork.requests.common import driver_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pynetwork.core import Core
    from pynetwork.drivers import Publishing
    from pynetwork.engine import Draft
    from pynetwork.ports import PortBinding
    from pynetwork.records import AnyNetworkSpec
    from pynetwork.specs import EndpointSpec

__all__ = ["PORTS", "Avoided", "choose_ports", "rechoose"]

#: Whoever publishes takes a turn here: what is free is decided one request after the other.
PORTS: Final = "ports"
#: Protocols and ports that somebody else was found to have.
Avoided: TypeAlias = "Collection[tuple[str, int]]"


def choose_ports(
    core: Core,
    draft: Draft,
    spec: EndpointSpec,
    asked: Sequence[PortBinding],
    avoid: Avoided = (),
) -> EndpointSpec:
    """
    Return *spec* with the ports that are *asked* for, their host ports chosen, after those it has.

    Args:
        core: The instance.
        draft: The request they are for.
        spec: The endpoint, its addresses allotted.
        asked: What is to be published.
        avoid: What must not be chosen.

    Raises:
        InvalidValueError: Nothing can be published there.
        PortTakenError: A host port is published already.
        ExhaustedError: None is free.
    """
    if not asked:
        return spec
    network = core.network(spec.network).spec
    how = _publishing(core, network)
    draft.turns.add(PORTS)
    for binding in asked:
        wanted = _checked(network, spec, how, binding)
        versions = [v for v in wanted.versions if v in how.translated and spec.address(v) is not None]
        if versions:
            first = _choose(core, spec, wanted, versions, avoid)
            wanted = attrs.evolve(wanted, host_port=first)
        spec = attrs.evolve(spec, ports=(*spec.ports, wanted))
    return spec


def rechoose(core: Core, draft: Draft, spec: EndpointSpec, avoid: Avoided) -> EndpointSpec:
    """Return *spec* with other host ports where those chosen before are among *avoid*."""
    bad = [
        binding
        for binding in spec.ports
        if binding.is_flexible and any((binding.proto, number) in avoid for number in binding.numbers())
    ]
    good = attrs.evolve(spec, ports=[binding for binding in spec.ports if binding not in bad])
    return choose_ports(core, draft, good, [attrs.evolve(b, host_port=None) for b in bad], avoid)


def _publishing(core: Core, network: AnyNetworkSpec) -> Publishing:
    driver: Any = driver_of(core, network)
    ask = getattr(driver, "publishing", None)
    if ask is None:
        msg = f"network {network.name!r} is of type {network.driver!r}, which publishes no ports"
        raise InvalidValueError(msg)
    how: Publishing = ask(network)
    if not (how.translated or how.opened):
        msg = f"nothing can be published in network {network.name!r}: it is internal"
        raise InvalidValueError(msg)
    return how


def _checked(
    network: AnyNetworkSpec, spec: EndpointSpec, how: Publishing, binding: PortBinding
) -> PortBinding:
    """Return *binding* with the network's own host address filled in, if it can be published at all."""
    if binding.host_address is None and how.address is not None:
        binding = attrs.evolve(binding, host_address=how.address)
    address = binding.host_address
    known = {version for version in (*how.translated, *how.opened) if spec.address(version)}
    if known.isdisjoint(binding.versions):
        msg = f"cannot publish {binding}: endpoint {spec.name!r} has no IPv{binding.versions[0]} address"
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


def _choose(
    core: Core, spec: EndpointSpec, binding: PortBinding, versions: Sequence[int], avoid: Avoided
) -> int:
    """Return the first of host ports for *binding* that no endpoint has."""
    low, high, start, reserved = _range(core, binding)
    for begin, end in ((start, high), (low, min(high, start + binding.size - 2))):
        first = begin
        while first + binding.size - 1 <= end:
            last = first + binding.size - 1
            blocker = _blocker(core, spec, binding, versions, first)
            if blocker is not None and not binding.is_flexible:
                raise _taken(core, spec, binding, *blocker)
            bad = [blocker[0]] if blocker else []
            bad += (port for proto, port in avoid if proto == binding.proto and first <= port <= last)
            bad += (min(last, r_last) for r_first, r_last in reserved if r_first <= last and first <= r_last)
            if not bad or not binding.is_flexible:
                return first
            first = max(bad) + 1
    what = "ephemeral ports" if binding.host_first is None else "ports of the range"
    msg = f"cannot publish {binding}: all {what} are taken"
    raise ExhaustedError(msg)


def _range(core: Core, binding: PortBinding) -> tuple[int, int, int, Sequence[tuple[int, int]]]:
    """Return the lowest and highest port to choose from, where to begin, and what is reserved."""
    if binding.host_first is not None and binding.host_last is not None:
        return binding.host_first, binding.host_last, binding.host_first, ()
    low, high, reserved = core.surroundings.ephemeral_ports()
    start = core.records.ports.last_chosen(binding.proto) + 1
    return low, high, start if low <= start <= high else low, reserved


def _blocker(
    core: Core, spec: EndpointSpec, binding: PortBinding, versions: Sequence[int], first: int
) -> tuple[int, str] | None:
    """Return the last of the ports from *first* on that an endpoint has, and its id."""
    address = binding.host_address
    address = None if address is None or address.is_unspecified else address
    last = first + binding.size - 1
    found = [core.records.ports.taken(v, binding.proto, address, first, last) for v in versions]
    # What the endpoint itself was given in this request is not recorded yet.
    given = PortIndex()
    given.add(spec)
    found += (given.taken(version, binding.proto, address, first, last) for version in versions)
    return max((hit for hit in found if hit is not None), default=None)


def _taken(core: Core, spec: EndpointSpec, binding: PortBinding, number: int, owner: str) -> PortTakenError:
    row = core.records.endpoints.get(owner)
    who = "it already" if owner == spec.id or row is None else _described(core, row.spec)
    port = f"{number}/{binding.proto}"
    msg = f"cannot publish {binding} of endpoint {spec.name!r}: port {port} is published by {who}"
    return PortTakenError(msg, proto=binding.proto, port=number)


def _described(core: Core, spec: EndpointSpec) -> str:
    return f"endpoint {spec.name!r} of network {core.network(spec.network).spec.name!r}"
