"""What is found on a host and no record knows, where it takes more than a resource's own kind to name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.resources.base import Resource, link_key
from pynetwork.resources.ruleset import SETS, TABLE

if TYPE_CHECKING:
    from pynetwork.resources.base import Key

__all__ = ["StrayElement", "StrayFlow", "StrayRules"]


@attrs.frozen(kw_only=True)
class StrayElement(Resource):
    """
    An element of our sets that no record knows. It is only ever found, and deleted.

    Args:
        of: Name of the set.
        first: Its key, hexadecimal.
        last: The last key of an interval, likewise.
        is_end: Whether it ends an interval that another begins.
    """

    kind = "stray_element"
    rank = 26
    nameless = True

    of: str
    first: str
    last: str = ""
    is_end: bool = False

    @property
    def key(self) -> Key:
        return ("stray_element", self.of, self.first, self.last, str(self.is_end))

    def render(self) -> tuple[str, ...]:
        return ()

    def render_delete(self, table: str = TABLE) -> tuple[str, ...]:
        key = f"0x{self.first}" + (f"-0x{self.last}" if self.last else "")
        return (f"nft delete element {SETS[self.of].family} {table} {self.of} {{ {key} }}",)


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


@attrs.frozen(kw_only=True)
class StrayFlow(Resource):
    """
    A flow with a cookie of ours that no record knows. It is only ever found, and deleted.

    Args:
        bridge: Name of the bridge.
        table: Its table.
        cookie: Its cookie.
    """

    kind = "stray_flow"
    rank = 28
    nameless = True

    bridge: str
    table: int
    cookie: int

    @property
    def key(self) -> Key:
        return ("stray_flow", self.bridge, str(self.table), hex(self.cookie))

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(None, self.bridge),)

    def render(self) -> tuple[str, ...]:
        return ()

    def render_delete(self) -> tuple[str, ...]:
        which = f"table={self.table},cookie={self.cookie:#x}/-1"
        return (f"ovs-ofctl -O OpenFlow14 del-flows {self.bridge} {which}",)
