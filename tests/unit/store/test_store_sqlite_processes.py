"""One state directory, several processes: racing, forked, and killed in the middle of a write."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).with_name("store_programs.py")


@contextlib.contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run one of the programs, and kill it if it is still there at the end."""
    with subprocess.Popen(
        [sys.executable, PROGRAMS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def lines_of(*arguments: str | Path) -> list[str]:
    """Run one of the programs to its end and return what it printed."""
    result = subprocess.run(
        [sys.executable, PROGRAMS, *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def race(directory: Path, program: str, *, processes: int, times: int) -> None:
    """Start *processes* that wait for each other, let them go at once, and wait until they are done."""
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(started(program, directory, str(times))) for _ in range(processes)]
        assert {line_of(racer) for racer in racers} == {"ready"}
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert [racer.wait(timeout=30) for racer in racers] == [0] * processes


def counter(directory: Path) -> int:
    with SqliteStore(directory) as store:
        entry = store.get("counter")
        assert entry is not None
        return int(entry.value)


class TestRaces:
    def test_two_processes_lose_no_update(self, tmp_path: Path) -> None:
        race(tmp_path, "increment", processes=2, times=500)
        assert counter(tmp_path) == 1000

    @pytest.mark.parametrize("attempt", range(3))
    def test_the_first_opening_by_many_at_once_makes_one_store(self, tmp_path: Path, attempt: int) -> None:
        race(tmp_path / "new", "increment", processes=6, times=1)
        assert counter(tmp_path / "new") == 6
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["state.db"]

    def test_opening_and_closing_at_once_loses_no_update(self, tmp_path: Path) -> None:
        """The last one to close tidies up, just when the next one opens."""
        race(tmp_path, "reopen", processes=4, times=50)
        assert counter(tmp_path) == 200


class TestKill:
    @pytest.mark.parametrize("written", [1, 4, 9])
    def test_a_killed_writer_leaves_whole_transactions(self, tmp_path: Path, written: int) -> None:
        with started("write_pairs", tmp_path, "") as process:
            for _ in range(written):
                confirmed = int(line_of(process))
            process.kill()
            process.wait()
        with SqliteStore(tmp_path) as store:
            left, right = store.get("left"), store.get("right")
            assert left is not None
            assert right is not None
            assert (left.value, left.revision) == (right.value, right.revision)
            assert int(left.value) >= confirmed
            assert store.changes(left.revision - 1) is not None
        with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_a_killed_writer_holds_no_lock(self, tmp_path: Path) -> None:
        with started("write_pairs", tmp_path, "") as process, SqliteStore(tmp_path) as store:
            line_of(process)
            process.kill()
            process.wait()
            assert store.transact([], []) == store.list("").revision


class TestForks:
    def test_parent_and_child_go_on_with_the_same_store(self, tmp_path: Path) -> None:
        assert lines_of("fork_and_share", tmp_path, "100") == ["0"]
        assert counter(tmp_path) == 300

    def test_what_the_child_writes_survives_the_closing_of_the_parent(self, tmp_path: Path) -> None:
        """An inherited connection, or one opened beside it, would write to a log that is already unlinked."""
        assert lines_of("fork_and_close", tmp_path, "") == ["first parent second", "0"]

    def test_a_fork_waits_for_transactions_of_other_threads(self, tmp_path: Path) -> None:
        assert lines_of("fork_while_writing", tmp_path, "10") == ["0"] * 10
        assert counter(tmp_path) == 50

    def test_a_closed_or_dropped_store_does_not_hinder_a_fork(self, tmp_path: Path) -> None:
        program = (
            "import os, sys; from pynetwork.store import SqliteStore; d = sys.argv[1]\n"
            "closed = SqliteStore(d); closed.close()\n"
            "dropped = SqliteStore(d); dropped.close(); del dropped\n"
            "pid = os.fork()\n"
            "if pid == 0: os._exit(0)\n"
            "sys.exit(os.waitpid(pid, 0)[1])"
        )
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")

    def test_a_store_made_during_a_fork_is_not_unlocked_by_it(self, tmp_path: Path) -> None:
        """Its hooks were registered too late to run before the fork, and run after it."""
        with SqliteStore(tmp_path) as store, store._lock:
            store._database.resume()
            assert store._lock.locked()
