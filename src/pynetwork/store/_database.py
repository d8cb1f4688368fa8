"""One SQLite connection with a life: opened when needed, used by one thread at a time, never forked."""

from __future__ import annotations

import os
import sqlite3
import threading
import warnings
from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import StoreError
from pynetwork.store._explain import explain_sqlite
from pynetwork.store._forking import follow_forks
from pynetwork.store._state_file import connect

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Attempt", "Database"]


@attrs.define(eq=False)
class Database:
    """
    A connection to the state file at *path* that opens itself again after a fork.

    Hold *lock* while you use it.

    Args:
        path: The state file; it must exist.
        timeout: Seconds to wait for a lock of another process.
    """

    path: Path
    timeout: float
    lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _cursor: sqlite3.Cursor | None = attrs.field(default=None, init=False)  # one will do, under the lock
    _file: tuple[int, int] | None = attrs.field(default=None, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    _is_forking: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        # SQLite's locks are per process, and its notes about them per file: a connection that a child
        # opens beside an inherited one believes to have locks which only the parent has, and loses
        # writes as soon as the parent closes.
        follow_forks(self)

    def __del__(self) -> None:
        if self._cursor is not None:
            self._disconnect()
            warnings.warn(f"store {self.path} was not closed", ResourceWarning, source=self, stacklevel=1)

    def cursor(self) -> sqlite3.Cursor:
        """Return the cursor, without an open transaction; open the connection if need be."""
        cursor = self._cursor
        if cursor is None:
            cursor = self._open()
        elif cursor.connection.in_transaction:  # a signal handler raised before the rollback
            cursor.connection.rollback()
        return cursor

    def check_in_place(self) -> None:
        """
        Check that the open file is still the one at *path*.

        Writing to a removed file succeeds, and nobody else ever sees it.

        Raises:
            StoreError: It was removed or replaced.
        """
        if _identity(self.path) != self._file:
            msg = (
                f"cannot write to the state file {self.path}: it was removed or replaced while "
                "this process had it open; close the store and open it again"
            )
            raise StoreError(msg)

    def roll_back(self) -> None:
        """Leave no transaction open after an error, whatever it was."""
        if self._cursor is None or not self._cursor.connection.in_transaction:
            return
        try:
            self._cursor.connection.rollback()
        except sqlite3.Error:  # beyond repair; the next use begins with a fresh one
            self._disconnect()

    def close(self) -> None:
        """Close the connection for good."""
        with self.lock:
            self._is_closed = True
            self._disconnect()

    def suspend(self) -> None:
        """Close the connection and keep everybody out until :meth:`resume`."""
        self.lock.acquire()
        self._is_forking = True
        self._disconnect()

    def resume(self) -> None:
        """Let users in again, after :meth:`suspend`; a new connection is opened when needed."""
        if self._is_forking:  # not when made by another thread, in the middle of a fork
            self._is_forking = False
            self.lock.release()

    def start_anew(self) -> None:
        """Let users in again, in a child: nothing is open."""
        self.resume()

    def _open(self) -> sqlite3.Cursor:
        if self._is_closed:
            msg = f"the store {self.path} is closed; open a new one"
            raise StoreError(msg)
        self._file = _identity(self.path)
        self._cursor = connect(self.path, self.timeout).cursor()
        return self._cursor

    def _disconnect(self) -> None:
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            connection = cursor.connection
            cursor.close()  # else a traceback that holds it keeps the file open, and its locks
            connection.close()


@attrs.frozen
class Attempt:
    """
    A ``with`` block around the use of a database that turns SQLite's errors into ours.

    Whatever is raised in it, no transaction stays open. It holds no state of its own, so one object
    serves all calls: a generator-based context manager would cost as much as a small query.

    Args:
        database: What is used; its lock is held by the caller.
        what: Completes "cannot ... the state file".
    """

    database: Database
    what: str

    def __enter__(self) -> sqlite3.Cursor:
        try:
            return self.database.cursor()
        except sqlite3.Error as error:
            raise explain_sqlite(error, self.what, self.database.path) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        self.database.roll_back()
        if isinstance(error, sqlite3.Error):
            raise explain_sqlite(error, self.what, self.database.path) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - on the hot path, and Path.stat() costs more
    except OSError:
        return None
    return status.st_dev, status.st_ino
