"""Every example runs to its end, on a host of its own, and leaves nothing there.

An example whose first lines say "needs no root" runs as it is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import RunPrivately

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 60


def needs_no_root(example: Path) -> bool:
    """Return whether the first lines of the example say so."""
    return "needs no root" in "".join(example.read_text(encoding="utf-8").splitlines()[:5]).lower()


RUNNABLE = [path for path in sorted(EXAMPLES.glob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    "example", [path for path in RUNNABLE if needs_no_root(path)], ids=lambda path: path.stem
)
def test_example_runs_without_root(example: Path) -> None:
    """An example that needs no privilege runs to its end."""
    result = subprocess.run(
        [sys.executable, example], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.root
@pytest.mark.parametrize(
    "example", [path for path in RUNNABLE if not needs_no_root(path)], ids=lambda path: path.stem
)
def test_example_runs(example: Path, run_privately: RunPrivately) -> None:
    """An example runs to its end and leaves no link, namespace or process."""
    result = run_privately([sys.executable, example])
    assert result.returncode == 0, result.stdout + result.stderr
