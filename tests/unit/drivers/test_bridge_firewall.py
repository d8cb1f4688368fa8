"""What the bridge driver asks of the firewall: a table of options and elements, and all of their products."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pynetwork import (
    BridgeDriver,
    BridgeOptions,
    EndpointSpec,
    InvalidValueError,
    NetworkSpec,
    Plan,
    PortBinding,
    SandboxSpec,
    Subnet,
)
from pynetwork.plan import merge
from pynetwork.resources import EndpointRules, NetworkRules, PublishedPort, Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVER = BridgeDriver()
V4, V6 = "10.88.0.0/24", "fd00:88::/64"
SUBNETS = (Subnet(V4, gateway="10.88.0.1"), Subnet(V6, gateway="fd00:88::1"))
SANDBOX = SandboxSpec(id="5" * 32, name="s", netns="/run/n")
MODES = ("nat", "nat-unprotected", "routed")

#: What each gateway mode adds for a subnet (SUBNET) of a family (#), beside what all networks have.
BY_MODE = {
    "nat": ("direct# SUBNET",),
    "nat-unprotected": ('unprotected# "br0"',),
    "routed": ('pingable# "br0"',),
    "isolated": ("direct# SUBNET",),
}
#: How packets get another source, by mode, masquerading and whether an address is given for it.
BY_SOURCE = {
    **{(mode, True, False): ("masquerade# SUBNET",) for mode in ("nat", "nat-unprotected")},
    **{(mode, True, True): ("snat# SUBNET : OUTBOUND",) for mode in ("nat", "nat-unprotected")},
}
OUTBOUND = {4: "192.0.2.7", 6: "2001:db8::7"}


def _network(*subnets: Subnet, internal: bool = False, **options: Any) -> NetworkSpec[BridgeOptions]:
    return NetworkSpec(
        id="0123456789abcdef0123456789abcdef",
        name="n",
        driver="bridge",
        options=BridgeOptions(bridge="br0", **options),
        subnets=subnets,
        internal=internal,
    )


def _joined(network: NetworkSpec[BridgeOptions], *ports: str, start: int = 40000, **fields: Any) -> Plan:
    """What an endpoint with both addresses and *ports* asks for; host ports are chosen from *start* on."""
    given: dict[str, Any] = {"addresses": ["10.88.0.2/24", "fd00:88::2/64"], **fields}
    endpoint = EndpointSpec(
        id="e" * 32,
        name="e",
        network=network.id,
        mac="02:00:00:00:00:05",
        interface="eth0",
        link="veth5",
        **given,
    )
    asked = [PortBinding.parse(port) for port in ports]
    chosen = [attrs.evolve(b, host_port=b.host_first or start + n) for n, b in enumerate(asked)]
    plans = [DRIVER.port_plan(network, endpoint, binding) for binding in chosen]
    return merge([DRIVER.join_plan(network, endpoint, SANDBOX), *plans])


def _elements(plan: Plan, *kinds: type) -> list[str]:
    """The elements of those kinds of rules, each as its set's name and what is in the braces."""
    found = []
    for rule in plan:
        for line in rule.render() if isinstance(rule, kinds) else ():
            nft, verb, element, _family, table, name, text = line.split(" ", 6)
            assert (nft, verb in {"add", "create"}, element, table) == ("nft", True, "element", "pynetwork")
            found.append(f"{name} {text.removeprefix('{ ').removesuffix(' }')}")
    return found


def _for(version: int, lines: tuple[str, ...]) -> set[str]:
    subnet = {4: V4, 6: V6}[version]
    return {
        line.replace("#", str(version)).replace("SUBNET", subnet).replace("OUTBOUND", OUTBOUND[version])
        for line in lines
    }


def _expected(options: dict[str, Any], *, internal: bool) -> set[str]:
    found = {'bridges "br0"', f'own4 {V4} . "br0"', f'own6 {V6} . "br0"'}
    if options["icc"]:
        found.add('linked "br0" . "br0"')
    if internal:
        return found | {'internal "br0"', f"direct4 {V4}", f"direct6 {V6}"}
    if options["isolation"] == "open":
        found.add('open "br0"')
    for link in options["trusted_interfaces"]:
        found |= {f'linked "{link}" . "br0"', f'trusted4 "{link}" . {V4}', f'trusted6 "{link}" . {V6}'}
    for version in (4, 6):
        mode = options[f"gateway_mode_ipv{version}"]
        given = any(("." in address) == (version == 4) for address in options["outbound_addresses"])
        source = BY_SOURCE.get((mode, options[f"masquerade_ipv{version}"], given), ())
        found |= _for(version, BY_MODE[mode]) | _for(version, source)
    return found


def _products() -> Iterator[dict[str, Any]]:
    values: dict[str, tuple[Any, ...]] = {
        "gateway_mode_ipv4": MODES,
        "gateway_mode_ipv6": MODES,
        "masquerade_ipv4": (True, False),
        "masquerade_ipv6": (True, False),
        "outbound_addresses": ((), (OUTBOUND[4],), (OUTBOUND[6],), (OUTBOUND[6], OUTBOUND[4])),
        "icc": (True, False),
        "isolation": ("isolated", "open"),
        "trusted_interfaces": ((), ("eth0", "wg0")),
    }
    for combination in product(*values.values()):
        yield dict(zip(values, combination, strict=True))


@pytest.mark.parametrize("internal", [False, True])
def test_every_product_of_the_options_is_the_elements_of_the_table(internal: bool) -> None:
    count = 0
    for options in _products():
        network = _network(*SUBNETS, internal=internal, **options)
        elements = _elements(DRIVER.network_plan(network), NetworkRules)
        assert len(elements) == len(set(elements)), options
        assert set(elements) == _expected(options, internal=internal), options
        count += 1
    assert count == 1152


@pytest.mark.parametrize("version", [4, 6])
def test_a_network_of_one_family_asks_nothing_of_the_other(version: int) -> None:
    subnet = SUBNETS[version == 6]
    other = str(10 - version)
    for options in _products():
        elements = _elements(DRIVER.network_plan(_network(subnet, **options)), NetworkRules)
        both = _elements(DRIVER.network_plan(_network(*SUBNETS, **options)), NetworkRules)
        assert set(elements) == {line for line in both if other not in line.split(" ")[0]}, options


@pytest.mark.parametrize("option", ["gateway_mode_ipv4", "gateway_mode_ipv6"])
def test_only_an_internal_network_leaves_the_host_out(option: str) -> None:
    version, isolated = int(option[-1]), dict[str, Any]({option: "isolated"})
    with pytest.raises(InvalidValueError, match="'isolated' is for internal networks"):
        DRIVER.network_plan(_network(*SUBNETS, **isolated))
    DRIVER.network_plan(_network(SUBNETS[version == 4], **isolated))  # it has none of that family
    plan = DRIVER.network_plan(_network(*SUBNETS, internal=True, **isolated))
    text = plan.render()
    assert ("10.88.0.1/24 dev br0" in text) is (version == 6)
    assert ("fd00:88::1/64 dev br0" in text) is (version == 4)
    expected = {'bridges "br0"', 'internal "br0"', 'linked "br0" . "br0"'}
    expected |= _for(4, ('own# SUBNET . "br0"', "direct# SUBNET"))
    expected |= _for(6, ('own# SUBNET . "br0"', "direct# SUBNET"))
    assert set(_elements(plan, NetworkRules)) == expected


LOCALNET = "net.ipv4.conf.br0.route_localnet=1"
V4_FORWARD, V6_FORWARD = "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"


@pytest.mark.parametrize(
    ("subnets", "options", "settings"),
    [
        ((), {}, set()),
        (SUBNETS[:1], {}, {V4_FORWARD, LOCALNET}),
        (SUBNETS[1:], {}, {V6_FORWARD}),
        (SUBNETS, {}, {V4_FORWARD, V6_FORWARD, LOCALNET}),
        (SUBNETS, {"gateway_mode_ipv4": "nat-unprotected"}, {V4_FORWARD, V6_FORWARD, LOCALNET}),
        (SUBNETS, {"gateway_mode_ipv4": "routed"}, {V4_FORWARD, V6_FORWARD}),
        (SUBNETS, {"gateway_mode_ipv6": "routed"}, {V4_FORWARD, V6_FORWARD, LOCALNET}),
        (SUBNETS, {"internal": True}, set()),
        (SUBNETS, {"internal": True, "gateway_mode_ipv4": "isolated"}, set()),
    ],
)
def test_the_host_is_a_router_where_there_is_something_to_route(
    subnets: tuple[Subnet, ...], options: dict[str, Any], settings: set[str]
) -> None:
    lines = DRIVER.network_plan(_network(*subnets, **options)).render().splitlines()
    written = {line.removeprefix("sysctl -w ") for line in lines if line.startswith("sysctl")}
    assert written - {"net.ipv6.conf.br0.accept_ra=0"} == settings


def test_the_skeleton_is_one_for_all_networks_of_a_driver() -> None:
    driver = BridgeDriver(firewall_priority=-7)
    networks = (_network(*SUBNETS), _network(internal=True))
    plans = [Plan(set(driver.network_plan(each)) & {Ruleset(priority=-7)}) for each in networks]
    assert merge(plans) == (Ruleset(priority=-7),)
    assert Ruleset() in DRIVER.network_plan(_network())


# Endpoints

FOUR, SIX = "10.88.0.2", "fd00:88::2"
PORTS = (
    "8080:80",
    "0.0.0.0:8081:81/udp",
    "[::]:8081:81/udp",
    "127.0.0.1:8082:82/sctp",
    "[2001:db8::1]:8083:83",
    "9000-9001:9000-9001",
    "7001-7002:70-71",
    "192.0.2.1:6000-6009:6000-6009/udp",
)
#: Where the port of the host is translated, in the order of PORTS.
TRANSLATED = {
    4: {
        f"ports4 tcp . 8080 : {FOUR} . 80",
        f"ports4 udp . 8081 : {FOUR} . 81",
        f"address_ports4 127.0.0.1 . sctp . 8082 : {FOUR} . 82",
        f"port_ranges4 tcp . 9000-9001 : {FOUR}",
        f"ports4 tcp . 7001 : {FOUR} . 70",
        f"ports4 tcp . 7002 : {FOUR} . 71",
        f"address_port_ranges4 192.0.2.1 . udp . 6000-6009 : {FOUR}",
    },
    6: {
        f"ports6 tcp . 8080 : {SIX} . 80",
        f"ports6 udp . 8081 : {SIX} . 81",
        f"address_ports6 2001:db8::1 . tcp . 8083 : {SIX} . 83",
        f"port_ranges6 tcp . 9000-9001 : {SIX}",
        f"ports6 tcp . 7001 : {SIX} . 70",
        f"ports6 tcp . 7002 : {SIX} . 71",
    },
}
#: Where the endpoint's own port is opened.
OPENED = {
    4: {
        f"routed4 {FOUR} . tcp . 80",
        f"routed4 {FOUR} . udp . 81",
        f"routed4 {FOUR} . sctp . 82",
        f"routed_ranges4 {FOUR} . tcp . 9000-9001",
        f"routed_ranges4 {FOUR} . tcp . 70-71",
        f"routed_ranges4 {FOUR} . udp . 6000-6009",
    },
    6: {
        f"routed6 {SIX} . tcp . 80",
        f"routed6 {SIX} . udp . 81",
        f"routed6 {SIX} . tcp . 83",
        f"routed_ranges6 {SIX} . tcp . 9000-9001",
        f"routed_ranges6 {SIX} . tcp . 70-71",
    },
}
GUARD = [
    'macs "veth5" . 02:00:00:00:00:05',
    f'sources4 "veth5" . 02:00:00:00:00:05 . {FOUR}',
    f'sources6 "veth5" . 02:00:00:00:00:05 . {SIX}',
    'targets6 "veth5" . 0xfd000088000000000000000000000002',
    'guarded "veth5"',
]


@pytest.mark.parametrize("mode4", MODES)
@pytest.mark.parametrize("mode6", MODES)
def test_ports_are_translated_or_opened_as_the_mode_of_the_family_says(mode4: str, mode6: str) -> None:
    modes = {4: mode4, 6: mode6}
    expected = set()
    for version, mode in modes.items():
        expected |= (OPENED if mode == "routed" else TRANSLATED)[version]
    for icc, guard, isolation in product((True, False), (True, False), ("isolated", "open")):
        network = _network(
            *SUBNETS,
            gateway_mode_ipv4=mode4,
            gateway_mode_ipv6=mode6,
            icc=icc,
            spoof_protection=guard,
            isolation=isolation,
        )
        plan = _joined(network, *PORTS)
        elements = _elements(plan, PublishedPort)
        assert len(elements) == len(set(elements))
        assert set(elements) == expected
        assert _elements(plan, EndpointRules) == (GUARD if guard else [])
        assert ("bridge link set dev veth5 isolated on" in plan.render()) is not icc
        how = DRIVER.publishing(network)
        assert how.translated == tuple(v for v, mode in modes.items() if mode != "routed")
        assert how.opened == tuple(v for v, mode in modes.items() if mode == "routed")


@pytest.mark.parametrize(
    ("options", "hairpin"),
    [
        ({}, True),
        ({"gateway_mode_ipv4": "routed"}, True),
        ({"gateway_mode_ipv4": "routed", "gateway_mode_ipv6": "routed"}, False),
        ({"internal": True}, False),
    ],
)
def test_a_bridge_sends_back_where_ports_are_translated(options: dict[str, Any], hairpin: bool) -> None:
    plan = _joined(_network(*SUBNETS, **options))
    assert _elements(plan, PublishedPort) == []
    assert ("bridge link set dev veth5 hairpin on" in plan.render()) is hairpin


def test_what_is_left_open_is_published_at_the_port_that_was_chosen() -> None:
    elements = _elements(_joined(_network(*SUBNETS), "80", "127.0.0.1::81", "82-83"), PublishedPort)
    assert sorted(elements) == sorted(
        [
            f"ports4 tcp . 40000 : {FOUR} . 80",
            f"ports6 tcp . 40000 : {SIX} . 80",
            f"address_ports4 127.0.0.1 . tcp . 40001 : {FOUR} . 81",
            f"ports4 tcp . 40002 : {FOUR} . 82",
            f"ports4 tcp . 40003 : {FOUR} . 83",
            f"ports6 tcp . 40002 : {SIX} . 82",
            f"ports6 tcp . 40003 : {SIX} . 83",
        ]
    )


@pytest.mark.parametrize(
    ("ports", "opened"),
    [
        (["80", "80"], {"routed4 FOUR . tcp . 80"}),
        (["8080:80", "8081:80", "127.0.0.1:9:80"], {"routed4 FOUR . tcp . 80"}),
        (["80-82", "90-92:80-82"], {"routed_ranges4 FOUR . tcp . 80-82"}),
        (["80-82", "81"], {"routed_ranges4 FOUR . tcp . 80-82", "routed4 FOUR . tcp . 81"}),
        (
            ["80-81", "82-83"],
            {"routed_ranges4 FOUR . tcp . 80-81", "routed_ranges4 FOUR . tcp . 82-83"},
        ),
        (["80", "80/udp"], {"routed4 FOUR . tcp . 80", "routed4 FOUR . udp . 80"}),
        (["[::]:80:80"], set()),
    ],
)
def test_an_opened_port_is_opened_once(ports: list[str], opened: set[str]) -> None:
    network = _network(SUBNETS[0], gateway_mode_ipv4="routed")
    plan = _joined(network, *ports, addresses=["10.88.0.2/24"])
    elements = _elements(plan, PublishedPort)
    assert len(elements) == len(set(elements))
    assert set(elements) == {line.replace("FOUR", FOUR) for line in opened}


def test_link_local_addresses_are_its_own_as_well() -> None:
    plan = _joined(_network(*SUBNETS), link_local=["169.254.1.1/16", "fe80::5/64"])
    assert set(_elements(plan, EndpointRules)) == {
        *GUARD,
        'sources4 "veth5" . 02:00:00:00:00:05 . 169.254.1.1',
        'sources6 "veth5" . 02:00:00:00:00:05 . fe80::5',
        'targets6 "veth5" . 0xfe800000000000000000000000000005',
    }


@pytest.mark.parametrize("mode", [*MODES, "isolated"])
def test_nothing_is_published_in_an_internal_network(mode: str) -> None:
    network = _network(*SUBNETS, internal=True, gateway_mode_ipv4=mode, gateway_mode_ipv6=mode)
    how = DRIVER.publishing(network)
    assert (how.translated, how.opened) == ((), ())
    assert _elements(_joined(network, *PORTS), PublishedPort) == []


def test_a_port_says_whose_it_is() -> None:
    rule = next(item for item in _joined(_network(*SUBNETS), "80") if isinstance(item, PublishedPort))
    assert rule.owner == "endpoint 'e' of network 'n'"


@pytest.mark.parametrize(
    "options",
    [
        {"gateway_mode_ipv4": "bridge"},
        {"gateway_mode_ipv6": "NAT"},
        {"gateway_mode_ipv6": None},
        {"gateway_mode_ipv4": ["nat"]},
        {"isolation": True},
        {"isolation": "none"},
        {"icc": 1},
        {"icc": "yes"},
        {"spoof_protection": None},
        {"masquerade_ipv4": 0},
        {"masquerade_ipv6": "true"},
        {"host_binding": "localhost"},
        {"host_binding": "10.0.0.0/8"},
        {"host_binding": 1},
        {"outbound_addresses": "192.0.2.1"},
        {"outbound_addresses": ["192.0.2.1", "192.0.2.2"]},
        {"outbound_addresses": ["192.0.2.1/24"]},
        {"trusted_interfaces": "eth0"},
        {"trusted_interfaces": ['eth0" accept']},
        {"trusted_interfaces": ["eth0 }; flush ruleset"]},
        {"trusted_interfaces": ["a-name-too-long-for"]},
        {"trusted_interfaces": [""]},
        {"trusted_interfaces": [1]},
    ],
)
def test_bad_options_of_the_firewall_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        BridgeOptions(**options)
