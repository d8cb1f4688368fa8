"""HTTP to the members of an etcd cluster: connections that stay open, and answers that never end.

The client is the standard library's. It is used by several threads, each with a connection of its
own while it waits; one that answered goes back to the shelf. Streams (watches) are read by hand, from
an HTTP/1.0 answer: it has no framing, so a read may time out anywhere and go on later.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final

from pynetwork.store._forking import follow_forks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.store.etcd_endpoints import Endpoint

__all__ = ["BrokenError", "Connections", "Stream", "lines_of"]

_IDLE_PER_MEMBER: Final = 8
_LONGEST_HEAD: Final = 65536
_CHUNK: Final = 1 << 16
# Bytes of a request that goes on. While it is at it Go's server answers one of HTTP/1.0, whose connection is
# not kept; one of HTTP/1.1 it reads to the end before (net/http, server.go).
_ENDLESS: Final = 1 << 30
_MOST_DIAL_SECONDS: Final = 0.5  # Linux asks again after a second at the earliest (RFC 6298)


class BrokenError(Exception):
    """
    A member did not answer: it refused, hung up, or was silent for too long.

    Attributes:
        sent: Whether the request may have arrived.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Connections:
    """
    Connections to members, by endpoint.

    Args:
        context: Of those that are encrypted.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._idle: dict[Endpoint, list[http.client.HTTPConnection]] = {}
        self._is_closed = False
        follow_forks(self)

    def request(
        self, endpoint: Endpoint, path: str, payload: bytes, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """
        Post *payload* and return the status and the body of the answer.

        Args:
            endpoint: Of the member.
            path: What to call.
            payload: JSON.
            headers: Beside those that HTTP itself needs.
            timeout: Seconds to wait for the connection, and for each part of the answer.

        Raises:
            BrokenError: There is no answer.
        """
        connection = self._take(endpoint) or self._connect(endpoint, timeout)
        try:
            connection.sock.settimeout(timeout)
            connection.request("POST", path, payload, dict(headers))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.drop(endpoint)  # the others are as old, and go the same way
            raise BrokenError(_explain(error, timeout), sent=True) from error
        except BaseException:
            connection.close()  # in the middle of an answer: of no more use
            raise
        if response.will_close:
            connection.close()
        else:
            self._put_back(endpoint, connection)
        return response.status, body

    def stream(
        self, endpoint: Endpoint, path: str, payload: bytes, headers: Mapping[str, str], timeout: float
    ) -> Stream:
        """Post *payload* and return the answer. Both go on as long as both sides like. Close it."""
        connection = self._connect(endpoint, timeout)
        fields = {**headers, "Host": str(endpoint).partition("://")[2], "Content-Length": str(_ENDLESS)}
        lines = [f"POST {path} HTTP/1.0", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        try:
            connection.sock.sendall("\r\n".join(lines).encode("latin-1") + payload)
            return Stream(connection.sock, timeout)
        except OSError as error:
            connection.close()
            raise BrokenError(_explain(error, timeout), sent=True) from error
        except BaseException:
            connection.close()
            raise

    def drop(self, endpoint: Endpoint) -> None:
        """Close what is open to a member and not in use."""
        with self._lock:
            idle = self._idle.pop(endpoint, [])
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close everything that is not in use, and what is as soon as it is not."""
        with self._lock:
            self._is_closed = True
            endpoints = list(self._idle)
        for endpoint in endpoints:
            self.drop(endpoint)

    def suspend(self) -> None:
        """Before a fork."""
        self._lock.acquire()

    def resume(self) -> None:
        """After it, in the parent."""
        self._lock.release()

    def start_anew(self) -> None:
        """After it, in the child: the sockets are the parent's, which is not told that we close ours."""
        idle, self._idle = self._idle, {}
        self._lock.release()
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _take(self, endpoint: Endpoint) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                idle = self._idle.get(endpoint)
                connection = idle.pop() if idle else None
            if connection is None or not _was_hung_up(connection.sock):
                return connection
            connection.close()

    def _put_back(self, endpoint: Endpoint, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault(endpoint, [])
            if not self._is_closed and len(idle) < _IDLE_PER_MEMBER:
                idle.append(connection)
                return
        connection.close()

    def _connect(self, endpoint: Endpoint, timeout: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
        try:
            connection.sock = self._dial(endpoint, timeout)
        except (OSError, ValueError) as error:  # ValueError: a host name that DNS could not have
            raise BrokenError(_explain(error, timeout), sent=False) from error
        return connection

    def _dial(self, endpoint: Endpoint, timeout: float) -> socket.socket:
        """Connect, by TCP in a short time: who has been cut off is to find out soon that he is no more."""
        sock = socket.create_connection((endpoint.host, endpoint.port), min(timeout, _MOST_DIAL_SECONDS))
        try:
            sock.settimeout(timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.scheme == "https":
                context = self._context or ssl.create_default_context()
                return context.wrap_socket(sock, server_hostname=endpoint.host)
        except BaseException:
            sock.close()
            raise
        return sock


class Stream:
    """
    A request and an answer that are a line of JSON now and then. All but :meth:`wake` is for one thread.

    Args:
        sock: Connected, the request sent. It is closed with the stream.
        timeout: Seconds to wait for the head of the answer.

    Raises:
        OSError: There is no head.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._read_head(timeout)
        except BaseException:
            os.close(self._wake_descriptor)
            raise

    def _read_head(self, timeout: float) -> None:
        sock = self._socket
        sock.settimeout(timeout)
        while b"\r\n\r\n" not in self._buffer:
            chunk = sock.recv(_CHUNK)
            if not chunk or len(self._buffer) > _LONGEST_HEAD:
                msg = "it hung up"
                raise ConnectionResetError(msg)
            self._buffer += chunk
        if not re.match(rb"HTTP/1\.\d \d{3}\b", self._take(b"\r\n\r\n", 0) or b""):
            msg = "what answers there does not speak HTTP"
            raise ConnectionError(msg)

    def read(self, timeout: float) -> dict[str, Any] | None:
        """
        Return the next line, or None when there was none for *timeout* seconds, or :meth:`wake` was called.

        Raises:
            BrokenError: The answer has ended.
        """
        searched = 0
        try:
            while (line := self._take(b"\n", searched)) is None:
                searched = len(self._buffer)
                if not self._wait(timeout):
                    return None
                self._socket.settimeout(timeout)
                chunk = self._socket.recv(_CHUNK)
                if not chunk:
                    line = self._rest()
                    break
                self._buffer += chunk
        except TimeoutError:
            return None
        except OSError as error:
            raise BrokenError(_explain(error, timeout), sent=True) from error
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError as error:
            msg = f"it does not speak like etcd 3.4 or later: {line[:200]!r}"
            raise BrokenError(msg, sent=True) from error
        return message

    def write(self, messages: Iterable[object], timeout: float) -> None:
        """
        Send lines, within *timeout* seconds.

        Raises:
            BrokenError: The other side takes no more.
        """
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(lines_of(messages))
        except OSError as error:
            raise BrokenError(_explain(error, timeout), sent=True) from error

    def wake(self) -> None:
        """Have the thread that reads it look up; from any thread, before it is closed."""
        os.eventfd_write(self._wake_descriptor, 1)

    def close(self) -> None:
        """End it: the member notices, and forgets the request."""
        self._socket.close()
        os.close(self._wake_descriptor)

    def _wait(self, timeout: float) -> bool:
        """Wait until there is something to read; return whether there is, and nobody woke the reader."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True  # what was decrypted already the kernel knows nothing of
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_descriptor, select.POLLIN)
        ready = dict(poll.poll(timeout * 1000))
        if self._wake_descriptor in ready:
            os.eventfd_read(self._wake_descriptor)
            return False
        return bool(ready)

    def _take(self, end: bytes, searched: int) -> bytes | None:
        """Take what is before *end* out of the buffer, whose first *searched* bytes do not have it."""
        position = self._buffer.find(end, max(0, searched - len(end)))
        if position < 0:
            return None
        taken = bytes(self._buffer[:position])
        del self._buffer[: position + len(end)]
        return taken

    def _rest(self) -> bytes:
        """Return what there is of a last line: errors have no end of line."""
        if not self._buffer:
            msg = "it hung up"
            raise BrokenError(msg, sent=True)
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def lines_of(messages: Iterable[object]) -> bytes:
    """Return what a stream of requests says: a line of JSON for each."""
    return "".join(f"{json.dumps(each, separators=(',', ':'))}\n" for each in messages).encode()


def _was_hung_up(sock: socket.socket) -> bool:
    """Whether an idle connection was closed by the other side; there is nothing else it could say."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _explain(error: Exception, timeout: float) -> str:
    """Return what went wrong in words."""
    if isinstance(error, TimeoutError) and not error.errno:
        return f"no answer within {timeout:.3g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message or error.reason}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up"
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return f"what answers there does not speak HTTP: {error!r}"
