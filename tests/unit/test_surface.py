"""The public names: what is exported is meant to be, is documented, and is all that errors can be."""

from __future__ import annotations

import importlib
import inspect

import pytest

import pynetwork
from pynetwork import errors

PACKAGES = [
    "pynetwork",
    "pynetwork.ipam",
    "pynetwork.drivers",
    "pynetwork.store",
    "pynetwork.sandbox",
    "pynetwork.testing",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_complete(name: str) -> None:
    package = importlib.import_module(name)
    for key in package.__all__:
        getattr(package, key)  # the top-level names load when first used
    public = {
        key
        for key, value in vars(package).items()
        if not key.startswith("_")
        and not inspect.ismodule(value)
        and key not in {"annotations", "TYPE_CHECKING", "Final", "import_module"}
    }
    assert set(package.__all__) == public
    assert len(package.__all__) == len(set(package.__all__))


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_public_is_documented(name: str) -> None:
    package = importlib.import_module(name)
    for key in package.__all__:
        value = getattr(package, key)
        if not inspect.isclass(value):
            continue
        assert inspect.getdoc(value), key
        for attribute, member in vars(value).items():
            if attribute.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
                continue
            assert inspect.getdoc(getattr(value, attribute)), f"{key}.{attribute}"


def test_every_error_is_importable_from_the_top() -> None:
    for name in errors.__all__:
        assert getattr(pynetwork, name) is getattr(errors, name)


def test_handles_have_no_public_constructor() -> None:
    for kind in (pynetwork.Network, pynetwork.Endpoint, pynetwork.Sandbox):
        with pytest.raises(TypeError):
            kind()
