"""Three members: one may be killed or hang, also the leader; and if all are gone, they come back."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Self

import pytest
from tests.cluster.follower import Follower

from pynetwork.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from pynetwork.store import Absent, EtcdStore, Put
from pynetwork.testing.cluster import etcd_cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pynetwork.store import Store
    from pynetwork.testing.cluster import EtcdCluster, EtcdMember
    from pynetwork.testing.hosts import PrivateHost

pytestmark = pytest.mark.root

TIMEOUT = 12.0  # seconds: an election takes one or two, and more on a busy machine


class Writer:
    """
    A thread that creates one key after the other.

    Attributes:
        acknowledged: Revisions of the keys that were said to be written.
        failures: What else was said.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.acknowledged: dict[str, int] = {}
        self.failures: list[object] = []
        self._store = store
        self._name = name
        self._progress = threading.Semaphore(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int) -> None:
        """Wait until it has written *count* keys more than now."""
        while self._progress.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self._progress.acquire(timeout=60), self.failures

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"{self._name}/{number:06}"
            try:
                revision = self._store.transact([Absent(key)], [Put(key, "x")])
            except StoreError as error:
                self.failures.append(error)
                continue
            if revision is None:
                self.failures.append(f"{key} is said to be there already")
            else:
                self.acknowledged[key] = revision
                self._progress.release()


def puts_by_key(cluster: EtcdCluster, prefix: str) -> dict[str, tuple[int, int]]:
    """Return revision and number of puts of each key, as etcd's own client sees them."""
    rows = json.loads(cluster.etcdctl("get", "--prefix", f"/pynetwork/data/{prefix}", "--write-out=json"))
    return {
        base64.b64decode(row["key"]).decode().removeprefix("/pynetwork/data/"): (
            row["mod_revision"],
            row["version"],
        )
        for row in rows["kvs"]
    }


def follower_of(cluster: EtcdCluster) -> EtcdMember:
    leader = cluster.leader()
    return next(member for member in cluster.members if member is not leader)


CALAMITIES: dict[str, Callable[[EtcdCluster], None]] = {
    "the leader is killed": lambda cluster: cluster.leader().kill(),
    "the leader ends in order": lambda cluster: cluster.leader().terminate(),
    "the leader hangs": lambda cluster: cluster.leader().stop(),
    "a follower is killed": lambda cluster: follower_of(cluster).kill(),
    "a follower hangs": lambda cluster: follower_of(cluster).stop(),
}


@pytest.mark.parametrize("calamity", CALAMITIES)
def test_no_acknowledged_write_is_lost_none_is_done_twice_and_all_are_told(
    cluster: EtcdCluster, calamity: str
) -> None:
    """Each store prefers another member at first, so one of them is hit in any case."""
    endpoints = cluster.endpoints
    stores = [
        EtcdStore([*endpoints[n:], *endpoints[:n]], timeout=TIMEOUT, silence=1) for n in range(len(endpoints))
    ]
    first, second, third = stores
    try:
        with Follower(third) as followed, Follower(first) as following:
            with Writer(first, "a") as one, Writer(second, "b") as two, Writer(third, "c") as three:
                writers = (one, two, three)
                for writer in writers:
                    writer.wait_for_more(10)
                CALAMITIES[calamity](cluster)
                for writer in writers:
                    writer.wait_for_more(10)
                for member in cluster.members:
                    member.resume()
                    member.start()
                cluster.wait()
                for writer in writers:
                    writer.wait_for_more(10)
            assert [writer.failures for writer in writers] == [[], [], []]
            acknowledged = one.acknowledged | two.acknowledged | three.acknowledged
            written = puts_by_key(cluster, "")
            assert written == {key: (revision, 1) for key, revision in acknowledged.items()}
            for follower in (followed, following):
                follower.wait_for_entries(dict.fromkeys(acknowledged, "x"))
                assert [(each.key, each.revision) for each in follower.changes] == sorted(
                    acknowledged.items(), key=lambda item: item[1]
                )
    finally:
        for store in stores:
            store.close()


def test_all_members_die_and_come_back(cluster: EtcdCluster) -> None:
    with EtcdStore(cluster.endpoints, timeout=1) as store, Follower(store) as follower:
        store.transact([], [Put("before", "1")])
        follower.wait_for("before", "1")
        for member in cluster.members:
            member.kill()
        with pytest.raises(
            StoreUnavailableError, match="cannot read 'before': no member of etcd answers"
        ) as no:
            store.get("before")
        for endpoint in cluster.endpoints:
            assert f"{endpoint}: Connection refused" in str(no.value)
        with pytest.raises(StoreUnavailableError, match="cannot write 'meanwhile'"):
            store.transact([], [Put("meanwhile", "1")])
        with pytest.raises(StoreUnavailableError):
            store.changes(1)
        with pytest.raises(StoreUnavailableError):
            store.grant(10)
        cluster.start()
        entry = store.get("before")
        assert entry is not None
        assert store.transact([], [Put("after", "1")]) is not None
        follower.wait_for_entries({"before": "1", "after": "1"})
        assert len(follower.changes) == 2


def test_a_member_without_a_majority_is_not_believed(cluster: EtcdCluster) -> None:
    """It could read what is long past; and a watch on it would be silent."""
    lonely, *others = cluster.members
    with EtcdStore(cluster.endpoints, timeout=TIMEOUT, silence=1) as store, Follower(store) as follower:
        store.transact([], [Put("a", "1")])
        follower.wait_for("a", "1")
        for member in others:
            member.stop()
        with EtcdStore(lonely.endpoint, timeout=1) as there, pytest.raises(StoreUnavailableError):
            there.get("a")
        for member in others:
            member.resume()
        cluster.wait()
        store.transact([], [Put("a", "2")])
        follower.wait_for("a", "2")


def test_a_full_cluster_says_so_and_can_be_read(host: PrivateHost) -> None:
    with (
        etcd_cluster(host=host, options=["--quota-backend-bytes=1000000"]) as full,
        EtcdStore(full.endpoints) as store,
        Follower(store) as follower,
    ):

        def fill() -> None:
            for number in range(100):
                store.transact([], [Put(f"{number}", "x" * 100_000)])

        with pytest.raises(StoreError, match=r"cannot write .* etcd at http.* refuses: .*space exceed") as no:
            fill()
        assert not isinstance(no.value, StoreUnavailableError | OutcomeUnknownError)
        entries = store.list("").entries
        assert 0 < len(entries) < 100
        follower.wait_for_entries({entry.key: entry.value for entry in entries})
        news = store.changes(entries[0].revision)
        assert news is not None
        assert len(news.changes) == len(entries) - 1


def test_a_member_that_does_not_listen_is_passed_over(cluster: EtcdCluster) -> None:
    """From the first call on, without a try of the store's user."""
    cluster.members[0].kill()
    with EtcdStore(cluster.endpoints, timeout=TIMEOUT) as store:
        assert store.transact([], [Put("a", "1")]) is not None
        assert store.get("a") is not None


def test_threads_share_a_store_while_members_hang_in_turn(cluster: EtcdCluster) -> None:
    with EtcdStore(cluster.endpoints, timeout=TIMEOUT) as store:
        with Writer(store, "a") as one, Writer(store, "b") as two, Writer(store, "c") as three:
            for member in cluster.members:
                member.stop()
                for writer in (one, two, three):
                    writer.wait_for_more(5)
                member.resume()
                cluster.wait()
        assert [writer.failures for writer in (one, two, three)] == [[], [], []]
        acknowledged = one.acknowledged | two.acknowledged | three.acknowledged
        assert puts_by_key(cluster, "") == {key: (revision, 1) for key, revision in acknowledged.items()}
