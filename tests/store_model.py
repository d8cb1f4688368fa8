"""Any sequence of operations leaves a store as it leaves a dict, and its changes update any old reader."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from pynetwork.store import (
    Absent,
    Change,
    Compare,
    Delete,
    Entry,
    Operation,
    PrefixUnchanged,
    Put,
    Store,
    Unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HISTORY = 4  # what a store of these tests must remember; it may remember more
KEYS = st.sampled_from(
    ["a", "a/", "a/b", "a/b\x00", "a\U0010ffff", "ab", "b", "é", "\ud7ff", "\ue000", "\U0010ffff"]
)
PREFIXES = st.sampled_from(["", "a", "a/", "a\U0010ffff", "\ud7ff", "\U0010ffff", "nothing"])
REVISIONS = st.integers(0, 40)  # counted from where the store was
OPERATIONS = st.lists(
    st.builds(Put, KEYS, st.text(max_size=3)) | st.builds(Delete, KEYS),
    max_size=4,
    unique_by=lambda operation: operation.key,
)
COMPARES = st.lists(
    st.builds(Absent, KEYS)
    | st.builds(Unchanged, KEYS, REVISIONS)
    | st.builds(PrefixUnchanged, PREFIXES, REVISIONS),
    max_size=2,
)


@attrs.define
class Model:
    """The contract of a store in the plainest words."""

    revision: int = 0
    entries: dict[str, Entry] = attrs.field(factory=dict)
    deleted: set[str] = attrs.field(factory=set)
    log: list[Change] = attrs.field(factory=list)
    overtaken: list[int] = attrs.field(factory=list)  # the revision of each row that became history

    def holds(self, compare: Compare) -> bool:
        match compare:
            case Absent(key):
                return key not in self.entries
            case Unchanged(key, revision):
                return key in self.entries and self.entries[key].revision == revision
            case PrefixUnchanged(prefix, revision):
                return all(entry.revision <= revision for entry in self.under(prefix))

    def effective(self, operations: Sequence[Operation]) -> list[Operation]:
        return [op for op in operations if isinstance(op, Put) or op.key in self.entries]

    def take(self, operations: Sequence[Operation], revision: int) -> None:
        self.revision = revision
        for operation in self.effective(operations):
            value = operation.value if isinstance(operation, Put) else None
            self.log.append(Change(operation.key, value, revision))
            if operation.key in self.entries or operation.key in self.deleted:
                self.overtaken.append(revision)
            if isinstance(operation, Put):
                self.entries[operation.key] = Entry(operation.key, operation.value, revision)
                self.deleted.discard(operation.key)
            else:
                del self.entries[operation.key]
                self.deleted.add(operation.key)
                self.overtaken.append(revision)  # a deletion has a row, too

    def under(self, prefix: str) -> tuple[Entry, ...]:
        return tuple(self.entries[key] for key in sorted(self.entries) if key.startswith(prefix))

    def must_know(self, since: int) -> bool:
        """Whether the history that a store guarantees reaches back to *since*."""
        return since <= self.revision and sum(at > since for at in self.overtaken) <= HISTORY


class StoreMachine(RuleBasedStateMachine):
    """Two handles to one state, used in turn, beside the model."""

    def __init__(self, open_handle: Callable[[], Store], *, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        self.open_handle = open_handle
        self.handles = [open_handle(), open_handle()]
        self.start = self.handles[0].list("").revision
        self.model = Model(self.start)
        self.past_entries: dict[int, dict[str, Entry]] = {self.start: {}}

    @rule(handle=st.integers(0, 1), compares=COMPARES, operations=OPERATIONS)
    def transact(self, handle: int, compares: list[Compare], operations: list[Operation]) -> None:
        compares = [self.real(compare) for compare in compares]
        revision = self.handles[handle].transact(compares, operations)
        if not all(map(self.model.holds, compares)):
            assert revision is None
            return
        assert revision is not None
        is_effective = bool(self.model.effective(operations))
        assert revision >= self.model.revision + is_effective
        assert not self.counts or revision == self.model.revision + is_effective
        self.model.take(operations, revision)
        self.past_entries[revision] = dict(self.model.entries)

    def real(self, compare: Compare) -> Compare:
        if isinstance(compare, Absent) or not compare.revision:
            return compare
        return attrs.evolve(compare, revision=self.start + compare.revision)

    def ago(self, age: int) -> int:
        """Return a revision at which the model was *age* transactions ago, or the first."""
        return [*self.past_entries][-1 - age :][0]

    def check_revision(self, revision: int) -> None:
        assert revision >= self.model.revision
        assert not self.counts or revision == self.model.revision

    @rule(handle=st.integers(0, 1), prefix=PREFIXES)
    def list(self, handle: int, prefix: str) -> None:
        snapshot = self.handles[handle].list(prefix)
        assert snapshot.entries == self.model.under(prefix)
        self.check_revision(snapshot.revision)

    @rule(handle=st.integers(0, 1), key=KEYS)
    def get(self, handle: int, key: str) -> None:
        assert self.handles[handle].get(key) == self.model.entries.get(key)

    @rule(handle=st.integers(0, 1), age=st.integers(0, 8))
    def changes(self, handle: int, age: int) -> None:
        since = self.ago(age)
        news = self.handles[handle].changes(since)
        if news is None:
            assert not self.model.must_know(since)
            return
        entries = dict(self.past_entries[since])
        for change in news.changes:
            assert change.revision > since
            if change.value is None:
                entries.pop(change.key, None)
            else:
                entries[change.key] = Entry(change.key, change.value, change.revision)
        assert entries == self.model.entries
        self.check_revision(news.revision)
        revisions = [change.revision for change in news.changes]
        assert revisions == sorted(revisions)

    @rule(handle=st.integers(0, 1), age=st.integers(0, 8), limit=st.integers(1, 9))
    def history(self, handle: int, age: int, limit: int) -> None:
        since = self.ago(age)
        found: list[Change] = []
        reached = since
        while reached < self.model.revision:
            news = self.handles[handle].history(reached, limit=limit)
            if news is None:
                assert reached == since
                assert not self.model.must_know(since)
                return
            assert news.revision > reached
            found += news.changes
            reached = news.revision
        assert found == [change for change in self.model.log if change.revision > since]

    @rule(handle=st.integers(0, 1), age=st.integers(0, 8))
    def past(self, handle: int, age: int) -> None:
        revision = self.ago(age)
        snapshot = self.handles[handle].past(revision)
        if snapshot is None:
            assert not self.model.must_know(revision)
            return
        assert snapshot.revision == revision
        assert {entry.key: entry for entry in snapshot.entries} == self.past_entries[revision]

    @rule(handle=st.integers(0, 1))
    def reopen(self, handle: int) -> None:
        self.handles[handle].close()
        self.handles[handle] = self.open_handle()

    def teardown(self) -> None:
        for handle in self.handles:
            handle.close()


def check_against_the_model(open_store: Callable[..., Store], *, examples: int, counts: bool) -> None:
    """Run *examples* random programs on stores that *open_store* opens by name, and may count by one."""
    states = map(str, itertools.count())

    class FreshStoreMachine(StoreMachine):
        def __init__(self) -> None:
            state = next(states)
            super().__init__(lambda: open_store(state=state, history=HISTORY), counts=counts)

    run_state_machine_as_test(
        FreshStoreMachine,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, database=None),
    )
