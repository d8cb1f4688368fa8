"""Drafting that a port of an endpoint is published, or no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.errors import NotFoundError
from pynetwork.plan import Plan
from pynetwork.requests.common import join_scope, network_scope, ports_of, sandbox_lock
from pynetwork.requests.membership import plan_port
from pynetwork.requests.ports import choose_ports
from pynetwork.store import Delete

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.ports import PortBinding
    from pynetwork.records import Row
    from pynetwork.requests.ports import Avoided
    from pynetwork.specs import EndpointSpec

__all__ = ["publish", "unpublish"]


def publish(core: Core, draft: Draft, endpoint: str, asked: PortBinding, avoid: Avoided = ()) -> PortBinding:
    """
    Draft that a port of an endpoint is published; returns it as it was chosen.

    Args:
        core: The instance.
        draft: To fill in.
        endpoint: Its id.
        asked: The port.
        avoid: Host ports that must not be chosen.
    """
    row = core.endpoint(endpoint)
    draft.what = f"publish {asked} of endpoint {row.spec.name!r}"
    _hold(draft, row)
    (port,) = choose_ports(core, draft, row.spec, [asked], avoid)
    if row.spec.sandbox is not None:
        if core.network(row.spec.network).spec.host_gateway:
            draft.locks.add(sandbox_lock(row.spec.sandbox))  # others of its endpoints are its way in
        members = [member.spec for member in core.records.joined(row.spec.sandbox)]
        plan_port(core, draft, row.spec, core.sandbox(row.spec.sandbox).spec, port, members=members)
    return port.binding


def unpublish(core: Core, draft: Draft, endpoint: str, asked: PortBinding) -> None:
    """
    Draft that a port of an endpoint is published no more.

    Args:
        core: The instance.
        draft: To fill in.
        endpoint: Its id.
        asked: The port, or what it has in common with several.
    """
    row = core.endpoint(endpoint)
    draft.what = f"unpublish {asked} of endpoint {row.spec.name!r}"
    _hold(draft, row)
    found = [port for port in ports_of(core, draft, endpoint) if port.spec.binding.matches(asked)]
    if not found:
        msg = f"endpoint {row.spec.name!r} does not publish {asked}"
        raise NotFoundError(msg)
    draft.finish = True
    for port in found:
        draft.plans[port.key] = Plan()
        draft.on_commit.append(Delete(port.key))


def _hold(draft: Draft, row: Row[EndpointSpec]) -> None:
    draft.rely_on(row.key, row.revision)
    draft.undisturbed |= {network_scope(row.spec.network), join_scope(row.spec.id)}
