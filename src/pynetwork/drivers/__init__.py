"""Network drivers: pure functions from specs to plans."""

from __future__ import annotations

from pynetwork.drivers.base import Driver, NoOptions, Publisher, Publishing
from pynetwork.drivers.bridge import BridgeDriver, BridgeOptions
from pynetwork.drivers.plain import HostDriver, NullDriver
from pynetwork.drivers.registry import Registry

__all__ = [
    "BridgeDriver",
    "BridgeOptions",
    "Driver",
    "HostDriver",
    "NoOptions",
    "NullDriver",
    "Publisher",
    "Publishing",
    "Registry",
]
