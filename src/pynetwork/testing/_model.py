"""The kernel's own rules on a dict of resources: what needs what, and what goes with what.

Each rule was read off a Linux 6.18 host with ``ip``; tests compare the two.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.resources import (
    Address,
    Bridge,
    BridgePort,
    FdbEntry,
    Flow,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    OvsBridge,
    OvsPort,
    Resource,
    Route,
    Sysctl,
    TxChecksum,
    Veth,
    Vxlan,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.resources import Key
    from pynetwork.types import IPNetwork

__all__ = ["SETTINGS", "Device", "HostModel", "os_error"]

#: Kinds that are set, never deleted: setting them again is no error, and they carry no tag.
SETTINGS: Final = (Sysctl, LinkSysctl, LinkUp, BridgePort, TxChecksum)

# Of a route that names none.
_DEFAULT_METRIC: Final = {4: "0", 6: "1024"}


@attrs.frozen(kw_only=True)
class Device(Resource):
    """
    An interface that the host came with, such as a network card. It is up.

    Args:
        netns: Path of the namespace; None is the host's.
        name: Interface name.
    """

    kind = "device"
    rank = 20

    netns: str | None = None
    name: str

    @property
    def key(self) -> Key:
        """What identifies the object on the host."""
        return ("link", self.netns, self.name)

    @property
    def parents(self) -> tuple[Key, ...]:
        """Objects whose removal makes the kernel remove this one as well."""
        return () if self.netns is None else (("netns", self.netns),)

    def render(self) -> tuple[str, ...]:
        """Return its creation as lines a user could type."""
        inside = "" if self.netns is None else f"nsenter --net={self.netns} "
        return (f"{inside}ip link add {self.name} up type dummy",)

    def render_delete(self) -> tuple[str, ...]:
        """Return its deletion as lines a user could type."""
        inside = "" if self.netns is None else f"nsenter --net={self.netns} "
        return (f"{inside}ip link delete {self.name}",)


def os_error(code: int, subject: object) -> OSError:
    """Return the error of a system call that failed with *code* on *subject*."""
    return OSError(code, os.strerror(code), str(subject))


class HostModel:
    """The objects of a pretended host."""

    def __init__(self) -> None:
        self._objects: dict[Key, Resource] = {}
        self._providers: dict[Key, Key] = {}  # of what comes with an object: the key of that object

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._objects.values())

    def find(self, key: Key) -> Resource | None:
        """Return the object that *key* is, or is an end of."""
        return self._objects.get(self._providers.get(key, key))

    def put(self, resource: Resource) -> None:
        """Hold *resource*, in the place of what has its key, whatever the rules say."""
        was = self._objects.get(resource.key)
        for provided in () if was is None else was.provides:
            self._providers.pop(provided, None)
        self._objects[resource.key] = resource
        self._providers.update(dict.fromkeys(resource.provides, resource.key))

    def add(self, resource: Resource) -> None:
        """Create *resource* as the kernel would, or raise what the kernel would."""
        self.check(resource)
        for key in (resource.key, *resource.provides, *_aliases(resource)):
            found = self.find(key)
            if found is not None:
                raise os_error(errno.EEXIST, f"{resource}: {found}")
        if isinstance(resource, Netns) and resource.adopted is None:
            # What was left in a namespace that had been pinned here is out of sight.
            for key in [key for key in self._objects if key[1:2] == (resource.path,)]:
                self._pop(key)
        self.put(resource)

    def check(self, resource: Resource) -> None:
        """Raise what the kernel would if *resource* were created now, were it not there yet."""
        # Nothing in a namespace can be looked at before the namespace.
        for parent in sorted(resource.parents, key=lambda key: key[0] != "netns"):
            if not self._exists(parent):
                is_link = parent[0] == "link" and not isinstance(resource, LinkSysctl)
                raise os_error(errno.ENODEV if is_link else errno.ENOENT, resource)
        if isinstance(resource, Veth):
            self._check_veth(resource)
        elif isinstance(resource, Vxlan):
            self._check_vxlan(resource)
        elif isinstance(resource, BridgePort | FdbEntry):
            self._check_port(resource)
        elif isinstance(resource, OvsPort | Flow):
            self._check_switched(resource)
        elif isinstance(resource, Route):
            self._check_route(resource)

    def remove(self, key: Key) -> None:
        """Remove the object of *key*, and all that the kernel removes with it."""
        pending = [key]
        while pending:
            gone = self._objects.get(pending.pop())
            if gone is not None:
                pending.extend(victim.key for victim in self._goes_with(gone))
                self._pop(gone.key)
                self._detach(gone)

    def _pop(self, key: Key) -> Resource | None:
        gone = self._objects.pop(key, None)
        for provided in () if gone is None else gone.provides:
            self._providers.pop(provided, None)
        return gone

    def _exists(self, key: Key) -> bool:
        if key[0] == "link" and key[2] == "lo":
            return key[1] is None or ("netns", key[1]) in self._objects
        return self.find(key) is not None

    def _check_veth(self, veth: Veth) -> None:
        if not self._exists(("netns", veth.netns)):
            raise os_error(errno.ENOENT, veth)
        self._check_bridge(veth)

    def _check_bridge(self, port: Veth | Vxlan) -> None:
        if port.bridge is None:
            return
        master = self.find(("link", None, port.bridge))
        if master is None:
            raise os_error(errno.ENODEV, port)
        if not isinstance(master, Bridge):
            raise os_error(errno.EOPNOTSUPP, port)

    def _check_vxlan(self, link: Vxlan) -> None:
        self._check_bridge(link)
        for other in self:
            if not isinstance(other, Vxlan) or other.name == link.name:
                continue
            if (other.vni, other.port) == (link.vni, link.port):
                raise os_error(errno.EEXIST, f"{link}: {other}")

    def _check_port(self, item: BridgePort | FdbEntry) -> None:
        link = self.find(("link", None, item.dev))
        if not isinstance(link, Veth | Vxlan) or link.bridge != item.bridge:
            raise os_error(errno.EOPNOTSUPP, item)

    def _check_switched(self, item: OvsPort | Flow) -> None:
        if not isinstance(self.find(("link", None, item.bridge)), OvsBridge):
            raise os_error(errno.ENODEV, item)
        if isinstance(item, Flow):
            return
        others = [each for each in self if isinstance(each, OvsPort) and each.key != item.key]
        if any((each.bridge, each.ofport) == (item.bridge, item.ofport) for each in others):
            raise os_error(errno.EEXIST, item)
        if not item.type and not self._exists(("link", None, item.name)):
            raise os_error(errno.ENODEV, item)

    def _check_route(self, route: Route) -> None:
        if not self._is_up(route.netns, route.dev):
            raise os_error(errno.ENETDOWN, route)
        if route.via is not None and not self._is_on_link(route, route.via):
            raise os_error(errno.EHOSTUNREACH if _version(route) == 6 else errno.ENETUNREACH, route)

    def _is_up(self, netns: str | None, dev: str) -> bool:
        if dev == "lo" or ("up", netns, dev) in self._objects:
            return True
        key = ("link", netns, dev)
        link = self.find(key)
        return isinstance(link, Device | Vxlan) or (isinstance(link, Veth) and link.key == key)

    def _is_on_link(self, route: Route, via: str) -> bool:
        hop = ipaddress.ip_address(via)
        if hop.version == 6 and hop.is_link_local:
            return True
        reached = [
            _network(each)
            for each in self
            if isinstance(each, Address | Route) and (each.netns, each.dev) == (route.netns, route.dev)
            if isinstance(each, Address) or each.via is None
        ]
        return any(hop in network for network in reached)

    def _goes_with(self, gone: Resource) -> list[Resource]:
        if isinstance(gone, Netns) and gone.adopted is not None:
            return []  # Only the pin went; the namespace lives on, unseen.
        lost = {gone.key, *gone.provides}
        victims = [each for each in self if not lost.isdisjoint(each.parents)]
        if isinstance(gone, Netns):
            victims += (each for each in self if isinstance(each, Veth) and each.netns == gone.path)
        elif isinstance(gone, LinkUp):
            victims += (
                each for each in self._on(gone) if not isinstance(each, Address) or _version(each) == 6
            )
        elif isinstance(gone, Address) and _version(gone) == 4:
            victims += self._goes_with_address(gone)
        return victims

    def _goes_with_address(self, gone: Address) -> list[Address | Neighbour | Route]:
        """Return what goes with an IPv4 address; IPv6 has no such rules."""
        ipv4 = [each for each in self._on(gone) if _version(each) == 4]
        addresses = [each for each in ipv4 if isinstance(each, Address)]
        subnet = [each for each in addresses if _network(each) == _network(gone)]
        if subnet[0] == gone:
            # The others of its subnet are secondary (sysctl promote_secondaries is off).
            return list(ipv4 if subnet == addresses else subnet)
        return []

    def _on(self, at: Address | LinkUp) -> list[Address | Neighbour | Route]:
        """Return what is configured on the interface of *at*, oldest first."""
        return [
            each
            for each in self
            if isinstance(each, Address | Neighbour | Route) and (each.netns, each.dev) == (at.netns, at.dev)
        ]

    def _detach(self, gone: Resource) -> None:
        """Leave the ports of a bridge that is gone without one, and a switch's port without its link."""
        if isinstance(gone, Bridge):
            links = [each for each in self if isinstance(each, Veth | Vxlan)]
            for port in [each for each in links if each.bridge == gone.name]:
                self.put(attrs.evolve(port, bridge=None))
        if isinstance(gone, Veth):
            port_row = self.find(("ovs_port", gone.name))
            if isinstance(port_row, OvsPort):
                self.put(attrs.evolve(port_row, ofport=0))


def _version(resource: Address | Route | Neighbour) -> int:
    if isinstance(resource, Address):
        text = resource.cidr
    else:
        text = resource.dst if isinstance(resource, Route) else resource.address
    return 6 if ":" in text else 4


def _network(resource: Address | Route) -> IPNetwork:
    if isinstance(resource, Route):
        return ipaddress.ip_network(resource.dst)
    return ipaddress.ip_interface(resource.cidr).network


def _aliases(resource: Resource) -> tuple[Key, ...]:
    """Return the other keys that the kernel takes for the same object."""
    if not isinstance(resource, Route):
        return ()
    default = _DEFAULT_METRIC[_version(resource)]
    metric = {None: default, default: None}.get(resource.key[3])
    if resource.key[3] not in {None, default}:
        return ()
    return ((*resource.key[:3], metric),)
