"""What the records of a network amount to: the newest has its slots, in whatever order they come and go."""

from __future__ import annotations

import errno
import sys
import threading

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork.peers import Change, Entry, Flood, Peer, PeerTable, Reach, Resolve, Slot
from pynetwork.plan import Plan, diff
from pynetwork.resources import Bridge, Vxlan
from pynetwork.testing import FakeKernel

MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "fd00::1"]
HOSTS = {"here": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}
WEB = Peer(host="b", vtep="192.0.2.2", mac=MACS[0], addresses=["10.0.0.1", "fd00::1"])
ENTRIES: set[Entry] = {Reach(MACS[0], "192.0.2.2"), Resolve("10.0.0.1", MACS[0]), Resolve("fd00::1", MACS[0])}


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    host = draw(st.sampled_from(sorted(HOSTS)))
    addresses = draw(st.lists(st.sampled_from(ADDRESSES), unique=True))
    return Peer(host=host, vtep=HOSTS[host], mac=draw(st.sampled_from(MACS)), addresses=addresses)


def expected(records: dict[str, tuple[Peer, int]], *, flood: bool) -> set[Entry]:
    """Return the entries of all records at once: of each slot the newest, none where one is of this host."""
    best: dict[Slot, tuple[int, Entry | None]] = {}
    for peer, revision in records.values():
        entries: list[Entry] = [Reach(peer.mac, str(peer.vtep))]
        entries += [Resolve(str(address), peer.mac) for address in peer.addresses]
        entries += [Flood(str(peer.vtep))] if flood and peer.host != "here" else []
        for entry in entries:
            is_here = peer.host == "here"
            rank = 1 << 40 if is_here else revision
            if rank >= best.get(entry.slot, (-1, None))[0]:
                best[entry.slot] = (rank, None if is_here else entry)
    return {entry for _, entry in best.values() if entry is not None}


@given(
    st.lists(st.tuples(st.sampled_from("wxyz"), st.none() | peers()), max_size=30),
    st.booleans(),
)
def test_changes_add_up_to_what_the_records_say(events: list[tuple[str, Peer | None]], flood: bool) -> None:
    """One record at a time, a dict that is told of the changes holds what all records amount to."""
    table = PeerTable("here", flood)
    records: dict[str, tuple[Peer, int]] = {}
    held: dict[Slot, Entry] = {}
    for revision, (endpoint, peer) in enumerate(events):
        change = table.put(endpoint, peer, revision)
        assert not {entry.slot for entry in change.put} & {entry.slot for entry in change.drop}
        held.update((entry.slot, entry) for entry in change.put)
        for entry in change.drop:
            assert held.pop(entry.slot) == entry
        records.pop(endpoint, None)
        if peer is not None:
            records[endpoint] = (peer, revision)
        assert set(held.values()) == expected(records, flood=flood) == set(table.entries())
    assert table.peers == records


def test_a_late_deletion_takes_nothing_from_who_has_the_address_now() -> None:
    """The new endpoint's record comes first, then the end of the old one: nothing is lost in between."""
    table = PeerTable("here")
    table.put("old", WEB, 5)
    moved = table.put("new", attrs.evolve(WEB, host="c", vtep="192.0.2.3"), 8)
    assert moved == Change(put=(Reach(MACS[0], "192.0.2.3"),))
    assert not table.put("old", None, 9)
    assert set(table.entries()) == ENTRIES - {Reach(MACS[0], "192.0.2.2")} | {Reach(MACS[0], "192.0.2.3")}


def test_an_older_record_that_comes_late_changes_nothing() -> None:
    table = PeerTable("here")
    table.put("new", WEB, 8)
    assert not table.put("old", attrs.evolve(WEB, host="c", vtep="192.0.2.3"), 5)
    assert table.put("new", None, 9).put  # what is left has its turn
    assert Reach(MACS[0], "192.0.2.3") in set(table.entries())


def test_an_endpoint_of_this_host_needs_no_entry_and_gives_way_to_none() -> None:
    table = PeerTable("here", flood=True)
    assert table.put("remote", WEB, 5)
    moved = table.put("local", attrs.evolve(WEB, host="here", vtep="192.0.2.1"), 3)
    assert set(moved.drop) == ENTRIES
    assert set(table.entries()) == {Flood("192.0.2.2")}


def test_a_host_gets_a_copy_as_long_as_one_of_its_endpoints_is_there() -> None:
    table = PeerTable("here", flood=True)
    other = attrs.evolve(WEB, mac=MACS[1], addresses=["10.0.0.2"])
    assert Flood("192.0.2.2") in table.put("web", WEB, 1).put
    assert Flood("192.0.2.2") not in table.put("other", other, 2).put
    assert Flood("192.0.2.2") not in table.put("web", None, 3).drop
    assert Flood("192.0.2.2") in table.put("other", None, 4).drop
    assert not set(table.entries())


def test_the_fake_keeps_entries_as_long_as_their_device() -> None:
    kernel = FakeKernel()
    datapath = kernel.peers()
    with pytest.raises(OSError, match="VNI 7") as caught:
        datapath.apply(7, Change(put=tuple(ENTRIES)))
    assert caught.value.errno == errno.ENODEV
    plan = Plan((Bridge(name="br0"), Vxlan(name="vx-7", vni=7, local="192.0.2.1", bridge="br0", mtu=1450)))
    kernel.apply(diff(Plan(), plan))
    datapath.apply(7, Change(put=tuple(ENTRIES)))
    assert datapath.entries(7) == ENTRIES
    assert datapath.reconcile(7, ENTRIES) == 0
    assert datapath.reconcile(7, {Reach(MACS[0], "192.0.2.9")}) == 3
    kernel.apply(diff(plan, Plan()))
    assert not datapath.entries(7)


def test_where_the_others_are_is_worked_out_again_only_when_a_host_comes_or_goes() -> None:
    """An agent asks at each event whether it is news, and of a network there may be very many hosts."""
    table = PeerTable("here")
    table.put("1", WEB, 1)
    before = table.vteps
    table.put("2", attrs.evolve(WEB, mac=MACS[1]), 2)
    table.put("1", attrs.evolve(WEB, name="web"), 3)
    table.put("2", None, 4)
    table.put("1", attrs.evolve(WEB, addresses=["10.0.0.2"]), 5)
    table.put("3", attrs.evolve(WEB, host="here", vtep=HOSTS["here"]), 6)
    assert table.vteps is before
    assert before == {"192.0.2.2"}
    table.put("4", attrs.evolve(WEB, host="c", vtep=HOSTS["c"]), 7)
    assert table.vteps == {"192.0.2.2", "192.0.2.3"}
    table.put("1", attrs.evolve(WEB, host="c", vtep=HOSTS["c"]), 8)
    assert table.vteps == {"192.0.2.3"}
    table.put("1", None, 9)
    table.put("4", None, 10)
    assert table.vteps == frozenset()


def test_the_fake_is_told_of_peers_while_something_is_removed_from_its_host() -> None:
    kernel = FakeKernel()
    plan = Plan((Bridge(name="ov-7", mtu=1450), Vxlan(name="vx-7", vni=7, local="192.0.2.9", mtu=1450)))
    kernel.apply(diff(Plan(), plan))
    other = Plan((Bridge(name="other", mtu=1450),))

    def tell() -> None:
        for _ in range(3000):
            kernel.peers().apply(7, Change(put=(Flood("192.0.2.1"),)))

    def remove() -> None:
        for _ in range(1500):
            kernel.apply(diff(Plan(), other))
            kernel.apply(diff(other, Plan()))

    threads = [threading.Thread(target=target, daemon=True) for target in (tell, remove)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
