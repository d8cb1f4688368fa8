"""Netlink: packing messages, sending a batch in one call, matching errors, reading dumps.

Requests are carried out inside ``send``; ``recv`` only fetches what they said. So sockets block, a
container is configured in two sends, and there is nothing to gain from an event loop.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = ["Message", "NetlinkError", "NetlinkSocket", "attribute", "attributes", "nested", "text"]

# linux/netlink.h
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP_INTR: Final = 0x010
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSGERR_ATTR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")
_RECEIVE: Final = 1 << 17
_MAX_UNREAD: Final = 128  # acks; some thousands would overflow the receive buffer (ENOBUFS)
_DUMP_TRIES: Final = 20


class Message(NamedTuple):
    """A request: type, flags beyond REQUEST and ACK, and the payload after the header."""

    kind: int
    flags: int
    payload: bytes


class NetlinkError(OSError):
    """A request that the kernel refused; ``strerror`` is its own explanation where it gave one."""


def attribute(kind: int, payload: bytes) -> bytes:
    """Return a netlink attribute, padded to four bytes."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(payload: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes in *payload* from *offset* on, by type."""
    found = {}
    end = len(payload)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = payload[offset + 4 : offset + length]
        offset += length + (-length % 4)
    return found


class NetlinkSocket:
    """
    A blocking netlink socket, in the network namespace of the thread that makes it.

    It may be used from any thread; each batch and each dump has it alone.

    Args:
        protocol: ``socket.NETLINK_ROUTE`` or another family of netlink.
        send_buffer: Bytes that may be sent at once; 0 for the system's default.
    """

    def __init__(self, protocol: int = 0, *, send_buffer: int = 0) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            if send_buffer:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, send_buffer)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Idempotent."""
        self._socket.close()

    def batch(self, messages: Sequence[Message]) -> Mapping[int, NetlinkError]:
        """
        Send *messages* at once and wait until the kernel has dealt with all of them.

        The kernel goes on after an error, so what follows a failed message may well have taken effect.

        Returns:
            The errors, by index in *messages*; empty when all went well.
        """
        errors: dict[int, NetlinkError] = {}
        with self._lock:
            for start in range(0, len(messages), _MAX_UNREAD):
                self._send_some(messages[start : start + _MAX_UNREAD], start, errors)
        return errors

    def transaction(
        self, begin: Message, messages: Sequence[Message], end: Message
    ) -> Mapping[int, NetlinkError]:
        """
        Send *messages* between *begin* and *end*, which make a netfilter transaction of them.

        Returns:
            The errors, by index in *messages*; -1 stands for the transaction as a whole.
        """
        errors: dict[int, NetlinkError] = {}
        with self._lock:
            self._send_some((begin, *messages, end), -1, errors, asking=len(messages))
        return errors

    def request(self, message: Message) -> None:
        """Send one message; raise NetlinkError when it is refused."""
        for error in self.batch((message,)).values():
            raise error

    def ask(self, message: Message) -> bytes:
        """Return the payload of the one answer to a question; raise NetlinkError when there is none."""
        with self._lock:
            self._send(message, 0)
            while True:
                for kind, flags, sequence, payload in _split(self._socket.recv(_RECEIVE)):
                    if sequence != self._sequence:
                        continue
                    if kind == NLMSG_ERROR:
                        raise _error(-_ERROR.unpack_from(payload)[0], flags, payload)
                    return payload

    def dump(self, message: Message) -> list[bytes]:
        """
        Return the payloads of the answers to a dump request.

        A dump that the kernel marks as interrupted, because its objects changed meanwhile, is made
        again.
        """
        with self._lock:
            for _ in range(_DUMP_TRIES):
                payloads = self._dump_once(message)
                if payloads is not None:
                    return payloads
        raise NetlinkError(errno.EINTR, "the dump was interrupted by changes again and again")

    def _send_some(
        self,
        messages: Sequence[Message],
        start: int,
        errors: dict[int, NetlinkError],
        asking: int | None = None,
    ) -> None:
        """Send *messages*; the one at *asking*, or the last, is to be acknowledged."""
        first = self._sequence + 1
        self._sequence += len(messages)
        last = len(messages) - 1 if asking is None else asking
        parts = []
        for number, (kind, flags, payload) in enumerate(messages):
            # Errors are always reported; only the last message needs to say that it went well.
            all_flags = flags | NLM_F_REQUEST | (NLM_F_ACK if number == last else 0)
            length = 16 + len(payload)
            parts.append(_HEADER.pack(length, kind, all_flags, first + number, 0) + payload)
            parts.append(b"\0" * (-length % 4))
        self._socket.send(b"".join(parts))
        waiting = True
        while waiting:
            for kind, flags, sequence, payload in _split(self._socket.recv(_RECEIVE)):
                number = sequence - first
                if kind != NLMSG_ERROR or not 0 <= number <= last:
                    continue  # left from a batch that was interrupted
                (code,) = _ERROR.unpack_from(payload)
                if code:
                    errors[start + number] = _error(-code, flags, payload)
                # A transaction whose beginning is refused is not even looked at.
                waiting = waiting and number != last and (asking is None or number > 0)

    def _send(self, message: Message, flags: int) -> None:
        self._sequence += 1
        length = 16 + len(message.payload)
        flags |= message.flags | NLM_F_REQUEST
        self._socket.send(_HEADER.pack(length, message.kind, flags, self._sequence, 0) + message.payload)

    def _dump_once(self, message: Message) -> list[bytes] | None:
        self._send(message, NLM_F_DUMP)
        payloads: list[bytes] = []
        interrupted = False
        while True:
            for kind, answer_flags, answer_sequence, payload in _split(self._socket.recv(_RECEIVE)):
                if answer_sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(answer_flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    return None if interrupted else payloads
                if kind == NLMSG_ERROR:
                    raise _error(-_ERROR.unpack_from(payload)[0], answer_flags, payload)
                payloads.append(payload)


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and payload of each message in *data*."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += length + (-length % 4)


def _error(code: int, flags: int, payload: bytes) -> NetlinkError:
    """Return the error of an answer, with the kernel's own words (extended ack) where there are any."""
    words = ""
    if flags & _NLM_F_ACK_TLVS:
        # The failed request's header follows the code; its payload, too, unless capped.
        offset = 4 + 16
        if not flags & _NLM_F_CAPPED:
            (length,) = struct.unpack_from("=I", payload, 4)
            offset = 4 + length + (-length % 4)
        said = attributes(payload, offset).get(_NLMSGERR_ATTR_MSG)
        words = "" if said is None else said.rstrip(b"\0").decode(errors="replace")
    reason = os.strerror(code)
    return NetlinkError(code, f"{reason}: {words}" if words else reason)
