"""A controller on a host in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller, MemoryStore
from pynetwork.testing import FakeKernel
from pynetwork.testing.surroundings import Clock, fake_surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def controller(kernel: FakeKernel, store: MemoryStore, clock: Clock) -> Iterator[Controller]:
    around = fake_surroundings(clock=clock)
    with Controller(store=store, kernel=kernel, surroundings=around) as controller:
        yield controller
