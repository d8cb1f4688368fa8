"""Making all of an instance what its records say: the host, what spans hosts, the names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pynetwork.doctor import missing
from pynetwork.engine import Report, reconcile
from pynetwork.errors import PynetworkError
from pynetwork.log import logger
from pynetwork.requests.adoption import see_to_adopted

if TYPE_CHECKING:
    from pynetwork.core import Core

__all__ = ["Mender", "reconcile_all"]


def reconcile_all(core: Core, *, dry_run: bool) -> Report:
    """Repair, prune and finish, see :meth:`pynetwork.Controller.reconcile`."""
    report = reconcile(core.engine, dry_run=dry_run, adopt=partial(see_to_adopted, core, dry_run=dry_run))
    if not dry_run:
        if core.span is not None:
            core.span.repair()
        if core.dns is not None:
            core.dns.revive()
    return report


class Mender:
    """
    Puts back what somebody took away of our rules, each time that it is called.

    It looks as :meth:`pynetwork.Controller.check` does, at next to no cost. If something is missing it does
    as :meth:`pynetwork.Controller.reconcile` does, the next times as well until that finds nothing: the cheap
    look does not see rules that were taken away while others were put back. Why something is not there again
    is said once.

    Args:
        core: The instance.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._is_at_it = False
        self._failed: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Look, and repair what is missing. Nothing is raised."""
        try:
            lost = missing(self._core)
            if not lost and not self._is_at_it:
                self._failed = ()
                return
            report = reconcile_all(self._core, dry_run=False)
        except (OSError, PynetworkError) as error:
            self._say((str(error),), "what somebody took away of our rules cannot be put back")
            return
        self._is_at_it = not report.is_clean
        if lost and self._is_at_it:  # else a request is about to make it, or has done so since
            self._say(report.failed, f"somebody took away what is ours ({'; '.join(lost)}), it was put back")

    def _say(self, failed: tuple[str, ...], what: str) -> None:
        if not failed or failed != self._failed:
            logger().warning("%s%s", what, "".join(f"; failed: {line}" for line in failed))
        self._failed = failed
