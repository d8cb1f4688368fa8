"""Making all of an instance what its records say: the host, what spans hosts, the names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pynetwork.engine import Report, reconcile
from pynetwork.requests.adoption import see_to_adopted

if TYPE_CHECKING:
    from pynetwork.core import Core

__all__ = ["reconcile_all"]


def reconcile_all(core: Core, *, dry_run: bool) -> Report:
    """Repair, prune and finish, see :meth:`pynetwork.Controller.reconcile`."""
    report = reconcile(core.engine, dry_run=dry_run, adopt=partial(see_to_adopted, core, dry_run=dry_run))
    if not dry_run:
        if core.span is not None:
            core.span.repair()
        if core.dns is not None:
            core.dns.revive()
    return report
