"""The public names: what is exported is meant to be, is documented, and is all that errors can be."""

from __future__ import annotations

import ast
import importlib
import inspect
import re

import pytest

import pynetwork
import pynetwork.sandbox
from pynetwork import errors

PACKAGES = [
    "pynetwork",
    "pynetwork.ipam",
    "pynetwork.drivers",
    "pynetwork.store",
    "pynetwork.sandbox",
    "pynetwork.testing",
    "pynetwork.testing.cluster",
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


def test_what_users_receive_is_importable_from_the_top() -> None:
    """Whatever class a public method of a handle or a controller returns has a public name."""
    kinds = (pynetwork.Controller, pynetwork.Network, pynetwork.Endpoint, pynetwork.Sandbox)
    known = {"Any", "Iterator", "Self", "Mapping", "Path", "AbstractContextManager", "CompletedProcess"}
    known |= {"Popen", "IPAddress", "IPInterface", "IPNetwork", "None", "NoReturn"}
    for kind in kinds:
        for name, member in vars(kind).items():
            function = member.fget if isinstance(member, property) else member
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            annotation = function.__annotations__["return"]
            for word in re.findall(r"[A-Z]\w+", annotation):
                assert word in pynetwork.__all__ or word in known, f"{kind.__name__}.{name} -> {annotation}"


def test_type_checkers_and_interpreters_see_the_same_names() -> None:
    """They are imported twice, for the one and lazily for the other."""
    tree = ast.parse(inspect.getsource(pynetwork))
    typed = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pynetwork.")
        for alias in node.names
    }
    lazy = {(home, name) for home, names in pynetwork._HOMES.items() for name in names}
    assert typed == lazy
    assert sorted(name for _, name in lazy) == sorted(pynetwork.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Controler'"):
        pynetwork.Controler  # noqa: B018 - looking is the test
    assert dir(pynetwork) == sorted(pynetwork.__all__)


def test_namespaces_alone_live_in_their_package() -> None:
    assert not hasattr(pynetwork, "Namespace")
    assert pynetwork.sandbox.Namespace.__name__ == "Namespace"


def test_every_error_is_importable_from_the_top() -> None:
    for name in errors.__all__:
        assert getattr(pynetwork, name) is getattr(errors, name)


def test_handles_have_no_public_constructor() -> None:
    for kind in (pynetwork.Network, pynetwork.Endpoint, pynetwork.Sandbox):
        with pytest.raises(TypeError):
            kind()
