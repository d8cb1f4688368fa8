"""The contestants of ``benchmarks/wire.py``: ways to wire a container, each a program of its own.

Each runs in its own process and its own private host, with a bridge of its own, so none carries the
ports, the memory or the imports of another. ``python -m benchmarks.contestants NAME STATE`` is one.
"""

from __future__ import annotations

import importlib
import ipaddress
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.measure import Program, python

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["NAMES", "compile_floor", "start"]

NAMES = ("floor", "pynetwork", "ip-batch", "pyroute2")

SUBNET = ipaddress.ip_network("10.88.0.0/16")
GATEWAY = SUBNET[1]
BRIDGE = "bench"

#: Makes a private host for a program: nothing it does is seen outside, and all of it goes with it.
PRIVATE_HOST = (
    *("unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec"),
    'mount -t tmpfs tmpfs /run; ip link set lo up; exec "$@"',
    "sh",
)


def compile_floor(directory: Path) -> Path:
    """Compile ``floor.c`` into *directory* and return the program."""
    program = directory / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
    return program


def start(name: str, floor: Path) -> Program:
    """
    Start the contestant *name*; *floor* is the compiled floor.

    Raises:
        ProgramError: It cannot run here.
    """
    if name == "floor":
        return Program(name, [str(floor)])
    return Program(name, [*PRIVATE_HOST, *python("-m", "benchmarks.contestants", name, "{state}")])


class Contestant(Protocol):
    """A way to wire a container. The constructor makes the bridge; containers are numbered from 0."""

    def wire(self, number: int) -> None:
        """Make a namespace that reaches the bridge through ``eth0``."""

    def unwire(self, number: int) -> None:
        """Remove it; host links may go a little later."""

    def close(self) -> None:
        """Let go of what is held."""


def address_of(number: int) -> str:
    return str(SUBNET[2 + number % (SUBNET.num_addresses - 3)])


class IpBatch:
    """Two runs of ``ip -batch`` per container, one on the host and one inside: iproute2 at its best."""

    def __init__(self, _state: Path) -> None:
        self._batch(
            f"link add {BRIDGE} type bridge",
            f"address add {GATEWAY}/{SUBNET.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
        )

    def wire(self, number: int) -> None:
        namespace = f"bench{number}"
        self._batch(
            f"netns add {namespace}",
            f"link add veth{number} master {BRIDGE} up type veth peer name eth0 netns {namespace}",
        )
        self._batch(
            "link set lo up",
            f"address add {address_of(number)}/{SUBNET.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
            namespace=namespace,
        )

    def unwire(self, number: int) -> None:
        self._batch(f"netns delete bench{number}")

    def close(self) -> None:
        """Nothing is held."""

    @staticmethod
    def _batch(*lines: str, namespace: str | None = None) -> None:
        inside = [] if namespace is None else ["-n", namespace]
        subprocess.run(["ip", *inside, "-batch", "-"], input="\n".join(lines), text=True, check=True)


class Pyroute2:
    """pyroute2 as its documentation uses it: one ``IPRoute`` for the host, a ``NetNS`` per namespace."""

    def __init__(self, _state: Path) -> None:
        self._pyroute2: ModuleType = importlib.import_module("pyroute2")
        self._host = self._pyroute2.IPRoute()
        self._host.link("add", ifname=BRIDGE, kind="bridge")
        (self._bridge,) = self._host.link_lookup(ifname=BRIDGE)
        self._host.addr("add", index=self._bridge, address=str(GATEWAY), prefixlen=SUBNET.prefixlen)
        self._host.link("set", index=self._bridge, state="up")

    def wire(self, number: int) -> None:
        namespace, host_end = f"bench{number}", f"veth{number}"
        self._pyroute2.netns.create(namespace)
        peer = {"ifname": "eth0", "net_ns_fd": namespace}
        self._host.link("add", ifname=host_end, kind="veth", peer=peer)
        (index,) = self._host.link_lookup(ifname=host_end)
        self._host.link("set", index=index, master=self._bridge)
        self._host.link("set", index=index, state="up")
        with self._pyroute2.NetNS(namespace) as inside:
            (loopback,) = inside.link_lookup(ifname="lo")
            (eth0,) = inside.link_lookup(ifname="eth0")
            inside.link("set", index=loopback, state="up")
            inside.addr("add", index=eth0, address=address_of(number), prefixlen=SUBNET.prefixlen)
            inside.link("set", index=eth0, state="up")
            inside.route("add", dst="default", gateway=str(GATEWAY))

    def unwire(self, number: int) -> None:
        self._pyroute2.netns.remove(f"bench{number}")

    def close(self) -> None:
        self._host.close()


class Pynetwork:
    """The library as a user calls it: store, allocation and journal included."""

    def __init__(self, state: Path) -> None:
        # Imported here, so that the other contestants run without it; its state is on a real file system.
        library = importlib.import_module("pynetwork")
        self._controller = library.Controller(state_dir=state, run_dir=Path("/run/pynetwork-benchmark"))
        self._network = self._controller.new_network("bridge", "bench", subnets=[str(SUBNET)])

    def wire(self, number: int) -> None:
        sandbox = self._controller.new_sandbox(f"container{number}")
        endpoint = self._network.create_endpoint(f"endpoint{number}")
        endpoint.join(sandbox)

    def unwire(self, number: int) -> None:
        endpoint = self._network.endpoints[f"endpoint{number}"]
        sandbox = self._controller.sandboxes[f"container{number}"]
        endpoint.leave()
        endpoint.delete()
        sandbox.delete()

    def close(self) -> None:
        self._network.delete()
        self._controller.close()


KINDS: dict[str, Callable[[Path], Contestant]] = {
    "ip-batch": IpBatch,
    "pyroute2": Pyroute2,
    "pynetwork": Pynetwork,
}


def timed_us(action: Callable[[int], None], number: int) -> float:
    """Return the microseconds that *action* takes."""
    start_ns = time.perf_counter_ns()
    action(number)
    return (time.perf_counter_ns() - start_ns) / 1000


def serve(contestant: Contestant) -> None:
    """Answer the commands ``wire N [THREADS]`` and ``unwire N`` until the end of the input."""
    first = following = 0  # containers first .. following - 1 exist
    print("ready", flush=True)
    for line in sys.stdin:
        command, count, *threads = line.split()
        if command == "wire":
            numbers = range(following, following + int(count))
            following = numbers.stop
            action = contestant.wire
        else:
            numbers = range(first, min(first + int(count), following))
            first = numbers.stop
            action = contestant.unwire
        samples, wall = run(action, numbers, int(threads[0]) if threads else 1)
        for sample in samples:
            print(f"{sample:.1f}")
        print(f"wall {wall:.1f}", flush=True)
    for number in range(first, following):
        contestant.unwire(number)
    contestant.close()


def run(action: Callable[[int], None], numbers: range, threads: int) -> tuple[list[float], float]:
    """Return the microseconds of each call, and of all of them in *threads* threads."""
    if threads == 1:
        start_ns = time.perf_counter_ns()
        samples = [timed_us(action, number) for number in numbers]
        return samples, (time.perf_counter_ns() - start_ns) / 1000
    with ThreadPoolExecutor(threads) as pool:
        start_ns = time.perf_counter_ns()
        samples = list(pool.map(lambda number: timed_us(action, number), numbers))
        return samples, (time.perf_counter_ns() - start_ns) / 1000


def main() -> None:
    """Be the contestant that the command line names."""
    name, state = sys.argv[1:]
    try:
        contestant = KINDS[name](Path(state))
    except (ImportError, AttributeError) as error:  # not installed, or not finished
        print(f"unavailable {type(error).__name__}: {error}")
    else:
        serve(contestant)


if __name__ == "__main__":
    main()
