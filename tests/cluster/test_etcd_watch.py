"""A watch tells everything, once and in order, and if that is impossible, what it comes to."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.cluster.follower import PATIENCE_SECONDS, Follower
from tests.cluster.proxy import Fate, Proxy, Request

from pynetwork.errors import StoreError
from pynetwork.store import Change, Delete, EtcdStore, Put, Store, etcd_watch
from pynetwork.store.etcd_followed import Conversation, Followed
from pynetwork.store.etcd_http import Stream
from pynetwork.testing.cluster import etcd_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pynetwork.testing.cluster import EtcdCluster
    from pynetwork.testing.hosts import PrivateHost

pytestmark = pytest.mark.root

LONG = 1000.0  # seconds; so what happens sooner happens for another reason


@pytest.fixture
def proxy(own: EtcdCluster) -> Iterator[Proxy]:
    with Proxy(own.endpoints[0]) as proxy:
        yield proxy


@pytest.fixture
def watching(proxy: Proxy) -> Iterator[Callable[..., Store]]:
    """Return a function that opens a store whose only way to etcd is the proxy."""
    stores = []

    def open_store(*, silence: float = LONG, refresh: float = LONG) -> Store:
        stores.append(EtcdStore(proxy.endpoint, timeout=5, silence=silence, refresh=refresh))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def writer(own: EtcdCluster) -> Iterator[EtcdStore]:
    """A store that is connected directly."""
    with EtcdStore(own.endpoints) as store:
        yield store


def no_watch(request: Request) -> Fate:
    return Fate.LOSE_REQUEST if request.path == "/v3/watch" else Fate.PASS


def count_watches(proxy: Proxy) -> int:
    return sum(request.path == "/v3/watch" for request in proxy.requests)


def put(store: Store, key: str, value: str) -> int:
    revision = store.transact([], [Put(key, value)])
    assert revision is not None
    return revision


def others_have(store: Store) -> dict[str, str]:
    return {entry.key: entry.value for entry in store.list("").entries}


def compact(cluster: EtcdCluster, store: Store) -> None:
    cluster.etcdctl("compaction", f"{store.list('').revision}")


def watches_of(cluster: EtcdCluster) -> int:
    """Return how many watches the member has."""
    with contextlib.closing(HTTPConnection(urlsplit(cluster.endpoints[0]).netloc, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    (count,) = (line.split()[1] for line in lines if line.startswith("etcd_debugging_mvcc_watcher_total "))
    return int(count)


class TestBrokenConnections:
    def test_nothing_is_missed_and_nothing_is_told_twice(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        with Follower(watching()) as follower:
            follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
            for n in range(20):
                put(writer, "before", f"{n}")
                proxy.cut()
                put(writer, "after", f"{n}")
            follower.wait_for("after", "19")
            told = [(change.key, change.value) for change in follower.changes]
            assert told == [(key, f"{n}") for n in range(20) for key in ("before", "after")]
            revisions = [change.revision for change in follower.changes]
            assert revisions == sorted(set(revisions))
        assert count_watches(proxy) > 1

    def test_all_of_a_transaction_is_told_together(
        self, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        put(writer, "c", "0")
        with Follower(watching()) as follower:
            revision = writer.transact([], [Put("b", "1"), Put("a", "1"), Delete("c")])
            follower.wait_for("c", None)
            assert {change.revision for change in follower.changes} == {revision}
            assert len(follower.changes) == 3

    def test_it_sleeps_until_something_happens_however_often_other_stores_are_polled(
        self, writer: EtcdStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        read = Stream.read

        def note(stream: Stream, timeout: float) -> dict[str, Any] | None:
            waits.append(timeout)
            return read(stream, timeout)

        monkeypatch.setattr(Stream, "read", note)
        changes = writer.watch("", writer.list("").revision, poll=0.001)
        timer = threading.Timer(0.3, put, (writer, "a", "1"))
        timer.start()
        assert next(changes).key == "a"
        timer.join()
        assert min(waits) >= 0.05
        changes.close()  # type: ignore[attr-defined]  # a generator

    def test_other_prefixes_are_not_told_of(self, watching: Callable[..., Store], writer: EtcdStore) -> None:
        with Follower(watching(), "n/") as follower:
            for key in ("m", "n", "n/1", "n0", "o"):
                put(writer, key, "1")
            put(writer, "n/2", "1")
            follower.wait_for("n/2", "1")
            assert [change.key for change in follower.changes] == ["n/1", "n/2"]


class TestCompaction:
    def test_what_happened_in_between_is_told_as_it_is_now(
        self, own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        for key in ("gone", "changed", "same", "gone and back"):
            put(writer, key, "0")
        with Follower(watching()) as follower:
            put(writer, "told", "1")
            follower.wait_for("told", "1")
            proxy.decide = no_watch
            proxy.cut()
            writer.transact([], [Delete("gone"), Put("changed", "1")])
            writer.transact([], [Delete("gone and back"), Put("came and went", "1"), Put("changed", "2")])
            writer.transact([], [Put("gone and back", "1"), Delete("came and went"), Put("new", "1")])
            last = writer.transact([], [Delete("told")])
            assert last is not None
            compact(own, writer)
            proxy.decide = lambda _: Fate.PASS
            follower.wait_for("told", None)
            assert set(follower.changes[1:]) == {
                Change("changed", "2", last - 2),
                Change("gone and back", "1", last - 1),
                Change("new", "1", last - 1),
                Change("gone", None, last),
                Change("told", None, last),
            }
            assert len(follower.changes) == 6
            put(writer, "later", "1")
            follower.wait_for("later", "1")
            assert len(follower.changes) == 7

    def test_a_deletion_at_the_very_revision_of_the_compaction_is_told(
        self, own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """Its puts are kept, its deletions forgotten, and a watch may begin there."""
        put(writer, "gone", "1")
        since = put(writer, "kept", "1")
        with Follower(watching()) as follower:
            follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
            proxy.decide = no_watch
            proxy.cut()
            deleted = writer.transact([], [Delete("gone")])
            assert deleted == since + 1
            own.etcdctl("compaction", f"{deleted}")
            proxy.decide = lambda _: Fate.PASS
            follower.wait_for("gone", None)
            put(writer, "later", "1")
            follower.wait_for("later", "1")
            assert [change.key for change in follower.changes] == ["gone", "later"]
        assert writer.history(since) is None

    def test_a_quiet_prefix_survives_it_too(
        self, own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """Its last event is long compacted, and nothing of it has changed."""
        put(writer, "quiet/a", "0")
        with Follower(watching(), "quiet/") as follower:
            follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
            for n in range(10):
                put(writer, "loud", f"{n}")
            compact(own, writer)
            proxy.cut()
            follower.wait_until(lambda: count_watches(proxy) > 1, "another stream")
            put(writer, "quiet/b", "1")
            follower.wait_for("quiet/b", "1")
            assert [change.key for change in follower.changes] == ["quiet/b"]

    def test_a_watch_cannot_begin_in_what_is_compacted(
        self, own: EtcdCluster, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        since = put(writer, "a", "0")
        put(writer, "a", "1")
        compact(own, writer)
        with pytest.raises(StoreError, match=f"after revision {since} are no longer known; list it again"):
            next(iter(watching().watch("", since)))
        assert watching().changes(since) is None


class TestHistory:
    """What tests of all stores cannot do: compact, and break connections."""

    def test_what_is_compacted_is_not_known(
        self, own: EtcdCluster, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        start = writer.list("").revision
        first, second = put(writer, "a", "1"), put(writer, "a", "2")
        compact(own, writer)
        third = put(writer, "a", "3")
        store = watching()
        assert store.past(first) is None
        assert store.history(start) is None
        assert store.history(first) is None
        assert [each.value for each in store.history(second).changes] == ["3"]  # type: ignore[union-attr]  # the test
        assert [each.value for each in store.past(third).entries] == ["3"]  # type: ignore[union-attr]  # the test

    @pytest.mark.parametrize("path", ["/v3/watch", "/v3/kv/txn", "/v3/kv/put", "/v3/kv/range"])
    @pytest.mark.parametrize("fate", [Fate.LOSE_ANSWER, Fate.LOSE_REQUEST, Fate.SWALLOW])
    def test_it_is_complete_also_when_requests_are_lost(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore, path: str, fate: Fate
    ) -> None:
        start = writer.list("").revision
        written = [put(writer, "a", f"{n}") for n in range(5)]
        fates = iter([fate])
        proxy.decide = lambda each: next(fates, Fate.PASS) if each.path == path else Fate.PASS
        found = watching().history(start)
        assert found is not None
        assert [(each.value, each.revision) for each in found.changes] == [
            (f"{n}", revision) for n, revision in enumerate(written)
        ]

    def test_it_tells_what_went_with_a_lease(self, watching: Callable[..., Store], writer: EtcdStore) -> None:
        """No writer has left a mark for that."""
        lease = writer.grant(100)
        start = writer.transact([], [Put("a", "1", lease=lease)])
        assert start is not None
        writer.revoke(lease)
        found = watching().history(start)
        assert found is not None
        (change,) = found.changes
        assert (change.key, change.value, change.time) == ("a", None, 0.0)


class TestSilence:
    def test_a_connection_that_has_gone_silent_is_left(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        with Follower(watching(silence=0.3)) as follower:
            put(writer, "a", "1")
            follower.wait_for("a", "1")
            proxy.is_frozen.set()
            put(writer, "a", "2")
            assert proxy.withheld.acquire(timeout=60)
            proxy.is_frozen.clear()
            follower.wait_for("a", "2")

    def test_a_stream_that_is_not_answered_is_no_stream(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """A member that hangs takes connections; its kernel does."""
        proxy.decide = lambda each: Fate.SWALLOW if each.path == "/v3/watch" else Fate.PASS
        with Follower(watching()) as follower:
            follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
            put(writer, "a", "1")
            proxy.decide = lambda _: Fate.PASS
            follower.wait_for("a", "1")

    def test_silence_without_a_reason_does_no_harm(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        with Follower(watching(silence=0.05)) as follower:
            follower.wait_until(lambda: count_watches(proxy) > 5, "some streams")
            put(writer, "a", "1")
            follower.wait_for("a", "1")
            assert len(follower.changes) == 1

    def test_a_member_that_says_that_nothing_happens_is_not_silent(self, host: PrivateHost) -> None:
        """For three times as long as it may be silent."""
        often = ["--experimental-watch-progress-notify-interval=100ms"]
        with (
            etcd_cluster(host=host, options=often) as talkative,
            Proxy(talkative.endpoints[0]) as proxy,
            EtcdStore(proxy.endpoint, silence=1) as store,
            Follower(store) as follower,
        ):
            start = time.monotonic()
            while time.monotonic() < start + 3:
                assert proxy.passed.acquire(timeout=60)
            assert count_watches(proxy) == 1
            put(store, "a", "1")
            follower.wait_for("a", "1")
            assert len(follower.changes) == 1

    def test_events_that_the_server_has_lost_are_found(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """The stream lives, and says nothing of a put and a deletion."""
        put(writer, "gone", "0")
        with Follower(watching(refresh=0.5)) as follower:
            put(writer, "a", "1")
            follower.wait_for("a", "1")
            proxy.is_frozen.set()
            writer.transact([], [Put("a", "2"), Delete("gone")])
            assert proxy.withheld.acquire(timeout=60)
            proxy.is_frozen.clear()
            put(writer, "b", "1")
            follower.wait_for_entries({"a": "2", "b": "1"})


def test_watches_that_begin_together_do_not_look_at_their_keys_together(
    own: EtcdCluster, watching: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand hosts that were opened together did, for ten minutes later etcd did nothing else."""
    with contextlib.ExitStack() as streams:
        looks: list[float] = []
        look = etcd_watch.Watch._look_again

        def note(watch: etcd_watch.Watch, followed: Sequence[Followed]) -> None:
            looks.append(time.monotonic())
            look(watch, followed)

        monkeypatch.setattr(etcd_watch.Watch, "_look_again", note)
        start = time.monotonic()
        for _ in range(12):
            streams.enter_context(Follower(watching(refresh=4)))
        while len(looks) < 12:
            assert time.monotonic() < start + 60
            time.sleep(0.1)
    first = sorted(looks)[:12]
    assert first[0] >= start + 2
    assert first[-1] - first[0] > 0.5


class TestAnotherHistory:
    @pytest.mark.parametrize("is_younger", [True, False])
    def test_a_cluster_that_takes_the_place_is_told_anew(
        self,
        host: PrivateHost,
        watching: Callable[..., Store],
        writer: EtcdStore,
        proxy: Proxy,
        is_younger: bool,
    ) -> None:
        """Whether its revisions are smaller or larger; also what has the same revision, or the same value."""
        first = put(writer, "first", "of the old one")
        last = [put(writer, "gone", f"{n}") for n in range(20)][-1]
        put(writer, "same", "1")
        store = watching()
        with etcd_cluster(host=host) as other, EtcdStore(other.endpoints) as others:
            assert put(others, "first", "of the new one") == first
            newest = [put(others, "new", f"{n}") for n in range(3 if is_younger else 50)][-1]
            assert (newest < last) is is_younger
            put(others, "same", "1")
            with Follower(store) as follower:
                follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
                proxy.target = other.endpoints[0]
                proxy.cut()
                follower.wait_for("gone", None)
                assert follower.entries == others_have(others)
                assert {change.key for change in follower.changes} == {"first", "same", "new", "gone"}
                put(store, "later", "1")
                follower.wait_for("later", "1")
            assert others.get("later") is not None
            store.close()


def test_members_that_were_set_back_are_told_anew(
    own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
) -> None:
    """The same cluster by its number, with an empty history."""
    first = put(writer, "first", "before")
    for n in range(20):
        put(writer, "gone", f"{n}")
    put(writer, "same", "1")
    (member,) = own.members
    with Follower(watching(silence=0.5)) as follower:
        follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
        proxy.decide = lambda _: Fate.LOSE_REQUEST
        proxy.cut()
        member.kill()
        shutil.rmtree(member.data)
        own.start()
        assert put(writer, "first", "after") == first
        put(writer, "same", "1")
        proxy.decide = lambda _: Fate.PASS
        follower.wait_for_entries({"first": "after", "same": "1"})
        assert {change.key for change in follower.changes} == {"first", "same", "gone"}
        put(writer, "later", "1")
        follower.wait_for("later", "1")


class TestSeveralPrefixes:
    """On one stream, for which HTTP has one request with all of them."""

    def test_they_share_a_stream_that_is_resumed_for_all(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        watcher = watching().watcher()
        since = put(writer, "0/", "0")
        for n in range(40):
            watcher.add(f"{n}/", since)
        changes = watcher.changes()
        for n in range(0, 40, 7):
            revision = put(writer, f"{n}/", "1")
            assert next(changes) == Change(f"{n}/", "1", revision)
        assert count_watches(proxy) == 1
        assert len(proxy.requests[-2].more) == 39
        proxy.cut()
        last = writer.transact([], [Put(f"{n}/", "2") for n in range(40)]) or 0
        assert {next(changes) for _ in range(40)} == {Change(f"{n}/", "2", last) for n in range(40)}
        assert count_watches(proxy) == 2
        watcher.close()
        assert list(changes) == []

    def test_all_are_looked_at_with_one_request_and_only_what_has_changed_is_listed(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """While they are, nothing is told."""
        since = writer.transact([], [Put(f"{n}/", "0") for n in range(100)]) or 0
        watcher = watching(refresh=0.4).watcher()
        for n in range(100):
            watcher.add(f"{n}/", since)
        follower = Follower(watcher=watcher)
        with follower:
            follower.wait_until(lambda: count_watches(proxy) >= 3, "two looks")
            before = len([each for each in proxy.requests if "range" in each.path])
            begun = count_watches(proxy)
            follower.wait_until(lambda: count_watches(proxy) >= begun + 3, "three more")
            asked = [each for each in proxy.requests if "range" in each.path][before:]
            assert all(each.body.get("count_only") for each in asked), "is it known what is compacted?"
            proxy.is_frozen.set()
            put(writer, "7/", "lost")
            assert proxy.withheld.acquire(timeout=60)
            proxy.is_frozen.clear()
            follower.wait_for("7/", "lost")
        assert [change.key for change in follower.changes] == ["7/"]

    def test_what_a_compaction_has_hidden_is_told_for_each(
        self, own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        store = watching()
        since = writer.transact([], [Put("a/gone", "0"), Put("b/gone", "0"), Put("b/same", "0")]) or 0
        watcher = store.watcher()
        watcher.add("a/", since)
        watcher.add("b/", since)
        changes = watcher.changes()
        put(writer, "a/told", "1")
        assert next(changes).key == "a/told"
        proxy.decide = no_watch
        proxy.cut()
        last = writer.transact([], [Delete("a/gone"), Delete("b/gone"), Put("b/new", "1")]) or 0
        compact(own, writer)
        timer = threading.Timer(0.3, setattr, (proxy, "decide", lambda _: Fate.PASS))
        timer.start()
        assert [next(changes) for _ in range(3)] == [
            Change("a/gone", None, last),
            Change("b/new", "1", last),
            Change("b/gone", None, last),
        ]
        timer.join()
        put(writer, "b/later", "1")
        assert next(changes).key == "b/later"

    def test_one_that_is_added_need_not_wait_for_something_to_happen(
        self, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """The stream is quiet, and its thread asleep in it."""
        watcher = watching().watcher()
        since = put(writer, "a/", "1")
        watcher.add("a/", since)
        told: list[Change] = []
        thread = threading.Thread(target=lambda: told.extend(watcher.changes()))
        thread.start()
        while count_watches(proxy) < 1:
            assert thread.is_alive()
            time.sleep(0.01)
        watcher.add("b/", since)
        put(writer, "b/", "1")
        while not told:
            assert thread.is_alive()
            time.sleep(0.01)
        watcher.close()
        thread.join()
        assert [change.key for change in told] == ["b/"]

    def test_what_is_added_and_dropped_is_said_on_the_stream_that_there_is(
        self, own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        since = put(writer, "0/", "0")
        watcher = watching().watcher()
        watcher.add("0/", since)
        with Follower(watcher=watcher) as follower:
            for n in range(1, 30):
                watcher.add(f"{n}/", since)
                put(writer, f"{n}/", "1")
                follower.wait_for(f"{n}/", "1")
            for n in range(1, 29):
                watcher.drop(f"{n}/")
            follower.wait_until(lambda: watches_of(own) == 2, "28 watches to end")
            writer.transact([], [Put(f"{n}/", "2") for n in range(30)])
            follower.wait_for("0/", "2")
            follower.wait_for("29/", "2")
            watcher.add("7/", writer.list("").revision)
            put(writer, "7/", "3")
            follower.wait_for("7/", "3")
            values = [(change.key, change.value) for change in follower.changes]
            expected = [*((f"{n}/", "1") for n in range(1, 30)), ("0/", "2"), ("29/", "2"), ("7/", "3")]
            assert sorted(values) == sorted(expected)
            assert count_watches(proxy) == 1
        deadline = time.monotonic() + PATIENCE_SECONDS
        while watches_of(own):  # the member finds that the store has hung up
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_another_stream_takes_the_place_of_one_whose_first_watch_is_dropped(
        self, own: EtcdCluster, proxy: Proxy, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        """That is the one which says that nothing happens."""
        watcher = watching().watcher()
        since = put(writer, "a/", "0")
        watcher.add("a/", since)
        watcher.add("b/", since)
        with Follower(watcher=watcher) as follower:
            put(writer, "b/", "1")
            follower.wait_for("b/", "1")
            watcher.drop("a/")
            follower.wait_until(lambda: count_watches(proxy) == 2, "another stream")
            writer.transact([], [Put("a/", "2"), Put("b/", "2")])
            follower.wait_for("b/", "2")
            assert {change.key for change in follower.changes} == {"b/"}
            watcher.drop("b/")
            follower.wait_until(lambda: watches_of(own) == 0, "all watches to end")
            watcher.add("c/", writer.list("").revision)
            put(writer, "c/", "1")
            follower.wait_for("c/", "1")

    def test_what_is_compacted_before_an_added_one_begins_is_told_all_the_same(
        self,
        own: EtcdCluster,
        watching: Callable[..., Store],
        writer: EtcdStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        since = writer.transact([], [Put("a/", "0"), Put("b/gone", "0")]) or 0
        watcher = watching().watcher()
        watcher.add("a/", since)
        change = Conversation.change

        def late(talk: Conversation, *arguments: Any) -> bool:
            if writer.get("b/gone") is not None:
                writer.transact([], [Delete("b/gone")])
                compact(own, writer)
            return change(talk, *arguments)

        with Follower(watcher=watcher) as follower:
            put(writer, "a/", "1")
            follower.wait_for("a/", "1")
            monkeypatch.setattr(Conversation, "change", late)
            watcher.add("b/", since)
            follower.wait_for("b/gone", None)

    def test_one_that_is_added_and_not_answered_is_asked_for_on_another_stream(
        self, proxy: Proxy, writer: EtcdStore
    ) -> None:
        with EtcdStore(proxy.endpoint, timeout=1, silence=LONG) as store:
            watcher = store.watcher()
            since = put(writer, "a/", "0")
            watcher.add("a/", since)
            with Follower(watcher=watcher) as follower:
                put(writer, "a/", "1")
                follower.wait_for("a/", "1")
                proxy.is_frozen.set()
                watcher.add("b/", since)
                assert proxy.withheld.acquire(timeout=60)
                proxy.is_frozen.clear()
                put(writer, "b/", "1")
                follower.wait_for("b/", "1")
                assert count_watches(proxy) == 2

    def test_many_threads_add_and_drop_while_others_write(
        self, watching: Callable[..., Store], writer: EtcdStore
    ) -> None:
        watcher = watching().watcher()
        since = put(writer, "start", "0")
        watcher.add("all/", since)
        wanted = {f"all/{n}/{m}": f"{m}" for n in range(4) for m in range(10)}

        def stir(number: int) -> None:
            for m in range(10):
                watcher.add(f"{number}/", since)
                put(writer, f"all/{number}/{m}", f"{m}")
                watcher.drop(f"{number}/")
            watcher.add(f"{number}/", since)
            put(writer, f"{number}/", "last")

        with Follower(watcher=watcher) as follower:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(stir, range(4)))
            follower.wait_for_entries(wanted | {f"{n}/": "last" for n in range(4)})
            assert len(follower.changes) == len(wanted) + 4


class TestTheDistantPast:
    """For a watch that begins there etcd reads all that was written since, whoever it was by."""

    @pytest.fixture(autouse=True)
    def near(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(etcd_watch, "_FAR", 10)

    @pytest.fixture
    def begins(self, proxy: Proxy) -> Callable[[], list[int]]:
        """Return a function that returns where the watches of the last stream begin."""

        def last() -> list[int]:
            stream = [request for request in proxy.requests if request.path == "/v3/watch"][-1]
            return [int(body["create_request"]["start_revision"]) for body in (stream.body, *stream.more)]

        return last

    def test_what_is_quiet_does_not_begin_in_it(
        self,
        proxy: Proxy,
        watching: Callable[..., Store],
        writer: EtcdStore,
        begins: Callable[[], list[int]],
    ) -> None:
        since = writer.transact([], [Put("quiet/a", "0"), Put("quiet/b", "0"), Put("loud/", "0")]) or 0
        watcher = watching().watcher()
        watcher.add("quiet/", since)
        watcher.add("loud/", since)
        changes = watcher.changes()
        for n in range(20):
            put(writer, "loud/", f"{n}")
            assert next(changes).value == f"{n}"
        assert begins()[0] == since + 1
        proxy.cut()
        last = put(writer, "loud/", "last")
        assert next(changes).value == "last"
        assert begins()[0] >= last - 1
        deleted = writer.transact([], [Delete("quiet/a")]) or 0
        assert next(changes) == Change("quiet/a", None, deleted)
        watcher.close()

    @pytest.mark.parametrize("operation", [Put("quiet/b", "1"), Put("quiet/a", "1"), Delete("quiet/a")])
    def test_what_has_changed_meanwhile_is_told(
        self,
        proxy: Proxy,
        watching: Callable[..., Store],
        writer: EtcdStore,
        begins: Callable[[], list[int]],
        operation: Put | Delete,
    ) -> None:
        since = put(writer, "quiet/a", "0")
        with Follower(watching(), "quiet/") as follower:
            follower.wait_until(lambda: count_watches(proxy) == 1, "the first stream")
            for n in range(20):
                put(writer, "loud", f"{n}")
            proxy.decide = no_watch
            proxy.cut()
            revision = writer.transact([], [operation])
            proxy.decide = lambda _: Fate.PASS
            value = operation.value if isinstance(operation, Put) else None
            follower.wait_for(operation.key, value)
            assert follower.changes == [Change(operation.key, value, revision or 0)]
        assert begins() == [since + 1]


class TestTheEnd:
    def test_a_closed_store_ends_its_watches(self, watching: Callable[..., Store]) -> None:
        store = watching()
        with Follower(store) as follower:
            put(store, "a", "1")
            follower.wait_for("a", "1")
            store.close()
            error = follower.wait_for_end()
        assert isinstance(error, StoreError)
        assert "the store is closed" in str(error)

    def test_a_watch_can_be_stopped_while_no_member_answers(
        self, own: EtcdCluster, watching: Callable[..., Store]
    ) -> None:
        stop = threading.Event()
        store = watching()
        changes = store.watch("", store.list("").revision, stop=stop)
        put(store, "a", "1")
        assert next(changes).key == "a"
        own.members[0].kill()
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        assert list(changes) == []
        timer.join()
