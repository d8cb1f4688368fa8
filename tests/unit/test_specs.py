"""Specs: values that hold what was asked for in one form, and refuse what contradicts itself."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import attrs
import netaddr
import pytest

from pynetwork import EndpointSpec, InvalidValueError, NetworkSpec, SandboxSpec, StaticRoute, Subnet

FULL = {
    "network": "10.0.0.0/24",
    "gateway": "10.0.0.1",
    "sub_pool": "10.0.0.128/25",
    "auxiliary": {"router": "10.0.0.9"},
}


def test_a_subnet_is_the_same_whichever_way_it_is_given() -> None:
    subnet = Subnet.parse(FULL)
    assert subnet == Subnet(
        netaddr.IPNetwork("10.0.0.0/24"),
        gateway=ip_address("10.0.0.1"),
        sub_pool=ip_network("10.0.0.128/25"),
        auxiliary={"router": netaddr.IPAddress("10.0.0.9")},
    )
    assert hash(subnet) == hash(Subnet.parse(FULL))
    assert Subnet.parse("fd00::/64") == Subnet.parse(ip_network("fd00::/64")) == Subnet("fd00::/64")
    assert (subnet.version, Subnet("fd00::/64").version) == (4, 6)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gateway": "10.0.1.1"}, r"invalid gateway 10\.0\.1\.1: it is not in subnet 10\.0\.0\.0/24"),
        ({"gateway": "fd00::1"}, "invalid gateway fd00::1: it is not in subnet"),
        ({"gateway": "10.0.0.1/24"}, "invalid gateway"),
        ({"gateway": 167772161}, "invalid gateway"),
        ({"sub_pool": "10.0.0.129/25"}, "invalid sub-pool"),
        ({"auxiliary": {"router": "10.0.1.9"}}, "invalid auxiliary address router"),
        ({"auxiliary": {"a b": "10.0.0.9"}}, "invalid auxiliary address name"),
        ({"auxiliary": ["10.0.0.9"]}, "a dict of name to address is expected"),
        ({"network": "10.0.0.1/24"}, "invalid subnet"),
        ({"network": "0.0.0.0/24"}, "only asks for a size"),
        ({"gatway": "10.0.0.1"}, "its fields are network, gateway, sub_pool, auxiliary"),
    ],
)
def test_a_subnet_that_contradicts_itself_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        Subnet.parse(FULL | changes)


def test_a_size_is_no_subnet_and_everything_is_no_size() -> None:
    assert Subnet("0.0.0.0/24").is_size_only
    assert Subnet("::/64").is_size_only
    assert not Subnet("0.0.0.0/0").is_size_only
    assert not Subnet("10.0.0.0/24").is_size_only


def test_the_default_route_goes_to_the_gateway_unless_another_router_is_named() -> None:
    assert Subnet("10.0.0.0/24").default_via is None
    assert Subnet.parse(FULL).default_via == ip_address("10.0.0.1")
    names = {"DefaultGatewayIPv4": "10.0.0.254", "DefaultGatewayIPv6": "10.0.0.253"}
    assert Subnet.parse(FULL | {"auxiliary": names}).default_via == ip_address("10.0.0.254")
    six = Subnet("fd00::/64", gateway="fd00::1", auxiliary={"DefaultGatewayIPv6": "fd00::fe"})
    assert six.default_via == ip_address("fd00::fe")


def test_a_route_is_the_same_whichever_way_it_is_given() -> None:
    route = StaticRoute("192.0.2.0/24", "10.0.0.9")
    assert route == StaticRoute.parse({"dst": "192.0.2.0/24", "via": "10.0.0.9"})
    assert route == StaticRoute.parse((netaddr.IPNetwork("192.0.2.0/24"), ip_address("10.0.0.9")))
    assert (
        StaticRoute.parse("192.0.2.0/24")
        == StaticRoute.parse(["192.0.2.0/24"])
        == StaticRoute("192.0.2.0/24")
    )
    for value in (
        ("192.0.2.0/24", "fd00::1"),
        ("192.0.2.1/24", None),
        (),
        ("a", "b", "c"),
        {"to": "x"},
        None,
    ):
        with pytest.raises(InvalidValueError):
            StaticRoute.parse(value)


def test_an_endpoint_knows_its_address_of_each_family() -> None:
    spec = EndpointSpec(
        id="1", name="e", network="2", mac="0242.ac11.0002", addresses=["fd00::2/64", "10.0.0.2/24"]
    )
    assert spec.mac == "02:42:ac:11:00:02"
    assert spec.address(4) == ip_interface("10.0.0.2/24")
    assert spec.address(6) == ip_interface("fd00::2/64")
    assert attrs.evolve(spec, addresses=[]).address(4) is None


def test_specs_are_frozen_and_hold_their_own_copies() -> None:
    labels = {"a": "b"}
    network: NetworkSpec[None] = NetworkSpec(id="1", name="n", driver="d", options=None, labels=labels)
    sandbox = SandboxSpec(id="1", name="s", netns="/x", labels=labels)
    labels["c"] = "d"
    for spec in (network, sandbox):
        writable: Any = spec
        assert spec.labels == {"a": "b"}
        with pytest.raises(TypeError):
            writable.labels["c"] = "d"
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            writable.name = "x"
        hash(spec)


@pytest.mark.parametrize("values", ["10.0.0.2/24", 7, {"10.0.0.2/24": 1}, b"x", ["10.0.0.2/24", None]])
def test_one_value_is_no_list_of_them(values: Any) -> None:
    with pytest.raises(InvalidValueError):
        EndpointSpec(id="1", name="e", network="2", mac="02:00:00:00:00:01", addresses=values)
