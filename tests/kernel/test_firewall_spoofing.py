"""A container cannot send as another: frames it makes itself, seen where they would arrive."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

import pytest
from tests.kernel.lan import Place, bridge_of

from pynetwork import BridgeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.lan import Box, Lab

# iptables does not see frames, and so nothing of ARP and of what siblings send each other.
pytestmark = [pytest.mark.root, pytest.mark.parametrize("lab", ["nftables"], indirect=True)]

EVERYBODY = "ff:ff:ff:ff:ff:ff"
STRANGER = "02:00:00:00:00:99"
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
_MARK: Final = b"pynetwork"
_PATIENCE: Final = 5.0
_SILENCE: Final = 0.2


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(source: str, kind: int, payload: bytes) -> bytes:
    return mac(EVERYBODY) + mac(source) + struct.pack("!H", kind) + payload


def udp(source: str, destination: str, ports: tuple[int, int] = (9, 9)) -> tuple[int, bytes]:
    """Return type and payload of a frame with a datagram; its checksum is of no account to a bridge."""
    data = struct.pack("!HHHH", *ports, 8 + len(_MARK), 0) + _MARK
    if ":" in source:
        head = struct.pack("!IHBB", 6 << 28, len(data), 17, 64)
        return IPV6, head + b"".join(
            ipaddress.IPv6Address(each).packed for each in (source, destination)
        ) + data
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack("!10H", head))
    total = ~(total + (total >> 16)) & 0xFFFF
    return IPV4, head[:10] + struct.pack("!H", total) + head[12:] + data


def arp(hardware: str, address: str, operation: int = 2) -> tuple[int, bytes]:
    """Return type and payload of a frame that says where *address* is."""
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    addresses = mac(hardware) + socket.inet_aton(address) + bytes(6) + socket.inet_aton(address)
    return ARP, head + addresses + _MARK


def advertisement(source: str, target: str) -> tuple[int, bytes]:
    """Return type and payload of a neighbour advertisement (RFC 4861, 4.4) that says whose *target* is."""
    data = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ipaddress.IPv6Address(target).packed + _MARK
    head = struct.pack("!IHBB", 6 << 28, len(data), 58, 255)
    return IPV6, head + b"".join(ipaddress.IPv6Address(each).packed for each in (source, "ff02::1")) + data


@contextlib.contextmanager
def listener(place: Place, interface: str) -> Iterator[socket.socket]:
    with place.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with opened:
        opened.bind((interface, 3))
        opened.setblocking(False)
        yield opened


def heard(opened: socket.socket, frames: set[bytes]) -> set[bytes]:
    """Return which of *frames* have arrived so far. Frames may be padded on their way, never shortened."""
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            got = opened.recv(2000)
            found |= {each for each in frames if got.startswith(each)}
    return found


def send(box: Box, *frames: bytes) -> None:
    with box.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        for each in frames:
            sender.send(each)


class Scene:
    """Two boxes on a bridge, and who listens: one of them, and the host."""

    def __init__(self, lab: Lab, *, spoof_protection: bool = True) -> None:
        self.network = lab.network("n", 1, options=BridgeOptions(spoof_protection=spoof_protection))
        self.box = lab.box(self.network, "box", link_local=["169.254.7.7", "fe80::7"])
        self.victim = lab.box(self.network, "victim")
        self.places = ((self.victim, "eth0"), (lab.home, bridge_of(self.network)))
        self.mac = self.box.endpoint.mac

    def arriving(self, frames: dict[str, bytes]) -> dict[str, set[str]]:
        """Return which of *frames* arrive where, by their names. A good one is sent behind them."""
        last = frame(self.mac, *udp(self.box.addresses[4], "10.88.1.255", (7, 7)))
        wanted = {*frames.values(), last}
        names = {data: name for name, data in frames.items()}
        found: dict[str, set[bytes]] = {}
        with contextlib.ExitStack() as stack:
            ears = {place.name: stack.enter_context(listener(place, dev)) for place, dev in self.places}
            send(self.box, *frames.values(), last)
            deadline = time.monotonic() + _PATIENCE
            for name, ear in ears.items():
                found[name] = set()
                while last not in found[name] and time.monotonic() < deadline:
                    found[name] |= heard(ear, wanted)
                    time.sleep(0.005)
                assert last in found[name]
            time.sleep(_SILENCE)
            for name, ear in ears.items():
                found[name] |= heard(ear, wanted)
        return {name: {names[each] for each in got if each != last} for name, got in found.items()}


def own(scene: Scene) -> dict[str, bytes]:
    """Return frames that an honest container sends."""
    me, mine = scene.mac, scene.box.addresses
    return {
        "IPv4": frame(me, *udp(mine[4], "10.88.1.3")),
        "IPv4 link-local": frame(me, *udp("169.254.7.7", "10.88.1.3")),
        "IPv6": frame(me, *udp(mine[6], "fd88:1::3")),
        "IPv6 link-local": frame(me, *udp("fe80::7", "ff02::1")),
        "ARP": frame(me, *arp(me, mine[4])),
        "ARP probe": frame(me, *arp(me, "0.0.0.0", 1)),
        "DHCP": frame(me, *udp("0.0.0.0", "255.255.255.255", (68, 67))),
        "duplicate address detection": frame(me, *udp("::", "ff02::1")),
        "advertisement": frame(me, *advertisement(mine[6], mine[6])),
        "advertisement from link-local": frame(me, *advertisement("fe80::7", mine[6])),
        "advertisement of link-local": frame(me, *advertisement("fe80::7", "fe80::7")),
    }


def forged(scene: Scene) -> dict[str, bytes]:
    """Return frames of one that wants to be taken for another, one lie at a time or several."""
    me, mine = scene.mac, scene.box.addresses
    other, others = scene.victim.endpoint.mac, scene.victim.addresses
    return {
        "MAC of nobody": frame(STRANGER, *udp(mine[4], "10.88.1.3")),
        "MAC of nobody, IPv6": frame(STRANGER, *udp(mine[6], "fd88:1::3")),
        "MAC of nobody, ARP": frame(STRANGER, *arp(STRANGER, mine[4])),
        "MAC of nobody, DHCP": frame(STRANGER, *udp("0.0.0.0", "255.255.255.255", (68, 67))),
        "MAC of nobody, other protocol": frame(STRANGER, 0x88B5, _MARK * 6),
        "IPv4 of another": frame(me, *udp(others[4], "10.88.1.3")),
        "IPv4 of the gateway": frame(me, *udp("10.88.1.1", "10.88.1.3")),
        "IPv4 of nobody": frame(me, *udp("192.0.2.77", "10.88.1.3")),
        "no IPv4, not to DHCP": frame(me, *udp("0.0.0.0", "255.255.255.255", (9, 9))),
        "IPv4 and MAC of another": frame(other, *udp(others[4], "10.88.1.3")),
        "IPv6 of another": frame(me, *udp(others[6], "fd88:1::3")),
        "IPv6 of the gateway": frame(me, *udp("fd88:1::1", "fd88:1::3")),
        "ARP for another": frame(me, *arp(me, others[4])),
        "ARP for the gateway": frame(me, *arp(me, "10.88.1.1")),
        "ARP of another MAC": frame(me, *arp(other, mine[4])),
        "ARP request as another": frame(me, *arp(me, others[4], 1)),
        "advertisement of another": frame(me, *advertisement(mine[6], others[6])),
        "advertisement of another, from link-local": frame(me, *advertisement("fe80::7", others[6])),
        "advertisement of the gateway, from link-local": frame(me, *advertisement("fe80::7", "fd88:1::1")),
        "advertisement of another, from nobody": frame(me, *advertisement("::", others[6])),
    }


def test_what_is_its_own_passes_and_what_is_forged_does_not(lab: Lab) -> None:
    """Neither to a sibling nor to the host."""
    scene = Scene(lab)
    honest = own(scene)
    arriving = scene.arriving(honest | forged(scene))
    assert arriving == {"victim": set(honest), "host": set(honest)}


def test_without_protection_everything_passes(lab: Lab) -> None:
    """So the frames of the test above would arrive if nobody dropped them."""
    scene = Scene(lab, spoof_protection=False)
    everything = own(scene) | forged(scene)
    assert scene.arriving(everything) == {"victim": set(everything), "host": set(everything)}


def test_one_unguarded_network_does_not_unguard_another(lab: Lab) -> None:
    lab.network("unguarded", 2, options=BridgeOptions(spoof_protection=False))
    scene = Scene(lab)
    assert scene.arriving(forged(scene)) == {"victim": set(), "host": set()}


def test_an_address_is_one_s_own_only_as_long_as_one_is_joined(lab: Lab) -> None:
    """What left no trace can be nobody's: an endpoint that joins anew is guarded anew."""
    scene = Scene(lab)
    sandbox = scene.box.sandbox
    scene.box.endpoint.leave()
    scene.box.endpoint.join(sandbox)
    honest = own(scene)
    assert scene.arriving(honest | forged(scene)) == {"victim": set(honest), "host": set(honest)}
