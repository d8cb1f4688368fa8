"""Transactions that are carried out once, also when the answer is lost on the way.

A connection that breaks after the request went out leaves open whether it was carried out, or will be:
it may wait in a member that hangs. So each transaction also moves a **mark**, a key of its writer's, and
has the compare that the mark was not moved meanwhile. Whoever waits in vain moves the mark in a second
transaction. Either the first was carried out, then the mark says so and at which revision; or it was
not, and now never will be, since its compare cannot hold any more. Then it may be sent again.

A writer has one transaction at a time, so there are as many as threads that write at once. Their marks
go with a lease, minutes after the process; then writers begin with new ones.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from pynetwork.log import logger
from pynetwork.store._forking import follow_forks
from pynetwork.store.etcd_answers import NOT_FOUND, RefusedError
from pynetwork.store.etcd_client import AmbiguousError
from pynetwork.store.etcd_wire import b64, revision_of

if TYPE_CHECKING:
    from typing import Any

    from pynetwork.store.etcd_answers import Answer
    from pynetwork.store.etcd_client import Client, Deadline
    from pynetwork.store.etcd_leases import Leases
    from pynetwork.store.etcd_wire import Layout
    from pynetwork.store.port import Lease

__all__ = ["Writers", "time_of"]

_MARK_TTL: Final = 600  # seconds that the marks of a process outlive it
_RENEWALS: Final = 3  # per time to live
_PARTING_SECONDS: Final = 0.5  # for taking them away at the end
_TXN: Final = "/kv/txn"
_GONE: Final = "the mark of the writer was not there"


class _VoidError(Exception):
    """A transaction was not carried out, and never will be, for reasons of the writer's: send it again."""


@attrs.define(eq=False)
class _Writer:
    """
    Moves one mark.

    Attributes:
        key: Of the mark, as JSON has it.
        revision: At which the mark was last moved, as far as the writer knows.
    """

    key: str
    revision: int


class Writers:
    """Writes transactions to *client*'s cluster. Thread-safe."""

    def __init__(self, client: Client, layout: Layout, leases: Leases) -> None:
        self._client = client
        self._layout = layout
        self._leases = leases
        self._lock = threading.Lock()
        self._idle: list[_Writer] = []
        self._lease: Lease | None = None
        self._renewed = 0.0
        follow_forks(self)

    def write(self, what: str, compares: list[Answer], operations: list[Answer]) -> int | None:
        """
        Carry out a transaction, once.

        Args:
            what: Completes "cannot ...".
            compares: In etcd's words.
            operations: Likewise.

        Returns:
            The revision it was written at, None when a compare did not hold.

        Raises:
            RefusedError: The cluster refuses it.
            StoreUnavailableError: No member answers; nothing was written.
            OutcomeUnknownError: They did not answer any more when asked whether it was written.
        """
        deadline = self._client.deadline()
        while True:
            writer = self._take(what, deadline)
            try:
                return self._try(writer, what, compares, operations, deadline)
            except _VoidError as error:
                if not deadline.left():
                    msg = f"cannot {what}: {error}; nothing was written"
                    raise StoreUnavailableError(msg) from error

    def mark(self, what: str) -> int:
        """
        Move a mark, and nothing else.

        Returns:
            The revision at which it was moved.

        Raises:
            RefusedError: The cluster refuses it.
            StoreUnavailableError: No member answers.
        """
        deadline = self._client.deadline()
        while True:
            writer = self._take(what, deadline)
            answer = self._client.call(what, _TXN, _move(writer, _new_sign()), deadline=deadline)
            mark = _mark(answer)
            if answer.get("succeeded"):
                writer.revision = revision_of(answer)
            elif mark is None:
                self._forget_lease()
                continue
            else:  # by a first try, whose answer was lost
                writer.revision = int(mark["mod_revision"])
            self._put_back(writer)
            return writer.revision

    def close(self) -> None:
        """Take the marks away, if that is possible now."""
        with self._lock:
            lease, self._lease = self._lease, None
            self._idle.clear()
        if lease is not None:
            try:
                self._leases.revoke(lease, patience=min(self._client.patience, _PARTING_SECONDS))
            except (StoreError, RefusedError) as error:
                logger().info("marks of writers stay for %d s: %s", _MARK_TTL, error)

    def suspend(self) -> None:
        """Before a fork."""
        self._lock.acquire()

    def resume(self) -> None:
        """After it, in the parent."""
        self._lock.release()

    def start_anew(self) -> None:
        """After it, in the child, which has marks of its own."""
        self._idle.clear()
        self._lease = None
        self._lock.release()

    def _try(
        self,
        writer: _Writer,
        what: str,
        compares: list[Answer],
        operations: list[Answer],
        deadline: Deadline,
    ) -> int | None:
        """Send the transaction once."""
        sign = _new_sign()
        move = _move(writer, sign)
        body = {**move, "compare": [*compares, *move["compare"]], "success": [*operations, *move["success"]]}
        try:
            answer = self._client.call(what, _TXN, body, deadline=deadline, once=True)
        except AmbiguousError as error:
            return self._find_out(writer, what, sign, error)
        except (RefusedError, StoreUnavailableError):
            self._put_back(writer)  # it was not sent, or refused: the mark is where it was
            raise
        if answer.get("succeeded"):
            writer.revision = revision_of(answer)
            self._put_back(writer)
            return writer.revision
        mark = _mark(answer)
        if mark is None:  # it was away for too long
            self._forget_lease()
            raise _VoidError(_GONE)
        was, writer.revision = writer.revision, int(mark["mod_revision"])
        self._put_back(writer)
        if was != writer.revision:  # it was put twice at first
            raise _VoidError(_GONE)
        return None

    def _find_out(self, writer: _Writer, what: str, sign: str, cause: AmbiguousError) -> int | None:
        """Return the revision of the transaction with *sign*, if it was carried out; else make it void."""
        void = _new_sign()
        try:
            answer = self._client.call(f"find out about: {what}", _TXN, _move(writer, void))
        except (StoreError, RefusedError) as error:
            raise _unknown(what, f"{cause}; then {error}") from cause
        mark = _mark(answer)
        if answer.get("succeeded"):
            writer.revision = revision_of(answer)
        elif mark is None:
            self._forget_lease()
            raise _unknown(what, f"{cause}; then {_GONE}") from cause
        else:
            writer.revision = int(mark["mod_revision"])
        self._put_back(writer)
        if mark is not None and mark.get("value") == sign:
            return writer.revision
        raise _VoidError(str(cause)) from cause

    def _take(self, what: str, deadline: Deadline) -> _Writer:
        with self._lock:
            lease = self._lease
            writer = self._idle.pop() if self._idle else None
            age = time.monotonic() - self._renewed
        if lease is not None and age > _MARK_TTL / _RENEWALS:
            if self._leases.keep_alive(lease, deadline=deadline) is None:
                self._forget_lease()
                lease = writer = None
            else:
                self._renewed = time.monotonic()
        return writer or self._new_writer(what, lease, deadline)

    def _new_writer(self, what: str, lease: Lease | None, deadline: Deadline) -> _Writer:
        if lease is None:
            lease = self._leases.grant(_MARK_TTL, deadline=deadline)
            with self._lock:
                self._lease, self._renewed = lease, time.monotonic()
        writer = _Writer(self._layout.writer(secrets.token_hex(8)), 0)
        body = {"key": writer.key, "value": "", "lease": str(lease.id)}
        try:
            answer = self._client.call(what, "/kv/put", body, deadline=deadline)
        except RefusedError as error:
            if error.code == NOT_FOUND:  # the lease ended, or the cluster is another
                self._forget_lease()
                return self._new_writer(what, None, deadline)
            raise
        writer.revision = revision_of(answer)
        return writer

    def _put_back(self, writer: _Writer) -> None:
        with self._lock:
            if self._lease is not None:
                self._idle.append(writer)

    def _forget_lease(self) -> None:
        with self._lock:
            self._lease = None
            self._idle.clear()


def _new_sign() -> str:
    """Return what a mark has not said before: the time, and something random."""
    return b64(f"{time.time():.6f} {secrets.token_hex(8)}".encode())


def time_of(sign: str) -> float:
    """Return when *sign* was made, by the clock of its maker; 0 when it does not say."""
    try:
        return float(base64.b64decode(sign).split()[0])
    except (ValueError, IndexError):
        return 0.0


def _move(writer: _Writer, sign: str) -> dict[str, Any]:
    """Return the transaction that moves the mark, if it is where it was, and else looks at it."""
    return {
        "compare": [{"key": writer.key, "target": "MOD", "mod_revision": str(writer.revision)}],
        "success": [{"request_put": {"key": writer.key, "value": sign, "ignore_lease": True}}],
        "failure": [{"request_range": {"key": writer.key}}],
    }


def _mark(answer: Answer) -> Answer | None:
    """Return the mark as a transaction found it that failed."""
    if answer.get("succeeded"):
        return None
    marks: list[Answer] = answer["responses"][0]["response_range"].get("kvs", [])
    return marks[0] if marks else None


def _unknown(what: str, why: str) -> OutcomeUnknownError:
    msg = f"cannot tell whether it was written: {what}: {why}; read what it was about before you try again"
    return OutcomeUnknownError(msg)
