"""What the tests of overlay networks share: endpoints in sandboxes, pings, patience."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork import Sandbox
    from pynetwork.testing.cluster import LinuxHost

SUBNETS = ["10.1.0.0/24", "fd01::/64"]
PATIENCE = 15.0


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def joined(host: LinuxHost, network: str, name: str, number: int) -> Sandbox:
    """Put an endpoint with a given address into a sandbox of its own."""
    addresses = [f"10.1.0.{number}", f"fd01::{number:x}"]
    endpoint = host.controller.networks[network].create_endpoint(name, addresses=addresses)
    sandbox = host.controller.new_sandbox(f"{network}-{name}")
    endpoint.join(sandbox)
    return sandbox


def knows(host: LinuxHost, network: str, count: int) -> bool:
    """Tell whether the host has been told of *count* endpoints of others."""
    peers = host.controller.networks[network].peers
    return sum(len(p.endpoints) for p in peers) == count and all(p.installed == p.revision for p in peers)


def ping(sandbox: Sandbox, address: str, *options: str, count: int = 1) -> int:
    """Return how many of *count* pings were answered."""
    words = ["ping", "-c", str(count), "-i", "0.05", "-W", "1", *options, address]
    done = sandbox.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) received", done.stdout)
    return int(found[1]) if found else 0


class Pinging:
    """
    A ping every 20 ms, as long as the block lasts.

    Attributes:
        sent: How many there were, once the block is over.
        lost: How many of them were not answered.
    """

    sent = 0
    lost = 0

    def __repr__(self) -> str:
        return f"{self.lost} of {self.sent} lost, {self.lost * 20} ms"


@contextmanager
def pinging(sandbox: Sandbox, address: str) -> Iterator[Pinging]:
    """Ping *address* from a sandbox all the time."""
    found = Pinging()
    process = sandbox.popen(["ping", "-i", "0.02", "-W", "1", address], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "PING" in process.stdout.readline()
        yield found
        process.send_signal(2)  # SIGINT: says how many there were
        output, _ = process.communicate(timeout=30)
        numbers = re.search(r"(\d+) packets transmitted, (\d+) received", output)
        assert numbers, output
        found.sent = int(numbers[1])
        found.lost = found.sent - int(numbers[2])
    finally:
        process.kill()
        process.communicate()
