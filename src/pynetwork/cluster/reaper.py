"""What a host has left behind that is gone for good: its addresses are others' to have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.cluster.layout import HOSTS, KNOWN, REAPER, KnownRecord, holdings_of, read, write
from pynetwork.log import logger
from pynetwork.store import Absent, Delete, Put, Unchanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.cluster.ledger import Ledger
    from pynetwork.store import Entry, Lease

__all__ = ["Reaper"]


@attrs.frozen
class Reaper:
    """
    Looks for hosts that are missed, one host of the cluster for all.

    Args:
        ledger: The books.
        grace: Seconds that a host may be missed before it loses what it has.
        clock: Seconds since the epoch.
    """

    ledger: Ledger
    grace: float
    clock: Callable[[], float]

    def run(self, lease: Lease) -> list[str]:
        """
        Look once, if it is this host's turn.

        Args:
            lease: Of this host; the turn goes to another when it ends.

        Returns:
            The hosts that lost what they had.

        Raises:
            NotFoundError: The lease has ended.
            StoreError: The store does not answer.
        """
        store = self.ledger.store
        turn = store.get(REAPER)
        if turn is None:
            if store.transact([Absent(REAPER)], [Put(REAPER, self.ledger.host, lease=lease)]) is None:
                return []
        elif turn.value != self.ledger.host:
            return []
        there = {entry.key.removeprefix(HOSTS) for entry in store.list(HOSTS).entries}
        return [
            entry.key.removeprefix(KNOWN)
            for entry in store.list(KNOWN).entries
            if self._look(entry, is_there=entry.key.removeprefix(KNOWN) in there)
        ]

    def _look(self, entry: Entry, *, is_there: bool) -> bool:
        """Note since when a host is missed; take what it has when that is too long ago."""
        missed, now = read(KnownRecord, entry).missed, self.clock()
        store, unchanged = self.ledger.store, Unchanged(entry.key, entry.revision)
        if is_there or missed is None:
            since = None if is_there else now
            if missed != since:
                store.transact([unchanged], [Put(entry.key, write(KnownRecord(missed=since)))])
            return False
        if now - missed < self.grace:
            return False
        host = entry.key.removeprefix(KNOWN)
        gone = Absent(f"{HOSTS}{host}")
        for held in store.list(holdings_of(host)).entries:
            if not self.ledger.release(held.key.rpartition("/")[2], host, compares=[gone]):
                return False  # it is back
        store.transact([unchanged, gone], [Delete(entry.key)])
        logger().warning("host %r is gone: what its endpoints had is free", host)
        return True
