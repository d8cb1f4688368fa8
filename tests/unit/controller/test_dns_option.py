"""Who serves names is said once, and checked before anything is opened."""

from __future__ import annotations

import pytest

from pynetwork import Controller, DnsStatistics, InvalidValueError, MemoryStore
from pynetwork.testing import FakeKernel
from pynetwork.testing.surroundings import fake_surroundings


@pytest.mark.parametrize("dns", ["", "on", None, True, 5])
def test_what_it_can_be_is_told(dns: str) -> None:
    with pytest.raises(InvalidValueError, match="one of here, companion, off"):
        Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings(), dns=dns)


def test_a_companion_needs_a_state_directory() -> None:
    with pytest.raises(InvalidValueError, match="needs a state directory"):
        Controller(
            store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings(), dns="companion"
        )


def test_on_a_fake_host_nobody_serves_and_nothing_is_counted() -> None:
    with Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings()) as controller:
        network = controller.new_network("bridge", "n")
        network.create_endpoint("e").join(controller.new_sandbox("s"))
        assert controller.dns_statistics() == DnsStatistics()
        assert controller.reconcile().is_clean
        controller.erase()
