"""Endpoints on other hosts, for the kernel's own VXLAN: what its device and its bridge forward, and answer.

A device is ours altogether, so every entry it has is: what is too many needs no tag to be known by.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from pynetwork.kernel import answers, fdb, rtnl
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.probe import probe
from pynetwork.peers import Change, Flood, Reach, Resolve
from pynetwork.resources import vxlan_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from pynetwork.kernel.admission import Admission
    from pynetwork.kernel.netlink import Message
    from pynetwork.peers import Entry, Reached

__all__ = ["LinuxPeers"]

_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH})


class LinuxPeers:
    """
    See :class:`~pynetwork.peers.Peers`.

    Args:
        admission: From whom the host takes VXLAN packets.
        home: Calls a function in the host's own namespace, and returns what that does.
    """

    def __init__(self, admission: Admission, home: Callable[[Callable[[], Any]], Any]) -> None:
        self._home = home
        self._admission = admission
        self._sources: dict[int, dict[str, str]] = {}  # of strict networks: MAC to VTEP, as told
        self._host: NetlinkSocket = home(NetlinkSocket)

    def admit(self, port: int, members: Mapping[int, Collection[str]]) -> None:
        """Take packets of networks from the hosts that are in them only; see :meth:`Admitting.admit`."""
        self._admission.admit(port, members)

    def probe(self, targets: Iterable[str], size: int) -> Mapping[str, Reached]:
        """Return whether packets of *size* bytes, with their IP header, reach the hosts *targets*."""
        return probe(targets, size, self._home)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._host.close()

    def apply(self, vni: int, change: Change) -> None:
        """Put what is new in place, then drop what is gone; see :meth:`Peers.apply`."""
        index = self._index(vni)
        sources = self._sources.get(vni)
        if self._admission.is_strict(vni) != (sources is not None):
            msg = f"what this host has of VNI {vni} is to be looked at first"
            raise OSError(errno.ESTALE, msg)
        if sources is None:
            self._apply(index, change)
            return
        new = {entry.mac: entry.vtep for entry in change.put if isinstance(entry, Reach)}
        gone = {entry.mac for entry in change.drop if isinstance(entry, Reach)}
        old = [(mac, sources[mac]) for mac in (*new, *gone) if sources.get(mac, new.get(mac)) != new.get(mac)]
        # Frames from where an endpoint is now are taken before any are sent there, and as long as any are.
        if new:
            self._admission.put(vni, new.items())
        self._apply(index, change)
        if old:
            self._admission.drop(vni, old)
        for mac in gone:
            sources.pop(mac, None)
        sources.update(new)

    def reconcile(self, vni: int, wanted: Collection[Entry]) -> int:
        """Make the entries of a network *wanted*; see :meth:`Peers.reconcile`."""
        index = self._index(vni)
        self._sources.pop(vni, None)
        sources = {entry.mac: entry.vtep for entry in wanted if isinstance(entry, Reach)}
        is_strict = self._admission.is_strict(vni)
        wrong = self._admission.reconcile(vni, list(sources.items()) if is_strict else None)
        found, half = self._found(index)
        target = set(wanted)
        slots = {entry.slot for entry in target}
        missing = [e for e in target if e not in found or (isinstance(e, Reach) and e.mac in half)]
        surplus = [entry for entry in found - target if entry.slot not in slots]
        twice = [e for e in found - target if e.slot in slots and isinstance(e, Reach)]
        stray = [mac for mac in half if ("mac", mac) not in slots]
        self._send([fdb.fdb(e.mac, index, remote=e.vtep, delete=True) for e in twice], _GONE)
        self._apply(index, Change(tuple(missing), tuple(surplus)))
        self._send([fdb.fdb(mac, index, delete=True) for mac in stray], _GONE)
        if is_strict:
            self._sources[vni] = sources
        slots_wrong = {entry.slot for entry in (*missing, *surplus, *twice)} | {("mac", mac) for mac in stray}
        return wrong + len(slots_wrong)

    def _index(self, vni: int) -> int:
        return answers.ifindex_of(self._host.ask(rtnl.get_link(vxlan_name(vni))))

    def _apply(self, index: int, change: Change) -> None:
        self._send([message for entry in change.put for message in _put(entry, index)], frozenset())
        self._send([message for entry in change.drop for message in _drop(entry, index)], _GONE)

    def _send(self, messages: Sequence[Message], harmless: frozenset[int]) -> None:
        for error in self._host.batch(messages).values() if messages else ():
            if error.errno not in harmless:
                raise error

    def _found(self, index: int) -> tuple[set[Entry], set[str]]:
        """Return what there is, and the MACs that either the device or the bridge knows, but not both."""
        entries = [fdb.parse(payload) for payload in self._host.dump(fdb.dump(index))]
        own = [(entry.mac, entry.remote) for entry in entries if entry.own and entry.remote is not None]
        behind = {entry.mac for entry in entries if entry.static and not entry.own}
        neighbours = map(answers.parse_neighbour, self._host.dump(answers.dump_neighbours))
        found: set[Entry] = {Flood(r) if mac == fdb.ANYONE else Reach(mac, r) for mac, r in own}
        found.update(
            Resolve(each.address, each.mac)
            for each in neighbours
            if each is not None and each.ifindex == index and each.permanent
        )
        return found, behind ^ {mac for mac, _ in own if mac != fdb.ANYONE}


def _put(entry: Entry, index: int) -> tuple[Message, ...]:
    match entry:
        case Reach(mac=mac, vtep=vtep):
            return (fdb.fdb(mac, index, remote=vtep), fdb.fdb(mac, index))
        case Resolve(address=address, mac=mac):
            return (rtnl.neighbour(address, index, mac=mac, replace=True),)
        case Flood(vtep=vtep):
            return (fdb.fdb(fdb.ANYONE, index, remote=vtep, append=True),)


def _drop(entry: Entry, index: int) -> tuple[Message, ...]:
    match entry:
        case Reach(mac=mac, vtep=vtep):
            return (fdb.fdb(mac, index, delete=True), fdb.fdb(mac, index, remote=vtep, delete=True))
        case Resolve(address=address):
            return (rtnl.neighbour(address, index, delete=True),)
        case Flood(vtep=vtep):
            return (fdb.fdb(fdb.ANYONE, index, remote=vtep, delete=True),)
