"""The package stands alone: it imports nothing of the host or the engine, and its examples run."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import pynetwork.ipam

SOURCES = sorted(Path(pynetwork.ipam.__file__).parent.glob("*.py"))
ROOT = Path(__file__).parents[3]
ALLOWED = {
    "__future__", "attrs", "bisect", "collections", "enum", "hashlib", "ipaddress", "math", "threading",
    "time", "types", "typing", "pynetwork.errors", "pynetwork.ipam", "pynetwork.types",
}  # fmt: skip


def imports(source: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {".".join(name.split(".")[: 2 if name.startswith("pynetwork") else 1]) for name in found}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_module_imports_only_what_a_pure_layer_may(source: Path) -> None:
    assert imports(source) <= ALLOWED


def test_public_names_are_sorted_and_exist() -> None:
    """Constants first, then classes, then functions: the order ruff keeps."""
    names = pynetwork.ipam.__all__
    assert all(hasattr(pynetwork.ipam, name) for name in names)
    assert sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name)) == names


def test_example_of_the_docstring_is_true() -> None:
    assert doctest.testmod(pynetwork.ipam) == doctest.TestResults(failed=0, attempted=7)


@pytest.mark.parametrize("example", ["ipam_alone.py", "my_ipam.py"])
def test_example_runs_without_privilege_and_prints(example: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / example],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "10." in done.stdout
