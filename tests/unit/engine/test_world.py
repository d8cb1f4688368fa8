"""What should exist: plans by scope, who holds what, what scopes share and what they may not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork import ConflictError, Plan
from pynetwork.engine.codec import encode, encode_plan
from pynetwork.engine.intent import Intent
from pynetwork.engine.world import World
from pynetwork.resources import Address, Bridge, Sysctl, Veth
from pynetwork.store import Delete, Put
from pynetwork.testing.strategies import plans

FORWARD = Sysctl(name="net.ipv4.ip_forward", value="1")
BRIDGE = Bridge(name="br0")


def _put(world: World, scope: str, plan: Plan, revision: int = 1) -> None:
    world.put(f"plan/{scope}", encode({"plan": encode_plan(plan)}), revision)


def _intent(**changes: Any) -> Intent:
    fields: dict[str, Any] = {"id": "i", "what": "do", "owner": "p", "finish": False, "before": {}}
    return Intent(**fields | changes)


def test_plans_come_and_go() -> None:
    world = World()
    assert world.plan("network/1") == Plan()
    _put(world, "network/1", Plan([BRIDGE]))
    _put(world, "network/1", Plan([FORWARD]), 2)
    assert world.plan("network/1") == Plan([FORWARD])
    assert world.scopes["network/1"].revision == 2
    world.check({"network/2": Plan([BRIDGE])})  # let go of by the change
    world.delete("plan/network/1")
    world.delete("plan/network/1")
    assert world.scopes == {}


def test_what_another_scope_has_cannot_be_had() -> None:
    world = World()
    _put(world, "network/1", Plan([BRIDGE]))
    world.check({"network/1": Plan([BRIDGE])})
    with pytest.raises(ConflictError, match=r"Bridge\(name='br0'.* is in use"):
        world.check({"network/2": Plan([BRIDGE])})


def test_an_interface_that_comes_with_another_object_is_taken_too() -> None:
    world = World()
    _put(world, "join/1", Plan([Veth(name="v1", netns="/n", peer="eth0", mac="02:00:00:00:00:01")]))
    with pytest.raises(ConflictError):
        world.check({"join/2": Plan([Veth(name="v2", netns="/n", peer="eth0", mac="02:00:00:00:00:02")])})


def test_a_shared_object_may_be_had_as_it_is_and_not_otherwise() -> None:
    world = World()
    _put(world, "network/1", Plan([FORWARD]))
    world.check({"network/2": Plan([FORWARD])})
    with pytest.raises(ConflictError, match="ip_forward"):
        world.check({"network/2": Plan([Sysctl(name=FORWARD.name, value="0")])})


def test_a_shared_object_is_left_to_the_last_scope_that_has_it() -> None:
    world = World()
    _put(world, "network/1", Plan([FORWARD, BRIDGE]))
    _put(world, "network/2", Plan([FORWARD]))
    both = Plan([FORWARD, BRIDGE])
    assert world.without_shared(both, {"network/1"}) == Plan([BRIDGE])
    assert world.without_shared(both, {"network/1", "network/2"}) == both
    world.delete("plan/network/2")
    assert world.without_shared(both, {"network/1"}) == both


def test_the_holder_of_a_scope_or_a_lock_is_found() -> None:
    world = World()
    intent = _intent(before={"network/1": Plan()}, locks=frozenset({"shared"}))
    world.put("journal/i", intent.encode(), 5)
    world.put("lock/shared", "i", 5)
    for names in ({"network/1"}, {"shared", "x"}):
        holder = world.holder(names)
        assert holder is not None
        assert (holder.id, holder.revision) == ("i", 5)
    assert world.holder({"network/2"}) is None
    assert world.locks == {"shared": 5}
    world.delete("journal/i")
    world.delete("lock/shared")
    assert world.holder({"network/1"}) is None
    assert world.locks == {}


names = st.text(min_size=1, max_size=8)
operations = st.lists(st.one_of(st.builds(Put, names, names), st.builds(Delete, names)))


intents = st.builds(
    Intent,
    id=st.just("i"),
    what=names,
    owner=names,
    finish=st.booleans(),
    before=st.dictionaries(names, plans(), max_size=2),
    locks=st.frozensets(names),
    operations=operations.map(tuple),
    revision=st.just(3),
)


@given(intents)
def test_an_intent_comes_back_as_it_was(intent: Intent) -> None:
    again = Intent.decode("journal/i", intent.encode(), 3)
    assert again == intent
    assert again.before == intent.before
    assert again.holds == intent.locks | intent.before.keys()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12))
def test_after_any_history_the_index_is_that_of_the_plans(history: list[tuple[str, bool]]) -> None:
    """Exactly the objects of present scopes are taken."""
    world = World()
    present = set()
    for name, put in history:
        if put:
            _put(world, f"network/{name}", Plan([Bridge(name=name), Address(dev=name, cidr="10.0.0.1/24")]))
            present.add(name)
        else:
            world.delete(f"plan/network/{name}")
            present.discard(name)
    for name in "abc":
        wanted = {"network/x": Plan([Bridge(name=name)])}
        if name in present:
            with pytest.raises(ConflictError):
                world.check(wanted)
        else:
            world.check(wanted)
    world.clear()
    world.check({"network/x": Plan([Bridge(name=name) for name in "abc"])})
