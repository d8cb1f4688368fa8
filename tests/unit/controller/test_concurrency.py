"""Several threads, several controllers, several processes on one state directory."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import attrs

from pynetwork import (
    ConflictError,
    Controller,
    Endpoint,
    ExhaustedError,
    MemoryStore,
    NotFoundError,
    PortTakenError,
    PynetworkError,
    SqliteStore,
)
from pynetwork.resources import PublishedPort
from pynetwork.testing import FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from pathlib import Path


def test_two_controllers_on_one_state_directory_never_give_an_address_twice(tmp_path: Path) -> None:
    kernel = FakeKernel()
    stores = [SqliteStore(tmp_path), SqliteStore(tmp_path)]
    controllers = [
        Controller(store=store, kernel=kernel, surroundings=fake_surroundings(process=f"p{number}"))
        for number, store in enumerate(stores)
    ]
    controllers[0].new_network("bridge", "n", subnets=["10.0.0.0/22"])

    def create(number: int) -> None:
        network = controllers[number].networks["n"]
        for count in range(200):
            sandbox = controllers[number].new_sandbox(f"s{number}-{count}")
            network.create_endpoint(f"e{number}-{count}").join(sandbox)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(create, range(2)))
    for controller in controllers:
        endpoints = controller.networks["n"].endpoints.values()
        addresses = {endpoint.addresses for endpoint in endpoints}
        assert len(endpoints) == len(addresses) == 400
        assert controller.reconcile(dry_run=True).is_clean

    def delete(number: int) -> None:
        """Each deletes what the other made."""
        for name, sandbox in controllers[number].sandboxes.items():
            if name.startswith(f"s{1 - number}-"):
                sandbox.delete()
        for name, endpoint in controllers[number].networks["n"].endpoints.items():
            if name.startswith(f"e{1 - number}-"):
                endpoint.delete(force=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(delete, range(2)))
    controllers[0].networks["n"].delete()
    assert dict(controllers[1].networks) == {}
    assert kernel.resources == ()
    for controller, store in zip(controllers, stores, strict=True):
        controller.close()
        store.close()


def test_of_two_processes_that_ask_for_one_port_exactly_one_gets_it(tmp_path: Path) -> None:
    kernel = FakeKernel()
    stores = [SqliteStore(tmp_path), SqliteStore(tmp_path)]
    controllers = [
        Controller(store=store, kernel=kernel, surroundings=fake_surroundings(process=f"p{number}"))
        for number, store in enumerate(stores)
    ]
    network = controllers[0].new_network("bridge", "n", subnets=["10.0.0.0/24"])
    for number in range(2):
        network.create_endpoint(f"e{number}").join(controllers[0].new_sandbox(f"s{number}"))
    rounds, gate = 40, Barrier(2)

    def publish(number: int) -> list[str]:
        endpoint = controllers[number].networks["n"].endpoints[f"e{number}"]
        found = []
        for count in range(rounds):
            gate.wait()
            try:
                endpoint.publish(f"{count + 1}:80")
                found.append("mine")
            except PortTakenError as error:
                assert f"endpoint 'e{1 - number}' of network 'n'" in str(error)  # noqa: PT017 - in a thread
                found.append("theirs")
            found.append(str(endpoint.publish("81").host_port))
        return found

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(publish, range(2))
    assert all({a, b} == {"mine", "theirs"} for a, b in zip(one[::2], other[::2], strict=True))
    assert len({*one[1::2], *other[1::2]}) == 2 * rounds
    rules = [rule for rule in kernel.resources if isinstance(rule, PublishedPort)]
    assert len(rules) == len({rule.first for rule in rules}) == 3 * rounds
    for controller, store in zip(controllers, stores, strict=True):
        assert controller.reconcile(dry_run=True).is_clean
        controller.close()
        store.close()


def test_random_publishing_leaves_the_rules_that_a_dict_says() -> None:
    """Two controllers take turns on four endpoints, two of them joined, with too few ports for all."""
    store, kernel, chance = MemoryStore(), FakeKernel(), random.Random(7)
    around = [
        attrs.evolve(fake_surroundings(process=name), ephemeral_ports=lambda: (100, 119, ((110, 111),)))
        for name in "ab"
    ]
    # Protocol and port of the host; endpoint, and its own port.
    taken: dict[tuple[str, int], tuple[str, int]] = {}
    outcomes: Counter[str] = Counter()
    with (
        Controller(store=store, kernel=kernel, surroundings=around[0]) as a,
        Controller(store=store, kernel=kernel, surroundings=around[1]) as b,
    ):
        network = a.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        for name in "wxyz":
            network.create_endpoint(name)
        for name in "wx":
            network.endpoints[name].join(a.new_sandbox(name))
        handles = {
            name: [controller.networks["n"].endpoints[name] for controller in (a, b)] for name in "wxyz"
        }
        for _ in range(10_000):
            name, proto = chance.choice("wxyz"), chance.choice(("tcp", "udp"))
            endpoint, port = chance.choice(handles[name]), chance.randrange(1, 4)
            wanted = chance.choice((None, chance.randrange(100, 112)))
            text = f"{port}/{proto}" if wanted is None else f"{wanted}:{port}/{proto}"
            mine = [at for at, to in taken.items() if (at[0], to) == (proto, (name, port))]
            if chance.random() < 0.5:
                outcomes[_publish(endpoint, text, wanted, (proto, name, port), taken)] += 1
                continue
            gone = [at for at in mine if wanted in {None, at[1]}]
            try:
                endpoint.unpublish(text)
            except NotFoundError:
                assert not gone
                outcomes["not found"] += 1
            else:
                assert gone
                outcomes["unpublished"] += 1
            for at in gone:
                del taken[at]
        assert min(outcomes.values()) > 50, outcomes
        assert len(outcomes) == 5
        addresses = {name: str(pair[0].addresses[0].ip) for name, pair in handles.items()}
        assert {
            (rule.proto, rule.first, rule.target, rule.target_first)
            for rule in kernel.resources
            if isinstance(rule, PublishedPort)
        } == {(*at, addresses[name], port) for at, (name, port) in taken.items() if name in "wx"}
        for name, pair in handles.items():
            found = {(p.proto, p.host_port): (name, p.first) for p in pair[0].ports}
            assert found == {at: to for at, to in taken.items() if to[0] == name}
        assert a.reconcile(dry_run=True).is_clean


def _publish(
    endpoint: Endpoint,
    text: str,
    wanted: int | None,
    what: tuple[str, str, int],
    taken: dict[tuple[str, int], tuple[str, int]],
) -> str:
    """Publish a port, compare what comes of it with what *taken* says, and note it there."""
    proto, name, port = what
    try:
        number = endpoint.publish(text).host_port
    except PortTakenError:
        assert (proto, wanted) in taken
        return "taken"
    except ExhaustedError:
        assert wanted is None
        assert all((proto, n) in taken for n in range(100, 120) if n not in {110, 111})
        return "exhausted"
    assert number is not None
    assert (proto, number) not in taken
    assert wanted in {None, number}
    assert wanted is not None or number not in {110, 111}
    taken[proto, number] = (name, port)
    return "published"


def test_what_one_process_makes_the_other_finds_and_uses() -> None:
    store, kernel = MemoryStore(), FakeKernel()
    with (
        Controller(store=store, kernel=kernel, surroundings=fake_surroundings(process="a")) as a,
        Controller(store=store, kernel=kernel, surroundings=fake_surroundings(process="b")) as b,
    ):
        endpoint = a.new_network("bridge", "n").create_endpoint("e")
        sandbox = b.new_sandbox("s")
        b.networks["n"].endpoints["e"].join(sandbox)
        assert endpoint.sandbox is not None
        assert endpoint.sandbox.name == "s"
        a.sandboxes["s"].delete()
        assert b.networks["n"].endpoints["e"].sandbox is None
        assert b.networks["n"].create_endpoint("f").addresses != endpoint.addresses


def test_random_requests_of_eight_threads_leave_host_and_records_in_agreement() -> None:
    store, kernel = MemoryStore(), FakeKernel()
    with Controller(store=store, kernel=kernel, surroundings=fake_surroundings()) as controller:

        def live(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(60):
                try:
                    _something(controller, chance)
                except (ConflictError, NotFoundError):
                    continue  # somebody else was faster

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(live, range(8)))
        report = controller.reconcile(dry_run=True)
        assert report.is_clean, str(report)
        for network in list(controller.networks.values()):
            for endpoint in list(network.endpoints.values()):
                endpoint.delete(force=True)
            network.delete()
        for sandbox in list(controller.sandboxes.values()):
            sandbox.delete()
        assert kernel.resources == ()


def _something(controller: Controller, chance: random.Random) -> None:
    name = chance.choice("abcd")
    match chance.randrange(9):
        case 0:
            controller.new_network("bridge", name)
        case 1:
            controller.new_sandbox(name)
        case 2 | 3:
            controller.networks[name].create_endpoint(chance.choice("xyz"), priority=chance.randrange(3))
        case 4 | 5 | 6:
            endpoint = controller.networks[name].endpoints[chance.choice("xyz")]
            endpoint.join(controller.sandboxes[chance.choice("abcd")])
        case 7:
            controller.networks[name].endpoints[chance.choice("xyz")].delete(force=chance.random() < 0.5)
        case _:
            views: list[Any] = [controller.sandboxes, controller.networks]
            chance.choice(views)[name].delete()


def test_a_request_waits_for_another_on_the_same_sandbox() -> None:
    """Eight endpoints join one sandbox at once; all get in, each with a name of its own."""
    store, kernel = MemoryStore(), FakeKernel()
    with Controller(store=store, kernel=kernel, surroundings=fake_surroundings()) as controller:
        sandbox = controller.new_sandbox("s")
        endpoints = [controller.new_network("bridge", f"n{i}").create_endpoint("e") for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda endpoint: endpoint.join(sandbox), endpoints))
        assert {endpoint.interface for endpoint in endpoints} == {f"eth{i}" for i in range(8)}
        assert sum(bool(endpoint.gateways) for endpoint in endpoints) == 1


def test_a_request_that_is_refused_for_ever_does_not_hang() -> None:
    store, kernel = MemoryStore(), FakeKernel()
    with Controller(store=store, kernel=kernel, surroundings=fake_surroundings()) as controller:
        controller.new_sandbox("s")
        with ThreadPoolExecutor(8) as pool:
            failures = list(pool.map(lambda _: _failure(controller), range(8)))
        assert all(isinstance(failure, ConflictError) for failure in failures)


def _failure(controller: Controller) -> PynetworkError | None:
    try:
        controller.new_sandbox("s")
    except PynetworkError as error:
        return error
    return None
