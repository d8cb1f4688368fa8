"""A module imports only its own floor or those below; only the kernel floor knows the kernel's libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pynetwork

ROOT = Path(pynetwork.__file__).parent
# The floors of the design, lowest first; a folder stands for all modules in it.
FLOORS = (
    ("errors", "types", "log"),
    ("specs", "resources"),
    ("plan",),
    ("drivers", "ipam"),
    ("kernel",),
    ("store", "engine"),
    ("views", "core", "records", "allocation", "requests", "sandbox", "network", "endpoint"),
    ("assembly", "controller"),
    ("__init__",),
)
KERNEL_ONLY = {"pyroute2", "ovs", "iptc"}
IMPURE = KERNEL_ONLY | {"socket", "subprocess", "os", "ctypes", "fcntl", "sqlite3", "pathlib", "random"}
MODULES = sorted(ROOT.rglob("*.py"))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


# Testing is beside the floors: it may use all of them.
FLOORED = [path for path in MODULES if not _name(path).startswith("testing")]


def _floor(module: str) -> int:
    for number, names in enumerate(FLOORS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    pytest.fail(f"{module} is on no floor of the design")


def _imports(path: Path, *, typing: bool = False) -> set[str]:
    """Return the modules that *path* imports at run time, lazily or not."""
    tree = ast.parse(path.read_text())
    if not typing:
        tree = _WithoutTyping().visit(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


class _WithoutTyping(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


@pytest.mark.parametrize("path", FLOORED, ids=_name)
def test_imports_point_down(path: Path) -> None:
    module = _name(path)
    for imported in _imports(path):
        if imported == "pynetwork" or imported.startswith("pynetwork."):
            target = imported.removeprefix("pynetwork").lstrip(".") or "__init__"
            assert _floor(target) <= _floor(module), f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_only_the_kernel_floor_knows_its_libraries(path: Path) -> None:
    module = _name(path)
    roots = {name.partition(".")[0] for name in _imports(path)}
    if not module.startswith(("kernel", "testing")):
        assert not roots & KERNEL_ONLY
    if _floor_or_none(module) is not None and _floor(module) <= 3:
        assert not roots & IMPURE


def _floor_or_none(module: str) -> int | None:
    return None if module.startswith("testing") else _floor(module)


def test_nothing_but_testing_imports_testing() -> None:
    for path in MODULES:
        if not _name(path).startswith("testing"):
            assert not any(name.startswith("pynetwork.testing") for name in _imports(path)), path


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_importing_the_library_loads_none_of_the_heavy_packages() -> None:
    code = "import sys, pynetwork; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pyroute2", "netaddr", "ovs", "iptc", "asyncio", "subprocess", "pynetwork.kernel.linux"}
    assert not heavy & set(loaded.stdout.split())
