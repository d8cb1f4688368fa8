"""What the tests of the cluster store share: real etcd members, on a private host."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.conftest import cannot_run, why_no_root

from pynetwork.store import EtcdStore
from pynetwork.testing.cluster import etcd_cluster
from pynetwork.testing.hosts import private_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.store import Store
    from pynetwork.testing.cluster import EtcdCluster
    from pynetwork.testing.hosts import PrivateHost


def check_can_run() -> None:
    """Skip the test where there is no etcd, or fail it in CI; for fixtures that come before its set-up."""
    if reason := why_no_root():
        cannot_run(reason)
    for program in ("etcd", "etcdctl"):
        if shutil.which(program) is None:
            cannot_run(f"{program} is missing; on Debian: apt-get install etcd-server etcd-client")


@pytest.fixture(scope="module")
def host() -> Iterator[PrivateHost]:
    """The private host that all clusters of a module's tests are on, as is the tests' thread."""
    check_can_run()
    with private_host() as host:
        yield host


@pytest.fixture(scope="module")
def single(host: PrivateHost) -> Iterator[EtcdCluster]:
    """A cluster of one that the tests of a module share, each under its own prefix."""
    with etcd_cluster(host=host) as cluster:
        yield cluster


@pytest.fixture
def own(host: PrivateHost) -> Iterator[EtcdCluster]:
    """A cluster of one of the test's own, which it may break."""
    with etcd_cluster(host=host) as cluster:
        yield cluster


@pytest.fixture
def cluster(host: PrivateHost) -> Iterator[EtcdCluster]:
    """A cluster of three of the test's own, which it may break."""
    with etcd_cluster(members=3, host=host) as cluster:
        yield cluster


@pytest.fixture
def open_store(request: pytest.FixtureRequest, single: EtcdCluster) -> Iterator[Callable[..., Store]]:
    """``open_store(state="1")`` opens a handle to the state of that name, empty at first."""
    test = re.sub(r"\W+", "-", request.node.nodeid)
    with ExitStack() as handles:

        def open_etcd(state: str = "1", history: int = 0) -> Store:
            return handles.enter_context(EtcdStore(single.endpoints, prefix=f"/{test}/{state}"))

        yield open_etcd


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()
