"""Namespaces and the interfaces in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.resources.base import Resource, inside, link_key, netns_keys

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pynetwork.resources.base import Key

__all__ = ["Bridge", "LinkUp", "Netns", "Veth"]


_PORT_FLAGS = ("isolated", "hairpin")


@attrs.frozen(kw_only=True)
class Netns(Resource):
    """
    A network namespace pinned by a file, its loopback up.

    Args:
        path: The file, absolute. The namespace lives as long as the mount on it.
        adopted: Path of a namespace that someone else made (``/proc/PID/ns/net``). It is only
            pinned: its loopback is left alone, and deletion removes the pin.
    """

    kind = "netns"
    rank = 0

    path: str
    adopted: str | None = None

    @property
    def key(self) -> Key:
        return ("netns", self.path)

    @property
    def stays(self) -> bool:
        return self.adopted is not None

    @property
    def may_return(self) -> bool:
        """Whether what has the path of the adopted one later may be adopted in its place."""
        # What is named after a process or its open file is another's after that.
        return self.adopted is not None and not self.adopted.startswith("/proc/")

    def render(self) -> tuple[str, ...]:
        if self.adopted is not None:
            return (f"touch {self.path}", f"mount --bind {self.adopted} {self.path}")
        return (f"touch {self.path}", f"unshare --net={self.path} ip link set lo up")

    def render_delete(self) -> tuple[str, ...]:
        return (f"umount --lazy {self.path}", f"rm {self.path}")


@attrs.frozen(kw_only=True)
class Bridge(Resource):
    """
    A Linux bridge in the host's namespace, IPv6 autoconfiguration off.

    Deaf to router advertisements, too: else any of its ports could give the host a default route.

    Args:
        name: Interface name.
        mac: Pinned, else a bridge takes the lowest MAC of its ports and changes it as they come
            and go. None leaves the MAC of an adopted bridge alone.
        mtu: Bytes. None leaves the kernel's or the adopted bridge's.
        multicast_snooping: Forward multicast only to ports that asked for it. What that costs when a
            port is added grows with their number.
        adopt: Take an existing bridge of that name as it is, and leave it behind on deletion
            unless it is ours (libnetwork's rule for ``com.docker.network.bridge.name``).
    """

    kind = "bridge"
    rank = 20
    mutable = frozenset({"mac", "mtu", "multicast_snooping"})

    name: str
    mac: str | None = None
    mtu: int | None = None
    multicast_snooping: bool = False
    adopt: bool = False

    @property
    def key(self) -> Key:
        return link_key(None, self.name)

    @property
    def stays(self) -> bool:
        return self.adopt

    @property
    def accept_ra(self) -> str:
        """Name of the setting that makes it heed router advertisements."""
        return f"net.ipv6.conf.{self.name.replace('.', '/')}.accept_ra"

    def render(self) -> tuple[str, ...]:
        mac = f" address {self.mac}" if self.mac else ""
        return (
            f"ip link add {self.name}{mac} type bridge mcast_snooping {self.multicast_snooping:d}",
            f"ip link set {self.name} addrgenmode none",
            f"sysctl -w {self.accept_ra}=0",
            # On its own: one that it is made with is forgotten when ports come and go.
            *((f"ip link set {self.name} mtu {self.mtu}",) if self.mtu else ()),
        )

    def render_delete(self) -> tuple[str, ...]:
        return (f"ip link delete {self.name}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        changes = "".join(
            f" {word} {value}"
            for word, value, old in (
                ("address", self.mac, getattr(previous, "mac", None)),
                ("mtu", self.mtu, getattr(previous, "mtu", None)),
            )
            if value is not None and value != old
        )
        if self.multicast_snooping != getattr(previous, "multicast_snooping", None):
            changes += f" type bridge mcast_snooping {self.multicast_snooping:d}"
        return (f"ip link set {self.name}{changes}",) if changes else ()


@attrs.frozen(kw_only=True)
class Veth(Resource):
    """
    A veth pair: one end up and in a bridge of the host, its peer in a namespace, still down.

    Args:
        name: Interface name of the host's end.
        bridge: Bridge the host's end is a port of; None for none.
        netns: Path of the peer's namespace.
        peer: Interface name of the peer, born with it (nothing is moved or renamed).
        mac: MAC of the peer.
        mtu: Bytes, of both ends.
        isolated: Whether the bridge forwards nothing between it and other isolated ports.
        hairpin: Whether the bridge may send a frame back where it came from: the way from an endpoint to
            its own published port, on hosts whose bridges pass frames to iptables (br_netfilter).
    """

    kind = "veth"
    rank = 30
    mutable = frozenset({"bridge", "mtu", "isolated", "hairpin"})

    name: str
    bridge: str | None = None
    netns: str
    peer: str
    mac: str
    mtu: int | None = None
    isolated: bool = False
    hairpin: bool = False

    @property
    def key(self) -> Key:
        return link_key(None, self.name)

    @property
    def provides(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.peer),)

    @property
    def parents(self) -> tuple[Key, ...]:
        # Not its namespace: a process in it, or an open file, may keep that alive.
        return ()

    def after(self, gone: AbstractSet[Key]) -> Resource:
        lost = self.bridge is not None and link_key(None, self.bridge) in gone
        return attrs.evolve(self, bridge=None) if lost else self

    def render(self) -> tuple[str, ...]:
        master = f" master {self.bridge}" if self.bridge else ""
        common = f"{f' mtu {self.mtu}' if self.mtu else ''} numtxqueues 1 numrxqueues 1"
        peer = f"peer name {self.peer} address {self.mac}{common} netns {self.netns}"
        return (
            f"ip link add {self.name}{common} type veth {peer}",
            f"ip link set {self.name} addrgenmode none",
            f"ip link set {self.name}{master} up",
            *(f"bridge link set dev {self.name} {flag} on" for flag in _PORT_FLAGS if getattr(self, flag)),
            f"{inside(self.netns)}ip link set {self.peer} addrgenmode none",
        )

    def render_delete(self) -> tuple[str, ...]:
        return (f"ip link delete {self.name}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        lines = []
        if self.bridge != getattr(previous, "bridge", None):
            lines.append(f"ip link set {self.name} {f'master {self.bridge}' if self.bridge else 'nomaster'}")
        for flag in _PORT_FLAGS:
            if getattr(self, flag) != getattr(previous, flag, None):
                word = "on" if getattr(self, flag) else "off"
                lines.append(f"bridge link set dev {self.name} {flag} {word}")
        if self.mtu not in {None, getattr(previous, "mtu", None)}:
            lines.append(f"ip link set {self.name} mtu {self.mtu}")
            lines.append(f"{inside(self.netns)}ip link set {self.peer} mtu {self.mtu}")
        return tuple(lines)


@attrs.frozen(kw_only=True)
class LinkUp(Resource):
    """
    An interface that is up. After its settings and addresses, before its routes.

    Has no delete: an interface stays up as long as it exists.

    Args:
        netns: Path of the namespace; None is the host's.
        dev: The interface.
    """

    kind = "up"
    rank = 60

    netns: str | None = None
    dev: str

    @property
    def key(self) -> Key:
        return ("up", self.netns, self.dev)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (link_key(self.netns, self.dev), *netns_keys(self.netns))

    def render(self) -> tuple[str, ...]:
        return (f"{inside(self.netns)}ip link set {self.dev} up",)

    def render_delete(self) -> tuple[str, ...]:
        return ()
