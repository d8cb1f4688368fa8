"""Controllers of several hosts share a real etcd: the layer above works on it as it does in memory."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.cluster.hosts import World

from pynetwork import ConflictError
from pynetwork.peers import Reach, Resolve
from pynetwork.store import EtcdStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.cluster.hosts import Host

    from pynetwork import Endpoint, Network
    from pynetwork.peers import Entry
    from pynetwork.testing.cluster import EtcdCluster

pytestmark = pytest.mark.root

PATIENCE_SECONDS = 60


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def expected(endpoint: Endpoint, host: Host) -> set[Entry]:
    """Return what a host is told of an endpoint of another."""
    vtep = f"192.0.2.{host.name[1:]}"
    return {Reach(endpoint.mac, vtep), *(Resolve(str(a.ip), endpoint.mac) for a in endpoint.addresses)}


@pytest.fixture
def hosts(cluster: EtcdCluster) -> Iterator[list[Host]]:
    """Three hosts with a network, each with an agent, and a store that prefers another member."""
    world, endpoints = World(), cluster.endpoints
    stores = [EtcdStore([*endpoints[n:], *endpoints[:n]], silence=1) for n in range(3)]
    for number, store in enumerate(stores, 1):
        world.host(f"h{number}", cluster_store=store, agent=True, ttl=3)
    hosts = list(world.hosts.values())
    hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    yield hosts
    for host in hosts:
        host.controller.close()
    for store in stores:
        store.close()


def test_hosts_hear_of_each_other_also_after_the_leader_was_killed(
    hosts: list[Host], cluster: EtcdCluster
) -> None:
    a, b, c = hosts
    web, db = a.joined("net", "web"), b.joined("net", "db")
    assert wait_for(lambda: a.entries("net") == expected(db, b))
    assert wait_for(lambda: b.entries("net") == expected(web, a))
    leases = [host.worker.lease for host in hosts]
    cluster.leader().kill()
    cache = c.joined("net", "cache")
    web.leave()
    assert wait_for(lambda: a.entries("net") == expected(db, b) | expected(cache, c))
    assert wait_for(lambda: b.entries("net") == expected(cache, c))
    assert wait_for(lambda: c.entries("net") == expected(db, b))
    assert [host.worker.lease for host in hosts] == leases


def test_what_is_unique_is_unique_when_all_ask_at_once(hosts: list[Host]) -> None:
    def create(host: Host) -> None:
        for number in range(20):
            host.controller.networks["net"].create_endpoint(f"{host.name}-{number}")
            host.controller.new_network("overlay", f"{host.name}-{number}")

    threads = [threading.Thread(target=create, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    networks = [host.controller.networks["net"] for host in hosts]
    addresses = [
        address for each in networks for endpoint in each.endpoints.values() for address in endpoint.addresses
    ]
    assert len(set(addresses)) == len(addresses) == 60
    overlays = hosts[0].controller.networks
    assert len({network.options.vni for network in overlays.values()}) == len(overlays) == 61


def test_what_a_host_has_joined_is_gone_with_its_lease(hosts: list[Host]) -> None:
    a, b, _ = hosts
    web = a.joined("net", "web")
    b.joined("net", "db")
    assert wait_for(lambda: b.entries("net") == expected(web, a))
    agent = a.span.agent
    assert agent is not None
    agent.close()  # nobody renews its lease
    assert wait_for(lambda: b.entries("net") == set())


def test_of_three_hosts_that_want_one_name_exactly_one_gets_it_and_all_hear_of_it(hosts: list[Host]) -> None:
    for number, host in enumerate(hosts):
        host.controller.new_network("overlay", f"n{number}")
        for each in hosts:
            each.joined(f"n{number}", f"e{each.name}")
    networks = [host.controller.networks[f"n{number}"] for number, host in enumerate(hosts)]
    endpoints = [host.controller.networks["n0"].endpoints[f"e{host.name}"] for host in hosts]
    for things in (networks, endpoints):
        lost: list[Exception] = []

        def rename(thing: Network | Endpoint, lost: list[Exception] = lost) -> None:
            try:
                thing.rename("one")
            except ConflictError as error:
                lost.append(error)

        threads = [threading.Thread(target=rename, args=(thing,)) for thing in things]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lost) == 2
        assert sum(thing.name == "one" for thing in things) == 1
    (winner,) = [network for network in networks if network.name == "one"]
    for host in hosts:
        seen = {network.id: network for network in host.controller.networks.values()}
        assert wait_for(lambda seen=seen: seen[winner.id].name == "one")  # type: ignore[misc]  # a lambda
        assert host.controller.networks["one"].id == winner.id
        found = next(each for each in seen.values() if each.id == networks[0].id)
        assert wait_for(
            lambda found=found: (
                [
                    name
                    for name in [*found.endpoints, *(name for peer in found.peers for name in peer.endpoints)]
                    if name == "one"
                ]  # type: ignore[misc]  # a lambda
                == ["one"]
            )
        )
