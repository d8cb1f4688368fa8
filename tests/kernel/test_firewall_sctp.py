"""Published SCTP ports, with packets made by hand: so also where the kernel has no sockets for SCTP."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from tests.kernel.lan import HOST, LAN, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.lan import Lab, Place

pytestmark = pytest.mark.root

SCTP: Final = 132
INIT, INIT_ACK = 1, 2
TAG: Final = 0x1234
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_PATIENCE: Final = 10.0
_SILENCE: Final = 0.3


class Packet(NamedTuple):
    """What is in an SCTP packet, and whose it is."""

    address: str
    source: int
    destination: int
    tag: int
    chunk: int


def crc32c(data: bytes) -> int:
    """Return the checksum of SCTP (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def packed(source: int, destination: int, tag: int, chunk: int) -> bytes:
    """Return a packet with a chunk that begins an association, or agrees to it (RFC 9260, 3.3.2)."""
    body = struct.pack("!BBHIIHHI", chunk, 0, 20, TAG, 65536, 1, 1, 7)
    head = struct.pack("!HHI", source, destination, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + body)) + body


@contextlib.contextmanager
def endpoint(place: Place, version: int) -> Iterator[socket.socket]:
    """Return what sends and hears SCTP at a place."""
    with place.entered():
        raw = socket.socket(_FAMILIES[version], socket.SOCK_RAW, SCTP)
    with raw:
        raw.settimeout(0.05)
        yield raw


def hear(raw: socket.socket) -> Packet | None:
    """Return the next packet, None when none comes."""
    try:
        data, peer = raw.recvfrom(999)
    except TimeoutError:
        return None
    if raw.family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]
    source, destination, tag = struct.unpack_from("!HHI", data)
    assert struct.unpack_from("<I", data, 8)[0] == crc32c(data[:8] + bytes(4) + data[12:])
    return Packet(peer[0], source, destination, tag, data[12])


def associate(
    client: Place, address: str, port: int, server: Place, *, wanted: bool
) -> tuple[Packet, Packet] | None:
    """Return what the server hears of the client, and then the client of the server; None if nothing is."""
    version = version_of(address)
    deadline = time.monotonic() + (_PATIENCE if wanted else _SILENCE)
    with endpoint(client, version) as asker, endpoint(server, version) as answerer:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # refused by a rule
                asker.sendto(packed(5000, port, 0, INIT), (address, 0))
            asked = hear(answerer)
            if asked is None or asked.chunk != INIT:
                continue
            answerer.sendto(packed(asked.destination, asked.source, TAG, INIT_ACK), (asked.address, 0))
            answer = hear(asker)
            if answer is not None and answer.chunk == INIT_ACK:
                return asked, answer
    return None


@pytest.mark.parametrize("version", [4, 6])
def test_sctp_reaches_the_ports_that_are_published_and_no_others(lab: Lab, version: int) -> None:
    """One port, a range, and a range that is shifted; the answers come from where was asked."""
    network = lab.network("n", 1)
    lab.route_to(network)
    ports = ["8000:80/sctp", "9000-9001:9000-9001/sctp", "9100-9101:80-81/sctp", "8002:80/tcp", "8002:80/udp"]
    web = lab.box(network, "web", ports)
    for port, inner in ((8000, 80), (9000, 9000), (9001, 9001), (9101, 81)):
        found = associate(lab.lan, HOST[version], port, web, wanted=True)
        assert found is not None
        asked, answer = found
        assert asked == Packet(LAN[version], 5000, inner, 0, INIT)
        assert answer == Packet(HOST[version], port, 5000, TAG, INIT_ACK)
    for address, port in ((HOST[version], 8002), (HOST[version], 9002), (web.addresses[version], 80)):
        assert associate(lab.lan, address, port, web, wanted=False) is None
    web.endpoint.unpublish("8000:80/sctp")
    lab.controller._core.engine.kernel.flush()  # type: ignore[attr-defined]  # connections are forgotten a little later
    assert associate(lab.lan, HOST[version], 8000, web, wanted=False) is None


def test_sctp_is_opened_where_nothing_is_translated(lab: Lab) -> None:
    options = {"gateway_mode_ipv4": "routed", "gateway_mode_ipv6": "routed"}
    network = lab.network("n", 1, options=options)
    lab.route_to(network)
    web = lab.box(network, "web", ["80/sctp"])
    for version in (4, 6):
        assert associate(lab.lan, web.addresses[version], 80, web, wanted=True) is not None
        assert associate(lab.lan, web.addresses[version], 81, web, wanted=False) is None
