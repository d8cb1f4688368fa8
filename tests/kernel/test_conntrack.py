"""Connections are forgotten with the port or the address they go to, and no others."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork.kernel import conntrack, nfnetlink
from pynetwork.resources import Conntrack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork import Controller
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def entries(host: PrivateHost, family: str = "ipv4") -> set[tuple[str, str, str, int]]:
    """Return protocol, source, destination and destination port of the connections that are known."""
    text = host.run(["conntrack", "-L", "-f", family], check=False).stdout
    found = re.findall(r"^(\w+) .*?src=(\S+) dst=(\S+) sport=\d+ dport=(\d+)", text, re.MULTILINE)
    return {(proto, src, dst, int(port)) for proto, src, dst, port in found}


@pytest.fixture
def tracked(host: PrivateHost, soon: Callable[[Callable[[], bool]], bool]) -> Iterator[PrivateHost]:
    """A host that tracks connections, and has a few hundred addresses of its own to connect to."""
    rules = "table inet t {\n chain c {\n type filter hook output priority 0;\n ct state new accept\n }\n}\n"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    for address in ("10.1.0.1/24", "10.2.0.1/24", "fd01::1/64", "fd02::1/64"):
        nodad = ["nodad"] if ":" in address else []
        host.run(["ip", "address", "add", address, "dev", "lo", *nodad])
    local = ["ip", "-6", "route", "show", "table", "local"]  # comes a little later
    assert soon(lambda: {"fd01::1", "fd02::1"} <= set(host.run(local).stdout.split()))
    yield host
    host.run(["nft", "delete", "table", "inet", "t"])


def send(address: str, *ports: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for port in ports:
            sender.sendto(b"x", (address, port))


@pytest.mark.parametrize("one_by_one", [False, True], ids=["filtered", "one by one"])
@pytest.mark.parametrize(
    ("effect", "gone"),
    [
        (Conntrack(version=4, proto="udp", first=53, last=53), {("10.1.0.1", 53), ("10.2.0.1", 53)}),
        (Conntrack(version=4, proto="udp", destination="10.1.0.1", first=53, last=53), {("10.1.0.1", 53)}),
        (Conntrack(version=4, proto="udp", target="10.2.0.1", first=53, last=53), {("10.2.0.1", 53)}),
        (Conntrack(version=4, proto="udp", target="10.3.0.1", first=53, last=53), set()),
        (Conntrack(version=4, proto="udp", sparing="10.2.0.1", first=53, last=53), {("10.1.0.1", 53)}),
        (
            Conntrack(version=4, proto="udp", sparing="10.2.0.1", first=50, last=99),
            {("10.1.0.1", 53), ("10.1.0.1", 54)},
        ),
        (
            Conntrack(version=4, proto="udp", target="10.2.0.1", first=50, last=99),
            {("10.2.0.1", 53), ("10.2.0.1", 54)},
        ),
        (
            Conntrack(version=4, proto="udp", first=53, last=54),
            {(f"10.{n}.0.1", p) for n in (1, 2) for p in (53, 54)},
        ),
        (
            Conntrack(version=4, proto="udp", first=50, last=99),
            {(f"10.{n}.0.1", p) for n in (1, 2) for p in (53, 54)},
        ),
        (Conntrack(version=4, proto="tcp", first=53, last=53), set()),
        (Conntrack(version=4, address="10.2.0.1"), {("10.2.0.1", p) for p in (53, 54, 100)}),
        (Conntrack(version=6, address="fd02::1"), set()),
    ],
)
def test_exactly_those_that_match_are_forgotten(
    tracked: PrivateHost, effect: Conntrack, gone: set[tuple[str, int]], one_by_one: bool
) -> None:
    for address in ("10.1.0.1", "10.2.0.1"):
        send(address, 53, 54, 100)
    before = {(dst, port) for _, _, dst, port in entries(tracked)}
    assert gone <= before
    with nfnetlink.open_socket() as netfilter:
        if one_by_one:
            conntrack._forget_one_by_one(netfilter, effect)
        else:
            conntrack.forget(netfilter, effect)
    assert {(dst, port) for _, _, dst, port in entries(tracked)} == before - gone


@pytest.mark.parametrize("ends", [{"target": "fd02::1"}, {"destination": "fd02::1"}, {"sparing": "fd01::1"}])
@pytest.mark.parametrize("last", [53, 54])
def test_ipv6_connections_to_a_port_are_told_apart_by_address(
    tracked: PrivateHost, ends: dict[str, str], last: int
) -> None:
    for address in ("fd01::1", "fd02::1"):
        send(address, 53, 54)
    with nfnetlink.open_socket() as netfilter:
        conntrack.forget(netfilter, Conntrack(version=6, proto="udp", first=53, last=last, **ends))
    left = {("fd01::1", 53), ("fd01::1", 54)} | ({("fd02::1", 54)} if last == 53 else set())
    assert {(dst, port) for _, _, dst, port in entries(tracked, "ipv6")} == left


def test_ipv6_connections_are_forgotten_too(tracked: PrivateHost) -> None:
    send("fd01::1", 53, 54)
    send("fd02::1", 53, 54)
    with nfnetlink.open_socket() as netfilter:
        conntrack.forget(netfilter, Conntrack(version=6, address="fd02::1"))
        conntrack.forget(netfilter, Conntrack(version=6, proto="udp", first=54, last=54))
    assert {(dst, port) for _, _, dst, port in entries(tracked, "ipv6")} == {("fd01::1", 53)}


def test_among_thousands_the_right_ones_go(tracked: PrivateHost) -> None:
    send("10.1.0.1", *range(10_000, 12_000))
    send("10.2.0.1", 53)
    with nfnetlink.open_socket() as netfilter:
        conntrack.forget(netfilter, Conntrack(version=4, address="10.2.0.1"))
        conntrack.forget(netfilter, Conntrack(version=4, proto="udp", first=10_000, last=11_998))
    assert {(dst, port) for _, _, dst, port in entries(tracked)} == {("10.1.0.1", 11_999)}


ZONE = (
    "table inet z {\n chain c {\n type filter hook output priority -300\n udp dport 53 ct zone set 7\n }\n}\n"
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("which", [{"first": 53, "last": 53}, {"first": 50, "last": 99}, {"address": "self"}])
def test_connections_in_a_zone_are_forgotten_too(
    tracked: PrivateHost, version: int, which: dict[str, Any]
) -> None:
    address = {4: "10.1.0.1", 6: "fd01::1"}[version]
    which = {"address": address} if "address" in which else {"proto": "udp", "destination": address, **which}
    subprocess.run(["nft", "-f", "-"], input=ZONE, text=True, check=True)
    send(address, 53, 100)
    family = f"ipv{version}"
    assert "zone=7" in tracked.run(["conntrack", "-L", "-f", family]).stdout
    with nfnetlink.open_socket() as netfilter:
        conntrack.forget(netfilter, Conntrack(version=version, **which))
    left = set() if "address" in which else {100}
    assert {port for *_, port in entries(tracked, family)} == left
    tracked.run(["nft", "delete", "table", "inet", "z"])


TCP = """
import socket, sys
server = socket.create_server(("", 80))
print("ready", flush=True)
held = []
while True:
    held.append(server.accept()[0])
"""


def test_tcp_connections_through_a_port_go_with_it_and_others_stay(
    controller: Controller, host: PrivateHost, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    lan = host.add_machine("lan", address="192.0.2.2/24", host_address="192.0.2.1/24")
    endpoints = []
    with ExitStack() as stack:
        for number in (1, 2):
            endpoint = network.create_endpoint(f"e{number}", ports=[f"{8000 + number}:80"])
            sandbox = controller.new_sandbox(f"s{number}")
            endpoint.join(sandbox)
            server = stack.enter_context(sandbox.popen([sys.executable, "-c", TCP], stdout=subprocess.PIPE))
            stack.callback(server.kill)
            assert server.stdout is not None
            server.stdout.readline()
            endpoints.append(endpoint)
        code = (
            "import socket, time\n"
            "held = [socket.create_connection(('192.0.2.1', port)) for port in (8001, 8001, 8002)]\n"
            "print('ready', flush=True); time.sleep(60)\n"
        )
        client = stack.enter_context(
            subprocess.Popen(
                ["ip", "netns", "exec", lan.name, sys.executable, "-c", code], stdout=subprocess.PIPE
            )
        )
        stack.callback(client.kill)
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"

        def ports() -> list[int]:
            text = host.run(["conntrack", "-L", "-p", "tcp"], check=False).stdout
            return sorted(
                int(port) for port in re.findall(r"ESTABLISHED src=\S+ dst=\S+ sport=\d+ dport=(\d+)", text)
            )

        assert ports() == [8001, 8001, 8002]
        endpoints[0].unpublish("8001:80")
        assert soon(lambda: ports() == [8002])
        endpoints[1].leave()
        assert soon(lambda: ports() == [])


ECHO = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 7))
print("ready", flush=True)
while True:
    data, peer = server.recvfrom(99)
    server.sendto(sys.argv[1].encode(), peer)
"""


def test_a_udp_flow_goes_to_the_new_container_after_a_swap(
    controller: Controller, host: PrivateHost, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    endpoints, servers = [], []
    for name in ("old", "new"):
        endpoint = network.create_endpoint(name)
        sandbox = controller.new_sandbox(name)
        endpoint.join(sandbox)
        server = sandbox.popen([sys.executable, "-c", ECHO, name], stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        endpoints.append(endpoint)
        servers.append(server)
    old, new = endpoints
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(0.2)
    client.connect(("127.0.0.1", 5353))  # one flow: the same ports all the time

    def answer() -> str:
        client.send(b"x")
        try:
            return client.recv(99).decode()
        except OSError:
            return ""

    try:
        old.publish("5353:7/udp")
        assert soon(lambda: answer() == "old")
        old.unpublish("5353:7/udp")
        assert soon(lambda: not any(port == 5353 for *_, port in entries(host)))
        assert answer() == ""
        new.publish("5353:7/udp")
        assert soon(lambda: answer() == "new")
        new.leave()
        assert soon(lambda: not any(port == 5353 for *_, port in entries(host)))
    finally:
        client.close()
        for server in servers:
            server.kill()
            with server:
                pass


def test_the_host_forgets_who_had_an_address(
    controller: Controller, host: PrivateHost, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """While it asks the old one in vain it does not heed the new one: for seconds."""
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    endpoint = network.create_endpoint("e")
    endpoint.join(controller.new_sandbox("s"))
    for address in ("10.88.0.2", "fd88::2"):
        host.run(["ping", "-c1", "-W2", address])

    def known() -> str:
        return host.run(["ip", "neighbour"]).stdout

    assert "10.88.0.2 " in known()
    assert "fd88::2 " in known()
    endpoint.leave()
    assert soon(lambda: "10.88.0.2 " not in known() and "fd88::2 " not in known())
