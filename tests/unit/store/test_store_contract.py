"""The embedded backends keep the promises of a store, and count their revisions one by one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.store_contract import (  # noqa: F401 - pytest runs what is imported
    TestChanges,
    TestClosing,
    TestCompares,
    TestHistory,
    TestReading,
    TestThreads,
    TestTransactions,
    TestWatching,
    write,
)
from tests.store_model import check_against_the_model

from pynetwork.store import Change, Changes, Delete, Entry, Put, Snapshot, Store

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_store_behaves_like_a_dict_with_a_memory(open_store: Callable[..., Store]) -> None:
    check_against_the_model(open_store, examples=60, counts=True)


class TestRevisions:
    def test_an_empty_store_is_at_revision_zero(self, store: Store) -> None:
        assert store.list("") == Snapshot(0, ())
        assert store.changes(0) == Changes(0, ())

    def test_revisions_are_counted_without_a_gap(self, store: Store) -> None:
        assert [write(store, Put("a", f"{n}")) for n in range(3)] == [1, 2, 3]
        assert write(store, Delete("a"), Put("b", "")) == 4

    def test_what_has_no_effect_is_not_counted(self, store: Store) -> None:
        assert store.transact([], []) == 0
        assert write(store, Put("a", "1")) == 1
        assert write(store, Delete("b")) == 1
        assert store.changes(2) is None


class TestTrimming:
    def test_trimmed_history_is_admitted(self, open_store: Callable[..., Store]) -> None:
        store = open_store(history=8)  # a key that is put and deleted counts twice
        revisions = [
            write(store, operation) for n in range(50) for operation in (Put(f"{n}", ""), Delete(f"{n}"))
        ]
        assert store.changes(revisions[0]) is None
        recent = store.changes(revisions[-9])
        assert recent is not None
        assert [change.key for change in recent.changes] == ["46", "47", "48", "49"]

    def test_trimming_keeps_what_exists(self, open_store: Callable[..., Store]) -> None:
        store = open_store(history=2)
        first = write(store, Put("old", "1"))
        for n in range(20):
            write(store, Put(f"{n}", ""))
            last = write(store, Delete(f"{n}"))
        assert store.list("") == Snapshot(last, (Entry("old", "1", first),))

    def test_trimming_never_turns_the_revision_back(self, open_store: Callable[..., Store]) -> None:
        store = open_store(history=2)
        write(store, *(Put(f"{n}", "") for n in range(10)))
        last = write(store, *(Delete(f"{n}") for n in range(10)))
        assert store.list("") == Snapshot(last, ())
        assert write(store, Put("a", "")) == last + 1
        assert store.changes(last) == Changes(last + 1, (Change("a", "", last + 1),))

    def test_it_is_bounded_and_what_is_left_is_complete(self, open_store: Callable[..., Store]) -> None:
        store = open_store(history=16)
        write(store, Put("still", "here"))
        for n in range(100):
            last = write(store, Put("a", f"{n}"))
        assert store.history(1) is None
        assert store.past(1) is None
        found = store.history(last - 16)
        assert found is not None
        assert [change.value for change in found.changes] == [f"{n}" for n in range(84, 100)]
        assert store.past(last - 16) == Snapshot(
            last - 16, (Entry("a", "83", last - 16), Entry("still", "here", 1))
        )

    def test_other_processes_history_is_remembered_and_trimmed_too(
        self, open_store: Callable[..., Store]
    ) -> None:
        one, other = open_store(history=8), open_store(history=8)
        for n in range(40):
            write(one if n % 3 else other, Put("a", f"{n}"))
        for store in (one, other):
            assert store.history(0) is None
            found = store.history(32)
            assert found is not None
            assert [change.value for change in found.changes] == [f"{n}" for n in range(32, 40)]

    def test_changes_know_when_they_were(self, store: Store) -> None:
        before = time.time()
        write(store, Put("a", "1"), Put("b", "1"))
        found = store.changes(0)
        assert found is not None
        first, second = (change.time for change in found.changes)
        assert before <= first == second <= time.time()
