"""Endpoints on other hosts, for an Open vSwitch: flows that follow what is known of them.

All flows of a network say so in their match, so what is there of one can be asked for; each is known by its
cookie, a digest of all that it is. So what is told twice changes nothing, and nothing is deleted that has
taken another's place.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.drivers.overlay_flows import (
    NETWORKS,
    answer_flows,
    flood_flow,
    member_flow,
    network_flows,
    reach_flows,
)
from pynetwork.errors import UnavailableError
from pynetwork.kernel import answers, rtnl
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.ovs.contents import Verified
from pynetwork.kernel.ovs.messages import Seen, add_flow, delete_flow
from pynetwork.kernel.probe import probe
from pynetwork.peers import Flood, Reach, Resolve
from pynetwork.resources.ovs import PLANNED, REMOTE, flow_cookie

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pynetwork.drivers.overlay_flows import FlowText
    from pynetwork.kernel.ovs.channel import Channel
    from pynetwork.peers import Change, Entry, Reached, Slot

__all__ = ["OvsPeers"]

_AT_ONCE: Final = 20_000  # flows in a bundle, which the switch holds twice
_DISCARD: Final = 9  # RFC 863


@attrs.define
class _Network:
    """What was told of a network."""

    vni: int
    strict: bool
    entries: dict[Slot, Entry] = attrs.field(factory=dict)
    hosts: Counter[str] = attrs.field(factory=Counter)  # by VTEP, how many entries are of each
    copied: set[str] = attrs.field(factory=set)  # VTEPs that get a copy of what is for everybody

    def put(self, entry: Entry) -> None:
        self.drop(entry.slot)
        self.entries[entry.slot] = entry
        if isinstance(entry, Reach):
            self.hosts[entry.vtep] += 1
        elif isinstance(entry, Flood):
            self.copied.add(entry.vtep)

    def drop(self, slot: Slot) -> None:
        entry = self.entries.pop(slot, None)
        if isinstance(entry, Reach):
            self.hosts[entry.vtep] -= 1
            if not self.hosts[entry.vtep]:
                del self.hosts[entry.vtep]
        elif isinstance(entry, Flood):
            self.copied.discard(entry.vtep)

    def flows(self, slots: Iterable[Slot], vteps: Iterable[str]) -> Iterator[FlowText]:
        """Yield the flows of *slots* and of the hosts *vteps*, as far as there are such."""
        is_flooded = False
        for slot in slots:
            match self.entries.get(slot):
                case Reach(mac=mac, vtep=vtep):
                    yield from reach_flows(self.vni, mac, vtep, strict=self.strict)
                case Resolve(address=address, mac=mac):
                    yield from answer_flows(self.vni, address, mac)
            is_flooded = is_flooded or slot[0] == "vtep"
        if is_flooded and self.copied:
            yield flood_flow(self.vni, self.copied)
        yield from (member_flow(self.vni, vtep) for vtep in vteps if vtep in self.hosts)


class OvsPeers:
    """
    See :class:`~pynetwork.peers.Peers`.

    Args:
        channel: Connection to the bridge.
        home: Calls a function in the host's own namespace, and returns what that does. Without it, hosts
            that are new are not greeted, and none can be probed.
    """

    def __init__(self, channel: Channel, home: Callable[[Callable[[], Any]], Any] | None = None) -> None:
        self._channel = channel
        self._home = home
        self._greeted: set[str] = set()
        self._greeted_by = 0  # the switch at the end of that connection
        self._networks: dict[int, _Network] = {}
        self._verified: dict[int, Verified] = {}

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._channel.close()

    def probe(self, targets: Iterable[str], size: int) -> Mapping[str, Reached]:
        """Return whether packets of *size* bytes, with their IP header, reach the hosts *targets*."""
        return {} if self._home is None else probe(targets, size, self._home)

    def apply(self, vni: int, change: Change) -> None:
        """Put what is new in place and drop what is gone, all at once; see :meth:`Peers.apply`."""
        strict = self._is_strict(vni)
        network = self._networks.get(vni)
        if network is None or network.strict != strict:
            msg = f"what this host has of VNI {vni} is to be looked at first"
            raise OSError(errno.ESTALE, msg)
        slots = tuple(dict.fromkeys(entry.slot for entry in (*change.put, *change.drop)))
        vteps = {
            entry.vtep
            for entry in (*change.put, *change.drop, *map(network.entries.get, slots))
            if isinstance(entry, Reach)
        }
        before = set(network.flows(slots, vteps))
        for entry in change.drop:
            network.drop(entry.slot)
        for entry in change.put:
            network.put(entry)
        after = set(network.flows(slots, vteps))
        try:
            self._send(
                [add_flow(*text, cookie=_cookie(text)) for text in after - before],
                [delete_flow(text.table, _cookie(text)) for text in before - after],
            )
        except BaseException:
            del self._networks[vni]  # what is there now must be looked at
            raise
        self._greet_new(network)

    def reconcile(self, vni: int, wanted: Collection[Entry]) -> int:
        """Make the entries of a network *wanted*; see :meth:`Peers.reconcile`."""
        self._networks.pop(vni, None)
        network = _Network(vni, self._is_strict(vni))
        for entry in wanted:
            network.put(entry)
        flows = network.flows(network.entries, network.hosts)
        target = {Seen(text.table, _cookie(text)): text for text in flows}
        found = self._contents(vni)
        missing = target.keys() - found.keys()
        surplus = found.keys() - target.keys()
        # Somebody has made something else of these; their cookies are of no use to know them by.
        stated = ((seen, text[1:]) for seen, text in target.items())
        wrong = self._verified.setdefault(vni, Verified()).wrong(found, stated)
        self._send(
            chain(
                (
                    change
                    for seen in wrong
                    for change in (
                        delete_flow(seen.table, seen.cookie),
                        add_flow(*target[seen], cookie=seen.cookie),
                    )
                ),
                (add_flow(*target[seen], cookie=seen.cookie) for seen in missing),
            ),
            (delete_flow(seen.table, seen.cookie) for seen in surplus),
        )
        self._networks[vni] = network
        self._greet_new(network)
        return len(missing) + len(surplus) + len(wrong)

    def _greet_new(self, network: _Network) -> None:
        if self._greeted_by != self._channel.connections:  # what it has heard is lost with the last one
            self._greeted, self._greeted_by = set(), self._channel.connections
        if self._home is not None and not network.hosts.keys() <= self._greeted:
            new = network.hosts.keys() - self._greeted
            self._greeted |= new
            self._home(partial(_greet, new))

    def _is_strict(self, vni: int) -> bool:
        """Return whether hosts are held to their endpoints in a network; the network's own flow tells."""
        found = {seen.cookie for seen in self._flows(PLANNED, f"metadata={vni:#x}", NETWORKS)}
        for strict in (False, True):
            if _cookie(network_flows(vni, strict=strict)[0], PLANNED) in found:
                return strict
        self._verified.pop(vni, None)
        raise OSError(errno.ENODEV, f"this host has nothing of VNI {vni}")

    def _flows(self, owner: int, match: str, table: int | None = None) -> list[Seen]:
        try:
            return self._channel.flows(owner, match, table)
        except UnavailableError as error:
            raise OSError(errno.ENODEV, str(error)) from error

    def _contents(self, vni: int) -> dict[Seen, bytes]:
        found: dict[Seen, bytes] = {}
        try:
            for field in ("metadata", "tun_id"):
                found.update(self._channel.contents(REMOTE, f"{field}={vni:#x}"))
        except UnavailableError as error:
            raise OSError(errno.ENODEV, str(error)) from error
        return found

    def _send(self, added: Iterable[bytes], deleted: Iterable[bytes]) -> None:
        """Send all as one bundle, or as several when it is much: what is new is there before the old goes."""
        changes = (change for some in (added, deleted) for change in some)
        try:
            while part := list(islice(changes, _AT_ONCE)):
                self._channel.change(part)
        except UnavailableError as error:
            raise OSError(errno.ENODEV, str(error)) from error


def _cookie(text: FlowText, owner: int = REMOTE) -> int:
    return flow_cookie(owner, *text)


def _greet(vteps: Collection[str]) -> None:
    """
    Have the kernel ask hosts for their MACs, so that the switch hears where they are.

    A switch in user space asks for a host's MAC when it has a packet for it, and loses that packet (Open
    vSwitch, issue 253). It listens when the host's own kernel asks, which does so when it has something to
    send and does not know the MAC; if it does, because the other has asked first, it has to be told to.
    """
    known: list[answers.NeighbourInfo] = []
    with contextlib.suppress(OSError), contextlib.closing(NetlinkSocket()) as kernel:
        found = map(answers.parse_neighbour, kernel.dump(answers.dump_neighbours))
        known = [each for each in found if each is not None and each.mac and each.address in vteps]
        kernel.batch([rtnl.ask_neighbour(each.address, each.ifindex) for each in known if not each.permanent])
    for vtep in set(vteps) - {each.address for each in known}:
        family = socket.AF_INET6 if ":" in vtep else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as opened:
            opened.setblocking(False)
            opened.sendto(b"", (vtep, _DISCARD))  # which it drops
