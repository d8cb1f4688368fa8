"""What endpoints on other hosts cost an Open vSwitch: to install all of them, to change one, to repair.

Run, as root: ``python -m benchmarks.ovs_flows``. On a host made for it, its switch in user space; what is
measured is what happens in one process and on one socket, which is the same with the kernel's datapath. The
floor is the same flows by ``ovs-ofctl --bundle add-flows`` from a file, and one by ``ovs-ofctl add-flow``.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pynetwork.drivers.overlay_flows import FlowText, answer_flows, base_flows, network_flows, reach_flows
from pynetwork.kernel.ovs.channel import Channel
from pynetwork.kernel.ovs.messages import add_flow
from pynetwork.kernel.ovs.peers import OvsPeers
from pynetwork.kernel.ovs.place import Place
from pynetwork.peers import Change, Reach, Resolve
from pynetwork.resources.ovs import PLANNED, flow_cookie
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetwork.peers import Entry
    from pynetwork.testing.cluster import OvsHost

VNI = 1001
HOSTS = 1000
BRIDGE = "br-int"


def endpoint(number: int) -> tuple[Entry, Entry]:
    """Return the entries of one endpoint: two flows."""
    mac = f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    vtep = f"198.18.{number % HOSTS >> 8}.{number % HOSTS & 255}"
    return Reach(mac, vtep), Resolve(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", mac)


def texts(numbers: Sequence[int]) -> list[FlowText]:
    found: list[FlowText] = []
    for number in numbers:
        reach, resolve = endpoint(number)
        assert isinstance(reach, Reach)  # noqa: S101 - for the type checker
        assert isinstance(resolve, Resolve)  # noqa: S101 - likewise
        found += reach_flows(VNI, reach.mac, reach.vtep, strict=False)
        found += answer_flows(VNI, resolve.address, resolve.mac)
    return found


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(samples: Sequence[float]) -> str:
    ordered = sorted(samples)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered) * 1e3:6.2f} ms, p99 {p99 * 1e3:6.2f} ms"


def memory(host: OvsHost) -> int:
    pid = int((host.directory / "ovs-vswitchd.pid").read_text(encoding="ascii"))
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def measure(host: OvsHost, count: int, rounds: int) -> None:
    host.vsctl(
        *("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"),
        "protocols=OpenFlow13,OpenFlow14,OpenFlow15",
    )
    channel = Channel(Place(host.directory), BRIDGE)
    with contextlib.closing(channel):
        planned = (*base_flows(), *network_flows(VNI))
        channel.change([add_flow(*text, cookie=flow_cookie(PLANNED, *text)) for text in planned])
        peers = OvsPeers(channel)
        half = {entry for number in range(count // 2) for entry in endpoint(number)}
        everything = {entry for number in range(count) for entry in endpoint(number)}
        peers.reconcile(VNI, half)
        samples = []
        for number in range(count, count + rounds):
            entries = endpoint(number)
            samples.append(timed(lambda e=entries: peers.apply(VNI, Change(put=e))))  # type: ignore[misc]
            samples.append(timed(lambda e=entries: peers.apply(VNI, Change(drop=e))))  # type: ignore[misc]
        print(f"one endpoint, {count // 2} present:       {spread(samples)}")
        peers.reconcile(VNI, set())
        cpu = time.process_time()
        took = timed(lambda: peers.reconcile(VNI, everything))
        cpu = time.process_time() - cpu
        print(f"{count} endpoints from empty:        {took:6.2f} s, of it {cpu:.2f} s of this process")
        print(
            f"  repair, nothing to do:             {timed(lambda: peers.reconcile(VNI, everything)):6.2f} s"
        )
        print(f"  memory: switch {memory(host)} MiB, this process at most {own_memory()} MiB")
        print(f"  all away again:                    {timed(lambda: peers.reconcile(VNI, set())):6.2f} s")
    compare(host, count)


def own_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def compare(host: OvsHost, count: int) -> None:
    """Have ovs-ofctl do the same."""
    flows = [
        f"table={t.table},priority={t.priority},{t.match} actions={t.actions}" for t in texts(range(count))
    ]
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
        file.write("\n".join(flows))
        file.flush()
        took = timed(lambda: host.ofctl("add-flows", BRIDGE, "--bundle", file.name))
    print(f"ovs-ofctl --bundle, {count} endpoints: {took:6.2f} s")
    one = [timed(lambda: host.ofctl("add-flow", BRIDGE, "table=60,actions=drop")) for _ in range(20)]
    print(f"ovs-ofctl, one flow:                 {spread(one)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="endpoints")
    parser.add_argument("--rounds", type=int, default=300, help="changes of one endpoint")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, Linux {platform.release()}")
    with private_host(), ovs_cluster(1) as hosts:
        measure(hosts[0], options.count, options.rounds)


if __name__ == "__main__":
    main()
