"""What the k-th published port costs: pynetwork beside netlink, ``nft``, ``iptables`` and python-iptables.

The library publishes as a user would, ``endpoint.publish("PORT:80")``: records, journal, claim and rule.
The floor adds one element to an nftables map by netlink, which is all that the kernel needs to be told.
The commands add the same map element, or a rule, each in a process of its own, as scripts do. Every
contestant has as many ports already, python-iptables up to a thousand; all are in one run, on one private
host, so nothing is left. Needs root, ``nft`` and ``iptables``.

    python -m benchmarks.publish               # the table
    python -m benchmarks.publish --most 1000 --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for ``python benchmarks/publish.py``

from benchmarks.measure import machine, percentile, print_table

import pynetwork
from pynetwork.kernel import nfnetlink
from pynetwork.kernel.nfnetlink import FAMILIES, Item
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = "bench"
FIRST = 10_000
WINDOW = 20
ENDPOINTS = 100
CHAIN = "BENCH"
FEW = 1000


class Contestant(Protocol):
    """A way to publish a port of the host."""

    def publish(self, port: int) -> None:
        """Publish it."""

    def unpublish(self, port: int) -> None:
        """Publish it no more."""

    def fill(self, first: int, last: int) -> None:
        """Publish many, as fast as can be."""

    def close(self) -> None:
        """Remove everything."""


class Library:
    """The library, with all its endpoints joined."""

    def __init__(self, directory: Path) -> None:
        self._controller = pynetwork.Controller(directory / "state", run_dir=Path("/run/publish"))
        network = self._controller.new_network("bridge", "bench", subnets=["10.88.0.0/16"])
        self.endpoints = []
        for number in range(ENDPOINTS):
            endpoint = network.create_endpoint(f"e{number}")
            endpoint.join(self._controller.new_sandbox(f"s{number}"))
            self.endpoints.append(endpoint)

    def publish(self, port: int) -> None:
        self.endpoints[port % ENDPOINTS].publish(f"{port}:80")

    def unpublish(self, port: int) -> None:
        self.endpoints[port % ENDPOINTS].unpublish(f"{port}:80")

    def fill(self, first: int, last: int) -> None:
        for port in range(first, last):
            self.publish(port)

    def close(self) -> None:
        self._controller.erase()


class Floor:
    """One element of a map, by netlink."""

    def __init__(self) -> None:
        run(["nft", f"add table inet {TABLE}"])
        key, data = "inet_proto . inet_service", "ipv4_addr . inet_service"
        run(["nft", f"add map inet {TABLE} ports {{ type {key} : {data}; }}"])
        self._socket = nfnetlink.open_socket()

    @staticmethod
    def _item(port: int, *, data: bool = True) -> Item:
        key = struct.pack("!BxxxHxx", socket.IPPROTO_TCP, port)
        return Item(key, data=socket.inet_aton("10.88.0.2") + struct.pack("!Hxx", 80) if data else b"")

    def publish(self, port: int) -> None:
        messages = nfnetlink.add_elements(FAMILIES["inet"], TABLE, "ports", [self._item(port)])
        nfnetlink.transact(self._socket, list(messages))

    def unpublish(self, port: int) -> None:
        item = self._item(port, data=False)
        nfnetlink.transact(
            self._socket, list(nfnetlink.delete_elements(FAMILIES["inet"], TABLE, "ports", [item]))
        )

    def fill(self, first: int, last: int) -> None:
        items = [self._item(port) for port in range(first, last)]
        nfnetlink.transact(
            self._socket, list(nfnetlink.add_elements(FAMILIES["inet"], TABLE, "ports", items))
        )

    def close(self) -> None:
        run(["nft", f"delete table inet {TABLE}"])
        self._socket.close()


class Nft(Floor):
    """The same element, by ``nft``."""

    def publish(self, port: int) -> None:
        run(["nft", f"add element inet {TABLE} ports {{ tcp . {port} : 10.88.0.2 . 80 }}"])

    def unpublish(self, port: int) -> None:
        run(["nft", f"delete element inet {TABLE} ports {{ tcp . {port} }}"])


class Iptables:
    """A rule, by ``iptables-legacy``."""

    def __init__(self) -> None:
        run(["iptables-legacy", "-t", "nat", "-N", CHAIN])

    @staticmethod
    def _rule(port: int) -> list[str]:
        target = ["-j", "DNAT", "--to-destination", "10.88.0.2:80"]
        return ["-p", "tcp", "--dport", str(port), *target]

    def publish(self, port: int) -> None:
        run(["iptables-legacy", "-w", "-t", "nat", "-A", CHAIN, *self._rule(port)])

    def unpublish(self, port: int) -> None:
        run(["iptables-legacy", "-w", "-t", "nat", "-D", CHAIN, *self._rule(port)])

    def fill(self, first: int, last: int) -> None:
        rules = "\n".join(f"-A {CHAIN} {' '.join(self._rule(port))}" for port in range(first, last))
        text = f"*nat\n{rules}\nCOMMIT\n"
        subprocess.run(["iptables-legacy-restore", "--noflush"], input=text, text=True, check=True)

    def close(self) -> None:
        run(["iptables-legacy", "-t", "nat", "-F", CHAIN])
        run(["iptables-legacy", "-t", "nat", "-X", CHAIN])


class PythonIptables:
    """The same rule, by python-iptables, as its documentation has it: each change is committed at once."""

    def __init__(self) -> None:
        import iptc

        self._iptc = iptc
        self._table = iptc.Table(iptc.Table.NAT)
        self._table.refresh()
        self._chain = self._table.create_chain(CHAIN)

    def _rule(self, port: int) -> Any:  # noqa: ANN401 - it has no types
        rule = self._iptc.Rule()
        rule.protocol = "tcp"
        rule.create_match("tcp").dport = str(port)
        rule.create_target("DNAT").to_destination = "10.88.0.2:80"
        return rule

    def publish(self, port: int) -> None:
        self._chain.append_rule(self._rule(port))

    def unpublish(self, port: int) -> None:
        self._chain.delete_rule(self._rule(port))

    def fill(self, first: int, last: int) -> None:
        self._table.autocommit = False
        try:
            for port in range(first, last):
                self._chain.append_rule(self._rule(port))
            self._table.commit()
        finally:
            self._table.autocommit = True
            self._table.refresh()

    def close(self) -> None:
        self._chain.flush()
        self._table.refresh()
        self._table.delete_chain(CHAIN)
        self._table.close()


def run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def timed_us(action: Callable[[int], None], port: int) -> float:
    start = time.perf_counter_ns()
    action(port)
    return (time.perf_counter_ns() - start) / 1000


def measure(contestants: dict[str, Contestant], most: int) -> dict[str, dict[str, float]]:
    """Publish WINDOW ports when there are 0, 10, 100 ... in turns, and unpublish them at the end."""
    positions = [0, *(10**n for n in range(1, 7) if 10**n < most), most - WINDOW]
    figures: dict[str, dict[str, float]] = {name: {} for name in contestants}
    filled = 0
    for position in positions:
        for name, contestant in contestants.items():
            contestant.fill(FIRST + filled, FIRST + max(filled, position))
            first = FIRST + max(filled, position)
            samples = [timed_us(contestant.publish, port) for port in range(first, first + WINDOW)]
            figures[name][f"k={max(position, 1)}"] = median(samples)
        filled = max(filled, position) + WINDOW
    for name, contestant in contestants.items():
        last = FIRST + filled
        samples = [timed_us(contestant.unpublish, port) for port in range(last - WINDOW, last)]
        figures[name]["unpublish"] = median(samples)
        figures[name]["p95"] = percentile(samples, 95)
    return figures


def ranges(library: Library) -> dict[str, float]:
    """Return the milliseconds of a range of 10 000 ports, the same and shifted."""
    endpoint, found = library.endpoints[0], {}
    for name, text in (("same", "40000-49999:40000-49999/udp"), ("shifted", "40000-49999:30000-39999/udp")):
        start = time.perf_counter()
        endpoint.publish(text)
        middle = time.perf_counter()
        endpoint.unpublish(text)
        found[name] = (middle - start) * 1000
        found[f"{name}, unpublish"] = (time.perf_counter() - middle) * 1000
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=10_000, help="ports in all (10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("The benchmark makes network namespaces: run it as root.")
    print_table("Machine", ("", ""), list(machine().items()))
    with private_host(), tempfile.TemporaryDirectory(prefix="pynetwork-benchmark-") as directory:
        library = Library(Path(directory))
        contestants: dict[str, Contestant] = {"floor": Floor(), "pynetwork": library}
        figures = measure(contestants, options.most)
        spans = ranges(library)
        for contestant in contestants.values():
            contestant.close()
        commands: dict[str, Contestant] = {"nft": Nft()}
        if shutil.which("iptables-legacy"):
            commands["iptables"] = Iptables()
        figures |= measure(commands, options.most)
        for contestant in commands.values():
            contestant.close()
        if find_spec("iptc") is not None:
            # It reads and writes the whole table for each rule: with more of them this takes minutes.
            python = PythonIptables()
            figures |= measure({"python-iptables": python}, min(options.most, FEW + WINDOW + 1))
            python.close()
    names = list(figures["floor"])
    print_table(
        "Publish the k-th port (us, median); unpublish the last ones",
        ("contestant", *names),
        [(name, *(found.get(column, "-") for column in names)) for name, found in figures.items()],
    )
    print_table("A range of 10 000 ports on one endpoint (ms)", tuple(spans), [tuple(spans.values())])
    if options.json:
        results = {"machine": machine(), "publish": figures, "ranges": spans}
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
