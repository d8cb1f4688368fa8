"""The agent: what it announces, what it makes of what others do, and what it does when things go wrong."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import pytest
from tests.unit.cluster.hosts import World

from pynetwork import ConflictError, MemoryStore, NotFoundError, PeerProbe, StoreError, doctor
from pynetwork.cluster import layout
from pynetwork.cluster.here import HereView
from pynetwork.cluster.layout import NAMES, peer_key, write
from pynetwork.dns.zone import Directory
from pynetwork.kernel.ovs.channel import FlowRefusedError
from pynetwork.peers import Flood, Peer, Reach, Reached, Resolve
from pynetwork.plan import StepFailedError
from pynetwork.resources import StrictVni, Vxlan
from pynetwork.store import Delete, Put
from pynetwork.store._polling import PollingWatcher
from pynetwork.testing import FakeKernel
from pynetwork.testing.fake_peers import FakePeers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from tests.unit.cluster.hosts import Host

    from pynetwork import Endpoint
    from pynetwork.cluster.here import Here
    from pynetwork.peers import Entry
    from pynetwork.plan import Plan, Step
    from pynetwork.store import Entry as StoreEntry


def expected(endpoint: Endpoint, host: str) -> set[Entry]:
    """Return what a host is told of an endpoint of another."""
    vtep = f"192.0.2.{host[1:]}"
    return {Reach(endpoint.mac, vtep), *(Resolve(str(a.ip), endpoint.mac) for a in endpoint.addresses)}


@pytest.fixture
def pair(world: World) -> tuple[Host, Host]:
    a, b = world.host("h1"), world.host("h2")
    a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24", "fd01::/64"])
    return a, b


def test_each_host_is_told_of_the_endpoints_of_others_that_are_joined(
    world: World, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    web, db = a.joined("net", "web", aliases=["www"]), b.joined("net", "db")
    b.controller.networks["net"].create_endpoint("alone")
    world.settle()
    assert a.entries("net") == expected(db, "h2")
    assert b.entries("net") == expected(web, "h1")
    (peer,) = a.controller.networks["net"].peers
    assert (peer.host, peer.vtep, peer.alive) == ("h2", ip_address("192.0.2.2"), True)
    assert peer.endpoints == {"db": tuple(address.ip for address in db.addresses)}
    assert peer.installed == peer.revision
    web.leave()
    world.settle()
    assert b.entries("net") == set()
    web.join(a.controller.sandboxes["net-web"])
    world.settle()
    assert b.entries("net") == expected(web, "h1")
    web.delete(force=True)
    world.settle()
    assert b.entries("net") == set()
    assert b.controller.networks["net"].peers == ()


def test_what_others_are_called_is_in_the_host_s_own_store_as_long_as_it_follows_them(
    world: World, pair: tuple[Host, Host]
) -> None:
    """Its name server reads it there, in whichever process that is."""
    a, b = pair
    web, db = a.joined("net", "web"), b.joined("net", "db", aliases=["sql"])
    directory = Directory()
    a.controller._core.records.follow(directory.put)
    world.settle()
    names = directory.zone(web.network.id).names
    assert {bytes(name) for name in names} == {b"\3web\0", b"\2db\0", b"\3sql\0"}
    (found,) = names[b"\3sql\0"]
    assert found.addresses == tuple(address.ip for address in db.addresses)
    revision = a.controller.statistics()["revision"]
    world.settle()
    assert a.controller.statistics()["revision"] == revision  # what is no news is not written
    more = b.joined("net", "more")
    world.settle()
    assert b"\4more\0" in names
    db.delete(force=True)
    more.leave()
    world.settle()
    assert {bytes(name) for name in names} == {b"\3web\0"}
    more.join(b.controller.sandboxes["net-more"])
    world.settle()
    assert a.controller._core.records.peers
    web.delete(force=True)
    world.settle()
    assert not a.controller._core.records.peers


def test_only_hosts_that_have_endpoints_of_a_network_follow_it(world: World, pair: tuple[Host, Host]) -> None:
    a, b = pair
    world.settle()
    a.joined("net", "web")
    world.settle()
    assert b.worker.followed(a.controller.networks["net"].id) is None
    (peer,) = b.controller.networks["net"].peers
    assert (peer.host, peer.installed) == ("h1", None)
    late = b.joined("net", "late")
    world.settle()
    assert len(b.entries("net")) == 3
    late.delete(force=True)
    world.settle()
    assert b.worker.followed(a.controller.networks["net"].id) is None


def test_two_networks_with_the_same_addresses_are_told_apart(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    for name in ("red", "blue"):
        a.controller.new_network("overlay", name, subnets=["10.1.0.0/24"])
    red = a.joined("red", "web", addresses=["10.1.0.5"])
    b.joined("red", "x")
    b.joined("blue", "web", addresses=["10.1.0.5"])
    world.settle()
    assert b.entries("red") == expected(red, "h1")
    assert b.entries("blue") == set()


def test_with_bum_each_host_of_the_network_gets_a_copy(world: World) -> None:
    hosts = [world.host(f"h{number}") for number in (1, 2, 3)]
    hosts[0].controller.new_network("overlay", "net", options={"bum": True})
    made = [host.joined("net", host.name) for host in hosts]
    world.settle()
    copies = {entry for entry in hosts[0].entries("net") if isinstance(entry, Flood)}
    assert copies == {Flood("192.0.2.2"), Flood("192.0.2.3")}
    made[1].leave()
    world.settle()
    assert Flood("192.0.2.2") not in hosts[0].entries("net")


def test_an_endpoint_moves_with_its_addresses_and_mac(world: World) -> None:
    """Third hosts are told of the new place, the old host that it is elsewhere now."""
    hosts = [world.host(f"h{number}") for number in (1, 2, 3)]
    hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    for host in hosts:
        host.joined("net", f"stays-{host.name}")
    where = {"addresses": ["10.1.0.99"], "mac": "02:00:00:00:00:99"}
    moving = hosts[0].joined("net", "moves", **where)
    world.settle()
    assert expected(moving, "h1") <= hosts[2].entries("net")
    moving.delete(force=True)
    moved = hosts[1].joined("net", "moves", **where)
    world.settle()
    assert expected(moved, "h2") <= hosts[0].entries("net") & hosts[2].entries("net")
    assert not expected(moved, "h2") & hosts[1].entries("net")


def events(world: World, since: int) -> list[Any]:
    news = world.store.changes(since)
    assert news is not None
    return [change for change in news.changes if change.key.startswith("eps/")]


def test_events_in_the_wrong_order_lose_nothing(world: World, pair: tuple[Host, Host]) -> None:
    """The record of the new owner of an address comes first, the end of the old one's last."""
    a, b = pair
    network = a.controller.networks["net"]
    b.joined("net", "watcher")
    world.settle()
    prefix = f"eps/{network.id}/"
    peer = Peer(host="h9", vtep="192.0.2.9", mac="02:00:00:00:00:01", addresses=["10.1.0.5"])
    old = world.store.transact([], [put(f"{prefix}old", peer)])
    assert old is not None
    for change in events(world, old - 1):
        b.worker.take(change)
    new = world.store.transact([], [put(f"{prefix}new", attrs.evolve(peer, host="h8", vtep="192.0.2.8"))])
    assert new is not None
    gone = world.store.transact([], [Delete(f"{prefix}old")])
    assert gone is not None
    for change in events(world, old):
        b.worker.take(change)
    assert Reach("02:00:00:00:00:01", "192.0.2.8") in b.entries("net")
    for change in reversed(events(world, old)):
        b.worker.take(change)
        assert {Reach("02:00:00:00:00:01", "192.0.2.8"), Resolve("10.1.0.5", peer.mac)} <= b.entries("net")


def put(key: str, peer: Peer) -> Put:
    return Put(key, write(peer))


def test_an_older_event_than_what_was_read_is_ignored(world: World, pair: tuple[Host, Host]) -> None:
    a, b = pair
    web = a.joined("net", "web")
    b.joined("net", "watcher")
    world.settle()
    revision = world.store.list("").revision
    web.delete(force=True)
    world.settle("h1")
    late = [attrs.evolve(change, revision=1) for change in events(world, revision)]
    assert late
    for change in late:
        b.worker.take(change)
    assert b.entries("net") == expected_of(b)
    world.settle()
    assert b.entries("net") == set()


def expected_of(host: Host) -> set[Entry]:
    followed = host.worker.followed(host.controller.networks["net"].id)
    assert followed is not None
    return set(followed.table.entries())


def test_a_host_that_died_is_withdrawn_with_its_lease_and_keeps_its_addresses_for_a_time(
    world: World, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    web = a.joined("net", "web", addresses=["10.1.0.5"])
    b.joined("net", "db")
    world.settle()
    world.clock.turn(9)
    world.heard_of("h2")
    world.settle("h2")
    assert b.entries("net") == expected(web, "h1")
    world.clock.turn(2)  # ten seconds are over for the one, not for the other
    world.settle("h2")
    assert b.entries("net") == set()
    assert b.controller.networks["net"].peers == ()
    with pytest.raises(ConflictError, match=r"10\.1\.0\.5 of network 'net' is in use"):
        b.controller.networks["net"].create_endpoint("taker", addresses=["10.1.0.5"])

    def upkeep(seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            world.clock.turn(5)
            world.heard_of("h2")
        b.worker.keep_up(now=True)

    upkeep(0)  # is missed from now on
    upkeep(595)
    assert world.keys("held/h1/")
    upkeep(10)
    assert not world.keys("held/h1/")
    assert world.keys("known/") == ["known/h2"]
    taker = b.joined("net", "taker", addresses=["10.1.0.5"])
    # It comes back, and finds that others have what was its own.
    world.settle()
    assert a.worker.register()
    assert a.worker.quarantined == {web.id}
    world.settle()
    assert a.entries("net") == expected(taker, "h2") | expected(
        b.controller.networks["net"].endpoints["db"], "h2"
    )
    assert not any(key.endswith(web.id) for key in world.keys("eps/"))


def test_a_host_that_comes_back_in_time_finds_all_its_own(world: World, pair: tuple[Host, Host]) -> None:
    a, b = pair
    web = a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    world.clock.turn(11)
    a.joined("net", "new")
    with pytest.raises(NotFoundError):
        a.worker.look()
    a.worker.register()
    b.worker.register()
    world.settle()
    both = expected(web, "h1") | expected(a.controller.networks["net"].endpoints["new"], "h1")
    assert b.entries("net") == both
    assert not a.worker.quarantined


def test_a_host_whose_addresses_were_freed_and_not_taken_gets_them_back(
    world: World, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    web = a.joined("net", "web")
    world.settle()
    b.joined("net", "db")
    world.settle()
    assert b.span.ledger.release(web.id, "h1")
    a.worker.register()
    world.settle()
    assert not a.worker.quarantined
    assert world.keys("held/h1/")
    assert b.entries("net") == expected(web, "h1")


def test_one_host_of_the_cluster_looks_for_dead_ones(world: World, pair: tuple[Host, Host]) -> None:
    a, b = pair
    world.settle()
    for host in (a, b):
        host.worker.keep_up(now=True)
    entry = world.store.get("reaper")
    assert entry is not None
    assert entry.value == "h1"
    world.clock.turn(11)  # its lease ends, and with it its turn
    b.worker.register()
    b.worker.keep_up(now=True)
    entry = world.store.get("reaper")
    assert entry is not None
    assert entry.value == "h2"


def test_a_host_that_is_missed_and_back_is_not_missed_any_more(world: World, pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.joined("net", "web")
    world.settle()
    world.clock.turn(11)
    b.worker.register()
    b.worker.keep_up(now=True)
    a.worker.register()
    for _ in range(300):
        world.clock.turn(5)
        world.heard_of("h1", "h2")
    b.worker.keep_up(now=True)
    assert world.keys("held/h1/")
    entry = world.store.get("known/h1")
    assert entry is not None
    assert "missed" not in entry.value


def test_two_hosts_cannot_have_one_name_nor_two_ports(world: World) -> None:
    world.host("h1")
    world.settle()
    with pytest.raises(ConflictError, match=r"another of that name is in it, with VTEP 192\.0\.2\.1"):
        world.host("h1", process="another machine")
    with pytest.raises(ConflictError, match="VXLAN on port 4790: host 'h1' has it on port 4789"):
        world.host("h2", vxlan_port=4790)


def test_a_host_that_registers_again_looks_at_no_other(
    world: World, asked: Callable[[str], list[str]]
) -> None:
    a, b = world.host("h1"), world.host("h2")
    listed = asked("list")
    world.settle()
    assert listed.count("hosts/") == 2  # once for each
    world.clock.turn(11)
    for host in (a, b):
        host.worker.register()
    assert listed.count("hosts/") == 2
    assert world.keys("hosts/") == ["hosts/h1", "hosts/h2"]


def test_a_host_whose_name_another_took_while_it_was_away_is_refused_and_leaves_nothing(world: World) -> None:
    a = world.host("h1")
    world.settle()
    world.clock.turn(11)
    other = world.host("h1", process="another machine")
    world.settle()
    taken = world.store.get("hosts/h1")
    granted = world.store.grant(10).id
    with pytest.raises(ConflictError, match="another of that name is in it"):
        a.worker.register()
    assert world.store.get("hosts/h1") == taken
    assert world.store.grant(10).id == granted + 1
    a.controller.close()
    other.controller.close()


def test_an_agent_that_starts_again_finds_what_changed_meanwhile(world: World) -> None:
    """Nothing that was there is touched: what is announced stays so, and the datapath gets what is new."""
    kernel, store = FakeKernel(), MemoryStore()
    a, b = world.host("h1", kernel=kernel, store=store), world.host("h2")
    a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    web, old = a.joined("net", "web"), b.joined("net", "old")
    world.settle()
    announced, was = world.store.list("eps/").entries, expected(old, "h2")
    wanted, identity = expected(web, "h1"), web.id
    a.controller.close()
    old.delete(force=True)
    new = b.joined("net", "new")
    world.settle("h2")
    assert a.kernel.peers().entries(b.controller.networks["net"].options.vni) == was
    again = world.host("h1", kernel=kernel, store=store, process="again", dead=("process of h1",))
    world.settle()
    assert again.entries("net") == expected(new, "h2")
    assert b.entries("net") == wanted
    values = {entry.key: entry.value for entry in world.store.list("eps/").entries}
    assert all(values[entry.key] == entry.value for entry in announced if identity in entry.key)


def test_what_an_earlier_agent_announced_and_left_meanwhile_is_withdrawn(world: World) -> None:
    kernel, store = FakeKernel(), MemoryStore()
    a, b = world.host("h1", kernel=kernel, store=store), world.host("h2")
    a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    web = a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    web.leave()  # and nobody is there to say so
    a.controller.close()
    world.host("h1", kernel=kernel, store=store, process="again", dead=("process of h1",))
    world.settle()
    assert b.entries("net") == set()


def test_a_whole_look_reads_what_is_news_and_of_this_host_s_networks(
    world: World,
    pair: tuple[Host, Host],
    monkeypatch: pytest.MonkeyPatch,
    asked: Callable[[str], list[str]],
) -> None:
    a, b = pair
    a.joined("net", "web")
    known = b.joined("net", "db")
    world.settle()
    world.store.transact([], [Put(f"eps/{'f' * 32}/other", "no record, and none of h1's business")])
    new = b.joined("net", "new")
    world.settle("h2")
    read: list[str] = []

    def note(cls: type[Peer], entry: StoreEntry) -> Peer:
        read.append(entry.key)
        return layout.read(cls, entry)

    monkeypatch.setattr("pynetwork.cluster.worker.read", note)
    listed = asked("list")
    a.worker.register()  # as after its lease was lost
    assert [prefix for prefix in listed if prefix.startswith("eps")] == [layout.peer_key(new.network.id)]
    assert [key for key in read if known.id in key] == []
    assert [key for key in read if new.id in key] == [layout.peer_key(new.network.id, new.id)]
    assert {entry.mac for entry in a.entries("net") if isinstance(entry, Reach)} == {known.mac, new.mac}


def test_what_others_do_is_no_reason_to_look_at_all_that_this_host_has(
    world: World, pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event costs the same on a host with very many endpoints."""
    a, b = pair
    for number in range(3):
        a.joined("net", f"a{number}")
    world.settle()
    looks: list[str] = []
    find = HereView.find

    def note(view: HereView, quarantined: Collection[str]) -> Here:
        looks.append("look")
        return find(view, quarantined)

    monkeypatch.setattr(HereView, "find", note)
    db = b.joined("net", "db")
    world.settle("h2")
    looks.clear()
    network, since = db.network.id, a.worker.networks()[db.network.id][1]
    for change in world.store.history(since).changes:  # type: ignore[union-attr]  # it is known
        if change.key.startswith(peer_key(network)):
            a.worker.take(change)
    a.worker.finish()
    assert not a.worker.look()
    assert a.entries("net") == expected(db, "h2")
    assert looks == []
    web = a.joined("net", "web")
    assert a.worker.look()
    assert len(looks) == 1
    assert web.id in {key.rpartition("/")[2] for key in world.keys(peer_key(network))}


def test_a_host_that_has_another_address_than_before_is_reached_there(world: World) -> None:
    kernel, store = FakeKernel(), MemoryStore()
    a, b = world.host("h1", kernel=kernel, store=store), world.host("h2")
    network = a.controller.new_network("overlay", "net")
    web, db = a.joined("net", "web"), b.joined("net", "db")
    world.settle()
    was = expected(db, "h2")
    mac = web.mac
    a.controller.close()
    moved = world.host(
        "h1", kernel=kernel, store=store, vtep="192.0.2.77", process="again", dead=("process of h1",)
    )
    (device,) = [item for item in kernel.resources if isinstance(item, Vxlan)]
    assert device.local == "192.0.2.77"
    world.settle()
    assert moved.entries("net") == was
    assert Reach(mac, "192.0.2.77") in b.entries("net")
    assert moved.controller.reconcile(dry_run=True).is_clean
    moved.controller.close()
    narrow = FakeKernel(existing=(), mtu=1400)
    narrow._host, narrow._ours, narrow._peers = kernel._host, kernel._ours, kernel._peers
    again = world.host("h1", kernel=narrow, store=store, process="third", dead=("again",))
    assert again.controller.networks["net"].id == network.id  # as it was, and the log says why


def test_one_process_of_a_host_is_its_agent(world: World) -> None:
    kernel, store = FakeKernel(), MemoryStore()
    first = world.host("h1", kernel=kernel, store=store)
    second = world.host("h1", kernel=kernel, store=store, process="second")
    assert first.worker.stand_up()
    assert not second.worker.stand_up()
    second.worker.look()
    second.worker.keep_up(now=True)
    assert second.worker.lease is None
    first.worker.stand_down()
    assert second.worker.stand_up()
    assert not first.worker.stand_up()
    third = world.host("h1", kernel=kernel, store=store, process="third", dead=("second",))
    assert third.worker.stand_up()
    for host in (first, second):
        host.controller.close()


def test_what_another_process_of_the_host_joins_is_announced(world: World) -> None:
    kernel, store = FakeKernel(), MemoryStore()
    agent = world.host("h1", kernel=kernel, store=store)
    b = world.host("h2")
    agent.controller.new_network("overlay", "net")
    b.joined("net", "db")
    world.settle()
    other = world.host("h1", kernel=kernel, store=store, process="other")
    web = other.joined("net", "web")
    world.hosts["h1"] = agent
    world.settle()
    assert b.entries("net") == expected(web, "h1")
    other.controller.close()


def test_what_somebody_took_from_the_datapath_is_put_back(world: World, pair: tuple[Host, Host]) -> None:
    a, b = pair
    db = b.joined("net", "db")
    a.joined("net", "web")
    world.settle()
    network = a.controller.networks["net"]
    a.kernel.peers().reconcile(network.options.vni, ())
    a.worker.look()
    assert a.entries("net") == set()
    a.worker.look(repair=True)
    assert a.entries("net") == expected(db, "h2")
    a.kernel.wreck(("link", None, f"vx-{network.options.vni}"))
    a.controller.reconcile()
    a.worker.look(repair=True)
    assert a.entries("net") == expected(db, "h2")


class Checked(FakeKernel):
    """A host that knows a cheap look, and notes each look at all that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.why = ""

    def missing(self, strict: Iterable[int] = ()) -> tuple[str, ...]:
        there = {item.vni for item in self.resources if isinstance(item, StrictVni)}
        return tuple(f"VNI {vni} is strict no more" for vni in strict if vni not in there)

    def observe(self, expected: Plan) -> Plan:
        self.looks += 1
        return super().observe(expected)

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        if self.why:
            raise StepFailedError(steps[0], ()) from OSError(self.why)
        super().apply(steps, replay=replay)


@pytest.fixture
def strict(world: World) -> tuple[Host, Host]:
    """Two hosts of a strict network, VNI 7; the first one can be looked at."""
    a, b = world.host("h1", kernel=Checked()), world.host("h2")
    a.controller.new_network("overlay", "net", options={"vni": 7, "strict": True})
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    a.worker.keep_up(now=True)
    return a, b


def test_what_somebody_took_of_the_host_s_rules_is_put_back_by_its_agent(
    strict: tuple[Host, Host], caplog: pytest.LogCaptureFixture
) -> None:
    """It looks at all that there is until that is whole, and not before; each incident is said."""
    a, b = strict
    assert isinstance(a.kernel, Checked)
    assert a.kernel.looks == 0
    planned = a.kernel.resources
    for number in (1, 2):
        a.kernel.wreck(("strict_vni", "7"))
        a.kernel.peers().reconcile(7, ())
        a.worker.keep_up(now=True)
        assert a.kernel.resources == planned
        assert a.entries("net") == expected(b.controller.networks["net"].endpoints["db"], "h2")
        assert caplog.text.count("took away what is ours (VNI 7 is strict no more)") == number
        for _ in range(3):
            a.worker.keep_up(now=True)
        assert a.kernel.looks == 2 * number
    assert a.controller.reconcile(dry_run=True).is_clean


def test_what_is_taken_while_the_rest_is_put_back_is_found_though_the_cheap_look_does_not_see_it(
    strict: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = strict
    assert isinstance(a.kernel, Checked)
    planned, apply = set(a.kernel.resources), a.kernel.apply
    a.kernel.wreck(("strict_vni", "7"))

    def wreck_more(steps: Sequence[Step], *, replay: bool = False) -> None:
        apply(steps, replay=replay)
        monkeypatch.undo()
        a.kernel.wreck(("link", None, "vx-7"))

    monkeypatch.setattr(a.kernel, "apply", wreck_more)
    a.worker.keep_up(now=True)
    assert not a.controller.check()
    assert set(a.kernel.resources) != planned
    a.worker.keep_up(now=True)
    assert set(a.kernel.resources) == planned


def test_what_cannot_be_put_back_is_tried_again_and_said_once(
    strict: tuple[Host, Host], caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = strict
    assert isinstance(a.kernel, Checked)
    a.kernel.wreck(("strict_vni", "7"))
    a.kernel.why = "no nft"
    for _ in range(3):
        a.worker.keep_up(now=True)
    said = [record.message for record in caplog.records if "took away" in record.message]
    assert len(said) == 1
    assert "no nft" in said[0]
    a.kernel.why = ""
    a.worker.keep_up(now=True)
    assert [item.vni for item in a.kernel.resources if isinstance(item, StrictVni)] == [7]
    assert not a.controller.check()


def test_a_host_that_cannot_be_looked_at_keeps_nobody_from_the_rest(
    world: World, strict: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = strict

    def missing(_strict: Iterable[int]) -> tuple[str, ...]:
        raise OSError(errno.EPERM, "not now")

    monkeypatch.setattr(a.kernel, "missing", missing)
    a.kernel.peers().reconcile(7, ())
    for _ in range(2):
        a.worker.keep_up(now=True)
    assert caplog.text.count("not now") == 1
    assert a.entries("net") == expected(b.controller.networks["net"].endpoints["db"], "h2")


def test_others_can_ask_the_agent_while_it_waits_for_a_request(
    strict: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what it repairs a request may be under way, which asks for peers before it is done."""
    a, _ = strict
    assert isinstance(a.kernel, Checked)
    a.kernel.wreck(("strict_vni", "7"))
    look, asked = a.kernel.observe, threading.Event()

    def ask() -> None:
        assert a.controller.networks["net"].peers
        asked.set()

    def observe(expected: Plan) -> Plan:
        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10)
        thread.join()
        return look(expected)

    monkeypatch.setattr(a.kernel, "observe", observe)
    a.worker.keep_up(now=True)
    assert asked.is_set()
    assert not a.controller.check()


def test_a_network_that_went_and_came_between_two_looks_is_told_all_again(
    world: World, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    web, old = a.joined("net", "web"), b.joined("net", "old")
    world.settle()
    old.delete(force=True)
    b.joined("net", "new")
    assert b.entries("net") == set()
    world.settle()
    assert b.entries("net") == expected(web, "h1")


def test_packets_are_taken_from_hosts_that_have_endpoints_there(world: World) -> None:
    hosts = [world.host(f"h{number}") for number in (1, 2, 3)]
    hosts[0].controller.new_network("overlay", "net", options={"vni": 7})
    made = [host.joined("net", host.name) for host in hosts[:2]]
    world.settle()
    assert hosts[0].kernel.peers().members == {7: {"192.0.2.2"}}
    assert hosts[2].kernel.peers().members == {}
    made.append(hosts[2].joined("net", "h3"))
    world.settle()
    assert hosts[0].kernel.peers().members == {7: {"192.0.2.2", "192.0.2.3"}}
    made[1].leave()
    world.settle()
    assert hosts[0].kernel.peers().members == {7: {"192.0.2.3"}}
    made[0].delete(force=True)
    hosts[0].worker.stand_down()
    assert hosts[0].kernel.peers().members == {}


def test_the_doctor_finds_hosts_that_are_not_reached(world: World) -> None:
    hosts = [world.host(f"h{number}") for number in (1, 2, 3, 4)]
    hosts[0].controller.new_network("overlay", "net")
    for host in hosts:
        host.joined("net", host.name)
    world.settle()
    doctor = hosts[0].controller.doctor
    assert doctor() == ()
    hosts[0].kernel.peers().reached = {"192.0.2.2": Reached.NOT, "192.0.2.3": Reached.SMALL}
    silent, narrow = doctor()
    assert silent.problem == "host 'h2' does not answer this one, 192.0.2.1"
    assert narrow.problem == "packets of 1500 bytes do not reach host 'h3', smaller ones do"
    assert narrow.commands


def test_peers_say_when_they_were_heard_of_and_what_the_last_probe_found(
    world: World, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    network = a.controller.networks["net"]
    (peer,) = network.peers
    assert (peer.heard, peer.probe) == (0.0, None)
    world.clock.turn(4)
    sent = world.clock.now
    a.controller.doctor()
    world.clock.turn(2)
    (peer,) = network.peers
    assert (peer.heard, peer.probe) == (6.0, PeerProbe(reached=Reached.FULL, time=sent))
    world.heard_of("h2")
    a.kernel.peers().reached = {"192.0.2.2": Reached.SMALL}
    a.controller.doctor()
    (peer,) = network.peers
    assert peer.heard == 0.0
    assert peer.probe == PeerProbe(reached=Reached.SMALL, time=world.clock.now)


def test_of_a_host_that_does_not_say_its_lease_it_is_not_known_when_it_was_heard_of(
    world: World, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    entry = world.store.get("hosts/h2")
    assert entry is not None
    record = attrs.evolve(layout.read(layout.HostRecord, entry), lease=0)
    world.store.transact([], [Put("hosts/h2", write(record))])
    (peer,) = a.controller.networks["net"].peers
    assert (peer.alive, peer.heard) == (True, None)


def test_the_doctor_finds_what_the_datapath_was_not_told(
    world: World, pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LAG_SECONDS", 0.01)
    a, b = pair
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    assert a.controller.doctor() == ()
    new = b.joined("net", "new")
    b.worker.look()  # announced, and nobody has told the other host
    (finding,) = a.controller.doctor()
    assert "not been told of all endpoints of host 'h2' in network 'net'" in finding.problem
    assert a.span.lagging()[0].installed is not None
    world.settle()
    assert a.controller.doctor() == ()
    a.kernel.wreck(("link", None, f"vx-{a.controller.networks['net'].options.vni}"))
    new.leave()
    world.settle()
    assert [lag.installed for lag in a.span.lagging()] == [None]
    (finding,) = a.controller.doctor()
    assert "host 'h2'" in finding.problem


def test_the_doctor_does_not_take_what_is_on_its_way_for_what_is_missing(
    world: World, pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    b.joined("net", "new")
    b.worker.look()
    lagging = a.span.lagging()
    assert lagging
    monkeypatch.setattr(time, "sleep", lambda _: world.settle())
    assert a.controller.doctor() == ()


def test_the_doctor_says_that_the_store_does_not_answer() -> None:
    world = World()
    world.store = Moody(clock=world.clock)
    a = world.host("h1")
    a.controller.new_network("overlay", "net")
    a.joined("net", "web")
    world.settle()
    world.store.is_down = True
    (finding,) = a.controller.doctor()
    assert finding.problem == "the store of the cluster does not answer: the store does not answer"
    assert "packets go on" in finding.effect
    world.store.is_down = False
    assert a.controller.doctor() == ()
    a.controller.close()


def test_a_datapath_that_cannot_be_told_is_behind_and_told_later(
    world: World, pair: tuple[Host, Host], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pair
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    network = a.controller.networks["net"]
    a.kernel.wreck(("link", None, f"vx-{network.options.vni}"))
    new = b.joined("net", "new")
    world.settle()
    assert "is behind" in caplog.text
    assert [peer.installed for peer in network.peers] == [None]
    a.controller.reconcile()
    a.worker.keep_up(now=True)
    assert expected(new, "h2") <= a.entries("net")
    assert [peer.installed == peer.revision for peer in network.peers] == [True]


def test_a_switch_that_has_no_room_keeps_a_host_from_nothing_else(
    world: World, pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    web = a.joined("net", "web")
    world.settle()
    db = b.joined("net", "db")

    def refuse(*_: object) -> NoReturn:
        reason = "table is full"
        raise FlowRefusedError(reason, None)

    with monkeypatch.context() as full:
        full.setattr(FakePeers, "reconcile", refuse)
        full.setattr(FakePeers, "apply", refuse)
        world.settle()
        assert world.keys(peer_key(web.network.id, db.id))  # it is announced
        peers = b.controller._core.records.peers.values()
        assert [row.spec.name for row in peers] == ["web"]  # which its name server reads
        more = a.joined("net", "more")
        world.settle()
    assert b.entries("net") == set()
    b.worker.keep_up(now=True)
    assert b.entries("net") == expected(web, "h1") | expected(more, "h1")


class Moody(MemoryStore):
    """A store that does not answer while it is down."""

    is_down = False

    def _check(self) -> None:
        if self.is_down:
            msg = "the store does not answer"
            raise StoreError(msg)

    def get(self, key: str) -> Any:
        self._check()
        return super().get(key)

    def list(self, prefix: str) -> Any:
        self._check()
        return super().list(prefix)

    def transact(self, *arguments: Any, **named: Any) -> Any:
        self._check()
        return super().transact(*arguments, **named)

    def changes(self, since: int) -> Any:
        self._check()
        return super().changes(since)

    def keep_alive(self, lease: Any) -> Any:
        self._check()
        return super().keep_alive(lease)


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def test_threads_do_it_all_by_themselves_and_end(world: World) -> None:
    before = threading.active_count()
    store = Moody()
    a, b = (world.host(name, cluster_store=store, agent=True) for name in ("h1", "h2"))
    a.controller.new_network("overlay", "net")
    web, db = a.joined("net", "web"), b.joined("net", "db")
    assert wait_for(lambda: a.entries("net") == expected(db, "h2"))
    assert wait_for(lambda: b.entries("net") == expected(web, "h1"))
    web.leave()
    assert wait_for(lambda: b.entries("net") == set())
    for host in (a, b):
        host.controller.close()
        host.controller.close()
    assert wait_for(lambda: threading.active_count() == before)


def test_hosts_that_fail_together_do_not_try_again_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They register one after the other when a store is back; none later than after a second."""
    store = Moody()
    store.is_down = True
    pauses: dict[str, list[float]] = {}
    for name in ("h1", "h2"):
        agent = world.host(name, cluster_store=store, agent=True).span.agent
        assert agent is not None
        pauses[name] = []
        monkeypatch.setattr(agent._stopped, "wait", pauses[name].append)
    assert wait_for(lambda: min(map(len, pauses.values())) >= 5)
    for each in pauses.values():
        assert all(0.7 <= pause <= 1.0 for pause in each)
        assert len(set(each)) > 1
    assert pauses["h1"][:5] != pauses["h2"][:5]
    store.is_down = False
    assert wait_for(lambda: len(store.list("hosts/").entries) == 2)


def test_an_agent_that_begins_where_nothing_happens_hears_what_happens_elsewhere(world: World) -> None:
    a, b = (world.host(name, agent=True) for name in ("h1", "h2"))
    a.controller.new_network("overlay", "net")
    a.joined("net", "web")
    a.controller.close()
    again = world.host("h1", kernel=a.kernel, store=a.store, agent=True)
    db = b.joined("net", "db")
    assert wait_for(lambda: again.entries("net") == expected(db, "h2"))
    for host in (again, b):
        host.controller.close()


def test_while_the_store_is_down_nothing_is_withdrawn_and_writes_say_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    store = Moody()
    a, b = (world.host(name, cluster_store=store, agent=True) for name in ("h1", "h2"))
    network = a.controller.new_network("overlay", "net")
    web, db = a.joined("net", "web"), b.joined("net", "db")
    assert wait_for(lambda: a.entries("net") == expected(db, "h2"))
    assert wait_for(lambda: b.entries("net") == expected(web, "h1"))
    store.is_down = True
    assert wait_for(lambda: "cannot be followed" in caplog.text)
    with pytest.raises(StoreError, match="does not answer"):
        network.create_endpoint("new")
    assert (a.kernel.peers().entries(network.options.vni), len(network.endpoints)) == (expected(db, "h2"), 1)
    (peer,) = network.peers
    assert (peer.host, peer.alive) == ("h2", None)
    web.leave()  # of this host alone
    store.is_down = False
    assert wait_for(lambda: b.entries("net") == set())
    network.create_endpoint("new").join(a.controller.sandboxes["net-web"])
    assert wait_for(lambda: len(b.entries("net")) == 2)


@pytest.mark.parametrize("agent", [True, False])
def test_a_controller_opens_while_the_store_is_down(world: World, agent: bool) -> None:
    """What is of its host alone can be had; the rest once the store is back."""
    store = Moody()
    store.is_down = True
    a = world.host("h1", cluster_store=store, agent=agent)
    a.controller.new_network("bridge", "own").create_endpoint("e")
    with pytest.raises(StoreError, match="does not answer"):
        a.controller.new_network("overlay", "net")
    store.is_down = False
    a.controller.new_network("overlay", "net")
    b = world.host("h2", cluster_store=store, agent=True)
    web, db = a.joined("net", "web"), b.joined("net", "db")
    if agent:
        assert wait_for(lambda: a.entries("net") == expected(db, "h2"))
        assert wait_for(lambda: b.entries("net") == expected(web, "h1"))


def test_what_could_not_be_taken_in_is_found_out_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say, because this host's own store could not be written just then."""
    a, b = (world.host(name, agent=True) for name in ("h1", "h2"))
    a.controller.new_network("overlay", "net")
    b.joined("net", "db")
    assert wait_for(lambda: b.worker.followed(a.controller.networks["net"].id) is not None)
    take, failures = b.worker.take, iter([True])

    def fail_once(news: Any) -> None:
        if next(failures, False):
            msg = "disk full"
            raise StoreError(msg)
        take(news)

    monkeypatch.setattr(b.worker, "take", fail_once)
    web = a.joined("net", "web")
    assert wait_for(lambda: b.entries("net") == expected(web, "h1"))
    assert next(failures, None) is None  # it did fail
    more = a.joined("net", "more")  # the watch goes on
    assert wait_for(lambda: b.entries("net") == expected(web, "h1") | expected(more, "h1"))


def test_only_the_networks_of_a_host_are_watched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one thread; and what networks are called, as long as there are any."""
    watched: set[str] = set()
    add, drop = PollingWatcher.add, PollingWatcher.drop

    def note_added(watcher: PollingWatcher, prefix: str, since: int) -> None:
        watched.add(prefix)
        add(watcher, prefix, since)

    def note_dropped(watcher: PollingWatcher, prefix: str) -> None:
        watched.discard(prefix)
        drop(watcher, prefix)

    monkeypatch.setattr(PollingWatcher, "add", note_added)
    monkeypatch.setattr(PollingWatcher, "drop", note_dropped)
    a = world.host("h1", agent=True)
    networks = [a.controller.new_network("overlay", name) for name in ("red", "blue", "green")]
    endpoints = [network.create_endpoint("e") for network in networks[:2]]
    assert wait_for(lambda: watched == {NAMES, *(peer_key(network.id) for network in networks[:2])})
    assert sum("watch" in thread.name for thread in threading.enumerate()) == 1
    endpoints[0].delete()
    assert wait_for(lambda: watched == {NAMES, peer_key(networks[1].id)})
    endpoints[1].delete()
    assert wait_for(lambda: not watched)


def test_a_lease_that_was_lost_is_had_again(world: World) -> None:
    a, b = (world.host(name, agent=True) for name in ("h1", "h2"))
    a.controller.new_network("overlay", "net")
    web = a.joined("net", "web")
    b.joined("net", "db")
    assert wait_for(lambda: b.entries("net") == expected(web, "h1"))
    lost = a.worker.lease
    assert lost is not None
    world.store.revoke(lost)
    agent = a.span.agent
    assert agent is not None
    assert wait_for(lambda: b.entries("net") == set())
    assert agent._keeper is not None
    agent._keeper.renew()  # which finds out
    assert wait_for(lambda: b.entries("net") == expected(web, "h1"))


def test_nothing_of_the_cluster_is_loaded_without_one() -> None:
    code = (
        "import sys; from pynetwork import Controller, MemoryStore\n"
        "from pynetwork.testing import FakeKernel, fake_surroundings\n"
        "with Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings()) as c:\n"
        "    c.new_network('bridge', 'n').create_endpoint('e').join(c.new_sandbox('s'))\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [n for n in loaded.stdout.split() if "cluster" in n or "overlay" in n]
    assert not [name for name in names if name.startswith("pynetwork.")]
