"""Drafting that a port of an endpoint is published, or no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import NotFoundError
from pynetwork.requests.common import join_scope, network_scope, sandbox_lock
from pynetwork.requests.membership import regroup
from pynetwork.requests.ports import choose_ports

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.ports import PortBinding
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
    _hold(draft, row.spec)
    spec = choose_ports(core, draft, row.spec, [asked], avoid)
    _replace(core, draft, spec)
    return spec.ports[-1]


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
    _hold(draft, row.spec)
    rest = [binding for binding in row.spec.ports if not binding.matches(asked)]
    if len(rest) == len(row.spec.ports):
        msg = f"endpoint {row.spec.name!r} does not publish {asked}"
        raise NotFoundError(msg)
    draft.finish = True
    _replace(core, draft, attrs.evolve(row.spec, ports=rest))


def _hold(draft: Draft, spec: EndpointSpec) -> None:
    draft.undisturbed |= {network_scope(spec.network), join_scope(spec.id)}
    if spec.sandbox is not None:
        draft.locks.add(sandbox_lock(spec.sandbox))


def _replace(core: Core, draft: Draft, spec: EndpointSpec) -> None:
    """Draft that *spec* takes the place of what is recorded of an endpoint, joined or not."""
    row = core.endpoint(spec.id)
    draft.rely_on(row.key, row.revision)
    if spec.sandbox is None:
        draft.replace(row.replaced(spec), row.replaced(row.spec))
        return
    members = (
        attrs.evolve(member, spec=spec) if member.spec.id == spec.id else member
        for member in core.records.joined(spec.sandbox)
    )
    regroup(core, draft, core.sandbox(spec.sandbox).spec, list(members))
