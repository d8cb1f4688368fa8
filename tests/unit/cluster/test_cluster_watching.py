"""Waiting for changes in networks, when the store fails in between."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pynetwork.cluster import watching
from pynetwork.cluster.layout import NAMES, peer_key
from pynetwork.cluster.watching import Listed, Watches
from pynetwork.errors import StoreError
from pynetwork.store import Change, Delete, MemoryStore, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.store import Changes

PATIENCE_SECONDS = 60


class FailingStore(MemoryStore):
    """One that does not answer while it is told not to."""

    is_failing = False

    def changes(self, since: int) -> Changes | None:
        if self.is_failing:
            msg = "no answer"
            raise StoreError(msg)
        return super().changes(since)


@pytest.fixture
def told() -> list[Listed | Change]:
    return []


@pytest.fixture
def noted() -> list[StoreError]:
    return []


@pytest.fixture
def watches(
    told: list[Listed | Change], noted: list[StoreError], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[MemoryStore], Watches]]:
    monkeypatch.setattr(watching, "_RETRY_SECONDS", 0.0)
    opened = []

    def open_watches(store: MemoryStore) -> Watches:
        opened.append(Watches(store, told.append, noted.append))
        return opened[-1]

    yield open_watches
    for each in opened:
        each.close()
        each.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def keys_of_changes(told: list[Listed | Change]) -> list[str]:
    return [each.key for each in told if isinstance(each, Change)]


def put(store: MemoryStore, network: str, endpoint: str) -> int:
    revision = store.transact([], [Put(peer_key(network, endpoint), "x")])
    assert revision is not None
    return revision


def test_what_was_missed_meanwhile_is_told_as_a_whole(
    watches: Callable[[MemoryStore], Watches], told: list[Listed | Change], noted: list[StoreError]
) -> None:
    store = FailingStore()
    found = watches(store)
    networks = {"red": (1, 0), "blue": (1, 0)}
    found.follow(networks)
    put(store, "red", "a")
    wait_for(lambda: keys_of_changes(told) == [peer_key("red", "a")])
    store.is_failing = True
    wait_for(lambda: found.is_due)
    assert noted
    put(store, "red", "b")
    store.transact([], [Delete(peer_key("red", "a"))])
    with pytest.raises(StoreError, match="no answer"):
        found.follow(networks)  # notices, and cannot yet
    store.is_failing = False
    found.follow(networks)
    listed = [each for each in told if isinstance(each, Listed)]
    assert {each.network for each in listed} >= {"red", "blue"}
    assert [e.key for each in listed for e in each.snapshot.entries if each.network == "red"][-1:] == [
        peer_key("red", "b")
    ]
    revision = put(store, "blue", "c")
    wait_for(lambda: Change(peer_key("blue", "c"), "x", revision) in told)


def test_a_network_whose_history_is_gone_is_listed_and_followed_from_there(
    watches: Callable[[MemoryStore], Watches], told: list[Listed | Change]
) -> None:
    store = MemoryStore()
    found = watches(store)
    put(store, "red", "a")
    found.follow({"red": (1, 777)})
    listed, names = told
    assert listed == Listed("red", store.list(peer_key("red")))
    assert names == Listed("", store.list(NAMES))
    revision = put(store, "red", "b")
    wait_for(lambda: told[2:] == [Change(peer_key("red", "b"), "x", revision)])


def test_a_network_that_went_and_came_again_is_followed_anew(
    watches: Callable[[MemoryStore], Watches], told: list[Listed | Change]
) -> None:
    store = MemoryStore()
    found = watches(store)
    found.follow({"red": (1, 0)})
    first = put(store, "red", "a")
    wait_for(lambda: keys_of_changes(told) == [peer_key("red", "a")])
    found.follow({})
    put(store, "red", "b")
    found.follow({"red": (2, first)})
    wait_for(lambda: keys_of_changes(told) == [peer_key("red", "a"), peer_key("red", "b")])
