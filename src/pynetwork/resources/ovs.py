"""Open vSwitch: bridges and their ports, which are rows of its database, and the flows of a bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.resources.base import Resource, inside, link_key, netns_keys
from pynetwork.resources.flow_text import parse_actions, parse_match

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from pynetwork.resources.base import Key

__all__ = [
    "COOKIE_MASK",
    "PLANNED",
    "REMOTE",
    "Flow",
    "OvsBridge",
    "OvsPort",
    "TxChecksum",
    "flow_cookie",
]

#: First 16 bits of the cookies of flows that are in plans: ``PN``.
PLANNED: Final = 0x504E
#: Those of flows for what is on other hosts, which is in no plan: ``PR``.
REMOTE: Final = 0x5052
#: The bits of a cookie that say whose it is.
COOKIE_MASK: Final = 0xFFFF << 48
_LAST_TABLE: Final = 253  # the one behind it is the switch's own
_LAST_PRIORITY: Final = 0xFFFF
_OPENFLOW: Final = "OpenFlow13,OpenFlow14,OpenFlow15"


def _pairs(values: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(key), str(value)) for key, value in values))


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


def _canonical_match(text: str) -> str:
    return ",".join(map(str, parse_match(text)))


def _canonical_actions(text: str) -> str:
    return ",".join(map(str, parse_actions(text))) or "drop"


def flow_cookie(owner: int, table: int, priority: int, match: str, actions: str) -> int:
    """
    Return the cookie of a flow: who keeps it, and a digest of all that it is.

    So a set of cookies tells which flows are as they should be, and a deletion by cookie never hits the flow
    that has taken another's place.

    Args:
        owner: PLANNED or REMOTE.
        table: Its table.
        priority: Its priority.
        match: In the form that :class:`Flow` gives it.
        actions: Likewise.
    """
    import hashlib  # the price of a few milliseconds, for who has flows

    text = f"{table},{priority},{match} {actions}".encode()
    return owner << 48 | int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")


@attrs.frozen(kw_only=True)
class OvsBridge(Resource):
    """
    A bridge of Open vSwitch that forwards nothing but by flows.

    Args:
        name: Of the bridge, and of the interface of the host's that comes with it.
        datapath: ``system`` for the kernel's, ``netdev`` for the one in user space.
        fail_mode: ``secure``. Found otherwise when somebody has changed it.
        controllers: None of ours has any. Found when somebody has set one: the first to come and the last to
            go take all flows with them.
    """

    kind = "ovs_bridge"
    rank = 21
    shared = True
    mutable = frozenset({"fail_mode", "controllers"})

    name: str
    datapath: str = "system"
    fail_mode: str = "secure"
    controllers: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    @property
    def key(self) -> Key:
        return link_key(None, self.name)

    @property
    def provides(self) -> tuple[Key, ...]:
        return (("ovs_port", self.name),)

    def render(self) -> tuple[str, ...]:
        settings = f"datapath_type={self.datapath} fail_mode={self.fail_mode} protocols={_OPENFLOW}"
        return (f"ovs-vsctl add-br {self.name} -- set bridge {self.name} {settings}",)

    def render_delete(self) -> tuple[str, ...]:
        return (f"ovs-vsctl del-br {self.name}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        lines = []
        if self.controllers != getattr(previous, "controllers", None):
            lines.append(" ".join(("ovs-vsctl set-controller", self.name, *self.controllers)))
            if not self.controllers:
                lines[-1] = f"ovs-vsctl del-controller {self.name}"
        if self.fail_mode != getattr(previous, "fail_mode", None):
            lines.append(f"ovs-vsctl set-fail-mode {self.name} {self.fail_mode}")
        return tuple(lines)


@attrs.frozen(kw_only=True)
class OvsPort(Resource):
    """
    A port of such a bridge: an interface of the host's, or a tunnel.

    Args:
        bridge: Name of the bridge.
        name: Of the interface. Never to be used again: a link that is made anew under the name of one that
            was a port passes nothing, and nothing says so.
        type: ``""`` for an interface that exists, ``vxlan`` for a tunnel.
        ofport: Its OpenFlow number, 1 to 65279, so that flows can be stated before it exists and hold over
            restarts of the switch. 0 is found of a port whose link was deleted.
        options: Of a tunnel, as (name, value): ``remote_ip``, ``local_ip``, ``key``, ``dst_port``.
        ids: Noted with the port, for those who look at the database: (name, value).
    """

    kind = "ovs_port"
    rank = 32
    shared = True
    mutable = frozenset({"ids"})

    bridge: str
    name: str
    type: str = ""
    ofport: int
    options: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)
    ids: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)

    @property
    def key(self) -> Key:
        return ("ovs_port", self.name)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(None, self.bridge),)

    def after(self, gone: AbstractSet[Key]) -> Resource | None:
        left = super().after(gone)
        # The row stays when its link goes, but whatever has that name next passes nothing.
        if left is self and not self.type and link_key(None, self.name) in gone:
            return attrs.evolve(self, ofport=0)
        return left

    def render(self) -> tuple[str, ...]:
        words = [f"ofport_request={self.ofport}"]
        words += [f"type={self.type}"] if self.type else []
        words += (f"options:{name}={value}" for name, value in self.options)
        words += (f"external_ids:{name}={value}" for name, value in self.ids)
        interface = f"set interface {self.name} {' '.join(words)}"
        return (f"ovs-vsctl add-port {self.bridge} {self.name} -- {interface}",)

    def render_delete(self) -> tuple[str, ...]:
        return (f"ovs-vsctl del-port {self.bridge} {self.name}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        if getattr(previous, "ofport", 0) != self.ofport:
            return (*previous.render_delete(), *self.render())  # not in one call
        was, wanted = dict(getattr(previous, "ids", ())), dict(self.ids)
        gone = " ".join(name for name in was if name not in wanted)
        new = " ".join(f"external_ids:{k}={v}" for k, v in self.ids if was.get(k) != v)
        lines = []
        if gone:
            lines.append(f"ovs-vsctl remove interface {self.name} external_ids {gone}")
        if new:
            lines.append(f"ovs-vsctl set interface {self.name} {new}")
        return tuple(lines)


def _check_table(flow: Flow, _: object, table: int) -> None:
    if not 0 <= table <= _LAST_TABLE or not 0 <= flow.priority <= _LAST_PRIORITY:
        msg = f"invalid flow: table {table} is not in 0-253, or priority {flow.priority} not in 0-65535"
        raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class Flow(Resource):
    """
    One flow of a bridge.

    Args:
        bridge: Name of the bridge.
        table: 0 to 253.
        priority: 0 to 65535, the highest that matches counts.
        match: Which packets, as ``ovs-ofctl`` writes it, see :func:`~.flow_text.parse_match`.
        actions: What is done with them, see :func:`~.flow_text.parse_actions`; ``drop`` for nothing.
    """

    kind = "flow"
    rank = 28
    shared = True
    mutable = frozenset({"actions"})

    bridge: str
    priority: int
    table: int = attrs.field(validator=_check_table)
    match: str = attrs.field(default="", converter=_canonical_match)
    actions: str = attrs.field(default="drop", converter=_canonical_actions)

    @property
    def key(self) -> Key:
        return ("flow", self.bridge, str(self.table), str(self.priority), self.match)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(None, self.bridge),)

    @property
    def cookie(self) -> int:
        """What it is known by on the switch, see :func:`flow_cookie`."""
        return flow_cookie(PLANNED, self.table, self.priority, self.match, self.actions)

    def render(self) -> tuple[str, ...]:
        match = f",{self.match}" if self.match else ""
        flow = f"table={self.table},priority={self.priority},cookie={self.cookie:#x}{match}"
        return (f"ovs-ofctl -O OpenFlow14 add-flow {self.bridge} '{flow} actions={self.actions}'",)

    def render_delete(self) -> tuple[str, ...]:
        which = f"table={self.table},cookie={self.cookie:#x}/-1"
        return (f"ovs-ofctl -O OpenFlow14 del-flows {self.bridge} {which}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - it takes the other's place
        return self.render()


@attrs.frozen(kw_only=True)
class TxChecksum(Resource):
    """
    Whether an interface may leave checksums to who receives its packets. Has no delete.

    Both ends of a veth pair must not when one is a port of a switch in user space, which passes on
    what it gets: TCP gets nowhere, though pings do (Open vSwitch, issue 273).

    Args:
        netns: Path of the namespace; None is the host's.
        dev: The interface.
        on: Whether it may.
    """

    kind = "tx_checksum"
    rank = 34
    mutable = frozenset({"on"})

    netns: str | None = None
    dev: str
    on: bool = False

    @property
    def key(self) -> Key:
        return ("tx_checksum", self.netns, self.dev)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.dev), *netns_keys(self.netns))

    def render(self) -> tuple[str, ...]:
        return (f"{inside(self.netns)}ethtool -K {self.dev} tx {'on' if self.on else 'off'}",)

    def render_delete(self) -> tuple[str, ...]:
        return ()

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - the old value does not matter
        return self.render()
