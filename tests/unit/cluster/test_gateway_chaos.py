"""Gateways of sandboxes come and go with what needs them, or not at all: whatever fails, whoever dies."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.unit.cluster.gateways import ELSEWHERE, check, prepare

from pynetwork import ApplyError, ConflictError, Controller, MemoryStore, NotFoundError, PynetworkError
from pynetwork.testing import Chaos, ChaosStore, FakeKernel, Fate, Killed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cluster.hosts import World

    from pynetwork import Endpoint, Sandbox
    from pynetwork.store import Store


def _end(controller: Controller, network: str, name: str) -> Endpoint:
    return controller.networks[network].endpoints[name]


def _box(controller: Controller, name: str) -> Sandbox:
    return controller.sandboxes[name]


REQUESTS: dict[str, Callable[[Controller], object]] = {
    "join": lambda c: _end(c, "app", "free").join(_box(c, "free")),
    "join_where_another_is_the_way_out": lambda c: _end(c, "old", "free").join(_box(c, "out")),
    "join_what_is_the_way_out": lambda c: _end(c, "both", "free").join(_box(c, "box")),
    "join_what_is_half_of_it": lambda c: _end(c, "four", "free").join(_box(c, "box")),
    "leave": lambda c: _end(c, "app", "box").leave(),
    "leave_of_the_way_out": lambda c: _end(c, "both", "out").leave(),
    "leave_of_half_of_it": lambda c: _end(c, "four", "mixed").leave(),
    "leave_beside_the_way_out": lambda c: _end(c, "app", "mixed").leave(),
    "delete_endpoint": lambda c: _end(c, "app", "box").delete(force=True),
    "delete_sandbox": lambda c: _box(c, "mixed").delete(),
    "publish": lambda c: _end(c, "app", "mixed").publish("6000-6002:1-3"),
    "unpublish": lambda c: _end(c, "app", "mixed").unpublish("80"),
    "attach": lambda c: _box(c, "later").attach(ELSEWHERE),
    "attach_elsewhere": lambda c: _box(c, "mixed").attach(ELSEWHERE),
    "detach": lambda c: _box(c, "mixed").detach(),
}


def _open(
    world: World,
    store: Store,
    kernel: FakeKernel,
    process: str = "first",
    *,
    dead: tuple[str, ...] = (),
    through: Chaos | None = None,
) -> Controller:
    host = world.host("h1", store=store, kernel=kernel, process=process, dead=dead, through=through)
    return host.controller


def _records(store: Store) -> dict[str, str]:
    """What is recorded, less what only grows: locks, and addresses at rest."""
    return {
        entry.key: entry.value
        for entry in store.list("").entries
        if not entry.key.startswith(("lock/", "meta/")) and '"freed"' not in entry.value
    }


def _failure_of(request: Callable[[Controller], object], controller: Controller) -> ApplyError | None:
    try:
        request(controller)
    except ApplyError as error:
        return error
    return None


@pytest.fixture(params=REQUESTS)
def request_(request: pytest.FixtureRequest) -> Callable[[Controller], object]:
    return REQUESTS[request.param]


@pytest.mark.parametrize("half_done", [False, True])
def test_what_fails_at_any_step_leaves_all_as_before(
    world: World, request_: Callable[[Controller], object], half_done: bool
) -> None:
    fired = 0
    for n in itertools.count():
        world.__init__()  # type: ignore[misc]  # a new one for each failure
        store, kernel = MemoryStore(), FakeKernel()
        controller = _open(world, store, kernel)
        prepare(controller, kernel)
        check(controller, kernel)
        before, recorded = set(kernel.resources), _records(store)
        chaos = Chaos(kernel, fail_at=n, half_done=half_done)
        controller._core.engine.kernel = chaos
        error = _failure_of(request_, controller)
        if error is not None:
            fired += 1
            assert error.rolled_back
            assert set(kernel.resources) == before
            assert _records(store) == recorded
            check(controller, kernel)
            request_(controller)
        check(controller, kernel)
        controller.close()
        if not chaos.fired:
            break
    assert fired == n


def test_whose_undo_fails_too_is_cleared_by_reconcile(
    world: World, request_: Callable[[Controller], object]
) -> None:
    for n in itertools.count():
        world.__init__()  # type: ignore[misc]  # a new one for each failure
        store, kernel = MemoryStore(), FakeKernel()
        controller = _open(world, store, kernel)
        prepare(controller, kernel)
        chaos = Chaos(kernel, fail_at=n, half_done=True, fail_undo=True)
        controller._core.engine.kernel = chaos
        with suppress(ApplyError):
            request_(controller)
        controller._core.engine.kernel = kernel
        assert not controller.reconcile().failed
        check(controller, kernel)
        controller.close()
        if not chaos.fired:
            break


@pytest.mark.parametrize("where", ["step", "write", "after write"])
def test_what_a_dead_process_began_is_finished_or_undone(
    world: World, request_: Callable[[Controller], object], where: str
) -> None:
    for n in itertools.count():
        world.__init__()  # type: ignore[misc]  # a new one for each death
        store, kernel, fate = MemoryStore(), FakeKernel(), Fate()
        first = _open(world, store, kernel)
        prepare(first, kernel)
        first.close()
        chaos = Chaos(kernel, die_at=n if where == "step" else None, fate=fate)
        local = ChaosStore(store, after=where == "after write", fate=fate)
        victim = _open(world, local, kernel, "victim", through=chaos)
        if where != "step":
            local._die_at = local.count + n
        with suppress(Killed):
            request_(victim)
        is_over = not fate.is_dead
        if is_over:
            victim.close()
        heir = _open(world, store, kernel, "heir", dead=("victim", "first"))
        check(heir, kernel)
        with suppress(ConflictError, NotFoundError):  # it may have been finished
            request_(heir)
        check(heir, kernel)
        heir.close()
        if is_over:
            break
    assert n


def test_a_store_that_fails_at_any_write_leaves_all_as_before(
    world: World, request_: Callable[[Controller], object]
) -> None:
    for n in itertools.count():
        world.__init__()  # type: ignore[misc]  # a new one for each failure
        store, kernel = MemoryStore(), FakeKernel()
        controller = _open(world, store, kernel)
        prepare(controller, kernel)
        before, recorded = set(kernel.resources), _records(store)
        chaos = ChaosStore(store, fail_at=n)
        controller._core.engine.mirror.store = chaos
        failed = False
        try:
            request_(controller)
        except PynetworkError:
            failed = True
            assert set(kernel.resources) == before
        controller.reconcile()
        if failed:
            assert _records(store) == recorded
        controller._core.engine.mirror.store = store
        check(controller, kernel)
        controller.close()
        if not chaos.fired:
            break


def test_whatever_is_wrecked_is_repaired(world: World) -> None:
    store, kernel = MemoryStore(), FakeKernel()
    controller = _open(world, store, kernel)
    prepare(controller, kernel)
    before = set(kernel.resources)
    for resource in kernel.resources:
        if resource.kind in {"sysctl", "link_sysctl", "up", "netns"}:
            continue
        kernel.wreck(resource.key)
        assert not controller.reconcile().failed
        assert set(kernel.resources) == before, resource
    check(controller, kernel)
