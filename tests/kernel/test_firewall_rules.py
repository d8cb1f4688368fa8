"""Each option of a network that says who may pass, with packets: what it allows, and what it does not."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from tests.kernel.lan import HOST, LAN, Place, Question, bridge_mac, bridge_of, check, everywhere

from pynetwork import BridgeOptions, ConflictError, InvalidValueError

if TYPE_CHECKING:
    from tests.kernel.lan import Box, Lab


pytestmark = pytest.mark.root


def add_to_host(lab: Lab, *addresses: str) -> None:
    """Add addresses that are no source unless somebody says so."""
    for address in addresses:
        more = ["nodad", "preferred_lft", "0"] if ":" in address else []
        lab.host.run(["ip", "address", "add", address, "dev", "lan", *more])


def by_gateway(box: Box, *destinations: str) -> None:
    """Send what is for *destinations* to the gateway, whatever the container was told."""
    for gateway in box.endpoint.network.gateways:
        for destination in destinations:
            if (":" in destination) == (gateway.version == 6) or destination == "default":
                box.ip(f"-{gateway.version}", "route", "replace", destination, "via", str(gateway))


# Host addresses


def test_a_port_on_a_loopback_address_is_for_the_host_alone(lab: Lab) -> None:
    """Also where LAN and container send packets for it to the host's MAC."""
    network = lab.network("n", 1)
    web = lab.box(network, "web", ["127.0.0.2:9000:80", "127.0.0.2:9000:80/udp"])
    sibling = lab.box(network, "sibling")
    lab.servers.add(lab.home, [70], "127.0.0.1")
    for ip, setting in ((lab.machine.run, "eth0"), (sibling.sandbox.run, "eth0")):
        ip(["ip", "route", "flush", "table", "local", "root", "127.0.0.0/8"])
        ip(["sh", "-c", f"echo 1 >/proc/sys/net/ipv4/conf/{setting}/route_localnet"])
    lab.machine.run(["ip", "route", "add", "127.0.0.0/8", "via", HOST[4], "src", LAN[4]])
    sibling.ip("route", "add", "127.0.0.0/8", "via", "10.88.1.1", "src", sibling.addresses[4])
    loopback, host = {4: "127.0.0.2"}, {4: HOST[4]}
    check(
        {"web": everywhere(lab.home, loopback, 9000), "host": everywhere(lab.home, {4: "127.0.0.1"}, 70)},
        [
            *everywhere(lab.home, {4: "127.0.0.1"}, 9000),
            *everywhere(lab.home, host, 9000),
            *(q for place in (lab.lan, sibling) for q in everywhere(place, host | {6: HOST[6]}, 9000)),
            *(q for place in (lab.lan, sibling) for q in everywhere(place, loopback, 9000)),
            *everywhere(sibling, {4: "127.0.0.1"}, 70),
        ],
    )
    with pytest.raises(InvalidValueError, match="::1"):
        web.endpoint.publish("[::1]:9001:80")


def test_a_port_on_one_address_of_the_host_is_not_on_another(lab: Lab) -> None:
    """Of two endpoints each has the same port, on its own address."""
    add_to_host(lab, "192.0.2.11/24", "2001:db8::11/64", "192.0.2.12/24", "2001:db8::12/64")
    network = lab.network("n", 1)
    one, two = ({4: f"192.0.2.{n}", 6: f"2001:db8::{n}"} for n in (11, 12))
    for name, addresses in (("one", one), ("two", two)):
        where = [addresses[4], f"[{addresses[6]}]"]
        lab.box(network, name, [f"{each}:9000:80/{proto}" for each in where for proto in ("tcp", "udp")])
    places = (lab.lan, lab.home, lab.box(network, "sibling"))
    check(
        {
            name: [q for place in places for q in everywhere(place, addresses, 9000)]
            for name, addresses in (("one", one), ("two", two))
        },
        [q for place in places for q in everywhere(place, HOST, 9000)],
    )


def test_a_network_has_a_host_address_for_ports_that_name_none(lab: Lab) -> None:
    add_to_host(lab, "192.0.2.11/24")
    network = lab.network("n", 1, options=BridgeOptions(host_binding="192.0.2.11"))
    lab.box(network, "web", ["9000:80", "9000:80/udp"])
    check({"web": everywhere(lab.lan, {4: "192.0.2.11"}, 9000)}, everywhere(lab.lan, HOST, 9000))


def test_an_endpoint_that_the_host_never_spoke_to_is_found_by_ipv6(lab: Lab) -> None:
    """A host asks for the MAC of an endpoint on behalf of others, which takes a link-local address."""
    network = lab.network("n", 1)
    lab.box(network, "web", ["9000:80", "9000:80/udp"])
    check({"web": everywhere(lab.lan, {6: HOST[6]}, 9000)})


# Ranges and protocols


@pytest.mark.parametrize("mode", ["nat", "routed"])
def test_ranges_are_published_port_by_port(lab: Lab, mode: str) -> None:
    network = lab.network("n", 1, options=BridgeOptions(gateway_mode_ipv4=mode, gateway_mode_ipv6=mode))
    lab.route_to(network)
    ranges = ["80-81:80-81", "7000-7001:80-81", f"{HOST[4]}:7100-7101:80-81"]
    if mode == "routed":
        ranges = ["80-81"]
    web = lab.box(network, "web", [f"{each}/{proto}" for each in ranges for proto in ("tcp", "udp")])
    lab.servers.add(web, [79, 82])
    if mode == "routed":
        reached = [q for port in (80, 81) for q in everywhere(lab.lan, web.addresses, port)]
        silent = [q for port in (79, 82) for q in everywhere(lab.lan, web.addresses, port)]
    else:
        reached = [q for port in (80, 81, 7000, 7001) for q in everywhere(lab.lan, HOST, port)]
        reached += [q for port in (7100, 7101) for q in everywhere(lab.lan, {4: HOST[4]}, port)]
        silent = [q for port in (79, 82, 6999, 7002, 7102) for q in everywhere(lab.lan, HOST, port)]
        silent += [q for port in (7100, 7101) for q in everywhere(lab.lan, {6: HOST[6]}, port)]
    answers = check({"web": reached}, silent)
    assert all(answer.port % 10 == question.port % 10 for question, answer in answers.items())


def test_ranges_of_one_endpoint_may_touch_and_be_opened_twice_but_not_overlap_in_part(lab: Lab) -> None:
    options = BridgeOptions(gateway_mode_ipv4="routed", gateway_mode_ipv6="routed")
    network = lab.network("n", 1, options=options)
    lab.route_to(network)
    web = lab.box(network, "web", ["80-81", "82-83", "9000-9001:80-81", "80"])
    with pytest.raises(ConflictError, match="overlaps"):
        web.endpoint.publish("81-82")
    lab.servers.add(web, [82])
    reached = [
        Question(lab.lan, address, port) for address in web.addresses.values() for port in (80, 81, 82)
    ]
    check({"web": reached})
    web.endpoint.unpublish("9000-9001:80-81")
    check({"web": reached})
    web.endpoint.unpublish("80-81")
    left = [question for question in reached if question.port != 81]
    check({"web": left}, [question for question in reached if question.port == 81])
    assert lab.controller.reconcile(dry_run=True).is_clean


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_client_that_asks_from_one_port_twice_is_sent_to_the_right_one(
    lab: Lab, version: int, proto: str
) -> None:
    """Both questions lead to port 80, so the second collides with the first in what is translated."""
    network = lab.network("n", 1)
    lab.box(network, "web", [f"80-81:80-81/{proto}", f"7000-7001:80-81/{proto}"])
    check({"web": [Question(lab.home, HOST[version], port, proto) for port in (80, 7000)]})  # it is there
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[proto]
    with lab.lan.entered(), contextlib.ExitStack() as stack:
        for port in (80, 7000):
            asker = stack.enter_context(socket.socket(family, kind))
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asker.bind((LAN[version], 5000))
            asker.settimeout(5)
            asker.connect((HOST[version], port))
            asker.send(b"?")
            assert asker.recv(99).split()[:2] == [b"web", b"80"]


def test_pings_pass_in_routed_and_unprotected_networks_only(lab: Lab) -> None:
    passes = {"nat": False, "nat-unprotected": True, "routed": True}
    other = lab.box(lab.network("other", 9), "other")
    for number, (mode, is_passing) in enumerate(passes.items()):
        options = BridgeOptions(gateway_mode_ipv4=mode, gateway_mode_ipv6=mode)
        network = lab.network(mode, number, options=options)
        lab.route_to(network)
        box = lab.box(network, mode)
        for version, address in box.addresses.items():
            assert lab.ping(box, LAN[version])
            assert lab.ping(lab.home, address)
            assert lab.ping(lab.lan, address, wanted=is_passing) == is_passing
            is_routed = mode == "routed"
            assert lab.ping(other, address, wanted=is_routed) == is_routed


# Networks and each other


def test_an_internal_network_has_no_way_out_and_no_way_in(lab: Lab) -> None:
    """Not even for containers that make themselves a route, and know the bridge's MAC."""
    internal = lab.network("internal", 1, internal=True)
    options = BridgeOptions(gateway_mode_ipv4="isolated", gateway_mode_ipv6="isolated")
    isolated = lab.network("isolated", 2, internal=True, options=options)
    web = lab.box(lab.network("web", 3), "web", ["8000:80", "8000:80/udp"])
    boxes = [lab.box(internal, "a"), lab.box(isolated, "b")]
    for box in boxes:
        mac = bridge_mac(lab, box.endpoint.network)
        for gateway in box.endpoint.network.gateways:
            box.ip("neigh", "replace", str(gateway), "lladdr", mac, "dev", "eth0", "nud", "permanent")
        by_gateway(box, "default")
        lab.route_to(box.endpoint.network)
    out = [
        q
        for box, other in (boxes, reversed(boxes))
        for to, port in ((LAN, 80), (web.addresses, 80), (other.addresses, 80), (HOST, 8000))
        for q in everywhere(box, to, port)
    ]
    into = [q for box in boxes for place in (lab.lan, web) for q in everywhere(place, box.addresses)]
    check({"lan": everywhere(web, LAN), "web": everywhere(lab.lan, HOST, 8000)}, [*out, *into])


def test_the_host_is_out_of_reach_of_an_isolated_network(lab: Lab) -> None:
    """It has no address there, not even a link-local one that the kernel made up."""
    options = BridgeOptions(gateway_mode_ipv4="isolated", gateway_mode_ipv6="isolated")
    box = lab.box(lab.network("isolated", 2, internal=True, options=options), "b", link_local=["fe80::b"])
    bridge = bridge_of(box.endpoint.network)
    assert lab.host.run(["ip", "-o", "address", "show", "dev", bridge]).stdout == ""


def test_without_icc_siblings_are_out_of_reach_and_nothing_else_is(lab: Lab) -> None:
    network = lab.network("n", 1, options=BridgeOptions(icc=False))
    web = lab.box(network, "web", ["8000:80", "8000:80/udp"])
    sibling, other = lab.box(network, "sibling"), lab.box(lab.network("other", 2), "other")
    reached = {
        "web": [
            *everywhere(lab.home, web.addresses),
            *everywhere(lab.lan, HOST, 8000),
            *everywhere(other, HOST, 8000),
        ],
        "lan": [*everywhere(web, LAN), *everywhere(sibling, LAN)],
    }
    apart = [*everywhere(sibling, web.addresses), *everywhere(web, sibling.addresses)]
    check(reached, apart)
    by_gateway(sibling, *web.addresses.values())
    by_gateway(web, *sibling.addresses.values())
    check(reached, apart)


def test_open_networks_reach_each_other_and_no_isolated_one(lab: Lab) -> None:
    names = ("open1", "open2", "isolated")
    boxes = {}
    for number, name in enumerate(names):
        options = BridgeOptions(isolation=name.rstrip("12"))
        boxes[name] = lab.box(lab.network(name, number, options=options), name)
    one, two, isolated = (boxes[name] for name in names)
    check(
        {"open1": everywhere(two, one.addresses), "open2": everywhere(one, two.addresses)},
        [
            *everywhere(one, isolated.addresses),
            *everywhere(isolated, one.addresses),
            *everywhere(isolated, two.addresses),
        ],
    )


def test_from_a_trusted_interface_all_ports_are_reached_directly(lab: Lab) -> None:
    trusting = lab.network("trusting", 1, options=BridgeOptions(trusted_interfaces=["lan"]))
    wary = lab.network("wary", 2)
    wan = lab.host.add_machine("wan", address="198.51.100.2/24", host_address="198.51.100.1/24")
    wan.run(["ip", "route", "add", "10.88.0.0/16", "via", "198.51.100.1"])
    lab.route_to(trusting)
    lab.route_to(wary)
    box, other = lab.box(trusting, "box"), lab.box(wary, "other")
    check(
        {"box": [q for port in (80, 81) for q in everywhere(lab.lan, box.addresses, port)]},
        [
            *everywhere(lab.lan, other.addresses),
            *everywhere(other, box.addresses),
            *everywhere(Place("wan", "/run/netns/wan"), {4: box.addresses[4]}),
        ],
    )


# Sources


def sources(questions: list[Question], server: str) -> set[str]:
    return {answer.source for answer in check({server: questions}).values()}


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (BridgeOptions(), set(HOST.values())),
        (BridgeOptions(masquerade_ipv4=False), {"10.88.1.2", HOST[6]}),
        (BridgeOptions(masquerade_ipv6=False), {HOST[4], "fd88:1::2"}),
        (BridgeOptions(outbound_addresses=["192.0.2.50"]), {"192.0.2.50", HOST[6]}),
        (
            BridgeOptions(outbound_addresses=["192.0.2.50", "2001:db8::50"]),
            {"192.0.2.50", "2001:db8::50"},
        ),
        (BridgeOptions(gateway_mode_ipv4="routed"), {"10.88.1.2", HOST[6]}),
        (BridgeOptions(gateway_mode_ipv6="routed"), {HOST[4], "fd88:1::2"}),
        (BridgeOptions(gateway_mode_ipv4="nat-unprotected"), set(HOST.values())),
    ],
    ids=lambda value: ",".join(sorted(value)) if isinstance(value, set) else "",
)
def test_the_outside_sees_the_source_that_the_network_says(
    lab: Lab, options: BridgeOptions, seen: set[str]
) -> None:
    add_to_host(lab, "192.0.2.50/24", "2001:db8::50/64")
    network = lab.network("n", 1, options=options)
    lab.route_to(network)
    assert sources(everywhere(lab.box(network, "box"), LAN), "lan") == seen


def test_an_endpoint_sees_who_asks(lab: Lab) -> None:
    """
    But for those who would not understand its answer, itself and siblings by way of the host, and for
    other networks, whose addresses are hidden from all but their own.
    """
    network = lab.network("n", 1)
    web = lab.box(network, "web", ["8000:80", "8000:80/udp"])
    sibling, other = lab.box(network, "sibling"), lab.box(lab.network("other", 2), "other")
    gateways = {"10.88.1.1", "fd88:1::1"}
    assert sources(everywhere(lab.lan, HOST, 8000), "web") == set(LAN.values())
    assert sources(everywhere(other, HOST, 8000), "web") == gateways
    assert sources(everywhere(sibling, web.addresses), "web") == set(sibling.addresses.values())
    assert sources(everywhere(sibling, HOST, 8000), "web") == gateways
    assert sources(everywhere(web, HOST, 8000), "web") == gateways
    assert sources(everywhere(lab.home, {4: "127.0.0.1"}, 8000), "web") == {"10.88.1.1"}
    assert sources(everywhere(lab.home, web.addresses), "web") == gateways
