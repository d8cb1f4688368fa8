"""Fakes, chaos and private hosts: what pynetwork tests itself with, for the tests of its users.

* :class:`FakeKernel`: a host in memory that refuses and removes what Linux does.
* :class:`Chaos`, :class:`ChaosStore`: fail or die at a chosen step.
* :func:`private_host`: the real kernel, in namespaces of the test's own.
* :class:`Child`, :class:`SuicidalKernel`, :class:`SuicidalStore`: real processes, really killed.
* ``pynetwork.testing.plugin``: fixtures for pytest.
"""

from __future__ import annotations

from pynetwork.testing._model import Device
from pynetwork.testing.chaos import Chaos, ChaosStore, Fate, Killed
from pynetwork.testing.fake_kernel import FakeKernel
from pynetwork.testing.hosts import HostNamespace, LeakError, PrivateHost, private_host
from pynetwork.testing.plans import assert_plan
from pynetwork.testing.processes import Child, SuicidalKernel, SuicidalStore, reach
from pynetwork.testing.surroundings import Clock, fake_surroundings

__all__ = [
    "Chaos",
    "ChaosStore",
    "Child",
    "Clock",
    "Device",
    "FakeKernel",
    "Fate",
    "HostNamespace",
    "Killed",
    "LeakError",
    "PrivateHost",
    "SuicidalKernel",
    "SuicidalStore",
    "assert_plan",
    "fake_surroundings",
    "private_host",
    "reach",
]
