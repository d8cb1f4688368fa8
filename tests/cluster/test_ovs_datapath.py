"""Controllers on hosts with Open vSwitch: networks that span them, beside a host with the kernel's VXLAN."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import Cluster, Controller, MemoryStore, OverlayOptions
from pynetwork.kernel import LinuxKernel
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork import Endpoint, Sandbox
    from pynetwork.testing.cluster import OvsHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
SECONDS = 30.0


@pytest.fixture(name="hosts")
def three_hosts() -> Iterator[tuple[OvsHost, ...]]:
    with private_host(), ovs_cluster(3) as hosts:
        for host in hosts:  # the first packet to a host is lost while the switch asks for its MAC
            for other in hosts:
                if other is not host:
                    host.run(["ping", "-c", "3", "-i", "0.05", "-W", "0.3", other.vtep])
        yield hosts


@contextlib.contextmanager
def opened(hosts: tuple[OvsHost, ...], *datapaths: str) -> Iterator[list[Controller]]:
    """Open a controller on each of *hosts*; all that they made is erased at the end."""
    store = MemoryStore()
    with contextlib.ExitStack() as stack:
        controllers = []
        for host, datapath in zip(hosts, datapaths, strict=True):
            cluster = Cluster(store=store, host=host.name, vtep=host.vtep, datapath=datapath)
            with host.entered():
                state = Path("/var/lib/pynetwork") / host.name
                run = Path("/run/pynetwork") / host.name
                kernel = partial(LinuxKernel, ovs_directory=host.directory)
                controllers.append(Controller(state, run_dir=run, kernel=kernel, cluster=cluster))
            stack.callback(controllers[-1].erase)
        yield controllers


def joined(controller: Controller, network: str, name: str) -> tuple[Endpoint, Sandbox]:
    endpoint = controller.networks[network].create_endpoint(name)
    sandbox = controller.new_sandbox(f"{network}-{name}")
    endpoint.join(sandbox)
    return endpoint, sandbox


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def pings(sandbox: Sandbox, endpoint: Endpoint) -> bool:
    return all(
        sandbox.run(["ping", "-c", "1", "-W", "1", str(address.ip)], check=False).returncode == 0
        for address in endpoint.addresses
    )


def test_endpoints_on_hosts_with_open_vswitch_reach_each_other(hosts: tuple[OvsHost, ...]) -> None:
    with opened(hosts[:2], "ovs-userspace", "ovs-userspace") as (one, two):
        options = OverlayOptions(strict=True)
        one.new_network("overlay", "net", subnets=["10.1.0.0/24"], ipv6=True, options=options)
        near, box = joined(one, "net", "near")
        far, other_box = joined(two, "net", "far")
        assert soon(lambda: pings(box, far))
        assert soon(lambda: pings(other_box, near))
        neighbour, _ = joined(one, "net", "neighbour")
        assert soon(lambda: pings(box, neighbour))
        far.leave()
        far.join(other_box)
        assert soon(lambda: pings(box, far))
        assert one.reconcile().is_clean
    for host in hosts[:2]:
        assert host.vsctl("list-br").split() == ["br-phy"]


def test_not_even_the_first_packet_to_a_host_is_lost() -> None:
    """The switch knows where the other host is before there is anything for it."""
    with (
        private_host(),
        ovs_cluster(2) as hosts,
        opened(hosts, "ovs-userspace", "ovs-userspace") as (one, two),
    ):
        one.new_network("overlay", "net", subnets=["10.1.0.0/24"])
        far, _ = joined(two, "net", "far")
        _, box = joined(one, "net", "near")
        for host, other in (hosts, hosts[::-1]):
            assert soon(lambda host=host, other=other: other.vtep in host.appctl("tnl/neigh/show"))  # type: ignore[misc]
        network = one.networks["net"]
        assert soon(lambda: [p.installed for p in network.peers] == [p.revision for p in network.peers] != [])
        assert pings(box, far)
