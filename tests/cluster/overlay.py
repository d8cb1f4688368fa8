"""What the tests of overlay networks share: endpoints in sandboxes, pings, patience, agents as processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from pynetwork.testing.cluster import SwitchedHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

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


def joined(host: LinuxHost, network: str, name: str, number: int, mac: str | None = None) -> Sandbox:
    """Put an endpoint with a given address into a sandbox of its own."""
    addresses = [f"10.1.0.{number}", f"fd01::{number:x}"]
    with host.entered():  # connections to the store are of this host
        endpoint = host.controller.networks[network].create_endpoint(name, addresses=addresses, mac=mac)
        sandbox = host.controller.new_sandbox(f"{network}-{name}")
        endpoint.join(sandbox)
    return sandbox


def knows(host: LinuxHost, network: str, count: int) -> bool:
    """Tell whether the host has been told of *count* endpoints of others."""
    with host.entered():
        peers = host.controller.networks[network].peers
    return sum(len(p.endpoints) for p in peers) == count and all(p.installed == p.revision for p in peers)


def ping(sandbox: Sandbox, address: str, *options: str, count: int = 1) -> int:
    """Return how many of *count* pings were answered."""
    words = ["ping", "-c", str(count), "-i", "0.05", "-W", "1", *options, address]
    done = sandbox.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) received", done.stdout)
    return int(found[1]) if found else 0


def reaches(sandbox: Sandbox, address: str, *options: str) -> bool:
    """Tell whether an address comes to be reached: of the first pings to a host some may be lost."""
    return eventually(lambda: ping(sandbox, address, "-W", "0.2", *options))


def is_silent(sandbox: Sandbox, address: str) -> bool:
    """Tell whether a ping is not answered; who is there answers within a millisecond or two."""
    return ping(sandbox, address, "-W", "0.3") == 0


AGENT = """
from pynetwork import EtcdCluster

cluster = EtcdCluster({endpoints!r}, host={host!r}, vtep={vtep!r}, ttl={ttl}, datapath={datapath!r})
"""


@contextmanager
def agent(
    host: LinuxHost, endpoints: Sequence[str], directory: Path
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Have a host followed by processes of their own, one after the other; yields what starts the next."""
    text = AGENT.format(
        endpoints=list(endpoints),
        host=host.name,
        vtep=host.vtep,
        ttl=host.cluster.ttl,
        datapath=host.cluster.datapath,
    )
    (directory / "followed.py").write_text(text, encoding="utf-8")
    places = ["--state-dir", f"/var/lib/pynetwork/{host.name}", "--run-dir", f"/run/pynetwork/{host.name}"]
    environment = dict(os.environ)
    if isinstance(host, SwitchedHost):
        environment["OVS_RUNDIR"] = str(host.switch.directory)
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            with host.entered():
                process = subprocess.Popen(
                    [sys.executable, "-m", "pynetwork.agent", "--cluster", "followed:cluster", *places],
                    cwd=directory,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            stack.callback(process.communicate, timeout=20)
            stack.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline() == f"host {host.name} is followed\n"
            return process

        with_agent = host.cluster
        host.close()
        host.cluster = attrs.evolve(with_agent, agent=False)
        try:
            yield start
        finally:
            host.close()
            host.cluster = with_agent
