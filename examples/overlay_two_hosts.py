"""A network that spans hosts: containers on two of them as if on one switch, and one that moves. Needs root.

The hosts are namespaces of this machine, joined by an underlay, and the store of the cluster is one in
memory, which all controllers of this process share. On real hosts each process has a controller of its
own, and the store is one that all of them reach.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pynetwork import OverlayOptions
from pynetwork.testing import private_host
from pynetwork.testing.cluster import linux_cluster

if TYPE_CHECKING:
    from pynetwork import Sandbox
    from pynetwork.testing.cluster import LinuxHost


def start(host: LinuxHost, container: str, **wishes: object) -> Sandbox:
    """Put a container's endpoint into a sandbox on a host."""
    endpoint = host.controller.networks["app"].create_endpoint(container, **wishes)  # type: ignore[arg-type]  # passed on
    sandbox = host.controller.new_sandbox(container)
    endpoint.join(sandbox)
    addresses = ", ".join(str(address.ip) for address in endpoint.addresses)
    print(f"{host.name}: {container} has {addresses}, {endpoint.mac}")
    return sandbox


def stop(host: LinuxHost, container: str) -> None:
    """Remove a container; its addresses are free, on all hosts."""
    host.controller.networks["app"].endpoints[container].delete(force=True)
    host.controller.sandboxes[container].delete()


def answered(sandbox: Sandbox, address: str) -> bool:
    """Tell whether a ping is answered, with some patience: others are told in a moment, not at once."""
    for _ in range(20):
        ping = ["ping", "-c", "1", "-W", "1", address]
        if sandbox.run(ping, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.05)
    return False


def main() -> None:
    """Make the network on one host, use it on two, move a container from one to the other."""
    with private_host(), linux_cluster(2) as (first, second):
        options = OverlayOptions(bum=False)
        network = first.controller.new_network(
            "overlay", "app", subnets=["10.20.0.0/24", "fd20::/64"], options=options
        )
        print(f"network {network.name}: VNI {network.options.vni}, MTU {network.options.mtu}")
        print(f"{second.name} sees {', '.join(second.controller.networks)}")

        start(second, "database", addresses=["10.20.0.50", "fd20::50"])
        web = start(first, "web")  # whose addresses are chosen
        for address in ("10.20.0.50", "fd20::50"):
            print(f"web reaches {address}: {answered(web, address)}")
        for peer in network.peers:
            print(f"{peer.host} at {peer.vtep} has {', '.join(peer.endpoints)}")

        print("the database moves, with its addresses")
        stop(second, "database")
        start(first, "database", addresses=["10.20.0.50", "fd20::50"])
        print(f"web reaches 10.20.0.50: {answered(web, '10.20.0.50')}")

        for container in ("web", "database"):
            stop(first, container)
        network.delete()
        print(f"networks left: {len(second.controller.networks)}")


if __name__ == "__main__":
    main()
