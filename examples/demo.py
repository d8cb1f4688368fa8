"""Two sandboxes on a bridge network: they talk, a second process joins in, a crash leaves nothing.

Needs root. Everything it makes, the records included, is gone when it ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pynetwork
from pynetwork.kernel import LinuxKernel
from pynetwork.testing import SuicidalKernel

SUBNET = "10.88.0.0/24"


def main() -> None:
    """Show everything, then remove it."""
    with tempfile.TemporaryDirectory(prefix="pynetwork-demo-") as directory:
        controller = open_controller(directory)
        try:
            talk(controller)
            second_process(directory)
            crash(controller, directory)
        finally:
            controller.erase()
    print("\nall gone: networks, sandboxes, namespaces, records")


def open_controller(directory: str, **arguments: object) -> pynetwork.Controller:
    """Open an instance of our own, apart from any other on this host."""
    place = Path(directory)
    return pynetwork.Controller(place / "state", run_dir=place / "run", **arguments)  # type: ignore[arg-type]


def talk(controller: pynetwork.Controller) -> None:
    """Make a network and two sandboxes, and let one reach the other."""
    print("--- what making the network does, as lines you could type")
    print(controller.plan_network("bridge", "network1", subnets=[SUBNET]).render(), end="")
    network = controller.new_network("bridge", "network1", subnets=[SUBNET])
    for name in ("web", "client"):
        sandbox = controller.new_sandbox(name)
        endpoint = network.create_endpoint(name)
        endpoint.join(sandbox)
        print(f"{name}: {endpoint.addresses[0]} on {endpoint.interface}, {endpoint.mac}")
    print("--- client's addresses and routes, and a ping to web")
    client, web = controller.sandboxes["client"], network.endpoints["web"].addresses[0].ip
    for argv in (["ip", "-brief", "address"], ["ip", "route"], ["ping", "-c1", "-W2", str(web)]):
        print(client.run(argv, capture_output=True, text=True, check=True).stdout, end="")


def second_process(directory: str) -> None:
    """Let another process use what this one made."""
    print("--- a second process finds the network and puts a third sandbox on it")
    run_myself(directory, "join")


def crash(controller: pynetwork.Controller, directory: str) -> None:
    """Let a process die in the middle, and show what the next one makes of it."""
    print("--- a third process is killed with SIGKILL in the middle of a join")
    before = set(controller.sandboxes)
    status = run_myself(directory, "crash", check=False)
    print(f"it ended with status {status}; recorded as under way: {controller.statistics()['requests']}")
    with open_controller(directory) as heir:  # opening is what cleans up
        print(f"under way after the next process opened: {heir.statistics()['requests']}")
        heir.sandboxes["doomed"].delete()
        heir.networks["network1"].endpoints["doomed"].delete()
        print(f"reconcile: {heir.reconcile()}")
    assert set(controller.sandboxes) == before  # noqa: S101 - a demo that lies is worse than none


def run_myself(directory: str, part: str, *, check: bool = True) -> int:
    """Run a part of this program in a process of its own; return its exit status."""
    return subprocess.run([sys.executable, __file__, directory, part], check=check).returncode


def join_in(directory: str) -> None:
    """Join the network that another process made."""
    with open_controller(directory) as controller:
        network = controller.networks["network1"]
        sandbox = controller.new_sandbox("guest")
        network.create_endpoint("guest").join(sandbox)
        web = network.endpoints["web"].addresses[0].ip
        sandbox.run(["ping", "-q", "-c1", "-W2", str(web)], check=True, capture_output=True)
        print(f"guest: {network.endpoints['guest'].addresses[0]}, and web answers it")


def crash_in_join(directory: str) -> None:
    """Die in the middle of a join, without a chance to clean up."""

    def mortal(instance: str, netns_dir: Path) -> SuicidalKernel:
        # Steps: 2 for the sandbox, then the join: veth pair, address ... and death.
        return SuicidalKernel(LinuxKernel(instance, netns_dir), at=4)

    controller = open_controller(directory, kernel=mortal)
    sandbox = controller.new_sandbox("doomed")
    controller.networks["network1"].create_endpoint("doomed").join(sandbox)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [directory, "join"]:
            join_in(directory)
        case [directory, "crash"]:
            crash_in_join(directory)
        case _:
            main()
