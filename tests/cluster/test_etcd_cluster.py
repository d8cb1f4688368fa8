"""A cluster for tests is real, out of sight, and gone without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import UnavailableError
from pynetwork.store import EtcdStore, Put
from pynetwork.testing.cluster import etcd_cluster

if TYPE_CHECKING:
    from pynetwork.testing.cluster import EtcdCluster
    from pynetwork.testing.hosts import PrivateHost

pytestmark = pytest.mark.root


def network() -> Path:
    """Return the network namespace that the thread is in."""
    return Path("/proc/thread-self/ns/net").readlink()


def test_three_members_are_one_cluster(cluster: EtcdCluster) -> None:
    assert cluster.leader() in cluster.members
    cluster.etcdctl("put", "a", "1")
    for member in cluster.members:
        printed = cluster.etcdctl("--endpoints", member.endpoint, "get", "a", "--print-value-only")
        assert printed.strip() == "1"


def test_a_member_that_was_killed_has_its_data_when_it_is_started(own: EtcdCluster) -> None:
    own.etcdctl("put", "a", "1")
    (member,) = own.members
    member.kill()
    assert not member.is_running
    own.start()
    assert own.etcdctl("get", "a", "--print-value-only").strip() == "1"


def test_it_is_on_a_private_host_and_leaves_nothing() -> None:
    """Not on the one that the test is on."""
    before = network()
    with etcd_cluster() as cluster:
        assert network() != before
        (member,) = cluster.members
        directory = member.data.parent
        assert member.is_running
        member.stop()
    assert network() == before
    assert not member.is_running
    assert not directory.exists()


def test_members_listen_where_they_are_told_to(host: PrivateHost) -> None:
    host.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"])
    try:
        with etcd_cluster(host=host, addresses=["192.0.2.1"]) as cluster:
            assert cluster.endpoints[0].startswith("http://192.0.2.1:")
            cluster.etcdctl("put", "a", "1")
    finally:
        host.run(["ip", "address", "del", "192.0.2.1/32", "dev", "lo"])


def test_a_store_speaks_ipv6(host: PrivateHost) -> None:
    with etcd_cluster(host=host, addresses=["::1"]) as cluster, EtcdStore(cluster.endpoints) as store:
        assert cluster.endpoints[0].startswith("http://[::1]:")
        changes = store.watch("", store.list("").revision)
        store.transact([], [Put("a", "1")])
        assert next(changes).value == "1"


def test_a_member_that_cannot_start_says_why(host: PrivateHost) -> None:
    with (
        pytest.raises(RuntimeError, match=r"has ended; it has logged: .*flag provided but not defined"),
        etcd_cluster(host=host, options=["--no-such-option"]),
    ):
        pytest.fail("it started")


def test_a_machine_without_etcd_is_told_where_to_find_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="on Debian it is in etcd-server"), etcd_cluster():
        pytest.fail("it started")
