"""Hosts of a cluster as network namespaces, joined by an underlay, each with a controller in this process.

The datapath is the kernel's own, so nothing but root is needed; the store of the cluster may be one in
memory.
"""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pynetwork.cluster import Cluster
from pynetwork.controller import Controller
from pynetwork.kernel.netns import entered
from pynetwork.store import MemoryStore
from pynetwork.testing.cluster.underlay import UNDERLAY, underlay
from pynetwork.testing.hosts import HostNamespace, PrivateHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from pynetwork.kernel.port import Kernel
    from pynetwork.store import LeasingStore

__all__ = ["LinuxHost", "linux_cluster", "plugged_in"]

_STATE: Final = Path("/var/lib/pynetwork")
_RUN: Final = Path("/run/pynetwork")


class LinuxHost(HostNamespace):
    """
    One host. Made by :func:`linux_cluster`.

    Attributes:
        vtep: Its address on the underlay, which tunnels end at.
        cluster: What its controller is told of the cluster.
    """

    def __init__(
        self,
        name: str,
        vtep: str,
        store: LeasingStore | Callable[[], LeasingStore],
        arguments: Mapping[str, Any],
    ) -> None:
        super().__init__(name)
        self.vtep = vtep
        self.cluster = Cluster(store=store, host=name, vtep=vtep, **arguments)
        self._controller: Controller | None = None
        self._has_state = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.name!r}, vtep={self.vtep!r})>"

    @property
    def netns_path(self) -> str:
        """The file that its namespace is pinned by."""
        return f"/run/netns/{self.name}"

    @property
    def cable(self) -> str:
        """Interface of the underlay's that its network card is plugged into: down, the host is cut off."""
        return f"ul-{self.name}"

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread on this host for a ``with`` block: a kernel made there is this host's."""
        return entered(self.netns_path)

    @property
    def controller(self) -> Controller:
        """Its controller, opened when it is asked for and there is none."""
        if self._controller is None:
            self._has_state = True
            with self.entered():
                self._controller = Controller(
                    _STATE / self.name, run_dir=_RUN / self.name, kernel=self._kernel(), cluster=self.cluster
                )
        return self._controller

    def _kernel(self) -> Callable[[str, Path], Kernel] | None:
        """Return what its controller acts on; None for the namespace as it is."""
        return None

    def close(self) -> None:
        """Close its controller, as if its process had ended: the host is heard of no more."""
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.close()

    def erase(self) -> None:
        """Remove all that its controllers have made, if it had any, and close."""
        if self._has_state:
            self.controller.erase()
            self._controller = None
            self._has_state = False


@contextlib.contextmanager
def linux_cluster(
    count: int = 3,
    *,
    store: LeasingStore | Callable[[], LeasingStore] | None = None,
    mtu: int = 1500,
    subnet: str = "192.0.2.0/24",
    **arguments: Any,  # noqa: ANN401 - of Cluster
) -> Iterator[tuple[LinuxHost, ...]]:
    """
    Make hosts ``h1``, ``h2`` ... for the ``with`` block, each with a network card and a controller.

    To be used on a private host, by a thread that lives as long as the block: its namespace becomes the
    underlay, with a bridge ``underlay`` that has the subnet's 254th address: a store may listen there.

    Args:
        count: How many, 1 to 99.
        store: What they share, or what each controller opens it with; one in memory when not given.
        mtu: Of the underlay, in bytes.
        subnet: The underlay's; host number N has its Nth address.
        arguments: Further ones of :class:`~pynetwork.Cluster`, such as ``ttl``.
    """
    network = ipaddress.ip_network(subnet)
    shared = MemoryStore() if store is None else store
    with contextlib.ExitStack() as stack:
        machine = stack.enter_context(underlay(network, mtu))
        hosts = []
        for number in range(1, count + 1):
            host = LinuxHost(f"h{number}", str(network[number]), shared, arguments)
            stack.enter_context(plugged_in(machine, host, network, mtu))
            hosts.append(host)
        for host in hosts:
            stack.callback(host.erase)
        yield tuple(hosts)


@contextlib.contextmanager
def plugged_in(
    machine: PrivateHost, host: LinuxHost, network: IPv4Network | IPv6Network, mtu: int
) -> Iterator[None]:
    """Have a host's namespace, with a network card on the underlay, for the ``with`` block."""
    nodad = ["nodad"] if ":" in host.vtep else []
    size = ["mtu", str(mtu)]
    machine.run(["ip", "netns", "add", host.name])
    try:
        peer = ["type", "veth", "peer", "name", host.interface, *size, "netns", host.name]
        machine.run(["ip", "link", "add", host.cable, "master", UNDERLAY, "up", *size, *peer])
        address = f"{host.vtep}/{network.prefixlen}"
        host.run(["ip", "address", "add", address, "dev", host.interface, *nodad])
        for link in ("lo", host.interface):
            host.run(["ip", "link", "set", link, "up"])
        yield
    finally:
        machine.run(["ip", "link", "delete", host.cable], check=False)
        machine.run(["ip", "netns", "delete", host.name])
