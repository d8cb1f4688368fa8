"""What a network of several hosts has on a Linux host: a VXLAN device, and a bridge that learns nothing.

Which frame goes where is programmed, not learned: a port floods no frame to an address it does not know,
so what is not programmed is dropped, and a frame with a forged source teaches nobody anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.resources.base import Resource, link_key

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pynetwork.resources.base import Key

__all__ = ["BridgePort", "FdbEntry", "StrictVni", "Vxlan", "vxlan_name"]


def vxlan_name(vni: int) -> str:
    """Return the interface name of the VXLAN device of a network."""
    return f"vx-{vni}"


@attrs.frozen(kw_only=True)
class Vxlan(Resource):
    """
    A VXLAN device of the host (RFC 7348) for one VNI: up, learning nothing, with no default destination.

    It answers ARP and neighbour solicitations itself, for the neighbours it has (``proxy``), and drops the
    others.

    Args:
        name: Interface name.
        vni: VXLAN network identifier, 24 bits.
        local: Address of the host that it sends from: its VTEP (VXLAN tunnel end point).
        port: UDP port, of all hosts.
        bridge: Bridge that it is a port of.
        mtu: Bytes, of what it carries.
    """

    kind = "vxlan"
    rank = 28
    mutable = frozenset({"bridge", "mtu"})

    name: str
    vni: int
    local: str = attrs.field(converter=str)
    port: int = 4789
    bridge: str | None = None
    mtu: int

    @property
    def key(self) -> Key:
        return link_key(None, self.name)

    def after(self, gone: AbstractSet[Key]) -> Resource:
        lost = self.bridge is not None and link_key(None, self.bridge) in gone
        return attrs.evolve(self, bridge=None) if lost else self

    def render(self) -> tuple[str, ...]:
        master = f" master {self.bridge}" if self.bridge else ""
        what = f"id {self.vni} local {self.local} dstport {self.port} nolearning proxy"
        return (
            f"ip link add {self.name} mtu {self.mtu}{master} type vxlan {what}",
            f"ip link set {self.name} addrgenmode none",
            f"ip link set {self.name} up",
        )

    def render_delete(self) -> tuple[str, ...]:
        return (f"ip link delete {self.name}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        lines = []
        if self.bridge != getattr(previous, "bridge", None):
            lines.append(f"ip link set {self.name} {f'master {self.bridge}' if self.bridge else 'nomaster'}")
        if self.mtu != getattr(previous, "mtu", None):
            lines.append(f"ip link set {self.name} mtu {self.mtu}")
        return tuple(lines)


@attrs.frozen(kw_only=True)
class StrictVni(Resource):
    """
    That frames of a network are taken only from the host which their source MAC is on: from none, at first.

    Args:
        vni: VXLAN network identifier.
        port: UDP port, of all hosts.
    """

    kind = "strict_vni"
    rank = 6  # before the device that takes them, and before all else that would be in vain
    mutable = frozenset({"port"})

    vni: int
    port: int = 4789

    @property
    def key(self) -> Key:
        return ("strict_vni", str(self.vni))

    def render(self) -> tuple[str, ...]:
        return (
            f"nft add element inet pynetwork-vxlan ports {{ {self.port} }}",
            f"nft add element inet pynetwork-vxlan strict {{ {self.vni} }}",
        )

    def render_delete(self) -> tuple[str, ...]:
        return (f"nft delete element inet pynetwork-vxlan strict {{ {self.vni} }}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - both are set
        return self.render()


@attrs.frozen(kw_only=True)
class BridgePort(Resource):
    """
    How a bridge treats one of its ports. It has no delete: it goes with the port.

    Args:
        dev: The port, an interface of the host.
        bridge: Interface name of the bridge.
        learning: Whether the bridge learns from the port where senders are.
        flood: Whether frames to addresses that the bridge does not know go out there.
    """

    kind = "bridge_port"
    rank = 35
    mutable = frozenset({"learning", "flood"})

    dev: str
    bridge: str
    learning: bool = False
    flood: bool = False

    @property
    def key(self) -> Key:
        return ("bridge_port", self.dev, self.bridge)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(None, self.dev), link_key(None, self.bridge))

    def render(self) -> tuple[str, ...]:
        words = {True: "on", False: "off"}
        return (f"bridge link set dev {self.dev} learning {words[self.learning]} flood {words[self.flood]}",)

    def render_delete(self) -> tuple[str, ...]:
        return ()

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - both are set
        return self.render()


@attrs.frozen(kw_only=True)
class FdbEntry(Resource):
    """
    A static entry of a bridge's forwarding database: which port an address is behind.

    An address is behind one port: to make the entry moves it there if another port has it.

    Args:
        dev: The port, an interface of the host.
        bridge: Interface name of the bridge.
        mac: The address.
    """

    kind = "fdb"
    rank = 72
    mutable = frozenset({"dev"})

    dev: str
    bridge: str
    mac: str

    @property
    def key(self) -> Key:
        return ("fdb", self.bridge, self.mac)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(None, self.dev), link_key(None, self.bridge))

    def render(self) -> tuple[str, ...]:
        return (f"bridge fdb replace {self.mac} dev {self.dev} master static",)

    def render_delete(self) -> tuple[str, ...]:
        return (f"bridge fdb delete {self.mac} dev {self.dev} master",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - it moves
        return self.render()
