"""A host port is published only if nobody has it, and is then kept from everybody else."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller, InvalidValueError, PortTakenError
from pynetwork.testing import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Endpoint

pytestmark = pytest.mark.root


@pytest.fixture
def endpoint(controller: Controller) -> Endpoint:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    endpoint = network.create_endpoint("web")
    endpoint.join(controller.new_sandbox("box"))
    return endpoint


@contextmanager
def listening(address: str, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, kind)) as taken:
        taken.bind((address, port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        yield


def can_bind(address: str, port: int) -> bool:
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((address, port))
            other.listen()
        except OSError:
            return False
        return True


@pytest.mark.parametrize(
    ("address", "kind", "asked"),
    [
        ("0.0.0.0", socket.SOCK_STREAM, "8080:80"),
        ("0.0.0.0", socket.SOCK_STREAM, "127.0.0.1:8080:80"),
        ("127.0.0.1", socket.SOCK_STREAM, "8080:80"),
        ("::", socket.SOCK_STREAM, "8080:80"),
        ("::1", socket.SOCK_STREAM, "[::]:8080:80"),
        ("0.0.0.0", socket.SOCK_STREAM, "8000-8200:8000-8200"),
        ("127.0.0.1", socket.SOCK_DGRAM, "8080:53/udp"),
        ("127.0.0.1", socket.SOCK_DGRAM, "8000-8200:8000-8200/udp"),
    ],
)
def test_a_port_that_a_program_has_is_refused_and_the_program_is_named(
    endpoint: Endpoint, controller: Controller, address: str, kind: int, asked: str
) -> None:
    with listening(address, 8080, kind):
        with pytest.raises(PortTakenError, match=rf"8080/.* in use by .*\(pid {os.getpid()}\)") as caught:
            endpoint.publish(asked)
        assert caught.value.port == 8080
        assert endpoint.ports == ()
        assert controller.reconcile(dry_run=True).is_clean
    endpoint.publish(asked)


def test_what_another_program_has_elsewhere_does_not_matter(endpoint: Endpoint) -> None:
    with listening("127.0.0.1", 8080), listening("127.0.0.1", 8081, socket.SOCK_DGRAM):
        endpoint.publish("127.0.0.2:8080:80")
        endpoint.publish("8081:81")


def test_among_several_a_free_port_is_taken(endpoint: Endpoint) -> None:
    with listening("0.0.0.0", 8080), listening("::", 8081):
        assert endpoint.publish("8080-8085:80").host_port == 8082


def test_an_address_of_another_host_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(InvalidValueError, match="no address of this host"):
        endpoint.publish("192.0.2.1:8080:80")
    assert endpoint.ports == ()


def test_a_published_port_is_kept_until_it_is_published_no_more(endpoint: Endpoint) -> None:
    endpoint.publish("8080:80")
    assert not can_bind("0.0.0.0", 8080)
    assert not can_bind("127.0.0.1", 8080)
    assert can_bind("0.0.0.0", 8081)
    endpoint.unpublish("8080:80")
    assert can_bind("0.0.0.0", 8080)


def test_what_one_process_of_an_instance_keeps_is_no_obstacle_to_another(endpoint: Endpoint) -> None:
    endpoint.publish("8080:80")
    code = """
    import pynetwork
    with pynetwork.Controller() as controller:
        endpoint = controller.networks["n"].endpoints["web"]
        endpoint.unpublish("8080:80")
        print(endpoint.publish("8080:80"))
    """
    with Child(code) as child:
        assert child.wait() == 0
        assert child.output == ["8080:80/tcp"]


def test_the_rest_of_the_program_keeps_half_of_the_descriptors(endpoint: Endpoint) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * used + 200, hard))
    try:
        for port in range(8000, 8000 + used + 150):
            endpoint.publish(f"0.0.0.0:{port}:80")
        assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not can_bind("0.0.0.0", 8000)
