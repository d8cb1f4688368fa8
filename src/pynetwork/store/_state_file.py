"""The state file on disk: a private directory, a private file, born complete, recognised when opened.

Nothing here opens an existing state file other than through SQLite. Closing any descriptor of a file
drops all POSIX locks the process has on it, also those of a connection that is in use.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from pynetwork.errors import StoreError
from pynetwork.store._explain import explain_os, explain_sqlite

__all__ = ["PLACE_BITS", "connect", "prepare"]

#: The id of a row is ``revision << PLACE_BITS | place in its transaction``.
PLACE_BITS: Final = 20

_APPLICATION_ID: Final = 0x70796E77  # "pynw"
_SCHEMA_VERSION: Final = 3

# A row per change of a key, and the row id says when it was. So a change appends to the table, and
# "what is new" is a look at the end of it. The last row of a key is what it is now; one without value
# says that it was deleted. Earlier rows, and those of deleted keys, are the history, and are trimmed.
# Which row is a key's, each process keeps in memory (_index): an index in the file would be half of what
# a transaction costs.
_SCHEMA: Final = (
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT, time REAL NOT NULL)",
    "CREATE TABLE history (compacted INTEGER NOT NULL)",
    "INSERT INTO history VALUES (0)",
)


def prepare(path: Path) -> None:
    """
    Make sure that there is a state file at *path*, and that it is private.

    Raises:
        StoreError: It cannot be created or made private; what was in the way is as before.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            _create(path)
            return
        if not stat.S_ISREG(mode):
            msg = f"cannot open the state file {path}: it is not a regular file; use another name"
            raise StoreError(msg)
        for file in _family(path):
            _make_private(file)
    except OSError as error:
        raise explain_os(error, "open", path) from error


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """
    Open the state file at *path*, which must exist.

    Raises:
        StoreError: It cannot be opened, is damaged, or was written by something else.
    """
    try:
        # mode=rw: never create. Our own BEGIN and COMMIT, hence no isolation level.
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _recognise(connection, path)
            # The kernel's state does not survive a power failure either, so no fsync per transaction.
            # A crash of the process loses nothing.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 4194304")
            connection.execute("PRAGMA wal_autocheckpoint = 8192")  # pages; see _checkpoint.py
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain_sqlite(error, "open", path) from error
    return connection


def _create(path: Path) -> None:
    """Build the file under another name and rename it: nobody ever sees half of it."""
    new = Path(f"{path}.new")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # the kernel drops it if we are killed
        if path.exists():  # another process was faster, and its file is as good
            return
        # Left by a creator that was killed, or by a state file that was removed while in use: SQLite
        # would take an old log for that of the new file.
        for leftover in (*_family(new), *_family(path)):
            leftover.unlink(missing_ok=True)
        try:
            _build(new)
            new.rename(path)
        finally:
            for leftover in _family(new):
                leftover.unlink(missing_ok=True)
    except sqlite3.Error as error:
        raise explain_sqlite(error, "create", path) from error
    finally:
        os.close(directory)


def _build(path: Path) -> None:
    path.touch(mode=0o600, exist_ok=False)  # SQLite would ask the umask
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 2048")  # a small transaction writes half as much
        connection.execute("PRAGMA journal_mode = OFF")  # nobody else sees it, nothing to roll back
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        msg = (
            f"cannot create the state file {path}: the file system has no shared memory for SQLite's WAL; "
            "use a state directory on a local file system"
        )
        raise StoreError(msg)


def _family(path: Path) -> tuple[Path, ...]:
    """Return the state file and the two that SQLite keeps beside it while it is open."""
    return path, Path(f"{path}-wal"), Path(f"{path}-shm")


def _make_private(path: Path) -> None:
    with suppress(FileNotFoundError):  # the files beside the state file come and go
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        msg = (
            f"cannot open the state file {path}: it is empty, cut short, or of another program "
            f"(application id {application:#x}); move it away or use another state directory"
        )
        raise StoreError(msg)
    if version != _SCHEMA_VERSION:
        msg = (
            f"cannot open the state file {path}: its schema is version {version}, this pynetwork knows "
            f"version {_SCHEMA_VERSION}; use the pynetwork that wrote it, or another state directory"
        )
        raise StoreError(msg)
