"""Networks of a cluster: entered once, seen by all, on a host as long as that has endpoints of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    Cluster,
    ConflictError,
    Controller,
    ExhaustedError,
    InvalidValueError,
    MemoryStore,
    NotFoundError,
    OverlayOptions,
    SqliteStore,
    StoreError,
    Subnet,
    UnavailableError,
)
from pynetwork.resources import Bridge, Vxlan
from pynetwork.testing import ChaosStore, FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cluster.hosts import World


def test_a_network_is_seen_on_all_hosts_as_it_was_made(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    made = a.controller.new_network(
        "overlay",
        "net",
        subnets=[Subnet("10.1.0.0/24", gateway="10.1.0.9", auxiliary={"printer": "10.1.0.7"}), "fd01::/64"],
        options={"vni": 77, "mtu": 1400, "bum": True},
        labels={"a": "b"},
        dns=["10.1.0.53"],
        internal=True,
    )
    seen = b.controller.networks["net"]
    assert seen == made
    for network in (made, seen):
        assert (network.name, network.driver, network.internal) == ("net", "overlay", True)
        assert network.options == OverlayOptions(vni=77, mtu=1400, bum=True)
        assert network.subnets == (ip_network("10.1.0.0/24"), ip_network("fd01::/64"))
        assert network.gateways == (ip_address("10.1.0.9"), ip_address("fd01::1"))
        assert (network.labels, network.dns) == ({"a": "b"}, (ip_address("10.1.0.53"),))
        assert network.inspect()["options"]["vni"] == 77
        assert (dict(network.endpoints), network.peers) == ({}, ())
    assert list(b.controller.networks) == ["net"]
    assert not a.kernel.resources


def test_it_is_on_a_host_as_long_as_that_has_endpoints_of_it(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    network = a.controller.new_network("overlay", "net", options={"vni": 7})
    first, second = network.create_endpoint("e1"), network.create_endpoint("e2")
    links = {item.name for item in a.kernel.resources if isinstance(item, Bridge | Vxlan)}
    assert links == {"ov-7", "vx-7", f"br-{a.controller._core.instance[:12]}"}  # the last is its way out
    assert not b.kernel.resources
    first.delete()
    assert a.kernel.resources
    second.delete()
    assert not a.kernel.resources
    assert a.controller.networks["net"] == network
    network.create_endpoint("e1")
    assert a.kernel.resources


def test_networks_of_the_host_and_of_the_cluster_are_listed_together(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    a.controller.new_network("bridge", "own")
    b.controller.new_network("overlay", "far")
    assert list(a.controller.networks) == ["far", "own"]
    assert {network.driver for network in a.controller.networks.values()} == {"bridge", "overlay"}
    assert list(b.controller.networks) == ["far"]
    assert a.controller.networks["own"].peers == ()
    with pytest.raises(NotFoundError):
        b.controller.networks["own"]


def test_a_name_and_a_vni_are_of_one_network(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    a.controller.new_network("overlay", "net", options={"vni": 7})
    with pytest.raises(ConflictError, match="'net' already exists, on this host or another"):
        b.controller.new_network("overlay", "net")
    with pytest.raises(ConflictError, match="VNI 7 is of network 'net'"):
        b.controller.new_network("overlay", "other", options={"vni": 7})
    b.controller.new_network("bridge", "own")
    with pytest.raises(ConflictError, match="'own' already exists"):
        b.controller.new_network("overlay", "own")
    assert world.keys("names/") == ["names/net"]


def test_a_network_that_has_a_local_one_s_name_is_refused_on_that_host(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    b.controller.new_network("bridge", "net")
    network = a.controller.new_network("overlay", "net")
    far = type(network).of(b.controller._core, network.id)
    with pytest.raises(ConflictError, match="it has one of that name"):
        far.create_endpoint("e")
    assert not world.keys("ends/")


def test_two_networks_may_have_the_same_subnet_if_it_is_asked_for(world: World) -> None:
    """They are apart by their VNI. What is chosen overlaps nobody's."""
    a, b = world.host("h1"), world.host("h2")
    for name in ("red", "blue"):
        a.controller.new_network("overlay", name, subnets=["10.0.0.0/24"])
    chosen = b.controller.new_network("overlay", "green", ipv4=True, ipv6=True)
    others = [a.controller.new_network("overlay", f"n{n}", ipv4=True, ipv6=True) for n in range(5)]
    subnets = [subnet for network in (chosen, *others) for subnet in network.subnets]
    assert len(set(subnets)) == 12
    assert not any(subnet.overlaps(ip_network("10.0.0.0/24")) for subnet in subnets if subnet.version == 4)
    assert all(s.subnet_of(ip_network("fd00::/8")) for s in subnets if s.version == 6)  # type: ignore[arg-type]  # of one family
    red, blue = (a.controller.networks[name].create_endpoint("e") for name in ("red", "blue"))
    again = [
        b.controller.networks[name].create_endpoint("f", addresses=[each.addresses[0]])
        for name, each in (("red", blue), ("blue", red))
        if red.addresses != blue.addresses
    ]
    assert all(endpoint.addresses for endpoint in again)


def test_a_subnet_of_a_size_is_chosen(world: World) -> None:
    network = world.host("h1").controller.new_network("overlay", "net", subnets=["0.0.0.0/26"])
    assert network.subnets[0].prefixlen == 26
    with pytest.raises(ConflictError, match="overlap"):
        world.hosts["h1"].controller.new_network("overlay", "twice", subnets=["10.9.0.0/24", "10.9.0.0/25"])


def test_the_mtu_is_what_the_narrowest_host_has_room_for(world: World) -> None:
    wide, narrow = world.host("h1", kernel=FakeKernel(mtu=9000)), world.host("h2")
    assert wide.controller.new_network("overlay", "first").options.mtu == 8950
    world.settle("h2")
    assert wide.controller.new_network("overlay", "second").options.mtu == 1450
    with pytest.raises(UnavailableError, match=r"MTU of 8950 .* room for 1450: raise the MTU .* to 9000"):
        narrow.controller.networks["first"].create_endpoint("e")
    assert not world.keys("held/")
    assert not narrow.kernel.resources


def test_over_ipv6_the_overhead_is_twenty_bytes_more(world: World) -> None:
    host = world.host("h1", vtep="fd99::1")
    network = host.controller.new_network("overlay", "net")
    assert network.options.mtu == 1430
    network.create_endpoint("e")
    assert [i.local for i in host.kernel.resources if isinstance(i, Vxlan)] == ["fd99::1"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"options": {"vni": 0}}, InvalidValueError, "invalid VNI 0"),
        ({"options": {"vni": 1 << 24}}, InvalidValueError, "invalid VNI"),
        ({"options": {"vni": True}}, InvalidValueError, "invalid VNI True"),
        ({"options": {"nonsense": 1}}, InvalidValueError, "unknown options nonsense"),
        ({"options": {"mtu": 1451}}, UnavailableError, "room for 1450"),
        ({"options": {"mtu": 1000}, "ipv6": True}, InvalidValueError, "1280 bytes"),
        ({"ipam": "null"}, InvalidValueError, "invalid ipam 'null'"),
        ({"ipv4": False}, InvalidValueError, "must be enabled"),
        ({"subnets": ["10.0.0.1/24"]}, InvalidValueError, "host bits"),
        ({"subnets": ["224.0.0.0/24"]}, InvalidValueError, "224"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_entered(
    world: World, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        world.host("h1").controller.new_network("overlay", "net", **arguments)
    assert not world.keys()


def test_it_is_deleted_when_no_host_has_endpoints_of_it(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    network = a.controller.new_network("overlay", "net")
    endpoint = b.controller.networks["net"].create_endpoint("far")
    own = network.create_endpoint("near")
    with pytest.raises(ConflictError, match="active endpoints: far, near"):
        network.delete()
    own.delete()
    with pytest.raises(ConflictError, match="active endpoints: far"):
        network.delete()
    endpoint.delete()
    network.delete()
    assert not world.keys()
    with pytest.raises(NotFoundError, match="does not exist: it was deleted"):
        network.delete()
    network.delete(missing_ok=True)
    for gone in (network, type(network).of(b.controller._core, network.id)):
        with pytest.raises(NotFoundError):
            _ = gone.name
        with pytest.raises(NotFoundError):
            gone.create_endpoint("late")


def test_what_is_said_beforehand_is_what_is_done_on_this_host(world: World) -> None:
    """To make it does nothing on any host; the last endpoint's end takes it off one."""
    a, b = world.host("h1"), world.host("h2")
    assert not a.controller.plan_network("overlay", "net")
    assert not world.keys()
    network = a.controller.new_network("overlay", "net")
    far = b.controller.networks["net"]
    assert not far.plan_delete()
    endpoint = network.create_endpoint("e")
    endpoint.join(a.controller.new_sandbox("s"))
    assert "veth" in endpoint.plan_delete(force=True).render()
    with pytest.raises(ConflictError, match="active endpoints"):
        network.plan_delete()
    endpoint.delete(force=True)
    network.delete()
    with pytest.raises(NotFoundError):
        far.plan_delete()


def test_how_full_it_is_on_all_hosts_together(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    subnets = [
        Subnet("10.1.0.0/24", auxiliary={"x": "10.1.0.9"}),
        Subnet("10.2.0.0/24", sub_pool="10.2.0.128/25"),
    ]
    network = a.controller.new_network("overlay", "net", subnets=subnets)
    far = b.controller.networks["net"]
    for number in range(3):
        network.create_endpoint(f"a{number}")
        far.create_endpoint(f"b{number}")
    far.create_endpoint("c", addresses=["10.2.0.200"])
    for each in (network, far):
        usage = {str(subnet): (use.size, use.taken, use.free) for subnet, use in each.usage().items()}
        assert usage == {"10.1.0.0/24": (252, 6, 246), "10.2.0.0/24": (126, 1, 125)}


def test_a_scratch_block_removes_it_and_erasing_does_not(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    with a.controller.scratch():
        a.controller.new_network("overlay", "scratch").create_endpoint("e")
    assert not world.keys()
    network = a.controller.new_network("overlay", "net")
    network.create_endpoint("e")
    kept = b.controller.networks["net"].create_endpoint("f")
    a.controller.erase()
    assert not a.kernel.resources
    assert b.controller.networks["net"].endpoints["f"] == kept
    assert [key.rpartition("/")[2] for key in world.keys("ends/")] == ["f"]


def test_without_a_cluster_it_is_said_what_is_missing() -> None:
    around = fake_surroundings()
    with Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=around) as controller:
        with pytest.raises(UnavailableError, match=r"span hosts: that needs a cluster store.*cluster="):
            controller.new_network("overlay", "net")
        assert controller.new_network("bridge", "net").peers == ()


def test_while_the_store_does_not_answer_the_host_s_own_networks_are_there(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Down(MemoryStore):
        is_down = False

        def list(self, prefix: str) -> Any:
            if self.is_down:
                msg = "cannot read: connection refused"
                raise StoreError(msg)
            return super().list(prefix)

    store = Down()
    host = world.host("h1", cluster_store=store)
    host.controller.new_network("bridge", "own")
    network = host.controller.new_network("overlay", "net")
    store.is_down = True
    assert list(host.controller.networks) == ["own"]
    assert "cannot be listed: cannot read" in caplog.text
    with pytest.raises(StoreError, match="connection refused"):
        host.controller.new_network("overlay", "other")
    with pytest.raises(StoreError, match="connection refused"):
        _ = network.peers
    host.controller.networks["own"].create_endpoint("e")


@pytest.mark.parametrize("fail_at", range(4))
def test_a_write_that_fails_leaves_nothing_entered(world: World, fail_at: int) -> None:
    """What could not be struck out is when the agent looks; until then the network cannot be deleted."""
    chaos = ChaosStore(world.store, fail_at=fail_at)
    host = world.host("h1", cluster_store=chaos)
    with suppress(StoreError, ConflictError):
        network = host.controller.new_network("overlay", "net")
        network.create_endpoint("e").delete()
        network.delete()
    assert chaos.fired
    assert bool(world.keys("names/")) == (fail_at > 0)
    assert bool(world.keys("held/")) == (fail_at == 2)
    assert not host.kernel.resources
    world.settle()
    host.worker.keep_up(now=True)
    for name in list(host.controller.networks):
        host.controller.networks[name].delete()
    assert set(world.keys()) == {"hosts/h1", "known/h1", "reaper"}


def test_vnis_are_unique_when_all_hosts_choose_at_once(world: World) -> None:
    """Eight hosts make 40 networks each at the same time, from 400 VNIs."""
    hosts = [world.host(f"h{number}", vnis=(1000, 1399)) for number in range(1, 9)]
    start = threading.Barrier(8)

    def make(number: int) -> list[int]:
        start.wait()
        new = hosts[number].controller.new_network
        return [new("overlay", f"net-{number}-{n}", subnets=["10.0.0.0/24"]).options.vni for n in range(40)]

    with ThreadPoolExecutor(8) as pool:
        found = [vni for vnis in pool.map(make, range(8)) for vni in vnis]
    assert len(set(found)) == 320
    assert all(1000 <= vni < 1400 for vni in found)
    assert len(world.keys("vni/")) == len(world.keys("names/")) == 320


def test_when_all_vnis_are_taken_it_is_said(world: World) -> None:
    host = world.host("h1", vnis=(5, 6))
    for name in ("a", "b"):
        host.controller.new_network("overlay", name)
    with pytest.raises(ExhaustedError, match="all VNIs from 5 to 6 are taken"):
        host.controller.new_network("overlay", "c")
    host.controller.new_network("overlay", "c", options={"vni": 7})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"host": "no/slash"}, "invalid host name"),
        ({"vtep": "192.0.2.300"}, "invalid VTEP address"),
        ({"vxlan_port": 0}, "invalid vxlan_port 0"),
        ({"vxlan_port": "4789"}, "invalid vxlan_port"),
        ({"ttl": 0}, "invalid ttl 0"),
        ({"grace": float("nan")}, "invalid grace nan"),
        ({"grace": True}, "invalid grace True"),
        ({"datapath": "magic"}, "invalid datapath 'magic'"),
        ({"vnis": (5, 4)}, "invalid range of VNIs"),
        ({"vnis": [1, 2]}, "invalid range of VNIs"),
        ({"agent": 1}, "invalid agent=1"),
        ({"store": None}, "invalid cluster store None"),
    ],
)
def test_what_is_said_of_a_cluster_is_checked(arguments: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"store": MemoryStore(), "host": "h1", **arguments}
    with pytest.raises(InvalidValueError, match=words):
        Cluster(**given)


def test_a_store_without_leases_is_none_for_a_cluster(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as store, pytest.raises(InvalidValueError, match="one with leases"):
        Cluster(store=store, host="h1")  # type: ignore[arg-type]  # that is the test
