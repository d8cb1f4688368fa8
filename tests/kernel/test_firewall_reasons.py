"""What a rule is for that no other test would miss: found by deleting one after the other."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest
from tests.kernel.lan import HOST, LAN, bridge_mac, check, everywhere, is_heard, version_of

if TYPE_CHECKING:
    from tests.kernel.lan import Box, Lab

pytestmark = pytest.mark.root

GATEWAYS = {4: "10.88.1.1", 6: "fd88:1::1"}


def by_itself(lab: Lab, box: Box) -> None:
    """Let *box* have a way out of its internal network, by its own doing."""
    mac = bridge_mac(lab, box.endpoint.network)
    for gateway in box.endpoint.network.gateways:
        box.ip("neigh", "replace", str(gateway), "lladdr", mac, "dev", "eth0", "nud", "permanent")
        box.ip(f"-{gateway.version}", "route", "replace", "default", "via", str(gateway))


def test_the_host_reaches_itself_by_the_address_of_a_gateway_and_nobody_else_does(lab: Lab) -> None:
    """Its packets to itself come in by lo; others who know the way are kept out."""
    network = lab.network("n", 1)
    lab.route_to(network)
    lab.box(network, "web", ["8000:80", "8000:80/udp"])
    lab.servers.add(lab.home, [70], *GATEWAYS.values())
    check(
        {
            "host": everywhere(lab.home, GATEWAYS, 70),
            "web": [*everywhere(lab.home, GATEWAYS, 8000), *everywhere(lab.lan, HOST, 8000)],
        },
        [*everywhere(lab.lan, GATEWAYS, 70), *everywhere(lab.lan, GATEWAYS, 8000)],
    )


def test_not_even_a_datagram_gets_out_of_an_internal_network_or_into_it(lab: Lab) -> None:
    """One that needs no answer; also where somebody else has the host translate a port to it."""
    internal, network = lab.network("internal", 1, internal=True), lab.network("n", 2)
    lab.route_to(internal)
    box, other = lab.box(internal, "box"), lab.box(network, "other")
    by_itself(lab, box)
    theirs = "table inet theirs {\n chain c {\n type nat hook prerouting priority -110;\n"
    theirs += " udp dport 4001 dnat ip to 10.88.1.2:4000\n udp dport 4001 dnat ip6 to [fd88:1::2]:4000\n"
    theirs += (
        " udp dport 4002 dnat ip to 10.88.2.2:4000\n udp dport 4002 dnat ip6 to [fd88:2::2]:4000\n }\n}\n"
    )
    lab.host.run(["nft", theirs])
    for version in (4, 6):
        assert is_heard(other, LAN[version], lab.lan)
        assert not is_heard(box, LAN[version], lab.lan, wanted=False)
        assert is_heard(lab.lan, HOST[version], other, to=4002)
        assert not is_heard(lab.lan, HOST[version], box, wanted=False, to=4001)
        assert not is_heard(lab.lan, box.addresses[version], box, wanted=False)
        assert not is_heard(other, box.addresses[version], box, wanted=False)
    lab.host.run(["nft", "delete", "table", "inet", "theirs"])


def test_a_port_is_the_host_s_and_of_nobody_else_who_has_it_too(lab: Lab) -> None:
    """Single ports, and ranges, also at one address."""
    network = lab.network("n", 1)
    web = lab.box(network, "web", ["80-81:80-81/udp", "80:80", "81:81"])
    there = lab.box(lab.network("other", 2), "there")
    places = [lab.home, web, there]
    check(
        {"lan": [q for place in places for port in (80, 81) for q in everywhere(place, LAN, port)]}
        | {"web": [q for place in (lab.home, lab.lan) for q in everywhere(place, HOST, 81)]}
    )


def test_a_range_at_one_address_of_the_host_is_at_no_other(lab: Lab) -> None:
    more = {4: "192.0.2.11", 6: "2001:db8::11"}
    lab.host.run(["ip", "address", "add", f"{more[4]}/24", "dev", "lan"])
    lab.host.run(["ip", "address", "add", f"{more[6]}/64", "dev", "lan", "nodad", "preferred_lft", "0"])
    ports = [f"{a}:80-81:80-81{p}" for a in (more[4], f"[{more[6]}]") for p in ("", "/udp")]
    lab.box(lab.network("n", 1), "web", ports)
    check(
        {"web": [q for port in (80, 81) for q in everywhere(lab.lan, more, port)]},
        [q for port in (80, 81) for q in everywhere(lab.lan, HOST, port)],
    )


@pytest.mark.parametrize("group", ["239.1.1.1", "ff02::1234"])
def test_what_is_multicast_keeps_its_source(lab: Lab, group: str) -> None:
    """As routing daemons need it, and mDNS."""
    lab.box(lab.network("n", 1), "box")
    version = version_of(group)
    source = GATEWAYS[version]
    with lab.lan.entered():
        ear = _member(group, "eth0")
    with ear, socket.socket({4: socket.AF_INET, 6: socket.AF_INET6}[version], socket.SOCK_DGRAM) as mouth:
        mouth.bind((source, 0))
        index = socket.if_nametoindex("lan")
        if version == 4:
            mouth.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index)
            )
        else:
            mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        ear.settimeout(10)
        mouth.sendto(b"!", (group, 4000))
        assert ear.recvfrom(99)[1][0].partition("%")[0] == source


def _member(group: str, interface: str) -> socket.socket:
    """Return a socket that hears what is sent to a group."""
    index = socket.if_nametoindex(interface)
    if version_of(group) == 4:
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        request = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), index)
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    else:
        ear = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        request = struct.pack("=16si", socket.inet_pton(socket.AF_INET6, group), index)
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    ear.bind((group, 4000) if version_of(group) == 4 else (group, 4000, 0, index))
    return ear


def test_loopback_addresses_of_the_host_are_out_of_reach_of_containers(lab: Lab) -> None:
    """Although packets to them are routable on our bridges, for the host's own sake."""
    box = lab.box(lab.network("n", 1), "box")
    assert is_heard(box, GATEWAYS[4], lab.home)
    box.ip("route", "flush", "table", "local", "root", "127.0.0.0/8")
    box.ip("route", "add", "127.0.0.0/8", "via", GATEWAYS[4], "src", box.addresses[4])
    box.sandbox.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet"], check=True)
    assert not is_heard(box, "127.0.0.1", lab.home, wanted=False)


def test_an_endpoint_without_an_address_may_ask_for_one_and_for_nothing_else(lab: Lab) -> None:
    """By DHCP (RFC 2131, 4.1)."""
    box = lab.box(lab.network("n", 1), "box")
    box.ip("-4", "address", "flush", "dev", "eth0")
    box.ip("route", "add", "default", "dev", "eth0")
    heard = {}
    for port in (67, 4000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.bind(("", port))
            with box.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
                mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                mouth.bind(("", 68))
                mouth.sendto(b"!", ("255.255.255.255", port))
            ear.settimeout(10 if port == 67 else 0.3)
            try:
                heard[port] = ear.recvfrom(99)[1]
            except TimeoutError:
                heard[port] = None
    assert heard == {67: ("0.0.0.0", 68), 4000: None}


def test_link_local_addresses_reach_the_gateway_s(lab: Lab) -> None:
    """Also one that a container gives itself: neighbours find each other by them (RFC 4861)."""
    box = lab.box(lab.network("n", 1), "box")
    box.ip("address", "add", "fe80::b/64", "dev", "eth0", "nodad")
    mac = bytes.fromhex(bridge_mac(lab, box.endpoint.network).replace(":", ""))
    gateway = ipaddress.IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]])
    )
    assert lab.ping(box, f"{gateway}%eth0")


def test_the_host_hears_of_an_endpoint_that_tries_its_address_and_defends_it(lab: Lab) -> None:
    """Who asks whether an address is free has none yet (RFC 4862, 5.4.2)."""
    box = lab.box(lab.network("n", 1), "box")
    box.ip("address", "add", f"{GATEWAYS[6]}/64", "dev", "eth0")
    deadline = time.monotonic() + 10
    while "dadfailed" not in (
        shown := box.sandbox.run(["ip", "address"], capture_output=True, text=True).stdout
    ):
        assert GATEWAYS[6] in shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)


def test_a_container_is_heard_by_its_own_address_and_mac_only(lab: Lab) -> None:
    """By the host, and by what is behind it; with both firewalls."""
    box = lab.box(lab.network("n", 1), "box")
    forged = {4: "10.88.1.99", 6: "fd88:1::99"}
    box.ip("address", "add", f"{forged[4]}/24", "dev", "eth0")
    box.ip("address", "add", f"{forged[6]}/64", "dev", "eth0", "nodad")
    for version, own in box.addresses.items():
        for address, place in ((GATEWAYS[version], lab.home), (LAN[version], lab.lan)):
            assert is_heard(box, address, place, source=own)
            assert not is_heard(box, address, place, source=forged[version], wanted=False)
    box.ip("link", "set", "eth0", "address", "02:00:00:00:00:99")
    for version, own in box.addresses.items():
        assert not is_heard(box, GATEWAYS[version], lab.home, source=own, wanted=False)


def test_the_user_s_chain_comes_first(lab: Lab) -> None:
    web = lab.box(lab.network("n", 1), "web", ["8000:80", "8000:80/udp"])
    published = everywhere(lab.lan, HOST, 8000)
    check({"web": published, "lan": everywhere(web, LAN)})
    instance = lab.controller._core.instance[:8]
    chain = f"inet pynetwork-{instance} user"
    lines = [f"nft add rule {chain} udp dport 80 drop", f"nft flush chain {chain}"]
    if lab.controller._core.engine.kernel.firewall().name == "iptables":  # type: ignore[attr-defined]
        chain = f"PYNETWORK-USER-{instance}"
        programs = ("iptables-legacy", "ip6tables-legacy")
        lines = [f"{program} -A {chain} -p udp --dport 80 -j DROP" for program in programs]
        lines += [f"{program} -F {chain}" for program in programs]
    for line in lines[: len(lines) // 2]:
        lab.host.run(line.split())
    tcp = [question for question in published if question.proto == "tcp"]
    check({"web": tcp}, [question for question in published if question.proto == "udp"])
    for line in lines[len(lines) // 2 :]:
        lab.host.run(line.split())


@pytest.mark.parametrize("lab", ["iptables"], indirect=True)
def test_what_iptables_accepts_for_us_is_past_the_host_s_own_policy(lab: Lab) -> None:
    """Where our rules come first, as they do by default, to accept is final."""
    for program in ("iptables-legacy", "ip6tables-legacy"):
        lab.host.run([program, "-P", "FORWARD", "DROP"])
    web = lab.box(lab.network("n", 1), "web", ["8000:80", "8000:80/udp"])
    check({"lan": everywhere(web, LAN), "web": everywhere(lab.lan, HOST, 8000)})
