"""Where state lives: a small key-value port with revisions, and its embedded backends.

Everything above speaks :class:`Store` only, so a cluster store is one more class and no other change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

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
    Watcher,
)
from pynetwork.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pynetwork.store.etcd import EtcdStore
    from pynetwork.store.etcd_endpoints import Tls

__all__ = [
    "Absent",
    "Change",
    "Changes",
    "Compare",
    "Delete",
    "Entry",
    "EtcdStore",
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
    "Tls",
    "Unchanged",
    "Watcher",
]

# What loads HTTP and TLS, and is not needed on a single host.
_LAZY: Final = {"EtcdStore": "pynetwork.store.etcd", "Tls": "pynetwork.store.etcd_endpoints"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        value: object = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
