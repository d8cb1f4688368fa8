"""Networks: what can be asked for, what is refused, what is left."""

from __future__ import annotations

import textwrap
from ipaddress import ip_address, ip_network

import netaddr
import pytest

from pynetwork import (
    BridgeOptions,
    ConflictError,
    Controller,
    ExhaustedError,
    InvalidValueError,
    MemoryStore,
    NotFoundError,
    Subnet,
    UnknownDriverError,
)
from pynetwork.resources import Bridge
from pynetwork.resources.ruleset import skeleton
from pynetwork.testing import FakeKernel, assert_plan, fake_surroundings


def test_a_network_is_a_bridge_behind_a_firewall(controller: Controller, kernel: FakeKernel) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    bridge = f"br-{network.id[:12]}"
    mac = ":".join(("02", *(network.id[i : i + 2] for i in range(0, 10, 2))))
    lines = f"""
        sysctl -w net.ipv4.ip_forward=1
        ip link add {bridge} address {mac} type bridge mcast_snooping 0
        ip link set {bridge} addrgenmode none
        sysctl -w net.ipv6.conf.{bridge}.accept_ra=0
        nft add element inet pynetwork bridges {{ "{bridge}" }}
        nft add element inet pynetwork linked {{ "{bridge}" . "{bridge}" }}
        nft add element inet pynetwork own4 {{ 10.88.0.0/24 . "{bridge}" }}
        nft add element inet pynetwork direct4 {{ 10.88.0.0/24 }}
        nft add element inet pynetwork masquerade4 {{ 10.88.0.0/24 }}
        sysctl -w net.ipv4.conf.{bridge}.route_localnet=1
        ip address add 10.88.0.1/24 dev {bridge}
        ip link set {bridge} up
    """
    firewall = f"nft -f - <<END\n{skeleton('pynetwork')}END\n"
    assert_plan(kernel.resources, firewall + textwrap.dedent(lines).lstrip())
    assert network.subnets == (ip_network("10.88.0.0/24"),)
    assert network.gateways == (ip_address("10.88.0.1"),)
    assert network.driver == "bridge"
    assert controller.networks["n"] == network


def test_plan_network_shows_the_same_and_touches_nothing(controller: Controller, kernel: FakeKernel) -> None:
    steps = controller.plan_network("bridge", "n", subnets=["10.88.0.0/24"], options={"bridge": "br0"})
    assert kernel.resources == ()
    assert dict(controller.networks) == {}
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], options={"bridge": "br0"})
    lines = steps.render().splitlines()
    assert [line.split(" address ")[0] for line in lines] == [
        line.split(" address ")[0] for line in kernel.render().splitlines()
    ]
    assert "ip address add 10.88.0.1/24 dev br0" in lines


def test_deleting_a_network_leaves_nothing_and_frees_its_subnet_and_name(
    controller: Controller, kernel: FakeKernel, store: MemoryStore
) -> None:
    for _ in range(2):
        controller.new_network("bridge", "n", subnets=["10.88.0.0/24"]).delete()
    assert kernel.resources == ()
    left = {entry.key.partition("/")[0] for entry in store.list("").entries}
    assert left <= {"meta", "lock"}


def test_a_network_deleted_twice_is_not_found_unless_that_is_fine(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    network.delete()
    with pytest.raises(NotFoundError, match=r"was deleted"):
        network.delete()
    network.delete(missing_ok=True)
    with pytest.raises(NotFoundError):
        _ = network.name
    assert "deleted" in repr(network)


def test_names_are_unique(controller: Controller) -> None:
    controller.new_network("bridge", "n")
    with pytest.raises(ConflictError, match="network with name 'n' already exists"):
        controller.new_network("bridge", "n")


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "ä", "a" * 256, None, 7, "a\n"])
def test_malformed_names_are_refused(controller: Controller, kernel: FakeKernel, name: object) -> None:
    with pytest.raises(InvalidValueError, match="network name"):
        controller.new_network("bridge", name)  # type: ignore[arg-type]  # junk on purpose
    assert kernel.log == ()


def test_networks_may_not_overlap(controller: Controller) -> None:
    controller.new_network("bridge", "a", subnets=["10.0.0.0/16"])
    with pytest.raises(ConflictError, match=r"10\.0\.3\.0/24 overlaps 10\.0\.0\.0/16"):
        controller.new_network("bridge", "b", subnets=["10.0.3.0/24"])


def test_a_refused_network_gives_its_pools_back(controller: Controller) -> None:
    """The IPv4 pool was taken when the IPv6 one turned out to overlap."""
    controller.new_network("bridge", "a", subnets=["fd00::/64"])
    with pytest.raises(ConflictError):
        controller.new_network("bridge", "b", subnets=["10.0.0.0/24", "fd00::/80"])
    controller.new_network("bridge", "b", subnets=["10.0.0.0/24"])


def test_chosen_subnets_avoid_each_other_and_the_host(kernel: FakeKernel) -> None:
    busy = (ip_network("172.16.0.0/22"), ip_network("172.16.9.1/32"))
    around = fake_surroundings(host_networks=busy)
    with Controller(store=MemoryStore(), kernel=kernel, surroundings=around) as controller:
        subnets = [controller.new_network("bridge", f"n{i}").subnets[0] for i in range(3)]
    assert [str(subnet) for subnet in subnets] == ["172.16.4.0/22", "172.16.12.0/22", "172.16.16.0/22"]


def test_families_follow_what_is_said(controller: Controller) -> None:
    def versions(**arguments: object) -> list[int]:
        network = controller.new_network("bridge", "n", **arguments)  # type: ignore[arg-type]  # varied on purpose
        found: list[int] = [subnet.version for subnet in network.subnets]
        network.delete()
        return found

    assert versions() == [4]
    assert versions(ipv6=True) == [6]
    assert versions(ipv4=True, ipv6=True) == [4, 6]
    assert versions(subnets=["fd00::/64"]) == [6]
    assert versions(subnets=["10.0.0.0/24"], ipv6=True) == [4, 6]
    assert versions(subnets=["10.0.0.0/24", "fd00::/64"]) == [4, 6]


def test_an_ipv6_subnet_is_a_64_of_the_hosts_own_prefix(controller: Controller) -> None:
    first = controller.new_network("bridge", "a", ipv6=True).subnets[0]
    second = controller.new_network("bridge", "b", ipv6=True).subnets[0]
    assert first.prefixlen == second.prefixlen == 64
    assert first.subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]  # both are IPv6
    assert first.supernet(new_prefix=48) == second.supernet(new_prefix=48)
    assert first != second


@pytest.mark.parametrize(
    "arguments",
    [
        {"ipv4": False},
        {"ipv4": False, "ipv6": False},
        {"subnets": ["10.0.0.0/24"], "ipv4": False},
        {"subnets": ["10.0.0.0/24", "10.1.0.0/24"]},
        {"subnets": ["10.0.0.1/24"]},
        {"subnets": "10.0.0.0/24"},
        {"subnets": ["0.0.0.0/0"]},
        {"subnets": [7]},
        {"subnets": [None]},
        {"subnets": ["224.0.0.0/24"]},
        {"subnets": [{"network": "10.0.0.0/24", "gateway": "10.1.0.1"}]},
        {"subnets": [{"network": "10.0.0.0/24", "sub_pool": "10.1.0.0/25"}]},
        {"subnets": [{"network": "10.0.0.0/24", "auxiliary": {"a": "10.1.0.1"}}]},
        {"subnets": [{"network": "0.0.0.0/24", "gateway": "0.0.0.1"}]},
        {"options": {"mtuu": 1500}},
        {"options": {"mtu": 1}},
        {"options": {"mtu": True}},
        {"options": {"mtu": 1000}, "ipv6": True},
        {"options": {"bridge": "a/b"}},
        {"options": {"bridge": "sixteen-bytes-xx"}},
        {"options": {"interface_prefix": "eth0"}},
        {"options": {"inhibit_gateway": "yes"}},
        {"options": 7},
        {"labels": {"": "x"}},
        {"labels": {"a": 1}},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_touched(
    controller: Controller, kernel: FakeKernel, store: MemoryStore, arguments: dict[str, object]
) -> None:
    before = store.list("")
    with pytest.raises(InvalidValueError):
        controller.new_network("bridge", "n", **arguments)  # type: ignore[arg-type]  # junk on purpose
    assert kernel.log == ()
    assert store.list("") == before


def test_size_only_subnets(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["0.0.0.0/26", "::/80"])
    assert [subnet.prefixlen for subnet in network.subnets] == [26, 80]


def test_subnet_values_carry_gateway_sub_pool_and_auxiliary_addresses(controller: Controller) -> None:
    subnet = Subnet(
        netaddr.IPNetwork("10.0.0.0/24"),
        gateway="10.0.0.254",
        sub_pool="10.0.0.128/28",
        auxiliary={"router": "10.0.0.128"},
    )
    network = controller.new_network("bridge", "n", subnets=[subnet])
    assert network.gateways == (ip_address("10.0.0.254"),)
    assert [str(network.create_endpoint(f"e{i}").addresses[0]) for i in range(2)] == [
        "10.0.0.129/24",
        "10.0.0.130/24",
    ]


def test_a_full_subnet_is_exhausted(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/30"])
    network.create_endpoint("a")
    with pytest.raises(ExhaustedError, match=r"10\.0\.0\.0/30"):
        network.create_endpoint("b")


def test_unknown_drivers_are_named(controller: Controller) -> None:
    with pytest.raises(UnknownDriverError, match="unknown driver 'nope'"):
        controller.new_network("nope", "n")
    with pytest.raises(UnknownDriverError, match="unknown IPAM driver 'nope'"):
        controller.new_network("bridge", "n", ipam="nope")


def test_the_default_driver_and_its_default_options(kernel: FakeKernel) -> None:
    with Controller(
        store=MemoryStore(),
        kernel=kernel,
        surroundings=fake_surroundings(),
        driver_options={"bridge": {"mtu": 1400}},
    ) as controller:
        assert controller.new_network("", "a").options == BridgeOptions(mtu=1400)
        named = controller.new_network("bridge", "b", options={"bridge": "br0"})
        assert named.options == BridgeOptions(mtu=1400, bridge="br0")
        assert controller.new_network("bridge", "c", options=BridgeOptions()).options == BridgeOptions()


def test_two_networks_cannot_have_one_bridge(controller: Controller) -> None:
    controller.new_network("bridge", "a", options={"bridge": "br0"})
    with pytest.raises(ConflictError, match="br0"):
        controller.new_network("bridge", "b", options={"bridge": "br0"})


def test_an_existing_bridge_is_adopted_and_survives(controller: Controller, kernel: FakeKernel) -> None:
    kernel.plant(Bridge(name="br0", mac="02:00:00:00:00:99"))
    controller.new_network("bridge", "a", options={"bridge": "br0"}).delete()
    assert kernel.observe(type(kernel.resources)([Bridge(name="br0")])) != ()
    assert kernel.resources == ()


@pytest.mark.parametrize("driver", ["host", "null"])
def test_host_and_null_networks_exist_once_and_for_ever(controller: Controller, driver: str) -> None:
    network = controller.new_network(driver, "n")
    assert network.subnets == ()
    with pytest.raises(ConflictError, match="only one instance"):
        controller.new_network(driver, "m")
    with pytest.raises(ConflictError, match="cannot be deleted"):
        network.delete()
    with pytest.raises(InvalidValueError, match="no subnets"):
        controller.new_network(driver, "m", subnets=["10.0.0.0/24"])


def test_the_null_ipam_driver_makes_networks_without_addresses(controller: Controller) -> None:
    one = controller.new_network("bridge", "a", ipam="null")
    two = controller.new_network("bridge", "b", ipam="null")
    assert one.create_endpoint("e").addresses == two.create_endpoint("e").addresses == ()


def test_renaming(controller: Controller) -> None:
    network = controller.new_network("bridge", "a")
    controller.new_network("bridge", "taken")
    network.rename("b")
    network.rename("b")
    assert network.name == "b"
    assert sorted(controller.networks) == ["b", "taken"]
    with pytest.raises(ConflictError):
        network.rename("taken")
    with pytest.raises(InvalidValueError):
        network.rename("")


def test_inspect_is_plain_data(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"], labels={"a": "b"})
    network.create_endpoint("e")
    data = network.inspect()
    assert data["name"] == "n"
    assert data["labels"] == {"a": "b"}
    assert data["endpoints"] == ["e"]
    assert data["subnets"][0]["network"] == "10.0.0.0/24"
    assert controller.inspect()["networks"]["n"]["endpoints"]["e"]["addresses"] == ["10.0.0.2/24"]


def test_views_are_mappings(controller: Controller) -> None:
    controller.new_network("bridge", "a")
    view = controller.networks
    assert list(view) == ["a"]
    assert len(view) == 1
    assert "a" in view
    assert "b" not in view
    assert view.get("b") is None
    with pytest.raises(NotFoundError, match="network 'b' does not exist"):
        view["b"]
    with pytest.raises(KeyError):
        view["b"]
