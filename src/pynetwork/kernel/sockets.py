"""Host ports and the sockets of other programs: who has one already, and keeping one from the rest.

A rule takes a port from whoever listens there, unnoticed. So a port is published only if nobody does,
and for as long as this process lives a socket of ours keeps it: one that answers nobody, and that other
processes of pynetwork know by its mark. When the process ends the rule stays, and so does the claim
that keeps the port from other instances; a program that takes the port then gets no packets.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pynetwork.errors import InvalidValueError, PortTakenError
from pynetwork.kernel.elements import PROTOCOLS
from pynetwork.kernel.netlink import Message, NetlinkSocket, attributes
from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.resources import PublishedPort
    from pynetwork.resources.base import Key

__all__ = ["PortSockets"]

_MARK: Final = 0x70000000  # of all instances; 28 bits of the instance's id follow
_MARK_MASK: Final = 0xF0000000
_MOST: Final = 64  # ports of one request that sockets are kept for
_SO_MARK: Final = 36
_SO_ATTACH_FILTER: Final = 26
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST: Final = struct.Struct("=BBBxI48x")
_ANSWER: Final = struct.Struct("=4BHH16s16sI8sIIIII")
_ATTRIBUTES_AT: Final = 72  # sizeof(struct inet_diag_msg)
_DIAG_MARK: Final = 15
_LISTEN: Final = 1 << 10
_ANY_STATE: Final = 0xFFFFFFFF
# struct sock_fprog of one instruction: return 0, keep nothing of any packet.
_DROP_ALL: Final = struct.pack("=HBBI", 0x06, 0, 0, 0)


class _Holder(NamedTuple):
    """A socket of somebody: its port, its inode, and its mark."""

    port: int
    inode: int
    mark: int


class PortSockets:
    """
    Keeps ports of the host.

    Args:
        instance: Hexadecimal id of the owner: the socket of another of its processes is no obstacle,
            that of another instance is.
        home: Calls a function in the host's network namespace.
    """

    def __init__(self, instance: str, home: Callable[[Callable[[], object]], object]) -> None:
        self._home = home
        self._mark = _MARK | int(instance[:7], 16)
        self._lock = threading.Lock()
        self._kept: dict[Key, list[socket.socket]] = {}
        self._count = 0
        self._is_full = False

    def reserve(self, port: PublishedPort) -> None:
        """
        Keep the host's ports of *port*, unless they are kept already by a process of ours.

        Raises:
            PortTakenError: Another program has one.
            InvalidValueError: The host does not have the address.
        """
        if not port.nat or port.proto == "sctp":
            return
        if port.last - port.first >= _MOST:
            self._home(lambda: _check(port, self._mark))
            return
        bound: list[socket.socket] = []
        try:
            self._home(lambda: bound.extend(_bound(port, self._mark)))
        finally:
            with self._lock:
                if self._has_room(len(bound)):
                    self._kept.setdefault(port.key, []).extend(bound)
                    bound = []
            for each in bound:
                each.close()

    def _has_room(self, more: int) -> bool:
        """Whether so many more descriptors leave enough of them to the rest of the program."""
        self._count += more
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._count <= soft // 2:
            return True
        self._count -= more
        if not self._is_full:
            self._is_full = True
            logger().warning(
                "%d descriptors keep published ports from other programs; half of what this process may "
                "open (RLIMIT_NOFILE %d) is for the rest: further ports are published, but not kept",
                self._count,
                soft,
            )
        return False

    def release(self, port: PublishedPort) -> None:
        """Keep them no more."""
        with self._lock:
            kept = self._kept.pop(port.key, [])
            self._count -= len(kept)
        for each in kept:
            each.close()

    def close(self) -> None:
        """Keep nothing any more. Idempotent."""
        with self._lock:
            kept, self._kept = self._kept, {}
        for sockets in kept.values():
            for each in sockets:
                each.close()


def _bound(port: PublishedPort, mark: int) -> Iterator[socket.socket]:
    for number in range(port.first, port.last + 1):
        try:
            yield _bind(port, number, mark)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                _check(port, mark)  # all is well if it is one of ours
            elif error.errno == errno.EADDRNOTAVAIL:
                msg = f"cannot publish at {port.host}: it is no address of this host"
                raise InvalidValueError(msg) from None
            else:
                raise


def _bind(port: PublishedPort, number: int, mark: int) -> socket.socket:
    family = socket.AF_INET6 if port.version == 6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if port.proto == "udp" else socket.SOCK_STREAM
    kept = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        kept.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        buffer = _Program()
        kept.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, buffer.packed)
        if family == socket.AF_INET6:
            kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that end are no matter
        kept.bind((port.host or ("::" if family == socket.AF_INET6 else "0.0.0.0"), number))  # noqa: S104 - on purpose
        if kind == socket.SOCK_STREAM:
            kept.listen(1)
    except BaseException:
        kept.close()
        raise
    return kept


class _Program:
    """A filter that drops all packets, as the kernel wants it: a length and the address of the code."""

    def __init__(self) -> None:
        import ctypes

        self._code = ctypes.create_string_buffer(_DROP_ALL)
        self.packed = struct.pack("HL", 1, ctypes.addressof(self._code))


def _check(port: PublishedPort, mark: int) -> None:
    """Raise when somebody has one of the ports who does not have our *mark*."""
    for holder in _holders(port):
        if holder.mark != mark:
            where = "" if port.host is None else f" of {port.host}"
            who = _program(holder.inode)
            if who and holder.mark & _MARK_MASK == _MARK:
                who = f"another instance of pynetwork, {who}"
            msg = f"port {holder.port}/{port.proto}{where} is in use" + (f" by {who}" if who else "")
            raise PortTakenError(msg, proto=port.proto, port=holder.port)


def _holders(port: PublishedPort) -> Iterator[_Holder]:
    """Yield the sockets that are bound to one of the ports, at an address that matters."""
    family = socket.AF_INET6 if port.version == 6 else socket.AF_INET
    states = _LISTEN if port.proto == "tcp" else _ANY_STATE
    wanted = None if port.host is None else socket.inet_pton(family, port.host)
    size = 16 if family == socket.AF_INET6 else 4
    with NetlinkSocket(_SOCK_DIAG) as diag:
        # An IPv6 socket may serve IPv4 as well.
        for asked in (family, socket.AF_INET6) if family == socket.AF_INET else (family,):
            request = _REQUEST.pack(asked, PROTOCOLS[port.proto], 0, states)
            for payload in diag.dump(Message(_BY_FAMILY, 0, request)):
                fields = _ANSWER.unpack_from(payload)
                number = socket.ntohs(fields[4])
                bound = fields[6][:size] if asked == family else bytes(4)
                if asked != family and any(fields[6]):
                    continue  # bound to an IPv6 address, which is no IPv4 one
                matters = wanted is None or not any(bound) or bound == wanted
                if port.first <= number <= port.last and matters and not _is_connected(fields[5]):
                    mark = attributes(payload, _ATTRIBUTES_AT).get(_DIAG_MARK, bytes(4))
                    yield _Holder(number, fields[14], int.from_bytes(mark, sys.byteorder))


def _is_connected(remote_port: int) -> bool:
    return remote_port != 0


def _program(inode: int) -> str:
    """Return whose socket that is, ``nginx (pid 123)``; empty if it cannot be told."""
    target = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    with suppress(OSError):
                        if os.readlink(descriptor) == target:  # noqa: PTH115 - text is compared
                            name = (process / "comm").read_text(encoding="utf-8").strip()
                            return f"{name} (pid {process.name})"
    return ""
