"""The tree of errors is the one that its module draws, and each leaf is what callers expect it to be."""

from __future__ import annotations

import re

import pytest

from pynetwork import errors
from pynetwork.errors import (
    ApplyError,
    ConflictError,
    ExhaustedError,
    InvalidValueError,
    NotFoundError,
    PynetworkError,
    RequestError,
    StoreError,
    UnavailableError,
    UnknownDriverError,
)


def drawn() -> dict[str, str]:
    """Return the parent of each error in the drawing."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            if depth:
                parents[match[2]] = path[depth - 1]
    return parents


def test_the_drawing_is_the_tree() -> None:
    classes = {name: getattr(errors, name) for name in errors.__all__}
    tree = {name: cls.__bases__[0].__name__ for name, cls in classes.items() if cls is not PynetworkError}
    assert tree == drawn()


def test_everything_is_exported() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(errors.__all__) == defined
    assert sorted(errors.__all__) == errors.__all__


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (RequestError, (PynetworkError,)),
        (InvalidValueError, (RequestError, ValueError)),
        (UnknownDriverError, (RequestError,)),
        (NotFoundError, (RequestError, LookupError)),
        (ConflictError, (RequestError,)),
        (ExhaustedError, (PynetworkError,)),
        (ApplyError, (PynetworkError,)),
        (UnavailableError, (PynetworkError,)),
        (StoreError, (PynetworkError,)),
    ],
)
def test_errors_can_be_caught_as_what_they_are(
    error: type[PynetworkError], bases: tuple[type[Exception], ...]
) -> None:
    for base in (*bases, PynetworkError, Exception):
        with pytest.raises(base, match="why"):
            raise error("why")  # noqa: EM101 - any message


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_say_what_to_make_of_them(name: str) -> None:
    assert getattr(errors, name).__doc__


def test_an_apply_error_says_what_is_left() -> None:
    error = ApplyError(
        "cannot join", step="ip link add x", origin="driver.py:7", rolled_back=False, leftovers=["x", "y"]
    )
    assert str(error) == "cannot join"
    assert (error.step, error.origin, error.rolled_back) == ("ip link add x", "driver.py:7", False)
    assert error.leftovers == ("x", "y")


def test_an_apply_error_leaves_nothing_unless_it_says_so() -> None:
    error = ApplyError("cannot join")
    assert (error.step, error.origin, error.rolled_back, error.leftovers) == ("", "", True, ())
