"""What is on a host: dumps of the namespaces that matter, compared with what is expected there."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import attrs

from pynetwork.kernel import answers, ethtool, fdb, files, netns, rtnl, sysctl
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.plan import Plan
from pynetwork.resources import (
    Address,
    Bridge,
    BridgePort,
    Cgroup,
    Directory,
    FdbEntry,
    File,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    Route,
    StrictVni,
    Sysctl,
    TxChecksum,
    Veth,
    Vxlan,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from pynetwork.kernel.admission import Admission
    from pynetwork.kernel.answers import AddressInfo, LinkInfo, NeighbourInfo, RouteInfo
    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.resources import Key, Resource

__all__ = ["Observer", "Snapshot"]

_METRIC = {4: 0, 6: 1024}  # of a route that was given none


class Snapshot:
    """One namespace, looked at once, as far as somebody asks."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._forwarding: dict[int, frozenset[str]] = {}

    @functools.cached_property
    def links(self) -> dict[str, LinkInfo]:
        """Links by name."""
        found = map(answers.parse_link, self._socket.dump(answers.dump_links))
        return {link.name: link for link in found}

    @functools.cached_property
    def names(self) -> dict[int, str]:
        """Names of links by ifindex."""
        return {link.ifindex: link.name for link in self.links.values()}

    @functools.cached_property
    def addresses(self) -> list[AddressInfo]:
        """All addresses."""
        return [answers.parse_address(payload) for payload in self._socket.dump(answers.dump_addresses)]

    @functools.cached_property
    def routes(self) -> list[RouteInfo]:
        """All unicast routes."""
        found = map(answers.parse_route, self._socket.dump(answers.dump_routes))
        return [route for route in found if route is not None]

    @functools.cached_property
    def neighbours(self) -> list[NeighbourInfo]:
        """All neighbours."""
        found = map(answers.parse_neighbour, self._socket.dump(answers.dump_neighbours))
        return [neighbour for neighbour in found if neighbour is not None]

    def forwarding(self, dev: str) -> frozenset[str]:
        """Return the addresses that the bridge of a port has on record, statically, as behind it."""
        index = self.index(dev)
        if index is None:
            return frozenset()
        if index not in self._forwarding:
            found = map(fdb.parse, self._socket.dump(fdb.dump(index)))
            self._forwarding[index] = frozenset(each.mac for each in found if each.static and not each.own)
        return self._forwarding[index]

    def index(self, dev: str) -> int | None:
        """Return the ifindex of a link, if there is one of that name."""
        link = self.links.get(dev)
        return None if link is None else link.ifindex

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()


@attrs.define
class Observer:
    """
    Finds resources on the host.

    Args:
        namespaces: To enter them.
        host: Opens a snapshot of the host's own namespace.
        group: Of links that are ours.
        directory: Where our namespaces are pinned.
        suffix: What the names of all that is ours end with.
        files_dir: Where the files of our sandboxes are.
        groups: The host's control groups.
        admission: From whom the host takes VXLAN packets.
    """

    namespaces: Namespaces
    host: Callable[[], Snapshot]
    group: int
    directory: Path
    suffix: str
    files_dir: Path
    groups: Groups
    admission: Admission
    _strict: tuple[set[int], set[int]] = attrs.field(init=False)
    _places: dict[str | None, Snapshot | None] = attrs.field(factory=dict, init=False)

    def observe(self, expected: Plan) -> Plan:
        """Return what exists of *expected*, as it is, and all else that is ours."""
        try:
            self._strict = self.admission.strict()
            found = [seen for item in expected if (seen := self._find(item)) is not None]
            return Plan((*found, *self._strangers(expected)))
        finally:
            for path, place in self._places.items():
                if path is not None and place is not None:
                    place.close()
            self._places.clear()

    def _place(self, path: str | None) -> Snapshot | None:
        if path not in self._places:
            if path is None:
                self._places[path] = self.host()
            elif netns.is_pinned(path):
                self._places[path] = Snapshot(self.namespaces.call(path, NetlinkSocket))
            else:
                self._places[path] = None
        return self._places[path]

    def _find(self, item: Resource) -> Resource | None:  # noqa: PLR0911 - a case for each kind
        if isinstance(item, Netns):
            return item if netns.is_pinned(item.path) else None
        if isinstance(item, Sysctl | LinkSysctl | TxChecksum):
            return self._setting(item)
        if isinstance(item, Bridge):
            return self._bridge(item)
        if isinstance(item, Directory | File | Cgroup):
            return self._of_machine(item)
        if isinstance(item, Veth):
            return self._veth(item)
        if isinstance(item, Vxlan):
            return self._vxlan(item)
        if isinstance(item, BridgePort | FdbEntry):
            return self._at_port(item)
        if isinstance(item, StrictVni):
            vnis, ports = self._strict
            return (
                attrs.evolve(item, port=item.port if item.port in ports else 0) if item.vni in vnis else None
            )
        place = self._place(getattr(item, "netns", None))
        return None if place is None else _configured(item, place)

    def _of_machine(self, item: Directory | File | Cgroup) -> Resource | None:
        if isinstance(item, File):
            return files.seen(item)
        if isinstance(item, Cgroup):
            return self.groups.seen(item)
        return item if os.path.isdir(item.path) else None  # noqa: PTH112 - a path as text

    def _setting(self, item: Sysctl | LinkSysctl | TxChecksum) -> Resource | None:
        if item.netns is not None and self._place(item.netns) is None:
            return None
        read = functools.partial(_as_set, item)
        enter = self.namespaces
        try:
            return enter.home(read) if item.netns is None else enter.call(item.netns, read)
        except OSError:
            is_moot = not isinstance(item, TxChecksum) and sysctl.is_moot(item.name)
            return item if is_moot else None

    def _bridge(self, item: Bridge) -> Bridge | None:
        place = self._place(None)
        link = None if place is None else place.links.get(item.name)
        if link is None or link.kind != "bridge":
            return None
        if link.group != self.group:  # another's: taken as it is, or in our way
            return item if item.adopt else None
        return attrs.evolve(
            item,
            mac=item.mac and link.mac,
            mtu=item.mtu and link.mtu,
            multicast_snooping=link.multicast_snooping,
        )

    def _veth(self, item: Veth) -> Veth | None:
        host, inner = self._place(None), self._place(item.netns)
        link = None if host is None else host.links.get(item.name)
        if host is None or link is None or link.group != self.group:
            return None
        peer = None if inner is None else inner.links.get(item.peer)
        if peer is None or (peer.ifindex, peer.link) != (link.link, link.ifindex):
            return attrs.evolve(item, peer="")  # not the pair it should be: replaced as a whole
        bridge = host.names.get(link.master) if link.up else None
        if bridge is not None and host.links[bridge].kind == "openvswitch":
            bridge = None  # what is a port of a switch in the kernel looks like a port of its datapath
        return attrs.evolve(
            item,
            mac=peer.mac,
            mtu=item.mtu and link.mtu,
            bridge=bridge,
            isolated=link.isolated,
            hairpin=link.hairpin,
        )

    def _vxlan(self, item: Vxlan) -> Vxlan | None:
        place = self._place(None)
        link = None if place is None else place.links.get(item.name)
        if place is None or link is None or link.kind != "vxlan" or link.group != self.group:
            return None
        known = fdb.parse_vxlan(link.data)
        return attrs.evolve(
            item,
            vni=known.vni,
            local=known.local,
            port=known.port,
            bridge=place.names.get(link.master) if link.up else None,
            mtu=link.mtu,
        )

    def _at_port(self, item: BridgePort | FdbEntry) -> Resource | None:
        place = self._place(None)
        link = None if place is None else place.links.get(item.dev)
        if place is None or link is None or place.names.get(link.master) != item.bridge:
            return None
        if isinstance(item, FdbEntry):
            return item if item.mac in place.forwarding(item.dev) else None
        return attrs.evolve(item, learning=link.learning, flood=link.flood)

    def _strangers(self, expected: Plan) -> Iterator[Resource]:
        known = {key for item in expected for key in (item.key, *item.provides)}
        place = self._place(None)
        for link in () if place is None else place.links.values():
            if link.group == self.group and ("link", None, link.name) not in known:
                yield _stranger(link)
        yield from self._machine_strangers(expected, known)
        for vni in sorted(self._strict[0]):
            if ("strict_vni", str(vni)) not in known:
                yield StrictVni(vni=vni)

    def _machine_strangers(self, expected: Plan, known: AbstractSet[Key]) -> Iterator[Resource]:
        if self.directory.is_dir():
            for path in sorted(self.directory.iterdir()):
                if path.name.endswith(self.suffix) and ("netns", str(path)) not in known:
                    yield Netns(path=str(path))
        for stray in files.strangers(self.files_dir, self.suffix):
            if ("directory", stray) not in known:
                yield Directory(path=stray)
        parents = {item.path.rpartition("/")[0] for item in expected if isinstance(item, Cgroup)}
        for stray in self.groups.strangers(parents, self.suffix):
            if ("cgroup", stray) not in known:
                yield Cgroup(path=stray)


def _as_set(item: Sysctl | LinkSysctl | TxChecksum) -> Resource:
    if isinstance(item, TxChecksum):
        return attrs.evolve(item, on=ethtool.leaves_checksums(item.dev))
    value = sysctl.read(item.name)
    return item if value.split() == item.value.split() else attrs.evolve(item, value=value)


def _stranger(link: LinkInfo) -> Resource:
    if link.kind == "bridge":
        return Bridge(name=link.name)
    if link.kind == "vxlan":
        return Vxlan(name=link.name, vni=0, local="", mtu=link.mtu)
    return Veth(name=link.name, netns="", peer="", mac=link.mac)


def _configured(item: Resource, place: Snapshot) -> Resource | None:
    """Return what is configured in a namespace under the key of *item*."""
    index = place.index(getattr(item, "dev", ""))
    if isinstance(item, Route):
        return _route(item, place)
    if index is None:
        return None
    if isinstance(item, LinkUp):
        return item if place.links[item.dev].up else None
    if isinstance(item, Address):
        cidrs = {address.cidr for address in place.addresses if address.ifindex == index}
        return item if item.cidr in cidrs else None
    if isinstance(item, Neighbour):
        for neighbour in place.neighbours:
            if (neighbour.ifindex, neighbour.address) == (index, item.address) and neighbour.permanent:
                return attrs.evolve(item, mac=neighbour.mac)
    return None


def _route(item: Route, place: Snapshot) -> Route | None:
    metric = _METRIC[6 if ":" in item.dst else 4] if item.metric is None else item.metric
    for route in place.routes:
        if (route.dst, route.metric, route.table) == (item.dst, metric, rtnl.RT_TABLE_MAIN):
            return attrs.evolve(item, via=route.via, dev=place.names.get(route.ifindex, ""))
    return None
