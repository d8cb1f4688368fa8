"""Values to records and back: nothing is lost, nothing is misread, a newer record is refused in words."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import attrs
import pytest
from hypothesis import given

from pynetwork import MemoryStore, NetworkSpec, Plan, SandboxSpec, StoreError, Subnet
from pynetwork.engine.codec import changed, decode_plan, decode_value, encode, encode_plan, loads
from pynetwork.engine.mirror import Mirror
from pynetwork.engine.world import World
from pynetwork.resources import Bridge
from pynetwork.store import Put
from pynetwork.testing.strategies import plans


@attrs.frozen(kw_only=True)
class Options:
    """Options of somebody's driver, whose defaults say something."""

    timeout: int | None = 30
    word: str = "abc"
    note: str | None = None
    flags: tuple[str, ...] = attrs.field(default=("a",), converter=tuple)
    empty: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    on: bool = True
    count: int = 7


def _again(value: Any) -> Any:
    return decode_value(type(value), "k", loads("k", encode(value)))[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timeout": None},
        {"timeout": 0},
        {"word": ""},
        {"note": ""},
        {"flags": ()},
        {"empty": ("x",)},
        {"on": False},
        {"count": 0},
    ],
)
def test_what_is_empty_although_its_default_is_not_comes_back_empty(changes: dict[str, Any]) -> None:
    options = Options(**changes)
    assert _again(options) == options


def test_what_is_empty_by_default_takes_no_room() -> None:
    assert json.loads(encode(SandboxSpec(id="1", name="s", netns="/x"))) == {
        "v": 1,
        "id": "1",
        "name": "s",
        "netns": "/x",
        "attached": True,
        "stop_signal": 15,
        "created": 0.0,
    }


def test_a_mandatory_field_is_written_even_when_it_is_none() -> None:
    """A sandbox in the host's namespace has no file that pins it."""
    spec = SandboxSpec(id="1", name="s", netns=None)
    assert _again(spec) == spec


def test_a_network_comes_back_with_its_subnets() -> None:
    subnet = Subnet("10.0.0.0/24", gateway="10.0.0.1", sub_pool="10.0.0.128/25", auxiliary={"a": "10.0.0.9"})
    spec = NetworkSpec(id="1", name="n", driver="d", options=None, subnets=[subnet], labels={"k": "v"})
    again = _again(spec)
    assert again == spec
    assert again.labels == {"k": "v"}
    assert again.subnets[0].auxiliary == {"a": ip_address("10.0.0.9")}


def test_unknown_fields_are_kept_apart_and_written_again() -> None:
    record = {"v": 1, "id": "1", "name": "s", "netns": "/x", "colour": ["red"]}
    spec, extra = decode_value(SandboxSpec, "k", loads("k", json.dumps(record)))
    assert extra == {"colour": ["red"]}
    assert json.loads(encode(spec, extra)) == record | {"attached": True, "created": 0.0, "stop_signal": 15}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[1]", "null", "7", '"x"', '{"a": 1}', '{"v": 2}', '{"v": "1"}']
)
def test_what_is_no_record_of_this_schema_is_refused_by_its_key(text: str) -> None:
    with pytest.raises(StoreError, match="record sandbox/1"):
        loads("sandbox/1", text)


def test_a_newer_schema_says_to_upgrade() -> None:
    with pytest.raises(StoreError, match=r"has schema 2, this version of pynetwork knows 1: upgrade"):
        loads("k", '{"v": 2}')


@pytest.mark.parametrize("fields", [{}, {"id": "1", "mac": "x", "network": "1"}])
def test_a_record_that_describes_no_value_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="record k does not describe a SandboxSpec"):
        decode_value(SandboxSpec, "k", fields)


@given(plans())
def test_plans_survive_the_journey(plan: Plan) -> None:
    assert decode_plan("k", json.loads(json.dumps(encode_plan(plan)))) == plan


def test_resources_of_a_newer_version_are_refused_and_their_new_fields_are_not() -> None:
    with pytest.raises(StoreError, match="kind 'tunnel'"):
        decode_plan("k", [{"kind": "tunnel"}])
    assert decode_plan("k", [{"kind": "bridge", "name": "b", "new": 1}]) == Plan([Bridge(name="b")])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plan/network/1", '{"v": 1}'),
        ("plan/network/1", '{"v": 1, "plan": 7}'),
        ("plan/network/1", '{"v": 1, "plan": [{}]}'),
        ("plan/network/1", '{"v": 1, "plan": [{"kind": "bridge"}]}'),
        ("journal/1", '{"v": 1, "what": "x"}'),
        ("journal/1", '{"v": 1, "what": "x", "owner": "o", "finish": true, "before": [], "locks": []}'),
    ],
)
def test_a_damaged_record_is_named_wherever_it_is(key: str, value: str) -> None:
    store, world = MemoryStore(), World()
    store.transact([], [Put(key, value)])
    with pytest.raises(StoreError, match=f"record {key}"):
        Mirror(store, dict.fromkeys(World.words, world)).load()


def test_changed_is_evolve_without_checking_again() -> None:
    spec = SandboxSpec(id="1", name="s", netns="/x", labels={"a": "b"})
    assert changed(spec, name="t", netns=None) == attrs.evolve(spec, name="t", netns=None)
    assert spec.name == "s"
