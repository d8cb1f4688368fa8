"""Moving the write-ahead log into the state file, while nobody waits for it.

SQLite does so in the middle of whichever transaction makes the log too long, which then waits some
milliseconds for the disk instead of some tens of microseconds for memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pynetwork.errors import StoreError
from pynetwork.kernel.later import Later
from pynetwork.log import logger
from pynetwork.store._database import Attempt, Database

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpointer"]

_EVERY: Final = 128  # transactions, of some eight pages of the log each


class Checkpointer:
    """
    Moves the log in a thread, over a connection of its own: readers and writers go on meanwhile.

    Every process does it for what it wrote itself. Should a log get too long all the same, SQLite's own
    way is the safety net.

    Args:
        path: The state file.
        timeout: Seconds to wait for a lock of another process.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._database = Database(path, timeout)
        self._moving = Attempt(self._database, "write to")
        self._later = Later(idle_seconds=0.0)  # work is rare
        self._written = 0
        with self._database.lock, self._moving:
            pass  # opened now, or a long-lived process would seem to grow

    def count(self) -> None:
        """Note a transaction; now and then this has the log moved."""
        self._written += 1
        if self._written % _EVERY == 0:
            self._later.call("checkpoint", 0.0, self._move)

    def close(self) -> None:
        """End the thread and close the connection. Idempotent."""
        self._later.close()
        self._database.close()

    def _move(self) -> None:
        try:
            with self._database.lock, self._moving as cursor:
                cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except StoreError as error:
            logger().warning("the log of the state file stays as long as it is: %s", error)
