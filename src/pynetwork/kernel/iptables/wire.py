"""Messages between a process and its worker: JSON, its length before it, on a pipe."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any, Final, TypeAlias

__all__ = ["Message", "receive", "send"]

Message: TypeAlias = dict[str, Any]

_LENGTH: Final = struct.Struct("!I")


def send(descriptor: int, message: Message) -> None:
    """Write *message*."""
    body = json.dumps(message).encode()
    left = memoryview(_LENGTH.pack(len(body)) + body)
    while left:
        left = left[os.write(descriptor, left) :]


def receive(descriptor: int, seconds: float | None = None) -> Message | None:
    """
    Read a message; return None when the other end is closed, or says what is none.

    Args:
        descriptor: Where.
        seconds: To wait for it, or for ever.

    Raises:
        TimeoutError: It did not come in time.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    header = _read(descriptor, _LENGTH.size, deadline)
    body = header and _read(descriptor, _LENGTH.unpack(header)[0], deadline)
    if body is None:
        return None
    try:
        message = json.loads(body)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _read(descriptor: int, size: int, deadline: float | None) -> bytes | None:
    found = b""
    while len(found) < size:
        if deadline is not None:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
        chunk = os.read(descriptor, min(size - len(found), 1 << 16))
        if not chunk:
            return None
        found += chunk
    return found
