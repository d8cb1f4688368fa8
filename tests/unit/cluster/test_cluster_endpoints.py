"""Endpoints of a cluster: what they have is nobody else's, and is free again whoever dies on the way."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork import ConflictError, ExhaustedError, InvalidValueError, MemoryStore, PynetworkError, Subnet
from pynetwork.cluster.choosing import Chooser, network_numbers
from pynetwork.specs import NetworkSpec
from pynetwork.testing import Chaos, ChaosStore, FakeKernel, Fate, Killed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cluster.hosts import Host, World

    from pynetwork import Endpoint


def test_an_endpoint_has_an_address_of_each_family_and_the_mac_that_follows_from_it(world: World) -> None:
    host = world.host("h1")
    network = host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24", "fd01::/64"])
    endpoint = network.create_endpoint("web", aliases=["www"], labels={"a": "b"})
    four, six = endpoint.addresses
    assert (four.network, six.network) == (ip_network("10.1.0.0/24"), ip_network("fd01::/64"))
    assert endpoint.mac == (b"\x02\x42" + four.ip.packed).hex(":")
    assert (endpoint.aliases, endpoint.labels) == (("www",), {"a": "b"})
    assert list(network.endpoints) == ["web"]
    again = network.create_endpoint("db", addresses=["10.1.0.77", "fd01::77"], mac="02:00:00:00:00:77")
    assert again.addresses == (ip_interface("10.1.0.77/24"), ip_interface("fd01::77/64"))
    assert again.mac == "02:00:00:00:00:77"
    only_six = host.controller.new_network("overlay", "six", subnets=["fd02::/64"])
    macs = {only_six.create_endpoint(f"e{number}").mac for number in range(20)}
    assert len(macs) == 20


def test_name_address_and_mac_are_of_one_endpoint_in_the_cluster(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    near = a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    far = b.controller.networks["net"]
    near.create_endpoint("web", addresses=["10.1.0.5"], mac="02:00:00:00:00:05")
    before = world.keys()
    for network in (near, far):
        with pytest.raises(ConflictError, match="'web' already exists in network 'net', on this host or"):
            network.create_endpoint("web")
        with pytest.raises(ConflictError, match=r"10\.1\.0\.5 of network 'net' is in use"):
            network.create_endpoint("other", addresses=["10.1.0.5"])
        with pytest.raises(ConflictError, match="02:00:00:00:00:05 is in use in network 'net'"):
            network.create_endpoint("other", mac="02:00:00:00:00:05")
    assert world.keys() == before
    assert not b.kernel.resources
    # Of another network it is as free as can be.
    other = b.controller.new_network("overlay", "other", subnets=["10.1.0.0/24"])
    other.create_endpoint("web", addresses=["10.1.0.5"], mac="02:00:00:00:00:05")


def test_a_mac_that_somebody_asked_for_is_not_given_to_who_would_get_it_by_its_address(world: World) -> None:
    host = world.host("h1")
    network = host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    network.create_endpoint("thief", mac="02:42:0a:01:00:09")
    endpoint = network.create_endpoint("victim", addresses=["10.1.0.9"])
    assert endpoint.mac.startswith("02:42:")
    assert endpoint.mac != "02:42:0a:01:00:09"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"addresses": ["10.2.0.1"]}, "does not belong to any of this network's subnets"),
        ({"addresses": ["10.1.0.1"]}, "reserved in network 'net'"),  # the gateway
        ({"addresses": ["10.1.0.7"]}, "reserved"),  # auxiliary
        ({"addresses": ["10.1.0.0"]}, "reserved"),
        ({"addresses": ["10.1.0.255"]}, "reserved"),
        ({"addresses": ["fd01::"]}, "reserved"),
        ({"addresses": ["10.1.0.2", "10.1.0.3"]}, "has one IPv4 address"),
        ({"ports": ["80"]}, "nothing can be published in network 'net': it is internal"),
        ({"mac": "junk"}, "invalid MAC"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_entered(
    world: World, arguments: dict[str, Any], words: str
) -> None:
    host = world.host("h1")
    subnets = [Subnet("10.1.0.0/24", auxiliary={"x": "10.1.0.7"}), "fd01::/64"]
    network = host.controller.new_network("overlay", "net", subnets=subnets, internal=True)
    before = world.keys()
    with pytest.raises(InvalidValueError, match=words):
        network.create_endpoint("e", **arguments)
    assert world.keys() == before
    assert not host.kernel.resources


def test_all_addresses_are_handed_out_and_then_it_is_said(world: World) -> None:
    """From several subnets, one after the other; what is released can be had again."""
    a, b = world.host("h1"), world.host("h2")
    network = a.controller.new_network("overlay", "net", subnets=["10.1.0.0/29", "10.2.0.0/30"])
    both = itertools.cycle((network, b.controller.networks["net"]))
    made = [next(both).create_endpoint(f"e{number}") for number in range(6)]
    found = {str(endpoint.addresses[0].ip) for endpoint in made}
    assert found == {*(f"10.1.0.{number}" for number in range(2, 7)), "10.2.0.2"}
    for each in (network, b.controller.networks["net"]):
        with pytest.raises(ExhaustedError, match=r"no free address in 10\.1\.0\.0/29, 10\.2\.0\.0/30"):
            each.create_endpoint("more")
    made[3].delete()
    again = network.create_endpoint("again")
    assert str(again.addresses[0].ip) in found


def test_three_hosts_take_three_hundred_addresses_each_at_once(world: World) -> None:
    """Nobody gets another's, nobody fails, and as a rule the first address that is tried is free."""
    stores = [ChaosStore(world.store) for _ in range(3)]
    hosts = [world.host(f"h{number}", cluster_store=stores[number - 1]) for number in range(1, 4)]
    hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/22", "fd01::/64"])
    before = sum(store.count for store in stores)
    start = threading.Barrier(6)

    def make(worker: int) -> list[Endpoint]:
        """Two threads of each host take half of its share."""
        network = hosts[worker % 3].controller.networks["net"]
        start.wait()
        return [network.create_endpoint(f"e-{worker}-{number}") for number in range(150)]

    with ThreadPoolExecutor(6) as pool:
        made = [endpoint for endpoints in pool.map(make, range(6)) for endpoint in endpoints]
    tries = sum(store.count for store in stores) - before
    for version in (0, 1):
        assert len({endpoint.addresses[version].ip for endpoint in made}) == 900
    assert len({endpoint.mac for endpoint in made}) == 900
    assert tries <= 900 * 1.1
    assert {len(world.keys(f"held/h{number}/")) for number in (1, 2, 3)} == {300}


def test_making_and_deleting_at_once_on_one_host_never_misses_the_network(world: World) -> None:
    """The last endpoint's end takes the network off the host, which the next may be about to use."""
    host = world.host("h1")
    network = host.controller.new_network("overlay", "net")
    start = threading.Barrier(4)

    def churn(worker: int) -> None:
        start.wait()
        for number in range(15):
            network.create_endpoint(f"e-{worker}-{number}").delete()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert not world.keys("held/") + world.keys("ipam/") + world.keys("ends/")
    assert not host.kernel.resources


def _create(host: Host) -> None:
    host.controller.networks["net"].create_endpoint("new")


def _first(host: Host) -> None:
    host.controller.networks["unused"].create_endpoint("new")


def _delete(host: Host) -> None:
    host.controller.networks["net"].endpoints["old"].delete(force=True)


def _new_network(host: Host) -> None:
    host.controller.new_network("overlay", "another").create_endpoint("new")


def _delete_network(host: Host) -> None:
    host.controller.networks["unused"].delete()


#: What a request has no part in: an endpoint in a network that is on the host is no step there, say.
NOT_THERE = {"host": ("_delete_network",), "kernel": ("_delete_network", "_create")}
REQUESTS = [_create, _first, _delete, _new_network, _delete_network]


def _check_books(world: World, hosts: list[Host]) -> None:
    """Compare what is entered with what the hosts have: neither more nor less."""
    held = {key.rpartition("/")[2] for key in world.keys("held/")}
    records = [host.controller._core.records for host in hosts]
    own = [row.spec for each in records for row in each.endpoints.values() if not row.spec.system]
    assert held == {spec.id for spec in own}
    for table in ("ends/", "ipam/", "macs/"):
        values = {entry.value for entry in world.store.list(table).entries}
        assert values == held
    assert len(world.keys("names/")) == len(world.keys("vni/")) == len(world.keys("nets/"))
    used = {spec.network for spec in own}
    here = [row.spec for each in records for row in each.networks.values()]
    assert {spec.id for spec in here if not spec.system} == used
    for host in hosts:  # its gateway network is there as long as it has others, and who has joined is in it
        core = host.controller._core
        assert (core.instance in core.records.networks) == (len(core.records.networks) > 0)
        inmates = {row.spec.sandbox for row in core.records.endpoints.values() if not row.spec.system}
        assert {k for k, row in core.records.endpoints.items() if row.spec.system} == inmates - {None}
    assert used <= {key.rpartition("/")[2] for key in world.keys("nets/")}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("where", ["cluster", "cluster after", "host", "host after", "kernel"])
def test_whenever_a_process_dies_the_books_are_right_once_the_next_has_looked(
    world: World, request_: Callable[[Host], None], where: str
) -> None:
    """It dies at every write to either store, before or after it, and at every step on its host."""
    for number in itertools.count():
        world.__init__()  # type: ignore[misc]  # a new one for each death
        kernel, store, fate = FakeKernel(), MemoryStore(), Fate()
        first = world.host("h1", kernel=kernel, store=store, process="before")
        for name in ("net", "unused"):
            first.controller.new_network("overlay", name, subnets=["10.1.0.0/24"])
        first.joined("net", "old")
        other = world.host("h2")
        other.joined("net", "far")
        after = where.endswith("after")
        cluster_store = ChaosStore(
            world.store, die_at=number if "cluster" in where else None, after=after, fate=fate
        )
        local = ChaosStore(store, die_at=None, after=after, fate=fate)
        chaos = Chaos(kernel, die_at=number if where == "kernel" else None, fate=fate)
        first.controller.close()
        victim = world.host(
            "h1", kernel=kernel, store=local, cluster_store=cluster_store, through=chaos, process="victim"
        )
        if "host" in where:
            local._die_at = local.count + number
        with suppress(Killed):
            request_(victim)
        is_over = not fate.is_dead
        world.hosts.pop("h1")
        if is_over:
            victim.controller.close()
        heir = world.host("h1", kernel=kernel, store=store, process="heir", dead=("victim", "before"))
        world.settle("h1", "h2")
        heir.worker.keep_up(now=True)
        _check_books(world, [heir, other])
        names = sorted(heir.controller.networks["net"].endpoints)
        assert names in (["new", "old"], ["old"], [])
        assert heir.controller.reconcile(dry_run=True).is_clean
        for host in (heir, other):
            host.controller.close()
        if is_over:
            break
    assert (number > 0) == (request_.__name__ not in NOT_THERE.get(where.partition(" ")[0], ()))


@pytest.mark.parametrize("request_", [_create, _first, _delete])
@pytest.mark.parametrize("where", ["cluster", "host", "kernel"])
def test_whatever_fails_leaves_the_books_as_they_were_or_right_soon(
    world: World, request_: Callable[[Host], None], where: str
) -> None:
    for number in itertools.count():
        world.__init__()  # type: ignore[misc]  # a new one for each failure
        kernel, store = FakeKernel(), MemoryStore()
        cluster_store = ChaosStore(world.store)
        local, chaos = ChaosStore(store), Chaos(kernel)
        host = world.host("h1", kernel=kernel, store=local, cluster_store=cluster_store, through=chaos)
        for name in ("net", "unused"):
            host.controller.new_network("overlay", name, subnets=["10.1.0.0/24"])
        host.joined("net", "old")
        targets: dict[str, Chaos | ChaosStore] = {"cluster": cluster_store, "host": local, "kernel": chaos}
        target = targets[where]
        target._fail_at = target.count + number
        with suppress(PynetworkError):
            request_(host)
        is_over, target._fail_at = not target.fired, None
        host.controller._core.engine.mirror.refresh()
        world.settle("h1")
        host.worker.keep_up(now=True)
        host.controller.reconcile()
        _check_books(world, [host])
        host.controller.close()
        if is_over:
            break
    assert (number > 0) == (request_.__name__ not in NOT_THERE.get(where, ()))


def test_a_live_process_s_half_made_endpoint_is_left_alone(world: World) -> None:
    """Another process of the host has entered an endpoint and not made it yet: it is not tidied away."""
    kernel, store = FakeKernel(), MemoryStore()
    host = world.host("h1", kernel=kernel, store=store)
    network = host.controller.new_network("overlay", "net")
    fate = Fate()
    half = world.host(
        "h1",
        kernel=kernel,
        store=store,
        process="alive",
        cluster_store=ChaosStore(world.store, die_at=0, after=True, fate=fate),
    )
    with suppress(Killed):
        half.controller.networks["net"].create_endpoint("e")
    assert world.keys("held/")
    world.hosts["h1"] = host
    world.settle()
    host.worker.keep_up(now=True)
    assert world.keys("held/")
    assert network.peers == ()
    later = world.host("h1", kernel=kernel, store=store, process="later", dead=("alive", "process of h1"))
    world.settle()
    later.worker.keep_up(now=True)
    assert not world.keys("held/")


def _spec(*subnets: object) -> NetworkSpec[None]:
    return NetworkSpec(id="0" * 32, name="n", driver="overlay", options=None, subnets=subnets)


@given(st.integers(20, 32), st.integers(0, 9), st.sets(st.integers(0, 4095), max_size=30))
def test_every_address_of_a_subnet_is_chosen_once_before_any_is_twice(
    length: int, host: int, taken_numbers: set[int]
) -> None:
    subnet = Subnet(f"10.0.0.0/{length}")
    spec = _spec(Subnet(subnet.network, gateway=next(iter(subnet.network.hosts()))))
    taken = {str(subnet.network[n]) for n in taken_numbers if n < subnet.network.num_addresses}
    usable = {str(address) for address in subnet.network.hosts()} - {str(spec.subnets[0].gateway)} - taken
    chooser = Chooser(f"h{host}", Random(1))
    found: list[str] = []
    for _ in range(min(len(usable), 200)):
        # Without knowing of any that is taken it goes on from where it was; else it is told of all.
        found.append(str(chooser.choose(spec, 4, {*taken, *found} if taken else ())))
    assert len(set(found)) == len(found)
    assert set(found) <= usable
    if not usable:
        with pytest.raises(ExhaustedError):
            chooser.choose(spec, 4, taken)


@pytest.mark.parametrize(
    ("subnet", "first", "size"),
    [
        (Subnet("10.0.0.0/24"), 1, 254),
        (Subnet("10.0.0.0/24", sub_pool="10.0.0.64/26"), 64, 64),
        (Subnet("10.0.0.0/24", sub_pool="10.0.0.192/26"), 192, 63),
        (Subnet("10.0.0.0/24", sub_pool="10.0.0.0/26"), 1, 63),
        (Subnet("10.0.0.0/31"), 0, 2),
        (Subnet("10.0.0.0/32"), 0, 1),
        (Subnet("fd00::/64"), 1, 1 << 24),
        (Subnet("fd00::/127"), 0, 2),
        (Subnet("fd00::/120"), 1, 255),
    ],
)
def test_what_may_be_handed_out_of_a_subnet(subnet: Subnet, first: int, size: int) -> None:
    assert network_numbers(subnet) == (first, size)


def test_hosts_begin_at_different_addresses() -> None:
    spec = _spec("10.0.0.0/16")
    assert len({Chooser(f"h{number}", Random(1)).choose(spec, 4) for number in range(50)}) > 45
    assert Chooser("h1", Random(1)).choose(spec, 4) == Chooser("h1", Random(1)).choose(spec, 4)
    small = _spec(Subnet("10.0.0.0/30", gateway="10.0.0.1"))
    assert Chooser("h1", Random(1)).choose(small, 4) == ip_address("10.0.0.2")
