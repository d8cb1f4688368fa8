"""Networks that span hosts on the kernel's own VXLAN: packets that arrive, and packets that must not."""

from __future__ import annotations

import re
import socket
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.cluster.overlay import SUBNETS, eventually, joined, knows, ping, reaches

from pynetwork import ApplyError, MemoryStore
from pynetwork.testing import private_host
from pynetwork.testing.cluster import linux_cluster, pinging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.testing.cluster import LinuxHost

pytestmark = pytest.mark.root


@pytest.fixture
def hosts() -> Iterator[tuple[LinuxHost, ...]]:
    with private_host(), linux_cluster(3) as hosts:
        yield hosts


def test_names_of_endpoints_on_other_hosts_resolve(hosts: tuple[LinuxHost, ...]) -> None:
    hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
    box = joined(hosts[0], "net", "a", 10)
    endpoint = (
        hosts[1]
        .controller.networks["net"]
        .create_endpoint("b", addresses=["10.1.0.11", "fd01::b"], aliases=["service"])
    )
    endpoint.join(hosts[1].controller.new_sandbox("b"))
    look = "import socket,sys; print(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 7)}))"

    def found(name: str) -> str:
        done = box.run(["python3", "-c", look, name], capture_output=True, text=True, check=False)
        return str(done.stdout.strip())

    for name in ("b", "service", "b.net"):
        assert eventually(lambda name=name: found(name) == "10.1.0.11 fd01::b"), name  # type: ignore[misc]  # a lambda
    endpoint.leave()
    assert eventually(lambda: not found("b"))


def test_what_nobody_has_is_not_asked_for_on_other_hosts(hosts: tuple[LinuxHost, ...]) -> None:
    """ARP and neighbour discovery for the others' addresses are answered at home; the rest ends there."""
    hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS, internal=True)
    box = joined(hosts[0], "net", "a", 10)
    joined(hosts[1], "net", "b", 11)
    assert eventually(lambda: knows(hosts[0], "net", 1))
    before = sent(hosts[0])
    for address in ("10.1.0.99", "fd01::99"):
        assert ping(box, address) == 0
    assert sent(hosts[0]) == before
    assert ping(box, "10.1.0.11", count=3) == 3
    assert ping(box, "fd01::b", count=3) == 3
    assert sent(hosts[0]) == before + 6
    # The host itself is not in the network, and does not answer there for the addresses that it has.
    assert ping(box, hosts[0].vtep) == 0


def sent(host: LinuxHost) -> int:
    """Return how many packets a host's one VXLAN device has sent."""
    (name,) = re.findall(
        r"^\d+: (vx-\d+):", host.run(["ip", "-o", "link", "show", "type", "vxlan"]).stdout, re.MULTILINE
    )
    path = f"/sys/class/net/{name}/statistics/tx_packets"
    return int(host.run(["cat", path]).stdout)


def test_nobody_can_pretend_to_be_another(hosts: tuple[LinuxHost, ...]) -> None:
    hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
    box, victim = joined(hosts[0], "net", "a", 10), joined(hosts[1], "net", "b", 11)
    assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
    assert reaches(box, "10.1.0.11")
    for cidr, source, target in (
        ("10.1.0.66/24", "10.1.0.66", "10.1.0.11"),
        ("fd01::66/64", "fd01::66", "fd01::b"),
    ):
        box.run(["ip", "address", "add", cidr, "dev", "eth0", *(["nodad"] if ":" in cidr else [])])
        assert ping(box, target, "-I", source) == 0
    counted = "ip -s -o neighbour show 10.1.0.66"
    assert "10.1.0.66" not in victim.run(counted.split(), capture_output=True, text=True).stdout
    box.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:66:66"])
    assert ping(box, "10.1.0.11") == 0


FORGE = """
import socket, struct, sys
vtep, vni, dst, src, target, source = sys.argv[1:]
mac = lambda text: bytes.fromhex(text.replace(":", ""))
data = b"forged"
udp = struct.pack("!HHHH", 9, 9999, 8 + len(data), 0) + data
ends = map(socket.inet_aton, (source, target))
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *ends)
total = sum(struct.unpack("!10H", ip)); total = (total & 0xFFFF) + (total >> 16)
ip = ip[:10] + struct.pack("!H", ~total & 0xFFFF) + ip[12:]
frame = mac(dst) + mac(src) + b"\\x08\\x00" + ip + udp
s = socket.socket(socket.AF_INET6 if ":" in vtep else socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(struct.pack("!II", 0x08000000, int(vni) << 8) + frame, (vtep, 4789))
"""
LISTEN = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9999)); s.settimeout(20)
print("ready", flush=True)
print(s.recv(99).decode(), flush=True)
"""
SEND = (
    "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'honest', ('10.1.0.10', 9999))"
)


@pytest.mark.parametrize("subnet", ["192.0.2.0/24", "fd99::/64"])
def test_packets_that_a_host_forges_which_is_not_in_the_network_are_dropped(subnet: str) -> None:
    """The same packet from a host that is in it arrives: only Open vSwitch can tell whose it may be."""
    with private_host(), linux_cluster(3, subnet=subnet) as hosts:
        network = hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
        ends = []
        for host, number in zip(hosts, (10, 11), strict=False):
            endpoint = host.controller.networks["net"].create_endpoint(
                host.name, addresses=[f"10.1.0.{number}"]
            )
            box = host.controller.new_sandbox("box")
            endpoint.join(box)
            ends.append((endpoint, box))
        assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
        assert reaches(ends[0][1], "10.1.0.11")
        macs = [endpoint.mac for endpoint, _ in ends]
        forged = [hosts[0].vtep, str(network.options.vni), *macs, "10.1.0.10", "10.1.0.11"]
        for host, expected in ((hosts[2], "honest"), (hosts[1], "forged")):
            listening = ends[0][1].popen(["python3", "-c", LISTEN], stdout=subprocess.PIPE, text=True)
            assert listening.stdout is not None
            assert listening.stdout.readline() == "ready\n"
            host.run(["python3", "-c", FORGE, *forged])
            ends[1][1].run(["python3", "-c", SEND])  # comes after it
            assert listening.communicate()[0] == f"{expected}\n", host
        assert "pynetwork-vxlan" in hosts[0].run(["nft", "list", "tables"]).stdout
        for endpoint, _ in ends:
            endpoint.delete(force=True)
        assert eventually(lambda: "pynetwork" not in hosts[0].run(["nft", "list", "tables"]).stdout)


def test_a_controller_that_ends_and_begins_again_loses_no_packet(hosts: tuple[LinuxHost, ...]) -> None:
    """Another host joins and leaves meanwhile: found when it is back."""
    hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
    box = joined(hosts[0], "net", "a", 10)
    joined(hosts[1], "net", "b", 11)
    assert eventually(lambda: knows(hosts[0], "net", 1))
    with pinging(box, "10.1.0.11") as pings:
        hosts[0].close()
        joined(hosts[2], "net", "c", 12)
        box = hosts[0].controller.sandboxes["net-a"]
        assert reaches(box, "10.1.0.12")
    assert pings.lost == 0, pings
    assert pings.sent > 0


def test_what_somebody_deletes_is_made_again_and_told_all(hosts: tuple[LinuxHost, ...]) -> None:
    network = hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
    box = joined(hosts[0], "net", "a", 10)
    joined(hosts[1], "net", "b", 11)
    assert eventually(lambda: knows(hosts[0], "net", 1))
    vni = network.options.vni
    for link in (f"vx-{vni}", f"ov-{vni}"):
        hosts[0].run(["ip", "link", "delete", link])
        assert ping(box, "10.1.0.11") == 0
        report = hosts[0].controller.reconcile()
        assert not report.failed
        assert reaches(box, "10.1.0.11")
    assert hosts[0].controller.reconcile(dry_run=True).is_clean


@pytest.mark.parametrize(
    ("subnet", "mtu", "inner"), [("fd99::/64", 1500, 1430), ("192.0.2.0/24", 9000, 8950)]
)
def test_other_underlays(subnet: str, mtu: int, inner: int) -> None:
    """One of IPv6, and one with jumbo frames: the network's MTU is what they leave."""
    with private_host(), linux_cluster(2, subnet=subnet, mtu=mtu) as hosts:
        network = hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
        assert network.options.mtu == inner
        box = joined(hosts[0], "net", "a", 10)
        joined(hosts[1], "net", "b", 11)
        assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
        assert reaches(box, "10.1.0.11", "-M", "do", "-s", str(inner - 28))
        assert reaches(box, "fd01::b")


def test_broadcast_and_multicast_go_to_other_hosts_only_if_asked_for(hosts: tuple[LinuxHost, ...]) -> None:
    """One copy to each host, none back; ARP is answered at home all the same."""
    listen = (
        "import socket,struct; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',5353)); "
        "s.setsockopt(0,socket.IP_ADD_MEMBERSHIP,socket.inet_aton('224.0.0.251')+socket.inet_aton('10.1.0.%d'));"
        "s.settimeout(%s); print('ready',flush=True)\n"
        "try:\n while True: print(s.recv(99).decode(),flush=True)\nexcept TimeoutError: pass"
    )
    send = (
        "import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); "
        "s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1); s.bind(('10.1.0.10',0)); "
        "s.setsockopt(0,socket.IP_MULTICAST_LOOP,0);"
        "s.setsockopt(0,socket.IP_MULTICAST_IF,socket.inet_aton('10.1.0.10'));"
        "s.sendto(b'all',('10.1.0.255',5353)); s.sendto(b'group',('224.0.0.251',5353))"
    )
    for name, bum in (("with", True), ("without", False)):
        hosts[0].controller.new_network("overlay", name, subnets=["10.1.0.0/24"], options={"bum": bum})
        boxes = []
        for number, host in enumerate(hosts, 10):
            endpoint = host.controller.networks[name].create_endpoint(
                host.name, addresses=[f"10.1.0.{number}"]
            )
            boxes.append(host.controller.new_sandbox(name))
            endpoint.join(boxes[-1])
        assert all(eventually(partial(knows, host, name, 2)) for host in hosts)
        listening = [
            box.popen(["python3", "-c", listen % (number, 1.0)], stdout=subprocess.PIPE, text=True)
            for number, box in enumerate(boxes, 10)
        ]
        for process in listening:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        boxes[0].run(["python3", "-c", send])
        heard = [process.communicate()[0].split() for process in listening]
        assert [sorted(words) for words in heard[1:]] == [["all", "group"] if bum else []] * 2
        assert heard[0].count("group") == 0
        assert reaches(boxes[0], "10.1.0.11")


@pytest.mark.parametrize("subnet", ["192.0.2.0/24", "fd99::/64"])
def test_the_doctor_probes_the_way_to_other_hosts(subnet: str) -> None:
    """One is cut off, packets of the full size do not get to another; the third is as it should be."""
    with private_host() as machine, linux_cluster(4, subnet=subnet) as hosts:
        hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
        for number, host in enumerate(hosts, 10):
            joined(host, "net", host.name, number)
        assert eventually(lambda: knows(hosts[0], "net", 3))
        assert not across(hosts[0])
        machine.run(["ip", "link", "set", hosts[1].cable, "down"])
        machine.run(["ip", "link", "set", hosts[2].cable, "mtu", "1400"])
        assert across(hosts[0]) == [
            f"host 'h2' does not answer this one, {hosts[0].vtep}",
            "packets of 1500 bytes do not reach host 'h3', smaller ones do",
        ]


def across(host: LinuxHost) -> list[str]:
    """Return what the doctor finds on the way to other hosts."""
    return sorted(
        finding.problem for finding in host.controller.doctor() if " host '" in f" {finding.problem}"
    )


def test_a_port_that_somebody_else_has_is_said() -> None:
    """Another program, or somebody's VXLAN device of the same VNI."""
    with private_host(), linux_cluster(1, vxlan_port=4790) as (host,):
        controller = host.controller
        network = controller.new_network("overlay", "net", options={"vni": 77})
        with host.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("", 4790))
            with pytest.raises(ApplyError, match=r"something else has UDP port 4790: .*vxlan_port="):
                network.create_endpoint("e")
        theirs = ["type", "vxlan", "id", "77", "dstport", "4790"]
        # Ours, which could not be had, goes a little later.
        assert eventually(
            lambda: host.run(["ip", "link", "add", "theirs", *theirs], check=False).returncode == 0
        )
        with pytest.raises(ApplyError, match="another VXLAN device of VNI 77 on that port"):
            network.create_endpoint("e")
        host.run(["ip", "link", "delete", "theirs"])
        network.create_endpoint("e")


def test_a_store_in_memory_is_shared_by_who_names_it() -> None:
    store = MemoryStore()
    with private_host(), linux_cluster(1, store=store) as (host,):
        host.controller.new_network("overlay", "net")
    assert store.list("names/").entries
