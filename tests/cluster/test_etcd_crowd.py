"""Several processes at once: what is created if absent is created once; a forked store is two stores."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from tests.cluster.follower import Follower

from pynetwork.store import EtcdStore
from pynetwork.testing import Child

if TYPE_CHECKING:
    from pynetwork.testing.cluster import EtcdCluster

pytestmark = pytest.mark.root

CLIENTS = 3
KEYS = 300


def allocate(endpoints: str, name: str, keys: str) -> None:
    """Take *keys* numbers of a pool that is just large enough for all clients, from a place of its own on."""
    import json
    import random

    from pynetwork.store import Absent, EtcdStore, Put
    from pynetwork.testing import reach

    pool = int(keys) * 3
    with EtcdStore(endpoints, timeout=30) as store:
        store.get("nothing")
        reach("ready")
        taken: list[int] = []
        number = random.Random(name).randrange(pool)
        while len(taken) < int(keys):
            number = (number + 1) % pool
            if store.transact([Absent(f"vni/{number}")], [Put(f"vni/{number}", name)]) is not None:
                taken.append(number)
        print(json.dumps(taken))  # noqa: T201 - for the test


@pytest.mark.parametrize("is_calm", [True, False])
def test_three_clients_take_three_hundred_keys_each_and_none_twice(
    cluster: EtcdCluster, is_calm: bool
) -> None:
    """The pool has as many, so it is empty at the end; also when the leader is killed meanwhile."""
    with ExitStack() as stack:
        names = [f"client{number}" for number in range(CLIENTS)]
        children = [
            stack.enter_context(Child(allocate, ",".join(cluster.endpoints), name, str(KEYS), timeout=90))
            for name in names
        ]
        for child in children:
            child.wait_for("ready")
        with EtcdStore(cluster.endpoints, timeout=30) as store, Follower(store, "vni/") as follower:
            for child in children:
                child.proceed()
            if not is_calm:
                follower.wait_until(lambda: len(follower.entries) > CLIENTS * KEYS / 10, "a tenth of them")
                cluster.leader().kill()
            assert [child.wait() for child in children] == [0] * CLIENTS
            taken = {name: json.loads(child.output[-1]) for name, child in zip(names, children, strict=True)}
            assert sorted(chain.from_iterable(taken.values())) == [*range(CLIENTS * KEYS)]
            expected = {f"vni/{number}": name for name, numbers in taken.items() for number in numbers}
            follower.wait_for_entries(expected)
            assert {entry.key: entry.value for entry in store.list("vni/").entries} == expected


def fork_and_count(endpoints: str, times: str) -> None:
    """Parent and child count at once on what was one open store, with threads in the parent."""
    import os
    import threading

    from pynetwork.store import Absent, EtcdStore, Put, Unchanged

    with EtcdStore(endpoints) as store:

        def count() -> None:
            done = 0
            while done < int(times):
                entry = store.get("counter")
                compare = Unchanged("counter", entry.revision) if entry else Absent("counter")
                value = int(entry.value) + 1 if entry else 1
                done += store.transact([compare], [Put("counter", str(value))]) is not None

        count()
        threads = [threading.Thread(target=count) for _ in range(2)]
        for thread in threads:
            thread.start()
        pid = os.fork()
        if pid == 0:
            try:
                count()
                store.close()
            finally:
                os._exit(0)
        count()
        for thread in threads:
            thread.join()
        status = os.waitpid(pid, 0)[1]
        entry = store.get("counter")
        print(status, entry and entry.value)  # noqa: T201 - for the test


def test_a_forked_child_goes_on_with_connections_of_its_own(own: EtcdCluster) -> None:
    """Closing its store leaves the parent's alone, marks of writers included."""
    with Child(fork_and_count, own.endpoints[0], "30") as child:
        assert child.wait() == 0
        assert child.output[-1] == f"0 {30 * 5}"
    assert own.etcdctl("get", "--prefix", "/pynetwork/writers/", "--keys-only").split() == []
