"""What every backend of the store promises, whoever serves it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import InvalidValueError, StoreError
from pynetwork.store import (
    Absent,
    Change,
    Changes,
    Compare,
    Delete,
    Entry,
    Operation,
    PrefixUnchanged,
    Put,
    Snapshot,
    Store,
    Unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def write(store: Store, *operations: Operation) -> int:
    """Write without compares, so that it cannot be refused."""
    revision = store.transact([], operations)
    assert revision is not None
    return revision


class TestReading:
    def test_an_empty_store_is_at_revision_zero(self, store: Store) -> None:
        assert store.list("") == Snapshot(0, ())
        assert store.changes(0) == Changes(0, ())
        assert store.get("a") is None

    def test_get_returns_the_value_and_the_revision_of_its_put(self, store: Store) -> None:
        write(store, Put("a", "1"))
        second = write(store, Put("b", "2"))
        write(store, Put("c", "3"))
        assert store.get("b") == Entry("b", "2", second)

    def test_list_returns_what_is_under_the_prefix_by_key(self, store: Store) -> None:
        first = write(store, Put("n/b", "2"), Put("n/a", "1"), Put("m", "0"), Put("n", "0"))
        last = write(store, Put("o", "3"))
        assert store.list("n/") == Snapshot(last, (Entry("n/a", "1", first), Entry("n/b", "2", first)))

    def test_a_prefix_is_text_not_a_path_or_a_pattern(self, store: Store) -> None:
        write(store, *(Put(key, "") for key in ("a%", "a_", "a*", "ab", "A%", "a%/c")))
        assert [entry.key for entry in store.list("a%").entries] == ["a%", "a%/c"]

    @pytest.mark.parametrize("end", ["\x00", "~", "\ud7ff", "\uffff", "\U0010ffff"])
    def test_a_prefix_may_end_in_any_character(self, store: Store, end: str) -> None:
        inside = sorted(["a" + end, "a" + end + "\x00", "a" + end + "\U0010ffff" * 2])
        write(store, *(Put(key, "") for key in (*inside, "a", "b", "\U0010ffff" * 3)))
        assert [entry.key for entry in store.list("a" + end).entries] == inside

    @pytest.mark.parametrize("value", ["", "\x00", 'a\x00"b', "é\U0001f600", "x" * 100_000])
    def test_a_value_comes_back_as_it_was_put(self, store: Store, value: str) -> None:
        write(store, Put("a", value))
        entry = store.get("a")
        assert entry is not None
        assert entry.value == value


class TestTransactions:
    def test_all_operations_of_a_transaction_share_its_revision(self, store: Store) -> None:
        revision = write(store, Put("a", "1"), Put("b", "2"))
        assert store.list("") == Snapshot(revision, (Entry("a", "1", revision), Entry("b", "2", revision)))

    def test_the_revision_grows_by_transaction(self, store: Store) -> None:
        revisions = [write(store, Put("a", "same")) for _ in range(3)]
        assert revisions == sorted(set(revisions))

    def test_deleting_what_is_missing_changes_nothing(self, store: Store) -> None:
        revision = write(store, Put("a", "1"))
        assert write(store, Delete("b")) == revision
        assert store.changes(revision) == Changes(revision, ())

    def test_an_effective_operation_beside_an_idle_one_counts(self, store: Store) -> None:
        before = write(store, Put("a", "1"), Put("b", "1"))
        after = write(store, Delete("a"), Delete("missing"))
        assert after > before
        assert store.changes(before) == Changes(after, (Change("a", None, after),))

    def test_nothing_to_write_is_a_look_at_the_compares(self, store: Store) -> None:
        assert store.transact([], []) == 0
        revision = write(store, Put("a", "1"))
        assert store.transact([Unchanged("a", revision)], []) == revision
        assert store.transact([Absent("a")], []) is None

    def test_a_deleted_key_is_gone(self, store: Store) -> None:
        write(store, Put("a", "1"))
        revision = write(store, Delete("a"))
        assert store.get("a") is None
        assert store.list("") == Snapshot(revision, ())
        assert store.transact([Absent("a")], []) == revision

    def test_a_deleted_key_can_be_put_again(self, store: Store) -> None:
        write(store, Put("a", "1"))
        write(store, Delete("a"))
        revision = write(store, Put("a", "2"))
        assert store.get("a") == Entry("a", "2", revision)

    def test_a_key_may_be_touched_once_only(self, store: Store) -> None:
        with pytest.raises(InvalidValueError, match=r"once only: \['a'\]"):
            store.transact([], [Put("a", "1"), Put("b", "1"), Delete("a")])
        assert store.list("") == Snapshot(0, ())

    @pytest.mark.parametrize("operation", [Put("", "1"), Delete("")])
    def test_an_empty_key_is_refused(self, store: Store, operation: Operation) -> None:
        with pytest.raises(InvalidValueError, match="empty"):
            store.transact([], [operation])

    @pytest.mark.parametrize("operation", [Put("\ud800", "1"), Put("a", "\ud800"), Delete("\ud800")])
    def test_text_that_is_no_unicode_is_refused(self, store: Store, operation: Operation) -> None:
        with pytest.raises(InvalidValueError, match="cannot be encoded"):
            store.transact([], [Put("b", "1"), operation])
        assert store.list("") == Snapshot(0, ())


class TestCompares:
    """In the store: ``n/a`` put at revision 1 and again at 3, ``n/b`` at 2, ``gone`` deleted at 5."""

    @pytest.fixture
    def filled(self, store: Store) -> Store:
        revisions = [
            write(store, Put("n/a", "1")),
            write(store, Put("n/b", "2")),
            write(store, Put("n/a", "3")),
            write(store, Put("n/gone", "4")),
            write(store, Delete("n/gone")),
        ]
        assert revisions == [1, 2, 3, 4, 5]
        return store

    @pytest.mark.parametrize(
        "compare",
        [
            Absent("n"),
            Absent("n/gone"),
            Unchanged("n/a", 3),
            PrefixUnchanged("n/", 3),
            PrefixUnchanged("n/", 1000),
            PrefixUnchanged("n/", 1 << 70),
            PrefixUnchanged("n/b", 2),
            PrefixUnchanged("m", 0),
        ],
    )
    def test_what_holds_lets_the_operations_through(self, filled: Store, compare: Compare) -> None:
        assert filled.transact([compare], [Put("z", "")]) == 6
        assert filled.get("z") == Entry("z", "", 6)

    @pytest.mark.parametrize(
        "compare",
        [
            Absent("n/a"),
            Unchanged("n/a", 1),
            Unchanged("n/a", 1 << 70),
            Unchanged("n/missing", 0),
            Unchanged("n/gone", 4),
            Unchanged("n/gone", 5),
            PrefixUnchanged("n/", 2),
            PrefixUnchanged("n/a", 2),
            PrefixUnchanged("", 0),
        ],
    )
    def test_what_does_not_hold_stops_all_operations(self, filled: Store, compare: Compare) -> None:
        before = filled.list("")
        assert filled.transact([Absent("x"), compare, Absent("y")], [Put("z", ""), Delete("n/a")]) is None
        assert filled.list("") == before
        assert filled.changes(5) == Changes(5, ())

    @pytest.mark.parametrize("age", [0, 1, 200, 300])
    def test_a_prefix_may_have_been_unchanged_for_long(self, filled: Store, age: int) -> None:
        last = write(filled, Put("n/c", "6"))
        for n in range(age):
            write(filled, Put(f"m/{n % 7}", ""), Put("o", ""))
        assert filled.transact([PrefixUnchanged("n/", last)], []) == last + age
        assert filled.transact([PrefixUnchanged("n/", last - 1)], []) is None


class TestChanges:
    def test_changes_come_in_order_of_revision(self, store: Store) -> None:
        since = write(store, Put("c", "0"))
        first = write(store, Put("b", "1"))
        second = write(store, Put("a", "2"))
        assert store.changes(since) == Changes(second, (Change("b", "1", first), Change("a", "2", second)))

    def test_a_key_appears_once_as_it_is_now(self, store: Store) -> None:
        write(store, Put("a", "1"))
        write(store, Put("b", "1"))
        last = write(store, Put("a", "2"))
        news = store.changes(0)
        assert news is not None
        assert [change.key for change in news.changes] == ["b", "a"]
        assert news.changes[-1] == Change("a", "2", last)

    def test_deleted_then_put_reads_as_put(self, store: Store) -> None:
        since = write(store, Put("a", "1"))
        write(store, Delete("a"))
        last = write(store, Put("a", "2"))
        assert store.changes(since) == Changes(last, (Change("a", "2", last),))

    def test_put_then_deleted_reads_as_deleted(self, store: Store) -> None:
        write(store, Put("a", "1"))
        since = write(store, Put("a", "2"))
        last = write(store, Delete("a"))
        assert store.changes(since) == Changes(last, (Change("a", None, last),))

    def test_another_handle_sees_the_changes(self, open_store: Callable[..., Store]) -> None:
        mine, other = open_store(), open_store()
        assert mine.changes(0) == Changes(0, ())
        revision = write(other, Put("a", "1"))
        assert mine.changes(0) == Changes(revision, (Change("a", "1", revision),))
        assert mine.changes(revision) == Changes(revision, ())
        assert mine.get("a") == other.get("a")

    @pytest.mark.parametrize("since", [-1, 2, 1 << 62, 1 << 70])
    def test_a_revision_of_another_store_is_unknown(self, store: Store, since: int) -> None:
        write(store, Put("a", "1"))
        assert store.changes(since) is None

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


class TestHistory:
    """Every change in its order, and all entries as they once were."""

    def test_what_was_overtaken_is_told_as_well(self, store: Store) -> None:
        operations: list[Operation] = [
            Put("a", "1"),
            Put("a", "2"),
            Delete("a"),
            Put("b", "1"),
            Put("a", "3"),
        ]
        last = [write(store, operation) for operation in operations][-1]
        assert last == 5
        assert store.history(0) == Changes(
            5,
            (
                Change("a", "1", 1),
                Change("a", "2", 2),
                Change("a", None, 3),
                Change("b", "1", 4),
                Change("a", "3", 5),
            ),
        )
        assert store.history(4) == Changes(5, (Change("a", "3", 5),))
        assert store.history(5) == Changes(5, ())

    def test_the_past_is_as_it_was(self, store: Store) -> None:
        write(store, Put("b", "1"), Put("a", "1"))
        write(store, Put("a", "2"))
        write(store, Delete("a"))
        write(store, Put("a", "3"))
        first, second, third, fourth = (store.past(revision) for revision in range(1, 5))
        assert first == Snapshot(1, (Entry("a", "1", 1), Entry("b", "1", 1)))
        assert second == Snapshot(2, (Entry("a", "2", 2), Entry("b", "1", 1)))
        assert third == Snapshot(3, (Entry("b", "1", 1),))
        assert fourth == store.list("")
        assert store.past(0) == Snapshot(0, ())

    def test_a_limit_never_cuts_a_transaction(self, store: Store) -> None:
        for n in range(3):
            write(store, *(Put(f"{place}", f"{n}") for place in range(4)))
        found = store.history(0, limit=5)
        assert found is not None
        assert found.revision == 2
        assert [(change.revision, change.key) for change in found.changes] == [
            (revision, str(place)) for revision in (1, 2) for place in range(4)
        ]

    @pytest.mark.parametrize("revision", [-1, 2, 1 << 62, 1 << 70])
    def test_a_revision_of_another_store_is_unknown(self, store: Store, revision: int) -> None:
        write(store, Put("a", "1"))
        assert store.history(revision) is None
        assert store.past(revision) is None

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

    def test_changes_know_when_they_were(self, store: Store) -> None:
        before = time.time()
        write(store, Put("a", "1"), Put("b", "1"))
        for found in (store.history(0), store.changes(0)):
            assert found is not None
            first, second = (change.time for change in found.changes)
            assert before <= first == second <= time.time()

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


class TestWatching:
    def test_a_watch_yields_the_past_then_the_present(self, store: Store) -> None:
        since = write(store, Put("n/0", "0"))
        write(store, Put("n/1", "1"), Put("m", "not this"))
        changes = store.watch("n/", since, poll=0.001)
        assert next(changes).key == "n/1"
        revision = write(store, Delete("n/0"))
        assert next(changes) == Change("n/0", None, revision)

    def test_a_watch_sees_what_another_thread_writes(self, open_store: Callable[..., Store]) -> None:
        changes = open_store().watch("", 0, poll=0.001)
        writer = threading.Timer(0.02, lambda: write(open_store(), Put("a", "1")))
        writer.start()
        assert next(changes).key == "a"
        writer.join()

    def test_a_watch_ends_when_told_to_stop(self, store: Store) -> None:
        stop = threading.Event()
        threading.Timer(0.02, stop.set).start()
        assert list(store.watch("", 0, poll=60, stop=stop)) == []

    def test_a_watch_says_that_the_history_is_gone(self, store: Store) -> None:
        with pytest.raises(StoreError, match="after revision 7 are no longer known; list it again"):
            next(store.watch("n/", 7))


class TestClosing:
    def test_closing_twice_is_fine(self, store: Store) -> None:
        store.close()
        store.close()

    def test_a_store_is_a_context_manager(self, open_store: Callable[..., Store]) -> None:
        with open_store() as store:
            revision = write(store, Put("a", "1"))
        assert open_store().get("a") == Entry("a", "1", revision)


class TestThreads:
    @pytest.fixture
    def handles(self, open_store: Callable[..., Store]) -> list[Store]:
        shared = open_store()
        return [shared] * 4 + [open_store() for _ in range(4)]

    def test_eight_threads_lose_no_update(self, handles: list[Store]) -> None:
        """Half of them share a handle, the others have their own."""

        def count(store: Store) -> None:
            for _ in range(200):
                while not increment(store, "counter"):
                    pass

        threads = [threading.Thread(target=count, args=(store,)) for store in handles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entry = handles[0].get("counter")
        assert entry is not None
        assert entry.value == str(8 * 200)


def increment(store: Store, key: str) -> bool:
    """Add one to the number at *key*, unless somebody else was faster."""
    entry = store.get(key)
    if entry is None:
        return store.transact([Absent(key)], [Put(key, "1")]) is not None
    return store.transact([Unchanged(key, entry.revision)], [Put(key, str(int(entry.value) + 1))]) is not None
