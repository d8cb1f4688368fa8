"""What a cluster of very many hosts costs: simulated hosts with real agents on a real etcd.

Each host is a controller, with its agent and its etcd client; its kernel and datapath are in memory, so what
is measured is the cluster, and neither a kernel nor a wire. Processes with some hundred hosts each share the
machine with one etcd, whose data is in memory. Container c of host h is in network (h + c) modulo
``--networks``: with one network everybody hears of everything, with as many as hosts a network is on as many
hosts as a host has containers. Needs root, for a private host. What breaks first is in docs/performance.md.

    python -m benchmarks.thousand_hosts                     # 50 hosts with 10 containers each
    python -m benchmarks.thousand_hosts --hosts 1000 --containers 30 --processes 8 --json FILE
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for ``python benchmarks/thousand_hosts.py``

from benchmarks.measure import ROOT, ProgramError, machine, percentile, print_table, python
from benchmarks.simulated_hosts import SUBNET, network_of

from pynetwork import Cluster, Controller, EtcdStore, MemoryStore
from pynetwork.testing import FakeKernel, private_host
from pynetwork.testing.cluster import etcd_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

POLL_SECONDS = 0.05
QUIET_SECONDS = 5.0
#: What docs/cluster.md recommends; a watch that hears nothing for five seconds connects anew.
ETCD_OPTIONS = ["--experimental-watch-progress-notify-interval=3s"]
METRICS = {
    "rss": "process_resident_memory_bytes",
    "cpu": "process_cpu_seconds_total",
    "descriptors": "process_open_fds",
    "puts": "etcd_mvcc_put_total",
    "deletes": "etcd_mvcc_delete_total",
    "writes": "etcd_mvcc_txn_total",
    "watchers": "etcd_debugging_mvcc_watcher_total",
    "slow": "etcd_debugging_mvcc_slow_watcher_total",
    "pending": "etcd_debugging_mvcc_pending_events_total",
    "events": "etcd_debugging_mvcc_events_total",
    "sent": "etcd_network_client_grpc_sent_bytes_total",
}


class Process:
    """A process of simulated hosts."""

    def __init__(self, endpoints: Sequence[str], first: int, containers: int, networks: int) -> None:
        numbers = map(str, (first, containers, networks))
        argv = python("-m", "benchmarks.simulated_hosts", ",".join(endpoints), *numbers)
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def tell(self, *command: object) -> None:
        """Begin a command."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the end of the command that was begun."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            msg = f"a process of hosts ended with status {self._process.wait()}, see its messages above"
            raise ProgramError(msg)
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Have it end, and wait."""
        self._process.communicate()


class Fleet:
    """All hosts, and the etcd that they share."""

    def __init__(self, endpoints: Sequence[str], options: argparse.Namespace) -> None:
        self.endpoints = endpoints
        self.options = options
        count, processes = options.hosts, min(options.processes, options.hosts)
        bounds = [count * number // processes for number in range(processes + 1)]
        self.sizes = [after - before for before, after in pairwise(bounds)]
        self._processes = [
            Process(endpoints, first, options.containers, options.networks) for first in bounds[:-1]
        ]

    def all(self, *command: object) -> list[dict[str, Any]]:
        """Have all processes do the same at once."""
        for process in self._processes:
            process.tell(*command)
        return [process.answer() for process in self._processes]

    def open(self) -> None:
        """Have all hosts enter the cluster."""
        for process, size in zip(self._processes, self.sizes, strict=True):
            process.tell("open", size)
        for process in self._processes:
            process.answer()

    def state(self) -> Counter[str]:
        """Return the sums of what the processes say of themselves."""
        found: Counter[str] = Counter()
        for each in self.all("state"):
            found.update(each)
        return found

    def wait(self, name: str, wanted: int) -> Counter[str]:
        """Wait until a sum is what it will be."""
        deadline = time.monotonic() + self.options.patience
        while (state := self.state())[name] != wanted:
            if time.monotonic() > deadline:
                print(f"given up: {name} is {state[name]:,} and not {wanted:,}", file=sys.stderr)
                break
            time.sleep(POLL_SECONDS)
        return state

    def etcd(self) -> dict[str, float]:
        """Return what etcd says of itself."""
        place = urlsplit(self.endpoints[0])
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(values.get(metric, "nan")) for name, metric in METRICS.items()}

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.close()


def entries_in_all(hosts: int, containers: int, networks: int) -> tuple[int, Counter[str]]:
    """Return how many endpoints all hosts together are told of, and how many hosts networks have."""
    endpoints: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for host in range(hosts):
        here = Counter(network_of(host, container, networks) for container in range(containers))
        endpoints.update(here)
        parts.update(here.keys())
        own += here
    return sum(parts[name] * endpoints[name] - own[name] for name in parts), parts


def make_networks(endpoints: Sequence[str], count: int) -> None:
    """Make the networks from a host that has no part in any."""
    with Controller(
        store=MemoryStore(),
        kernel=FakeKernel(),
        cluster=Cluster(store=lambda: EtcdStore(endpoints), host="maker", vtep="198.51.100.1", agent=False),
    ) as controller:
        for number in range(count):
            controller.new_network("overlay", f"n{number}", subnets=[SUBNET], internal=True)


def converge(fleet: Fleet) -> list[tuple[str, float]]:
    """Have the hosts come, then their containers; return what it took."""
    options = fleet.options
    wanted, _ = entries_in_all(options.hosts, options.containers, options.networks)
    base = fleet.state()
    begin, before = time.monotonic(), fleet.etcd()
    fleet.open()
    opened, empty = time.monotonic(), fleet.state()
    fleet.all("fill")
    filled = time.monotonic()
    full = fleet.wait("installed", wanted)
    done, after = time.monotonic(), fleet.etcd()
    time.sleep(options.idle)
    idle, idle_etcd = fleet.state(), fleet.etcd()
    hosts, seconds = options.hosts, done - begin
    return [
        ("hosts have entered, s", opened - begin),
        ("containers run, s", filled - opened),
        ("then until all know of all, s", done - filled),
        ("requests that etcd did not answer in time", float(full["refused"])),
        ("entries on all hosts", float(full["installed"])),
        ("entries missing", float(wanted - full["installed"])),
        ("threads of a host", (full["threads"] - base["threads"]) / hosts),
        ("connections of a host", (full["descriptors"] - base["descriptors"]) / hosts),
        ("memory of a host, empty, KiB", (empty["rss"] - base["rss"]) / hosts / 1024),
        ("memory of a host, full, KiB", (full["rss"] - base["rss"]) / hosts / 1024),
        ("CPU of all hosts, cores", (full["cpu"] - base["cpu"]) / seconds),
        ("CPU of etcd, cores", (after["cpu"] - before["cpu"]) / seconds),
        ("CPU of a quiet host, ms/s", (idle["cpu"] - full["cpu"]) / hosts / options.idle * 1e3),
        ("CPU of a quiet etcd, cores", (idle_etcd["cpu"] - after["cpu"]) / options.idle),
        ("memory of etcd, MiB", after["rss"] / 2**20),
        ("writes to etcd per second", (after["writes"] - before["writes"]) / seconds),
        ("sent by etcd, MiB", (after["sent"] - before["sent"]) / 2**20),
        ("watches in etcd", idle_etcd["watchers"]),
        ("connections and files of etcd", idle_etcd["descriptors"]),
    ]


def churn(fleet: Fleet, rate: float, seconds: float) -> list[tuple[str, float]]:
    """Make changes at a rate; return how long each took to get everywhere, and what it cost."""
    before, cpu = fleet.etcd(), fleet.state()["cpu"]
    begin = time.monotonic()
    done = fleet.all("churn", rate / len(fleet.sizes), seconds)
    ended = time.monotonic()
    at_end = fleet.state()
    during, state = fleet.etcd(), at_end
    told = -1
    while state["waiting"] or state["told"] != told:  # until nothing comes any more
        told = state["told"]
        time.sleep(QUIET_SECONDS)
        state = fleet.state()
    after = fleet.etcd()
    notes = fleet.all("notes")
    asked, written = (
        {k: v for each in notes for k, v in each[name].items()} for name in ("asked", "written")
    )
    arrivals: dict[str, list[float]] = {}
    for each in notes:
        for change, times in each["told"].items():
            arrivals.setdefault(change, []).extend(times)
    changes = [change for change in written if change in asked]  # others went before they were announced
    options = fleet.options
    entries, parts = entries_in_all(options.hosts, options.containers, options.networks)
    entries += sum(parts[network] - 1 for each in notes for network in each["extra"])
    wanted = sum(parts[asked[change][1]] - 1 for change in changes)
    spread = [(at - written[change]) * 1e3 for change in changes for at in arrivals.get(change, ())]
    changes = [change for change in changes if change in arrivals]
    last = [(max(arrivals[change]) - written[change]) * 1e3 for change in changes]
    whole = [(max(arrivals[change]) - asked[change][0]) * 1e3 for change in changes]
    costs = [cost * 1e3 for each in done for cost in each["costs"]]
    took = ended - begin
    count = sum(each["changes"] for each in done)
    final = max((max(times) for times in arrivals.values()), default=ended)
    return [
        ("changes made per second", count / max(each["seconds"] for each in done)),
        ("hosts told of a change", len(spread) / max(1, len(changes))),
        ("of whom were not told, it came and went", float(wanted - len(spread))),
        ("entries missing or too many at the end", abs(float(entries - state["installed"]))),
        *_both("the caller waits, ms", costs),
        *_both("from the write to a host, ms", spread),
        *_both("from the write to the last host, ms", last),
        *_both("from the call to the last host, ms", whole),
        ("changes begin late by at most, s", max(each["late"] for each in done)),
        ("waiting in agents at most", float(sum(each["waiting"] for each in done))),
        ("waiting in etcd at the end", during["pending"]),
        ("slow watches at the end", during["slow"]),
        ("the last host knew after the end, s", max(0.0, final - ended)),
        ("CPU of all hosts, cores", (at_end["cpu"] - cpu) / took),
        ("CPU of etcd, cores", (during["cpu"] - before["cpu"]) / took),
        ("writes to etcd per second", (during["writes"] - before["writes"]) / took),
        ("events sent by etcd per second", (during["events"] - before["events"]) / took),
        ("sent by etcd, MiB per second", (after["sent"] - before["sent"]) / 2**20 / took),
        ("memory of etcd, MiB", after["rss"] / 2**20),
    ]


def _both(name: str, samples: Sequence[float]) -> list[tuple[str, float]]:
    if not samples:
        return []
    return [(f"{name}, p{percent}", percentile(samples, percent)) for percent in (50, 99)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--containers", type=int, default=10, help="of each host")
    parser.add_argument("--networks", type=int, default=0, help="as many as hosts, if not said")
    parser.add_argument("--processes", type=int, default=2, help="that the hosts are in")
    parser.add_argument("--quiet", type=float, default=5.0, help="changes per second, at first")
    parser.add_argument("--rate", type=float, default=100.0, help="changes per second, then")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the second; a quarter of the first")
    parser.add_argument("--idle", type=float, default=3.0, help="seconds without any change")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds until all shall know of all")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    options.networks = options.networks or options.hosts
    tables = {}
    with private_host() as host, etcd_cluster(host=host, options=ETCD_OPTIONS) as cluster:
        make_networks(cluster.endpoints, options.networks)
        fleet = Fleet(cluster.endpoints, options)
        try:
            size = f"{options.hosts} hosts x {options.containers} containers, {options.networks} networks"
            tables[size] = converge(fleet)
            print_table(size, ("", ""), tables[size])
            for rate, seconds in ((options.quiet, options.seconds / 4), (options.rate, options.seconds)):
                name = f"{rate:g} changes per second"
                tables[name] = churn(fleet, rate, seconds)
                print_table(name, ("", ""), tables[name])
        finally:
            fleet.close()
    if options.json:
        figures = {name: dict(rows) for name, rows in tables.items()}
        options.json.write_text(json.dumps({"machine": machine(), **figures}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
