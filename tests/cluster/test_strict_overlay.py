"""Strict networks on the kernel's own VXLAN: frames come from their sender's own host, or not at all."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.cluster.overlay import SUBNETS, eventually, joined, knows, ping

from pynetwork.testing import private_host
from pynetwork.testing.cluster import linux_cluster, pinging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork import Endpoint, Sandbox
    from pynetwork.testing.cluster import LinuxHost

pytestmark = pytest.mark.root

#: Sends a frame in VXLAN, its UDP payload the last argument; or in pieces that show no VNI, over IPv6.
FORGE = """
import socket, struct, sys
pieces, own, vtep, vni, dst, src, word = sys.argv[1:]
mac = lambda text: bytes.fromhex(text.replace(":", ""))
def summed(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", (~total & 0xFFFF) or 0xFFFF)
data = word.encode()
udp = struct.pack("!HHHH", 9, 9999, 8 + len(data), 0) + data
ends = map(socket.inet_aton, ("10.1.0.11", "10.1.0.10"))
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *ends)
ip = ip[:10] + summed(ip) + ip[12:]
payload = struct.pack("!II", 0x08000000, int(vni) << 8) + mac(dst) + mac(src) + b"\\x08\\x00" + ip + udp
if pieces == "whole":
    s = socket.socket(socket.AF_INET6 if ":" in vtep else socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(payload, (vtep, 4789))
    sys.exit()
outer = struct.pack("!HHHH", 5555, 4789, 8 + len(payload), 0) + payload
ends = [socket.inet_pton(socket.AF_INET6, text) for text in (own, vtep)]
check = summed(ends[0] + ends[1] + struct.pack("!II", len(outer), 17) + outer)
outer = outer[:6] + check + outer[8:]
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)  # with our own header
for start, end in ((0, 8), (8, len(outer))):
    part = struct.pack("!BBHI", 17, 0, start | (end < len(outer)), 77) + outer[start:end]
    s.sendto(struct.pack("!IHBB", 6 << 28, len(part), 44, 64) + ends[0] + ends[1] + part, (vtep, 0))
"""
LISTEN = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9999)); s.settimeout(20)
print("ready", flush=True)
heard = set()
while "last" not in heard:
    heard.add(s.recv(99).decode())
print(*sorted(heard), flush=True)
"""
LAST = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'last', ('10.1.0.10', 9999))"


def end(host: LinuxHost, number: int) -> tuple[Endpoint, Sandbox]:
    network = host.controller.networks["net"]
    endpoint = network.create_endpoint(f"{host.name}-{number}", addresses=[f"10.1.0.{number}"])
    box = host.controller.new_sandbox(f"box-{number}")
    endpoint.join(box)
    return endpoint, box


def heard(pieces: str, hosts: Sequence[LinuxHost], ends: Sequence[tuple[Endpoint, Sandbox]]) -> list[str]:
    """Return what the first endpoint hears of all that is sent to it from the other hosts, as whomever."""
    (victim, box), (second, other), (third, _) = ends
    listening = box.popen(["python3", "-c", LISTEN], stdout=subprocess.PIPE, text=True)
    assert listening.stdout is not None
    assert listening.stdout.readline() == "ready\n"
    vni = str(victim.network.options.vni)
    for host, word, mac in (
        (hosts[2], "own", third.mac),
        (hosts[2], "another's", second.mac),
        (hosts[2], "nobody's", "02:00:00:00:66:66"),
        (hosts[2], "the-victim's", victim.mac),
        (hosts[1], "of-the-other", second.mac),
    ):
        argv = [pieces, host.vtep, hosts[0].vtep, vni, victim.mac, mac, word]
        host.run(["python3", "-c", FORGE, *argv])
    other.run(["python3", "-c", LAST])
    return str(listening.communicate()[0]).split()


@pytest.mark.parametrize("subnet", ["192.0.2.0/24", "fd99::/64"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_member_cannot_send_as_an_endpoint_of_another_host(subnet: str, strict: bool) -> None:
    """As its own it can, by the same hand; nobody else can, not even in pieces."""
    with private_host(), linux_cluster(3, subnet=subnet) as hosts:
        hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/24"], options={"strict": strict})
        ends = [end(host, number) for host, number in zip(hosts, (10, 11, 12), strict=True)]
        assert eventually(lambda: all(knows(host, "net", 2) for host in hosts))
        assert eventually(lambda: ping(ends[1][1], "10.1.0.10") == 1)
        allowed = ["last", "of-the-other", "own"]
        forged = [] if strict else ["another's", "nobody's", "the-victim's"]
        assert heard("whole", hosts, ends) == sorted([*allowed, *forged])
        if ":" in subnet:
            assert heard("pieces", hosts, ends) == sorted([*allowed, *forged])
        # What was dropped is counted.
        rules = hosts[0].run(["nft", "list", "ruleset"]).stdout
        chain = rules[rules.index("chain sources") :]
        assert ("counter packets 0 bytes 0 drop" in chain.splitlines()[4]) != strict


def test_packets_in_pieces_from_who_is_in_no_network_are_dropped() -> None:
    with private_host(), linux_cluster(3, subnet="fd99::/64") as hosts:
        network = hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
        (victim, box), (second, other) = (
            end(host, number) for host, number in zip(hosts, (10, 11), strict=False)
        )
        assert eventually(lambda: all(knows(host, "net", 1) for host in hosts[:2]))
        assert eventually(lambda: ping(other, "10.1.0.10") == 1)
        listening = box.popen(["python3", "-c", LISTEN], stdout=subprocess.PIPE, text=True)
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        for host in hosts[1:]:
            argv = [host.vtep, hosts[0].vtep, str(network.options.vni), victim.mac, second.mac, host.name]
            for pieces in ("whole", "pieces"):
                host.run(["python3", "-c", FORGE, pieces, *argv])
        other.run(["python3", "-c", LAST])
        assert listening.communicate()[0].split() == ["h2", "last"]


def test_an_endpoint_moves_between_hosts_of_a_strict_network() -> None:
    """It answers from where it is, all the time from the other's point of view; nothing stays behind."""
    with private_host(), linux_cluster(3) as hosts:
        hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS, options={"strict": True})
        box = joined(hosts[0], "net", "asks", 10)
        for host, number in zip(hosts[1:], (30, 31), strict=True):
            joined(host, "net", f"stays-{host.name}", number)
        assert eventually(lambda: knows(hosts[0], "net", 2))
        previous: Endpoint | None = None
        for position, host in enumerate((hosts[1], hosts[2], hosts[1])):
            if previous is not None:
                previous.delete(force=True)
            moved = host.controller.networks["net"].create_endpoint(
                "moves", addresses=["10.1.0.77", "fd01::77"], mac="02:00:00:00:00:77"
            )
            moved.join(host.controller.new_sandbox(f"at-{position}"))
            for address in ("10.1.0.77", "fd01::77"):
                assert eventually(partial(ping, box, address)), (host, address)
            assert eventually(lambda host=host: sources(hosts[0], 0x77) == [host.vtep])  # type: ignore[misc]  # a lambda
            previous = moved
        assert previous is not None
        previous.delete(force=True)
        assert eventually(lambda: sources(hosts[0], 0x77) == [])


def sources(host: LinuxHost, mac: int) -> list[str]:
    """Return from which hosts frames of the MAC 02:00:00:00:00:*mac* are taken."""
    table = f"pynetwork-vxlan-{host.controller.inspect()['instance'][:8]}"
    listed = host.run(["nft", "list", "set", "inet", table, "sources4"]).stdout
    number = f"0x{0x020000000000 | mac:x}"
    words = listed.replace(",", " ").replace("}", " ").split()
    return [words[at - 4] for at, word in enumerate(words) if word == number]


def test_what_is_lost_of_a_strict_network_is_put_back() -> None:
    """Its controller ends and begins again without a packet lost; what somebody flushes comes back."""
    with private_host(), linux_cluster(2) as hosts:
        hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS, options={"strict": True})
        box = joined(hosts[0], "net", "a", 10)
        joined(hosts[1], "net", "b", 11)
        assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
        assert eventually(lambda: ping(box, "10.1.0.11") == 1)
        with pinging(box, "10.1.0.11") as pings:
            hosts[0].close()
            assert hosts[0].controller.networks["net"].endpoints
            assert eventually(lambda: knows(hosts[0], "net", 1))
        assert pings.lost == 0, pings
        hosts[0].run(["nft", "flush", "ruleset"])
        assert any("strict" in finding.problem for finding in hosts[0].controller.doctor())
        assert not hosts[0].controller.reconcile().failed
        box = hosts[0].controller.sandboxes["net-a"]
        assert eventually(lambda: ping(box, "10.1.0.11") == 1)
        assert hosts[0].controller.reconcile(dry_run=True).is_clean
        assert not hosts[0].controller.doctor()


def test_a_strict_network_that_somebody_flushes_is_strict_again_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody calls reconcile(): the agent looks, here more often than once a minute."""
    monkeypatch.setattr("pynetwork.cluster.worker._MOST_UPKEEP_SECONDS", 0.2)
    with private_host(), linux_cluster(3) as hosts:
        hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/24"], options={"strict": True})
        hosts[0].controller.new_network("bridge", "own")
        ends = [end(host, number) for host, number in zip(hosts, (10, 11, 12), strict=True)]
        assert eventually(lambda: all(knows(host, "net", 2) for host in hosts))
        assert eventually(lambda: ping(ends[1][1], "10.1.0.10") == 1)
        for _ in range(2):
            hosts[0].run(["nft", "flush", "ruleset"])
            assert eventually(lambda: not hosts[0].controller.check())
            assert eventually(lambda: ping(ends[1][1], "10.1.0.10") == 1)
            assert heard("whole", hosts, ends) == ["last", "of-the-other", "own"]
        assert eventually(lambda: hosts[0].controller.reconcile(dry_run=True).is_clean)


@pytest.mark.parametrize("subnet", ["192.0.2.0/24", "fd99::/64"])
def test_a_stream_at_full_speed_is_taken_whole(subnet: str) -> None:
    """What the kernel puts together of many packets shows the same fields, and not one is dropped."""
    with private_host(), linux_cluster(2, subnet=subnet) as hosts:
        hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS, options={"strict": True})
        boxes = [joined(host, "net", host.name, number) for number, host in enumerate(hosts, 10)]
        assert eventually(lambda: all(knows(host, "net", 1) for host in hosts))
        take = (
            "import socket; s = socket.create_server(('', 7)); print('ready', flush=True)\n"
            "c, _ = s.accept(); n = 0\nwhile data := c.recv(1 << 20): n += len(data)\nprint(n, flush=True)"
        )
        send = (
            "import socket; s = socket.create_connection(('10.1.0.11', 7)); part = bytes(1 << 20)\n"
            "for _ in range(500): s.sendall(part)"
        )
        taking = boxes[1].popen(["python3", "-c", take], stdout=subprocess.PIPE, text=True)
        assert taking.stdout is not None
        assert taking.stdout.readline() == "ready\n"
        boxes[0].run(["python3", "-c", send], check=True)
        assert taking.communicate()[0] == f"{500 << 20}\n"
        for host in hosts:
            rules = host.run(["nft", "list", "ruleset"]).stdout
            vxlan = rules[rules.index("set sources6") :]
            assert vxlan.count("counter packets 0 bytes 0 drop") == 4, vxlan
