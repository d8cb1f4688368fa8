"""Containers of a real dockerd, started without a network, get one of ours."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import cannot_run

from pynetwork import Controller, EventKind
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Oracle

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

#: What is private to a host here: our own places, and those where dockerd keeps what has no option.
PRIVATE = (
    "/run/pynetwork",
    "/var/lib/pynetwork",
    "/run/netns",
    "/run/docker",
    "/run/containerd",
    "/etc/docker",
)
APPLETS = ("sh", "sleep", "ip", "ping", "httpd", "nc", "nslookup")
SECONDS = 60.0


class Docker:
    """A dockerd of its own: no bridge, no rules, no images but one that is made here."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._socket = f"unix://{place}/docker.sock"
        self._group = f"pynetwork-docker-{secrets.token_hex(4)}"
        self._log = (place / "log").open("wb")
        self._daemon = subprocess.Popen(
            [
                *("dockerd", "--host", self._socket, "--pidfile", str(place / "pid")),
                *("--data-root", str(place / "data"), "--exec-root", str(place / "exec")),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
                *("--ip-forward=false", "--ip-masq=false", "--storage-driver=vfs"),
                *("--exec-opt", "native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self._group}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._environment = {**os.environ, "DOCKER_CONFIG": str(place / "config")}

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + SECONDS
        while self.command("version", check=False).returncode:
            log = (self._place / "log").read_text(errors="replace")
            assert self._daemon.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)

    def command(
        self, *arguments: str, check: bool = True, data: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Be its client."""
        done = subprocess.run(
            ["docker", "--host", self._socket, *arguments],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env=self._environment,
        )
        if check:
            assert done.returncode == 0, done.stderr.decode()
        return done

    def make_image(self) -> None:
        """Make an image of busybox and a page to serve."""
        root = self._place / "root"
        (root / "bin").mkdir(parents=True)
        (root / "www").mkdir()
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        (root / "www" / "index.html").write_text("it works\n")
        tree = subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout
        self.command("import", "-", "small:1", data=tree)

    def run(self, name: str) -> int:
        """Run a container that serves HTTP, without a network; returns the id of its process."""
        serve = ("/bin/httpd", "-f", "-p", "80", "-h", "/www")
        options = ("--network", "none", "--dns", "127.0.0.11", "--stop-signal", "KILL")
        self.command("run", "--detach", "--name", name, *options, "small:1", *serve)
        return self.pid(name)

    def pid(self, name: str) -> int:
        """Return the id of a container's process."""
        return int(self.command("inspect", "--format", "{{.State.Pid}}", name).stdout)

    def inside(self, name: str, *argv: str) -> str:
        """Run a program in a container; returns what it writes."""
        return self.command("exec", name, *argv).stdout.decode()

    def fetched(self, name: str, server: str) -> str:
        """Return what a container gets from another one, by its name: a static libc looks up no names."""
        (address,) = re.findall(r"Name:\s+\S+\s+Address: (\S+)", self.inside(name, "nslookup", server))
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80"
        return self.inside(name, "sh", "-c", ask).rpartition("\r\n\r\n")[2]

    def close(self) -> None:
        """End it and all of its containers, and what it leaves behind."""
        try:
            for name in self.command("ps", "--all", "--quiet", check=False).stdout.decode().split():
                self.command("rm", "--force", name, check=False)
        finally:
            self._daemon.terminate()
            self._daemon.wait(SECONDS)
            self._log.close()
        for group in Path("/sys/fs/cgroup").glob(f"**/{self._group}"):
            with contextlib.suppress(OSError):  # seen in another hierarchy, too
                group.rmdir()


@pytest.fixture
def docker() -> Iterator[Docker]:
    for program in ("dockerd", "docker", "busybox"):
        if shutil.which(program) is None:
            cannot_run(f"{program} is missing")
    # Not tmp_path, which is too long for the sockets that containerd has in there.
    with (
        tempfile.TemporaryDirectory(prefix="docker-") as place,
        private_host(PRIVATE, control_groups=False),
    ):
        docker = Docker(Path(place))
        try:
            docker.wait()
            docker.make_image()
            yield docker
        finally:
            docker.close()


@pytest.fixture
def controller(docker: Docker) -> Iterator[Controller]:
    controller = Controller()
    try:
        yield controller
    finally:
        controller.erase()


def fetched(port: int) -> str:
    """What is served at a port of this host."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return answer.rpartition(b"\r\n")[2].decode()


def test_containers_of_docker_are_adopted_and_reach_each_other_by_name_and_port(
    docker: Docker, controller: Controller, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    boxes = {}
    for name, ports in (("client", []), ("server", ["8080:80"])):
        boxes[name] = controller.new_sandbox(name, netns=docker.run(name))
        network.create_endpoint(name, ports=ports).join(boxes[name])
    assert "10.88.0.2/24" in docker.inside("client", "ip", "address")
    docker.inside("client", "ping", "-c1", "-W5", "10.88.0.3")
    assert docker.fetched("client", "server") == "it works\n"
    assert soon(lambda: fetched(8080) == "it works\n")
    assert controller.reconcile().is_clean
    path = f"/proc/{docker.pid('client')}/ns/net"
    boxes["client"].delete()
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    assert oracle.links(path).keys() == {"lo"}
    assert docker.inside("client", "ip", "link").count("eth0") == 0  # it runs on


def test_a_container_that_docker_restarts_is_attached_anew(
    docker: Docker, controller: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """Its namespace is another one, its endpoint's address, MAC and port are what they were."""
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    sandbox = controller.new_sandbox("web", netns="later")
    endpoint = network.create_endpoint("web", ports=["8081:80"])
    endpoint.join(sandbox)
    other = controller.new_sandbox("other", netns=docker.run("other"))
    network.create_endpoint("other").join(other)
    sandbox.attach(docker.run("web"))
    chosen = endpoint.addresses, endpoint.mac, endpoint.ports
    since = controller.revision
    first = sandbox.netns_path
    docker.command("restart", "web")
    sandbox.attach(docker.pid("web"))
    assert sandbox.netns_path != first
    assert (endpoint.addresses, endpoint.mac, endpoint.ports) == chosen
    assert docker.fetched("other", "web") == "it works\n"
    assert soon(lambda: fetched(8081) == "it works\n")
    assert [event.kind for event in controller.events(since=since, timeout=1)] == [EventKind.SANDBOX_ATTACHED]
    docker.command("rm", "--force", "web")
    sandbox.detach()
    assert endpoint.sandbox == sandbox
    assert controller.reconcile().is_clean
