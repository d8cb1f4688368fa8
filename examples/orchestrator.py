"""The network half of a small container runtime: create, start, stop, rebuild, remove. Needs root.

A container here is a name. Its endpoints are made when it is created and live until it is removed, so
it keeps its addresses however often it is stopped; its sandbox is made when it starts. The class keeps
nothing in memory: all of it is in the controller's records, and the next process goes on from there.
"""

from __future__ import annotations

import random
import tempfile
from typing import TYPE_CHECKING, Any

import pynetwork
from pynetwork import Controller, Endpoint, Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Container to the networks it is in, and what it asks of each.
WANTED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "proxy": {"front": {}},
    "web": {"front": {"priority": 1}, "back": {}},  # its default route is the front's
    "database": {"back": {"addresses": ["10.90.2.10"]}},
}


class Orchestrator:
    """Containers on the networks of a controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def endpoints(self, container: str) -> list[Endpoint]:
        """Return the endpoints of a container: in each network, the one that has its name."""
        networks = self._controller.networks.values()
        return [network.endpoints[container] for network in networks if container in network.endpoints]

    def create(self, container: str, networks: Mapping[str, Mapping[str, Any]]) -> None:
        """Reserve a container's addresses, in all of its networks or in none."""
        made: list[Endpoint] = []
        try:
            for name, wishes in networks.items():
                made.append(self._controller.networks[name].create_endpoint(container, **wishes))
        except pynetwork.PynetworkError:
            for endpoint in made:
                endpoint.delete()
            raise

    def start(self, container: str) -> Sandbox:
        """Give it a network stack with all of its interfaces."""
        sandbox = self._controller.new_sandbox(container)
        try:
            for endpoint in self.endpoints(container):
                endpoint.join(sandbox)
        except pynetwork.PynetworkError:
            sandbox.delete()
            raise
        return sandbox

    def stop(self, container: str) -> None:
        """Take the stack away. The endpoints leave it and keep their addresses and MACs."""
        self._controller.sandboxes[container].delete(missing_ok=True)

    def remove(self, container: str) -> None:
        """Stop it and give its addresses back."""
        if container in self._controller.sandboxes:
            self.stop(container)
        for endpoint in self.endpoints(container):
            endpoint.delete()

    def address(self, container: str, network: str) -> str:
        """Return the address of a container in a network."""
        return str(self._controller.networks[network].endpoints[container].addresses[0].ip)

    def check(self, source: str, target: str, network: str) -> None:
        """Have one container ping another."""
        address = self.address(target, network)
        sandbox = self._controller.sandboxes[source]
        sandbox.run(["ping", "-q", "-c1", "-W2", address], check=True, capture_output=True)
        print(f"{source} reaches {target} at {address}")


def main() -> None:
    """Run three containers on two networks through their lives."""
    with tempfile.TemporaryDirectory(prefix="pynetwork-example-") as place:
        controller = Controller(f"{place}/state", run_dir=f"{place}/run")
        try:
            controller.new_network("bridge", "front", subnets=["10.90.1.0/24"])
            controller.new_network("bridge", "back", subnets=["10.90.2.0/24"], internal=True)
            live(Orchestrator(controller))
        finally:
            controller.erase()


def live(runtime: Orchestrator) -> None:
    """Create, start, stop, rebuild and remove, in any order."""
    for container in random.sample(list(WANTED), k=3):
        runtime.create(container, WANTED[container])
    for container in random.sample(list(WANTED), k=3):
        runtime.start(container)
    runtime.check("proxy", "web", "front")
    runtime.check("web", "database", "back")

    print("--- the database is stopped; what comes meanwhile does not get its address")
    address = runtime.address("database", "back")
    runtime.stop("database")
    runtime.create("job", {"back": {}})
    runtime.start("job")
    runtime.start("database")
    runtime.check("job", "database", "back")

    print("--- web is rebuilt: a new namespace, the addresses it had, and its neighbours need no telling")
    runtime.stop("web")
    runtime.start("web").run(["ip", "-brief", "address"], check=True)
    runtime.check("proxy", "web", "front")
    runtime.check("web", "database", "back")

    print("--- an address that is taken is refused, and nothing of the request stays")
    try:
        runtime.create("thief", {"front": {}, "back": {"addresses": [address]}})
    except pynetwork.ConflictError as error:
        print(f"refused: {error}")
    print(f"endpoints of the thief: {runtime.endpoints('thief')}")

    for container in ("job", *WANTED):
        runtime.remove(container)


if __name__ == "__main__":
    main()
