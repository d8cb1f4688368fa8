"""A network namespace with an interface in it, without a controller, records or a driver. Needs root.

For a test, a job runner, any tool that wants one network stack for a while: it is gone at the end.
"""

from __future__ import annotations

import socket

from pynetwork import Plan
from pynetwork.resources import Address, LinkUp, Route, Veth
from pynetwork.sandbox import Namespace

HOST, INSIDE, BEYOND = "192.0.2.1", "192.0.2.2", "198.51.100.0/24"


def main() -> None:
    """Make a namespace, connect it to the host by a cable, use it, change it."""
    with Namespace() as namespace:
        netns = str(namespace.path)
        cable = Plan((
            Veth(name="cable0", netns=netns, peer="eth0", mac="02:00:00:00:00:02"),
            Address(dev="cable0", cidr=f"{HOST}/24"),
            Address(netns=netns, dev="eth0", cidr=f"{INSIDE}/24"),
            LinkUp(netns=netns, dev="eth0"),
        ))  # fmt: skip
        print("--- what is going to be made, as lines you could type")
        print(cable.render(), end="")
        namespace.configure(cable)

        print("--- a program in it reaches the host")
        namespace.run(["ping", "-q", "-c1", "-W2", HOST], check=True)

        print("--- a socket of this very program listens in it, and the host reaches that")
        with namespace.entered():
            server = socket.create_server((INSIDE, 8080))
        with server, socket.create_connection((INSIDE, 8080), timeout=5) as client:
            accepted, (peer, _) = server.accept()
            accepted.close()
            print(f"{peer} connected to {client.getpeername()[0]}")

        # A plan is all that should exist. The difference to what exists is made: here, one route.
        namespace.configure(cable + Plan((Route(netns=netns, dst=BEYOND, via=HOST, dev="eth0"),)))
        print("--- routes, after one was added")
        namespace.run(["ip", "route"], check=True)
        print("--- what passed through:", namespace.statistics()["eth0"])
    print("--- all gone")


if __name__ == "__main__":
    main()
