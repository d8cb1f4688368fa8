"""What endpoints on other hosts are called, in this host's own store, where its name server reads it.

The name server may be in any process of the host, and follows the host's store alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pynetwork.records import record
from pynetwork.store import Delete

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.core import Core
    from pynetwork.peers import Peer
    from pynetwork.store import Put

__all__ = ["PeerNames"]

_TOGETHER: Final = 500  # records of a transaction


class PeerNames:
    """
    Keeps the table ``peer`` of a host up to date: many changes at once, when there is time.

    Args:
        core: The instance.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pending: dict[str, Peer | None] = {}

    def note(self, network: str, endpoint: str, peer: Peer | None) -> None:
        """Note what an endpoint of another host is called now, None when it is gone."""
        self._pending[_key(network, endpoint)] = peer

    def replace(self, network: str, peers: Mapping[str, Peer]) -> None:
        """Note what all endpoints of a network on other hosts are called, by id; none when it is not here."""
        prefix = _key(network, "")
        with self._core.reading() as records:
            known = [key for key in records.peers if key.startswith(prefix)]
        wanted = {_key(network, endpoint): peer for endpoint, peer in peers.items()}
        self._pending |= {**dict.fromkeys(known), **wanted}

    def forget_others(self) -> None:
        """Note that nothing is called anything in networks that are not on this host any more."""
        with self._core.reading() as records:
            here = set(records.networks)
            gone = [key for key in records.peers if key.split("/")[1] not in here]
        self._pending |= dict.fromkeys(gone)

    def flush(self) -> None:
        """
        Write what was noted, as far as it is news.

        Raises:
            StoreError: This host's store cannot be written.
        """
        if not self._pending:
            return
        with self._core.reading() as records:
            known = {key: row.spec for key in self._pending if (row := records.peers.get(key)) is not None}
            operations: list[Put | Delete] = [
                Delete(key) if peer is None else record(key, peer)
                for key, peer in self._pending.items()
                if known.get(key) != peer
            ]
            for start in range(0, len(operations), _TOGETHER):
                self._core.engine.mirror.transact([], operations[start : start + _TOGETHER])
        self._pending.clear()


def _key(network: str, endpoint: str) -> str:
    return f"peer/{network}/{endpoint}"
