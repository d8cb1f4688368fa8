"""Neighbours are told where an endpoint is, and what the endpoint knows of its neighbours stays known."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from typing import TYPE_CHECKING

import pytest

from pynetwork.kernel.announce import announce

if TYPE_CHECKING:
    from pynetwork import Controller, Endpoint, Network, Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

SUBNETS = ["10.88.0.0/24", "fd88::/64"]
OWN = ["10.88.0.7", "fd88::7"]
PATIENCE = 5.0


@pytest.fixture
def network(controller: Controller) -> Network:
    return controller.new_network("bridge", "n", subnets=SUBNETS, options={"bridge": "br0"})


def settle(controller: Controller) -> None:
    """Have everything done that is put off."""
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]


def announced(frame: bytes, endpoint: Endpoint) -> str | None:
    """Return the address of *endpoint* that *frame* announces, None if it does something else."""
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    if frame[6:12] != mac:
        return None
    if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42] and frame[22:28] == mac:
        return str(ipaddress.IPv4Address(frame[28:32]))
    is_icmp = frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_ICMPV6
    if is_icmp and frame[54] == 136 and frame[21] == 255 and frame[78:86] == b"\x02\x01" + mac:
        return str(ipaddress.IPv6Address(frame[62:78]))
    return None


def newcomer(network: Network) -> Endpoint:
    """Return an endpoint whose addresses another had before, so that neighbours may remember them."""
    before = network.create_endpoint("before", addresses=OWN)
    before.delete()
    return network.create_endpoint("e", addresses=OWN)


def test_all_addresses_are_announced_to_everybody(controller: Controller, network: Network) -> None:
    endpoint, sandbox = newcomer(network), controller.new_sandbox("s")
    wanted = {str(address.ip) for address in endpoint.addresses}
    found: set[str | None] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.bind(("br0", 3))
        ear.setblocking(False)
        endpoint.join(sandbox)
        deadline = time.monotonic() + PATIENCE
        while not wanted <= found and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                found.add(announced(ear.recv(2000), endpoint))
    assert wanted <= found


def known(sandbox: Sandbox) -> set[str]:
    lines = sandbox.run(["ip", "neigh"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0] for line in lines}


def test_neighbours_that_were_asked_for_meanwhile_are_not_forgotten(
    controller: Controller, network: Network
) -> None:
    """What waits for their answers would be lost: the first packets of a container, perhaps its only ones."""
    endpoint, sandbox = newcomer(network), controller.new_sandbox("s")
    endpoint.join(sandbox)
    for address in ("10.88.0.200", "fd88::200"):  # nobody has them, so they are asked for in vain
        sandbox.run(["ping", "-c1", "-W0.001", address], capture_output=True)
    asked = known(sandbox)
    assert {"10.88.0.200", "fd88::200"} <= asked
    settle(controller)
    assert {"10.88.0.200", "fd88::200"} <= known(sandbox)


@pytest.mark.parametrize("address", ["10.88.0.7", "fd88::7"])
def test_an_address_that_is_not_ours_any_more_is_not_announced(host: PrivateHost, address: str) -> None:
    """Another may have it by now, and would be cut off."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.bind(("lo", 3))
        ear.setblocking(False)
        with pytest.raises(OSError, match="assign requested address"):
            announce("lo", [address])
        with pytest.raises(BlockingIOError):
            ear.recv(2000)
