"""What every backend of the store promises, whoever serves it.

The tests of a backend import these classes, and have a fixture ``open_store``: ``open_store(state="1")``
opens a handle to the state of that name, empty at first. Nobody else writes to the store meanwhile, but
its revisions may have begun anywhere.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import attrs
import pytest

from pynetwork.errors import HistoryLostError, InvalidValueError
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


def revision_of(store: Store) -> int:
    """Return the revision that the store is at."""
    return store.list("").revision


class TestReading:
    def test_an_empty_store_has_a_revision_and_nothing_else(self, store: Store) -> None:
        revision = revision_of(store)
        assert revision >= 0
        assert store.list("") == Snapshot(revision, ())
        assert store.changes(revision) == Changes(revision, ())
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
        before = write(store, Put("a", "1"))
        after = write(store, Delete("b"))
        assert after >= before
        assert store.changes(before) == Changes(after, ())
        assert store.list("") == Snapshot(after, (Entry("a", "1", before),))

    def test_an_effective_operation_beside_an_idle_one_counts(self, store: Store) -> None:
        before = write(store, Put("a", "1"), Put("b", "1"))
        after = write(store, Delete("a"), Delete("missing"))
        assert after > before
        assert store.changes(before) == Changes(after, (Change("a", None, after),))

    def test_nothing_to_write_is_a_look_at_the_compares(self, store: Store) -> None:
        assert store.transact([], []) == revision_of(store)
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
        before = store.list("")
        with pytest.raises(InvalidValueError, match=r"once only: \['a'\]"):
            store.transact([], [Put("a", "1"), Put("b", "1"), Delete("a")])
        assert store.list("") == before

    @pytest.mark.parametrize("operation", [Put("", "1"), Delete("")])
    def test_an_empty_key_is_refused(self, store: Store, operation: Operation) -> None:
        with pytest.raises(InvalidValueError, match="empty"):
            store.transact([], [operation])

    @pytest.mark.parametrize("operation", [Put("\ud800", "1"), Put("a", "\ud800"), Delete("\ud800")])
    def test_text_that_is_no_unicode_is_refused(self, store: Store, operation: Operation) -> None:
        before = store.list("")
        with pytest.raises(InvalidValueError, match="cannot be encoded"):
            store.transact([], [Put("b", "1"), operation])
        assert store.list("") == before


class TestCompares:
    """
    In the store: ``n/a`` put at revision 1 and again at 3, ``n/b`` at 2, ``n/gone`` at 4, deleted at 5.

    These are numbers for the tests; `real` turns them into the store's revisions.
    """

    @pytest.fixture
    def revisions(self, store: Store) -> list[int]:
        puts = [Put("n/a", "1"), Put("n/b", "2"), Put("n/a", "3"), Put("n/gone", "4")]
        revisions = [revision_of(store), *(write(store, operation) for operation in puts)]
        revisions.append(write(store, Delete("n/gone")))
        assert revisions == sorted(set(revisions))
        return revisions

    def real(self, compare: Compare, revisions: list[int]) -> Compare:
        if isinstance(compare, Absent) or compare.revision >= len(revisions):
            return compare
        return attrs.evolve(compare, revision=revisions[compare.revision])

    @pytest.mark.parametrize(
        "compare",
        [
            Absent("n"),
            Absent("n/gone"),
            Unchanged("n/a", 3),
            PrefixUnchanged("n/", 3),
            PrefixUnchanged("n/", 1 << 40),
            PrefixUnchanged("n/", 1 << 70),
            PrefixUnchanged("n/b", 2),
            PrefixUnchanged("m", 0),
        ],
    )
    def test_what_holds_lets_the_operations_through(
        self, store: Store, revisions: list[int], compare: Compare
    ) -> None:
        revision = store.transact([self.real(compare, revisions)], [Put("z", "")])
        assert revision is not None
        assert revision > revisions[-1]
        assert store.get("z") == Entry("z", "", revision)

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
    def test_what_does_not_hold_stops_all_operations(
        self, store: Store, revisions: list[int], compare: Compare
    ) -> None:
        before = store.list("")
        compares = [Absent("x"), self.real(compare, revisions), Absent("y")]
        assert store.transact(compares, [Put("z", ""), Delete("n/a")]) is None
        assert store.list("") == before
        assert store.changes(before.revision) == Changes(before.revision, ())

    @pytest.mark.parametrize("compare", [Unchanged("n/missing", 0), Unchanged("n/missing", -1)])
    def test_what_is_missing_is_unchanged_since_nothing(self, store: Store, compare: Compare) -> None:
        """Although stores say 0 of a key that does not exist."""
        assert store.transact([compare], []) is None

    @pytest.mark.parametrize("age", [0, 1, 200, 300])
    def test_a_prefix_may_have_been_unchanged_for_long(
        self, store: Store, revisions: list[int], age: int
    ) -> None:
        last = write(store, Put("n/c", "6"))
        now = [write(store, Put(f"m/{n % 7}", ""), Put("o", "")) for n in range(age)]
        assert store.transact([PrefixUnchanged("n/", last)], []) == [last, *now][-1]
        assert store.transact([PrefixUnchanged("n/", last - 1)], []) is None


class TestChanges:
    def test_changes_come_in_order_of_revision(self, store: Store) -> None:
        since = write(store, Put("c", "0"))
        first = write(store, Put("b", "1"))
        second = write(store, Put("a", "2"))
        assert store.changes(since) == Changes(second, (Change("b", "1", first), Change("a", "2", second)))

    def test_a_key_appears_once_as_it_is_now(self, store: Store) -> None:
        before = revision_of(store)
        write(store, Put("a", "1"))
        write(store, Put("b", "1"))
        last = write(store, Put("a", "2"))
        news = store.changes(before)
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
        before = revision_of(mine)
        revision = write(other, Put("a", "1"))
        assert mine.changes(before) == Changes(revision, (Change("a", "1", revision),))
        assert mine.changes(revision) == Changes(revision, ())
        assert mine.get("a") == other.get("a")

    def test_many_changes_of_all_kinds_bring_an_old_reader_up_to_date(self, store: Store) -> None:
        since = write(store, *(Put(f"old/{n:02}", "1") for n in range(50)))
        known = {entry.key: entry.value for entry in store.list("").entries}
        write(store, *(Delete(f"old/{n:02}") for n in range(20)))
        write(
            store,
            *(Put(f"new/{n:02}", "1") for n in range(20)),
            *(Put(f"old/{n:02}", "2") for n in range(10)),
        )
        last = write(store, *(Delete(f"new/{n:02}") for n in range(5)), Delete("old/49"))
        news = store.changes(since)
        assert news is not None
        assert news.revision == last
        assert [each.revision for each in news.changes] == sorted(each.revision for each in news.changes)
        for change in news.changes:
            assert since < change.revision <= last
            if change.value is None:
                known.pop(change.key, None)
            else:
                known[change.key] = change.value
        assert known == {entry.key: entry.value for entry in store.list("").entries}

    @pytest.mark.parametrize("since", [-1, 1 << 40, 1 << 62, 1 << 70])
    def test_a_revision_of_another_store_is_unknown(self, store: Store, since: int) -> None:
        write(store, Put("a", "1"))
        assert store.changes(since) is None


class TestHistory:
    """Every change in its order, and all entries as they once were."""

    def test_what_was_overtaken_is_told_as_well(self, store: Store) -> None:
        start = revision_of(store)
        operations: list[Operation] = [
            *(Put("a", "1"), Put("a", "2"), Delete("a"), Put("b", "1"), Put("a", "3")),
        ]
        revisions = [write(store, operation) for operation in operations]
        expected = tuple(
            Change(operation.key, operation.value if isinstance(operation, Put) else None, revision)
            for operation, revision in zip(operations, revisions, strict=True)
        )
        found = store.history(start)
        assert found is not None
        assert found.changes == expected
        assert found.revision >= revisions[-1]
        assert store.history(found.revision) == Changes(found.revision, ())
        later = store.history(revisions[-2])
        assert later is not None
        assert later.changes == expected[-1:]

    def test_the_past_is_as_it_was(self, store: Store) -> None:
        start = revision_of(store)
        first = write(store, Put("b", "1"), Put("a", "1"))
        second = write(store, Put("a", "2"))
        third = write(store, Delete("a"))
        fourth = write(store, Put("a", "3"))
        b = Entry("b", "1", first)
        assert store.past(first) == Snapshot(first, (Entry("a", "1", first), b))
        assert store.past(second) == Snapshot(second, (Entry("a", "2", second), b))
        assert store.past(third) == Snapshot(third, (b,))
        assert store.past(fourth) == store.list("")
        assert store.past(start) == Snapshot(start, ())

    def test_a_limit_never_cuts_a_transaction(self, store: Store) -> None:
        start = revision_of(store)
        revisions = [write(store, *(Put(f"{place}", f"{n}") for place in range(4))) for n in range(3)]
        found = store.history(start, limit=5)
        assert found is not None
        assert found.revision == revisions[1]
        assert sorted((change.revision, change.key) for change in found.changes) == [
            (revision, str(place)) for revision in revisions[:2] for place in range(4)
        ]

    @pytest.mark.parametrize("revision", [-1, 1 << 40, 1 << 62, 1 << 70])
    def test_a_revision_of_another_store_is_unknown(self, store: Store, revision: int) -> None:
        write(store, Put("a", "1"))
        assert store.history(revision) is None
        assert store.past(revision) is None

    def test_it_is_read_in_pieces(self, store: Store) -> None:
        reached = revision_of(store)
        written = [write(store, Put("a", f"{n}"), Put(f"{n}", "")) for n in range(20)]
        told: list[Change] = []
        while reached < written[-1]:
            news = store.history(reached, limit=3)
            assert news is not None
            assert news.revision > reached
            told += news.changes
            reached = news.revision
        assert [change.revision for change in told] == [each for each in written for _ in range(2)]

    def test_it_knows_when_it_was(self, store: Store) -> None:
        start = revision_of(store)
        before = time.time()
        write(store, Put("a", "1"), Put("b", "1"))
        found = store.history(start)
        assert found is not None
        first, second = (change.time for change in found.changes)
        assert before <= first == second <= time.time()


class TestWatching:
    def test_a_watch_yields_the_past_then_the_present(self, store: Store) -> None:
        since = write(store, Put("n/0", "0"))
        write(store, Put("n/1", "1"), Put("m", "not this"))
        changes = store.watch("n/", since, poll=0.001)
        assert next(changes).key == "n/1"
        revision = write(store, Delete("n/0"))
        assert next(changes) == Change("n/0", None, revision)

    def test_a_watch_sees_what_another_thread_writes(self, open_store: Callable[..., Store]) -> None:
        store = open_store()
        changes = store.watch("", revision_of(store), poll=0.001)
        writer = threading.Timer(0.02, lambda: write(open_store(), Put("a", "1")))
        writer.start()
        assert next(changes).key == "a"
        writer.join()

    def test_a_watch_ends_when_told_to_stop(self, store: Store) -> None:
        stop = threading.Event()
        timer = threading.Timer(0.02, stop.set)
        timer.start()
        assert list(store.watch("", revision_of(store), poll=60, stop=stop)) == []
        timer.join()

    def test_a_watch_says_that_the_history_is_gone(self, store: Store) -> None:
        with pytest.raises(
            HistoryLostError, match="after revision 777777 are no longer known; list it again"
        ):
            next(store.watch("n/", 777777))

    def test_a_watch_that_is_dropped_leaves_nothing_behind(self, store: Store) -> None:
        """The suite looks for threads and descriptors."""
        changes = store.watch("", revision_of(store))
        write(store, Put("a", "1"))
        assert next(changes).key == "a"
        assert isinstance(changes, Generator)
        changes.close()


class TestWatchingSeveral:
    """One watcher, one thread that takes the changes."""

    def test_each_prefix_is_told_from_its_own_revision_on(self, store: Store) -> None:
        since = write(store, Put("a/0", "0"), Put("b/0", "0"), Put("c/0", "0"))
        later = write(store, Put("a/1", "1"), Put("b/1", "1"))
        last = write(store, Put("c/1", "1"), Put("a/2", "2"))
        watcher = store.watcher()
        watcher.add("a/", since)
        watcher.add("b/", later)
        watcher.add("c/", later)
        changes = watcher.changes(poll=0.001)
        found = {next(changes) for _ in range(3)}
        assert found == {Change("a/1", "1", later), Change("c/1", "1", last), Change("a/2", "2", last)}
        gone = write(store, Delete("b/0"))
        assert next(changes) == Change("b/0", None, gone)
        watcher.close()
        assert list(changes) == []

    def test_prefixes_come_and_go_while_another_thread_waits(self, store: Store) -> None:
        watcher = store.watcher()
        told: queue.SimpleQueue[Change] = queue.SimpleQueue()

        def take() -> None:
            for change in watcher.changes(poll=0.001):
                told.put(change)

        thread = threading.Thread(target=take)
        thread.start()
        for n in range(5):
            since = write(store, Put(f"{n}/a", "1"))
            watcher.add(f"{n}/", since)
            revision = write(store, Put(f"{n}/a", "2"))
            assert told.get(timeout=60) == Change(f"{n}/a", "2", revision)
        watcher.drop("0/")
        watcher.drop("0/")
        watcher.add("5/", write(store, Put("5/a", "1")))
        write(store, Put("0/a", "3"), Put("5/a", "2"))
        assert told.get(timeout=60).key == "5/a"
        watcher.add("0/", revision_of(store))
        write(store, Put("0/a", "4"))
        assert told.get(timeout=60).value == "4"
        watcher.close()
        watcher.close()
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert told.empty()

    def test_a_prefix_that_is_added_again_begins_anew(self, store: Store) -> None:
        since = write(store, Put("a", "0"))
        write(store, Put("a", "1"))
        watcher = store.watcher()
        watcher.add("a", since)
        changes = watcher.changes(poll=0.001)
        assert next(changes).value == "1"
        watcher.add("a", since)
        assert next(changes).value == "1"
        watcher.close()
        assert list(changes) == []

    def test_one_whose_history_is_gone_is_refused_and_the_others_go_on(self, store: Store) -> None:
        watcher = store.watcher()
        watcher.add("a", revision_of(store))
        with pytest.raises(HistoryLostError, match="cannot watch 'b': the changes after revision 777777"):
            watcher.add("b", 777777)
        write(store, Put("b", "1"), Put("a", "1"))
        assert next(watcher.changes(poll=0.001)).key == "a"

    def test_a_watcher_of_nothing_can_be_closed(self, store: Store) -> None:
        watcher = store.watcher()
        timer = threading.Timer(0.02, watcher.close)
        timer.start()
        assert list(watcher.changes(poll=0.001)) == []
        timer.join()


class TestClosing:
    def test_closing_twice_is_fine(self, store: Store) -> None:
        store.close()
        store.close()

    def test_a_store_is_a_context_manager(self, open_store: Callable[..., Store]) -> None:
        with open_store() as store:
            revision = write(store, Put("a", "1"))
        assert open_store().get("a") == Entry("a", "1", revision)


class TestThreads:
    times = 200

    @pytest.fixture
    def handles(self, open_store: Callable[..., Store]) -> list[Store]:
        shared = open_store()
        return [shared] * 4 + [open_store() for _ in range(4)]

    def test_eight_threads_lose_no_update(self, handles: list[Store]) -> None:
        """Half of them share a handle, the others have their own."""

        def count(store: Store) -> None:
            for _ in range(self.times):
                while not increment(store, "counter"):
                    pass

        threads = [threading.Thread(target=count, args=(store,)) for store in handles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entry = handles[0].get("counter")
        assert entry is not None
        assert entry.value == str(8 * self.times)


def increment(store: Store, key: str) -> bool:
    """Add one to the number at *key*, unless somebody else was faster."""
    entry = store.get(key)
    if entry is None:
        return store.transact([Absent(key)], [Put(key, "1")]) is not None
    return store.transact([Unchanged(key, entry.revision)], [Put(key, str(int(entry.value) + 1))]) is not None
