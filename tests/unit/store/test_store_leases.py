"""Leases in memory, by a clock that the test turns, and the thread that keeps one alive."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import InvalidValueError, NotFoundError, StoreError
from pynetwork.store import (
    Absent,
    Change,
    Changes,
    Delete,
    Entry,
    Lease,
    LeaseKeeper,
    MemoryStore,
    Put,
    SqliteStore,
)
from pynetwork.testing import ChaosStore, Clock, Fate, Killed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


class TestLeasesInMemory:
    def test_the_keys_of_a_lease_go_with_it_in_one_revision(self, store: MemoryStore, clock: Clock) -> None:
        lease = store.grant(10)
        store.transact([], [Put("b", "1", lease=lease), Put("a", "1", lease=lease), Put("c", "1")])
        since = store.transact([], [Put("d", "1", lease=lease)])
        assert since == 2
        clock.turn(9.9)
        assert store.changes(since) == Changes(since, ())
        clock.turn(0.1)
        gone = tuple(Change(key, None, 3) for key in ("a", "b", "d"))
        assert store.changes(since) == Changes(3, gone)
        assert store.list("").entries == (Entry("c", "1", 1),)
        assert store.keep_alive(lease) is None
        assert store.remaining(lease) is None

    @pytest.mark.parametrize(
        "look",
        [
            lambda store: store.get("a") is None,
            lambda store: store.list("").entries == (),
            lambda store: store.transact([Absent("a")], []) == 2,
            lambda store: store.changes(1).changes == (Change("a", None, 2),),
            lambda store: next(store.watch("a", 1)) == Change("a", None, 2),
        ],
        ids=["get", "list", "transact", "changes", "watch"],
    )
    def test_every_way_to_look_sees_the_end(
        self, store: MemoryStore, clock: Clock, look: Callable[[MemoryStore], bool]
    ) -> None:
        store.transact([], [Put("a", "1", lease=store.grant(5))])
        clock.turn(5)
        assert look(store)

    def test_leases_end_in_their_order(self, store: MemoryStore, clock: Clock) -> None:
        long, short = store.grant(20), store.grant(10)
        since = store.transact([], [Put("long", "", lease=long), Put("short", "", lease=short)])
        assert since == 1
        clock.turn(30)
        assert store.changes(since) == Changes(3, (Change("short", None, 2), Change("long", None, 3)))

    def test_a_renewed_lease_lasts_its_time_from_then_on(self, store: MemoryStore, clock: Clock) -> None:
        lease = store.grant(10)
        store.transact([], [Put("a", "1", lease=lease)])
        for _ in range(5):
            clock.turn(7)
            assert store.remaining(lease) == pytest.approx(3)
            assert store.keep_alive(lease) == 10
        assert store.get("a") == Entry("a", "1", 1)

    def test_a_revoked_lease_takes_its_keys_along_at_once(self, store: MemoryStore) -> None:
        lease, other = store.grant(10), store.grant(10)
        store.transact([], [Put("a", "1", lease=lease), Put("b", "1", lease=other)])
        store.revoke(lease)
        assert store.changes(1) == Changes(2, (Change("a", None, 2),))
        store.revoke(lease)
        assert store.changes(2) == Changes(2, ())
        assert store.keep_alive(other) == 10

    def test_the_end_of_a_lease_without_keys_changes_nothing(self, store: MemoryStore, clock: Clock) -> None:
        store.grant(10)
        clock.turn(10)
        assert store.list("").revision == 0

    def test_a_key_belongs_to_the_lease_of_its_last_put(self, store: MemoryStore, clock: Clock) -> None:
        first, second = store.grant(10), store.grant(20)
        keys = ("kept", "moved", "gone", "again")
        store.transact([], [Put(key, "1", lease=first) for key in keys])
        store.transact([], [Put("kept", "2"), Put("moved", "2", lease=second), Delete("gone")])
        store.transact([], [Put("gone", "3")])
        clock.turn(10)
        assert [entry.key for entry in store.list("").entries] == ["gone", "kept", "moved"]
        clock.turn(10)
        assert [entry.key for entry in store.list("").entries] == ["gone", "kept"]

    def test_nothing_is_written_with_a_lease_that_has_ended(self, store: MemoryStore, clock: Clock) -> None:
        lease = store.grant(10)
        clock.turn(10)
        with pytest.raises(NotFoundError, match=r"cannot put 'b': its Lease\(.*\) has ended; nothing was"):
            store.transact([], [Put("a", "1"), Put("b", "1", lease=lease)])
        assert store.list("").entries == ()

    def test_a_compare_that_fails_comes_before_a_lease_that_has_ended(
        self, store: MemoryStore, clock: Clock
    ) -> None:
        lease = store.grant(10)
        store.transact([], [Put("a", "1")])
        clock.turn(10)
        assert store.transact([Absent("a")], [Put("b", "1", lease=lease)]) is None

    def test_a_change_by_the_clock_is_seen_by_the_compares(self, store: MemoryStore, clock: Clock) -> None:
        """Although the caller is sure of them at the revision it has seen."""
        store.transact([], [Put("a", "1", lease=store.grant(10))])
        clock.turn(10)
        assert store.transact([Absent("a")], [Put("a", "2")], seen=1) == 3

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e10, "10", None])
    def test_a_time_to_live_is_a_positive_number_of_seconds(self, store: MemoryStore, ttl: float) -> None:
        with pytest.raises(InvalidValueError, match="no time to live of a lease"):
            store.grant(ttl)


def test_sqlite_refuses_a_lease_rather_than_to_ignore_it(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as store:
        with pytest.raises(InvalidValueError, match="'a' is put with a lease, which this store does not"):
            store.transact([], [Put("a", "1", lease=Lease(1, 10))])
        assert store.list("").revision == 0


class TestChaos:
    def test_leases_are_passed_on_until_the_process_dies(self, store: MemoryStore) -> None:
        fate = Fate()
        chaos = ChaosStore(store, fate=fate)
        lease = chaos.grant(10)
        assert chaos.keep_alive(lease) == chaos.remaining(lease) == 10
        chaos.revoke(lease)
        assert store.remaining(lease) is None
        with pytest.raises(Killed):
            fate.kill()
        for use in (chaos.keep_alive, chaos.remaining, chaos.revoke):
            with pytest.raises(Killed):
                use(lease)
        with pytest.raises(Killed):
            chaos.grant(10)


class Flaky(MemoryStore):
    """A store that does not answer while it is told not to, and tells of the renewals it sees."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.is_down = False
        self.renewals = threading.Semaphore(0)

    def keep_alive(self, lease: Lease) -> float | None:
        self.renewals.release()
        if self.is_down:
            msg = "the store is out of reach"
            raise StoreError(msg)
        return super().keep_alive(lease)


class TestKeeper:
    @pytest.fixture
    def flaky(self, clock: Clock) -> Flaky:
        return Flaky(clock)

    def test_a_lease_is_renewed_as_long_as_its_keeper_runs(self, flaky: Flaky, clock: Clock) -> None:
        lease = flaky.grant(10)
        with LeaseKeeper(flaky, lease, interval=0.001, clock=clock) as keeper:
            for _ in range(5):
                assert flaky.renewals.acquire(timeout=30)
                assert keeper.renew()  # whatever the thread has got to
                assert keeper.seconds_left() == 10
                clock.turn(6)
        assert flaky.remaining(lease) is not None
        clock.turn(10)
        assert flaky.keep_alive(lease) is None
        assert not keeper.lost.is_set()

    def test_the_first_renewal_is_at_once(self, flaky: Flaky) -> None:
        with LeaseKeeper(flaky, flaky.grant(10), interval=1000):
            assert flaky.renewals.acquire(timeout=30)

    def test_a_loss_is_told_once(self, flaky: Flaky, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        lost: list[Lease] = []
        lease = flaky.grant(10)
        with LeaseKeeper(flaky, lease, on_loss=lost.append, interval=0.001) as keeper:
            clock.turn(10)
            assert keeper.lost.wait(timeout=30)
            assert not keeper.renew()
        assert lost == [lease]
        assert [record.getMessage() for record in caplog.records] == [
            f"lost {lease}: it has ended, and what was put with it is deleted"
        ]

    def test_who_is_told_may_stop_the_keeper(self, flaky: Flaky, clock: Clock) -> None:
        told = threading.Event()

        def on_loss(_: Lease) -> None:
            keeper.stop()
            told.set()

        lease = flaky.grant(10)
        keeper = LeaseKeeper(flaky, lease, on_loss=on_loss, interval=0.001)
        clock.turn(10)
        assert told.wait(timeout=30)
        keeper.stop()

    def test_a_store_that_does_not_answer_is_no_loss(
        self, flaky: Flaky, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="pynetwork")
        lease = flaky.grant(10)
        with LeaseKeeper(flaky, lease, interval=0.001, clock=clock) as keeper:
            assert keeper.renew()
            flaky.is_down = True
            with pytest.raises(StoreError, match="out of reach"):
                keeper.renew()
            clock.turn(9)
            assert keeper.seconds_left() == 1
            clock.turn(0.5)
            while not caplog.records:
                assert flaky.renewals.acquire(timeout=30)
            flaky.is_down = False
            while len(caplog.records) < 2:
                assert flaky.renewals.acquire(timeout=30)
            assert keeper.renew()
            assert keeper.seconds_left() == 10
        assert not keeper.lost.is_set()
        first, second = (record.getMessage() for record in caplog.records)
        assert first == f"cannot renew {lease}, trying again: the store is out of reach"
        assert second == f"renewed {lease} again"
