"""Processes really killed, at every step and every write: the next one finishes or undoes what they began."""

from __future__ import annotations

import contextlib
import itertools
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.kernel.deaths import PLACES, SECONDS, doomed, is_killed

from pynetwork import ConflictError, Controller, NotFoundError
from pynetwork.testing import Child, private_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def perform(controller: Controller, request: str) -> None:
    """Take the one request that a process is killed at. Its source is what the process runs."""
    networks, sandboxes = controller.networks, controller.sandboxes
    subnets = ["10.9.0.0/24", "fd09::/64"]
    requests = {
        "new_network": lambda: controller.new_network(
            "bridge", "new", subnets=subnets, options={"mtu": 1400}
        ),
        "new_sandbox": lambda: controller.new_sandbox("new", limits={"pids": 9}),
        "make_files": lambda: sandboxes["later"].hosts_path,
        # The default routes become its own.
        "join": lambda: networks["n1"].endpoints["free"].join(sandboxes["box"]),
        # The default routes become another's.
        "leave": networks["n0"].endpoints["joined"].leave,
        "delete_endpoint": lambda: networks["n0"].endpoints["joined"].delete(force=True),
        "delete_sandbox": sandboxes["box"].delete,
        "delete_network": networks["empty"].delete,
        # What waits gets a namespace; what has one gets another, or none.
        "attach": lambda: sandboxes["later"].attach("/run/netns/other"),
        "attach_elsewhere": lambda: sandboxes["box"].attach("/run/netns/other"),
        "detach": sandboxes["box"].detach,
    }
    requests[request]()


REQUESTS = [
    "new_network",
    "new_sandbox",
    "make_files",
    "join",
    "leave",
    "delete_endpoint",
    "delete_sandbox",
    "delete_network",
    "attach",
    "attach_elsewhere",
    "detach",
]


def die_again(at: str) -> None:
    """Recover what another process left, and be killed at the kernel's step number *at*."""
    from pynetwork import Controller
    from pynetwork.kernel import LinuxKernel
    from pynetwork.testing import SuicidalKernel

    Controller(kernel=lambda *arguments: SuicidalKernel(LinuxKernel(*arguments), int(at))).close()


def prepare(controller: Controller) -> None:
    """Three networks and an empty one, a sandbox in two of them, endpoints joined and not."""
    for number in range(3):
        network = controller.new_network("bridge", f"n{number}", subnets=[f"10.{number}.0.0/24"])
        network.create_endpoint("free", priority=number)
    joined = controller.networks["n0"].create_endpoint("joined", routes=["192.0.2.0/24"])
    box = controller.new_sandbox("box")
    assert box.hosts_path.exists()  # from now on every join and leave writes it
    joined.join(box)
    controller.networks["n2"].create_endpoint("joined", priority=-1).join(box)
    controller.new_network("bridge", "empty", subnets=["10.7.0.0/24", "fd07::/64"])
    later = controller.new_sandbox("later", netns="later")
    controller.networks["n1"].create_endpoint("waiting", ports=["8080:80"]).join(later)


def check(controller: Controller, oracle: Oracle) -> None:
    """The host is what the records say, by pyroute2's account, and nothing is left to do."""
    report = controller.reconcile()
    assert report.is_clean, str(report)
    assert controller.statistics()["requests"] == 0
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    endpoints = [each for network in controller.networks.values() for each in network.endpoints.values()]
    links = {f"br-{network.id[:12]}" for network in controller.networks.values()}
    in_force = [each for each in endpoints if each.sandbox is not None and each.sandbox.is_attached]
    links |= {str(each.inspect()["link"]) for each in in_force}
    assert oracle.links().keys() - {"lo"} == links
    for network in controller.networks.values():
        gateways = {
            f"{gateway}/{subnet.prefixlen}"
            for gateway, subnet in zip(network.gateways, network.subnets, strict=True)
        }
        found = {cidr for cidr in oracle.cidrs(f"br-{network.id[:12]}") if not cidr.startswith("fe80:")}
        assert found == gateways
    for sandbox in controller.sandboxes.values():
        if not sandbox.is_attached:
            continue
        path = str(sandbox.netns_path)
        assert oracle.links(path).keys() - {"lo"} == {each.interface for each in sandbox.endpoints}
        for each in sandbox.endpoints:
            assert oracle.cidrs(str(each.interface), path) == {str(address) for address in each.addresses}
    pins = {str(path) for path in Path("/run/pynetwork/netns").glob("*")}
    assert pins == {str(box.netns_path) for box in controller.sandboxes.values() if box.is_attached}
    check_interior(controller)


def check_interior(controller: Controller) -> None:
    """Each sandbox has its control group, and its files if it is to have any; there are no others."""
    suffix = f".{controller._core.instance[:8]}"
    boxes = controller.sandboxes.values()
    homes = {box.cgroup for box in boxes}
    assert None not in homes
    places = ("pynetwork-*", "*/pynetwork-*")  # version 2, version 1
    groups = {group for place in places for group in Path("/sys/fs/cgroup").glob(f"{place}{suffix}")}
    assert homes <= groups
    assert {group.name for group in groups} == {home.name for home in homes if home is not None}
    with_files = [box for box in boxes if controller._core.engine.world.plan(f"files/{box.id}")]
    directories = set(Path("/run/pynetwork/files").glob("*"))
    assert directories == {box.hosts_path.parent for box in with_files}
    for box in with_files:
        addresses = {str(a.ip) for endpoint in box.endpoints for a in endpoint.addresses}
        lines = [line.split() for line in box.hosts_path.read_text().splitlines()]
        assert {line[0] for line in lines if box.id[:12] in line} == addresses


@contextlib.contextmanager
def another_namespace(host: PrivateHost) -> Iterator[None]:
    """A namespace that somebody else has made."""
    host.run(["ip", "netns", "add", "other"])
    try:
        yield
    finally:
        host.run(["ip", "netns", "delete", "other"])


def recover_and_repeat(request: str, oracle: Oracle) -> None:
    with Controller() as heir:
        check(heir, oracle)
        with contextlib.suppress(ConflictError, NotFoundError):  # it was finished
            perform(heir, request)
        check(heir, oracle)
        heir.erase()


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_process_killed_anywhere_leaves_nothing_that_the_next_cannot_put_right(
    request_: str, where: str, oracle: Oracle
) -> None:
    deaths = 0
    with private_host() as host, another_namespace(host), doomed(perform, request_, where) as child:
        child.wait_for("0")
        for at in itertools.count():
            with Controller() as controller:
                prepare(controller)
            killed = is_killed(child, at)
            recover_and_repeat(request_, oracle)
            if not killed:
                break
            deaths += 1
    assert deaths >= 2


@pytest.mark.parametrize("request_", ["join", "delete_sandbox", "attach_elsewhere"])
def test_a_process_killed_while_it_recovers_is_recovered_as_well(request_: str, oracle: Oracle) -> None:
    with private_host() as host, another_namespace(host), doomed(perform, request_, "step") as child:
        child.wait_for("0")
        for at in range(3):
            with Controller() as controller:
                prepare(controller)
            assert is_killed(child, at)
            with Child(die_again, str(at), timeout=SECONDS) as second:
                assert second.wait() == -signal.SIGKILL
            recover_and_repeat(request_, oracle)


def test_a_process_killed_between_two_requests_is_found_complete(oracle: Oracle) -> None:
    """What was put off when it died, such as the end of links, is made up for."""
    code = (
        "import os, signal\n"
        "from pynetwork import Controller\n"
        "controller = Controller()\n"
        "controller.networks['n0'].endpoints['joined'].leave()\n"
        "controller.networks['empty'].delete()\n"
        "controller.new_sandbox('new')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with private_host():
        with Controller() as controller:
            prepare(controller)
        with Child(code, timeout=SECONDS) as child:
            assert child.wait() == -signal.SIGKILL
        with Controller() as heir:
            assert sorted(heir.sandboxes) == ["box", "later", "new"]
            check(heir, oracle)
            heir.erase()
