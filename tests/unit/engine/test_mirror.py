"""The mirror: tables follow the store, whoever writes, and never pay for what nobody wrote."""

from __future__ import annotations

import pytest

from pynetwork import MemoryStore
from pynetwork.engine.mirror import Known, Mirror
from pynetwork.store import Absent, Delete, Put, Unchanged


class Recorder:
    """A table that remembers what it is told."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.decoded: list[object] = []
        self.cleared = 0

    def put(self, key: str, value: str, revision: int, decoded: object = None) -> None:
        self.rows[key] = value
        if decoded is not None:
            self.decoded.append(decoded)

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)

    def clear(self) -> None:
        self.rows.clear()
        self.cleared += 1


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(history=4)


@pytest.fixture
def table() -> Recorder:
    return Recorder()


@pytest.fixture
def mirror(store: MemoryStore, table: Recorder) -> Mirror:
    return Mirror(store, {"a": table, "b": table})


def test_loads_what_there_is_and_ignores_words_it_has_no_table_for(
    store: MemoryStore, mirror: Mirror, table: Recorder
) -> None:
    store.transact([], [Put("a/1", "x"), Put("other/1", "y")])
    mirror.load()
    assert table.rows == {"a/1": "x"}
    assert mirror.revision == 1
    assert table.cleared == 1  # once, though it serves two words


def test_refresh_takes_in_what_others_wrote_and_says_whether_there_was_anything(
    store: MemoryStore, mirror: Mirror, table: Recorder
) -> None:
    mirror.load()
    assert not mirror.refresh()
    store.transact([], [Put("a/1", "x"), Put("b/1", "y")])
    store.transact([], [Delete("b/1")])
    assert mirror.refresh()
    assert table.rows == {"a/1": "x"}
    assert not mirror.refresh()


def test_when_the_history_is_gone_everything_is_read_anew(
    store: MemoryStore, mirror: Mirror, table: Recorder
) -> None:
    store.transact([], [Put("a/old", "x")])
    mirror.load()
    store.transact([], [Delete("a/old")])
    for number in range(50):
        store.transact([], [Put(f"a/{number}", "x")])
        store.transact([], [Delete(f"a/{number}")])
    store.transact([], [Put("a/new", "y")])
    assert store.changes(1) is None
    assert mirror.refresh()
    assert table.rows == {"a/new": "y"}


def test_what_this_process_writes_reaches_the_tables_decoded(mirror: Mirror, table: Recorder) -> None:
    value = object()
    assert mirror.transact([Absent("a/1")], [Known("a/1", "x", decoded=value), Put("a/2", "y")]) == 1
    assert table.rows == {"a/1": "x", "a/2": "y"}
    assert table.decoded == [value]
    mirror.transact([], [Delete("a/1")])
    assert table.rows == {"a/2": "y"}


def test_a_failed_compare_changes_nothing(store: MemoryStore, mirror: Mirror, table: Recorder) -> None:
    store.transact([], [Put("a/1", "x")])
    assert mirror.transact([Absent("a/1")], [Put("a/2", "y")]) is None
    assert mirror.transact([Unchanged("a/1", 7)], [Put("a/2", "y")]) is None
    assert store.get("a/2") is None
    assert "a/2" not in table.rows


def test_what_others_wrote_in_between_is_taken_in_with_ones_own(
    store: MemoryStore, mirror: Mirror, table: Recorder
) -> None:
    mirror.load()
    store.transact([], [Put("b/theirs", "x")])
    assert mirror.transact([], [Put("a/ours", "y")]) == 2
    assert table.rows == {"b/theirs": "x", "a/ours": "y"}
    assert mirror.revision == 2
