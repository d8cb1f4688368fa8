"""A process with many simulated hosts of one cluster, for :mod:`benchmarks.thousand_hosts`, which starts it.

Each host is a controller with its agent, an etcd client of its own, and a kernel and a datapath in memory.
Commands come as lines of JSON, and so go the answers. Times are of the monotonic clock, which all processes
of a machine share: that a change was written is noted by the client, that it arrived by the datapath.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pynetwork import Cluster, Controller, EtcdStore, MemoryStore, StoreUnavailableError
from pynetwork.cluster import agent
from pynetwork.cluster.layout import PEERS, read_text
from pynetwork.peers import Peer, Reach
from pynetwork.store import Put
from pynetwork.testing import FakeKernel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pynetwork import Endpoint, Sandbox
    from pynetwork.peers import Change, Entry, Peers
    from pynetwork.store import Compare, Operation

T = TypeVar("T")

SUBNET = "10.0.0.0/16"  # of each network: they are apart by their VNI
OPENERS = 4
CHANGERS = 8
SAMPLE_SECONDS = 0.25
TRIES = 5
#: An agent looks 20 times a second at what other processes of its host have joined. A thousand of them on one
#: machine would do little else, and no host here has another process.
LOOK_SECONDS = 1.0
#: Who waits for the interpreter looks up after each such time, and hundreds of threads do: with the five
#: milliseconds that Python has the machine did nothing else. All let go of it by themselves, after far less.
SWITCH_SECONDS = 0.2
#: etcd has machines of its own elsewhere, and is not to wait here for a thousand hosts.
NICE = 10


class Notes:
    """When changes were asked for, written, and told to the datapaths of this process, by MAC and kind."""

    def __init__(self) -> None:
        self.asked: dict[str, tuple[float, str]] = {}  # and in which network
        self.written: dict[str, float] = {}
        self.told: dict[str, list[float]] = {}


class NotedStore(EtcdStore):
    """A client that notes when endpoints are announced."""

    def __init__(self, endpoints: str, notes: Notes) -> None:
        super().__init__(endpoints)
        self._notes = notes
        self._macs: dict[str, str] = {}

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        now = time.monotonic()
        for each in operations:
            if not each.key.startswith(PEERS):
                continue
            if isinstance(each, Put):
                mac = self._macs[each.key] = read_text(Peer, each.key, each.value).mac
                self._notes.written.setdefault(f"+{mac}", now)
            elif (gone := self._macs.pop(each.key, None)) is not None:
                self._notes.written.setdefault(f"-{gone}", now)
        return super().transact(compares, operations, seen=seen)


class NotedPeers:
    """A datapath that notes what it was told of, while somebody wants to know."""

    def __init__(self, peers: Peers, notes: Notes) -> None:
        self._peers = peers
        self._notes = notes
        self.is_noting = False
        self.macs: dict[int, int] = {}  # of a VNI, that there are entries for

    def apply(self, vni: int, change: Change) -> None:
        self._peers.apply(vni, change)
        self._count(vni)
        if self.is_noting:
            now = time.monotonic()
            for sign, entries in (("+", change.put), ("-", change.drop)):
                for entry in entries:
                    if isinstance(entry, Reach):
                        self._notes.told.setdefault(sign + entry.mac, []).append(now)

    def reconcile(self, vni: int, wanted: Collection[Entry]) -> int:
        wrong = self._peers.reconcile(vni, wanted)
        self._count(vni)
        return wrong

    def _count(self, vni: int) -> None:
        entries = self._peers._entries.get(vni, {})  # type: ignore[attr-defined]  # noqa: SLF001 - a copy each time would be what is measured
        self.macs[vni] = len(entries) // 2  # a MAC and an address of each endpoint

    def __getattr__(self, name: str) -> object:
        return getattr(self._peers, name)


class Host:
    """A simulated host."""

    def __init__(self, number: int, endpoints: str, notes: Notes) -> None:
        kernel = FakeKernel()
        self.peers = NotedPeers(kernel.peers(), notes)
        kernel.peers = lambda bridge=None: self.peers  # type: ignore[method-assign, assignment, return-value]  # noqa: ARG005
        self.number = number
        self.controller = Controller(
            store=MemoryStore(),
            kernel=kernel,
            cluster=Cluster(
                store=lambda: NotedStore(endpoints, notes),
                host=f"host{number}",
                vtep=f"192.0.{2 + (number >> 8)}.{number & 255}",
                ttl=60.0,
            ),
        )
        self._made = 0
        self.refused = 0  # requests that the store did not answer, and were made again
        self._networks: dict[str, Any] = {}
        self._extra: deque[tuple[Endpoint, Sandbox]] = deque()
        self.lock = threading.Lock()

    def add(self, network: str) -> tuple[Endpoint, Sandbox]:
        """Run a container in a network; its MAC is nobody else's in any."""
        self._made += 1
        mac = f"02:43:{(self.number << 16 | self._made).to_bytes(4, 'big').hex(':')}"
        found = self._networks.get(network) or self._networks.setdefault(
            network, self.controller.networks[network]
        )
        endpoint = self._insist(lambda: found.create_endpoint(f"e{self.number}-{self._made}", mac=mac))
        sandbox = self.controller.new_sandbox(f"s{self._made}")
        endpoint.join(sandbox)
        return endpoint, sandbox

    def _insist(self, request: Callable[[], T]) -> T:
        """Make a request again whose answer is that the store does not answer, as a patient caller does."""
        for _ in range(TRIES):
            try:
                return request()
            except StoreUnavailableError:
                self.refused += 1
        return request()

    def change(self, network: str, notes: Notes) -> None:
        """Run one container more, or remove the one that was run last time."""
        with self.lock:
            began = time.monotonic()
            if not self._extra:
                self._extra.append(self.add(network))
                notes.asked[f"+{self._extra[0][0].mac}"] = (began, network)
            else:
                endpoint, sandbox = self._extra.popleft()
                notes.asked[f"-{endpoint.mac}"] = (began, endpoint.network.name)
                endpoint.leave()
                endpoint.delete()
                sandbox.delete()

    @property
    def extra(self) -> str | None:
        """The network of the container that it has more than it began with, None when it has none."""
        return self._extra[0][0].network.name if self._extra else None

    def waiting(self) -> int:
        """Count the changes that the agent has heard of, and not looked at."""
        span = self.controller._core.span  # noqa: SLF001 - nobody is told of this
        return 0 if span is None or span.agent is None else span.agent._events.qsize()  # noqa: SLF001 - likewise


class Hosts:
    """What the process does on command."""

    def __init__(self, endpoints: str, first: int, containers: int, networks: int) -> None:
        self._endpoints = endpoints
        self._first = first
        self._containers = containers
        self._networks = networks
        self._notes = Notes()
        self._hosts: list[Host] = []
        self._random = random.Random(first)  # noqa: S311 - no secret

    def open(self, count: int) -> dict[str, Any]:
        """Have so many hosts more enter the cluster, as after a power cut: as fast as they can."""
        numbers = range(self._first + len(self._hosts), self._first + len(self._hosts) + count)
        with ThreadPoolExecutor(OPENERS) as pool:
            self._hosts += pool.map(lambda n: Host(n, self._endpoints, self._notes), numbers)
        return self.state()

    def fill(self) -> dict[str, Any]:
        """Run the containers, host by host in turn."""
        for container in range(self._containers):
            for host in self._hosts:
                host.add(network_of(host.number, container, self._networks))
        return self.state()

    def state(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return {
            "hosts": len(self._hosts),
            "installed": sum(sum(host.peers.macs.values()) for host in self._hosts),
            "told": sum(map(len, self._notes.told.copy().values())),
            "waiting": sum(host.waiting() for host in self._hosts),
            "refused": sum(host.refused for host in self._hosts),
            "rss": int(status.split("VmRSS:", 1)[1].split(None, 1)[0]) * 1024,
            "cpu": usage.ru_utime + usage.ru_stime,
            "threads": threading.active_count(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        }

    def churn(self, rate: float, seconds: float) -> dict[str, Any]:
        """Make changes at a rate, on hosts and in networks of theirs taken by lot; say how it went."""
        for host in self._hosts:
            host.peers.is_noting = True
        waiting, late, costs = [], [], []
        begin = time.monotonic()
        due = [begin + number / rate for number in range(round(rate * seconds))]

        def one(at: float, host: Host, network: str) -> None:
            time.sleep(max(0.0, at - time.monotonic()))
            start = time.monotonic()
            host.change(network, self._notes)
            costs.append(time.monotonic() - start)
            late.append(start - at)

        with ThreadPoolExecutor(CHANGERS) as pool:
            done = [pool.submit(one, at, *self._lot()) for at in due]
            while not all(each.done() for each in done):
                waiting.append(sum(host.waiting() for host in self._hosts))
                time.sleep(SAMPLE_SECONDS)
            for each in done:
                each.result()
        return {
            "changes": len(due),
            "seconds": time.monotonic() - begin,
            "waiting": max(waiting, default=0),
            "late": max(late, default=0.0),
            "costs": costs,
        }

    def notes(self) -> dict[str, Any]:
        """Return what was noted, and forget it."""
        told = vars(self._notes).copy()
        told["extra"] = [host.extra for host in self._hosts if host.extra is not None]
        for host in self._hosts:
            host.peers.is_noting = False
        for each in ("asked", "written", "told"):
            setattr(self._notes, each, {})
        return told

    def close(self) -> dict[str, Any]:
        with ThreadPoolExecutor(OPENERS) as pool:
            list(pool.map(lambda host: host.controller.close(), self._hosts))
        return {}

    def _lot(self) -> tuple[Host, str]:
        host = self._random.choice(self._hosts)
        return host, network_of(host.number, self._random.randrange(self._containers), self._networks)


def network_of(host: int, container: int, networks: int) -> str:
    """Return the name of the network that a container of a host is in: neighbours share most of theirs."""
    return f"n{(host + container) % networks}"


def main(endpoints: str, *numbers: str) -> None:
    first, containers, networks = map(int, numbers)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.nice(NICE)
    sys.setswitchinterval(SWITCH_SECONDS)
    agent._LOOK_SECONDS = LOOK_SECONDS  # type: ignore[misc]  # noqa: SLF001 - nobody else wants to say
    hosts = Hosts(endpoints, first, containers, networks)
    try:
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(hosts, name)(*arguments)), flush=True)
    finally:
        hosts.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
