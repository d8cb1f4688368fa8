"""Several processes and threads at work on one host at once: nothing is given twice, nothing is left."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller
from pynetwork.testing import Child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

ENDPOINTS = 500


def at_once(work: Callable[..., object], *arguments: tuple[str, ...]) -> list[list[str]]:
    """Have a process each do *work*, from the point ``start`` on all at once; return what they print."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child(work, *each)) for each in arguments]
        for child in children:
            child.wait_for("start")
        for child in children:
            child.proceed()
        assert [child.wait() for child in children] == [0] * len(children)
        return [child.output for child in children]


def create_many(name: str, count: str) -> None:
    from pynetwork import Controller
    from pynetwork.testing import reach

    with Controller() as controller:
        network = controller.networks["n"]
        reach("start")
        for number in range(int(count)):
            print(network.create_endpoint(f"{name}{number}").addresses[0].ip)  # noqa: T201 - to the test


def test_two_processes_never_get_the_same_address(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.64.0.0/16"])
    outputs = at_once(create_many, *((name, str(ENDPOINTS)) for name in "ab"))
    addresses = [line for output in outputs for line in output]
    assert len(addresses) == len(set(addresses)) == 2 * ENDPOINTS
    assert {str(each.addresses[0].ip) for each in network.endpoints.values()} == set(addresses)
    # Lowest first, without gaps: nothing was allotted and lost on the way.
    assert {address.rpartition(".")[0] for address in addresses} == {f"10.64.{n}" for n in range(4)}
    assert network.create_endpoint("next").addresses[0].ip.packed == bytes(
        [10, 64, 3, 2 * ENDPOINTS + 2 - 768]
    )
    assert controller.reconcile().is_clean
    assert controller.statistics()["requests"] == 0


def wire_and_unwire(name: str, count: str) -> None:
    from pynetwork import Controller
    from pynetwork.testing import reach

    with Controller() as controller:
        network = controller.networks["n"]
        reach("start")
        for number in range(int(count)):
            box = controller.new_sandbox(f"{name}{number}")
            endpoint = network.create_endpoint(f"{name}{number}")
            endpoint.join(box)
            ping = box.run(["ping", "-c2", "-i0.01", "-W2", "10.64.0.1"], capture_output=True)
            print(endpoint.addresses[0].ip, ping.returncode)  # noqa: T201 - to the test
            if number % 2:
                endpoint.leave()
                endpoint.delete()
                box.delete()
            else:
                box.delete()
                endpoint.delete()


def test_two_processes_wire_and_unwire_on_one_network(controller: Controller, oracle: Oracle) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.64.0.0/16"], options={"bridge": "br0"})
    outputs = at_once(wire_and_unwire, *((name, "20") for name in "ab"))
    lines = [line.split() for output in outputs for line in output]
    assert len(lines) == 40
    assert {status for _, status in lines} == {"0"}
    assert dict(network.endpoints) == dict(controller.sandboxes) == {}
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links().keys() == {"lo", "br0"}
    assert controller.reconcile().is_clean


def change_one_sandbox(name: str, count: str) -> None:
    from pynetwork import Controller
    from pynetwork.testing import reach

    with Controller() as controller:
        endpoint, box = controller.networks[name].endpoints["e"], controller.sandboxes["box"]
        reach("start")
        for _ in range(int(count)):
            endpoint.join(box)
            endpoint.leave()


def test_two_processes_join_and_leave_one_sandbox(controller: Controller, oracle: Oracle) -> None:
    """They contend for interface names and for the default routes."""
    box = controller.new_sandbox("box")
    for name in "ab":
        subnet = f"10.{ord(name)}.0.0/24"
        controller.new_network("bridge", name, subnets=[subnet]).create_endpoint("e", priority=ord(name))
    at_once(change_one_sandbox, *((name, "20") for name in "ab"))
    assert box.endpoints == ()
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links(str(box.netns_path)).keys() == {"lo"}
    assert controller.reconcile().is_clean


def test_eight_threads_wire_and_unwire(controller: Controller, oracle: Oracle) -> None:
    for number in range(2):
        controller.new_network(
            "bridge", f"n{number}", subnets=[f"10.{number}.0.0/24"], options={"bridge": f"br{number}"}
        )
    start = threading.Barrier(8)

    def work(thread: int) -> list[str]:
        start.wait(10)
        wrong = []
        for number in range(12):
            name = f"{thread}-{number}"
            box = controller.new_sandbox(name)
            endpoints = [controller.networks[f"n{n}"].create_endpoint(name) for n in range(2)]
            for endpoint in endpoints:
                endpoint.join(box)
            with box.entered():
                found = {each.cidr for each in oracle.addresses()}
            wrong += [name for each in endpoints if str(each.addresses[0]) not in found]
            if number % 3 == 0:
                endpoints[0].leave()
            if number % 3 == 1:
                box.delete()
            for endpoint in endpoints:
                endpoint.delete(force=True)
            box.delete(missing_ok=True)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[]] * 8
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links().keys() == {"lo", "br0", "br1"}
    assert controller.statistics()["sandboxes"] == controller.statistics()["endpoints"] == 0
    assert controller.reconcile().is_clean


def open_new(directory: str, name: str) -> None:
    from pynetwork import Controller
    from pynetwork.testing import reach

    reach("start")
    with Controller(f"{directory}/state", run_dir=f"{directory}/run") as controller:
        network = controller.new_network("bridge", name)
        network.create_endpoint("e").join(controller.new_sandbox(name))
        print(controller.inspect()["instance"], network.subnets[0])  # noqa: T201 - to the test


def test_several_processes_open_a_brand_new_state_directory_at_once(
    host: PrivateHost, tmp_path: Path, oracle: Oracle
) -> None:
    names = [f"n{number}" for number in range(4)]
    outputs = at_once(open_new, *((str(tmp_path), name) for name in names))
    instances, subnets = zip(*(output[0].split() for output in outputs), strict=True)
    assert len(set(instances)) == 1
    assert len(set(subnets)) == len(names)
    with Controller(tmp_path / "state", run_dir=tmp_path / "run") as controller:
        assert sorted(controller.networks) == sorted(controller.sandboxes) == names
        mounts = host.run(["findmnt", "--noheadings", "--raw", "--output", "TARGET", "--type", "tmpfs"])
        assert mounts.stdout.split().count(str(tmp_path / "run" / "netns")) == 1
        assert controller.reconcile().is_clean
        controller.erase()
    assert oracle.links().keys() == {"lo"}
    assert list(tmp_path.iterdir()) == []
