"""What was asked for, together with what was allocated for it: the input of a driver's plan.

Specs are frozen and hold no handles, sockets or kernel indexes. The same values are what the store
keeps, so a spec read back years later makes the same plan.
"""

from __future__ import annotations

from pynetwork.specs.endpoint import EndpointSpec, PortSpec, StaticRoute
from pynetwork.specs.network import DEFAULT_GATEWAY, Capabilities, NetworkSpec, Subnet
from pynetwork.specs.sandbox import Limits, SandboxSpec

__all__ = [
    "DEFAULT_GATEWAY",
    "Capabilities",
    "EndpointSpec",
    "Limits",
    "NetworkSpec",
    "PortSpec",
    "SandboxSpec",
    "StaticRoute",
    "Subnet",
]
