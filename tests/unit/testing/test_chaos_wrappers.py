"""Chaos strikes at the step it was told, with the steps before it really taken, and dead stays dead."""

from __future__ import annotations

import errno
import itertools
import threading
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import StoreError
from pynetwork.plan import Plan, Step, StepFailedError, Steps, Verb, diff
from pynetwork.resources import Address, Announce, Bridge, LinkUp
from pynetwork.store import Absent, Delete, MemoryStore, Put
from pynetwork.testing import Chaos, ChaosStore, FakeKernel, Fate, Killed

if TYPE_CHECKING:
    from collections.abc import Callable

BRIDGE = Bridge(name="br0")
ADDRESS = Address(dev="br0", cidr="10.0.0.1/24")
UP = LinkUp(dev="br0")
PLAN = Plan((BRIDGE, ADDRESS, UP))
STEPS = diff(Plan(), PLAN)
EFFECT = Step(Verb.EMIT, Announce(netns="/a", dev="eth0", address="10.0.0.2"))


def test_passes_everything_on_until_its_time() -> None:
    kernel = FakeKernel()
    chaos = Chaos(kernel, fail_at=4, die_at=4)
    chaos.apply(())
    chaos.apply(STEPS)
    assert kernel.resources == PLAN
    assert chaos.observe(PLAN) == PLAN
    assert chaos.count == 3
    assert not chaos.fired
    chaos.close()
    assert repr(chaos) == "<Chaos(<FakeKernel(3 resources)>, 3 steps, fired=False)>"


def test_fails_at_every_step_in_turn() -> None:
    for n in itertools.count():
        kernel = FakeKernel()
        chaos = Chaos(kernel, fail_at=n)
        if n == len(STEPS):
            chaos.apply(STEPS)
            break
        with pytest.raises(StepFailedError) as caught:
            chaos.apply(STEPS)
        assert chaos.fired
        assert STEPS[n] is caught.value.failed
        assert STEPS[:n] == caught.value.done == kernel.log
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EIO
    assert not chaos.fired


def test_counts_over_calls_and_fails_once() -> None:
    kernel = FakeKernel()
    chaos = Chaos(kernel, fail_at=2)
    chaos.apply(STEPS[:2])
    for _ in range(2):
        chaos.apply([EFFECT])
    with pytest.raises(StepFailedError):
        chaos.apply(STEPS[2:])
    chaos.apply(STEPS[2:])
    assert kernel.resources == PLAN
    assert kernel.log == (*STEPS[:2], EFFECT, EFFECT, *STEPS[2:])


def test_may_have_taken_the_step_that_failed() -> None:
    kernel = FakeKernel()
    with pytest.raises(StepFailedError) as caught:
        Chaos(kernel, fail_at=1, half_done=True).apply(STEPS)
    assert STEPS[:1] == caught.value.done
    assert STEPS[:2] == kernel.log


def test_may_fail_the_undo_as_well() -> None:
    kernel = FakeKernel()
    chaos = Chaos(kernel, fail_at=2, fail_undo=True)
    undo = diff(PLAN, Plan())
    chaos.apply(STEPS[:1], replay=True)
    chaos.apply(STEPS[1:2])
    with pytest.raises(StepFailedError):
        chaos.apply(STEPS[2:])
    with pytest.raises(StepFailedError) as caught:
        chaos.apply(undo, replay=True)
    assert undo[0] is caught.value.failed
    assert caught.value.done == ()
    chaos.apply((), replay=True)
    chaos.apply(STEPS[2:])
    assert kernel.resources == PLAN


def test_a_failure_of_the_host_itself_comes_through() -> None:
    kernel = FakeKernel([BRIDGE])
    for chaos in (Chaos(kernel), Chaos(kernel, fail_at=2), Chaos(kernel, die_at=2)):
        with pytest.raises(StepFailedError) as caught:
            chaos.apply(STEPS)
        assert STEPS[0] is caught.value.failed
        assert isinstance(caught.value.__cause__, FileExistsError)
        assert not chaos.fired


def test_a_failure_on_the_way_to_death_reports_what_was_done() -> None:
    kernel = FakeKernel()
    steps = [*STEPS[:2], STEPS[0]]
    with pytest.raises(StepFailedError) as caught:
        Chaos(kernel, die_at=3).apply(steps)
    assert STEPS[:2] == caught.value.done == kernel.log


def test_dies_before_the_first_after_the_last_and_between_all_steps() -> None:
    for n in itertools.count():
        kernel = FakeKernel()
        chaos = Chaos(kernel, die_at=n)
        if n > len(STEPS):
            chaos.apply(STEPS)
            break
        with pytest.raises(Killed):
            chaos.apply(STEPS)
        assert STEPS[:n] == kernel.log
        assert chaos.fired
    assert not chaos.fired
    assert n == len(STEPS) + 1


def test_a_death_is_no_exception_that_code_handles() -> None:
    assert not issubclass(Killed, Exception)


def test_the_dead_do_nothing() -> None:
    kernel, store = FakeKernel(), MemoryStore()
    chaos = Chaos(kernel, die_at=0)
    records = ChaosStore(store, fate=chaos.fate)
    with pytest.raises(Killed):
        chaos.apply(STEPS)
    deeds: list[Callable[[], object]] = [
        lambda: chaos.apply(()),
        lambda: chaos.apply([EFFECT]),
        lambda: chaos.observe(Plan()),
        chaos.close,
        lambda: records.get("a"),
        lambda: records.list(""),
        lambda: records.transact((), (Put("a", "1"),)),
        lambda: records.changes(0),
        records.close,
    ]
    for deed in deeds:
        with pytest.raises(Killed):
            deed()
    assert Steps() == kernel.log
    assert store.get("a") is None


def test_a_kernel_and_a_store_die_together() -> None:
    fate = Fate()
    store = ChaosStore(MemoryStore(), die_at=0, fate=fate)
    with pytest.raises(Killed):
        store.transact((), ())
    with pytest.raises(Killed):
        Chaos(FakeKernel(), fate=fate).apply(STEPS)


def test_a_store_passes_everything_on_until_its_time() -> None:
    store = MemoryStore()
    with ChaosStore(store, die_at=9) as chaos:
        assert chaos.transact([Absent("a")], [Put("a", "1")]) == 1
        assert chaos.transact([Absent("a")], [Delete("a")]) is None
        assert store.get("a") == chaos.get("a")
        assert store.list("") == chaos.list("")
        assert store.changes(0) == chaos.changes(0)
        stop = threading.Event()
        changes = chaos.watch("", 0, stop=stop)
        assert next(changes).key == "a"
        stop.set()
        assert list(changes) == []
        assert chaos.count == 2
        assert not chaos.fired
        assert repr(chaos).endswith("2 transactions, fired=False)>")


@pytest.mark.parametrize("after", [False, True])
def test_a_store_dies_before_or_after_its_transaction(after: bool) -> None:
    for n in range(3):
        store = MemoryStore()
        chaos = ChaosStore(store, die_at=n, after=after)
        for number in range(n):
            chaos.transact((), [Put("a", str(number))])
        watched = chaos.watch("", 0)
        with pytest.raises(Killed):
            chaos.transact((), [Put("a", "last")])
        entry = store.get("a")
        assert (entry is not None and entry.value == "last") is after
        assert chaos.fired
        if entry is not None:
            with pytest.raises(Killed):
                next(watched)


def test_a_store_fails_once() -> None:
    store = MemoryStore()
    chaos = ChaosStore(store, fail_at=1)
    chaos.transact((), [Put("a", "1")])
    with pytest.raises(StoreError, match="No space left"):
        chaos.transact((), [Put("a", "2")])
    assert chaos.fired
    entry = store.get("a")
    assert entry is not None
    assert entry.value == "1"
    assert chaos.transact((), [Put("a", "3")]) == 2
