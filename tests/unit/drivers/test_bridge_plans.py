"""The bridge driver's plans, as lines: each option, IPv4, IPv6 and both."""

from __future__ import annotations

from typing import Any

import pytest

from pynetwork import (
    BridgeDriver,
    BridgeOptions,
    EndpointSpec,
    InvalidValueError,
    NetworkSpec,
    Plan,
    SandboxSpec,
    Subnet,
)
from pynetwork.resources import Rules, Ruleset, Sysctl
from pynetwork.testing import assert_plan

DRIVER = BridgeDriver()
ID = "0123456789abcdef0123456789abcdef"
FOUR = Subnet("10.88.0.0/24", gateway="10.88.0.1")
SIX = Subnet("fd00:88::/64", gateway="fd00:88::1")
SANDBOX = SandboxSpec(id="5" * 32, name="s", netns="/run/n")
CABLE = "ip link add veth5 numtxqueues 1 numrxqueues 1 type veth peer name eth0 address 02:00:00:00:00:05"


def _network(*subnets: Subnet, **options: Any) -> NetworkSpec[BridgeOptions]:
    return NetworkSpec(id=ID, name="n", driver="bridge", options=BridgeOptions(**options), subnets=subnets)


def _endpoint(**fields: Any) -> EndpointSpec:
    given = {"id": "e" * 32, "name": "e", "network": ID, "mac": "02:00:00:00:00:05"}
    return EndpointSpec(**{**given, "interface": "eth0", "link": "veth5", **fields})


def _links(plan: Plan) -> Plan:
    """What is neither the firewall's nor makes the host a router: that is in test_bridge_firewall.py."""
    return Plan(
        item
        for item in plan
        if not isinstance(item, Rules | Ruleset | Sysctl) and "route_localnet" not in item.render()[0]
    )


@pytest.mark.parametrize(
    ("subnets", "addresses"),
    [
        ((), ""),
        ((FOUR,), "ip address add 10.88.0.1/24 dev br-0123456789ab"),
        (
            (SIX,),
            """ip address add fd00:88::1/64 dev br-0123456789ab nodad
            ip address add fe80::1:23ff:fe45:6789/64 dev br-0123456789ab nodad""",
        ),
        (
            (FOUR, SIX),
            """ip address add 10.88.0.1/24 dev br-0123456789ab
            ip address add fd00:88::1/64 dev br-0123456789ab nodad
            ip address add fe80::1:23ff:fe45:6789/64 dev br-0123456789ab nodad""",
        ),
        ((Subnet("0.0.0.0/0"),), ""),
    ],
    ids=["none", "IPv4", "IPv6", "both", "null"],
)
def test_a_network_is_a_bridge_with_a_gateway_of_each_family(
    subnets: tuple[Subnet, ...], addresses: str
) -> None:
    lines = f"""
        ip link add br-0123456789ab address 02:01:23:45:67:89 type bridge mcast_snooping 0
        ip link set br-0123456789ab addrgenmode none
        sysctl -w net.ipv6.conf.br-0123456789ab.accept_ra=0
        {addresses}
        ip link set br-0123456789ab up
    """
    expected = "\n".join(line.strip() for line in lines.splitlines() if line.strip())
    assert_plan(_links(DRIVER.network_plan(_network(*subnets))), expected)


@pytest.mark.parametrize(
    ("options", "snooping", "more"),
    [
        ({"bridge": "br0"}, 0, ""),
        ({"bridge": "br0", "mtu": 9000}, 0, "\n        ip link set br0 mtu 9000"),
        ({"bridge": "br0", "multicast_snooping": True}, 1, ""),
    ],
)
def test_options_of_the_bridge(options: dict[str, Any], snooping: int, more: str) -> None:
    expected = f"""
        ip link add br0 address 02:01:23:45:67:89 type bridge mcast_snooping {snooping}
        ip link set br0 addrgenmode none
        sysctl -w net.ipv6.conf.br0.accept_ra=0{more}
        ip address add 10.88.0.1/24 dev br0
        ip link set br0 up
    """
    assert_plan(_links(DRIVER.network_plan(_network(FOUR, **options))), expected)


def test_a_bridge_named_by_the_caller_is_adopted_with_its_addresses_and_no_other() -> None:
    for options, adopt in (({"bridge": "br0"}, True), ({}, False)):
        plan = _links(DRIVER.network_plan(_network(FOUR, **options)))
        assert [getattr(item, "adopt", None) for item in plan] == [adopt, adopt, None]


def test_inhibited_gateways_are_not_on_the_bridge_and_still_routed_to() -> None:
    network = _network(FOUR, SIX, inhibit_gateway=True, bridge="br0")
    assert "address add" not in DRIVER.network_plan(network).render()
    endpoint = _endpoint(default_via=["10.88.0.1"])
    assert "route add 0.0.0.0/0 via 10.88.0.1" in DRIVER.join_plan(network, endpoint, SANDBOX).render()


@pytest.mark.parametrize(
    ("fields", "inside"),
    [
        ({}, ""),
        (
            {"addresses": ["10.88.0.2/24"], "default_via": ["10.88.0.1"]},
            """
            ip address add 10.88.0.2/24 dev eth0
            ip link set eth0 up
            ip route add 0.0.0.0/0 via 10.88.0.1 dev eth0""",
        ),
        (
            {"addresses": ["fd00:88::2/64"], "default_via": ["fd00:88::1"]},
            """
            ip address add fd00:88::2/64 dev eth0 nodad
            ip link set eth0 up
            ip route add ::/0 via fd00:88::1 dev eth0""",
        ),
        (
            {
                "addresses": ["10.88.0.2/24", "fd00:88::2/64"],
                "default_via": ["10.88.0.1", "fd00:88::1"],
                "link_local": ["169.254.1.1/16", "fe80::5/64"],
            },
            """
            ip address add 10.88.0.2/24 dev eth0
            ip address add fd00:88::2/64 dev eth0 nodad
            ip address add 169.254.1.1/16 dev eth0
            ip address add fe80::5/64 dev eth0 nodad
            ip link set eth0 up
            ip route add 0.0.0.0/0 via 10.88.0.1 dev eth0
            ip route add ::/0 via fd00:88::1 dev eth0""",
        ),
        (
            {
                "addresses": ["10.88.0.2/24"],
                "routes": [("192.0.2.0/24", "10.88.0.9"), "198.51.100.0/24", ("2001:db8::/32", "fd00::1")],
            },
            """
            ip address add 10.88.0.2/24 dev eth0
            ip link set eth0 up
            ip route add 198.51.100.0/24 dev eth0
            ip route add 192.0.2.0/24 via 10.88.0.9 dev eth0
            ip route add 2001:db8::/32 via fd00::1 dev eth0""",
        ),
        (
            {"sysctls": {"net.ipv4.conf.IFNAME.rp_filter": "2", "net.ipv6.conf.IFNAME.mtu": "1300"}},
            """
            sysctl -w net.ipv4.conf.eth0.rp_filter=2
            sysctl -w net.ipv6.conf.eth0.mtu=1300
            ip link set eth0 up""",
        ),
    ],
    ids=["bare", "IPv4", "IPv6", "both", "routes", "sysctls"],
)
def test_an_endpoint_is_a_cable_and_what_is_configured_on_its_end(
    fields: dict[str, Any], inside: str
) -> None:
    steps = [line.strip() for line in inside.splitlines() if line.strip()] or ["ip link set eth0 up"]
    lines = [
        f"{CABLE} numtxqueues 1 numrxqueues 1 netns /run/n",
        "ip link set veth5 addrgenmode none",
        "ip link set veth5 master br-0123456789ab up",
        "bridge link set dev veth5 hairpin on",
        "nsenter --net=/run/n ip link set eth0 addrgenmode none",
        *(f"nsenter --net=/run/n {step}" for step in steps),
    ]
    plan = _links(DRIVER.join_plan(_network(FOUR, SIX), _endpoint(**fields), SANDBOX))
    assert_plan(plan, "\n".join(lines))


def test_the_cable_has_the_mtu_of_its_bridge_and_leads_to_it() -> None:
    network = _network(FOUR, mtu=1400, bridge="br0")
    lines = _links(DRIVER.join_plan(network, _endpoint(), SANDBOX)).render().splitlines()
    assert lines[0] == (
        "ip link add veth5 mtu 1400 numtxqueues 1 numrxqueues 1 type veth peer name eth0 "
        "address 02:00:00:00:00:05 mtu 1400 numtxqueues 1 numrxqueues 1 netns /run/n"
    )
    assert lines[2] == "ip link set veth5 master br0 up"


def test_settings_of_an_interface_with_a_dot_in_its_name() -> None:
    """In the dotted form of a setting's name a slash stands for a dot (sysctl.conf(5))."""
    endpoint = _endpoint(interface="eth0.5", sysctls={"net.ipv4.conf.IFNAME.rp_filter": "2"})
    plan = DRIVER.join_plan(_network(FOUR), endpoint, SANDBOX)
    assert "sysctl -w net.ipv4.conf.eth0/5.rp_filter=2\n" in plan.render()


@pytest.mark.parametrize("announce", [False, True])
def test_an_address_somebody_else_had_is_announced(announce: bool) -> None:
    endpoint = _endpoint(addresses=["10.88.0.2/24", "fd00:88::2/64"], announce=announce)
    plan = DRIVER.join_plan(_network(FOUR, SIX), endpoint, SANDBOX)
    lines = [line for item in plan for effect in item.effects() for line in effect.render()]
    assert lines == (
        [
            "nsenter --net=/run/n arping -c 1 -U -I eth0 10.88.0.2",
            "nsenter --net=/run/n ndsend fd00:88::2 eth0",
        ]
        if announce
        else []
    )


def test_the_same_specs_give_the_same_plan() -> None:
    network, endpoint = _network(FOUR, SIX, mtu=1400), _endpoint(addresses=["10.88.0.2/24"])
    assert DRIVER.network_plan(network) == BridgeDriver().network_plan(network)
    assert DRIVER.join_plan(network, endpoint, SANDBOX) == BridgeDriver().join_plan(
        network, endpoint, SANDBOX
    )


@pytest.mark.parametrize(
    ("endpoint", "sandbox"),
    [
        (_endpoint(interface=None), SANDBOX),
        (_endpoint(link=None), SANDBOX),
        (_endpoint(), SandboxSpec(id="5", name="s", netns=None)),
    ],
)
def test_a_join_without_names_or_namespace_is_refused(endpoint: EndpointSpec, sandbox: SandboxSpec) -> None:
    with pytest.raises(InvalidValueError, match="'e' has no namespace to be in"):
        DRIVER.join_plan(_network(FOUR), endpoint, sandbox)


def test_an_mtu_too_small_for_ipv6_is_refused_where_there_is_ipv6() -> None:
    DRIVER.network_plan(_network(FOUR, mtu=1000))
    with pytest.raises(InvalidValueError, match=r"1000 for subnet fd00:88::/64.*1280"):
        DRIVER.network_plan(_network(FOUR, SIX, mtu=1000))


def test_the_prefix_of_interface_names_is_an_option() -> None:
    assert DRIVER.interface_prefix(_network()) == "eth"
    assert DRIVER.interface_prefix(_network(interface_prefix="net")) == "net"


@pytest.mark.parametrize(
    "options",
    [
        {"mtu": 67},
        {"mtu": 65536},
        {"mtu": "1500"},
        {"mtu": True},
        {"mtu": 1500.0},
        {"bridge": ""},
        {"bridge": "all"},
        {"bridge": 7},
        {"inhibit_gateway": 1},
        {"multicast_snooping": None},
        {"interface_prefix": None},
        {"interface_prefix": "eth0"},
        {"interface_prefix": "twelve-bytes"},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        BridgeOptions(**options)
