"""Where the processes of an instance find its name server: a Unix socket beside the namespaces.

One process serves at a time, the others hold a connection to it: when it dies, the kernel tells them at once,
and the first to notice takes over. A server that goes in peace, or is asked to, hands its sockets over open,
with the questions that nobody has read yet.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Place", "is_ours", "receive", "send"]

_BYTES_MAX: Final = 1 << 14
_DESCRIPTORS_MAX: Final = 8
_BACKLOG: Final = 64
_UCRED: Final = struct.Struct("=iII")  # struct ucred of unix(7)


class Place:
    """
    The socket of an instance's name server.

    Args:
        directory: Where it is; made with mode 0700, removed when it is empty.
        instance: The instance's id.
    """

    def __init__(self, directory: Path, instance: str) -> None:
        self._directory = directory
        self._name = f"{instance[:12]}.sock"

    def connect(self, seconds: float | None = None) -> socket.socket | None:
        """Return a connection to the server, None when there is none; it waits *seconds* at most."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(seconds)
            with self._opened() as descriptor:
                made.connect(self._path(descriptor))
        except OSError:
            made.close()
            return None
        return made

    def listen(self) -> socket.socket | None:
        """Become the server; None when another process is it already."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._opened() as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            there = self.connect(0.0)
            if there is not None:
                there.close()
                return None
            with suppress(FileNotFoundError):  # of one that was killed
                os.unlink(self._name, dir_fd=descriptor)
            made = socket.socket(
                socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            try:
                made.bind(self._path(descriptor))
                made.listen(_BACKLOG)
            except BaseException:
                made.close()
                raise
            return made

    def leave(self) -> None:
        """Remove the socket's file, as the server, and the directory if nothing else is in it."""
        with suppress(OSError):
            (self._directory / self._name).unlink()
        with suppress(OSError):
            self._directory.rmdir()

    def dismiss(self, seconds: float = 2.0) -> None:
        """Have the server end, wherever it is, and wait until it has; not longer than *seconds*."""
        deadline = time.monotonic() + seconds
        while self.ask({"op": "quit"}, seconds) is not None and time.monotonic() < deadline:
            time.sleep(0.002)

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return what the server answers to a message; None when there is none, or not within *seconds*."""
        connection = self.connect(seconds)
        if connection is None:
            return None
        with connection, suppress(OSError):
            send(connection, question)
            found = receive(connection)
            return None if found is None else found[0]
        return None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _path(self, descriptor: int) -> str:
        return f"/proc/self/fd/{descriptor}/{self._name}"  # a socket's path has 107 bytes at most


def send(connection: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message, and descriptors with it."""
    passed = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if descriptors else []
    connection.sendmsg([json.dumps(message).encode()], ancillary)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """
    Return a message and the descriptors that came with it; None at the end.

    Raises:
        OSError: Nothing has come, or it is no message of ours.
    """
    size = array.array("i").itemsize
    room = socket.CMSG_SPACE(_DESCRIPTORS_MAX * size)
    body, ancillary, _, _ = connection.recvmsg(_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    passed = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            passed.frombytes(content[: len(content) - len(content) % size])
    if not body:
        return None
    try:
        message = json.loads(body)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        for descriptor in passed:
            os.close(descriptor)
        msg = "no message of a name server's"
        raise OSError(msg)
    return message, list(passed)


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end is root's or of the same user."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return _UCRED.unpack(packed)[1] in {0, os.geteuid()}
