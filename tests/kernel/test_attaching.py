"""Sandboxes attached to namespaces that others make, on the real kernel: all that is theirs goes along."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import (
    ApplyError,
    Controller,
    EventKind,
    InvalidValueError,
    NotFoundError,
    PynetworkError,
    RequestError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork import Network, Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

Container = subprocess.Popen[bytes]


@pytest.fixture
def start(host: PrivateHost) -> Iterator[Callable[..., Container]]:
    """Start a process in a network namespace of its own, as a runtime does, first running a program in it."""
    with contextlib.ExitStack() as stack:

        def start_one(first: str = ":") -> Container:
            code = f"ip link set lo up; {first}; echo; exec sleep 60"
            command = ["unshare", "--net", "sh", "-c", code]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
            return process

        yield start_one


@pytest.fixture
def network(controller: Controller) -> Network:
    return controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])


def netns_of(process: Container) -> str:
    return f"/proc/{process.pid}/ns/net"


def reaches(sandbox: Sandbox, target: object) -> bool:
    command = ["ping", "-c1", "-W0.5", str(target)]
    return any(sandbox.run(command, capture_output=True).returncode == 0 for _ in range(3))


def looked_up(sandbox: Sandbox, name: str) -> list[str]:
    """The addresses that the name server in a sandbox knows for a name."""
    command = ["dig", "+short", "+tries=2", "+time=2", "@127.0.0.11", name]
    output: str = sandbox.run(command, capture_output=True, text=True, check=True).stdout
    return output.split()


@pytest.mark.parametrize("way", ["pid", "path", "file", "pinned"])
@pytest.mark.parametrize("joins_first", [True, False])
def test_endpoints_that_joined_before_or_after_are_in_the_namespace(  # noqa: PLR0917 - fixtures
    way: str,
    joins_first: bool,
    controller: Controller,
    network: Network,
    start: Callable[..., Container],
    host: PrivateHost,
    oracle: Oracle,
) -> None:
    process = start()
    path = netns_of(process)
    sandbox = controller.new_sandbox("box", netns="later")
    endpoint = network.create_endpoint("e", ports=["8080:80"])
    if joins_first:
        endpoint.join(sandbox)
        assert set(oracle.links()) == {"lo", f"br-{network.id[:12]}"}
    with contextlib.ExitStack() as stack:
        target: object = process.pid
        if way == "path":
            target = Path(path)
        elif way == "file":
            target = stack.enter_context(Path(path).open("rb"))
        elif way == "pinned":
            host.run(["ip", "netns", "attach", "theirs", str(process.pid)])
            stack.callback(host.run, ["ip", "netns", "delete", "theirs"])
            target = "/run/netns/theirs"
        sandbox.attach(target)
    if not joins_first:
        endpoint.join(sandbox)
    assert oracle.cidrs("eth0", path) == {"10.88.0.2/24", "fd88::2/64"}
    assert oracle.links(path)["eth0"].mac == endpoint.mac
    assert reaches(sandbox, network.gateways[0])
    assert reaches(sandbox, network.gateways[1])
    assert controller.reconcile().is_clean


def test_a_rebuilt_container_is_reached_where_it_was(
    controller: Controller, network: Network, start: Callable[..., Container], oracle: Oracle
) -> None:
    """By its address, by its name; its old namespace has nothing of it any more."""
    peer, sandbox = controller.new_sandbox("peer"), controller.new_sandbox("box")
    network.create_endpoint("peer").join(peer)
    endpoint = network.create_endpoint("web")
    endpoint.join(sandbox)
    address, mac = endpoint.addresses[0].ip, endpoint.mac
    own = sandbox.netns_path
    before = [start(), start()]
    for process in (*before, before[0]):
        sandbox.attach(process.pid)
        assert reaches(peer, address)
        assert reaches(sandbox, "10.88.0.2")
        assert looked_up(peer, "web") == [str(address)]
        assert looked_up(sandbox, "peer") == ["10.88.0.2"]
        assert oracle.links(netns_of(process))["eth0"].mac == mac
        assert controller.reconcile().is_clean
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert own is not None
    assert not own.exists()
    assert oracle.links(netns_of(before[1])).keys() == {"lo"}


def test_what_is_detached_leaves_the_namespace_as_it_was(
    controller: Controller, network: Network, start: Callable[..., Container], oracle: Oracle
) -> None:
    process = start()
    sandbox = controller.new_sandbox("box", netns=process.pid)
    network.create_endpoint("e").join(sandbox)
    assert looked_up(sandbox, "e") == ["10.88.0.2"]
    sandbox.detach()
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links(netns_of(process)).keys() == {"lo"}
    assert list(Path("/run/pynetwork/netns").iterdir()) == []
    assert controller.reconcile().is_clean
    assert process.poll() is None


@pytest.mark.parametrize("number", range(4))
def test_a_process_that_dies_while_it_is_attached_to_leaves_all_as_before(
    number: int, controller: Controller, network: Network, start: Callable[..., Container], oracle: Oracle
) -> None:
    """Before anybody looks, after the first look, or in the middle: done, or refused and as before."""
    process = start()
    sandbox = controller.new_sandbox("box", netns="later")
    endpoint = network.create_endpoint("e")
    endpoint.join(sandbox)
    engine = controller._core.engine
    kernel, looks = engine.kernel, 0

    def look(path: str | None) -> object:
        nonlocal looks
        found = type(kernel).namespace_id(kernel, path)
        looks += 1
        if looks == number:
            process.kill()
            process.wait()
        return found

    if number == 0:
        process.kill()
        process.wait()
    kernel.namespace_id = look  # type: ignore[method-assign]
    before = controller.inspect()
    if number == 3:  # nobody looks that often
        sandbox.attach(process.pid)
        assert reaches(sandbox, network.gateways[0])
    else:
        with pytest.raises((NotFoundError, ApplyError), match=str(process.pid)) as caught:
            sandbox.attach(process.pid)
        assert getattr(caught.value, "rolled_back", True)
        assert controller.inspect() == before
        assert not sandbox.is_attached
        assert set(oracle.links()) == {"lo", f"br-{network.id[:12]}"}
    assert controller.reconcile().is_clean


@pytest.mark.parametrize(
    ("netns", "error"),
    [
        ("/proc/self/ns/mnt", NotFoundError),
        ("/etc/passwd", NotFoundError),
        ("/no/such/file", NotFoundError),
        ("/", NotFoundError),
        (4194304, NotFoundError),
        (-1, InvalidValueError),
        ("host", InvalidValueError),
        ("/proc/thread-self/ns/net", InvalidValueError),  # the host's own
    ],
)
def test_what_is_no_namespace_of_others_is_refused_before_anything_is_touched(
    netns: object, error: type[RequestError], controller: Controller, network: Network
) -> None:
    sandbox = controller.new_sandbox("box")
    network.create_endpoint("e").join(sandbox)
    before, revision = controller.inspect(), controller.revision
    with pytest.raises(error):
        sandbox.attach(netns)
    assert (controller.inspect(), controller.revision) == (before, revision)
    assert controller.reconcile().is_clean


def test_the_hosts_own_namespace_is_not_adopted(controller: Controller) -> None:
    with pytest.raises(InvalidValueError, match="is the host's own namespace"):
        controller.new_sandbox("box", netns="/proc/thread-self/ns/net")
    assert controller.reconcile().is_clean


def test_an_interface_of_that_name_is_theirs_and_the_sandbox_stays_where_it_was(
    controller: Controller, network: Network, start: Callable[..., Container], oracle: Oracle
) -> None:
    process = start("ip link add eth0 address 02:00:00:00:00:99 type bridge")
    sandbox = controller.new_sandbox("box")
    endpoint = network.create_endpoint("e", ports=["8080:80"])
    endpoint.join(sandbox)
    where = sandbox.netns_path
    with pytest.raises(ApplyError, match="there is a link called eth0") as caught:
        sandbox.attach(process.pid)
    assert caught.value.rolled_back
    assert sandbox.netns_path == where
    assert oracle.links(netns_of(process))["eth0"].mac == "02:00:00:00:00:99"
    assert reaches(sandbox, network.gateways[0])
    assert controller.reconcile().is_clean


def test_a_port_that_somebody_has_by_now_is_named_and_a_free_choice_chosen_anew(
    controller: Controller, network: Network, start: Callable[..., Container], host: PrivateHost
) -> None:
    import socket

    process = start()
    sandbox = controller.new_sandbox("box", netns="later")
    fixed = network.create_endpoint("e", ports=["8080:80"])
    fixed.join(sandbox)
    with socket.create_server(("0.0.0.0", 8080)):
        with pytest.raises(PynetworkError, match="8080"):
            sandbox.attach(process.pid)
        assert not sandbox.is_attached
        fixed.unpublish("80")
        fixed.publish("8080-8081:80")  # one of these
        sandbox.attach(process.pid)
    assert [port.host_port for port in fixed.ports] == [8081]
    assert controller.reconcile().is_clean


def test_a_path_that_comes_back_is_adopted_again(
    controller: Controller, network: Network, host: PrivateHost, oracle: Oracle
) -> None:
    """As after a reboot: the pin is gone, and so is what it was of; then somebody makes it again."""
    host.run(["ip", "netns", "add", "theirs"])
    sandbox = controller.new_sandbox("box", netns="/run/netns/theirs")
    endpoint = network.create_endpoint("e")
    endpoint.join(sandbox)
    since = controller.revision
    host.run(["umount", str(sandbox.netns_path)])
    host.run(["ip", "netns", "delete", "theirs"])
    report = controller.reconcile()
    assert (report.detached, report.failed) == (("box",), ())
    assert controller.reconcile().is_clean
    host.run(["ip", "netns", "add", "theirs"])
    try:
        assert controller.reconcile(dry_run=True).attached == ("box",)
        report = controller.reconcile()
        assert (report.attached, report.failed) == (("box",), ())
        assert oracle.cidrs("eth0", "/run/netns/theirs") == {str(each) for each in endpoint.addresses}
        assert controller.reconcile().is_clean
        kinds = [event.kind for event in controller.events(since=since, timeout=0)]
        wanted = [EventKind.SANDBOX_DETACHED, EventKind.SANDBOX_ATTACHED]
        assert [kind for kind in kinds if kind.startswith("sandbox.")] == wanted
        sandbox.delete()
    finally:
        host.run(["ip", "netns", "delete", "theirs"])


def test_names_that_cannot_be_served_are_told(
    controller: Controller, network: Network, start: Callable[..., Container]
) -> None:
    """Somebody else in the container has the name server's place."""
    code = (
        "import os, signal, socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "s.bind(('127.0.0.11', 53)); os.fork() and os._exit(0); time.sleep(60)"
    )
    process = start(f'python3 -c "{code}" >/dev/null')
    try:
        sandbox = controller.new_sandbox("box", netns=process.pid)
        reader = controller.events(timeout=10, kinds=["dns.failed"])
        network.create_endpoint("e").join(sandbox)
        event = next(reader)
        assert event.sandbox == "box"
        assert "Address already in use" in event.details[0]
    finally:
        inside = subprocess.run(
            ["nsenter", f"--net={netns_of(process)}", "ss", "-Hulnp"],
            capture_output=True,
            text=True,
            check=True,
        )
        for part in inside.stdout.split("pid=")[1:]:
            os.kill(int(part.split(",")[0]), signal.SIGKILL)
