"""Sysctls: what is written and has no delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.resources.base import Resource, inside, link_key, netns_keys

if TYPE_CHECKING:
    from pynetwork.resources.base import Key

__all__ = ["LinkSysctl", "Sysctl"]


@attrs.frozen(kw_only=True)
class Sysctl(Resource):
    """
    A setting of a namespace, such as ``net.ipv4.ip_forward``.

    Sysctls have no delete: the value stays when the last scope lets go of it.

    Args:
        netns: Path of the namespace; None is the host's.
        name: The key, dotted or, where a part holds a dot, with slashes (sysctl.conf(5)).
        value: What to write; nothing is written when it is there already.
    """

    kind = "sysctl"
    rank = 10
    shared = True
    mutable = frozenset({"value"})

    netns: str | None = None
    name: str
    value: str

    @property
    def key(self) -> Key:
        return ("sysctl", self.netns, self.name)

    @property
    def parents(self) -> tuple[Key, ...]:
        return netns_keys(self.netns)

    def render(self) -> tuple[str, ...]:
        return (f"{inside(self.netns)}sysctl -w {self.name}={self.value}",)

    def render_delete(self) -> tuple[str, ...]:
        return ()

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - the old value does not matter
        return self.render()


@attrs.frozen(kw_only=True)
class LinkSysctl(Resource):
    """
    A setting of one interface, such as ``net.ipv4.conf.eth0.rp_filter``; written before it goes up.

    Args:
        netns: Path of the namespace; None is the host's.
        dev: The interface; the setting goes with it.
        name: The key, see :class:`Sysctl`.
        value: What to write.
    """

    kind = "link_sysctl"
    rank = 40
    mutable = frozenset({"value"})

    netns: str | None = None
    dev: str
    name: str
    value: str

    @property
    def key(self) -> Key:
        return ("sysctl", self.netns, self.name)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.dev), *netns_keys(self.netns))

    def render(self) -> tuple[str, ...]:
        return (f"{inside(self.netns)}sysctl -w {self.name}={self.value}",)

    def render_delete(self) -> tuple[str, ...]:
        return ()

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - the old value does not matter
        return self.render()
