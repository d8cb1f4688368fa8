"""What arrives in networks that span hosts, and what does not: on each datapath, and on both in one network.

Three hosts, and two networks with the same subnets, addresses and MACs: ``red`` and ``blue``, with an
endpoint on each host.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import attrs
import pytest
from tests.cluster.overlay import SUBNETS, eventually, is_silent, joined, knows, ping, reaches
from tests.cluster.overlay_hosts import (
    QUIET_SECONDS,
    SECONDS,
    End,
    arp,
    exchange_tcp,
    exchange_udp,
    frame,
    heard,
    heard_with,
    neighbour_advertisement,
    token,
    vxlan,
)
from tests.cluster.overlay_scene import Cluster, cluster_on

from pynetwork.kernel.netns import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Network, Sandbox
    from pynetwork.testing import PrivateHost
    from pynetwork.testing.cluster import LinuxHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

LINUX, OVS = "linux", "ovs-userspace"
DATAPATHS = {LINUX: [LINUX] * 3, OVS: [OVS] * 3, "both": [OVS, LINUX, OVS]}
MTU = 1450  # of the underlay's 1500, 50 are VXLAN's
PORT = 4789


@attrs.frozen
class Box(End):
    """An endpoint in a sandbox."""

    sandbox: Sandbox = attrs.field(eq=False)

    @property
    def path(self) -> str:
        """Of its namespace."""
        return str(self.sandbox.netns_path)


class World(NamedTuple):
    """The hosts, and the endpoints of both networks by the number of their host."""

    hosts: tuple[LinuxHost, ...]
    red: tuple[Box, ...]
    blue: tuple[Box, ...]


@pytest.fixture(autouse=True)
def nothing_left_by_root_test() -> None:
    """Is looked at when the cluster is gone, which outlives a test: :func:`cluster_on`."""


@pytest.fixture(scope="module", params=DATAPATHS)
def cluster(host: PrivateHost, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster_on(host, DATAPATHS[request.param], members=1) as made:
        yield made


def boxed(host: LinuxHost, network: Network, position: int, number: int) -> Box:
    end = End(network.options.vni, number, position)
    sandbox = joined(host, network.name, f"e{number}", number, end.mac)
    return Box(end.vni, end.number, end.host, sandbox)


def wire(cluster: Cluster, name: str, *, strict: bool = False) -> tuple[Box, ...]:
    """Make a network with an endpoint on each host, numbers 10, 11 and 12; all of them reach each other."""
    with cluster.hosts[0].entered():
        network = cluster.hosts[0].controller.new_network(
            "overlay", name, subnets=SUBNETS, options={"strict": strict}
        )
    boxes = [boxed(host, network, n, 10 + n) for n, host in enumerate(cluster.hosts)]
    assert all(eventually(partial(knows, host, name, 2)) for host in cluster.hosts)
    for one, other in permutations(boxes, 2):
        assert reaches(one.sandbox, other.v4), (one, other)
    return tuple(boxes)


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    try:
        yield World(cluster.hosts, wire(cluster, "red"), wire(cluster, "blue"))
    finally:
        cluster.clear()


@contextlib.contextmanager
def wired(cluster: Cluster, *, strict: bool = False) -> Iterator[World]:
    """Have one network more, that a test may take apart."""
    try:
        yield World(cluster.hosts, wire(cluster, "held", strict=strict), ())
    finally:
        cluster.clear("held")


def test_each_endpoint_reaches_all_others_of_its_network(world: World) -> None:
    """It is told the right MAC of each."""
    for boxes in (world.red, world.blue):
        for one, other in permutations(boxes, 2):
            assert ping(one.sandbox, other.v4) == 1, (one, other)
            assert ping(one.sandbox, other.v6) == 1, (one, other)
            assert one.neighbour(other.v4) == one.neighbour(other.v6) == other.mac


def test_udp_and_tcp_pass_both_ways(world: World) -> None:
    for boxes in (world.red, world.blue):
        for one, other in permutations(boxes, 2):
            exchange_udp(one, other, other.v4, one.v4)
            exchange_udp(one, other, other.v6, one.v6)
            exchange_tcp(one, other, other.v4)
            exchange_tcp(one, other, other.v6)


def test_endpoints_of_one_host_reach_each_other(world: World) -> None:
    for position, old in enumerate(world.red):
        network = world.hosts[position].controller.networks["red"]
        new = boxed(world.hosts[position], network, position, 20 + position)
        assert reaches(new.sandbox, old.v4)
        assert reaches(old.sandbox, new.v6)
        exchange_tcp(new, old, old.v4)
        exchange_udp(old, new, new.v6, old.v6)


def test_networks_with_the_same_addresses_do_not_hear_of_each_other(world: World) -> None:
    """Even with the same MACs: what is sent in one comes to the one that is in it, on the same host."""
    for one, other in permutations(range(3), 2):
        red, blue, sender = world.red[other], world.blue[other], world.red[one]
        with (
            red.opened(socket.SOCK_DGRAM, red.v4) as mine,
            blue.opened(socket.SOCK_DGRAM, blue.v4) as theirs,
            sender.opened(socket.SOCK_DGRAM) as here,
        ):
            sent = token()
            here.sendto(sent, (red.v4, 7777))
            assert heard(mine, sent, SECONDS)
            assert not heard(theirs, sent, QUIET_SECONDS / 4)


def test_what_is_only_in_one_network_is_not_reached_from_the_other(world: World) -> None:
    alone = boxed(world.hosts[1], world.hosts[1].controller.networks["red"], 1, 30)
    for red, blue in zip(world.red, world.blue, strict=True):
        assert reaches(red.sandbox, alone.v4)
        assert is_silent(blue.sandbox, alone.v4)


def test_packets_of_the_full_size_pass_undivided(world: World) -> None:
    """One byte more is refused where it is sent."""
    for one, other in permutations(world.red, 2):
        for address, header in ((other.v4, 28), (other.v6, 48)):
            assert ping(one.sandbox, address, "-M", "do", "-s", str(MTU - header)) == 1
            assert ping(one.sandbox, address, "-M", "do", "-s", str(MTU + 1 - header)) == 0


def test_unknown_addresses_are_not_answered_and_nobody_else_hears_of_it(world: World) -> None:
    for one, other in zip(world.red, world.red[1:] + world.red[:1], strict=True):
        # Each asks for others, for it goes on asking for some time, and the listener hears itself, too.
        for stranger in (f"10.1.0.{100 + one.number}", f"fd01::{100 + one.number:x}"):
            with other.raw() as listener:
                assert is_silent(one.sandbox, stranger)
                asked = socket.inet_pton(socket.AF_INET6 if ":" in stranger else socket.AF_INET, stranger)
                assert not heard(listener, asked, QUIET_SECONDS / 4)
            assert one.neighbour(stranger) == ""


def test_an_endpoint_can_send_as_nobody_but_itself(world: World) -> None:
    for start in range(3):
        one, other, third = world.red[start:] + world.red[:start]
        mac = bytes.fromhex(one.mac.replace(":", ""))
        lies = [{"ip": third.v4}, {"mac": third.mac}, {"mac": "02:00:00:00:00:99"}, {"ip": "192.0.2.1"}]
        secrets = [token() for _ in lies]
        with one.raw() as sender, other.raw() as receiver:
            for lie, secret in zip(lies, secrets, strict=True):
                sender.send(frame(one, other, secret, **lie))
            sender.send(arp(one, third.v4, operation=2, ip=third.v4))
            sender.send(neighbour_advertisement(one, third.v6, other))
            honest = token()
            sender.send(frame(one, other, honest))
            came = heard_with(receiver, honest, QUIET_SECONDS / 2)
            assert not [secret for secret in secrets if secret in b"".join(came)]
            # Nor what it says of its neighbour's addresses.
            assert [honest in packet for packet in came if packet[6:12] == mac] == [True]
            sender.send(neighbour_advertisement(one, one.v6, other))
            assert heard(receiver, mac, SECONDS)
        assert other.neighbour(third.v4) in {"", third.mac}
        assert other.neighbour(third.v6) in {"", third.mac}


# VXLAN packets that hosts forge


@contextlib.contextmanager
def sending_from(path: str) -> Iterator[socket.socket]:
    """Have a socket in a namespace."""
    with entered(path):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with opened:
        yield opened


@contextlib.contextmanager
def stranger(target: str) -> Iterator[socket.socket]:
    """Plug a machine into the underlay that is no host, and reaches *target*; have a socket on it."""
    machine = ["ip", "-n", "stranger"]
    plug = "ip link add plug master underlay up type veth peer name eth0 netns stranger"
    subprocess.run(["ip", "netns", "add", "stranger"], check=True)
    try:
        subprocess.run(plug.split(), check=True)
        subprocess.run([*machine, "address", "add", "192.0.2.66/24", "dev", "eth0"], check=True)
        subprocess.run([*machine, "link", "set", "eth0", "up"], check=True)
        asked = ["ip", "netns", "exec", "stranger", "ping", "-c", "1", "-W", "1", target]
        assert eventually(lambda: subprocess.run(asked, check=False, capture_output=True).returncode == 0)
        with sending_from("/run/netns/stranger") as opened:
            opened.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK: nobody completes a checksum on the way
            yield opened
    finally:
        subprocess.run(["ip", "link", "delete", "plug"], check=False)
        subprocess.run(["ip", "netns", "delete", "stranger"], check=True)


def arrives(world: World, way: socket.socket, source: Box, seconds: float = SECONDS) -> bool:
    """Tell whether a frame that *way* sends to the first host as *source*'s arrives."""
    receiver = world.red[0]
    with receiver.raw() as listener:
        sent = token()
        way.sendto(vxlan(receiver.vni, frame(source, receiver, sent)), (world.hosts[0].vtep, PORT))
        return heard(listener, sent, seconds)


def check_forgers(world: World, network: str, *, is_strict: bool) -> None:
    """Of no member: dropped. Of a member that says it is another's endpoint: if strict."""
    _, member, other = world.red
    with sending_from(world.hosts[1].netns_path) as inside:
        assert arrives(world, inside, member)
        assert arrives(world, inside, other, QUIET_SECONDS if is_strict else SECONDS) is not is_strict
        with stranger(world.hosts[0].vtep) as outside:
            assert not arrives(world, outside, member, QUIET_SECONDS)
        # A host that leaves the network is no member any more.
        with world.hosts[1].entered():
            member.sandbox.endpoints[0].delete(force=True)
        assert eventually(partial(knows, world.hosts[0], network, 1))
        # What a switch keeps in its cache it looks at again within half a second.
        assert eventually(lambda: not arrives(world, inside, other, QUIET_SECONDS / 4))
        assert not arrives(world, inside, member, QUIET_SECONDS)


def test_packets_that_hosts_forge_which_are_not_in_the_network(cluster: Cluster) -> None:
    with wired(cluster) as world:
        check_forgers(world, "held", is_strict=False)


def test_packets_that_hosts_forge_in_a_strict_network(cluster: Cluster) -> None:
    with wired(cluster, strict=True) as world:
        check_forgers(world, "held", is_strict=True)
