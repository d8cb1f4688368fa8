"""A cluster in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.cluster.hosts import World

from pynetwork import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for host in world.hosts.values():
        host.controller.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return a function that has noted what stores are asked for: keys by ``get``, prefixes by ``list``."""

    def note(method: str) -> list[str]:
        noted: list[str] = []
        ask = getattr(MemoryStore, method)

        def note_one(store: MemoryStore, what: str) -> Any:
            noted.append(what)
            return ask(store, what)

        monkeypatch.setattr(MemoryStore, method, note_one)
        return noted

    return note
