"""A lab of three sandboxes: one routes between the networks of the other two. Needs root.

The networks are internal, so no default route is in the way: the routes are those the endpoints bring.
"""

from __future__ import annotations

import tempfile

import pynetwork

LEFT, RIGHT = "10.91.1.0/24", "10.91.2.0/24"
ROUTER = {"left": "10.91.1.254", "right": "10.91.2.254"}  # its address in each network
FORWARDS = {"net.ipv4.conf.IFNAME.forwarding": "1"}  # IFNAME: the interface the endpoint gets


def build(controller: pynetwork.Controller) -> None:
    """Make the networks, the router, and a host on either side."""
    router = controller.new_sandbox("router")
    for name, subnet, beyond in (("left", LEFT, RIGHT), ("right", RIGHT, LEFT)):
        # What the router forwards does not come from its own addresses.
        options = pynetwork.BridgeOptions(spoof_protection=False)
        network = controller.new_network("bridge", name, subnets=[subnet], internal=True, options=options)
        network.create_endpoint("router", addresses=[ROUTER[name]], sysctls=FORWARDS).join(router)
        host = controller.new_sandbox(name)
        network.create_endpoint(name, routes=[(beyond, ROUTER[name])]).join(host)


def main() -> None:
    """Build the lab, and show that packets pass the router."""
    with tempfile.TemporaryDirectory(prefix="pynetwork-lab-") as place:
        controller = pynetwork.Controller(f"{place}/state", run_dir=f"{place}/run")
        try:
            build(controller)
            left, router = controller.sandboxes["left"], controller.sandboxes["router"]
            print("--- routes of the router, then of the host on the left")
            for sandbox in (router, left):
                sandbox.run(["ip", "route"], check=True)
            print("--- from left to right: the time to live says that one router was on the way")
            right = controller.networks["right"].endpoints["right"].addresses[0].ip
            left.run(["ping", "-c1", "-W2", str(right)], check=True)
            for interface, counted in router.stats().interfaces.items():
                print(f"router {interface}: {counted}")
        finally:
            controller.erase()


if __name__ == "__main__":
    main()
