"""A write whose answer is lost is not done twice, and not said to have failed when it was done."""

from __future__ import annotations

import json
import random
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.cluster.proxy import Fate, Proxy, Request
from tests.store_model import check_against_the_model

from pynetwork.errors import NotFoundError, OutcomeUnknownError, StoreError, StoreUnavailableError
from pynetwork.store import Absent, Delete, Entry, EtcdStore, Put, Unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.testing.cluster import EtcdCluster

pytestmark = pytest.mark.root


@pytest.fixture
def proxy(single: EtcdCluster) -> Iterator[Proxy]:
    with Proxy(single.endpoints[0]) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[EtcdStore]:
    with EtcdStore(proxy.endpoint, prefix=f"/{request.node.name}") as store:
        yield store


@pytest.fixture
def versions(single: EtcdCluster, request: pytest.FixtureRequest) -> Callable[[], dict[str, int]]:
    """How often each key was put since it was last made, as etcd's own client sees it."""

    def look() -> dict[str, int]:
        start = f"/{request.node.name}/data/"
        printed = single.etcdctl("get", "--prefix", start, "--write-out=fields").splitlines()
        keys = [json.loads(line.partition(":")[2]) for line in printed if line.startswith('"Key"')]
        puts = [int(line.partition(":")[2]) for line in printed if line.startswith('"Version"')]
        return {key.removeprefix(start): count for key, count in zip(keys, puts, strict=True)}

    return look


def once(fate: Fate) -> Callable[[Request], Fate]:
    """Return a decision: the first transaction has *fate*, and all else passes."""
    fates = iter([fate])

    def decide(request: Request) -> Fate:
        return next(fates, Fate.PASS) if request.is_transaction else Fate.PASS

    return decide


LOSSES = [Fate.LOSE_ANSWER, Fate.LOSE_REQUEST, Fate.DELAY]


@pytest.mark.parametrize("loss", LOSSES)
class TestOneLoss:
    def test_a_create_is_reported_as_what_it_is(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]], loss: Fate
    ) -> None:
        """A second try would find the key there, and take it for somebody else's."""
        proxy.decide = once(loss)
        revision = store.transact([Absent("a")], [Put("a", "1")])
        assert revision is not None
        assert store.get("a") == Entry("a", "1", revision)
        assert versions() == {"a": 1}
        assert store.transact([Unchanged("a", revision)], [Put("a", "2")]) is not None

    def test_an_overwrite_is_done_once(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]], loss: Fate
    ) -> None:
        for _ in range(5):
            proxy.decide = once(loss)
            store.transact([], [Put("a", "same")])
        assert versions() == {"a": 5}

    def test_a_delete_is_reported_as_what_it_is(self, store: EtcdStore, proxy: Proxy, loss: Fate) -> None:
        revision = store.transact([], [Put("a", "1")])
        assert revision is not None
        proxy.decide = once(loss)
        assert store.transact([Unchanged("a", revision)], [Delete("a")]) is not None
        assert store.get("a") is None

    def test_a_compare_that_fails_is_reported_as_failed(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]], loss: Fate
    ) -> None:
        store.transact([], [Put("a", "1")])
        proxy.decide = once(loss)
        assert store.transact([Absent("a")], [Put("a", "2")]) is None
        assert versions() == {"a": 1}

    def test_a_lease_that_has_ended_is_still_an_error(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]], loss: Fate
    ) -> None:
        lease = store.grant(60)
        store.revoke(lease)
        proxy.decide = once(loss)
        with pytest.raises(NotFoundError, match="has ended; nothing was written"):
            store.transact([], [Put("a", "1", lease=lease)])
        assert versions() == {}

    def test_leases_and_reads_are_simply_asked_for_again(
        self, store: EtcdStore, proxy: Proxy, loss: Fate
    ) -> None:
        """Also with the marks of writers, which are made by the first transaction."""
        seen: set[str] = set()

        def decide(request: Request) -> Fate:
            if request.path in seen or request.is_transaction:
                return Fate.PASS
            seen.add(request.path)
            return loss

        proxy.decide = decide
        lease = store.grant(60)
        assert store.keep_alive(lease) == 60
        assert 50 < (store.remaining(lease) or 0) <= 60
        revision = store.transact([], [Put("a", "1", lease=lease)])
        assert revision is not None
        assert store.get("a") == Entry("a", "1", revision)
        store.revoke(lease)
        assert store.keep_alive(lease) is None
        assert store.get("a") is None
        paths = ("lease/grant", "lease/keepalive", "lease/timetolive", "lease/revoke", "kv/put", "kv/range")
        assert seen == {f"/v3/{path}" for path in paths}


class TestLateArrival:
    def test_what_was_given_up_never_takes_effect(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]]
    ) -> None:
        """The request lies in a member that hangs; it was sent again, and then the member goes on."""
        proxy.decide = once(Fate.DELAY)
        store.transact([], [Put("a", "1")])
        store.transact([], [Put("a", "2")])
        (answer,) = proxy.deliver()
        assert "succeeded" not in answer
        assert versions() == {"a": 2}
        entry = store.get("a")
        assert entry is not None
        assert entry.value == "2"

    def test_what_was_reported_as_failed_stays_so(self, store: EtcdStore, proxy: Proxy) -> None:
        """Although its compare has come to hold by the time that it arrives."""
        store.transact([], [Put("in the way", "1")])
        proxy.decide = once(Fate.DELAY)
        assert store.transact([Absent("in the way")], [Put("a", "1")]) is None
        with EtcdStore(proxy.endpoint, prefix=repr(store).split()[1]) as other:
            other.transact([], [Delete("in the way")])
        (answer,) = proxy.deliver()
        assert "succeeded" not in answer
        assert store.get("a") is None

    def test_also_when_the_second_transaction_is_lost(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]]
    ) -> None:
        """The one that finds out whether the first was carried out: its answer, and then itself."""
        fates = iter([Fate.DELAY, Fate.LOSE_ANSWER, Fate.DELAY, Fate.LOSE_REQUEST])
        proxy.decide = lambda request: next(fates, Fate.PASS) if request.path.endswith("txn") else Fate.PASS
        store.transact([], [Put("a", "1")])
        for answer in proxy.deliver():
            assert "succeeded" not in answer
        assert versions() == {"a": 1}


class TestManyLosses:
    def test_every_key_is_put_as_often_as_it_was_asked_for(
        self, store: EtcdStore, proxy: Proxy, versions: Callable[[], dict[str, int]]
    ) -> None:
        """Three threads, and every third request is lost in some way."""
        dice = random.Random(1)
        fates = [Fate.PASS] * 6 + LOSSES
        proxy.decide = lambda _: dice.choice(fates)
        done: list[str] = []

        def write(name: str) -> None:
            for n in range(30):
                created = store.transact([Absent(f"{name}/{n}")], [Put(f"{name}/{n}", ""), Put(name, f"{n}")])
                if (
                    created is not None
                    and store.transact([Absent(f"{name}/{n}")], [Put("never", "")]) is None
                ):
                    done.append(name)

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        proxy.decide = lambda _: Fate.PASS
        proxy.deliver()
        assert sorted(done) == sorted(["a", "b", "c"] * 30)
        expected = {f"{name}/{n}": 1 for name in "abc" for n in range(30)}
        assert versions() == {**expected, "a": 30, "b": 30, "c": 30}


def test_a_store_behaves_like_a_dict_also_when_requests_are_lost(proxy: Proxy) -> None:
    """One in five, of all kinds, in some way; at the end those that were delayed arrive."""
    dice = random.Random(2)
    fates = [Fate.PASS] * 12 + LOSSES
    proxy.decide = lambda _: dice.choice(fates)
    with ExitStack() as handles:

        def open_store(state: str, history: int) -> EtcdStore:
            proxy.deliver()
            return handles.enter_context(EtcdStore(proxy.endpoint, prefix=f"/lossy/{state}"))

        check_against_the_model(open_store, examples=10, counts=False)


class TestWhenNobodyCanTell:
    @pytest.mark.parametrize("loss", [Fate.LOSE_ANSWER, Fate.LOSE_REQUEST])
    def test_it_says_so(self, own: EtcdCluster, loss: Fate) -> None:
        (member,) = own.members

        def decide(request: Request) -> Fate:
            if not member.is_running or request.is_transaction:
                down.set()
                return loss
            return Fate.LOSE_REQUEST if down.is_set() else Fate.PASS

        down = threading.Event()
        with Proxy(member.endpoint, decide) as proxy, EtcdStore(proxy.endpoint, timeout=0.5) as store:
            with pytest.raises(
                OutcomeUnknownError, match="cannot tell whether it was written: write 'a'"
            ) as no:
                store.transact([], [Put("a", "1")])
            assert isinstance(no.value, StoreError)
            assert proxy.endpoint in str(no.value)
            proxy.decide = lambda _: Fate.PASS
            assert (store.get("a") is not None) is (loss is Fate.LOSE_ANSWER)
            assert store.transact([], [Put("a", "2")]) is not None

    def test_what_was_not_sent_was_not_written(self, own: EtcdCluster) -> None:
        (member,) = own.members
        with EtcdStore(own.endpoints, timeout=0.5) as store:
            store.transact([], [Put("a", "1")])
            member.kill()
            with pytest.raises(StoreUnavailableError, match="Connection refused"):
                store.transact([], [Put("a", "2")])
            own.start()
            entry = store.get("a")
            assert entry is not None
            assert entry.value == "1"

    def test_a_transaction_that_is_lost_each_time_is_not_tried_for_ever(self, own: EtcdCluster) -> None:
        """Although each time it can be found out that it was not carried out."""
        with Proxy(own.endpoints[0]) as proxy, EtcdStore(proxy.endpoint, timeout=0.5) as store:
            proxy.decide = lambda each: Fate.LOSE_REQUEST if each.is_transaction else Fate.PASS
            with pytest.raises(StoreUnavailableError, match="nothing was written"):
                store.transact([], [Put("a", "1")])
            assert store.get("a") is None

    def test_marks_that_were_taken_away_are_made_again(self, own: EtcdCluster) -> None:
        with EtcdStore(own.endpoints) as store:
            store.transact([], [Put("a", "1")])
            own.etcdctl("del", "--prefix", "/pynetwork/writers/")
            assert store.transact([], [Put("a", "2")]) is not None
            lease = int(own.etcdctl("lease", "list").split()[-1], 16)
            own.etcdctl("lease", "revoke", f"{lease:x}")
            assert store.transact([], [Put("a", "3")]) is not None
            marks = own.etcdctl("get", "--prefix", "/pynetwork/writers/", "--keys-only").split()
            assert len(marks) == 1
        assert own.etcdctl("get", "--prefix", "", "--keys-only").split() == ["/pynetwork/data/a"]
