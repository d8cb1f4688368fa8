"""Askers that come with TCP: several questions on a connection, answered as they are known (RFC 7766)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from pynetwork.dns.loop import READ, WRITE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pynetwork.dns.loop import Loop

__all__ = ["IDLE_SECONDS", "Connection"]

#: So long a connection may be silent.
IDLE_SECONDS: Final = 10.0
_READ_BYTES: Final = 16384
_OUT_MAX: Final = 1 << 18  # of answers that are not fetched
_FRAMES_MAX: Final = 64  # questions that are taken at once, before others have their turn


class Connection:
    """
    An asker's connection.

    Args:
        loop: The server's.
        accepted: Its socket, which this closes.
        ask: Called with each question and this.
        gone: Called with this when it is closed.
    """

    limit: Final = 65535

    def __init__(
        self,
        loop: Loop,
        accepted: socket.socket,
        ask: Callable[[bytes, Connection], None],
        gone: Callable[[Connection], None],
    ) -> None:
        self.heard = time.monotonic()
        self._loop = loop
        self._socket = accepted
        self._ask = ask
        self._gone = gone
        self._in = bytearray()
        self._out = b""
        self._is_behind = False
        loop.add(accepted.fileno(), self._happened)

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed yet."""
        return self._socket.fileno() >= 0

    def send(self, reply: bytes) -> None:
        """Send an answer, now or when the asker takes it."""
        if not self.is_open:
            return
        was_idle = not self._out
        self._out += len(reply).to_bytes(2, "big") + reply
        if len(self._out) > _OUT_MAX:
            self.close()
        elif was_idle:
            self._flush()
            if self.is_open and self._out:
                self._loop.change(self._socket.fileno(), WRITE)  # and hear no more until it listens

    def close(self) -> None:
        """End it. Idempotent."""
        if self.is_open:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            self._gone(self)

    def _happened(self, happened: int) -> None:
        if happened & WRITE:
            self._flush()
            if self.is_open and not self._out:
                self._loop.change(self._socket.fileno(), READ)
                self._take()
            return
        if self._is_behind:
            return  # what was read already comes first
        try:
            part = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.close()
            return
        self.heard = time.monotonic()
        self._in += part
        self._take()

    def _take(self) -> None:
        """Take the questions that are complete; the rest when it is this connection's turn again."""
        self._is_behind = False
        for _ in range(_FRAMES_MAX):
            size = 2 + int.from_bytes(self._in[:2], "big")
            if not self.is_open or self._out or len(self._in) < max(size, 3):
                return
            question = bytes(self._in[2:size])
            del self._in[:size]
            self._ask(question, self)
        self._is_behind = True
        self._loop.later(0.0, self._take)

    def _flush(self) -> None:
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
