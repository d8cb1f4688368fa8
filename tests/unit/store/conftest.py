"""Fixtures of the store tests: every backend behind one factory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pynetwork.store import MemoryStore, SqliteStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """
    ``open_store(state="1", history=4096)`` opens a handle to the state of that name, empty at first.

    A new backend is a new param, and a branch here that honours both arguments.
    """
    memories: dict[str, MemoryStore] = {}
    with ExitStack() as handles:

        def open_memory(state: str = "1", history: int = 4096) -> Store:
            return memories.setdefault(state, MemoryStore(history=history))

        def open_sqlite(state: str = "1", history: int = 4096) -> Store:
            return handles.enter_context(SqliteStore(tmp_path / state, history=history))

        yield {"memory": open_memory, "sqlite": open_sqlite}[request.param]


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    """A handle to an empty store of each backend in turn."""
    return open_store()
