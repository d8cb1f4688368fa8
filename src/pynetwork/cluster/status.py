"""What can be said of the other hosts of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pynetwork.peers import Reached
    from pynetwork.types import IPAddress

__all__ = ["PeerHost", "PeerProbe"]


@attrs.frozen(kw_only=True)
class PeerProbe:
    """
    What became of packets to another host that nobody may divide.

    Args:
        reached: Whether those of the full size arrived, as large as the interface of the VTEP takes.
        time: When they were sent, in seconds since the epoch.
    """

    reached: Reached
    time: float


@attrs.frozen(kw_only=True)
class PeerHost:
    """
    Another host of a network, as far as this one knows.

    One that has just gone is among them until this host's datapath was told.

    Args:
        host: Its name.
        vtep: Address that frames for its endpoints are sent to.
        alive: Whether it is there: its lease has not ended. None if the store cannot be asked.
        endpoints: Name of each of its endpoints that is joined, to its addresses.
        revision: Of the store, of the newest of their records.
        installed: Revision that this host's datapath has them at; less than *revision* while it is behind,
            None when it has nothing of the network, or an agent elsewhere sees to it.
        heard: Seconds since it renewed its lease, by the clock of the store, which may count whole ones. None
            if the lease has ended, or the store cannot be asked.
        probe: The last probe of the way to it by this process, see :meth:`Controller.doctor`; None before.
    """

    host: str
    vtep: IPAddress
    alive: bool | None
    endpoints: dict[str, tuple[IPAddress, ...]] = attrs.field(hash=False)
    revision: int
    installed: int | None = None
    heard: float | None = None
    probe: PeerProbe | None = None
