"""Counters of interfaces."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.kernel import answers
from pynetwork.kernel.netlink import NetlinkSocket

if TYPE_CHECKING:
    from pynetwork.kernel.answers import LinkInfo

__all__ = ["InterfaceStatistics", "interface_statistics"]

_COUNTERS: Final = struct.Struct("=8Q")  # the first of struct rtnl_link_stats64


@attrs.frozen(kw_only=True)
class InterfaceStatistics:
    """What passed through an interface since it was made, as libnetwork reports it."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


def interface_statistics() -> dict[str, InterfaceStatistics]:
    """Return the counters of all interfaces of the current namespace but ``lo``, by name."""
    with NetlinkSocket() as socket:
        links = [answers.parse_link(payload) for payload in socket.dump(answers.dump_links)]
    return {link.name: _statistics(link) for link in links if link.name != "lo"}


def _statistics(link: LinkInfo) -> InterfaceStatistics:
    names = ("packets", "bytes", "errors", "dropped")
    values = _COUNTERS.unpack_from(link.statistics)
    # Receiving and sending take turns: rx_packets, tx_packets, rx_bytes, tx_bytes ...
    counters = zip((f"{way}_{name}" for name in names for way in ("rx", "tx")), values, strict=True)
    return InterfaceStatistics(**dict(counters))
