"""OpenFlow with one bridge, over its own socket: changes of flows all at once, and what flows there are.

The socket ``BRIDGE.mgmt`` needs no controller in the database, and none may be there: the first controller
to come and the last to go take all flows with them (ofproto/connmgr.c).
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.kernel.ovs import messages
from pynetwork.kernel.ovs.messages import HEADER, VERSION, BundleControl, Kind, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pynetwork.kernel.ovs.place import Place

__all__ = ["Channel", "FlowRefusedError"]

_T = TypeVar("_T")
_SECONDS: Final = 30.0
_SILENCE_MILLISECONDS: Final = 500  # until it is looked whether the switch can answer at all
_SEND_BYTES: Final = 1 << 18
_READ_BYTES: Final = 1 << 18
_BUNDLE: Final = 1  # there is one at a time
_BASE: Final = 16  # transaction ids of changes begin here; below are those of all else


class FlowRefusedError(PynetworkError):
    """
    The switch refused a bundle as a whole.

    Attributes:
        number: Position of the change that it is about; None when it is about all of them.
    """

    def __init__(self, reason: str, number: int | None) -> None:
        super().__init__(f"Open vSwitch refuses the flow: {reason}")
        self.number = number


class _LostError(Exception):
    """The connection broke."""


class Channel:
    """
    A connection to one bridge, made when it is first needed and again when it broke. For any thread.

    Args:
        place: The Open vSwitch.
        bridge: Name of the bridge.

    Attributes:
        connections: How many there have been: each may be to a switch that was started anew.
    """

    def __init__(self, place: Place, bridge: str) -> None:
        self.connections = 0
        self._place = place
        self._bridge = bridge
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._unread = b""

    def change(self, changes: Sequence[bytes]) -> None:
        """
        Make all of *changes*, in order, or none.

        Args:
            changes: From :func:`~.messages.add_flow`, :func:`~.messages.delete_flow` and
                :func:`~.messages.delete_all`.

        Raises:
            FlowRefusedError: One was refused; nothing has changed.
            UnavailableError: The bridge does not answer.
        """
        if changes:
            self._call(lambda: self._change(changes))

    def flows(self, owner: int, match: str = "", table: int | None = None) -> list[Seen]:
        """
        Return the flows of an owner, in no order.

        Args:
            owner: First 16 bits of their cookies.
            match: What they all match, and more or not.
            table: Their table; None for all.

        Raises:
            UnavailableError: The bridge does not answer.
        """
        request = messages.flows_request(owner, match, table)
        return self._call(lambda: self._listed(request, messages.parse_flows))

    def contents(self, owner: int, match: str = "") -> dict[Seen, bytes]:
        """
        Return the flows of an owner, each with its priority, match and instructions as they are.

        Of several under one cookie these are put together: they are nothing that was stated.

        Args:
            owner: First 16 bits of their cookies.
            match: What they all match, and more or not.

        Raises:
            UnavailableError: The bridge does not answer.
        """
        found: dict[Seen, bytes] = {}
        request = messages.flows_request(owner, match)
        for seen, what in self._call(lambda: self._listed(request, messages.parse_contents)):
            found[seen] = found[seen] + what if seen in found else what
        return found

    def check(self) -> None:
        """
        Wait until all that was sent before is done.

        Raises:
            UnavailableError: The bridge does not answer.
        """
        self._call(self._barrier)

    def wait_for_end(self, wake: int, seconds: float | None = None) -> bool:
        """
        Wait until the connection breaks, because the switch ends, and return True.

        Return False when *wake* is readable first, or *seconds* have passed. The connection should be one of
        its own.

        Raises:
            UnavailableError: The bridge does not answer.
        """
        with self._lock:
            opened = self._connected()
            deadline = None if seconds is None else time.monotonic() + seconds
            try:
                while opened.fileno() in _ready_first(opened.fileno(), wake, deadline):
                    self._receive()
            except _LostError:
                self._disconnect()
                return True
            return False

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._lock:
            self._disconnect()

    # The connection

    def _call(self, function: Callable[[], _T]) -> _T:
        with self._lock:
            is_new = self._socket is None
            try:
                self._connected()
                return function()
            except _LostError:
                self._disconnect()
                if is_new:
                    raise self._unavailable() from None
            # It was an old one, of a switch that has been started anew since, perhaps.
            try:
                self._connected()
                return function()
            except _LostError:
                self._disconnect()
                raise self._unavailable() from None

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(
            f"bridge {self._bridge} does not answer at {self._place.management(self._bridge)}: "
            "it is gone, or ovs-vswitchd does not run (systemctl start openvswitch-switch)"
        )

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            opened.settimeout(_SECONDS)
            try:
                opened.connect(str(self._place.management(self._bridge)))
            except OSError as error:
                raise self._unavailable() from error
            self._socket = opened
            self.connections += 1
            self._greet()
        except BaseException:
            self._socket = None
            opened.close()
            raise
        return opened

    def _greet(self) -> None:
        self._unread = b""
        self._send(messages.message(Kind.HELLO, 0))
        kind, _, body = self._next_message()
        if kind != Kind.HELLO or self._version < VERSION:
            raise self._too_old(kind, body)
        self._barrier()

    def _too_old(self, kind: int, body: bytes) -> UnavailableError:
        reason = messages.explain(body) if kind == Kind.ERROR else f"version {self._version:#x}"
        return UnavailableError(
            f"bridge {self._bridge} does not speak OpenFlow 1.4 ({reason}): "
            f"ovs-vsctl set bridge {self._bridge} protocols=OpenFlow13,OpenFlow14,OpenFlow15"
        )

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # What is said

    def _change(self, changes: Sequence[bytes]) -> None:
        self._say(BundleControl.OPEN)
        try:
            for part in _parts(changes):
                self._send(part)
                self._look_for_refusal()
            # What is refused now is left out of the bundle, which could be committed without it.
            self._barrier()
            self._say(BundleControl.COMMIT)
            self._expect(Kind.BUNDLE_CONTROL)
        except FlowRefusedError:
            # More errors may be on their way, and the bundle may be gone by itself or not.
            self._say(BundleControl.DISCARD)
            self._send(messages.message(Kind.BARRIER_REQUEST, 2))
            while self._next_message()[0] != Kind.BARRIER_REPLY:
                pass
            raise

    def _say(self, what: BundleControl) -> None:
        self._send(messages.message(Kind.BUNDLE_CONTROL, 1, messages.bundle_control(_BUNDLE, what)))

    def _barrier(self) -> None:
        self._send(messages.message(Kind.BARRIER_REQUEST, 2))
        self._expect(Kind.BARRIER_REPLY)

    def _listed(self, request: bytes, parse: Callable[[bytes], tuple[list[_T], bool]]) -> list[_T]:
        self._send(messages.message(Kind.MULTIPART_REQUEST, 3, request))
        found: list[_T] = []
        goes_on = True
        while goes_on:
            flows, goes_on = parse(self._expect(Kind.MULTIPART_REPLY))
            found += flows
        return found

    def _expect(self, kind: Kind) -> bytes:
        """Return the body of the next message of *kind*; an error before it is raised."""
        while True:
            found, number, body = self._next_message()
            if found == kind:
                return body
            if found == Kind.ERROR:
                raise _refusal(number, body)

    def _look_for_refusal(self) -> None:
        """Raise the error that has come meanwhile, if any."""
        while self._socket is not None and _readable(self._socket.fileno(), milliseconds=0):
            self._receive()
        while message := self._parsed():
            kind, number, body = message
            if kind == Kind.ERROR:
                raise _refusal(number, body)

    # Bytes

    def _send(self, data: bytes) -> None:
        try:
            if self._socket is not None:
                self._socket.sendall(data)
        except OSError as error:
            raise _LostError from error

    def _next_message(self) -> tuple[int, int, bytes]:
        while True:
            message = self._parsed()
            if message is not None:
                return message
            self._receive()

    def _parsed(self) -> tuple[int, int, bytes] | None:
        """Return kind, transaction id and body of the first message among what was read; answer echoes."""
        while len(self._unread) >= HEADER.size:
            self._version, kind, length, number = HEADER.unpack_from(self._unread)
            if len(self._unread) < length:
                return None
            body, self._unread = self._unread[HEADER.size : length], self._unread[length:]
            if kind != Kind.ECHO_REQUEST:
                return kind, number, body
            self._send(messages.message(Kind.ECHO_REPLY, number, body))
        return None

    def _receive(self) -> None:
        opened, deadline = self._socket, time.monotonic() + _SECONDS
        while opened is not None and not _readable(opened.fileno(), milliseconds=_SILENCE_MILLISECONDS):
            if time.monotonic() > deadline or not self._place.has_database():
                raise _LostError
        try:
            data = b"" if opened is None else opened.recv(_READ_BYTES)
        except OSError as error:  # also when it takes too long
            raise _LostError from error
        if not data:
            raise _LostError
        self._unread += data


def _refusal(number: int, body: bytes) -> FlowRefusedError:
    return FlowRefusedError(messages.explain(body), number - _BASE if number >= _BASE else None)


def _parts(changes: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *changes* as messages, many in one piece."""
    part: list[bytes] = []
    size = 0
    for number, change in enumerate(changes, _BASE):
        message = messages.bundle_add(_BUNDLE, number, change)
        part.append(message)
        size += len(message)
        if size >= _SEND_BYTES:
            yield b"".join(part)
            part, size = [], 0
    yield b"".join(part)


def _ready_first(descriptor: int, wake: int, deadline: float | None) -> set[int]:
    """Wait until one of both is readable, or it is too late; return *descriptor* alone, or nothing."""
    left = None if deadline is None else max(0, round(1000 * (deadline - time.monotonic())))
    ready = _readable(descriptor, wake, milliseconds=left)
    return set() if wake in ready else ready


def _readable(*descriptors: int, milliseconds: int | None = None) -> set[int]:
    """Wait until one of *descriptors* is readable, or closed at the other end; return those that are."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(milliseconds)}
