"""Namespaces made by others, and hosts shared by several controllers, on the real kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import ApplyError, Controller, InvalidValueError
from pynetwork.testing import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork import Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


@pytest.fixture
def container(host: PrivateHost) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a network namespace of its own, as a container's is."""
    code = "ip link set lo up; echo; exec sleep 60"
    command = ["unshare", "--net", "sh", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def reaches(sandbox: Sandbox, target: object) -> bool:
    command = ["ping", "-c1", "-W0.5", str(target)]
    return any(sandbox.run(command, capture_output=True).returncode == 0 for _ in range(3))


@pytest.mark.parametrize("way", ["pid", "path", "file"])
def test_a_running_container_is_adopted_and_left_as_it_is(
    way: str, controller: Controller, container: subprocess.Popen[bytes], oracle: Oracle
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    path = f"/proc/{container.pid}/ns/net"
    with Path(path).open("rb") as file:
        ways: dict[str, object] = {"pid": container.pid, "path": Path(path), "file": file}
        sandbox = controller.new_sandbox("box", netns=ways[way])
    endpoint = network.create_endpoint("e")
    endpoint.join(sandbox)
    assert sandbox.netns_path
    assert sandbox.netns_path.stat().st_ino == Path(path).stat().st_ino
    assert oracle.cidrs("eth0", path) == {"10.88.0.2/24"}
    assert reaches(sandbox, network.gateways[0])
    assert controller.reconcile().is_clean
    sandbox.delete()
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links(path).keys() == {"lo"}
    assert container.poll() is None
    again = controller.new_sandbox("box", netns=container.pid)
    endpoint.join(again)
    assert oracle.cidrs("eth0", path) == {"10.88.0.2/24"}


def test_a_pin_keeps_an_adopted_namespace_when_its_process_ends(
    controller: Controller, container: subprocess.Popen[bytes]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    sandbox = controller.new_sandbox("box", netns=container.pid)
    network.create_endpoint("e").join(sandbox)
    container.kill()
    container.wait()
    assert reaches(sandbox, network.gateways[0])
    assert controller.reconcile().is_clean


def test_a_sandbox_that_is_deleted_is_cut_off_while_somebody_else_is_in_it(
    controller: Controller, oracle: Oracle
) -> None:
    """A process that went there by itself: it is not in the control group, and is not ended."""
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    sandbox = controller.new_sandbox("box")
    network.create_endpoint("e").join(sandbox)
    with sandbox.entered():
        process = subprocess.Popen(["sleep", "60"])
    with process:
        sandbox.delete()
        controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
        assert oracle.links(f"/proc/{process.pid}/ns/net").keys() == {"lo"}
        process.kill()


@pytest.mark.parametrize("netns", ["/proc/self/ns/mnt", "/etc/passwd", "/no/such/file", 4194304])
def test_what_is_no_network_namespace_is_refused_and_leaves_nothing(
    netns: object, controller: Controller
) -> None:
    with pytest.raises((ApplyError, InvalidValueError)) as caught:
        controller.new_sandbox("box", netns=netns)
    assert getattr(caught.value, "rolled_back", True)
    assert controller.statistics()["sandboxes"] == 0
    assert controller.reconcile().is_clean


def test_interfaces_the_container_has_already_are_not_touched(
    host: PrivateHost, controller: Controller, container: subprocess.Popen[bytes], oracle: Oracle
) -> None:
    into = ["nsenter", f"--net=/proc/{container.pid}/ns/net"]
    host.run([*into, *["ip", "link", "add", "eth0", "address", "02:00:00:00:00:99", "type", "bridge"]])
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    sandbox = controller.new_sandbox("box", netns=container.pid)
    endpoint = network.create_endpoint("e")
    with pytest.raises(ApplyError, match="there is a link called eth0") as caught:
        endpoint.join(sandbox)
    assert caught.value.rolled_back
    assert endpoint.sandbox is None
    path = f"/proc/{container.pid}/ns/net"
    assert oracle.links(path)["eth0"].mac == "02:00:00:00:00:99"
    assert controller.reconcile().is_clean
    network.create_endpoint("e2", interface="eth1").join(sandbox)
    assert oracle.links(path).keys() == {"lo", "eth0", "eth1"}


def use_network() -> None:
    from pynetwork import Controller

    with Controller() as controller:
        endpoint = controller.networks["n"].create_endpoint("theirs")
        endpoint.join(controller.sandboxes["box2"])
        print(endpoint.addresses[0].ip, sorted(controller.networks["n"].endpoints))  # noqa: T201 - to its parent
        controller.new_network("bridge", "n2", subnets=["10.89.0.0/24"])


def test_another_process_finds_and_uses_the_networks(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    box = controller.new_sandbox("box")
    controller.new_sandbox("box2")
    network.create_endpoint("mine").join(box)
    with Child(use_network) as child:
        assert child.wait() == 0
        assert child.output == ["10.88.0.3 ['mine', 'theirs']"]
    assert sorted(network.endpoints) == ["mine", "theirs"]
    assert sorted(controller.networks) == ["n", "n2"]
    assert reaches(box, "10.88.0.3")
    assert network.create_endpoint("next").addresses[0].ip.packed[-1] == 4
    assert controller.reconcile().is_clean


def test_the_host_s_own_namespace_is_a_sandbox_for_the_next_controller_too(host: PrivateHost) -> None:
    with Controller() as first:
        first.new_network("host", "host").create_endpoint("e").join(first.new_sandbox("box", netns="host"))
    with Controller() as second:
        assert second.sandboxes["box"].netns_path is None
        assert second.networks["host"].endpoints["e"].sandbox == second.sandboxes["box"]
        assert second.reconcile().is_clean
        second.erase()


def test_networks_outlive_the_controller(host: PrivateHost, oracle: Oracle) -> None:
    with Controller() as first:
        network = first.new_network("bridge", "n", subnets=["10.88.0.0/24"])
        network.create_endpoint("e").join(first.new_sandbox("box"))
    with Controller() as second:
        assert second.networks["n"].id == network.id
        assert reaches(second.sandboxes["box"], "10.88.0.1")
        assert second.reconcile().is_clean
        second.erase()
    assert oracle.links().keys() == {"lo"}


def test_two_instances_on_one_host_leave_each_other_alone(
    host: PrivateHost, tmp_path: Path, oracle: Oracle
) -> None:
    first, second = (Controller(tmp_path / name, run_dir=f"/run/pynetwork/{name}") for name in "ab")
    for number, controller in enumerate((first, second)):
        network = controller.new_network("bridge", "n", subnets=[f"10.{number}.0.0/24"])
        network.create_endpoint("e").join(controller.new_sandbox("box"))
    assert first.reconcile().is_clean
    assert second.reconcile().is_clean
    chosen = second.new_network("bridge", "auto").subnets[0]
    taken = first.new_network("bridge", "auto").subnets[0]
    assert not chosen.overlaps(taken)
    first.erase()
    assert second.reconcile().is_clean
    assert reaches(second.sandboxes["box"], "10.1.0.1")
    second.erase()
    assert oracle.links().keys() == {"lo"}


def test_two_instances_may_share_a_run_directory(host: PrivateHost, tmp_path: Path) -> None:
    first, second = (Controller(tmp_path / name) for name in "ab")
    boxes = [controller.new_sandbox("box") for controller in (first, second)]
    first.erase()
    assert boxes[1].run(["true"]).returncode == 0
    assert second.reconcile().is_clean
    second.erase()
    assert list(Path("/run/pynetwork").glob("**/*")) == []


def test_erase_leaves_nothing(host: PrivateHost, tmp_path: Path, oracle: Oracle) -> None:
    controller = Controller(tmp_path / "state", run_dir=tmp_path / "run")
    for number in range(2):
        network = controller.new_network("bridge", f"n{number}", subnets=[f"10.{number}.0.0/24"])
        network.create_endpoint("joined").join(controller.new_sandbox(f"box{number}"))
        network.create_endpoint("free")
    controller.new_network("host", "host")
    controller.erase()
    assert list(tmp_path.iterdir()) == []
    assert oracle.links().keys() == {"lo"}
    with Controller(tmp_path / "state", run_dir=tmp_path / "run") as controller:
        assert dict(controller.networks) == {}
        controller.erase()


def test_a_scratch_block_leaves_nothing(controller: Controller, oracle: Oracle) -> None:
    def work() -> None:
        with controller.scratch():
            network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
            network.create_endpoint("e").join(controller.new_sandbox("box"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert controller.statistics()["networks"] == controller.statistics()["sandboxes"] == 0
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links().keys() == {"lo"}


def test_a_controller_works_from_inside_a_sandbox(
    controller: Controller, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """A caller who entered a sandbox makes networks on the host all the same."""
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    box = controller.new_sandbox("box")
    with box.entered():
        second = controller.new_sandbox("second")
        endpoint = network.create_endpoint("e")
        endpoint.join(second)
        controller.new_network("bridge", "n2", subnets=["10.89.0.0/24"], options={"bridge": "br9"})
        assert controller.reconcile().is_clean
    assert "br9" in oracle.links()
    assert oracle.links(str(box.netns_path)).keys() == {"lo"}
    assert reaches(second, network.gateways[0])
