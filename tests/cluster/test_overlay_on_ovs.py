"""Overlay networks on Open vSwitch, packet by packet: what arrives, what does not, what comes back."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING

import attrs
import pytest
from tests.cluster.overlay_hosts import (
    BLUE,
    BRIDGE,
    MTU,
    QUIET_SECONDS,
    RED,
    SECONDS,
    End,
    World,
    arp,
    frame,
    heard,
    neighbour_advertisement,
    token,
    vxlan,
    world,
)

from pynetwork.peers import Change, Reach, Resolve
from pynetwork.plan import Plan, diff
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@contextlib.contextmanager
def three(*, strict: bool = False, bum: bool = False) -> Iterator[World]:
    with private_host(), ovs_cluster(3) as hosts, world(hosts, strict=strict, bum=bum) as made:
        yield made


@pytest.fixture(name="wired")
def wired_world() -> Iterator[World]:
    with three() as made:
        yield made


def exchange_udp(one: End, other: End, address: str, back: str) -> None:
    with one.opened(socket.SOCK_DGRAM, back) as here, other.opened(socket.SOCK_DGRAM, address) as there:
        sent = token()
        here.sendto(sent, (address, 7777))
        assert there.recv(100) == sent
        there.sendto(sent[::-1], (back, 7777))
        assert here.recv(100) == sent[::-1]


def exchange_tcp(one: End, other: End, address: str) -> None:
    """Send more than one segment each way: what offloads break shows only then."""
    data = token() * 2000
    with other.opened(socket.SOCK_STREAM, address) as server, one.opened(socket.SOCK_STREAM) as plain:
        server.listen()
        client = plain if ":" not in address else one.opened(socket.SOCK_STREAM, one.v6)
        with client:
            client.connect((address, 7777))
            with server.accept()[0] as accepted:
                accepted.settimeout(SECONDS)
                for sender, receiver in ((client, accepted), (accepted, client)):
                    sender.sendall(data)
                    assert receive(receiver, len(data)) == data


def receive(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(65536)
        assert part
        found += part
    return found


def test_endpoints_reach_those_of_their_network_on_all_hosts(wired: World) -> None:
    """Ping, UDP and TCP, IPv4 and IPv6, both ways; each is told the right MAC, and the other is not asked."""
    for one, other in ((wired.end(RED, 0), wired.end(RED, 1)), (wired.end(BLUE, 2), wired.end(BLUE, 0))):
        assert one.pings(other.v4)
        assert one.pings(other.v6)
        assert one.neighbour(other.v4) == one.neighbour(other.v6) == other.mac
        exchange_udp(one, other, other.v4, one.v4)
        exchange_udp(one, other, other.v6, one.v6)
        exchange_tcp(one, other, other.v4)
        exchange_tcp(one, other, other.v6)


def test_endpoints_of_one_host_reach_each_other(wired: World) -> None:
    new = End(RED, 9, 0)
    wired.hosts[0].join(new)
    assert new.pings(wired.end(RED, 0).v4)
    assert wired.end(RED, 0).pings(new.v6)
    exchange_tcp(new, wired.end(RED, 0), wired.end(RED, 0).v4)


def test_networks_with_the_same_addresses_do_not_hear_of_each_other(wired: World) -> None:
    """Even with the same MACs: what is sent in one comes to the one that is in it, on the same host."""
    red, blue = wired.end(RED, 1), wired.end(BLUE, 1)
    sender = wired.end(RED, 0)
    assert sender.pings(red.v4)
    with (
        red.opened(socket.SOCK_DGRAM, red.v4) as mine,
        blue.opened(socket.SOCK_DGRAM, blue.v4) as theirs,
        sender.opened(socket.SOCK_DGRAM) as here,
    ):
        sent = token()
        here.sendto(sent, (red.v4, 7777))
        assert heard(mine, sent, SECONDS)
        assert not heard(theirs, sent, QUIET_SECONDS)


def test_packets_of_the_full_size_pass_and_unknown_addresses_are_not_answered(wired: World) -> None:
    one, other = wired.end(RED, 0), wired.end(RED, 1)
    assert one.pings(other.v4, "-M", "do", "-s", str(MTU - 28))
    assert one.pings(other.v6, "-M", "do", "-s", str(MTU - 48))
    assert not one.pings(other.v4, "-M", "do", "-s", str(MTU - 27), tries=1)
    for stranger in ("10.1.0.77", "fd01::77"):
        with other.raw() as listener:
            assert not one.pings(stranger, tries=1)
            # Nor does anybody else hear of it.
            assert not heard(listener, socket.inet_aton("10.1.0.77"), 0.1)
        assert one.neighbour(stranger) == ""


def test_an_endpoint_can_send_as_nobody_but_itself(wired: World) -> None:
    one, other, third = (wired.end(RED, position) for position in range(3))
    assert one.pings(other.v4)
    assert one.pings(other.v6)
    with one.raw() as sender, other.raw() as receiver:
        honest = token()
        sender.send(frame(one, other, honest))
        assert heard(receiver, honest, SECONDS)
        forged = [{"ip": third.v4}, {"mac": third.mac}, {"mac": "02:00:00:00:00:99"}, {"ip": "192.0.2.1"}]
        for lie in forged:
            secret = token()
            sender.send(frame(one, other, secret, **lie))
            assert not heard(receiver, secret, QUIET_SECONDS), lie
        sender.send(arp(one, third.v4, operation=2, ip=third.v4))
        sender.send(neighbour_advertisement(one, third.v6, other))
        assert not heard(receiver, bytes.fromhex(one.mac.replace(":", "")), QUIET_SECONDS)
        sender.send(neighbour_advertisement(one, one.v6, other))
        assert heard(receiver, bytes.fromhex(one.mac.replace(":", "")), SECONDS)
    assert other.neighbour(third.v4) in {"", third.mac}
    assert other.neighbour(third.v6) in {"", third.mac}


def test_who_asks_for_its_own_address_is_not_told_that_it_is_taken(wired: World) -> None:
    one, other = wired.end(RED, 0), wired.end(RED, 1)
    with one.raw() as asker:
        asker.send(arp(one, one.v4, ip="0.0.0.0"))
        assert not heard(asker, bytes.fromhex("0002" + one.mac.replace(":", "")), QUIET_SECONDS)
        asker.send(arp(one, other.v4, ip="0.0.0.0"))
        assert heard(asker, bytes.fromhex("0002" + other.mac.replace(":", "")), SECONDS)


@pytest.mark.parametrize("strict", [False, True])
def test_forged_packets_from_the_underlay(strict: bool) -> None:
    """Of no member of the network: dropped. Of a member that says it is another's endpoint: if strict."""
    with three(strict=strict) as wired:
        receiver, source, member = (wired.end(RED, position) for position in range(3))
        attacker = wired.hosts[2].host
        target = (wired.hosts[0].host.vtep, 4789)
        with receiver.raw() as listener, contextlib.ExitStack() as stack:
            with attacker.entered():
                inside = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            outside = stack.enter_context(stranger("192.0.2.66"))
            own = token()
            inside.sendto(vxlan(RED, frame(member, receiver, own)), target)
            assert heard(listener, own, SECONDS)
            others = token()
            inside.sendto(vxlan(RED, frame(source, receiver, others)), target)
            assert heard(listener, others, QUIET_SECONDS if strict else SECONDS) is not strict
            strangers = token()
            outside.sendto(vxlan(RED, frame(source, receiver, strangers)), target)
            assert not heard(listener, strangers, QUIET_SECONDS)
            # A host that leaves the network is no member any more.
            wired.hosts[0].peers.apply(RED, Change(drop=(Reach(member.mac, attacker.vtep),)))

            def still_heard() -> bool:
                late = token()
                inside.sendto(vxlan(RED, frame(member, receiver, late)), target)
                return heard(listener, late, QUIET_SECONDS)

            # What the switch keeps in its cache it looks at again within half a second.
            assert any(not still_heard() for _ in range(10))


@contextlib.contextmanager
def stranger(address: str) -> Iterator[socket.socket]:
    """Plug a machine into the underlay that is no host; return a socket on it. It reaches the hosts."""
    lines = ["link add name stranger type veth peer name plug", "link set plug master underlay up"]
    lines += ["link set stranger up", f"address add {address}/24 dev stranger"]
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["ping", "-c", "3", "-i", "0.2", "-W", "1", "192.0.2.1"], check=True, capture_output=True)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK: nobody completes a checksum on the way
            yield opened
    finally:
        subprocess.run(["ip", "link", "delete", "stranger"], check=True)


def test_a_switch_that_is_killed_has_all_flows_back_after_a_repair(wired: World) -> None:
    one, other = wired.end(RED, 0), wired.end(RED, 1)
    assert one.pings(other.v4)
    host = wired.hosts[0]
    host.host.kill_switch()
    host.host.start_switch()
    assert not one.pings(other.v4, tries=1)
    found = host.repair()
    assert not any(item.kind == "flow" for item in found)
    assert host.tell(wired.ends, wired.hosts) > 0
    assert one.pings(other.v4)
    assert other.pings(one.v6)
    assert host.repair() is not None
    assert host.tell(wired.ends, wired.hosts) == 0


def test_a_controller_that_somebody_adds_is_removed_and_all_is_as_before(wired: World) -> None:
    one, other = wired.end(BLUE, 0), wired.end(BLUE, 2)
    assert one.pings(other.v4)
    host = wired.hosts[0]
    host.host.vsctl("set-controller", BRIDGE, "tcp:127.0.0.1:6653")
    assert not one.pings(other.v4, tries=1)
    host.repair()
    host.tell(wired.ends, wired.hosts)
    assert host.host.vsctl("get-controller", BRIDGE) == ""
    assert one.pings(other.v4)


def test_an_endpoint_that_moves_is_followed(wired: World) -> None:
    """With its addresses and its MAC, without a word of its own."""
    one, before = wired.end(RED, 0), wired.end(RED, 1)
    assert one.pings(before.v4)
    after = attrs.evolve(before, host=2)
    wired.hosts[1].leave(before, [wired.end(BLUE, 1)])
    wired.hosts[2].join(after)
    vtep = wired.hosts[2].host.vtep
    wired.hosts[0].peers.apply(RED, Change(put=(Reach(after.mac, vtep),)))
    gone: Change = Change(
        drop=(Reach(after.mac, ""), Resolve(after.v4, after.mac), Resolve(after.v6, after.mac))
    )
    wired.hosts[2].peers.apply(RED, gone)
    assert one.pings(after.v4)
    assert one.pings(after.v6)
    assert wired.end(RED, 2).pings(after.v4)


def test_flows_of_other_hosts_go_with_the_network(wired: World) -> None:
    host = wired.hosts[0]
    blue = wired.end(BLUE, 0)
    host.leave(blue, [wired.end(RED, 0)])

    def count(vni: int) -> int:
        return host.host.ofctl("dump-flows", BRIDGE, "cookie=0x5052000000000000/-281474976710656").count(
            f"{vni:#x}"
        )

    assert count(BLUE) > 0
    assert count(RED) > 0
    is_blue = f"metadata={BLUE:#x}"
    left = Plan(item for item in host.plan if is_blue not in str(getattr(item, "match", "")))
    host.kernel.apply(diff(host.plan, left))
    host.plan = left
    assert count(BLUE) == 0
    assert count(RED) > 0
    with pytest.raises(OSError, match="nothing of VNI 1002"):
        host.peers.reconcile(BLUE, set())


def test_what_is_for_everybody_comes_to_everybody_once_if_asked_for() -> None:
    with three(bum=True) as wired:
        extra = End(RED, 9, 1)
        wired.hosts[1].join(extra)
        sender = wired.end(RED, 0)
        receivers = [wired.end(RED, 1), extra, wired.end(RED, 2)]
        outsiders = [wired.end(BLUE, position) for position in range(3)]
        assert sender.pings(receivers[0].v4)
        assert sender.pings(receivers[2].v4)
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(sender.raw())
            listeners = [stack.enter_context(end.raw()) for end in receivers]
            deaf = [stack.enter_context(end.raw()) for end in outsiders]
            sent = token()
            everybody = bytes.fromhex("ffffffffffff") + frame(sender, receivers[0], sent)[6:]
            out.send(everybody)
            for listener in listeners:
                assert heard(listener, sent, SECONDS)
            for listener in (*listeners, *deaf):
                assert not heard(listener, sent, QUIET_SECONDS / 4)


def test_what_is_for_everybody_comes_to_nobody_unless_asked_for(wired: World) -> None:
    sender, other = wired.end(RED, 0), wired.end(RED, 1)
    with sender.raw() as out, other.raw() as listener:
        sent = token()
        out.send(bytes.fromhex("ffffffffffff") + frame(sender, other, sent)[6:])
        assert not heard(listener, sent, QUIET_SECONDS)
