"""Three hosts with two overlay networks on Open vSwitch, wired by hand: plans, flows, and packets."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.drivers.overlay_flows import (
    TUNNEL,
    LocalPort,
    base_flows,
    endpoint_flows,
    flows_of,
    network_flows,
)
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.netns import entered
from pynetwork.kernel.ovs.peers import OvsPeers
from pynetwork.peers import Flood, Reach, Resolve
from pynetwork.plan import Plan, diff
from pynetwork.resources import Address, LinkUp, Netns, OvsBridge, OvsPort, TxChecksum, Veth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pynetwork.peers import Entry
    from pynetwork.testing.cluster import OvsHost

BRIDGE: Final = "br-int"
RED, BLUE = 1001, 1002
MTU: Final = 1450  # of the underlay's 1500, 50 are VXLAN's
SECONDS: Final = 5.0
QUIET_SECONDS: Final = 0.4


@attrs.frozen
class End:
    """
    An endpoint. Those of the same number have the same addresses, and the same MAC, in both networks.

    Args:
        vni: Of its network.
        number: 2 and up: the last digits of all its addresses.
        host: Position of its host.
    """

    vni: int
    number: int
    host: int

    @property
    def instance(self) -> str:
        """Of its host."""
        return f"{self.host + 1:032x}"[::-1]

    @property
    def path(self) -> str:
        """Of its namespace."""
        return f"/run/pynetwork/n{self.host}/{self.vni}-{self.number}.{self.instance[:8]}"

    @property
    def link(self) -> str:
        return f"v{self.vni}n{self.number}"

    @property
    def mac(self) -> str:
        return f"02:00:00:00:00:{self.number:02x}"

    @property
    def v4(self) -> str:
        return f"10.1.0.{self.number}"

    @property
    def v6(self) -> str:
        return f"fd01::{self.number:x}"

    @property
    def port(self) -> LocalPort:
        ofport = (self.vni - RED) * 16 + self.number
        return LocalPort(vni=self.vni, ofport=ofport, mac=self.mac, addresses=[self.v4, self.v6])

    def plan(self, *, bum: bool = False) -> Plan:
        """Return what exists as long as it is joined."""
        netns, dev = self.path, "eth0"
        port = attrs.evolve(self.port, bum=bum)
        return Plan(
            (
                Netns(path=netns),
                Veth(name=self.link, netns=netns, peer=dev, mac=self.mac, mtu=MTU),
                TxChecksum(dev=self.link),
                TxChecksum(netns=netns, dev=dev),
                OvsPort(bridge=BRIDGE, name=self.link, ofport=port.ofport),
                Address(netns=netns, dev=dev, cidr=f"{self.v4}/24"),
                Address(netns=netns, dev=dev, cidr=f"{self.v6}/64"),
                LinkUp(netns=netns, dev=dev),
                *flows_of(BRIDGE, endpoint_flows(port)),
            )
        )

    def pings(self, address: str, *options: str, tries: int = 5) -> bool:
        """Tell whether one of several pings is answered."""
        argv = ["nsenter", f"--net={self.path}", "ping", "-c", "1", "-W", "1", *options, address]
        return any(
            subprocess.run(argv, check=False, capture_output=True).returncode == 0 for _ in range(tries)
        )

    def opened(self, kind: int, address: str = "") -> socket.socket:
        """Return a socket in its namespace, bound to port 7777 of *address* if one is given."""
        with entered(self.path):
            opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        opened.settimeout(SECONDS)
        if address:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, 7777))
        return opened

    @contextlib.contextmanager
    def raw(self) -> Iterator[socket.socket]:
        """Open a socket that sends and receives whole frames."""
        with entered(self.path):
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with opened:
            opened.bind(("eth0", 3))
            opened.settimeout(SECONDS)
            yield opened

    def neighbour(self, address: str) -> str:
        """Return the MAC that it has on record for an address, or ``""``."""
        argv = ["nsenter", f"--net={self.path}", "ip", "neighbour", "show", address]
        words = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""


class OverlayHost:
    """
    A host that is in both networks.

    Args:
        host: It.
        position: Among the hosts.
    """

    def __init__(self, host: OvsHost, position: int, *, strict: bool, bum: bool) -> None:
        self.host = host
        self.bum = bum
        with host.entered():
            self.kernel = LinuxKernel(
                f"{position + 1:032x}"[::-1],
                Path(f"/run/pynetwork/n{position}"),
                "none",
                ovs_directory=host.directory,
            )
        tunnel = {"remote_ip": "flow", "key": "flow", "local_ip": host.vtep, "dst_port": "4789"}
        flows = [*base_flows()]
        for vni in (RED, BLUE):
            flows += network_flows(vni, strict=strict, bum=bum)
        self.plan = Plan(
            (
                OvsBridge(name=BRIDGE, datapath="netdev"),
                OvsPort(bridge=BRIDGE, name="vx0", type="vxlan", ofport=TUNNEL, options=tunnel.items()),
                *flows_of(BRIDGE, flows),
            )
        )
        self.kernel.apply(diff(Plan(), self.plan))
        self.peers = OvsPeers(self.kernel.switch().channel(BRIDGE))

    def join(self, end: End) -> None:
        plan = end.plan(bum=self.bum)
        self.kernel.apply(diff(self.plan, self.plan + tuple(item for item in plan if item not in self.plan)))
        self.plan = Plan(dict.fromkeys((*self.plan, *plan)))

    def leave(self, end: End, others: Sequence[End]) -> None:
        kept = {item for other in others for item in other.plan(bum=self.bum)}
        gone = set(end.plan(bum=self.bum)) - kept
        left = Plan(item for item in self.plan if item not in gone)
        self.kernel.apply(diff(self.plan, left))
        self.plan = left

    def tell(self, ends: Sequence[End], hosts: Sequence[OverlayHost]) -> int:
        """Tell it where all of *ends* are, whatever it has heard before."""
        changed = 0
        for vni in (RED, BLUE):
            entries: set[Entry] = set()
            for end in ends:
                other = hosts[end.host]
                if end.vni != vni or other is self:
                    continue
                vtep = other.host.vtep
                entries |= {Reach(end.mac, vtep), Resolve(end.v4, end.mac), Resolve(end.v6, end.mac)}
                entries |= {Flood(vtep)} if self.bum else set()
            changed += self.peers.reconcile(vni, entries)
        return changed

    def repair(self) -> Plan:
        """Make it as planned, and return what was found before."""
        found = self.kernel.observe(self.plan)
        self.kernel.apply(diff(found, self.plan), replay=True)
        return found

    def close(self) -> None:
        self.kernel.apply(diff(self.kernel.observe(Plan()), Plan()), replay=True)
        self.kernel.close()


@attrs.frozen
class World:
    """All hosts, and all endpoints: one of each network on each host."""

    hosts: tuple[OverlayHost, ...]
    ends: tuple[End, ...]

    def end(self, vni: int, host: int) -> End:
        return next(end for end in self.ends if (end.vni, end.host) == (vni, host))


@contextlib.contextmanager
def world(hosts: Sequence[OvsHost], *, strict: bool = False, bum: bool = False) -> Iterator[World]:
    """Wire both networks over *hosts*."""
    with contextlib.ExitStack() as stack:
        made = []
        for position, host in enumerate(hosts):
            made.append(OverlayHost(host, position, strict=strict, bum=bum))
            stack.callback(made[-1].close)
        ends = tuple(End(vni, position + 2, position) for vni in (RED, BLUE) for position in range(len(made)))
        for end in ends:
            made[end.host].join(end)
        for each in made:
            each.tell(ends, made)
        for host in hosts:  # the first packet to a host is lost while the switch asks for its MAC
            for other in hosts:
                if other is not host:
                    host.run(["ping", "-c", "3", "-i", "0.05", "-W", "0.3", other.vtep])
        yield World(tuple(made), ends)


# Packets


def frame(source: End, destination: End, payload: bytes, *, mac: str = "", ip: str = "") -> bytes:
    """Return a frame with a UDP packet to port 7777, its source *mac* and *ip* if given."""
    sender, receiver = (socket.inet_aton(text) for text in (ip or source.v4, destination.v4))
    udp = struct.pack("!HHHH", 7777, 7777, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + sender + receiver
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return ethernet(destination.mac, mac or source.mac, 0x0800) + head + udp


def ethernet(destination: str, source: str, kind: int) -> bytes:
    macs = (bytes.fromhex(mac.replace(":", "")) for mac in (destination, source))
    return b"".join(macs) + struct.pack("!H", kind)


def arp(source: End, asked: str, *, operation: int = 1, mac: str = "", ip: str = "") -> bytes:
    """Return a frame that asks for an address, or says where one's own is."""
    mac, ip = mac or source.mac, ip or source.v4
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + bytes.fromhex(mac.replace(":", ""))
    body += socket.inet_aton(ip) + bytes(6) + socket.inet_aton(asked)
    return ethernet("ff:ff:ff:ff:ff:ff", source.mac, 0x0806) + body


def neighbour_advertisement(source: End, target: str, destination: End) -> bytes:
    """Return a frame that says of *target* that it is at the source, sent from the source's own address."""
    sender, receiver = (ipaddress.IPv6Address(end.v6).packed for end in (source, destination))
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ipaddress.IPv6Address(target).packed
    body += struct.pack("!BB", 2, 1) + bytes.fromhex(source.mac.replace(":", ""))
    pseudo = sender + receiver + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + sender + receiver
    return ethernet(destination.mac, source.mac, 0x86DD) + head + body


def vxlan(vni: int, inner: bytes) -> bytes:
    return struct.pack("!II", 0x08000000, vni << 8) + inner


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def heard(receiver: socket.socket, payload: bytes, seconds: float) -> bool:
    """Tell whether a packet with *payload* comes within *seconds*."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if payload in receiver.recv(9000):
                return True
    return False


def heard_with(receiver: socket.socket, payload: bytes, seconds: float) -> list[bytes]:
    """Return all that comes until a packet with *payload*, which must, and *seconds* longer."""
    came: list[bytes] = []
    deadline, is_there = time.monotonic() + SECONDS, False
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        with contextlib.suppress(TimeoutError):
            came.append(receiver.recv(9000))
            if payload in came[-1] and not is_there:
                is_there, deadline = True, time.monotonic() + seconds
    assert is_there
    return came


def token() -> bytes:
    """Return what no other packet has in it."""
    return os.urandom(12)


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
