"""What the overlay driver has on a host, as lines one could type, and what it refuses."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pynetwork import (
    EndpointSpec,
    InvalidValueError,
    NetworkSpec,
    SandboxSpec,
    UnavailableError,
)
from pynetwork.drivers.overlay import OverlayDriver
from pynetwork.drivers.overlay_linux import LinuxDatapath
from pynetwork.drivers.overlay_options import OverlayOptions
from pynetwork.peers import Underlay
from pynetwork.plan import Plan
from pynetwork.resources import Ruleset
from pynetwork.testing import assert_plan

DRIVER = OverlayDriver(Underlay(vtep="192.0.2.1", mtu=1500), LinuxDatapath())
NETWORK: NetworkSpec[OverlayOptions] = NetworkSpec(
    id="0123456789abcdef0123456789abcdef",
    name="net",
    driver="overlay",
    options=OverlayOptions(vni=7, mtu=1450),
    subnets=["10.1.0.0/24"],
    space="cluster",
    internal=True,
)
ENDPOINT = EndpointSpec(
    id="1" * 32,
    name="web",
    network=NETWORK.id,
    addresses=["10.1.0.5/24"],
    mac="02:42:0a:01:00:05",
    interface="eth0",
    link="veth1",
    routes=[("10.9.0.0/16", "10.1.0.9")],
)
SANDBOX = SandboxSpec(id="2" * 32, name="s", netns="/run/ns")


def test_a_network_is_a_bridge_that_learns_nothing_and_a_vxlan_device_in_it() -> None:
    plan = Plan(item for item in DRIVER.network_plan(NETWORK) if not isinstance(item, Ruleset))
    assert_plan(
        plan,
        """
        ip link add ov-7 address 02:01:23:45:67:89 type bridge mcast_snooping 0
        ip link set ov-7 addrgenmode none
        sysctl -w net.ipv6.conf.ov-7.accept_ra=0
        ip link set ov-7 mtu 1450
        nft add element inet pynetwork bridges { "ov-7" }
        nft add element inet pynetwork internal { "ov-7" }
        nft add element inet pynetwork linked { "ov-7" . "ov-7" }
        ip link add vx-7 mtu 1450 master ov-7 type vxlan id 7 local 192.0.2.1 dstport 4789 nolearning proxy
        ip link set vx-7 addrgenmode none
        ip link set vx-7 up
        bridge link set dev vx-7 learning off flood off
        sysctl -w net.ipv4.conf.ov-7.arp_ignore=8
        sysctl -w net.ipv6.conf.ov-7.disable_ipv6=1
        ip link set ov-7 up
        """,
    )


def test_an_endpoint_is_a_guarded_veth_pair_and_the_way_to_it() -> None:
    inside = "nsenter --net=/run/ns"
    pair = "numtxqueues 1 numrxqueues 1"
    assert_plan(
        DRIVER.join_plan(NETWORK, ENDPOINT, SANDBOX),
        f"""
        nft add element bridge pynetwork macs {{ "veth1" . 02:42:0a:01:00:05 }}
        nft add element bridge pynetwork sources4 {{ "veth1" . 02:42:0a:01:00:05 . 10.1.0.5 }}
        nft add element bridge pynetwork guarded {{ "veth1" }}
        ip link add veth1 mtu 1450 {pair} type veth peer name eth0 address 02:42:0a:01:00:05 mtu 1450 {pair} netns /run/ns
        ip link set veth1 addrgenmode none
        ip link set veth1 master ov-7 up
        {inside} ip link set eth0 addrgenmode none
        bridge link set dev veth1 learning off flood off
        {inside} ip address add 10.1.0.5/24 dev eth0
        {inside} ip link set eth0 up
        bridge fdb replace 02:42:0a:01:00:05 dev veth1 master static
        {inside} ip route add 10.9.0.0/16 via 10.1.0.9 dev eth0
        """,  # noqa: E501 - one line is one command
    )


def test_a_strict_network_takes_nothing_before_its_device_is_there() -> None:
    network = attrs.evolve(NETWORK, options=OverlayOptions(vni=7, mtu=1450, strict=True))
    lines = DRIVER.network_plan(network).render().splitlines()
    added = [line for line in lines if line not in DRIVER.network_plan(NETWORK).render().splitlines()]
    assert added == [
        "nft add element inet pynetwork-vxlan ports { 4789 }",
        "nft add element inet pynetwork-vxlan strict { 7 }",
    ]
    device = next(number for number, line in enumerate(lines) if line.startswith("ip link add vx-7"))
    assert lines.index(added[1]) < device


def test_a_strict_network_needs_a_host_that_can_tell_where_a_frame_comes_from() -> None:
    network = attrs.evolve(NETWORK, options=OverlayOptions(vni=7, mtu=1450, strict=True))
    driver = OverlayDriver(DRIVER.underlay, LinuxDatapath(is_strict=False))
    with pytest.raises(UnavailableError, match=r"cannot tell which host .*apt-get install nftables"):
        driver.network_plan(network)


def test_port_security_can_be_switched_off() -> None:
    network = attrs.evolve(NETWORK, options=OverlayOptions(vni=7, mtu=1450, spoof_protection=False))
    assert "guarded" not in DRIVER.join_plan(network, ENDPOINT, SANDBOX).render()


def test_the_same_specs_give_the_same_plan() -> None:
    assert DRIVER.network_plan(NETWORK) == DRIVER.network_plan(attrs.evolve(NETWORK))


@pytest.mark.parametrize(
    ("underlay", "room"),
    [
        (Underlay(vtep="192.0.2.1", mtu=1500), 1450),
        (Underlay(vtep="2001:db8::1", mtu=1500), 1430),
        (Underlay(vtep="192.0.2.1", mtu=1420), 1370),  # WireGuard
    ],
)
def test_what_the_underlay_leaves(underlay: Underlay, room: int) -> None:
    assert underlay.room == room


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"vni": None}, InvalidValueError, "VNI of network 'net' is not chosen"),
        ({"mtu": None}, InvalidValueError, "invalid MTU None"),
        ({"mtu": 1451}, UnavailableError, "raise the MTU of the interface that has 192.0.2.1 to 1501"),
    ],
)
def test_what_this_host_cannot_have_a_part_in_is_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    network = attrs.evolve(NETWORK, options=attrs.evolve(NETWORK.options, **options))
    with pytest.raises(error, match=words):
        DRIVER.network_plan(network)


def test_without_a_namespace_there_is_no_plan() -> None:
    with pytest.raises(InvalidValueError, match="has no namespace"):
        DRIVER.join_plan(NETWORK, ENDPOINT, attrs.evolve(SANDBOX, netns=None))
