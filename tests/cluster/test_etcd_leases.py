"""Leases in etcd: what is put with one goes when its holder dies, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cluster.follower import Follower

from pynetwork.errors import InvalidValueError, NotFoundError
from pynetwork.store import Absent, Delete, EtcdStore, Lease, LeaseKeeper, Put
from pynetwork.testing import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.testing.cluster import EtcdCluster

pytestmark = pytest.mark.root

SHORT = 2  # seconds; what etcd grants at least


@pytest.fixture
def leasing(open_store: Callable[..., EtcdStore]) -> EtcdStore:
    return open_store()


def test_the_keys_of_a_lease_go_with_it_in_one_revision(leasing: EtcdStore) -> None:
    with Follower(leasing) as follower:
        lease = leasing.grant(SHORT)
        assert lease.ttl == SHORT
        leasing.transact([], [Put("b", "1", lease=lease), Put("c", "1")])
        leasing.transact([], [Put("a", "1", lease=lease)])
        follower.wait_for_entries({"a": "1", "b": "1", "c": "1"})
        follower.wait_for_entries({"c": "1"})
        assert [change.key for change in follower.changes[-2:]] == ["a", "b"]
        assert len({change.revision for change in follower.changes[-2:]}) == 1
    assert leasing.keep_alive(lease) is None
    assert leasing.remaining(lease) is None
    leasing.revoke(lease)


def test_a_lease_can_be_looked_at_renewed_and_revoked(leasing: EtcdStore, single: EtcdCluster) -> None:
    lease = leasing.grant(99.5)
    assert lease.ttl == 100
    assert f"{lease.id:x}" in single.etcdctl("lease", "list")
    assert 90 < (leasing.remaining(lease) or 0) <= 100
    assert leasing.keep_alive(lease) == 100
    revision = leasing.transact([], [Put("a", "1", lease=lease)])
    assert revision is not None
    leasing.revoke(lease)
    assert leasing.get("a") is None
    leasing.revoke(lease)
    with pytest.raises(NotFoundError, match=r"cannot write 'a': Lease\(.*\) has ended; nothing was written"):
        leasing.transact([], [Put("a", "1", lease=lease)])
    assert leasing.transact([Absent("x"), Absent("a")], [Put("a", "1")]) is not None
    assert leasing.transact([Absent("a")], [Put("a", "1", lease=lease)]) is None


def test_a_key_belongs_to_the_lease_of_its_last_put(leasing: EtcdStore) -> None:
    first, second = leasing.grant(100), leasing.grant(100)
    leasing.transact([], [Put(key, "1", lease=first) for key in ("kept", "moved", "gone")])
    leasing.transact([], [Put("kept", "2"), Put("moved", "2", lease=second), Delete("gone")])
    leasing.transact([], [Put("gone", "3")])
    leasing.revoke(first)
    assert [entry.key for entry in leasing.list("").entries] == ["gone", "kept", "moved"]
    leasing.revoke(second)
    assert [entry.key for entry in leasing.list("").entries] == ["gone", "kept"]


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), 1e10])
def test_a_time_to_live_is_a_positive_number_of_seconds(leasing: EtcdStore, ttl: float) -> None:
    with pytest.raises(InvalidValueError, match="no time to live of a lease"):
        leasing.grant(ttl)


def hold(endpoint: str, prefix: str) -> None:
    """Put two keys with a lease and keep it alive, until killed."""
    from pynetwork.store import EtcdStore, LeaseKeeper, Put
    from pynetwork.testing import reach

    with EtcdStore(endpoint, prefix=prefix) as store:
        lease = store.grant(2)
        with LeaseKeeper(store, lease):
            store.transact([], [Put("host", "1", lease=lease), Put("endpoint", "1", lease=lease)])
            reach("held")


def test_what_a_process_has_put_goes_after_it_was_killed(leasing: EtcdStore, single: EtcdCluster) -> None:
    """And stays for longer than its lease while it lives."""
    with Follower(leasing) as follower, Child(hold, single.endpoints[0], repr(leasing).split()[1]) as child:
        follower.wait_for_entries({"host": "1", "endpoint": "1"})
        child.wait_for("held")
        lease = leasing.grant(SHORT)  # is over when twice that has passed
        leasing.transact([], [Put("clock", "1", lease=lease)])
        follower.wait_for("clock", "1")
        follower.wait_for("clock", None)
        assert leasing.get("host") is not None
        child.kill()
        follower.wait_for_entries({})
        assert {change.key for change in follower.changes[-2:]} == {"host", "endpoint"}
        assert follower.changes[-1].revision == follower.changes[-2].revision


def test_a_keeper_notices_a_loss(leasing: EtcdStore, single: EtcdCluster) -> None:
    lost: list[Lease] = []
    lease = leasing.grant(100)
    with LeaseKeeper(leasing, lease, on_loss=lost.append, interval=0.05) as keeper:
        single.etcdctl("lease", "revoke", f"{lease.id:x}")
        assert keeper.lost.wait(timeout=60)
    assert lost == [lease]


@pytest.mark.parametrize("calamity", ["kill", "stop"])
def test_a_lease_that_is_kept_alive_survives_the_leader(cluster: EtcdCluster, calamity: str) -> None:
    with EtcdStore(cluster.endpoints, timeout=3) as store, Follower(store) as follower:
        lease = store.grant(5)
        with LeaseKeeper(store, lease, interval=0.5) as keeper:
            store.transact([], [Put("a", "1", lease=lease)])
            leader = cluster.leader()
            getattr(leader, calamity)()
            # Another lease, which nobody keeps: when it is over, so would be the first. A new leader
            # gives both their time anew.
            with EtcdStore(cluster.endpoints, timeout=30) as patient:
                clock = patient.grant(5)
                patient.transact([], [Put("clock", "1", lease=clock)])
            follower.wait_for("clock", "1")
            follower.wait_for("clock", None)
            assert store.get("a") is not None
            assert not keeper.lost.is_set()
            leader.resume()
            leader.start()
            cluster.wait()
            assert keeper.renew()
        store.revoke(lease)
        follower.wait_for("a", None)


def test_a_lease_outlives_a_cluster_that_is_down(cluster: EtcdCluster) -> None:
    """For longer than its time: nobody saw it end."""
    with EtcdStore(cluster.endpoints, timeout=1) as store:
        lease = store.grant(SHORT)
        with LeaseKeeper(store, lease, interval=0.1) as keeper:
            store.transact([], [Put("a", "1", lease=lease)])
            for member in cluster.members:
                member.kill()
            while keeper.seconds_left() > -1:
                assert not keeper.lost.wait(0.1)
            cluster.start()
            assert keeper.renew()
            assert store.get("a") is not None
        assert not keeper.lost.is_set()
