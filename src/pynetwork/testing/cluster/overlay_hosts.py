"""Hosts of a cluster of which each forwards as it is told to: with the kernel's VXLAN, or an Open vSwitch."""

from __future__ import annotations

import contextlib
import ipaddress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pynetwork.errors import InvalidValueError
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.ethtool import let_leave_checksums
from pynetwork.store import MemoryStore
from pynetwork.testing.cluster.linux_hosts import LinuxHost, plugged_in
from pynetwork.testing.cluster.ovs_hosts import switched
from pynetwork.testing.cluster.underlay import underlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pynetwork.kernel.port import Kernel
    from pynetwork.store import LeasingStore
    from pynetwork.testing.cluster.ovs_hosts import OvsHost

__all__ = ["SwitchedHost", "overlay_cluster"]


_DATAPATHS: Final = ("linux", "ovs-userspace")


class SwitchedHost(LinuxHost):
    """
    One host whose controller has an Open vSwitch forward. Made by :func:`overlay_cluster`.

    Attributes:
        switch: What there is of its Open vSwitch: its processes, its directory.
    """

    def __init__(
        self,
        switch: OvsHost,
        store: LeasingStore | Callable[[], LeasingStore],
        arguments: Mapping[str, Any],
    ) -> None:
        super().__init__(switch.name, switch.vtep, store, {**arguments, "datapath": "ovs-userspace"})
        self.switch = switch

    def _kernel(self) -> Callable[[str, Path], Kernel]:
        return partial(LinuxKernel, ovs_directory=self.switch.directory)


@contextlib.contextmanager
def overlay_cluster(
    datapaths: Sequence[str],
    *,
    store: LeasingStore | Callable[[], LeasingStore] | None = None,
    mtu: int = 1500,
    subnet: str = "192.0.2.0/24",
    **arguments: Any,  # noqa: ANN401 - of Cluster
) -> Iterator[tuple[LinuxHost, ...]]:
    """
    Make hosts ``h1``, ``h2`` ... for the ``with`` block, each with a network card and a controller.

    To be used as :func:`linux_cluster` is.

    Args:
        datapaths: What forwards on each: ``linux`` or ``ovs-userspace``.
        store: What they share, or what each controller opens it with; one in memory when not given.
        mtu: Of the underlay, in bytes.
        subnet: The underlay's; host number N has its Nth address.
        arguments: Further ones of :class:`~pynetwork.Cluster`, such as ``ttl``.

    Raises:
        InvalidValueError: There is no such datapath.
        UnavailableError: A program is missing.
    """
    wrong = sorted({*datapaths} - {*_DATAPATHS})
    if wrong:
        names = " or ".join(_DATAPATHS)
        msg = f"invalid datapaths={tuple(datapaths)!r}: {names} is expected, not {', '.join(wrong)}"
        raise InvalidValueError(msg)
    network = ipaddress.ip_network(subnet)
    shared = MemoryStore() if store is None else store
    with contextlib.ExitStack() as stack:
        machine = stack.enter_context(underlay(network, mtu))
        numbers = [number for number, datapath in enumerate(datapaths, 1) if datapath == "ovs-userspace"]
        switches = stack.enter_context(switched(numbers, network, mtu)) if numbers else ()
        hosts: dict[int, LinuxHost] = {
            number: SwitchedHost(switch, shared, arguments)
            for number, switch in zip(numbers, switches, strict=True)
        }
        for number, datapath in enumerate(datapaths, 1):
            if datapath == "linux":
                host = LinuxHost(f"h{number}", str(network[number]), shared, arguments)
                stack.enter_context(plugged_in(machine, host, network, mtu))
                hosts[number] = host
                if switches:  # to the switches it would seem that what it sends is damaged
                    with host.entered():
                        let_leave_checksums(host.interface, on=False)
        made = tuple(hosts[number] for number in sorted(hosts))
        for host in made:
            stack.callback(host.erase)
        yield made
