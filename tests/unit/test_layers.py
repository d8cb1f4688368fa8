"""A module imports only its own floor or those below; only the kernel floor knows the kernel's libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pynetwork

ROOT = Path(pynetwork.__file__).parent
# The floors of the design, lowest first; a folder stands for all modules in it.
FLOORS = (
    ("errors", "types", "log", "ports"),
    ("specs", "resources", "etc"),
    ("plan", "peers"),
    ("drivers", "ipam"),
    ("kernel",),
    ("store", "engine"),
    (
        "events",
        "views",
        "dns",
        "core",
        "cluster",
        "records",
        "allocation",
        "port_index",
        "requests",
        "sandbox",
        "network",
        "endpoint",
    ),
    ("assembly", "controller", "doctor", "metrics", "opening", "overview", "removal", "repair"),
    ("__init__", "agent", "oci_hook"),
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


def _imports(path: Path, *, top: bool = False) -> set[str]:
    """Return the modules that *path* imports at run time, also lazily, or only at its *top*."""
    tree = _WithoutTyping().visit(ast.parse(path.read_text()))
    if top:
        tree = _WithoutFunctions().visit(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


class _WithoutFunctions(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Drop it."""


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
    if not module.startswith(("kernel.", "testing.")):
        assert not roots & KERNEL_ONLY


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_the_kernels_libraries_load_when_first_used(path: Path) -> None:
    """Never at the top of a module, where they would cost whoever imports it 70 to 360 ms."""
    roots = {name.partition(".")[0] for name in _imports(path, top=True)}
    assert not roots & (KERNEL_ONLY | {"netaddr"})


@pytest.mark.parametrize("path", [path for path in FLOORED if _floor(_name(path)) <= 3], ids=_name)
def test_drivers_and_what_is_below_touch_no_host(path: Path) -> None:
    """Neither do they open files: ``open`` needs no import."""
    assert not {name.partition(".")[0] for name in _imports(path)} & IMPURE
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "exec", "eval", "__import__"}


def test_there_are_drivers_and_an_ipam_to_look_at() -> None:
    """The tests above are worth nothing when the folders are somewhere else."""
    pure = {_name(path) for path in FLOORED if _floor(_name(path)) == 3}
    assert {"drivers.bridge", "drivers.plain", "drivers.registry", "ipam.default", "ipam.null"} <= pure


def test_nothing_but_testing_imports_testing() -> None:
    for path in MODULES:
        if not _name(path).startswith("testing"):
            assert not any(name.startswith("pynetwork.testing") for name in _imports(path)), path


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


HEAVY = {"pyroute2", "netaddr", "ovs", "iptc", "asyncio", "http.client", "ssl"}


def _loaded(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after *code*."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_library_loads_none_of_the_heavy_packages() -> None:
    loaded = _loaded("import pynetwork")
    assert not (HEAVY | {"subprocess", "pynetwork.kernel.linux", "pynetwork.controller"}) & loaded
    assert "pynetwork" in loaded


def test_a_whole_life_on_a_fake_host_loads_none_of_them_either() -> None:
    code = """
        from pynetwork import Controller, MemoryStore
        from pynetwork.testing.fake_kernel import FakeKernel
        from pynetwork.testing.surroundings import fake_surroundings
        with Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings()) as c:
            n = c.new_network("bridge", "n", ipv4=True, ipv6=True)
            e = n.create_endpoint("e", mac="02:00:00:00:00:01")
            e.join(c.new_sandbox("s"))
            c.erase()
    """
    assert not HEAVY & _loaded(textwrap.dedent(code))


@pytest.mark.parametrize(
    "package", ["pynetwork.ipam", "pynetwork.errors", "pynetwork.drivers", "pynetwork.sandbox"]
)
def test_a_part_of_the_library_can_be_had_without_the_rest(package: str) -> None:
    loaded = _loaded(f"import {package}")
    assert not (HEAVY | {"pynetwork.controller"}) & loaded
    if package != "pynetwork.sandbox":
        assert not {"pynetwork.kernel.linux", "sqlite3"} & loaded
