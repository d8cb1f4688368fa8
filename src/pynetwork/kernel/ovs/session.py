"""One connection to the database of an Open vSwitch, for one thread, by the package ``ovs``."""

from __future__ import annotations

import errno
import functools
import select
import time
import uuid
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from pynetwork.errors import PynetworkError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.ovs.place import Place

__all__ = ["TABLES", "LostError", "Session"]

DATABASE: Final = "Open_vSwitch"
#: The tables and columns that we keep a copy of. Statistics are not among them: they change all the time.
TABLES: Final = {
    DATABASE: ("bridges", "next_cfg", "cur_cfg"),
    "Bridge": (
        *("name", "ports", "datapath_type", "datapath_id"),
        *("fail_mode", "protocols", "controller", "external_ids"),
    ),
    "Port": ("name", "interfaces", "external_ids"),
    "Interface": ("name", "type", "options", "ofport", "ofport_request", "error", "external_ids"),
    "Controller": ("target",),
}
_SECONDS: Final = 10.0


class LostError(Exception):
    """The connection broke. What was being committed may have been, or not."""


class Session:
    """
    A copy of the database that is kept up to date, and transactions on it.

    Args:
        place: Whose database.

    Raises:
        UnavailableError: It does not answer, or the package ``ovs`` is missing.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._library = _library()
        helper = self._library.idl.SchemaHelper(schema_json=_schema(self._library, place))
        for table, columns in TABLES.items():
            helper.register_columns(table, list(columns))
        self.idl = self._library.Idl(place.remote, helper)
        self._seqno = 0

    def connect(self) -> None:
        """
        Wait for the first copy.

        Raises:
            UnavailableError: It does not come.
        """
        self.run_until(lambda: self.idl.change_seqno > 0, self._place.no_database)

    def run(self) -> None:
        """
        Take in what is new.

        Raises:
            LostError: The connection broke.
        """
        self.idl.run()
        # A new one would do, and would begin after a second's pause; whoever waits makes it at once.
        if self.idl.change_seqno and not self.idl._session.is_connected():  # noqa: SLF001 - it has no name for it
            raise LostError

    def run_until(self, is_so: Callable[[], bool], error: Callable[[], PynetworkError]) -> None:
        """
        Take in what is new until *is_so*.

        Raises:
            LostError: The connection broke.
            PynetworkError: It is not so in time; *error* says what that means.
        """
        deadline = time.monotonic() + _SECONDS
        self.run()
        while not is_so():
            left = deadline - time.monotonic()
            if left <= 0:
                raise error()
            self.block(milliseconds=int(1000 * left) + 1)
            self.run()

    def block(self, descriptor: int | None = None, milliseconds: int | None = None) -> None:
        """Wait until something is new, *descriptor* is readable, or time has passed."""
        poller = self._library.poller.Poller()
        self.idl.wait(poller)
        if descriptor is not None:
            poller.fd_wait(descriptor, select.POLLIN)
        if milliseconds is not None:
            poller.timer_wait(milliseconds)
        poller.block()

    def transaction(self) -> Any:  # noqa: ANN401 - the package ovs has no types
        """Return a new transaction. Nothing is taken in before it is committed or aborted."""
        return self._library.idl.Transaction(self.idl)

    def commit(self, transaction: Any) -> int | None:  # noqa: ANN401 - likewise
        """
        Commit *transaction*.

        Returns:
            What the column that it increments is now, 0 if nothing has changed; None when somebody was
            faster, and what it was made of has changed.

        Raises:
            LostError: The connection broke.
            PynetworkError: The database refuses it.
        """
        kind = self._library.idl.Transaction
        before = self.idl.change_seqno
        status = transaction.commit()
        deadline = time.monotonic() + _SECONDS
        while status == kind.INCOMPLETE:
            if time.monotonic() > deadline:
                raise self._place.no_database()
            self.block(milliseconds=100)
            self.run()
            status = transaction.commit()
        if status == kind.SUCCESS:
            return int(transaction.get_increment_new_value())
        if status == kind.UNCHANGED:
            return 0
        if status == kind.TRY_AGAIN:
            # Without the news it would be the same again, for ever.
            self.run_until(lambda: self.idl.change_seqno != before, self._place.no_database)
            return None
        msg = f"the database of Open vSwitch refuses the change: {transaction.get_error()}"
        raise PynetworkError(msg)

    def close(self) -> None:
        """Close the connection."""
        self.idl.close()


@functools.cache
def _library() -> Any:  # noqa: ANN401 - likewise
    try:
        import ovs.db.idl
        import ovs.jsonrpc
        import ovs.poller
        import ovs.stream
    except ImportError as error:
        msg = f"Open vSwitch needs the Python package ovs: pip install 'pynetwork[overlay]' ({error})"
        raise UnavailableError(msg) from error
    return SimpleNamespace(
        Idl=_without_leak(ovs.db.idl),
        idl=ovs.db.idl,
        jsonrpc=ovs.jsonrpc,
        poller=ovs.poller,
        stream=ovs.stream,
    )


def _without_leak(module: Any) -> Any:  # noqa: ANN401 - likewise
    """
    Return the class Idl of *module*, without what it leaks.

    It names itself with uuid1(), which with libuuid costs each thread that calls it a descriptor, for life.
    """
    kind = module.Idl
    ours = {**vars(module), "uuid": SimpleNamespace(uuid1=uuid.uuid4, UUID=uuid.UUID)}
    make = FunctionType(kind.__init__.__code__, ours, "__init__", kind.__init__.__defaults__)
    return type("Idl", (kind,), {"__init__": make})


def _schema(library: Any, place: Place) -> Any:  # noqa: ANN401 - likewise
    """Ask the server for its schema: it fails at once where there is no server."""
    milliseconds = int(1000 * _SECONDS)
    error, stream = library.stream.Stream.open_block(library.stream.Stream.open(place.remote), milliseconds)
    if error:
        raise place.no_database()
    connection = library.jsonrpc.Connection(stream)
    try:
        request = library.jsonrpc.Message.create_request("get_schema", [DATABASE])
        reply = _answer(library, connection, request)
    finally:
        connection.close()
    if reply is None or reply.error:
        raise place.no_database()
    return reply.result


def _answer(library: Any, connection: Any, request: Any) -> Any:  # noqa: ANN401 - likewise
    """Return the answer to a request, None when none comes: the library's own way waits for ever."""
    deadline = time.monotonic() + _SECONDS
    error, reply = connection.send(request), None
    while error in {0, errno.EAGAIN} and time.monotonic() < deadline:
        error, reply = connection.recv()
        if reply is not None and reply.id == request.id:
            return reply
        connection.run()
        poller = library.poller.Poller()
        connection.wait(poller)
        connection.recv_wait(poller)
        poller.timer_wait(int(1000 * max(0.0, deadline - time.monotonic())) + 1)
        poller.block()
    return None
