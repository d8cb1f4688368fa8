"""Where state lives: a small key-value port with revisions, and its embedded backends.

Everything above speaks :class:`Store` only, so a cluster store is one more class and no other change.
"""

from pynetwork.store.keeper import LeaseKeeper
from pynetwork.store.memory import MemoryStore
from pynetwork.store.port import (
    Absent,
    Change,
    Changes,
    Compare,
    Delete,
    Entry,
    Lease,
    Leasing,
    LeasingStore,
    Operation,
    PrefixUnchanged,
    Put,
    Snapshot,
    Store,
    Unchanged,
)
from pynetwork.store.sqlite import SqliteStore

__all__ = [
    "Absent",
    "Change",
    "Changes",
    "Compare",
    "Delete",
    "Entry",
    "Lease",
    "LeaseKeeper",
    "Leasing",
    "LeasingStore",
    "MemoryStore",
    "Operation",
    "PrefixUnchanged",
    "Put",
    "Snapshot",
    "SqliteStore",
    "Store",
    "Unchanged",
]
