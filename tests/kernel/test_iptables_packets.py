"""Packets go where the rules of iptables let them, for a network that a controller made or by hand."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.kernel.iptables_hosts import (
    GUARD,
    MAC,
    NETWORK,
    create,
    delete,
    everything,
    firewall,
    port,
)

from pynetwork import Controller
from pynetwork.errors import PortTakenError
from pynetwork.resources import (
    Ruleset,
)
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetwork.testing import HostNamespace, PrivateHost

pytestmark = pytest.mark.root


@contextmanager
def container(host: PrivateHost) -> Iterator[HostNamespace]:
    """Make a bridge with a container of GUARD's addresses on it; the cable is a port of the bridge."""
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    host.run(["ip", "address", "add", "10.88.0.1/24", "dev", "br0"])
    host.run(["ip", "link", "set", "br0", "up"])
    for setting in ("ip_forward", "conf/br0/route_localnet"):
        host.run(["sysctl", "-qw", f"net.ipv4.{setting.replace('/', '.')}=1"])
    try:
        inside = host.add_machine("c1", address="10.88.0.2/24", host_address="10.99.99.1/32")
        host.run(["ip", "address", "flush", "dev", "c1"])
        host.run(["ip", "link", "set", "c1", "master", "br0"])
        inside.run(["ip", "link", "set", "eth0", "address", MAC])
        inside.run(["ip", "route", "add", "default", "via", "10.88.0.1"])
        yield inside
    finally:
        host.run(["ip", "link", "delete", "br0"])


SERVER = """
import socket, sys
server = socket.create_server(("10.88.0.2", int(sys.argv[1])))
print("up", flush=True)
while True:
    peer, address = server.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""
CLIENT = """
import socket, sys
peer = socket.socket()
if len(sys.argv) > 3:
    peer.bind((sys.argv[3], 0))
peer.settimeout(1.0)
try:
    peer.connect((sys.argv[1], int(sys.argv[2])))
    print(peer.recv(99).decode())
except OSError as error:
    print("no")
"""


def ask(machine: HostNamespace | PrivateHost, address: str, number: int, *source: str) -> str:
    return machine.run([sys.executable, "-c", CLIENT, address, str(number), *source]).stdout.strip()


@contextmanager
def serving(inside: HostNamespace, number: int) -> Iterator[None]:
    command = ["ip", "netns", "exec", inside.name, sys.executable, "-c", SERVER, str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield
        finally:
            process.kill()


def test_a_published_range_is_reached_and_nothing_else_is() -> None:
    with private_host() as host, container(host) as inside, firewall() as made, serving(inside, 82):
        lan = host.add_machine("lan", address="192.0.2.2/24", host_address="192.0.2.1/24")
        lan.run(["ip", "route", "add", "10.88.0.0/24", "via", "192.0.2.1"])
        assert ask(lan, "10.88.0.2", 82) == "192.0.2.2"
        create(made, Ruleset(), NETWORK, GUARD, port(8080, 8089, target_first=80))
        assert ask(lan, "192.0.2.1", 8082) == "192.0.2.2"
        assert ask(lan, "10.88.0.2", 82) == "no"
        assert ask(host, "192.0.2.1", 8082) == "192.0.2.1"
        assert ask(host, "127.0.0.1", 8082) == "10.88.0.1"
        assert ask(host, "10.88.0.2", 82) == "10.88.0.1"
        host.run(["bridge", "link", "set", "dev", "c1", "hairpin", "on"])  # bridge-nf may be on
        assert ask(inside, "192.0.2.1", 8082) == "10.88.0.1"
        delete(made, port(8080, 8089, target_first=80))
        assert ask(lan, "192.0.2.1", 8082) == "no"
        made.remove()


def test_an_endpoint_leaves_masqueraded_and_cannot_pretend_to_be_another() -> None:
    with private_host() as host, container(host) as inside, firewall() as made:
        lan = host.add_machine("lan", address="192.0.2.2/24", host_address="192.0.2.1/24")
        create(made, Ruleset(), NETWORK, GUARD)
        assert "1 received" in inside.run(["ping", "-c1", "-W2", "192.0.2.2"]).stdout
        inside.run(["ip", "address", "add", "10.88.0.77/24", "dev", "eth0"])
        inside.run(["ip", "address", "add", "198.51.100.1/32", "dev", "eth0"])
        for source in ("10.88.0.77", "198.51.100.1"):
            lan.run(["ip", "route", "replace", source, "via", "192.0.2.1"])
            assert (
                "0 received"
                in inside.run(["ping", "-c1", "-W1", "-I", source, "192.0.2.2"], check=False).stdout
            )
        assert "1 received" in inside.run(["ping", "-c1", "-W2", "-I", "10.88.0.2", "192.0.2.2"]).stdout
        made.remove()


def test_a_controller_does_with_iptables_what_it_does_with_nftables(tmp_path: Path) -> None:
    with private_host() as host, Controller(state_dir=tmp_path, firewall="iptables") as controller:
        lan = host.add_machine("lan", address="192.0.2.2/24", host_address="192.0.2.1/24")
        network = controller.new_network("bridge", "network1", subnets=["10.88.0.0/24"])
        endpoint = network.create_endpoint("endpoint1", ports=["8080:80/tcp"])
        sandbox = controller.new_sandbox("sandbox1")
        endpoint.join(sandbox)
        address = str(endpoint.addresses[0].ip)
        command = [sys.executable, "-c", SERVER.replace("10.88.0.2", address), "80"]
        inside = ["nsenter", f"--net={sandbox.netns_path}", *command]
        with subprocess.Popen(inside, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
            try:
                assert ask(lan, "192.0.2.1", 8080) == "192.0.2.2"
                for table in ("filter", "nat"):
                    host.run(["iptables-legacy", "-t", table, "-F"])
                assert ask(lan, "192.0.2.1", 8080) == "no"
                assert controller.reconcile(dry_run=True)
                controller.reconcile()
                assert ask(lan, "192.0.2.1", 8080) == "192.0.2.2"
                assert ask(host, "127.0.0.1", 8080) != "no"
            finally:
                server.kill()
        other = network.create_endpoint("endpoint2")
        with pytest.raises(PortTakenError):
            other.publish("8080:81/tcp")
        endpoint.leave()
        for thing in (endpoint, other, sandbox, network):
            thing.delete()
        assert everything(host) == []
