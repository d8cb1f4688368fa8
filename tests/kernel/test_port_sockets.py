"""Whose a host port is, asked of the kernel: what is in the way, what is not, and what stays kept."""

from __future__ import annotations

import logging
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import InvalidValueError, PortTakenError
from pynetwork.kernel.firewall import NoFirewall, RulesRefusedError
from pynetwork.kernel.reserving import ReservingFirewall
from pynetwork.kernel.sockets import PortSockets
from pynetwork.plan import Plan, diff
from pynetwork.resources import PublishedPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pynetwork.plan import Step
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

INSTANCE, OTHER = "0" * 32, "1" * 32
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def here(function: Callable[[], object]) -> object:
    return function()


def published(**changes: Any) -> PublishedPort:
    port: dict[str, Any] = {
        "proto": "tcp",
        "first": 8080,
        "last": 8080,
        "target": "10.88.0.2",
        "target_first": 8080,
    }
    return PublishedPort(**(port | changes))


def a_range(**changes: Any) -> PublishedPort:
    """Return more ports than sockets are kept for."""
    return published(first=8000, last=8200, target_first=8000, **changes)


@pytest.fixture
def sockets(host: PrivateHost) -> Iterator[PortSockets]:
    with closing(PortSockets(INSTANCE)) as sockets:
        yield sockets


@contextmanager
def taken(address: str, kind: int = STREAM, *, v6only: bool = False, listens: bool = True) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, kind)) as other:
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        other.bind((address, 8080))
        if kind == STREAM and listens:
            other.listen()
        yield


def is_free(port: int = 8080, kind: int = STREAM) -> bool:
    with closing(socket.socket(socket.AF_INET, kind)) as other:
        try:
            other.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("make", [published, a_range])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_an_ipv6_socket_with_an_ipv4_address_is_in_the_way(
    sockets: PortSockets, make: Callable[..., PublishedPort], proto: str
) -> None:
    """That is what Java listens with."""
    with taken("::ffff:127.0.0.1", DATAGRAM if proto == "udp" else STREAM):
        with pytest.raises(PortTakenError, match=rf"8080/{proto} is in use by .*\(pid {os.getpid()}\)"):
            sockets.reserve(make(proto=proto))
        sockets.reserve(make(proto=proto, host="127.0.0.2"))
        sockets.reserve(make(proto=proto, target="fd88::2"))


@pytest.mark.parametrize("make", [published, a_range])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_socket_for_ipv6_alone_is_in_the_way_of_ipv6_alone(
    sockets: PortSockets, make: Callable[..., PublishedPort], proto: str
) -> None:
    with taken("::", DATAGRAM if proto == "udp" else STREAM, v6only=True):
        sockets.reserve(make(proto=proto))
        with pytest.raises(PortTakenError):
            sockets.reserve(make(proto=proto, target="fd88::2"))


@pytest.mark.parametrize("make", [published, a_range])
def test_a_port_that_is_bound_and_not_listened_on_is_taken(
    sockets: PortSockets, make: Callable[..., PublishedPort]
) -> None:
    with taken("0.0.0.0", listens=False), pytest.raises(PortTakenError) as caught:
        sockets.reserve(make())
    assert (caught.value.proto, caught.value.port) == ("tcp", 8080)


def test_a_connection_from_a_port_is_not_in_its_way(sockets: PortSockets) -> None:
    with (
        socket.create_server(("127.0.0.1", 9000)) as server,
        socket.create_connection(server.getsockname(), source_address=("127.0.0.1", 8080)),
    ):
        sockets.reserve(published())
        sockets.reserve(a_range())


def test_what_another_instance_keeps_is_taken_and_told(sockets: PortSockets) -> None:
    sockets.reserve(published())
    with closing(PortSockets(OTHER)) as others:
        for port in (published(), a_range()):
            with pytest.raises(PortTakenError, match="another instance of pynetwork"):
                others.reserve(port)


@pytest.mark.parametrize("make", [published, a_range])
@pytest.mark.parametrize(("host_address", "target"), [("192.0.2.1", "10.88.0.2"), ("fd00::1", "fd88::2")])
def test_an_address_of_another_host_is_refused(
    sockets: PortSockets, make: Callable[..., PublishedPort], host_address: str, target: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"{host_address}: it is no address of this host"):
        sockets.reserve(make(host=host_address, target=target))


@pytest.mark.parametrize(("proto", "kind"), [("tcp", STREAM), ("udp", DATAGRAM)])
def test_what_is_kept_is_free_when_released_or_closed(host: PrivateHost, proto: str, kind: int) -> None:
    with closing(PortSockets(INSTANCE)) as sockets:
        assert sockets.reserve(published(proto=proto))
        assert not is_free(kind=kind)
        sockets.release(published(proto=proto))
        assert is_free(kind=kind)
        sockets.reserve(published(proto=proto))
    assert is_free(kind=kind)


def test_of_a_request_that_fails_nothing_is_kept(sockets: PortSockets) -> None:
    with taken("127.0.0.1"), pytest.raises(PortTakenError):
        sockets.reserve(published(first=8078, last=8082))
    assert all(is_free(port) for port in range(8078, 8083))


def test_a_port_that_is_kept_already_is_nothing_to_take_back(sockets: PortSockets) -> None:
    assert sockets.reserve(published())
    assert not sockets.reserve(published(target="10.88.0.3"))
    assert not is_free()


def test_a_udp_port_that_is_kept_queues_nothing(sockets: PortSockets) -> None:
    sockets.reserve(published(proto="udp"))
    with closing(socket.socket(socket.AF_INET, DATAGRAM)) as sender:
        sender.sendto(b"x" * 1000, ("127.0.0.1", 8080))
    (kept,) = sockets._kept[published(proto="udp").key]
    with pytest.raises(BlockingIOError):
        kept.recv(1, socket.MSG_DONTWAIT)


def test_threads_that_keep_and_release_leave_nothing(sockets: PortSockets) -> None:
    def work(number: int) -> None:
        for port in range(8000, 8020):
            one = published(first=port, last=port, target=f"10.88.0.{number}")
            if sockets.reserve(one):
                sockets.release(one)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert all(is_free(port) for port in range(8000, 8020))
    assert sockets._count == 0


@contextmanager
def short_of_descriptors(left: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))  # noqa: PTH208
    wasted = []
    try:
        with suppress(OSError):
            while True:
                wasted.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(left):
            os.close(wasted.pop())
        yield
    finally:
        for each in wasted:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_ports_are_looked_at_and_not_kept(
    sockets: PortSockets, caplog: pytest.LogCaptureFixture
) -> None:
    ports = published(first=8078, last=8087)
    with caplog.at_level(logging.WARNING, "pynetwork"), short_of_descriptors(4):
        assert not sockets.reserve(ports)
        assert not sockets.reserve(ports)
    assert len(caplog.records) == 1
    assert is_free()
    # Three of them: our own socket to ask with, and what it takes to find whose socket that is.
    with taken("0.0.0.0"), short_of_descriptors(3), pytest.raises(PortTakenError) as caught:
        sockets.reserve(ports)
    assert caught.value.port == 8080


class Refusing(NoFirewall):
    """Refuses each transaction."""

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        raise RulesRefusedError(0)


def steps(before: Sequence[PublishedPort], after: Sequence[PublishedPort]) -> Sequence[Step]:
    return diff(Plan(before), Plan(after))


@pytest.mark.parametrize("replay", [False, True])
def test_a_port_that_goes_to_another_endpoint_stays_kept(host: PrivateHost, replay: bool) -> None:
    old, new = published(), published(target="10.88.0.3")
    with closing(ReservingFirewall(NoFirewall(), INSTANCE, here)) as firewall:
        firewall.apply(steps([], [old]))
        firewall.apply(steps([old], [new]), replay=replay)
        assert not is_free()
        firewall.apply(steps([new], []))
        assert is_free()


def test_rules_that_are_refused_cost_only_their_own_sockets(host: PrivateHost) -> None:
    old, new = published(), published(target="10.88.0.3")
    other = published(first=8081, last=8081)
    with closing(ReservingFirewall(NoFirewall(), INSTANCE, here)) as firewall:
        firewall.apply(steps([], [old]))
        firewall._rules = Refusing()
        with pytest.raises(RulesRefusedError):
            firewall.apply(steps([old], [new, other]))
        assert not is_free()
        assert is_free(8081)
