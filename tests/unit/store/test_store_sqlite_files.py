"""The state file: private, recognised, and every way it can fail told in words a user can act on."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import StoreError
from pynetwork.store import Absent, Delete, Entry, Put, Snapshot, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def refused(attempt: Callable[[], object], *words: str | Path) -> None:
    """Expect a store error that says all *words*."""
    with pytest.raises(StoreError) as caught:
        attempt()
    message = str(caught.value)
    assert [str(word) for word in words if str(word) not in message] == [], message


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with one entry in it, closed."""
    directory = tmp_path / "state"
    with SqliteStore(directory) as store:
        store.transact([], [Put("a", "1")])
    return directory


@pytest.fixture
def state_file(directory: Path) -> Path:
    return directory / "state.db"


@pytest.fixture
def filled(directory: Path) -> Iterator[SqliteStore]:
    """The store in *directory*, open."""
    with SqliteStore(directory) as store:
        yield store


class TestPrivacy:
    @pytest.mark.parametrize("umask", [0, 0o022, 0o077])
    def test_a_new_directory_and_its_files_are_for_the_owner_only(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            with SqliteStore(tmp_path / "a" / "b") as store:
                store.transact([], [Put("a", "1")])
                files = {path.name: mode(path) for path in (tmp_path / "a" / "b").iterdir()}
        finally:
            os.umask(before)
        assert mode(tmp_path / "a" / "b") == 0o700
        assert files == {"state.db": 0o600, "state.db-shm": 0o600, "state.db-wal": 0o600}

    @pytest.mark.parametrize("existing", [0o700, 0o750, 0o500 | 0o200])
    def test_the_mode_of_an_existing_directory_is_left_alone(self, tmp_path: Path, existing: int) -> None:
        directory = tmp_path / "state"
        directory.mkdir()
        directory.chmod(existing)
        SqliteStore(directory).close()
        assert mode(directory) == existing

    def test_files_that_others_could_read_are_tightened(self, filled: SqliteStore, directory: Path) -> None:
        filled.transact([], [Put("b", "2")])
        for path in directory.iterdir():
            path.chmod(0o644)
        SqliteStore(directory).close()
        assert {mode(path) for path in directory.iterdir()} == {0o600}

    def test_nothing_is_left_of_the_making(self, directory: Path) -> None:
        assert [path.name for path in directory.iterdir()] == ["state.db"]

    def test_the_file_can_have_another_name(self, tmp_path: Path) -> None:
        SqliteStore(tmp_path, name="other.db").close()
        assert [path.name for path in tmp_path.iterdir()] == ["other.db"]

    @pytest.mark.parametrize("name", ["a b", "a?mode=memory", "a#b", "a%41", "é"])
    def test_a_directory_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        with SqliteStore(tmp_path / name) as store:
            store.transact([], [Put("a", "1")])
        assert (tmp_path / name / "state.db").exists()

    def test_changing_directory_does_not_move_the_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        with SqliteStore("state") as store:
            monkeypatch.chdir("elsewhere")
            assert store.transact([], [Put("a", "1")]) == 1


class TestLife:
    def test_the_state_outlives_the_handle(self, filled: SqliteStore) -> None:
        assert filled.get("a") == Entry("a", "1", 1)

    def test_the_store_names_its_file(self, filled: SqliteStore, state_file: Path) -> None:
        assert repr(filled) == f"<SqliteStore {state_file}>"

    def test_a_closed_store_says_so(self, filled: SqliteStore, state_file: Path) -> None:
        filled.close()
        for attempt in (lambda: filled.get("a"), lambda: filled.list(""), lambda: filled.changes(0)):
            refused(attempt, state_file, "is closed")
        refused(lambda: filled.transact([], []), state_file, "is closed")

    def test_opening_and_closing_leaks_no_descriptor(self, directory: Path) -> None:
        before = open_descriptors()
        for _ in range(20):
            with SqliteStore(directory) as store:
                store.transact([], [Put("a", "1")])
        assert open_descriptors() == before

    def test_a_failed_opening_leaks_no_descriptor(self, state_file: Path) -> None:
        state_file.write_bytes(b"garbage " * 1000)
        before = open_descriptors()
        for _ in range(5):
            refused(lambda: SqliteStore(state_file.parent), state_file)
        assert open_descriptors() == before

    def test_a_dropped_store_is_closed_and_warned_about(self, directory: Path) -> None:
        before = open_descriptors()
        stores = [SqliteStore(directory)]
        with pytest.warns(ResourceWarning, match=re.escape(f"store {directory}/state.db was not closed")):
            stores.clear()
        assert open_descriptors() == before

    def test_an_interrupt_in_a_transaction_leaves_nothing(self, filled: SqliteStore) -> None:
        class Interrupted(
            tuple[Absent]
        ):  # a Sequence that dies in the middle, like a thread that gets Ctrl-C
            __slots__ = ()

            def __iter__(self) -> Iterator[Absent]:
                yield Absent("b")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            filled.transact(Interrupted(), [Put("b", "2")])
        assert filled.get("b") is None
        assert filled.transact([], [Put("c", "3")]) == 2

    def test_a_rollback_that_an_interrupt_prevented_is_made_up_for(self, filled: SqliteStore) -> None:
        filled._database.cursor().execute("BEGIN IMMEDIATE")
        assert filled.transact([], [Put("b", "2")]) == 2


class TestWhatIsInTheWay:
    def test_a_file_instead_of_the_directory(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")
        refused(
            lambda: SqliteStore(tmp_path / "state"),
            tmp_path / "state",
            "a file is where the directory should be",
        )

    def test_a_file_instead_of_a_parent(self, tmp_path: Path) -> None:
        (tmp_path / "parent").write_text("")
        refused(lambda: SqliteStore(tmp_path / "parent" / "state"), tmp_path / "parent", "ENOTDIR", "move it")

    def test_a_directory_instead_of_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").mkdir(mode=0o755)
        refused(lambda: SqliteStore(tmp_path), tmp_path / "state.db", "not a regular file")
        assert mode(tmp_path / "state.db") == 0o755

    def test_an_impossible_path(self, tmp_path: Path) -> None:
        refused(lambda: SqliteStore(tmp_path / ("x" * 300)), "ENAMETOOLONG", "use another state directory")

    @pytest.mark.parametrize("content", [b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
    def test_a_file_that_is_no_database(self, state_file: Path, content: bytes) -> None:
        state_file.write_bytes(content)
        refused(
            lambda: SqliteStore(state_file.parent),
            "cannot open",
            state_file,
            "not an SQLite database",
            "move it",
        )
        assert state_file.read_bytes() == content

    def test_an_empty_file(self, state_file: Path) -> None:
        state_file.write_bytes(b"")
        refused(lambda: SqliteStore(state_file.parent), "cannot open", state_file, "it is empty, cut short")

    def test_the_database_of_another_program(self, state_file: Path) -> None:
        state_file.unlink()
        with contextlib.closing(sqlite3.connect(state_file)) as other:
            other.executescript("PRAGMA application_id = 0x1234; CREATE TABLE t (a)")
        before = state_file.read_bytes()
        refused(lambda: SqliteStore(state_file.parent), state_file, "another program", "0x1234")
        assert state_file.read_bytes() == before

    def test_a_newer_schema(self, state_file: Path) -> None:
        with contextlib.closing(sqlite3.connect(state_file)) as newer:
            newer.execute("PRAGMA user_version = 4")
        refused(lambda: SqliteStore(state_file.parent), state_file, "schema is version 4", "knows version 3")


class TestDamage:
    @pytest.fixture
    def long_file(self, state_file: Path) -> Path:
        """A state file of many pages, closed."""
        with SqliteStore(state_file.parent) as store:
            store.transact([], [Put(f"{n}", "x" * 3000) for n in range(100)])
        return state_file

    @pytest.mark.parametrize("pages", [1, 3, 50])
    def test_a_truncated_file(self, long_file: Path, pages: int) -> None:
        os.truncate(long_file, pages * 4096)

        def use() -> None:
            with SqliteStore(long_file.parent) as store:
                store.list("")

        refused(use, long_file, "damaged", "restore its directory from a copy")

    def test_a_file_cut_within_its_first_page(self, long_file: Path) -> None:
        os.truncate(long_file, 50)
        refused(lambda: SqliteStore(long_file.parent), long_file, "cut short")

    def test_garbage_in_the_middle(self, long_file: Path) -> None:
        """The store opens, says what is wrong with each use, and a use does not hang the next one."""
        content = long_file.read_bytes()
        long_file.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
        with SqliteStore(long_file.parent) as store:
            for _ in range(2):
                refused(lambda: store.list(""), "cannot read", long_file, "damaged")
                refused(lambda: store.transact([], [Put("a", "2")]), "cannot write", long_file, "damaged")

    def test_closing_after_an_error_closes_the_file(self, long_file: Path) -> None:
        """Also while somebody holds the error, and so the frames it went through."""
        content = long_file.read_bytes()
        long_file.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
        before = open_descriptors()
        with SqliteStore(long_file.parent) as store, pytest.raises(StoreError) as held:
            store.list("")
        assert open_descriptors() == before
        assert held.value.__cause__ is not None

    def test_a_missing_table(self, filled: SqliteStore, state_file: Path) -> None:
        with contextlib.closing(sqlite3.connect(state_file)) as vandal:
            vandal.execute("DROP TABLE entries")
        refused(lambda: filled.get("a"), "cannot read", state_file, "no such table")


class TestRemoval:
    def test_writing_to_a_removed_file_is_an_error(self, filled: SqliteStore, state_file: Path) -> None:
        state_file.unlink()
        refused(
            lambda: filled.transact([], [Put("b", "2")]), "cannot write", state_file, "removed or replaced"
        )

    def test_writing_to_a_replaced_file_is_an_error(self, filled: SqliteStore, directory: Path) -> None:
        for path in directory.iterdir():
            path.unlink()
        with SqliteStore(directory) as other:
            refused(lambda: filled.transact([], [Put("b", "2")]), directory, "removed or replaced")
            assert other.get("b") is None

    def test_the_log_of_a_removed_file_is_not_taken_for_the_new_one(
        self, filled: SqliteStore, directory: Path, state_file: Path
    ) -> None:
        filled.transact([], [Put("b", "2")])
        state_file.unlink()
        with SqliteStore(directory) as new:
            assert new.list("") == Snapshot(0, ())
            assert new.transact([], [Put("c", "3")]) == 1

    def test_what_a_killed_creator_left_is_cleared_away(self, tmp_path: Path) -> None:
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"state.db.new{suffix}").write_text("half of it")
        with SqliteStore(tmp_path) as store:
            assert store.list("") == Snapshot(0, ())
        assert [path.name for path in tmp_path.iterdir()] == ["state.db"]


class TestLocks:
    def test_a_lock_that_stays_is_an_error_after_the_timeout(self, directory: Path) -> None:
        with SqliteStore(directory) as holder, SqliteStore(directory, timeout=0.02) as store:
            cursor = holder._database.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            refused(
                lambda: store.transact([], [Put("b", "2")]), "cannot write to", "locked by another process"
            )
            assert store.get("a") == Entry("a", "1", 1)
            cursor.execute("ROLLBACK")
            assert store.transact([], [Put("b", "2")]) == 2


class TestFullDisk:
    def test_a_failed_transaction_leaves_nothing_and_reading_goes_on(self, filled: SqliteStore) -> None:
        connection = filled._database.cursor().connection
        connection.execute("PRAGMA max_page_count = 10")
        before = filled.list("")
        many: list[Put] = [Put(f"{n}", "x" * 4000) for n in range(20)]
        refused(lambda: filled.transact([], many), "cannot write to", "the disk is full", "free some space")
        assert filled.list("") == before
        connection.execute("PRAGMA max_page_count = 1000")
        assert filled.transact([], many) == before.revision + 1

    @pytest.mark.root
    def test_a_file_system_that_fills_up(self, mounted: Path) -> None:
        with SqliteStore(mounted / "state") as store:
            store.transact([], [Put("a", "1")])
            full = mounted / "filler"
            with full.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while filler.write(b"x" * 4096):
                    pass
            for _ in range(3):
                refused(lambda: store.transact([], [Put("b", "x" * 100_000)]), "the disk is full")
            assert store.get("a") == Entry("a", "1", 1)
            refused(lambda: SqliteStore(mounted / "other"), mounted / "other", "full")
            full.unlink()
            assert store.transact([], [Put("b", "2")]) == 2
        assert [path.name for path in (mounted / "state").iterdir()] == ["state.db"]

    @pytest.mark.root
    def test_a_file_system_without_any_room(self, mounted: Path) -> None:
        with (mounted / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        refused(lambda: SqliteStore(mounted), mounted, "full")
        assert [path.name for path in mounted.iterdir()] == ["filler"]


@pytest.mark.root
class TestReadOnlyFileSystem:
    def test_nothing_can_be_created(self, mounted: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        refused(
            lambda: SqliteStore(mounted),
            "cannot open",
            mounted,
            "the file system is read-only",
            "make it writable",
        )
        refused(lambda: SqliteStore(mounted / "new"), mounted / "new", "the file system is read-only")

    def test_a_store_cannot_be_opened(self, mounted: Path) -> None:
        SqliteStore(mounted).close()
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        refused(lambda: SqliteStore(mounted), "cannot open", mounted / "state.db", "make it writable")


@pytest.mark.root
class TestPermissions:
    """As root these need somebody else to be; the class becomes nobody for the duration of a test."""

    @pytest.fixture
    def public(self) -> Iterator[Path]:
        """A directory that all can enter, unlike pytest's."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            yield Path(name)

    @contextlib.contextmanager
    def nobody(self) -> Iterator[None]:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    def test_a_directory_that_may_not_be_written(self, public: Path) -> None:
        with self.nobody():
            refused(
                lambda: SqliteStore(public), "cannot open", public, "permission is missing", "run as the user"
            )
            refused(lambda: SqliteStore(public / "new"), public / "new", "permission is missing")

    def test_a_directory_that_may_not_be_entered(self, public: Path) -> None:
        SqliteStore(public / "state").close()
        with self.nobody():
            refused(
                lambda: SqliteStore(public / "state"), public / "state" / "state.db", "permission is missing"
            )

    def test_a_file_that_belongs_to_somebody_else(self, public: Path) -> None:
        """It is not ours to tighten, and what others can read is not fit for state."""
        SqliteStore(public).close()
        (public / "state.db").chmod(0o644)
        with self.nobody():
            refused(lambda: SqliteStore(public), public / "state.db", "permission is missing")
        assert mode(public / "state.db") == 0o644

    def test_a_file_that_may_not_be_read(self, public: Path) -> None:
        SqliteStore(public).close()
        with self.nobody():
            refused(lambda: SqliteStore(public), "cannot open", public / "state.db")

    def test_a_file_that_may_only_be_read(self, public: Path) -> None:
        SqliteStore(public).close()
        for path in (public, public / "state.db"):
            os.chown(path, NOBODY, NOBODY)
        (public / "state.db").chmod(0o400)
        with self.nobody(), SqliteStore(public) as store:
            assert store.get("a") is None
            refused(
                lambda: store.transact([], [Put("a", "1")]),
                "cannot write to",
                "read-only",
                "make it writable",
            )


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB of its own."""
    target = tmp_path / "mounted"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "pynetwork-test", target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_value_beyond_the_limit_of_sqlite_is_an_error(filled: SqliteStore) -> None:
    filled._database.cursor().connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    refused(lambda: filled.transact([], [Put("a", "x" * 2000)]), "cannot write to", "too long")
    assert filled.get("a") == Entry("a", "1", 1)


def test_importing_the_store_does_not_import_what_it_does_not_need() -> None:
    program = (
        "import sys, pynetwork.store; sys.exit(any(m in sys.modules for m in ('pyroute2', 'netaddr', 'ovs')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class TestLog:
    def test_the_log_is_moved_into_the_file_while_the_store_is_open(self, tmp_path: Path) -> None:
        """Else it grows until the last process closes the store, and reading it becomes slow."""
        with SqliteStore(tmp_path / "state") as store:
            for number in range(300):
                store.transact([], [Put(f"key/{number}", "x" * 500)])
            store._checkpointer._later.flush()
            (tmp_path / "file").write_bytes((tmp_path / "state" / "state.db").read_bytes())
        with contextlib.closing(sqlite3.connect(tmp_path / "file")) as connection:  # without its log
            (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        assert count >= 128

    def test_a_log_that_cannot_be_moved_hinders_nobody(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with SqliteStore(tmp_path) as store:
            (tmp_path / "state.db").rename(tmp_path / "moved")
            store._checkpointer._move()
            (tmp_path / "moved").rename(tmp_path / "state.db")
            store.transact([], [Put("a", "1")])
            assert store.get("a") is not None


def test_only_the_past_of_chosen_keys_is_remembered(tmp_path: Path) -> None:
    """What nobody asks for does not fill the file; the store is as complete as ever."""
    with SqliteStore(tmp_path, remembered=("kept",)) as store:
        for n in range(3):
            store.transact([], [Put("kept/a", f"{n}"), Put("lost/a", f"{n}")])
        store.transact([], [Delete("lost/a"), Delete("kept/a")])
        found = store.history(0)
        assert found is not None
        assert [(change.key, change.value, change.revision) for change in found.changes] == [
            ("kept/a", "0", 1),
            ("kept/a", "1", 2),
            ("kept/a", "2", 3),
            ("lost/a", None, 4),
            ("kept/a", None, 4),
        ]
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert database.execute("SELECT count(*) FROM entries").fetchone() == (5,)


def test_the_file_does_not_grow_with_what_is_overtaken(directory: Path) -> None:
    """Old rows make room for new ones, whichever process wrote them."""
    sizes = []
    for _ in range(4):
        with SqliteStore(directory, history=64) as store:
            for n in range(400):
                change = Delete("b") if n % 2 else Put("b", "")
                store.transact([], [Put(f"a/{n % 7}", "x" * 500), change])
        with contextlib.closing(sqlite3.connect(directory / "state.db")) as database:
            (rows,) = database.execute("SELECT count(*) FROM entries").fetchone()
            assert rows < 64 + 9 + 9
        sizes.append((directory / "state.db").stat().st_size)
    assert sizes[-1] <= sizes[0] * 1.1
