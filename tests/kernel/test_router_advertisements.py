"""Nobody on a bridge can give the host, or a neighbour, a default route (RFC 4861 router advertisements)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from pynetwork import Controller, MemoryStore, Sandbox
from pynetwork.testing import private_host
from pynetwork.testing.surroundings import fake_surroundings

pytestmark = pytest.mark.root

# Says: for half an hour I am your router, and here is a prefix to choose an address from.
ADVERTISE = """
import socket, struct
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
option = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, prefix)
message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option
sock.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"""


def _routes() -> str:
    """Return the IPv6 routes of the namespace this thread is in."""
    return Path("/proc/thread-self/net/ipv6_route").read_text()


def _advertise(sandbox: Sandbox) -> None:
    sandbox.run([sys.executable, "-I", "-c", ADVERTISE], check=True)


def test_a_sandbox_cannot_become_the_router_of_host_or_neighbours() -> None:
    """Sent on each kind of bridge; the last one was made to listen, to prove that it would be heard."""
    with private_host(), _controller() as controller, controller.scratch():
        sandboxes = []
        for name, options in (("own", {}), ("named", {"bridge": "br.7"}), ("listening", {"bridge": "br8"})):
            network = controller.new_network("bridge", name, options=options)
            for role in ("router", "neighbour"):
                sandbox = controller.new_sandbox(f"{name}-{role}")
                network.create_endpoint(role, link_local=[f"fe80::{len(role)}"]).join(sandbox)
                sandboxes.append(sandbox)
        Path("/proc/sys/net/ipv6/conf/br8/accept_ra").write_text("1")
        deadline = time.monotonic() + 20
        while "br8" not in (heard := _heard()) and time.monotonic() < deadline:
            for router in sandboxes[::2]:
                _advertise(router)
        assert heard == {"br8"}
        for sandbox in sandboxes:
            with sandbox.entered():
                assert not _heard()


def _controller() -> Controller:
    return Controller(store=MemoryStore(), surroundings=fake_surroundings())


def _heard() -> set[str]:
    """Return the interfaces with routes that came from a router: the default, or to what it announced."""
    fields = [line.split() for line in _routes().splitlines()]
    announced = {("0" * 32, "00"), ("20010db80bad" + "0" * 20, "40")}
    return {words[-1] for words in fields if (words[0], words[1]) in announced and words[-1] != "lo"}
