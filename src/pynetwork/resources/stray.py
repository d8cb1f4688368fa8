"""What is found on a host and no record knows, where it takes more than a resource's own kind to name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.resources.base import Resource

if TYPE_CHECKING:
    from pynetwork.resources.base import Key

__all__ = ["StrayRules"]


@attrs.frozen(kw_only=True)
class StrayRules(Resource):
    """
    Rules of iptables that carry our name and that no record knows. They are only ever found, and deleted.

    Args:
        version: 4 or 6.
        comment: What their comments begin with.
    """

    kind = "stray_rules"
    rank = 26
    nameless = True

    version: int
    comment: str

    @property
    def key(self) -> Key:
        return ("stray_rules", str(self.version), self.comment)

    def render(self) -> tuple[str, ...]:
        return ()

    def render_delete(self) -> tuple[str, ...]:
        program = {4: "iptables", 6: "ip6tables"}[self.version]
        return (f"{program}-legacy-save | grep -vF '\"{self.comment} #' | {program}-legacy-restore",)
