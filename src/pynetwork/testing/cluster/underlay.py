"""What joins the hosts of a cluster: a bridge of the private host that they are on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from pynetwork.testing.hosts import PrivateHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["UNDERLAY", "underlay"]

#: Its name.
UNDERLAY: Final = "underlay"
_ADDRESS: Final = 254  # of a subnet, a host is not given that
_MAC: Final = "02:00:00:00:ff:fe"  # its own, or it would have another with each cable that is plugged in


@contextlib.contextmanager
def underlay(network: IPv4Network | IPv6Network, mtu: int) -> Iterator[PrivateHost]:
    """Have the bridge, with the subnet's 254th address, for the ``with`` block; yields the private host."""
    machine = PrivateHost()
    settings = ["mtu", str(mtu), "address", _MAC, "type", "bridge", "mcast_snooping", "0"]
    machine.run(["ip", "link", "add", UNDERLAY, "up", *settings])
    try:
        nodad = ["nodad"] if network.version == 6 else []
        address = f"{network[_ADDRESS]}/{network.prefixlen}"
        machine.run(["ip", "address", "add", address, "dev", UNDERLAY, *nodad])
        yield machine
    finally:
        machine.run(["ip", "link", "delete", UNDERLAY])
