"""The database of an Open vSwitch, for all threads: one thread of ours owns the connection.

Its rows say what the switch should be like; the switch follows, and writes down how far it has come.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs

from pynetwork.errors import UnavailableError
from pynetwork.kernel.ovs.session import DATABASE, LostError, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.ovs.place import Place

__all__ = ["Database", "Edit"]

_T = TypeVar("_T")
_TRIES: Final = 10


@attrs.frozen
class Edit:
    """
    A transaction as it is being made, or a look without one.

    Args:
        idl: The copy of the database, of the package ``ovs``.
        transaction: None for a look.
        is_repeated: Whether a former try may have been committed, its answer lost.
    """

    idl: Any
    transaction: Any = None
    is_repeated: bool = False

    @property
    def root(self) -> Any:  # noqa: ANN401 - the package ovs has no types
        """The one row of the table ``Open_vSwitch``."""
        for row in self.idl.tables[DATABASE].rows.values():
            return row
        msg = "the database of Open vSwitch is empty: start ovs-vswitchd, or run ovs-vsctl init"
        raise UnavailableError(msg)

    def find(self, table: str, name: str) -> Any:  # noqa: ANN401 - likewise
        """Return the row of *table* called *name*, None when there is none."""
        return next((row for row in self.idl.tables[table].rows.values() if row.name == name), None)

    def rows(self, table: str) -> list[Any]:
        """Return all rows of *table*."""
        return list(self.idl.tables[table].rows.values())

    def insert(self, table: str) -> Any:  # noqa: ANN401 - likewise
        """Return a new row of *table*."""
        return self.transaction.insert(self.idl.tables[table])


class _Job:
    """Work for the thread, and its outcome."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.result: object = None
        self.error: BaseException | None = None
        self.done = threading.Event()


class Database:
    """
    Looks into the database, and changes it, one transaction at a time.

    Connects when it is first needed, and again when the connection was lost.

    Args:
        place: Whose.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._is_closed = False
        self._session: Session | None = None

    def look(self, function: Callable[[Edit], _T]) -> _T:
        """
        Return what *function* finds; it must not keep rows.

        Raises:
            UnavailableError: The database does not answer.
        """
        return self._run(lambda: self._look(function))

    def change(self, function: Callable[[Edit], object], *, wait: bool = True) -> None:
        """
        Make one transaction, and wait until the switch has followed.

        Args:
            function: Makes the changes. It is called again when somebody else has changed the same.
            wait: Whether to wait for the switch.

        Raises:
            UnavailableError: The database does not answer, nothing was changed; or the switch does not.
            PynetworkError: The database refuses the change, or *function* did.
        """
        self._run(lambda: self._change(function, wait=wait))

    def until(self, is_so: Callable[[Edit], bool]) -> None:
        """
        Wait until *is_so*.

        Raises:
            UnavailableError: It does not come about.
        """
        self._run(lambda: self._until(is_so))

    def close(self) -> None:
        """Close the connection and end the thread. Idempotent."""
        with self._lock:
            self._is_closed = True
            if self._thread is None:
                return
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
            os.close(self._wake)

    # In the caller's thread

    def _run(self, function: Callable[[], _T]) -> _T:
        job = _Job(function)
        with self._lock:
            if self._is_closed:
                msg = "the connection to Open vSwitch is closed"
                raise UnavailableError(msg)
            if self._thread is None:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._thread = threading.Thread(target=self._work, name="pynetwork-ovsdb", daemon=True)
                self._thread.start()
            self._jobs.append(job)
            os.eventfd_write(self._wake, 1)
        job.done.wait()
        if job.error is not None:
            raise job.error
        return cast("_T", job.result)

    # In the thread

    def _work(self) -> None:
        while True:
            while self._jobs:
                job = self._jobs.popleft()
                try:
                    job.result = job.function()
                except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
                    job.error = error
                job.done.set()
                del job  # or the last one's result lives until the next comes
            if self._is_closed:
                self._disconnect()
                return
            self._idle()

    def _idle(self) -> None:
        """Keep the copy up to date until there is work."""
        try:
            if self._session is None:
                poll = select.poll()
                poll.register(self._wake, select.POLLIN)
                poll.poll()
            else:
                self._session.block(self._wake)
                self._session.run()
        except LostError:
            self._disconnect()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _connected(self) -> Session:
        """Return a session that is connected and up to date."""
        for _ in range(_TRIES):
            try:
                if self._session is None:
                    self._session = Session(self._place)
                    self._session.connect()
                self._session.run()
            except LostError:
                self._disconnect()
            except BaseException:
                self._disconnect()
                raise
            else:
                return self._session
        raise self._place.no_database()

    def _look(self, function: Callable[[Edit], _T]) -> _T:
        return function(Edit(self._connected().idl))

    def _change(self, function: Callable[[Edit], object], *, wait: bool) -> None:
        is_repeated = False
        for _ in range(_TRIES):
            session = self._connected()
            if wait:
                self._place.check_switch()
            transaction = session.transaction()
            try:
                edit = Edit(session.idl, transaction, is_repeated)
                function(edit)
                edit.root.increment("next_cfg")
            except BaseException:
                transaction.abort()
                raise
            try:
                number = session.commit(transaction)
            except LostError:
                self._disconnect()
                is_repeated = True
                continue
            if number is None:
                continue
            if wait:
                self._follow(number)
            return
        raise self._place.no_database()

    def _follow(self, number: int) -> None:
        self._until(lambda edit: edit.root.cur_cfg >= number)

    def _until(self, is_so: Callable[[Edit], bool]) -> None:
        for _ in range(_TRIES):
            session = self._connected()
            try:
                session.run_until(lambda: is_so(Edit(session.idl)), self._place.no_switch)  # noqa: B023 - called here
            except LostError:
                self._disconnect()
            else:
                return
        raise self._place.no_database()
