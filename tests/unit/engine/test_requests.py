"""One request after another: written ahead, applied, committed; refused, undone, waited for, taken over."""

from __future__ import annotations

import errno
import logging
import threading
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    ApplyError,
    ConflictError,
    ExhaustedError,
    MemoryStore,
    NotFoundError,
    Plan,
    Step,
    StoreError,
    UnavailableError,
    Verb,
)
from pynetwork.engine import Draft, Engine, Journal, Mirror, World
from pynetwork.engine.intent import Intent, journal_key
from pynetwork.plan import StepFailedError
from pynetwork.resources import Address, Bridge, LinkUp, Netns, Sysctl, Veth
from pynetwork.store import Delete, Put
from pynetwork.testing import FakeKernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FORWARD = Sysctl(name="net.ipv4.ip_forward", value="1")
BRIDGE = Bridge(name="br0")


class Host(FakeKernel):
    """A fake kernel with a hook before every call."""

    hook: Callable[[Sequence[Step]], None] | None = None

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        if self.hook is not None:
            self.hook(steps)
        super().apply(steps, replay=replay)


def _engine(
    store: MemoryStore, kernel: FakeKernel, owner: str = "me", dead: frozenset[str] = frozenset()
) -> Engine:
    world = World()
    mirror = Mirror(store, dict.fromkeys(World.words, world))
    mirror.load()
    journal = Journal(mirror=mirror, world=world, owner=owner, random=Random(owner), settle_seconds=0.0)
    return Engine(
        mirror=mirror,
        world=world,
        kernel=kernel,
        journal=journal,
        is_alive=lambda identity: identity not in dead,
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def kernel() -> Host:
    return Host()


@pytest.fixture
def engine(store: MemoryStore, kernel: Host) -> Engine:
    return _engine(store, kernel)


def _becomes(scope: str, *resources: Any, **fields: Any) -> Callable[[Draft], str]:
    def build(draft: Draft) -> str:
        draft.what = f"change {scope}"
        draft.plans[scope] = Plan(resources)
        for name, value in fields.items():
            setattr(draft, name, value)
        return scope

    return build


def _keys(store: MemoryStore) -> set[str]:
    return {entry.key for entry in store.list("").entries}


def test_the_intent_is_written_before_the_first_step_and_gone_after_the_last(
    store: MemoryStore, kernel: Host, engine: Engine
) -> None:
    seen: list[set[str]] = []
    kernel.hook = lambda _: seen.append(_keys(store))

    def build(draft: Draft) -> None:
        _becomes("network/1", BRIDGE)(draft)
        draft.reserve(Put("name/x", "1"))
        draft.on_commit.append(Put("record/1", "x"))

    engine.request(build)
    (journal,) = (key for key in seen[0] if key.startswith("journal/"))
    assert seen == [{journal, "name/x", "plan/network/1"}]
    assert _keys(store) == {"name/x", "plan/network/1", "record/1"}
    assert kernel.resources == (BRIDGE,)
    assert engine.world.intents == {}


def test_a_request_without_plans_is_one_transaction_and_no_step(
    store: MemoryStore, kernel: Host, engine: Engine
) -> None:
    def build(draft: Draft) -> int:
        draft.operations.append(Put("record/1", "x"))
        draft.on_commit.append(Put("record/2", "y"))
        return 7

    assert engine.request(build) == 7
    assert store.list("").revision == 1
    assert kernel.log == ()


def test_a_plan_that_contradicts_itself_is_refused_before_it_is_written(
    store: MemoryStore, kernel: Host, engine: Engine
) -> None:
    """Once written, nobody could carry it out, and its scope would be held for ever."""
    address = Address(dev="br0", cidr="10.0.0.1/24")
    returned: list[str] = []

    def build(draft: Draft) -> None:
        _becomes("network/1", BRIDGE, address, Address(dev="br0", cidr="10.0.0.1/24"))(draft)
        draft.give_back.append(lambda: returned.append("it"))

    with pytest.raises(ConflictError, match=r"10\.0\.0\.1/24"):
        engine.request(build)
    assert _keys(store) == set()
    assert kernel.log == ()
    assert returned == ["it"]
    engine.request(_becomes("network/1", BRIDGE, address))


def test_a_failed_step_undoes_the_rest_and_says_which_and_why(store: MemoryStore, engine: Engine) -> None:
    lost = Address(dev="missing", cidr="10.0.0.1/24")
    with pytest.raises(ApplyError) as caught:
        engine.request(_becomes("network/1", BRIDGE, lost))
    error = caught.value
    assert error.step == "ip address add 10.0.0.1/24 dev missing"
    assert error.origin == lost.origin
    assert (error.rolled_back, error.leftovers) == (True, ())
    assert isinstance(error.__cause__, OSError)
    assert "cannot change network/1" in str(error)
    assert "the host is as before" in str(error)
    assert engine.kernel.observe(Plan()) == ()
    assert _keys(store) == set()


def test_a_missing_privilege_is_said_as_it_is(store: MemoryStore, kernel: Host, engine: Engine) -> None:
    def refuse(_: Sequence[Step]) -> None:
        message = "needs CAP_NET_ADMIN"
        raise UnavailableError(message)

    kernel.hook = refuse
    with pytest.raises(UnavailableError, match="CAP_NET_ADMIN"):
        engine.request(_becomes("network/1", BRIDGE))
    assert _keys(store) == set()


def test_what_was_allocated_is_given_back_in_reverse_when_the_request_fails(engine: Engine) -> None:
    returned: list[int] = []

    def build(draft: Draft) -> None:
        _becomes("network/1", LinkUp(dev="missing"))(draft)
        draft.give_back += (lambda: returned.append(1), lambda: returned.append(2))

    with pytest.raises(ApplyError):
        engine.request(build)
    assert returned == [2, 1]


def test_rehearsal_writes_and_keeps_nothing(store: MemoryStore, kernel: Host, engine: Engine) -> None:
    engine.request(_becomes("network/1", BRIDGE))
    before, returned = store.list(""), []

    def build(draft: Draft) -> None:
        _becomes("network/1")(draft)
        draft.give_back.append(lambda: returned.append(1))

    assert engine.rehearse(build).render() == "ip link delete br0\n"
    assert store.list("") == before
    assert returned == [1]
    assert kernel.resources == (BRIDGE,)
    with pytest.raises(ConflictError):
        engine.rehearse(_becomes("network/2", BRIDGE))


class TestShared:
    """Objects that several scopes may have."""

    def test_it_is_made_once_and_goes_with_the_last(self, kernel: Host, engine: Engine) -> None:
        engine.request(_becomes("network/1", FORWARD, BRIDGE))
        engine.request(_becomes("network/2", FORWARD))
        assert [str(step) for step in kernel.log].count(str(Step(Verb.CREATE, FORWARD))) == 1
        engine.request(_becomes("network/1", finish=True))
        assert kernel.resources == Plan([FORWARD])
        engine.request(_becomes("network/2", finish=True))
        assert kernel.resources == Plan()

    def test_other_attributes_are_a_conflict_before_anything_is_touched(
        self, store: MemoryStore, kernel: Host, engine: Engine
    ) -> None:
        engine.request(_becomes("network/1", FORWARD))
        before, log = store.list(""), kernel.log
        with pytest.raises(ConflictError, match="ip_forward"):
            engine.request(_becomes("network/2", BRIDGE, Sysctl(name=FORWARD.name, value="0")))
        assert store.list("") == before
        assert kernel.log == log

    def test_requests_that_touch_it_take_turns(self, store: MemoryStore, kernel: Host) -> None:
        """One lets go while the other takes hold: it stays."""
        one, two = _engine(store, kernel, "one"), _engine(store, kernel, "two")
        one.request(_becomes("network/1", FORWARD))
        taking = threading.Thread(target=two.request, args=(_becomes("network/2", FORWARD),))

        def meanwhile(_: Sequence[Step]) -> None:
            kernel.hook = None
            taking.start()
            taking.join(0.05)
            assert taking.is_alive()  # it waits for the one that lets go

        kernel.hook = meanwhile
        one.request(_becomes("network/1", finish=True))
        taking.join()
        assert kernel.resources == (FORWARD,)


class TestOthers:
    """Requests of other threads and processes that are in the way."""

    def _begun(
        self, store: MemoryStore, kernel: FakeKernel, *, finish: bool = False, applied: bool = True
    ) -> Intent:
        """Write what a process leaves that dies while it makes, or deletes, a bridge."""
        other = _engine(store, kernel, "other")
        if finish:
            other.request(_becomes("network/1", BRIDGE))

        def build(draft: Draft) -> None:
            _becomes("network/1", *(() if finish else (BRIDGE, LinkUp(dev="br0"))), finish=finish)(draft)
            draft.on_abort.append(Put("record/end", "undone"))
            draft.on_commit.append(Put("record/end", "finished"))

        draft = Draft()
        with other.mirror.lock:
            _, _, intent = other._try(draft, build)
        assert intent is not None
        if applied and not finish:
            kernel.apply([Step(Verb.CREATE, BRIDGE)])
        return intent

    def test_a_live_one_is_waited_for(self, store: MemoryStore, kernel: Host) -> None:
        intent = self._begun(store, kernel, applied=False)
        engine = _engine(store, kernel)
        waiting = threading.Thread(target=engine.request, args=(_becomes("network/1", LinkUp(dev="lo0")),))
        kernel.plant(Bridge(name="lo0"))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        assert kernel.log == ()
        store.transact([], [Delete(journal_key(intent.id)), Delete("plan/network/1")])
        waiting.join()
        assert kernel.resources == (LinkUp(dev="lo0"),)

    def test_one_that_never_ends_is_a_conflict(self, store: MemoryStore, kernel: Host) -> None:
        self._begun(store, kernel)
        engine = _engine(store, kernel)
        intent = next(iter(engine.world.intents.values()))
        with pytest.raises(ConflictError, match="'change network/1' has been under way for"):
            engine._wait(intent, "wait", deadline=0.0)

    def test_a_dead_one_is_undone_and_the_request_goes_on(self, store: MemoryStore, kernel: Host) -> None:
        self._begun(store, kernel)
        engine = _engine(store, kernel, dead=frozenset({"other"}))
        engine.request(_becomes("network/1", Bridge(name="br1")))
        assert kernel.resources == (Bridge(name="br1"),)
        assert _keys(store) == {"plan/network/1", "record/end"}
        assert _value(store, "record/end") == "undone"

    def test_a_dead_one_whose_goal_is_reached_is_done(self, store: MemoryStore, kernel: Host) -> None:
        intent = self._begun(store, kernel)
        kernel.apply([Step(Verb.CREATE, LinkUp(dev="br0"))])
        engine = _engine(store, kernel, dead=frozenset({"other"}))
        assert engine.recover(intent) == []
        assert kernel.resources == (BRIDGE, LinkUp(dev="br0"))
        assert _keys(store) == {"plan/network/1"}

    def test_a_dead_deletion_is_finished(self, store: MemoryStore, kernel: Host) -> None:
        intent = self._begun(store, kernel, finish=True)
        engine = _engine(store, kernel, dead=frozenset({"other"}))
        assert engine.recover(intent) == []
        assert kernel.resources == ()
        assert _keys(store) == {"record/end"}
        assert _value(store, "record/end") == "finished"

    def test_of_two_that_recover_one_does(self, store: MemoryStore, kernel: Host) -> None:
        intent = self._begun(store, kernel)
        one = _engine(store, kernel, "one", frozenset({"other"}))
        two = _engine(store, kernel, "two", frozenset({"other"}))
        assert one.recover(intent) == []
        log = kernel.log
        assert two.recover(intent) == []
        assert kernel.log == log
        assert two.world.intents == {}

    def test_what_cannot_be_recovered_is_an_error_for_who_needs_it(
        self, store: MemoryStore, kernel: Host
    ) -> None:
        self._begun(store, kernel)
        engine = _engine(store, kernel, dead=frozenset({"other"}))
        kernel.hook = _fail_always
        with pytest.raises(ApplyError, match="leftovers of 'change network/1' cannot be removed") as caught:
            engine.request(_becomes("network/1", LinkUp(dev="x")))
        assert caught.value.leftovers
        kernel.hook = None
        engine.request(_becomes("network/1", Bridge(name="br1")))  # the next one tries again
        assert kernel.resources == (Bridge(name="br1"),)

    def test_one_taken_for_dead_does_not_commit(
        self, store: MemoryStore, kernel: Host, engine: Engine
    ) -> None:
        rescuer = _engine(store, kernel, "rescuer", frozenset({"me"}))

        def meanwhile(_: Sequence[Step]) -> None:
            kernel.hook = None
            rescuer.mirror.refresh()
            (intent,) = rescuer.world.intents.values()
            rescuer.recover(intent)

        def build(draft: Draft) -> None:
            _becomes("network/1", BRIDGE)(draft)
            draft.on_commit.append(Put("record/1", "x"))

        kernel.hook = meanwhile
        with pytest.raises(StoreError, match="took this one for dead"):
            engine.request(build)
        assert kernel.resources == ()
        assert _keys(store) == set()

    @pytest.mark.parametrize("error", [NotFoundError, ConflictError, ExhaustedError])
    def test_a_refusal_for_what_is_no_longer_so_is_thought_over(
        self, store: MemoryStore, engine: Engine, error: type[Exception]
    ) -> None:
        calls = []

        def build(draft: Draft) -> str:
            calls.append(draft)
            if len(calls) == 1:
                store.transact([], [Put("news", "x")])
                message = "as of yesterday"
                raise error(message)
            return "done"

        assert engine.request(build) == "done"

    def test_one_that_loses_a_race_starts_over_from_what_is_so_now(
        self, store: MemoryStore, engine: Engine
    ) -> None:
        returned: list[int] = []

        def build(draft: Draft) -> int:
            count = len(returned)
            draft.reserve(Put(f"name/{count}", "mine"))
            draft.give_back.append(lambda: returned.append(count))
            if count == 0:
                store.transact([], [Put("name/0", "theirs")])
            return count

        assert engine.request(build) == 1
        assert returned == [0]
        assert _value(store, "name/0") == "theirs"


class TestEffects:
    """What happens once: after the commit, and without harm when it fails."""

    NETNS = "/run/netns/x"

    def _announcing(self) -> Callable[[Draft], str]:
        return _becomes(
            "join/1",
            BRIDGE,
            Netns(path=self.NETNS),
            Veth(name="v", bridge="br0", netns=self.NETNS, peer="eth0", mac="02:00:00:00:00:01"),
            Address(netns=self.NETNS, dev="eth0", cidr="10.0.0.2/24", announce=True),
            LinkUp(netns=self.NETNS, dev="eth0"),
        )

    def test_they_run_when_all_is_committed(self, store: MemoryStore, kernel: Host, engine: Engine) -> None:
        seen: list[tuple[set[Verb], bool]] = []
        kernel.hook = lambda steps: seen.append(
            ({step.verb for step in steps}, any(key.startswith("journal/") for key in _keys(store)))
        )
        engine.request(self._announcing())
        assert seen == [({Verb.CREATE}, True), ({Verb.EMIT}, False)]

    @pytest.mark.parametrize("how", ["step", "unavailable", "os"])
    def test_their_failure_is_logged_and_no_more(
        self, store: MemoryStore, kernel: Host, engine: Engine, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        def fail(steps: Sequence[Step]) -> None:
            if steps[0].verb is Verb.EMIT:
                if how == "step":
                    _fail_always(steps)
                raise UnavailableError("boom") if how == "unavailable" else OSError(errno.EPERM, "boom")

        kernel.hook = fail
        with caplog.at_level(logging.WARNING, "pynetwork"):
            engine.request(self._announcing())
        assert len(kernel.resources) == 5
        assert _keys(store) == {"plan/join/1"}
        assert "arping" in caplog.text
        assert "boom" in caplog.text

    def test_an_undo_has_none(self, kernel: Host, engine: Engine) -> None:
        def build(draft: Draft) -> None:
            self._announcing()(draft)
            draft.plans["join/1"] += (LinkUp(dev="missing"),)

        with pytest.raises(ApplyError):
            engine.request(build)
        assert Verb.EMIT not in {step.verb for step in kernel.log}


def _fail_always(steps: Sequence[Step]) -> None:
    raise StepFailedError(steps[0], ()) from OSError(errno.EPERM, "boom")


def _value(store: MemoryStore, key: str) -> str | None:
    entry = store.get(key)
    return None if entry is None else entry.value
