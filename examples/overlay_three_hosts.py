"""Three hosts, two with Open vSwitch and one with the kernel's VXLAN, on a real etcd. Needs root and both.

The hosts are namespaces of this machine, each with an Open vSwitch of its own, which forwards in user space;
etcd runs on the first of them.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pynetwork import Controller, EtcdCluster
from pynetwork.kernel import LinuxKernel
from pynetwork.testing import private_host
from pynetwork.testing.cluster import etcd_cluster, ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork import Sandbox
    from pynetwork.testing.cluster import OvsHost

DATAPATHS = ("ovs-userspace", "ovs-userspace", "linux")


def open_controller(host: OvsHost, datapath: str, endpoints: Sequence[str]) -> Controller:
    """Return a controller on *host*, as a program that runs there opens one."""
    with host.entered():
        return Controller(
            Path("/var/lib/pynetwork") / host.name,
            run_dir=Path("/run/pynetwork") / host.name,
            kernel=partial(
                LinuxKernel, ovs_directory=host.directory
            ),  # a real host has one switch, and needs no hint
            cluster=EtcdCluster(endpoints, host=host.name, vtep=host.vtep, datapath=datapath),
        )


def start(controller: Controller, container: str) -> Sandbox:
    """Put a container into the network ``app``."""
    endpoint = controller.networks["app"].create_endpoint(container)
    sandbox = controller.new_sandbox(container)
    endpoint.join(sandbox)
    print(f"{container}: {', '.join(str(address.ip) for address in endpoint.addresses)}")
    return sandbox


def reaches(sandbox: Sandbox, name: str) -> bool:
    """Tell whether another is reached by its name, with some patience: the others are told in a moment."""
    for _ in range(50):
        for family in ("-4", "-6"):
            ping = sandbox.run(["ping", family, "-c", "1", "-W", "1", name], capture_output=True)
            if ping.returncode != 0:
                break
        else:
            return True
        time.sleep(0.1)
    return False


def main() -> None:
    """Make a network on one host, use it on three, and take the store away."""
    with private_host() as machine, ovs_cluster(len(DATAPATHS)) as hosts, contextlib.ExitStack() as stack:
        with hosts[0].entered():
            etcd = stack.enter_context(etcd_cluster(1, host=machine, addresses=[hosts[0].vtep]))
        controllers = []
        for host, datapath in zip(hosts, DATAPATHS, strict=True):
            controllers.append(open_controller(host, datapath, etcd.endpoints))
            stack.callback(controllers[-1].close)
            stack.callback(controllers[-1].erase)
        network = controllers[0].new_network("overlay", "app", subnets=["10.20.0.0/24", "fd20::/64"])
        print(f"network {network.name}: VNI {network.options.vni}, MTU {network.options.mtu}")

        names = ("web", "database", "cache")
        boxes = [start(*pair) for pair in zip(controllers, names, strict=True)]
        for box, name in zip(boxes, (*names[1:], names[0]), strict=True):
            print(f"{box.name} reaches {name}: {reaches(box, name)}")
        for peer in network.peers:
            print(f"{peer.host} at {peer.vtep} has {', '.join(peer.endpoints)}")

        etcd.members[0].kill()
        print(f"without its store, web reaches cache: {reaches(boxes[0], 'cache')}")
        with hosts[0].entered():
            etcd.members[0].start()
            etcd.wait()


if __name__ == "__main__":
    main()
