"""Adopted namespaces come and go by others' hands: sandboxes lose them, and get them back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pynetwork.engine import Adoptions
from pynetwork.engine.lost import can_be_adopted, is_lost
from pynetwork.errors import NotFoundError, PynetworkError
from pynetwork.requests.attach import attach, detach
from pynetwork.requests.common import join_scope, port_key, sandbox_scope
from pynetwork.resources import Netns

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.specs import SandboxSpec

__all__ = ["see_to_adopted"]


def see_to_adopted(core: Core, *, dry_run: bool) -> Adoptions:
    """
    Detach sandboxes whose adopted namespaces are gone, and attach those whose are there again.

    What was adopted by the path of a file may come back: ``ip netns add`` after a reboot, say. What was a
    process's namespace does not: its path is another process's by then.

    Args:
        core: The instance.
        dry_run: Only look.
    """
    found = Adoptions()
    with core.reading() as records:
        adopted = [row.spec for row in records.sandboxes.values() if row.spec.adopted is not None]
    kernel = core.engine.kernel
    for spec in adopted:
        pin = Netns(path=str(spec.netns), adopted=spec.adopted)
        if spec.attached:
            is_due = is_lost(kernel, pin)
        else:
            is_due = pin.may_return and can_be_adopted(kernel, str(spec.adopted))
        if is_due:
            found.scopes |= _scopes(core, spec)
            if dry_run or _is_done(core, spec, found):
                (found.detached if spec.attached else found.attached).append(spec.name)
    return found


def _is_done(core: Core, spec: SandboxSpec, found: Adoptions) -> bool:
    """Detach or attach a sandbox; note what failed."""
    if spec.attached:
        build = partial(detach, core, identity=spec.id, lost=True)
    else:
        build = partial(attach, core, identity=spec.id, source=str(spec.adopted))
    try:
        if not _is_as_it_was(core, spec):
            return False
        core.request(build)
    except NotFoundError:
        return False  # deleted meanwhile, or the namespace has gone again
    except PynetworkError as error:
        if _is_as_it_was(core, spec):
            found.failed.append(f"sandbox {spec.name!r}: {error}")
        return False
    return True


def _is_as_it_was(core: Core, spec: SandboxSpec) -> bool:
    """Whether no other process was faster."""
    with core.reading() as records:
        row = records.sandboxes.get(spec.id)
        return row is not None and row.spec == spec


def _scopes(core: Core, spec: SandboxSpec) -> set[str]:
    """Return the scopes of what exists as long as a sandbox has a namespace."""
    with core.reading() as records:
        members = [row.spec.id for row in records.joined(spec.id)]
        ports = {port_key(member, row.spec.id) for member in members for row in records.ports_of(member)}
    return {sandbox_scope(spec.id), *map(join_scope, members), *ports}
