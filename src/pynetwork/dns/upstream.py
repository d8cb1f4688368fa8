"""One question to another server, on a socket of its own: a port that nobody can guess (RFC 5452)."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, ClassVar, Final

from pynetwork.dns.loop import READ, WRITE
from pynetwork.dns.zone import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.dns.loop import Loop

__all__ = ["TcpAttempt", "UdpAttempt"]

_LARGEST: Final = 65535
_NOBODY: Final = Server("")


class UdpAttempt:
    """
    A question over UDP. The socket is connected, so the kernel drops what comes from elsewhere.

    Args:
        loop: The server's.
        opened: A socket; it is closed with this, or when this fails.
        address: Of the server.
        sent: The question.

    Raises:
        OSError: It cannot be sent.
    """

    kind: ClassVar[int] = socket.SOCK_DGRAM

    def __init__(self, loop: Loop, opened: socket.socket, address: tuple[str, int], sent: bytes) -> None:
        self.server = _NOBODY
        self.sent = sent
        self._loop = loop
        self._socket = opened
        try:
            opened.connect(address)
            opened.send(sent)
        except OSError:
            opened.close()
            raise

    def start(self, came: Callable[[bytes | None], None]) -> None:
        """Call *came* with each message that comes, with None when there is nobody to answer."""
        self._came = came
        self._loop.add(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()

    def _readable(self, _happened: int) -> None:
        try:
            message = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there (ECONNREFUSED), or the way there is gone
            self._came(None)
            return
        self._came(message)


class TcpAttempt:
    """
    The same over TCP, for an answer that is too long (RFC 7766).

    Args:
        loop: The server's.
        opened: A socket; it is closed with this, or when this fails.
        address: Of the server.
        sent: The question.

    Raises:
        OSError: There is no way to the server.
    """

    kind: ClassVar[int] = socket.SOCK_STREAM

    def __init__(self, loop: Loop, opened: socket.socket, address: tuple[str, int], sent: bytes) -> None:
        self.server = _NOBODY
        self.sent = sent
        self._loop = loop
        self._socket = opened
        self._out = len(sent).to_bytes(2, "big") + sent
        self._in = bytearray()
        error = opened.connect_ex(address)
        if error not in {0, errno.EINPROGRESS}:
            opened.close()
            raise OSError(error, "cannot connect")

    def start(self, came: Callable[[bytes | None], None]) -> None:
        """Call *came* with the answer, or with None when there will be none."""
        self._came = came
        self._loop.add(self._socket.fileno(), self._happened, WRITE)

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()

    def _happened(self, _happened: int) -> None:
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out) :]
                if not self._out:
                    self._loop.change(self._socket.fileno(), READ)
                return
            part = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._in += part
        size = 2 + int.from_bytes(self._in[:2], "big")
        if len(self._in) >= max(size, 3):
            self._came(bytes(self._in[2:size]))
        elif not part:
            self._came(None)
