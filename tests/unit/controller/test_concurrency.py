"""Several threads, several controllers, several processes on one state directory."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pynetwork import ConflictError, Controller, MemoryStore, NotFoundError, PynetworkError, SqliteStore
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
