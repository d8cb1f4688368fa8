"""Containers of a real runc, which calls the hook: they get their networks, and give them back."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import cannot_run

import pynetwork
from pynetwork import Controller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

SOURCES = str(Path(pynetwork.__file__).parents[1])
APPLETS = ("sh", "sleep", "ip", "ping", "httpd", "nslookup")
SECONDS = 60.0


class Runtime:
    """runc or crun, with containers of its own; each has a name, a bundle and nothing but busybox in it."""

    def __init__(self, place: Path, program: str) -> None:
        self._place = place
        self._program = program
        self._root = place / "rootfs"
        (self._root / "bin").mkdir(parents=True)
        for directory in ("proc", "dev", "sys", "etc", "www"):
            (self._root / directory).mkdir()
        shutil.copy("/bin/busybox", self._root / "bin" / "busybox")
        for applet in APPLETS:
            (self._root / "bin" / applet).symlink_to("busybox")
        (self._root / "www" / "index.html").write_text("it works\n")
        (self._root / "etc" / "resolv.conf").write_text("nameserver 127.0.0.11\n")
        self._suffix = secrets.token_hex(4)
        self.names: list[str] = []

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it. What a container writes goes to a file, which nobody waits for."""
        errors = self._place / "errors"
        with (self._place / "output").open("w+") as output, errors.open("w+") as error:
            done = subprocess.run(
                [self._program, "--root", str(self._place / "state"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=error,
                check=False,
                timeout=SECONDS,
            )
            output.seek(0)
            error.seek(0)
            result = subprocess.CompletedProcess(done.args, done.returncode, output.read(), error.read())
        if check:
            assert result.returncode == 0, result.stderr
        return result

    def run(
        self,
        name: str,
        annotations: Mapping[str, str] | None = None,
        *,
        arguments: tuple[str, ...] = (),
        points: tuple[str, ...] = ("createRuntime", "poststop"),
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container that serves HTTP and does nothing else."""
        self.names.append(name)
        bundle = self._place / name
        bundle.mkdir()
        subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
        path = bundle / "config.json"
        config: dict[str, Any] = json.loads(path.read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = ["/bin/httpd", "-f", "-p", "80", "-h", "/www"]
        config["process"]["capabilities"] = {
            kind: ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"] for kind in ("bounding", "effective", "permitted")
        }
        config["root"] = {"path": str(self._root), "readonly": True}
        config["hostname"] = name
        config["annotations"] = dict(annotations or {})
        config["linux"]["cgroupsPath"] = f"/pynetwork-{self._suffix}-{name}"
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
        hook = {
            "path": sys.executable,
            "args": [sys.executable, "-m", "pynetwork.oci_hook", *arguments],
            "env": [f"PYTHONPATH={SOURCES}"],
            "timeout": int(SECONDS),
        }
        config["hooks"] = {point: [hook] for point in points}
        path.write_text(json.dumps(config))
        return self.command("run", "--detach", "--bundle", str(bundle), name, check=check)

    def inside(self, name: str, *argv: str, check: bool = True) -> str:
        """Run a program in a container; returns what it writes."""
        return self.command("exec", name, *argv, check=check).stdout

    def state(self, name: str) -> dict[str, Any]:
        """Return the state of a container, as its hooks see it."""
        found: dict[str, Any] = json.loads(self.command("state", name).stdout)
        return found

    def delete(self, name: str) -> None:
        """Kill a container and delete it, which calls its last hook."""
        self.command("delete", "--force", name)
        self.names.remove(name)


@pytest.fixture
def program() -> str:
    """The runtime that is used."""
    return "runc"


@pytest.fixture
def runtime(tmp_path: Path, host: PrivateHost, program: str) -> Iterator[Runtime]:
    if shutil.which(program) is None:
        cannot_run(f"{program} is missing")
    if program == "crun":  # it refuses hosts that have control groups of both versions
        host.run(["umount", "/sys/fs/cgroup/unified"], check=False)
    runtime = Runtime(tmp_path, program)
    try:
        yield runtime
    finally:
        for name in list(runtime.names):
            with contextlib.suppress(AssertionError):  # it was refused
                runtime.delete(name)


@pytest.fixture
def networks(runtime: Runtime, controller: Controller) -> Controller:
    """Two networks."""
    controller.new_network("bridge", "front", subnets=["10.88.0.0/24"])
    controller.new_network("bridge", "back", subnets=["10.89.0.0/24", "fd89::/64"])
    return controller


def hook(state: object, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the hook by hand."""
    text = state if isinstance(state, str) else json.dumps(state)
    return subprocess.run(
        [sys.executable, "-m", "pynetwork.oci_hook", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )


def fetched(port: int) -> str:
    """What is served at a port of this host."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return answer.rpartition(b"\r\n")[2].decode()


@pytest.mark.parametrize("program", ["runc", "crun"])
@pytest.mark.parametrize("point", ["createRuntime", "prestart"])
def test_a_container_gets_the_networks_that_its_annotations_name(
    point: str, runtime: Runtime, networks: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    annotations = {"org.pynetwork.networks": "front, back", "org.pynetwork.ports": "8080:80"}
    runtime.run("web", annotations, points=(point, "poststop"))
    sandbox = networks.sandboxes["web"]
    pid = runtime.state("web")["pid"]
    assert sandbox.netns_path
    assert sandbox.netns_path.stat().st_ino == Path(f"/proc/{pid}/ns/net").stat().st_ino
    assert sandbox.hostname == "web"
    addresses = runtime.inside("web", "ip", "address")
    assert all(text in addresses for text in ("10.88.0.2/24", "10.89.0.2/24", "fd89::2/64", "eth0", "eth1"))
    runtime.inside("web", "ping", "-c1", "-W5", "10.88.0.1")
    assert soon(lambda: fetched(8080) == "it works\n")
    assert networks.reconcile().is_clean
    runtime.delete("web")
    assert dict(networks.sandboxes) == {}
    assert [dict(network.endpoints) for network in networks.networks.values()] == [{}, {}]
    assert networks.reconcile().is_clean


def test_each_network_may_be_asked_for_more(runtime: Runtime, networks: Controller, oracle: Oracle) -> None:
    wishes = [
        {"network": "back", "addresses": ["10.89.0.77"], "mac": "02:00:00:00:00:77", "interface": "lan"},
        {"network": "front", "ports": ["127.0.0.1:8081:80"], "aliases": ["www"], "priority": 5},
    ]
    annotations = {"org.pynetwork.networks": json.dumps(wishes), "org.pynetwork.endpoint": "server"}
    runtime.run("web", annotations)
    endpoints = {network.name: network.endpoints["server"] for network in networks.networks.values()}
    assert str(endpoints["back"].addresses[0].ip) == "10.89.0.77"
    path = str(networks.sandboxes["web"].netns_path)
    assert oracle.links(path)["lan"].mac == "02:00:00:00:00:77"
    assert endpoints["front"].aliases == ("www",)
    assert [str(port) for port in endpoints["front"].ports] == ["127.0.0.1:8081:80/tcp"]
    assert [str(via) for via in endpoints["front"].gateways] == ["10.88.0.1"]
    runtime.delete("web")


def test_arguments_of_the_hook_speak_for_containers_that_say_nothing(
    runtime: Runtime, networks: Controller
) -> None:
    arguments = ("--network", "front", "--publish", "8082:80/tcp")
    runtime.run("one", arguments=arguments)
    runtime.run("two", {"org.pynetwork.networks": "back", "org.pynetwork.ports": ""}, arguments=arguments)
    assert "one" in networks.networks["front"].endpoints
    assert "two" in networks.networks["back"].endpoints
    assert "two" not in networks.networks["front"].endpoints
    for name in ("one", "two"):
        runtime.delete(name)


def test_containers_know_each_other_by_name_when_the_hook_has_a_companion(
    runtime: Runtime, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """The hook ends at once; somebody has to answer."""
    with Controller(dns="off") as controller:
        controller.new_network("bridge", "front", subnets=["10.88.0.0/24"])
        for name in ("one", "two"):
            runtime.run(name, arguments=("--network", "front", "--dns", "companion"))
        assert soon(lambda: "10.88.0.3" in runtime.inside("one", "nslookup", "two", check=False))
        for name in ("one", "two"):
            runtime.delete(name)
        controller.erase()
    assert soon(lambda: not list(Path("/run/pynetwork").glob("**/*")))


def test_a_container_of_which_nobody_says_anything_is_let_alone(
    runtime: Runtime, networks: Controller
) -> None:
    runtime.run("alone")
    assert dict(networks.sandboxes) == {}
    assert "eth0" not in runtime.inside("alone", "ip", "link")
    runtime.delete("alone")


def test_what_an_orchestrator_has_prepared_is_attached_and_kept(
    runtime: Runtime, networks: Controller
) -> None:
    """The container is rebuilt: its addresses are the ones it had."""
    sandbox = networks.new_sandbox("web", netns="later")
    endpoint = networks.networks["front"].create_endpoint("e", ports=["8083:80"])
    endpoint.join(sandbox)
    chosen = endpoint.addresses, endpoint.mac
    for _ in range(2):
        runtime.run("web")
        assert sandbox.is_attached
        assert str(endpoint.addresses[0]) in runtime.inside("web", "ip", "address")
        runtime.delete("web")
        shutil.rmtree(runtime._place / "web")
        assert not sandbox.is_attached
        assert (endpoint.addresses, endpoint.mac, endpoint.sandbox) == (*chosen, sandbox)
    assert networks.reconcile().is_clean


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"org.pynetwork.networks": "front,nowhere"}, "network 'nowhere' does not exist"),
        ({"org.pynetwork.networks": '[{"network": "front", "colour": "red"}]'}, "has colour: known are"),
        ({"org.pynetwork.networks": "front", "org.pynetwork.ports": "eighty"}, "eighty"),
        ({"org.pynetwork.networks": '[{"network": "front", "interface": "lo"}]'}, "'lo'"),
    ],
)
def test_what_is_refused_fails_the_container_and_leaves_nothing(
    annotations: dict[str, str], message: str, runtime: Runtime, networks: Controller
) -> None:
    failed = runtime.run("web", annotations, check=False)
    assert failed.returncode != 0
    assert message in failed.stderr
    assert "pynetwork: container web: " in failed.stderr
    assert dict(networks.sandboxes) == {}
    assert [dict(network.endpoints) for network in networks.networks.values()] == [{}, {}]
    assert networks.reconcile().is_clean


def test_the_hook_may_be_called_twice(runtime: Runtime, networks: Controller) -> None:
    runtime.run("web", {"org.pynetwork.networks": "front"})
    state = runtime.state("web")
    before = networks.inspect(), networks.revision
    again = hook(state)
    assert (again.returncode, again.stderr) == (0, "")
    assert (networks.inspect(), networks.revision) == before
    for _ in range(2):
        done = hook(state | {"status": "stopped", "pid": 0})
        assert (done.returncode, done.stderr) == (0, "")
        assert dict(networks.sandboxes) == {}
    again = hook(state | {"annotations": {"org.pynetwork.networks": "back"}})
    assert again.returncode == 0
    assert "10.89.0.2/24" in runtime.inside("web", "ip", "address")
    assert hook(state, "--stop").returncode == 0
    assert dict(networks.sandboxes) == dict(networks.networks["back"].endpoints) == {}


def test_a_container_that_has_died_meanwhile_leaves_nothing(networks: Controller) -> None:
    state = {"id": "web", "status": "created", "annotations": {"org.pynetwork.networks": "front"}}
    with subprocess.Popen(["true"]) as process:
        pass
    done = hook(state | {"pid": process.pid})
    assert done.returncode == 1
    assert f"/proc/{process.pid}/ns/net is no network namespace, or no longer" in done.stderr
    assert dict(networks.sandboxes) == dict(networks.networks["front"].endpoints) == {}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("", "is no JSON"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "is no JSON"),
        ("{}", "has no id"),
        ({"id": 7, "pid": 1}, "has no id"),
        ({"id": "web", "pid": "1"}, "a number are expected"),
        ({"id": "web", "pid": 0, "status": "created"}, "names no process"),
        ({"id": "web", "pid": 1, "annotations": {"org.pynetwork.networks": 7}}, "text to text"),
        ({"id": "web", "pid": 1, "annotations": {"org.pynetwork.networks": "[7]"}}, "a name is expected"),
        ({"id": "web", "pid": 1, "annotations": {"org.pynetwork.networks": "[7"}}, "JSON list"),
        ({"id": "web", "pid": 1, "annotations": {"org.pynetwork.ports": "80"}}, "in no network"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(state: object, message: str, networks: Controller) -> None:
    done = hook(state, *(() if "in no network" in message else ("--network", "front")))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert dict(networks.sandboxes) == {}


@pytest.mark.parametrize("progress", range(4))
def test_what_a_killed_hook_left_is_finished_or_cleared_by_the_next(
    progress: int, runtime: Runtime, networks: Controller
) -> None:
    """However far it got: the sandbox made, an endpoint made, the endpoint joined, all of it."""
    label = {"org.pynetwork.oci-hook": "web"}
    runtime.run("web")
    state = runtime.state("web") | {"annotations": {"org.pynetwork.networks": "front,back"}}
    for finish in (False, True):
        sandbox = networks.new_sandbox("web", netns="later", labels=label)
        if progress > 0:
            endpoint = networks.networks["front"].create_endpoint("web", labels=label)
        if progress > 1:
            endpoint.join(sandbox)
        if progress > 2:
            sandbox.attach(state["pid"])
        if finish:
            assert hook(state).returncode == 0
            addresses = runtime.inside("web", "ip", "address")
            assert "10.88.0." in addresses
            assert "10.89.0." in addresses
        assert hook(state, "--stop").returncode == 0
        assert dict(networks.sandboxes) == {}
        for network in networks.networks.values():
            assert dict(network.endpoints) == {}
    assert networks.reconcile().is_clean


def test_the_hosts_own_namespace_is_no_containers(networks: Controller) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:  # on this host
        done = hook({"id": "web", "pid": process.pid, "status": "created"}, "--network", "front")
        process.kill()
    assert done.returncode == 1
    assert "is the host's own namespace" in done.stderr
    assert dict(networks.sandboxes) == {}
