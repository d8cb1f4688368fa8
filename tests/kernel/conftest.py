"""What the tests of the real kernel share: a host to work on, and pyroute2 as an independent observer."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from pyroute2 import IPRoute  # type: ignore[attr-defined]  # it has no explicit exports
from tests.kernel.lan import FIREWALLS, laboratory

from pynetwork import Controller
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.netns import entered
from pynetwork.plan import Plan, diff
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.lan import Lab

    from pynetwork.testing import PrivateHost

MAIN_TABLE = 254
#: Whose host the fixture ``kernel`` is on, and where it pins namespaces.
INSTANCE = "0123456789abcdef0123456789abcdef"
DIRECTORY = Path("/run/pynetwork/netns")
_PATIENCE_SECONDS = 2.0  # what is deleted may go a little later


class Link(NamedTuple):
    ifindex: int
    kind: str
    mac: str
    mtu: int
    up: bool
    group: int
    master: int
    peer: int
    generation_mode: int | None
    queues: tuple[int, int]
    snooping: int | None


class Address(NamedTuple):
    ifindex: int
    cidr: str
    protocol: int
    flags: int


class Route(NamedTuple):
    dst: str
    ifindex: int
    via: str | None
    metric: int
    protocol: int


class Neighbour(NamedTuple):
    ifindex: int
    address: str
    mac: str
    state: int


def _none(dst: int) -> str:
    return "::/0" if dst == 10 else "0.0.0.0/0"


class Oracle:
    """What pyroute2 finds in a namespace; None is the host's own."""

    def links(self, path: str | None = None) -> dict[str, Link]:
        with self._open(path) as ip:
            return {link.get("ifname"): _link(link) for link in ip.get_links()}

    def addresses(self, path: str | None = None) -> list[Address]:
        with self._open(path) as ip:
            return [
                Address(
                    each["index"],
                    f"{each.get('local') or each.get('address')}/{each['prefixlen']}",
                    each.get("proto") or 0,
                    each.get("flags") or each["flags"],
                )
                for each in ip.get_addr()
            ]

    def routes(self, path: str | None = None) -> list[Route]:
        """Return the unicast routes of the main table."""
        with self._open(path) as ip:
            return [
                Route(
                    f"{each.get('dst')}/{each['dst_len']}" if each.get("dst") else _none(each["family"]),
                    each.get("oif"),
                    each.get("gateway"),
                    each.get("priority") or 0,
                    each["proto"],
                )
                for each in ip.get_routes()
                if each.get("table") == MAIN_TABLE and each["type"] == 1
            ]

    def neighbours(self, path: str | None = None) -> list[Neighbour]:
        with self._open(path) as ip:
            return [
                Neighbour(each["ifindex"], each.get("dst"), each.get("lladdr") or "", each["state"])
                for each in ip.get_neighbours()
                if each["family"] in {2, 10}
            ]

    def cidrs(self, dev: str, path: str | None = None) -> set[str]:
        """Return the addresses of an interface."""
        link = self.links(path).get(dev)
        return {each.cidr for each in self.addresses(path) if link and each.ifindex == link.ifindex}

    def routes_of(self, dev: str, path: str | None = None) -> set[tuple[str, str | None]]:
        """Return destination and next hop of the routes through an interface, those of the kernel aside."""
        link = self.links(path).get(dev)
        return {
            (each.dst, each.via)
            for each in self.routes(path)
            if link and each.ifindex == link.ifindex and each.protocol != 2
        }

    @contextlib.contextmanager
    def _open(self, path: str | None) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            if path is not None:
                stack.enter_context(entered(path))
            yield stack.enter_context(IPRoute())


def _link(link: Any) -> Link:
    info: Any = link.get_attr("IFLA_LINKINFO")
    data: Any = info.get_attr("IFLA_INFO_DATA") if info else None
    spec = link.get_attr("IFLA_AF_SPEC")
    inet6 = spec.get_attr("AF_INET6") if spec else None
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    return Link(
        ifindex=link["index"],
        kind=kind,
        mac=link.get("address"),
        mtu=link.get("mtu"),
        up=bool(link["flags"] & 1),
        group=link.get_attr("IFLA_GROUP") or 0,
        master=link.get("master") or 0,
        peer=link.get("link") or 0,
        generation_mode=inet6.get_attr("IFLA_INET6_ADDR_GEN_MODE") if inet6 else None,
        queues=(link.get("num_tx_queues"), link.get("num_rx_queues")),
        snooping=data.get_attr("IFLA_BR_MCAST_SNOOPING") if kind == "bridge" else None,
    )


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def host() -> Iterator[PrivateHost]:
    """The test's thread is on a private host, which must be empty at the end."""
    with private_host() as host:
        yield host


@pytest.fixture
def controller(host: PrivateHost) -> Iterator[Controller]:
    """A controller on a private host; what was made with it is erased at the end."""
    controller = Controller()
    try:
        yield controller
    finally:
        try:
            controller.erase()
        finally:
            controller.close()


@pytest.fixture
def soon() -> Callable[[Callable[[], bool]], bool]:
    """Return whether something becomes true, for what goes asynchronously."""

    def wait(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    return wait


@pytest.fixture
def kernel(host: PrivateHost) -> Iterator[LinuxKernel]:
    """The kernel of a private host; what was made with it is removed at the end."""
    kernel = LinuxKernel(INSTANCE, DIRECTORY)
    try:
        yield kernel
        kernel.apply(diff(Plan(kernel.observe(Plan())), Plan()), replay=True)
    finally:
        kernel.close()


@pytest.fixture(params=FIREWALLS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A host with a LAN, once with each firewall, or with those that a module names by parametrizing."""
    with laboratory(request.param) as lab:
        yield lab
