"""Drafting that a sandbox gets another namespace, or has none any more; its endpoints go along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.engine.codec import changed
from pynetwork.errors import ConflictError, InvalidValueError, NotFoundError
from pynetwork.plan import Plan
from pynetwork.requests.common import network_scope, sandbox_lock, sandbox_scope
from pynetwork.requests.membership import new_link, plan_join, plan_ports
from pynetwork.requests.sandbox import choose_pin, parse_netns, sandbox_plan
from pynetwork.resources import Netns
from pynetwork.types import HOST_NETNS, LATER_NETNS

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.records import Row
    from pynetwork.requests.ports import Avoided
    from pynetwork.resources import Resource
    from pynetwork.specs import SandboxSpec

__all__ = ["attach", "detach", "find_source"]


def find_source(core: Core, sandbox: SandboxSpec, netns: object) -> str | None:
    """
    Return the path of the namespace that a sandbox is to be attached to; None when it is there already.

    Args:
        core: The instance.
        sandbox: The sandbox.
        netns: The path of a file, an open file, or the id of a process.

    Raises:
        NotFoundError: There is no such namespace, or no longer.
        InvalidValueError: Malformed, or it is the host's own.
    """
    if netns is None or netns in (HOST_NETNS, LATER_NETNS):
        msg = f"invalid namespace {netns!r}: a path, a process id or an open file is expected"
        raise InvalidValueError(msg)
    path = str(parse_netns(netns))
    look = core.engine.kernel.namespace_id
    found = look(path)
    if found is None:
        msg = f"cannot attach sandbox {sandbox.name!r}: {path} is no network namespace, or no longer"
        raise NotFoundError(msg)
    if found == look(None):
        msg = f"cannot attach sandbox {sandbox.name!r}: {path} is the host's own namespace"
        raise InvalidValueError(msg)
    is_there = sandbox.attached and sandbox.netns is not None and found == look(sandbox.netns)
    return None if is_there else path


def attach(core: Core, draft: Draft, identity: str, source: str, avoid: Avoided = ()) -> None:
    """
    Draft that a sandbox is over the namespace *source* from now on, with all that is in it.

    Args:
        core: The instance.
        draft: To fill in.
        identity: The sandbox's id.
        source: Path of the namespace.
        avoid: Host ports that others were found to have; others are chosen in their place.
    """
    row = core.sandbox(identity)
    draft.what = f"attach sandbox {row.spec.name!r} to {source}"
    if row.spec.netns is None:
        msg = f"sandbox {row.spec.name!r} is the host's own namespace: it cannot be attached to another"
        raise ConflictError(msg)
    # A path of its own: what is in the old namespace is told from what is in the new.
    path = choose_pin(core, identity, row.spec.name)
    _become(core, draft, row, changed(row.spec, netns=path, adopted=source, attached=True), avoid)


def detach(core: Core, draft: Draft, identity: str, *, lost: bool = False) -> None:
    """
    Draft that a sandbox has no namespace any more. Its endpoints stay in it, and wait for another one.

    Args:
        core: The instance.
        draft: To fill in.
        identity: The sandbox's id.
        lost: The namespace has gone by itself: it is adopted again should it come back.
    """
    row = core.sandbox(identity)
    draft.what = f"detach sandbox {row.spec.name!r}"
    if row.spec.netns is None or not row.spec.attached:
        msg = f"sandbox {row.spec.name!r} cannot be detached: it is not attached to a namespace of its own"
        raise ConflictError(msg)
    draft.finish = True
    adopted = row.spec.adopted if lost else None
    _become(core, draft, row, changed(row.spec, adopted=adopted, attached=False))


def _become(core: Core, draft: Draft, row: Row[SandboxSpec], spec: SandboxSpec, avoid: Avoided = ()) -> None:
    draft.locks.add(sandbox_lock(spec.id))
    draft.rely_on(row.key, row.revision)
    draft.replace(row.replaced(spec), row.replaced(row.spec))
    scope = sandbox_scope(spec.id)
    rest = (item for item in core.engine.world.plan(scope) if not _is_of(item, row.spec.netns))
    draft.plans[scope] = Plan((*rest, *sandbox_plan(spec)))
    members = core.records.joined(spec.id)
    for member in members:
        endpoint = (
            changed(member.spec, link=new_link(core, core.network(member.spec.network).spec))
            if spec.attached
            else member.spec
        )
        draft.rely_on(member.key, member.revision)
        draft.replace(member.replaced(endpoint), member.replaced(member.spec))
        draft.undisturbed.add(network_scope(endpoint.network))
        plan_join(core, draft, endpoint, spec)
        plan_ports(core, draft, endpoint, spec, members=[each.spec for each in members], avoid=avoid)


def _is_of(item: Resource, netns: str | None) -> bool:
    """Whether *item* is a namespace, or in it."""
    return isinstance(item, Netns) or getattr(item, "netns", None) == netns
