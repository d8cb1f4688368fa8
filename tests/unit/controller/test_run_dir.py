"""All processes of an instance have one run directory: with two it would be in two minds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pynetwork import ConflictError, Controller
from pynetwork.testing import FakeKernel
from pynetwork.testing.surroundings import fake_surroundings

if TYPE_CHECKING:
    from pathlib import Path


def opened(state: Path, run: Path) -> Controller:
    return Controller(state, run_dir=run, kernel=FakeKernel(), surroundings=fake_surroundings())


def test_another_run_directory_is_refused_and_the_first_named(tmp_path: Path) -> None:
    opened(tmp_path / "state", tmp_path / "run").close()
    with pytest.raises(ConflictError, match=f"is in {tmp_path / 'run'}$"):
        opened(tmp_path / "state", tmp_path / "other")
    opened(tmp_path / "state", tmp_path / "run").close()


def test_the_same_one_may_be_written_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path / "state", tmp_path / "run").close()
    monkeypatch.chdir(tmp_path)
    opened(tmp_path / "state", tmp_path.joinpath("run").relative_to(tmp_path)).close()


def test_what_is_erased_may_begin_anew_elsewhere(tmp_path: Path) -> None:
    opened(tmp_path / "state", tmp_path / "run").erase()
    opened(tmp_path / "state", tmp_path / "other").erase()
