"""Next to other programs that have the host's firewall in hand, really running: firewalld, and Docker.

They are run where they are installed. ``make`` does not install them: on a host of one's own, their
packages start services that take the firewall over.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.conftest import cannot_run
from tests.kernel.lan import FIREWALLS, HOST, LAN, check, everywhere, laboratory

from pynetwork.testing.hosts import PRIVATE_DIRECTORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.kernel.lan import Lab

_SECONDS: Final = 60.0
_BUS: Final = """
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default">
  <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
</policy></busconfig>
"""
_DOCKER: Final = Path("/run/neighbour")
_CGROUPS: Final = Path("/sys/fs/cgroup")
# Answers as the servers of the laboratory do.
_SERVER: Final = """
import socket
server = socket.create_server(("", 80))
while True:
    connection, peer = server.accept()
    connection.send(f"theirs 80 {peer[0]}".encode())
    connection.close()
"""
_ASK: Final = "import socket, sys; print(socket.create_connection((sys.argv[1], 80), 5).recv(99).decode())"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one is missing, also in CI: firewalld is not installed to test, as it would take over."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@contextlib.contextmanager
def running(argv: Sequence[str], is_up: Sequence[str]) -> Iterator[None]:
    """Run a service until the end of the block, from when *is_up* succeeds."""
    with (
        Path(os.devnull).open("wb") as nowhere,
        subprocess.Popen(argv, stdout=nowhere, stderr=nowhere) as service,
    ):
        try:
            deadline = time.monotonic() + _SECONDS
            while subprocess.run(is_up, capture_output=True, check=False).returncode:
                assert service.poll() is None, f"{argv[0]} has ended"
                assert time.monotonic() < deadline, f"{argv[0]} does not come up"
                time.sleep(0.1)
            yield
        finally:
            service.terminate()


def carry_out(lab: Lab, commands: Sequence[str]) -> None:
    for line in commands:
        lab.host.run(shlex.split(line))


@pytest.fixture(params=FIREWALLS)
def beside_firewalld(request: pytest.FixtureRequest) -> Iterator[Lab]:
    directories = [*PRIVATE_DIRECTORIES, "/run/dbus", "/run/firewalld", "/etc/firewalld"]
    with laboratory(request.param, directories=directories, control_groups=False) as lab:
        bus = Path("/run/dbus/bus.conf")
        bus.write_text(_BUS)
        daemon = ["dbus-daemon", "--nofork", "--nopidfile", "--config-file", str(bus)]
        firewalld = [
            shutil.which("firewalld") or "",
            "--nofork",
            "--nopid",
            "--log-file",
            "/run/firewalld/log",
        ]
        with (
            running(daemon, ["test", "-S", "/run/dbus/system_bus_socket"]),
            running(firewalld, ["firewall-cmd", "--state"]),
        ):
            yield lab


@pytest.mark.root
@needs("firewalld", "dbus-daemon")
def test_firewalld_is_found_in_the_way_and_told_to_let_us_pass(beside_firewalld: Lab) -> None:
    """Its zones are those of the host's interfaces; a bridge that is in none is rejected."""
    lab = beside_firewalld
    web = lab.box(lab.network("n", 1), "web", ["8000:80", "8000:80/udp"])
    other = lab.box(lab.network("other", 2), "other")
    published = {"web": everywhere(lab.lan, HOST, 8000)}
    out = [*everywhere(web, LAN), *everywhere(other, LAN)]
    check(published, out)  # it accepts what was translated
    (finding,) = lab.controller.doctor()
    assert "firewalld" in finding.problem
    assert all(line.startswith("firewall-cmd ") for line in finding.commands)
    carry_out(lab, finding.commands)
    assert lab.controller.doctor() == ()
    apart = [*everywhere(other, web.addresses), *everywhere(lab.lan, HOST, 81)]
    check(published | {"lan": out}, apart)
    lab.host.run(["firewall-cmd", "--reload"])
    check(published | {"lan": out}, apart)
    assert lab.controller.reconcile(dry_run=True).is_clean


class Docker:
    """A daemon of Docker's on a private host, with a container that publishes port 8888."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def run(self, *arguments: str) -> str:
        return self._lab.host.run(["docker", "-H", f"unix://{_DOCKER}/socket", *arguments]).stdout

    def start(self) -> None:
        nothing = _DOCKER / "nothing.tar"
        self._lab.host.run(["tar", "cf", str(nothing), "--files-from", "/dev/null"])
        self.run("import", str(nothing), "nothing")
        host = [
            option for name in ("/usr", "/lib", "/lib64", "/bin") for option in ("-v", f"{name}:{name}:ro")
        ]
        self.run(
            "run",
            "-d",
            "--name",
            "theirs",
            "-p",
            "8888:80",
            *host,
            "nothing",
            "/usr/bin/python3",
            "-c",
            _SERVER,
        )

    def ask(self, address: str) -> str:
        """Return what somebody answers to the container."""
        return self.run("exec", "theirs", "/usr/bin/python3", "-c", _ASK, address)


@pytest.fixture(params=FIREWALLS)
def beside_docker(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Docker]]:
    for program in ("dockerd", "docker", "containerd"):
        if shutil.which(program) is None:
            cannot_run(f"{program} is missing")
    directories = [*PRIVATE_DIRECTORIES, str(_DOCKER), "/etc/docker"]
    before = set(_CGROUPS.glob("*/docker"))
    with laboratory(request.param, directories=directories, control_groups=False) as lab:
        lab.host.run(
            ["sysctl", "-qw", "net.ipv4.ip_forward=0"]
        )  # or Docker thinks that somebody wants to forward
        options = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        daemon = [
            "dockerd",
            "--storage-driver=vfs",
            f"--host=unix://{_DOCKER}/socket",
        ]
        daemon += [f"--{name}={_DOCKER}/{value}" for name, value in options.items()]
        docker = Docker(lab)
        with running(daemon, ["docker", "-H", f"unix://{_DOCKER}/socket", "version"]):
            docker.start()
            try:
                yield lab, docker
            finally:
                docker.run("rm", "-f", "theirs")
        lab.host.run(["ip", "link", "delete", "docker0"])
    for left in set(_CGROUPS.glob("*/docker")) - before:
        left.rmdir()


def theirs(lab: Lab) -> list[str]:
    """Return Docker's rules, but for those in the chain that is for others."""
    lines = lab.host.run(["iptables-save"]).stdout.splitlines()
    return [line for line in lines if "DOCKER" in line and not line.startswith("-A DOCKER-USER")]


@pytest.mark.root
def test_docker_and_we_live_side_by_side(beside_docker: tuple[Lab, Docker]) -> None:
    """Its policy of dropping what is forwarded is explained; none of its rules is touched."""
    lab, docker = beside_docker
    before = theirs(lab)
    web = lab.box(lab.network("n", 1), "web", ["8000:80", "8000:80/udp"])
    host, lan = {4: HOST[4]}, {4: LAN[4]}
    reached = [question for question in everywhere(lab.lan, host, 8888) if question.proto == "tcp"]
    inside, out = everywhere(lab.lan, host, 8000), everywhere(web, lan)
    check({"theirs": reached}, [*inside, *out])
    findings = lab.controller.doctor()
    assert findings
    assert all("FORWARD" in finding.problem for finding in findings)
    for finding in findings:
        assert all(" DOCKER-USER " in line for line in finding.commands), str(finding)
        carry_out(lab, finding.commands)
    assert lab.controller.doctor() == ()
    check({"theirs": reached, "web": inside, "lan": out})
    assert docker.ask(LAN[4]).startswith("lan 80")
    with pytest.raises(RuntimeError, match="timed out"):
        docker.ask(web.addresses[4])
    # The other way round it is open, as the finding says.
    assert "reach Docker's containers" in str(findings[0])
    inner = docker.run("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "theirs").strip()
    check({"theirs": [question for question in everywhere(web, {4: inner}, 80) if question.proto == "tcp"]})
    lab.route_to(web.endpoint.network)
    check({"theirs": reached, "web": inside}, everywhere(lab.lan, web.addresses))
    lab.controller.erase()
    assert theirs(lab) == before
    check({"theirs": reached})
