"""Other names for networks that span hosts and their endpoints: one for all hosts, nobody else's."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import ConflictError, InvalidValueError, NotFoundError, StoreError
from pynetwork.cluster.layout import NAMES
from pynetwork.cluster.watching import Listed
from pynetwork.store import Change
from pynetwork.testing import ChaosStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cluster.hosts import Host, World

    from pynetwork import Network

PATIENCE_SECONDS = 60


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def pair(world: World) -> tuple[Host, Host]:
    """Two hosts, both with a part of network ``net``."""
    a, b = world.host("h1"), world.host("h2")
    a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    a.joined("net", "web")
    b.joined("net", "db")
    world.settle()
    return a, b


def is_called(network: Network, name: str) -> bool:
    return network.name == name


def keep_up(*hosts: Host) -> None:
    for host in hosts:
        host.worker.take(Listed("", host.span.ledger.store.list(NAMES)))  # as its agent is told
        host.worker.keep_up(now=True)


class TestNetworks:
    def test_the_new_name_is_known_on_every_host_and_the_old_one_free(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, b = pair
        c = world.host("h3")  # has no part in it
        on_b, on_c = b.controller.networks["net"], c.controller.networks["net"]
        network = a.controller.networks["net"]
        network.rename("app")
        assert network.name == on_c.name == "app"
        for host in (a, b, c):
            assert host.controller.networks["app"].id == network.id
        assert "net" not in a.controller.networks
        assert "net" not in c.controller.networks
        keep_up(b)
        assert on_b.name == "app"
        assert "net" not in b.controller.networks
        assert a.controller.new_network("overlay", "net").id != network.id

    def test_agents_hear_of_it(self, world: World) -> None:
        a, b = (world.host(name, agent=True) for name in ("h1", "h2"))
        network = a.controller.new_network("overlay", "net")
        a.joined("net", "web")
        b.joined("net", "db")
        on_b = b.controller.networks["net"]
        for name in ("one", "two", "net"):
            network.rename(name)
            wait_for(partial(is_called, on_b, name))
            assert list(b.controller.networks) == [name]

    def test_another_process_of_the_host_sees_it(self, world: World, pair: tuple[Host, Host]) -> None:
        a, _ = pair
        other = world.host("h1", kernel=a.kernel, store=a.store, process="another one")
        seen = other.controller.networks["net"]
        a.controller.networks["net"].rename("app")
        assert seen.name == "app"
        assert list(other.controller.networks) == ["app"]

    def test_a_name_that_somebody_has_is_refused_and_nothing_changes(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, b = pair
        b.controller.new_network("overlay", "theirs")
        a.controller.new_network("bridge", "mine")
        before = world.keys()
        network = a.controller.networks["net"]
        with pytest.raises(ConflictError, match="'theirs' already exists in the cluster"):
            network.rename("theirs")
        with pytest.raises(ConflictError, match="'mine' already exists on this host"):
            network.rename("mine")
        with pytest.raises(InvalidValueError):
            network.rename("no/name")
        network.rename("net")
        assert network.name == "net"
        assert world.keys() == before

    def test_one_that_is_gone_is_not_found(self, world: World) -> None:
        a, b = world.host("h1"), world.host("h2")
        network = a.controller.new_network("overlay", "net")
        b.controller.networks["net"].delete()
        with pytest.raises(NotFoundError):
            network.rename("app")
        assert not world.keys()

    def test_two_that_change_their_names_are_followed(self, world: World, pair: tuple[Host, Host]) -> None:
        a, b = pair
        other = a.controller.new_network("overlay", "other")
        b.joined("other", "x")
        network = a.controller.networks["net"]
        network.rename("between")
        other.rename("net")
        network.rename("other")
        keep_up(b)
        assert b.controller.networks["net"].id == other.id
        assert b.controller.networks["other"].id == network.id

    def test_an_old_name_on_a_host_is_not_in_the_way_of_a_new_network(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        """The host has not heard of the other name yet."""
        a, b = pair
        network = a.controller.networks["net"]
        network.rename("app")
        new = a.controller.new_network("overlay", "net", subnets=["10.2.0.0/24"])
        endpoint = type(new).of(b.controller._core, new.id).create_endpoint("e")
        assert endpoint.network.name == "net"
        assert b.controller.networks["app"].id == network.id

    def test_a_name_that_a_host_has_for_itself_stays_its_own(
        self, world: World, pair: tuple[Host, Host], caplog: pytest.LogCaptureFixture
    ) -> None:
        a, b = pair
        own = b.controller.new_network("bridge", "app")
        a.controller.networks["net"].rename("app")
        keep_up(b)
        assert "keep names on this host" in caplog.text
        assert b.controller.networks["app"].id == own.id
        own.delete()
        b.worker.keep_up(now=True)  # nothing more is told
        assert b.controller.networks["app"].name == "app"

    def test_one_that_comes_to_a_host_under_a_name_that_it_had_gets_its_own(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        """Its name changed between the entry in the books and the request on the host."""
        a, b = pair
        other = a.controller.new_network("overlay", "old")
        adopt = b.span._adopt

        def rename_first(network: Any) -> None:
            other.rename("new")
            b.worker.take(Listed("", world.store.list(NAMES)))
            adopt(network)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(b.span), "_adopt", lambda _span, network: rename_first(network))
            b.controller.networks["old"].create_endpoint("x")
        on_b = type(other).of(b.controller._core, other.id)
        assert on_b.name == "old"
        b.worker.keep_up(now=True)
        assert on_b.name == "new"

    def test_a_host_that_is_ahead_of_what_it_was_told_stays_so(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, _ = pair
        network = a.controller.networks["net"]
        network.rename("app")
        a.worker.keep_up(now=True)  # and its agent has not heard of it yet
        assert network.name == "app"

    def test_it_stays_so_when_it_is_told_of_another_network_first(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, b = pair
        network = a.controller.networks["net"]
        network.rename("app")
        other = b.controller.new_network("overlay", "other")
        a.worker.take(Change(f"{NAMES}other", other.id, 1))
        assert network.name == "app"

    def test_a_name_that_was_in_the_way_is_tried_again_when_the_next_is_told(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        _, b = pair
        other = b.controller.new_network("overlay", "other")
        b.joined("other", "x")
        world.settle()
        network = b.controller.networks["net"]
        for name, identity in (("other", network.id), ("net", other.id)):  # they exchange their names
            b.worker.take(Change(f"{NAMES}{name}", identity, 1))
        assert (network.name, other.name) == ("other", "net")

    def test_upkeep_reads_no_network_whose_name_is_as_it_was_told(
        self, world: World, pair: tuple[Host, Host], asked: Callable[[str], list[str]]
    ) -> None:
        read = asked("get")
        for host in pair:
            host.worker.keep_up(now=True)
        assert not [key for key in read if key.startswith("nets/")]

    def test_names_are_what_was_told_last_in_whatever_order_a_rename_is_told(self, world: World) -> None:
        a = world.host("h1")
        a.controller.new_network("overlay", "one")
        a.joined("one", "web")
        world.settle()
        (network,) = a.controller.networks.values()
        for told in (
            [("two", network.id), ("one", None)],
            [("two", None), ("one", network.id)],
            [("two", network.id), ("one", None)],
        ):
            for name, identity in told:
                a.worker.take(Change(f"{NAMES}{name}", identity, 1))
            (name,) = [name for name, identity in told if identity is not None]
            assert network.name == name

    def test_of_many_that_want_one_name_exactly_one_gets_it(self, world: World) -> None:
        hosts = [world.host(f"h{number}") for number in range(1, 5)]
        for number, host in enumerate(hosts):
            host.controller.new_network("overlay", f"n{number}")
        got, lost = self._race(
            [partial(h.controller.networks[f"n{n}"].rename, "one") for n, h in enumerate(hosts)]
        )
        assert (got, lost) == (1, 3)
        names = [list(host.controller.networks) for host in hosts]
        assert all(each == names[0] and each.count("one") == 1 and len(each) == 4 for each in names)

    def test_of_many_names_for_one_network_the_last_one_stays(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, b = pair
        got, _ = self._race(
            [partial(h.controller.networks["net"].rename, f"x{n}") for n, h in enumerate([a, b] * 4)]
        )
        assert got
        keep_up(a, b)
        (on_a,), (on_b,) = a.controller.networks, b.controller.networks
        assert on_a == on_b
        assert world.keys("names/") == [f"names/{on_a}"]

    @staticmethod
    def _race(calls: list[Callable[[], None]]) -> tuple[int, int]:
        barrier = threading.Barrier(len(calls))
        got: list[bool] = []

        def run(call: Callable[[], None]) -> None:
            barrier.wait()
            try:
                call()
            except (ConflictError, NotFoundError):
                got.append(False)
            else:
                got.append(True)

        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return got.count(True), got.count(False)


class TestEndpoints:
    def test_the_new_name_is_known_on_every_host(self, world: World, pair: tuple[Host, Host]) -> None:
        a, b = pair
        network = a.controller.networks["net"]
        endpoint = network.endpoints["web"]
        endpoint.rename("www")
        assert endpoint.name == "www"
        assert list(network.endpoints) == ["www"]
        world.settle()
        (peer,) = b.controller.networks["net"].peers
        assert list(peer.endpoints) == ["www"]
        assert b.controller.networks["net"].create_endpoint("web").name == "web"
        endpoint.leave()
        endpoint.delete()
        assert not [key for key in world.keys("") if key.endswith("/www") or endpoint.id in key]

    def test_a_name_that_another_host_has_is_refused_and_nothing_changes(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, _ = pair
        before = world.keys()
        endpoint = a.controller.networks["net"].endpoints["web"]
        with pytest.raises(ConflictError, match="'db' already exists in its network"):
            endpoint.rename("db")
        with pytest.raises(InvalidValueError):
            endpoint.rename("no/name")
        endpoint.rename("web")
        assert endpoint.name == "web"
        assert world.keys() == before

    def test_of_two_hosts_that_want_one_name_exactly_one_gets_it(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, b = pair
        got, lost = TestNetworks._race(
            [
                lambda: a.controller.networks["net"].endpoints["web"].rename("one"),
                lambda: b.controller.networks["net"].endpoints["db"].rename("one"),
            ]
        )
        assert (got, lost) == (1, 1)
        names = {name for host in pair for name in host.controller.networks["net"].endpoints}
        assert names in ({"one", "db"}, {"one", "web"})
        assert {key.rpartition("/")[2] for key in world.keys("ends/")} == names

    def test_what_this_host_cannot_write_down_is_taken_back(self, world: World) -> None:
        a = world.host("h1")
        a.controller.new_network("overlay", "net")
        endpoint = a.controller.networks["net"].create_endpoint("web")
        store = ChaosStore(a.store, fail_at=0)
        again = world.host("h1", kernel=a.kernel, store=store, process="another one")
        with pytest.raises(StoreError):
            again.controller.networks["net"].endpoints["web"].rename("www")
        assert [key.rpartition("/")[2] for key in world.keys("ends/")] == ["web"]
        endpoint.rename("www")

    def test_a_process_that_dies_between_books_and_records_is_made_up_for(
        self, world: World, pair: tuple[Host, Host]
    ) -> None:
        a, b = pair
        endpoint = a.controller.networks["net"].endpoints["web"]
        a.span.ledger.rename_endpoint(endpoint.id, "www")
        assert endpoint.name == "web"
        keep_up(a)
        assert endpoint.name == "www"
        world.settle()
        (peer,) = b.controller.networks["net"].peers
        assert list(peer.endpoints) == ["www"]

    def test_one_in_quarantine_is_refused(self, world: World, pair: tuple[Host, Host]) -> None:
        a, _ = pair
        endpoint = a.controller.networks["net"].endpoints["web"]
        a.span.ledger.release(endpoint.id)
        with pytest.raises(ConflictError, match="what it had is another's, or was struck out"):
            endpoint.rename("www")
        assert endpoint.name == "web"


def test_what_is_of_one_host_alone_is_renamed_as_ever(world: World) -> None:
    a = world.host("h1")
    local = a.controller.new_network("bridge", "own")
    endpoint = local.create_endpoint("e")
    before = world.keys()
    local.rename("mine")
    endpoint.rename("f")
    assert (local.name, endpoint.name) == ("mine", "f")
    assert world.keys() == before
