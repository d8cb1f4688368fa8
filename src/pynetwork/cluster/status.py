"""What can be said of the other hosts of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pynetwork.types import IPAddress

__all__ = ["PeerHost"]


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
    """

    host: str
    vtep: IPAddress
    alive: bool | None
    endpoints: dict[str, tuple[IPAddress, ...]] = attrs.field(hash=False)
    revision: int
    installed: int | None = None
