"""``python -m pynetwork.agent``: a process that follows a cluster, and ends when it is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pynetwork import agent
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

MODULE = """
from pynetwork import Cluster, MemoryStore

def cluster():
    return Cluster(store=MemoryStore(), host="h1", vtep="127.0.0.1", agent=False)

nothing = 7
wrong = Cluster(store=MemoryStore(), host="h1", vtep="198.51.100.7")
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "mycluster.py").write_text(MODULE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_follows_until_it_is_told_to_end(directory: Path, number: signal.Signals) -> None:
    with private_host():
        process = subprocess.Popen(
            [sys.executable, "-m", "pynetwork.agent", "--cluster", "mycluster:cluster"],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "host h1 is followed\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("mycluster:absent", "no attribute 'absent'"),
        ("nomodule:cluster", "No module named 'nomodule'"),
        ("mycluster", "MODULE:NAME is expected"),
        ("mycluster:nothing", "it is 7, no Cluster"),
        ("mycluster:wrong", "no interface of this host has the address 198.51.100.7"),
    ],
)
def test_what_keeps_it_from_beginning_is_said(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    words: str,
) -> None:
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", [str(directory), *sys.path])
    monkeypatch.delitem(sys.modules, "mycluster", raising=False)
    with private_host():
        assert agent.main(["--cluster", where]) == 1
    assert words in capsys.readouterr().err
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM}
    monkeypatch.delitem(sys.modules, "mycluster", raising=False)
