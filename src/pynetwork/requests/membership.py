"""Drafting join and leave, and with them who provides a sandbox's default routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pynetwork.engine.codec import changed
from pynetwork.errors import ConflictError, ExhaustedError
from pynetwork.plan import Plan
from pynetwork.requests.common import (
    by_claim,
    driver_of,
    join_scope,
    network_scope,
    next_hop,
    port_key,
    ports_of,
    sandbox_lock,
)
from pynetwork.requests.files import refresh_files
from pynetwork.requests.gateway import (
    end_gateway,
    gateway_for,
    is_gateway_needed,
    is_gateway_of_use,
    ways_in,
)
from pynetwork.requests.ports import rechoose

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.records import AnyNetworkSpec, Row
    from pynetwork.requests.ports import Avoided
    from pynetwork.specs import EndpointSpec, PortSpec, SandboxSpec
    from pynetwork.types import IPAddress

__all__ = ["join", "leave", "leave_all", "new_link", "plan_join", "plan_port", "plan_ports"]

_MOST_TRIES: Final = 10_000  # at a number for a port


def join(core: Core, draft: Draft, endpoint: str, sandbox: str, avoid: Avoided = ()) -> None:
    """
    Draft that an endpoint is put into a sandbox.

    Args:
        core: The instance.
        draft: To fill in.
        endpoint: Its id.
        sandbox: Its id.
        avoid: Host ports that others were found to have; others are chosen in their place.
    """
    row, target = core.endpoint(endpoint), core.sandbox(sandbox)
    spec = row.spec
    network = core.network(spec.network).spec
    draft.what = f"join endpoint {spec.name!r} to sandbox {target.spec.name!r}"
    draft.undisturbed |= {network_scope(network.id), join_scope(endpoint)}
    draft.locks.add(sandbox_lock(sandbox))
    _check_free(core, spec, target.spec)
    _check_kind(core, network, target.spec)
    siblings = core.records.joined(sandbox)
    draft.rely_on(row.key, row.revision)
    draft.rely_on(target.key, target.revision)
    joined = changed(row, spec=_put_in(core, spec, target.spec, siblings))
    _regroup(core, draft, target.spec, [*siblings, joined], avoid)


def _put_in(
    core: Core, spec: EndpointSpec, sandbox: SandboxSpec, siblings: Sequence[Row[EndpointSpec]]
) -> EndpointSpec:
    """Return an endpoint as it is in a sandbox beside *siblings*."""
    network = core.network(spec.network).spec
    _check_overlap(core, network, siblings)
    return changed(
        spec,
        sandbox=sandbox.id,
        interface=_interface(core, network, spec, siblings),
        link=new_link(core, network),
        joined=core.engine.mirror.revision + 1,
    )


def new_link(core: Core, network: AnyNetworkSpec) -> str:
    """
    Return a name for the host's end of a link: one that was made before may still be on its way out.

    Raises:
        ExhaustedError: No number is left for the port that it will be.
    """
    number_of = getattr(driver_of(core, network), "port_number", None)
    if number_of is None or number_of(_random_link(core)) is None:
        return _random_link(core)
    taken = {
        number_of(row.spec.link)
        for row in core.records.endpoints.values()
        if row.spec.link and core.network(row.spec.network).spec.driver == network.driver
    }
    for _ in range(_MOST_TRIES):
        link = _random_link(core)
        if number_of(link) not in taken:
            return link
    msg = f"no number is left for a port of network {network.name!r} on this host: {len(taken)} are in use"
    raise ExhaustedError(msg)


def _random_link(core: Core) -> str:
    return f"veth{core.surroundings.random.getrandbits(40):010x}"


def leave(core: Core, draft: Draft, endpoint: str, sandbox: str | None = None) -> None:
    """
    Draft that an endpoint is taken out of its sandbox.

    Args:
        core: The instance.
        draft: To fill in.
        endpoint: Its id.
        sandbox: Id of the sandbox it must be in; None for any.
    """
    row = core.endpoint(endpoint)
    spec = row.spec
    draft.what = f"take endpoint {spec.name!r} out of its sandbox"
    draft.undisturbed.add(join_scope(endpoint))
    if spec.sandbox is None:
        msg = f"endpoint {spec.name!r} cannot leave: it has joined no sandbox"
        raise ConflictError(msg)
    if sandbox not in {None, spec.sandbox}:
        names = [core.sandbox(identity).spec.name for identity in (spec.sandbox, sandbox) if identity]
        msg = f"endpoint {spec.name!r} is in sandbox {names[0]!r}, not in {names[1]!r}"
        raise ConflictError(msg)
    draft.finish = True
    draft.locks.add(sandbox_lock(spec.sandbox))
    _take_out(core, draft, row)
    rest = [sibling for sibling in core.records.joined(spec.sandbox) if sibling.spec.id != endpoint]
    _regroup(core, draft, core.sandbox(spec.sandbox).spec, rest)


def leave_all(core: Core, draft: Draft, sandbox: str) -> None:
    """Draft that all endpoints are taken out of a sandbox."""
    draft.locks.add(sandbox_lock(sandbox))
    for row in core.records.joined(sandbox):
        if not row.spec.system:
            _take_out(core, draft, row)
    end_gateway(core, draft, sandbox)


def plan_join(core: Core, draft: Draft, endpoint: EndpointSpec, sandbox: SandboxSpec) -> None:
    """Plan that an endpoint is in a sandbox; on the host that means nothing before this has a namespace."""
    network = core.network(endpoint.network).spec
    plan = driver_of(core, network).join_plan(network, endpoint, sandbox)  # asked in any case: it may refuse
    draft.plans[join_scope(endpoint.id)] = plan if sandbox.attached else Plan()


def plan_port(
    core: Core,
    draft: Draft,
    endpoint: EndpointSpec,
    sandbox: SandboxSpec,
    port: PortSpec,
    *,
    members: Sequence[EndpointSpec],
) -> None:
    """Plan that an endpoint publishes a port that has joined a sandbox, whose endpoints are *members*."""
    plan = Plan()
    for network, reached in ways_in(core, endpoint, members) if sandbox.attached else ():
        driver: Any = driver_of(core, network)
        if hasattr(driver, "port_plan"):  # who is the way out for others need not publish anything
            plan += driver.port_plan(network, reached, port.binding)
    draft.plans[port_key(endpoint.id, port.id)] = plan


def plan_ports(
    core: Core,
    draft: Draft,
    endpoint: EndpointSpec,
    sandbox: SandboxSpec,
    *,
    members: Sequence[EndpointSpec],
    avoid: Avoided = (),
) -> None:
    """Plan all that an endpoint publishes that has joined a sandbox, with other host ports than *avoid*."""
    for row in ports_of(core, draft, endpoint.id):
        port = rechoose(core, draft, endpoint, row, avoid) if avoid else row.spec
        plan_port(core, draft, endpoint, sandbox, port, members=members)


def _take_out(core: Core, draft: Draft, row: Row[EndpointSpec]) -> None:
    spec = row.spec
    alone = changed(
        spec,
        sandbox=None,
        interface=spec.interface if spec.fixed_interface else None,
        link=None,
        joined=0,
        default_via=(),
    )
    draft.rely_on(row.key, row.revision)
    draft.plans[join_scope(spec.id)] = Plan()
    draft.plans |= {port.key: Plan() for port in ports_of(core, draft, spec.id)}
    draft.replace(row.replaced(alone), row.replaced(spec))


def _regroup(
    core: Core,
    draft: Draft,
    sandbox: SandboxSpec,
    members: Sequence[Row[EndpointSpec]],
    avoid: Avoided = (),
) -> None:
    """Choose the providers of the default routes, and plan the members that are new or changed by it."""
    rows = _with_gateway(core, draft, sandbox, members)
    owners = _default_routes(core, [row.spec for row in rows])
    specs = [changed(row.spec, default_via=owners.get(row.spec.id, ())) for row in rows]
    refresh_files(core, draft, sandbox, specs)
    for row, spec in zip(rows, specs, strict=True):
        known = core.records.endpoints.get(spec.id)
        is_changed = known is None or known.spec != spec
        if is_changed:
            plan_join(core, draft, spec, sandbox)
        if known is None:
            draft.reserve(row.replaced(spec))
        elif is_changed:
            draft.replace(row.replaced(spec), row.replaced(known.spec))
        is_new = known is None or known.spec.sandbox is None
        if not spec.system and (is_new or core.network(spec.network).spec.host_gateway):
            plan_ports(core, draft, spec, sandbox, members=specs, avoid=avoid)


def _with_gateway(
    core: Core, draft: Draft, sandbox: SandboxSpec, members: Sequence[Row[EndpointSpec]]
) -> list[Row[EndpointSpec]]:
    """Return the endpoints of a sandbox, one in the host's gateway network among them if it needs that."""
    others = [row for row in members if not row.spec.system]
    specs = [row.spec for row in others]
    if not is_gateway_of_use(core, specs):
        end_gateway(core, draft, sandbox.id)
        return others
    if not is_gateway_needed(core, specs):
        for row in members:
            if row.spec.system:
                _take_out(core, draft, row)
        return others
    row = gateway_for(core, draft, sandbox)
    if row.spec.sandbox is None:
        row = changed(row, spec=_put_in(core, row.spec, sandbox, others))
    return [*others, row]


def _default_routes(core: Core, members: Iterable[EndpointSpec]) -> dict[str, tuple[IPAddress, ...]]:
    """
    Return the next hops each endpoint provides, one of a family in the whole sandbox.

    The one of the highest claim wins, separately for IPv4 and IPv6.
    """
    order = by_claim(core, members)
    owners: dict[str, tuple[IPAddress, ...]] = {}
    for version in (4, 6):
        for spec in order:
            via = next_hop(core.network(spec.network).spec, spec, version)
            if via is not None:
                owners[spec.id] = (*owners.get(spec.id, ()), via)
                break
    return owners


def _interface(
    core: Core, network: AnyNetworkSpec, spec: EndpointSpec, siblings: Sequence[Row[EndpointSpec]]
) -> str | None:
    """Return the interface name asked for, or the driver's prefix with the lowest free number."""
    taken = {"lo", *(row.spec.interface for row in siblings)}
    if spec.fixed_interface and spec.interface is not None:
        if spec.interface in taken:
            msg = f"interface name {spec.interface!r} is taken in this sandbox"
            raise ConflictError(msg)
        return spec.interface
    prefix = driver_of(core, network).interface_prefix(network)
    if not prefix:
        return None
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def _check_free(core: Core, spec: EndpointSpec, sandbox: SandboxSpec) -> None:
    if spec.sandbox == sandbox.id:
        msg = f"endpoint {spec.name!r} has already joined sandbox {sandbox.name!r}"
        raise ConflictError(msg)
    if spec.sandbox is not None:
        other = core.sandbox(spec.sandbox).spec.name
        msg = f"endpoint {spec.name!r} is joined to another sandbox, {other!r}"
        raise ConflictError(msg)


def _check_kind(core: Core, network: AnyNetworkSpec, sandbox: SandboxSpec) -> None:
    """Endpoints of the host network, and only they, go into a sandbox that is the host's namespace."""
    wants_host = core.drivers[network.driver].capabilities.host_sandbox
    if wants_host and sandbox.netns is not None:
        msg = (
            f"network {network.name!r} shares the host's namespace, sandbox {sandbox.name!r} has its own: "
            "make the sandbox with netns='host'"
        )
        raise ConflictError(msg)
    if not wants_host and sandbox.netns is None:
        msg = f"sandbox {sandbox.name!r} is the host's namespace: only networks of type 'host' go there"
        raise ConflictError(msg)


def _check_overlap(core: Core, network: AnyNetworkSpec, siblings: Iterable[Row[EndpointSpec]]) -> None:
    for row in siblings:
        other = core.network(row.spec.network).spec
        for theirs in other.subnets:
            for ours in network.subnets:
                if (
                    ours.version == theirs.version
                    and ours.network.prefixlen
                    and ours.network.overlaps(theirs.network)
                ):
                    msg = (
                        f"subnet {ours.network} of {_called(network)} conflicts with "
                        f"{theirs.network} of {_called(other)}, which this sandbox is in already"
                    )
                    raise ConflictError(msg)


def _called(network: AnyNetworkSpec) -> str:
    return "the host's gateway network" if network.system else f"network {network.name!r}"
