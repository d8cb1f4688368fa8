"""Every exception pynetwork raises, in one tree.

::

    PynetworkError
    ├── RequestError             the caller's fault; nothing was touched
    │   ├── InvalidValueError    (also ValueError) a malformed name, address, option ...
    │   ├── UnknownDriverError   no driver or IPAM driver of that name
    │   ├── NotFoundError        (also LookupError) the object does not exist, or no longer
    │   └── ConflictError        name in use, subnet overlaps, network in use, already joined ...
    │       └── PortTakenError   a host port is in use
    ├── ExhaustedError           no free pool, address, port or VNI is left
    ├── ApplyError               a step on the host failed; says what was rolled back and what was not
    ├── UnavailableError         the host lacks something: privilege, a kernel feature, a program
    └── StoreError               the recorded state cannot be read or written
        ├── HistoryLostError         what happened after a revision is no longer known: look anew
        ├── StoreUnavailableError    no member of a cluster store answers; nothing was written
        └── OutcomeUnknownError      it stopped answering during a write, which may be there or not

A message says what was attempted, on what, why it failed, and whether the host is as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ApplyError",
    "ConflictError",
    "ExhaustedError",
    "HistoryLostError",
    "InvalidValueError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PortTakenError",
    "PynetworkError",
    "RequestError",
    "StoreError",
    "StoreUnavailableError",
    "UnavailableError",
    "UnknownDriverError",
]


class PynetworkError(Exception):
    """Root of all errors of this library."""


class RequestError(PynetworkError):
    """The request cannot be honoured as it stands. Nothing was touched; change the request."""


class InvalidValueError(RequestError, ValueError):
    """An argument is malformed or out of range. Correct the value and call again."""


class UnknownDriverError(RequestError):
    """No driver of that name is built in, passed to the controller, or installed as an entry point."""


class NotFoundError(RequestError, LookupError):
    """The named object does not exist, or was deleted since the handle was obtained."""


class ConflictError(RequestError):
    """The request contradicts what exists: a name or subnet in use, an endpoint already joined."""


class PortTakenError(ConflictError):
    """
    A host port is in use. Ask for another, or for any.

    Attributes:
        proto: ``tcp``, ``udp`` or ``sctp``.
        port: The first of those asked for that is taken.
    """

    def __init__(self, message: str, *, proto: str, port: int) -> None:
        super().__init__(message)
        self.proto = proto
        self.port = port


class ExhaustedError(PynetworkError):
    """Nothing of what was asked for is free: no pool, no address, no port, no VNI."""


class UnavailableError(PynetworkError):
    """The host lacks something the request needs. The message says what to install, load or grant."""


class StoreError(PynetworkError):
    """The recorded state cannot be read or written: disk full, file corrupt, schema too new ..."""


class StoreUnavailableError(StoreError):
    """No member of the cluster store answers, or they have no leader. Nothing was written; try again."""


class OutcomeUnknownError(StoreError):
    """
    The cluster store stopped answering in the middle of a write, and could not be asked about it.

    The write is there as a whole or not at all. Read what it was about before you try again.
    """


class ApplyError(PynetworkError):
    """
    A step failed on the host.

    Attributes:
        step: The step that failed, as a line a user could type (``ip link add ...``).
        origin: ``file:line`` of the driver code that asked for the resource, or ``""``.
        rolled_back: True when the host is as it was before the request.
        leftovers: What could not be undone, one line each; empty when *rolled_back*.

    The cause is chained as ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        origin: str = "",
        rolled_back: bool = True,
        leftovers: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.step = step
        self.origin = origin
        self.rolled_back = rolled_back
        self.leftovers = tuple(leftovers)


class HistoryLostError(StoreError):
    """
    What happened after a revision is no longer known, because too much has happened since.

    Look at what there is now, and follow from there.

    Attributes:
        since: The revision.
    """

    def __init__(self, message: str, *, since: int) -> None:
        super().__init__(message)
        self.since = since
