"""Hosts of a cluster, a router, and a machine in the world beyond: who gets out, and who gets in."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork import Cluster, Controller, MemoryStore
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.ethtool import let_leave_checksums
from pynetwork.kernel.netns import entered
from pynetwork.testing import private_host
from pynetwork.testing.cluster import linux_cluster, ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pynetwork import Endpoint, Sandbox
    from pynetwork.testing import HostNamespace, PrivateHost
    from pynetwork.testing.cluster import LinuxHost, OvsHost

#: The machine's addresses, by version.
WORLD: Final[dict[int, str]] = {4: "198.51.100.2", 6: "2001:db8:1::2"}
_ROUTER: Final[dict[int, str]] = {4: "192.0.2.254", 6: "2001:db8::fe"}
_SECONDS: Final = 5.0
_SILENCE: Final = 0.5
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@attrs.define(eq=False)
class Site:
    """
    A host with a controller.

    Args:
        host: It.
        open: Opens a controller there.
    """

    host: LinuxHost | OvsHost
    open: Callable[[], Controller]
    controller: Controller = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.controller = self.open()

    @property
    def addresses(self) -> dict[int, str]:
        """By version."""
        return {4: self.host.vtep, 6: f"2001:db8::{self.host.vtep.rpartition('.')[2]}"}

    def entered(self) -> AbstractContextManager[None]:
        return entered(self.host.netns_path)

    def joined(self, network: str, name: str, **arguments: Any) -> Endpoint:
        """Create an endpoint and join it to a sandbox of its own."""
        endpoint = self.controller.networks[network].create_endpoint(name, **arguments)
        endpoint.join(self.controller.new_sandbox(name))
        return endpoint

    def reopen(self) -> None:
        """Have another controller in the place of this one."""
        self.controller.close()
        self.controller = self.open()

    def links(self) -> set[str]:
        """Return the names of the host's interfaces."""
        with self.entered():
            return {name for _, name in socket.if_nameindex()}


@attrs.frozen
class World:
    """All of it."""

    sites: tuple[Site, ...]
    router: PrivateHost
    machine: HostNamespace

    def entered(self) -> AbstractContextManager[None]:
        """Put the calling thread on the machine."""
        return entered(f"/run/netns/{self.machine.name}")


@contextlib.contextmanager
def world_around(datapath: str, count: int = 2, firewall: str = "nftables") -> Iterator[World]:
    """Have hosts with the kernel's VXLAN (``linux``) or Open vSwitch (``ovs``), and what is beyond."""
    card, cluster = ("eth0", linux_cluster) if datapath == "linux" else ("br-phy", ovs_cluster)
    with private_host() as router, cluster(count) as hosts, contextlib.ExitStack() as stack:
        store, sites = MemoryStore(), []
        for host in hosts:
            sites.append(Site(host, partial(_open, host, store, datapath, firewall)))
            stack.callback(_erase, sites[-1])
        for version, address in _ROUTER.items():
            router.run(["ip", "address", "replace", *_cidr(address), "dev", "underlay"])
            for site in sites:
                site.host.run(["ip", "address", "replace", *_cidr(site.addresses[version]), "dev", card])
                site.host.run(["ip", f"-{version}", "route", "add", "default", "via", address])
        machine = router.add_machine("world", address=f"{WORLD[4]}/24", host_address="198.51.100.1/24")
        router.run(["ip", "address", "add", *_cidr("2001:db8:1::1"), "dev", "world"])
        machine.run(["ip", "address", "add", *_cidr(WORLD[6]), "dev", machine.interface])
        machine.run(["ip", "route", "add", "default", "via", "198.51.100.1"])
        machine.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:1::1"])
        # A switch in user space takes packets as they are: their checksums must be there.
        with entered(f"/run/netns/{machine.name}"):
            let_leave_checksums(machine.interface, on=False)
        router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        yield World(tuple(sites), router, machine)


def _erase(site: Site) -> None:
    site.controller.erase()


def _cidr(address: str) -> list[str]:
    return [f"{address}/64", "nodad"] if ":" in address else [f"{address}/24"]


def _open(host: LinuxHost | OvsHost, store: MemoryStore, datapath: str, firewall: str) -> Controller:
    switch = getattr(host, "directory", None)
    with host.entered():
        return Controller(
            Path("/var/lib/pynetwork") / host.name,
            run_dir=Path("/run/pynetwork") / host.name,
            firewall=firewall,
            kernel=None if switch is None else partial(LinuxKernel, ovs_directory=switch),
            cluster=Cluster(store=store, host=host.name, vtep=host.vtep, datapath=datapath),
        )


def inside(sandbox: Sandbox | None) -> Callable[[], AbstractContextManager[None]]:
    """Return what puts the calling thread into a sandbox."""
    assert sandbox is not None
    return partial(entered, str(sandbox.netns_path))


def seen(
    asker: Callable[[], AbstractContextManager[None]],
    server: Callable[[], AbstractContextManager[None]],
    proto: str,
    address: str,
    ports: tuple[int, int] = (7777, 7777),
    *,
    seconds: float = _SECONDS,
) -> str:
    """
    Ask a server, and return the address that it sees asking; nothing when it is not reached.

    Args:
        asker: Who asks.
        server: Where the server is, and answers.
        proto: ``tcp`` or ``udp``.
        address: Whom is asked.
        ports: At which port, and the one that the server has.
        seconds: To wait for it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    token = os.urandom(12)
    with contextlib.ExitStack() as stack:
        with server():
            there = stack.enter_context(socket.socket(family, _KINDS[proto]))
            there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            there.bind(("", ports[1]))
        with asker():
            here = stack.enter_context(socket.socket(family, _KINDS[proto]))
        there.settimeout(seconds)
        here.settimeout(seconds)
        if proto == "tcp":
            there.listen()
        try:
            here.connect((address, ports[0]))
            here.send(token)
            if proto == "tcp":
                answer, peer = there.accept()
                stack.enter_context(answer)
                answer.settimeout(seconds)
                answer.sendall(answer.recv(100)[::-1])
            else:
                data, peer = there.recvfrom(100)
                there.sendto(data[::-1], peer)
            assert here.recv(100) == token[::-1]
        except OSError:  # refused, unreachable, or nothing comes
            return ""
        return str(peer[0])


def is_cut_off(*arguments: Any) -> bool:
    """Return whether nobody is reached, asked as :func:`seen` asks."""
    return not seen(*arguments, seconds=_SILENCE)
