"""libnetwork for Python: container networks, endpoints and sandboxes as an embeddable library.

::

    import pynetwork

    with pynetwork.Controller() as controller:
        network = controller.new_network("bridge", "network1", subnets=["10.88.0.0/24"])
        endpoint = network.create_endpoint("endpoint1")
        sandbox = controller.new_sandbox("container1")
        endpoint.join(sandbox)
        sandbox.run(["ip", "address"])

The model is libnetwork's: a :class:`Controller` makes a :class:`Network`, a network makes an
:class:`Endpoint`, and an endpoint joins a :class:`Sandbox`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pynetwork.cluster import Cluster, EtcdCluster, PeerHost, PeerProbe
    from pynetwork.controller import Controller
    from pynetwork.core import Surroundings
    from pynetwork.dns import DnsStatistics
    from pynetwork.doctor import Finding
    from pynetwork.drivers import BridgeDriver, BridgeOptions, Driver, HostDriver, NoOptions, NullDriver
    from pynetwork.drivers.overlay_options import OverlayOptions
    from pynetwork.endpoint import Endpoint
    from pynetwork.engine import Report
    from pynetwork.errors import (
        ApplyError,
        ConflictError,
        ExhaustedError,
        HistoryLostError,
        InvalidValueError,
        NotFoundError,
        OutcomeUnknownError,
        PortTakenError,
        PynetworkError,
        RequestError,
        StoreError,
        StoreUnavailableError,
        UnavailableError,
        UnknownDriverError,
    )
    from pynetwork.events import Event, EventKind, EventReader
    from pynetwork.ipam import (
        DefaultIpam,
        DefaultPool,
        IpamDriver,
        NullIpam,
        Policy,
        Pool,
        PoolRequest,
        Usage,
    )
    from pynetwork.kernel.ending import Stopped
    from pynetwork.kernel.figures import DiskStatistics, SandboxStatistics
    from pynetwork.kernel.members import Process
    from pynetwork.kernel.stats import InterfaceStatistics
    from pynetwork.network import Network
    from pynetwork.peers import Reached
    from pynetwork.plan import Plan, Step, Steps, Verb
    from pynetwork.ports import PortBinding
    from pynetwork.sandbox import Gateway, Sandbox
    from pynetwork.specs import (
        Capabilities,
        EndpointSpec,
        Limits,
        NetworkSpec,
        SandboxSpec,
        StaticRoute,
        Subnet,
    )
    from pynetwork.store import EtcdStore, MemoryStore, SqliteStore
    from pynetwork.types import HOST_GATEWAY, HOST_NETNS, LATER_NETNS, Scope

__all__ = [
    "HOST_GATEWAY",
    "HOST_NETNS",
    "LATER_NETNS",
    "ApplyError",
    "BridgeDriver",
    "BridgeOptions",
    "Capabilities",
    "Cluster",
    "ConflictError",
    "Controller",
    "DefaultIpam",
    "DefaultPool",
    "DiskStatistics",
    "DnsStatistics",
    "Driver",
    "Endpoint",
    "EndpointSpec",
    "EtcdCluster",
    "EtcdStore",
    "Event",
    "EventKind",
    "EventReader",
    "ExhaustedError",
    "Finding",
    "Gateway",
    "HistoryLostError",
    "HostDriver",
    "InterfaceStatistics",
    "InvalidValueError",
    "IpamDriver",
    "Limits",
    "MemoryStore",
    "Network",
    "NetworkSpec",
    "NoOptions",
    "NotFoundError",
    "NullDriver",
    "NullIpam",
    "OutcomeUnknownError",
    "OverlayOptions",
    "PeerHost",
    "PeerProbe",
    "Plan",
    "Policy",
    "Pool",
    "PoolRequest",
    "PortBinding",
    "PortTakenError",
    "Process",
    "PynetworkError",
    "Reached",
    "Report",
    "RequestError",
    "Sandbox",
    "SandboxSpec",
    "SandboxStatistics",
    "Scope",
    "SqliteStore",
    "StaticRoute",
    "Step",
    "Steps",
    "Stopped",
    "StoreError",
    "StoreUnavailableError",
    "Subnet",
    "Surroundings",
    "UnavailableError",
    "UnknownDriverError",
    "Usage",
    "Verb",
]

# Where each name lives. Importing the package costs next to nothing; a program that only catches its
# errors, or only wants the allocator, does not pay for the rest.
_HOMES: Final = {
    "pynetwork.cluster": ("Cluster", "EtcdCluster", "PeerHost", "PeerProbe"),
    "pynetwork.controller": ("Controller",),
    "pynetwork.core": ("Surroundings",),
    "pynetwork.dns": ("DnsStatistics",),
    "pynetwork.doctor": ("Finding",),
    "pynetwork.drivers": ("BridgeDriver", "BridgeOptions", "Driver", "HostDriver", "NoOptions", "NullDriver"),
    "pynetwork.drivers.overlay_options": ("OverlayOptions",),
    "pynetwork.endpoint": ("Endpoint",),
    "pynetwork.engine": ("Report",),
    "pynetwork.errors": (
        "ApplyError",
        "ConflictError",
        "ExhaustedError",
        "HistoryLostError",
        "InvalidValueError",
        "NotFoundError",
        "OutcomeUnknownError",
        "PortTakenError",
        "PynetworkError",
        "RequestError",
        "StoreError",
        "StoreUnavailableError",
        "UnavailableError",
        "UnknownDriverError",
    ),
    "pynetwork.events": ("Event", "EventKind", "EventReader"),
    "pynetwork.ipam": (
        "DefaultIpam",
        "DefaultPool",
        "IpamDriver",
        "NullIpam",
        "Policy",
        "Pool",
        "PoolRequest",
        "Usage",
    ),
    "pynetwork.kernel.ending": ("Stopped",),
    "pynetwork.kernel.figures": ("DiskStatistics", "SandboxStatistics"),
    "pynetwork.kernel.members": ("Process",),
    "pynetwork.kernel.stats": ("InterfaceStatistics",),
    "pynetwork.network": ("Network",),
    "pynetwork.peers": ("Reached",),
    "pynetwork.plan": ("Plan", "Step", "Steps", "Verb"),
    "pynetwork.ports": ("PortBinding",),
    "pynetwork.sandbox": ("Gateway", "Sandbox"),
    "pynetwork.specs": (
        "Capabilities",
        "EndpointSpec",
        "Limits",
        "NetworkSpec",
        "SandboxSpec",
        "StaticRoute",
        "Subnet",
    ),
    "pynetwork.store": ("EtcdStore", "MemoryStore", "SqliteStore"),
    "pynetwork.types": ("HOST_GATEWAY", "HOST_NETNS", "LATER_NETNS", "Scope"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(home), name)
            globals()[name] = value
            return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__
