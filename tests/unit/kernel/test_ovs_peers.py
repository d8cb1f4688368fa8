"""Whatever is told of other hosts, in whatever order: the flows are those of what is known in the end."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork.drivers.overlay_flows import (
    FlowText,
    answer_flows,
    flood_flow,
    member_flow,
    network_flows,
    reach_flows,
)
from pynetwork.errors import UnavailableError
from pynetwork.kernel.ovs.messages import Seen, add_flow
from pynetwork.kernel.ovs.oxm import pack_match
from pynetwork.kernel.ovs.peers import OvsPeers
from pynetwork.peers import Change, Entry, Flood, Peer, PeerTable, Reach, Resolve
from pynetwork.resources.ovs import PLANNED, REMOTE, flow_cookie

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pynetwork.kernel.ovs.channel import Channel

VNI, OTHER_VNI = 1001, 1002
MACS = [f"02:00:00:00:00:0{n}" for n in range(1, 5)]
VTEPS = ["192.0.2.2", "192.0.2.3", "2001:db8::2"]
ADDRESSES = ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"]


class Bridge:
    """A bridge in memory, for who only adds, and deletes by cookie; of a match it knows the bytes."""

    def __init__(self, *networks: FlowText) -> None:
        self.flows: dict[tuple[int, int, bytes], int] = {}
        self.stated: dict[tuple[int, int], bytes] = {}
        self.bundles: list[int] = []
        self.is_away = False
        self.change([add_flow(*text, cookie=flow_cookie(PLANNED, *text)) for text in networks])

    def change(self, changes: Sequence[bytes]) -> None:
        if self.is_away:
            msg = "away"
            raise UnavailableError(msg)
        self.bundles.append(len(changes))
        for change in changes:
            cookie, _, table, command, _, _, priority = struct.unpack_from("!QQBBHHH", change)
            match = change[40 : 40 + struct.unpack_from("!H", change, 42)[0]]
            if command == 0:
                self.flows[table, priority, match] = cookie
                self.stated[table, cookie] = struct.pack("!H", priority) + change[40:]
            else:
                assert match == pack_match("")[:4]
                gone = [key for key, value in self.flows.items() if (key[0], value) == (table, cookie)]
                for key in gone:
                    del self.flows[key]

    def flows_of(self, owner: int, match: str = "", table: int | None = None) -> list[Seen]:
        if self.is_away:
            msg = "away"
            raise UnavailableError(msg)
        part = pack_match(match)[4:16]
        return [
            Seen(number, cookie)
            for (number, _, text), cookie in self.flows.items()
            if cookie >> 48 == owner and part in text and table in {None, number}
        ]

    def contents_of(self, owner: int, match: str = "") -> dict[Seen, bytes]:
        return {seen: self.stated[seen] for seen in self.flows_of(owner, match)}

    def remote(self) -> set[Seen]:
        return set(self.flows_of(REMOTE))


class Line:
    """What a channel to the bridge looks like."""

    connections = 1

    def __init__(self, bridge: Bridge) -> None:
        self.change = bridge.change
        self.flows = bridge.flows_of
        self.contents = bridge.contents_of

    def close(self) -> None:
        """Do nothing."""


def told(bridge: Bridge) -> OvsPeers:
    return OvsPeers(cast("Channel", Line(bridge)))


def seen(texts: Iterable[FlowText]) -> set[Seen]:
    return {Seen(text.table, flow_cookie(REMOTE, *text)) for text in texts}


def expected(vni: int, entries: Iterable[Entry], *, strict: bool = False) -> set[Seen]:
    """Return the flows of *entries*, each as it stands."""
    texts: list[FlowText] = []
    vteps, copied = set(), set()
    for entry in entries:
        if isinstance(entry, Reach):
            texts += reach_flows(vni, entry.mac, entry.vtep, strict=strict)
            vteps.add(entry.vtep)
        elif isinstance(entry, Resolve):
            texts += answer_flows(vni, entry.address, entry.mac)
        else:
            copied.add(entry.vtep)
    texts += (member_flow(vni, vtep) for vtep in vteps)
    texts += [flood_flow(vni, copied)] if copied else []
    return seen(texts)


entries = st.one_of(
    st.builds(Reach, st.sampled_from(MACS), st.sampled_from(VTEPS)),
    st.builds(Resolve, st.sampled_from(ADDRESSES), st.sampled_from(MACS)),
    st.builds(Flood, st.sampled_from(VTEPS)),
)


@given(st.lists(st.tuples(st.booleans(), entries), max_size=20), st.booleans())
def test_after_any_changes_the_flows_are_those_of_what_is_left(
    changes: list[tuple[bool, Entry]], strict: bool
) -> None:
    bridge = Bridge(*network_flows(VNI, strict=strict))
    peers = told(bridge)
    peers.reconcile(VNI, set())
    held = {}
    for is_put, entry in changes:
        if is_put:
            held[entry.slot] = entry
            peers.apply(VNI, Change(put=(entry,)))
        elif (gone := held.pop(entry.slot, None)) is not None:
            peers.apply(VNI, Change(drop=(gone,)))
        assert bridge.remote() == expected(VNI, held.values(), strict=strict)
    assert peers.reconcile(VNI, set(held.values())) == 0
    assert told(bridge).reconcile(VNI, set(held.values())) == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 2)), st.integers(0, 30))),
)
def test_records_in_any_order_leave_the_newest(news: list[tuple[str, int | None, int]]) -> None:
    """Addresses and MACs are used again, and the record of who had them may go late."""
    bridge = Bridge(*network_flows(VNI))
    peers, table = told(bridge), PeerTable("here", flood=True)
    peers.reconcile(VNI, set())
    known: dict[str, tuple[Peer, int]] = {}
    for endpoint, number, revision in news:
        peer = None
        known.pop(endpoint, None)
        if number is not None:
            at = {"mac": MACS[number], "addresses": [ADDRESSES[0], ADDRESSES[2 + number % 2]]}
            peer = Peer(host=f"h{number}", vtep=VTEPS[number], **at)  # type: ignore[arg-type]  # text converts
            known[endpoint] = (peer, revision)
        peers.apply(VNI, table.put(endpoint, peer, revision))
    assert bridge.remote() == expected(VNI, table.entries())
    for address in {str(address) for peer, _ in known.values() for address in peer.addresses}:
        claims = [
            (revision, peer.mac) for peer, revision in known.values() if address in map(str, peer.addresses)
        ]
        newest = {mac for revision, mac in claims if revision == max(claims)[0]}
        there = bridge.remote()
        assert any(seen(answer_flows(VNI, address, mac)) <= there for mac in newest)


def test_a_repair_touches_nothing_else() -> None:
    """What is missing comes, what is wrong or too much goes; other networks and other owners stay."""
    bridge = Bridge(*network_flows(VNI), *network_flows(OTHER_VNI))
    peers = told(bridge)
    others: set[Entry] = {Reach(MACS[0], VTEPS[0]), Resolve(ADDRESSES[0], MACS[0])}
    peers.reconcile(OTHER_VNI, others)
    mine: set[Entry] = {Reach(MACS[1], VTEPS[0]), Resolve(ADDRESSES[0], MACS[1]), Flood(VTEPS[0])}
    assert peers.reconcile(VNI, mine) == 4  # and what lets the host send
    whole = dict(bridge.flows)
    stray = FlowText(40, 100, f"metadata={VNI:#x},eth_dst={MACS[3]}", "drop")
    bridge.change([add_flow(*stray, cookie=flow_cookie(REMOTE, *stray))])
    for key in [key for key, cookie in bridge.flows.items() if Seen(key[0], cookie) in expected(VNI, mine)][
        :2
    ]:
        del bridge.flows[key]
    assert peers.reconcile(VNI, mine) == 3
    assert bridge.flows == whole


def test_what_takes_anothers_place_is_put_before_the_other_goes() -> None:
    bridge = Bridge(*network_flows(VNI, strict=True))
    peers = told(bridge)
    peers.reconcile(VNI, {Reach(MACS[0], VTEPS[0])})
    bridge.bundles.clear()
    peers.apply(VNI, Change(put=(Reach(MACS[0], VTEPS[1]),)))
    assert bridge.bundles == [6]  # three that are new and three that go, all at once
    assert bridge.remote() == expected(VNI, [Reach(MACS[0], VTEPS[1])], strict=True)


def test_a_network_that_is_not_here_or_not_looked_at_is_an_error() -> None:
    bridge = Bridge()
    peers = told(bridge)
    change = Change(put=(Reach(MACS[0], VTEPS[0]),))
    for call in (lambda: peers.apply(VNI, change), lambda: peers.reconcile(VNI, set())):
        with pytest.raises(OSError, match="nothing of VNI 1001") as caught:
            call()
        assert caught.value.errno == errno.ENODEV
    other = told(Bridge(*network_flows(VNI)))
    with pytest.raises(OSError, match="looked at first"):
        other.apply(VNI, change)


def test_a_bridge_that_is_away_is_tried_again_from_the_beginning() -> None:
    bridge = Bridge(*network_flows(VNI))
    peers = told(bridge)
    peers.reconcile(VNI, set())
    change = Change(put=(Reach(MACS[0], VTEPS[0]),))
    bridge.is_away = True
    for call in (lambda: peers.apply(VNI, change), lambda: peers.reconcile(VNI, set(change.put))):
        with pytest.raises(OSError, match="away"):
            call()
    bridge.is_away = False
    with pytest.raises(OSError, match="looked at first"):
        peers.apply(VNI, change)
    assert peers.reconcile(VNI, set(change.put)) == 2
    assert bridge.remote() == expected(VNI, change.put)
    peers.close()


def test_a_network_that_becomes_strict_is_looked_at_again() -> None:
    bridge = Bridge(*network_flows(VNI))
    peers = told(bridge)
    entry = Reach(MACS[0], VTEPS[0])
    peers.reconcile(VNI, {entry})
    strict = network_flows(VNI, strict=True)[0]
    bridge.change([add_flow(*strict, cookie=flow_cookie(PLANNED, *strict))])
    with pytest.raises(OSError, match="looked at first"):
        peers.apply(VNI, Change(drop=(entry,)))
    assert peers.reconcile(VNI, {entry}) == 1
    assert bridge.remote() == expected(VNI, [entry], strict=True)


def test_much_is_sent_in_several_bundles() -> None:
    bridge = Bridge(*network_flows(VNI))
    wanted = {Resolve(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", MACS[0]) for n in range(50_000)}
    bridge.bundles.clear()
    assert told(bridge).reconcile(VNI, wanted) == 50_000
    assert bridge.bundles == [20_000, 20_000, 10_000]


def test_a_host_is_greeted_once_by_each_switch() -> None:
    bridge = Bridge(*network_flows(VNI), *network_flows(OTHER_VNI))
    greeted: list[str] = []
    line = Line(bridge)
    peers = OvsPeers(cast("Channel", line), lambda greet: greeted.extend(*cast("Any", greet).args))
    peers.reconcile(VNI, {Reach(MACS[0], VTEPS[0])})
    assert greeted == VTEPS[:1]
    peers.apply(VNI, Change(put=(Reach(MACS[0], VTEPS[1]), Reach(MACS[1], VTEPS[0]))))
    peers.reconcile(OTHER_VNI, {Reach(MACS[0], VTEPS[0])})
    assert greeted == VTEPS[:2]
    line.connections = 2  # to a switch that was started anew, and has to hear of all again
    for _ in range(2):
        peers.reconcile(OTHER_VNI, {Reach(MACS[0], VTEPS[0])})
        assert greeted == [*VTEPS[:2], VTEPS[0]]
