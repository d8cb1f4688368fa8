"""Views: read-only mappings that always show what is there now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pynetwork import NotFoundError
from pynetwork.views import View


@pytest.fixture
def things() -> dict[str, int]:
    return {"a": 1, "b": 2}


@pytest.fixture
def view(things: dict[str, int]) -> View[int]:
    return View("thing", lambda: dict(things), things.get)


def test_it_is_a_mapping_of_what_is_there_now(view: View[int], things: dict[str, int]) -> None:
    assert isinstance(view, Mapping)
    assert dict(view) == things
    assert view == things
    things["c"] = 3
    assert list(view) == ["a", "b", "c"]
    assert (len(view), view["c"], view.get("d"), "d" in view) == (3, 3, None, False)
    assert list(view.keys()) == ["a", "b", "c"]


def test_what_is_missing_is_not_found_in_words(view: View[int]) -> None:
    with pytest.raises(NotFoundError, match=r"^thing 'x' does not exist$"):
        view["x"]
    with pytest.raises(KeyError):
        view["x"]


def test_things_may_come_and_go_while_one_goes_through_them(view: View[int], things: dict[str, int]) -> None:
    for name in view:
        things.pop(name)
        things[f"{name}{name}"] = 0
    assert list(view) == ["aa", "bb"]
    for _ in view.values():
        things.clear()
    for name in View("thing", lambda: {"a": 1}, things.get):
        things[name] = 1


def test_it_cannot_be_written_and_typos_are_errors(view: View[int]) -> None:
    writable: Any = view
    with pytest.raises(TypeError):
        writable["c"] = 3
    with pytest.raises(TypeError):
        del writable["a"]
    with pytest.raises(AttributeError):
        writable.kind = "x"
    with pytest.raises(TypeError):
        hash(view)


def test_its_repr_says_what_there_is(view: View[int]) -> None:
    assert repr(view) == "<2 thing: a, b>"
