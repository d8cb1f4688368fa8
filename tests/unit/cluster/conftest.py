"""A cluster in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.cluster.hosts import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for host in world.hosts.values():
        host.controller.close()
