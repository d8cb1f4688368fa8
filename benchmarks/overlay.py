"""What a network across hosts costs: how soon the others know, how fast a table grows, how fast packets pass.

Hosts are network namespaces of one private host, joined by an underlay; the store is one in memory, so
the time that a real one takes comes on top. TCP streams go from a container on one host to one on
another; beside the library's network there is one made by hand with ``ip`` and ``bridge``, a VXLAN device
in a bridge on each host, and the two are measured in turn. Needs root.

    python -m benchmarks.overlay               # the tables
    python -m benchmarks.overlay --seconds 1 --entries 10000 --json FILE
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for ``python benchmarks/overlay.py``

from benchmarks.measure import machine as this_machine
from benchmarks.measure import percentile, print_table

from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.netns import entered
from pynetwork.peers import Change, Peer, PeerTable
from pynetwork.plan import Plan, diff
from pynetwork.resources import Bridge, BridgePort, LinkUp, Vxlan
from pynetwork.testing import PrivateHost, private_host
from pynetwork.testing.cluster import linux_cluster

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pynetwork.peers import Entry, Peers
    from pynetwork.testing.cluster import LinuxHost

INSTANCE = "0123456789abcdef" * 2
MTU = 1450
CHUNK = 1 << 20


class Watched:
    """A datapath that notes when it was told of something."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self.told = threading.Condition()
        self.times: dict[str, float] = {}

    def apply(self, vni: int, change: Change) -> None:
        self._peers.apply(vni, change)
        now = time.perf_counter()
        with self.told:
            self.times.update((entry.slot[1], now) for entry in change.put)
            self.told.notify_all()

    def reconcile(self, vni: int, wanted: Collection[Entry]) -> int:
        return self._peers.reconcile(vni, wanted)

    def __getattr__(self, name: str) -> object:
        return getattr(self._peers, name)

    def wait_for(self, mac: str) -> float:
        with self.told:
            if not self.told.wait_for(lambda: mac in self.times, 10.0):
                msg = f"nothing was told of {mac}"
                raise RuntimeError(msg)
            return self.times[mac]


def propagation(hosts: Sequence[LinuxHost], count: int) -> dict[str, list[float]]:
    """Return the seconds from an endpoint's join, and from its creation, to its entries on another host."""
    here, there = hosts[0].controller, hosts[1].controller
    network = here.new_network("overlay", "latency", subnets=["10.200.0.0/16"], internal=True)
    there.networks["latency"].create_endpoint("watcher").join(there.new_sandbox("watcher"))
    span = there._core.span  # noqa: SLF001 - to see when the datapath was told
    assert span is not None  # noqa: S101 - it is in a cluster
    watched = Watched(span.worker._peers)  # noqa: SLF001 - likewise
    span.worker._peers = watched  # noqa: SLF001 - likewise
    found: dict[str, list[float]] = {"from create_endpoint": [], "from join": [], "after join returned": []}
    for number in range(count):
        sandbox = here.new_sandbox(f"latency-{number}")
        created = time.perf_counter()
        endpoint = network.create_endpoint(f"e{number}")
        joining = time.perf_counter()
        endpoint.join(sandbox)
        joined = time.perf_counter()
        told = watched.wait_for(endpoint.mac)
        for name, since in zip(found, (created, joining, joined), strict=True):
            found[name].append(max(0.0, told - since))
    return found


def ways_out(host: LinuxHost, count: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds that joining and leaving take in networks without and with a way out, in turn."""
    controller = host.controller
    kinds = {"internal": "10.201.0.0/16", "with a way out": "10.202.0.0/16", "and a port": "10.203.0.0/16"}
    networks = {
        kind: controller.new_network(
            "overlay", f"ways-{number}", subnets=[subnet], ipv6=True, internal=kind == "internal"
        )
        for number, (kind, subnet) in enumerate(kinds.items())
    }
    found: dict[str, dict[str, list[float]]] = {kind: {"join": [], "leave": []} for kind in kinds}
    for network in networks.values():  # what the first one brings to the host is not what is measured
        network.create_endpoint("first").join(controller.new_sandbox(f"first-{network.name}"))
    for number in range(count):
        for kind, network in networks.items():
            sandbox = controller.new_sandbox(f"{network.name}-{number}")
            endpoint = network.create_endpoint(f"e{number}", ports=[80] if kind == "and a port" else ())
            times = [time.perf_counter()]
            endpoint.join(sandbox)
            times.append(time.perf_counter())
            endpoint.leave()
            times.append(time.perf_counter())
            sandbox.delete()
            endpoint.delete()
            found[kind]["join"].append(times[1] - times[0])
            found[kind]["leave"].append(times[2] - times[1])
    return found


def peer(number: int) -> Peer:
    octets = number.to_bytes(4, "big").hex(":")
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return Peer(host="far", vtep=f"192.0.2.{2 + number % 250}", mac=f"02:42:{octets}", addresses=[address])


def tables(entries: int, samples: int) -> dict[str, float]:
    """Return what it takes to tell the kernel of many endpoints, and of one more beside them."""
    kernel = LinuxKernel(INSTANCE, Path("/run/pynetwork/netns"))
    plan = Plan(
        (
            Bridge(name="ov-9", mtu=MTU),
            Vxlan(name="vx-9", vni=9, local="192.0.2.1", bridge="ov-9", mtu=MTU),
            BridgePort(dev="vx-9", bridge="ov-9"),
            LinkUp(dev="ov-9"),
        )
    )
    kernel.apply(diff(Plan(), plan))
    try:
        table, peers = PeerTable("here"), kernel.peers()
        start = time.perf_counter()
        changes = [table.put(str(number), peer(number), number) for number in range(entries)]
        worked_out = time.perf_counter()
        peers.apply(9, Change(put=tuple(entry for change in changes for entry in change.put)))
        told = time.perf_counter()
        wanted: set[Entry] = set(table.entries())
        looking = time.perf_counter()
        wrong = peers.reconcile(9, wanted)
        looked = time.perf_counter()
        if wrong:
            msg = f"{wrong} entries were not as told"
            raise RuntimeError(msg)
        one = []
        for number in range(entries, entries + samples):
            new = peer(number)
            begin = time.perf_counter()
            peers.apply(9, table.put(str(number), new, number))
            one.append(time.perf_counter() - begin)
        return {
            "records worked out, s": worked_out - start,
            "kernel told of all, s": told - worked_out,
            "compared as a whole, s": looked - looking,
            "one more, p50 us": median(one) * 1e6,
            "one more, p99 us": percentile(one, 99) * 1e6,
        }
    finally:
        kernel.apply(diff(plan, Plan()))
        kernel.flush()
        kernel.close()


@contextmanager
def by_hand(hosts: Sequence[LinuxHost]) -> Iterator[list[str]]:
    """Make a network of two hosts with ``ip`` and ``bridge``; yields the namespaces of its two containers."""
    machine = PrivateHost()
    names = [f"hand-{host.name}" for host in hosts]
    macs = [f"02:00:00:00:77:{number:02x}" for number in range(len(hosts))]
    for number, host in enumerate(hosts):
        size = ["mtu", str(MTU)]
        pair = [
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            macs[number],
            *size,
            "netns",
            names[number],
        ]
        machine.run(["ip", "netns", "add", names[number]])
        vxlan = ["id", "99999", "local", host.vtep, "dstport", "4789", "nolearning"]
        for words in (
            ["ip", "link", "add", "hand-br", "up", *size, "type", "bridge"],
            ["ip", "link", "add", "hand-vx", "up", *size, "master", "hand-br", "type", "vxlan", *vxlan],
            ["ip", "link", "add", "hand-veth", "up", *size, "master", "hand-br", *pair],
            ["ip", "-n", names[number], "address", "add", f"10.99.0.{number + 1}/24", "dev", "eth0"],
            ["ip", "-n", names[number], "link", "set", "eth0", "up"],
        ):
            host.run(words)
        other = 1 - number
        dst = ["dst", hosts[other].vtep, "self"]
        host.run(["bridge", "fdb", "add", macs[other], "dev", "hand-vx", *dst])
        host.run(["bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "hand-vx", *dst])
    try:
        yield [f"/run/netns/{name}" for name in names]
    finally:
        for name, host in zip(names, hosts, strict=True):
            host.run(["ip", "link", "delete", "hand-vx"])
            host.run(["ip", "link", "delete", "hand-br"])
            machine.run(["ip", "netns", "delete", name])


SERVE = """
import socket
s = socket.create_server(("", 5001))
print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    c, _ = s.accept()
    while c.recv_into(buffer):
        pass
    c.sendall(b"!")
    c.close()
"""


@contextmanager
def serving(path: str) -> Iterator[None]:
    """Have a process in a namespace swallow what it is sent."""
    with entered(path):
        process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        process.stdout.close()


def stream(path: str, address: str, seconds: float) -> float:
    """Return what one TCP stream from a namespace carries, in Mbit/s, until the last byte was taken."""
    with entered(path):
        client = socket.create_connection((address, 5001), timeout=30)
    with client:
        data, sent = bytes(CHUNK), 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            client.sendall(data)
            sent += CHUNK
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
        return sent * 8 / (time.perf_counter() - start) / 1e6


def throughput(hosts: Sequence[LinuxHost], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Return Mbit/s of the library's network, and of one made by hand, measured in turn."""
    network = hosts[0].controller.new_network("overlay", "speed", subnets=["10.98.0.0/24"], internal=True)
    paths, addresses = [], []
    for host in hosts:
        endpoint = host.controller.networks["speed"].create_endpoint(host.name)
        sandbox = host.controller.new_sandbox("speed")
        endpoint.join(sandbox)
        paths.append(str(sandbox.netns_path))
        addresses.append(str(endpoint.addresses[0].ip))
    while not all(host.controller.networks["speed"].peers for host in hosts):
        time.sleep(0.01)
    found: dict[str, list[float]] = {network.driver: [], "by hand": []}
    with by_hand(hosts) as hand, serving(paths[1]), serving(hand[1]):
        ways = [(network.driver, paths[0], addresses[1]), ("by hand", hand[0], "10.99.0.2")]
        for number in range(rounds):
            for name, path, address in ways[:: -1 if number % 2 else 1]:  # who goes first is at no advantage
                found[name].append(stream(path, address, seconds))
    return found


PING = """
import socket, struct, sys, time
address, interval = sys.argv[1], float(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.setblocking(False)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
number, last, worst, due = 0, None, 0.0, time.monotonic()
print("ready", flush=True)
while True:
    now = time.monotonic()
    if now >= due:
        number, due = number + 1 & 0xFFFF, due + interval
        head = struct.pack("!BBHHH", 8, 0, 0, 77, number)
        s.sendto(head[:2] + struct.pack("!H", checksum(head)) + head[4:], (address, 0))
    try:
        data = s.recv(1000)
        if data[20] == 0:
            if last is not None and now - last > 2 * interval:
                print(f"{now - last:.4f}", flush=True)
            last = now
    except BlockingIOError:
        time.sleep(interval / 5)
"""


def moves(hosts: Sequence[LinuxHost], rounds: int) -> list[float]:
    """
    Return for how many seconds an endpoint is not reached that moves with its addresses and MAC.

    Its container is removed on one host and made again on another; a third pings it every 5 ms.
    """
    asker = hosts[0].controller
    network = asker.new_network("overlay", "moves", subnets=["10.97.0.0/24"], internal=True)
    box = asker.new_sandbox("asker")
    network.create_endpoint("asker").join(box)
    for host in hosts[1:]:
        host.controller.networks["moves"].create_endpoint(f"stays-{host.name}").join(
            host.controller.new_sandbox("stays")
        )
    found: list[float] = []
    previous = None
    process = box.popen(
        [sys.executable, "-c", PING, "10.97.0.77", "0.005"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        process.stdout.readline()
        for number in range(rounds + 1):
            host = hosts[1 + number % (len(hosts) - 1)]
            sandbox = host.controller.new_sandbox(f"moves-{number}")
            if previous is not None:
                previous.delete(force=True)
            previous = host.controller.networks["moves"].create_endpoint(
                "moves", addresses=["10.97.0.77"], mac="02:00:00:00:00:77"
            )
            previous.join(sandbox)
            time.sleep(0.5)
    finally:
        process.kill()
        output, _ = process.communicate()
    found += map(float, output.split())
    if not found:
        msg = "the endpoint that moves was never reached"
        raise RuntimeError(msg)
    return sorted(found)[-rounds:]  # others are of the machine, not of a move


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoints", type=int, default=200, help="joined one after the other")
    parser.add_argument("--entries", type=int, default=100_000, help="endpoints on other hosts")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a TCP stream")
    parser.add_argument("--rounds", type=int, default=7, help="of TCP streams")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with private_host():
        half = tables(options.entries // 2, 1000)
        full = tables(options.entries, 1000)
    with private_host(), linux_cluster(3) as hosts:
        speeds = throughput(hosts[:2], options.seconds, options.rounds)
        delays = propagation(hosts[:2], options.endpoints)
        gaps = moves(hosts, 10)
        ways = ways_out(hosts[0], options.endpoints)
    print_table(
        "an endpoint on one host, until its entries are on another (ms)",
        ["", "p50", "p99"],
        [
            [name, f"{median(times) * 1e3:.2f}", f"{percentile(times, 99) * 1e3:.2f}"]
            for name, times in delays.items()
        ],
    )
    print_table(
        "an endpoint, in networks of both families (ms, p50 and p99)",
        ["", "join", "", "leave", ""],
        [
            [kind, *(f"{value * 1e3:.2f}" for t in each.values() for value in (median(t), percentile(t, 99)))]
            for kind, each in ways.items()
        ],
    )
    print_table(
        "endpoints on other hosts, told to the kernel",
        ["", f"{options.entries // 2}", f"{options.entries}"],
        [[name, f"{half[name]:.2f}", f"{full[name]:.2f}"] for name in full],
    )
    print_table(
        "one TCP stream between containers on two hosts (Mbit/s)",
        ["", "median", "least", "most"],
        [[n, f"{median(s):.0f}", f"{min(s):.0f}", f"{max(s):.0f}"] for n, s in speeds.items()],
    )
    print(
        f"\nan endpoint that moves is away for {median(gaps) * 1e3:.0f} ms (median of {len(gaps)} moves,"
        f" {max(gaps) * 1e3:.0f} at most)"
    )
    ratio = median(a / b for a, b in zip(*speeds.values(), strict=True))
    print(f"overlay to by hand, median of the rounds: {ratio:.2f}")
    if options.json:
        figures = {
            "machine": this_machine(),
            "delays": delays,
            "half": half,
            "full": full,
            "speeds": speeds,
            "moves": gaps,
            "ways out": ways,
        }
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
