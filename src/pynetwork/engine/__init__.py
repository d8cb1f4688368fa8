"""The engine: journal, apply, undo, recover, reconcile."""

from __future__ import annotations

from pynetwork.engine.engine import Engine
from pynetwork.engine.intent import Draft, Intent
from pynetwork.engine.journal import Journal
from pynetwork.engine.mirror import Mirror, Table
from pynetwork.engine.reconcile import Adoptions, Report, reconcile
from pynetwork.engine.world import World

__all__ = [
    "Adoptions",
    "Draft",
    "Engine",
    "Intent",
    "Journal",
    "Mirror",
    "Report",
    "Table",
    "World",
    "reconcile",
]
