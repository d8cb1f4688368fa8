"""Turns what SQLite and the kernel say into errors that tell a user what happened and what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from pynetwork.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["explain_os", "explain_sqlite"]

_DAMAGED: Final = "restore its directory from a copy, or move it away to begin with an empty store"
_ACCESS: Final = "run as the user it belongs to, or use another state directory"
_SPACE: Final = "free some space and try again"
_WRITABLE: Final = "make it writable or use another state directory"

# Primary result codes; the extended ones share their lowest byte.
_SQLITE: Final[Mapping[int, tuple[str, str]]] = {
    sqlite3.SQLITE_BUSY: (
        "it is locked by another process",
        "try again; if it stays so, look for a process that hangs (fuser -v shows who has it open)",
    ),
    sqlite3.SQLITE_FULL: ("the disk is full", _SPACE),
    sqlite3.SQLITE_IOERR: ("the disk failed or is full", "look at the kernel's log and at the free space"),
    sqlite3.SQLITE_READONLY: ("it is read-only", _WRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("it, or a file beside it, cannot be opened", _WRITABLE),
    sqlite3.SQLITE_PERM: ("permission is missing", _ACCESS),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", _DAMAGED),
    sqlite3.SQLITE_NOTADB: ("it is damaged or not an SQLite database", _DAMAGED),
    sqlite3.SQLITE_PROTOCOL: ("its locks do not work", "use a state directory on a local file system"),
    sqlite3.SQLITE_TOOBIG: ("a value is too long", "store less than 1 GB under one key"),
}

_OS: Final[Mapping[int, tuple[str, str]]] = {
    errno.EACCES: ("permission is missing", _ACCESS),
    errno.EPERM: ("permission is missing", _ACCESS),
    errno.EROFS: ("the file system is read-only", _WRITABLE),
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EEXIST: ("a file is where the directory should be", "move it, or use another state directory"),
    errno.ENOTDIR: ("a file is where a directory should be", "move it, or use another state directory"),
}


def explain_sqlite(error: sqlite3.Error, attempt: str, path: Path) -> StoreError:
    """Return the error to raise when *attempt* on the state file at *path* failed with *error*."""
    # Errors of the module itself, as opposed to the library's, carry no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    reason, remedy = _SQLITE.get(code & 0xFF, ("SQLite refused", "please report this as a defect"))
    return StoreError(f"cannot {attempt} the state file {path}: {reason} ({name}: {error}); {remedy}")


def explain_os(error: OSError, attempt: str, path: Path) -> StoreError:
    """Return the error to raise when *attempt* on the state file at *path* failed with *error*."""
    number = error.errno or 0
    reason, remedy = _OS.get(number, (os.strerror(number), "use another state directory"))
    where = f": {error.filename}" if error.filename and str(error.filename) != str(path) else ""
    name = errno.errorcode.get(number, str(number))
    return StoreError(f"cannot {attempt} the state file {path}{where}: {reason} ({name}); {remedy}")
