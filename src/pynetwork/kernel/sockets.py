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
    from collections.abc import Iterable, Iterator

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
_DIAG_V6ONLY: Final = 11
_DIAG_MARK: Final = 15
# Sockets that listen, and those that are only bound; kernels before 6.8 do not tell of the latter.
_LISTEN_OR_BOUND: Final = 1 << 10 | 1 << 13
_ANY_STATE: Final = 0xFFFFFFFF
_MAPPED: Final = bytes(10) + b"\xff\xff"  # what an IPv4 address in an IPv6 socket begins with
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE})  # of descriptors
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
    """

    def __init__(self, instance: str) -> None:
        self._mark = _MARK | int(instance[:7], 16)
        self._program = _Program()
        self._lock = threading.Lock()
        self._kept: dict[Key, list[socket.socket]] = {}
        self._count = 0
        self._is_full = False

    def reserve(self, port: PublishedPort) -> bool:
        """
        Keep the host's ports of *port*, unless they are kept already by a process of ours.

        The host is the network namespace of the calling thread.

        Returns:
            Whether they are kept from now on because of this call, which :meth:`release` takes back.

        Raises:
            PortTakenError: Another program has one; then none is kept.
            InvalidValueError: The host does not have the address.
        """
        if not port.nat or port.proto == "sctp" or port.key in self._kept:
            return False
        if port.last - port.first >= _MOST:
            _check_all(port, self._mark)
            return False
        bound: list[socket.socket] = []
        try:
            bound.extend(_bound(port, self._mark, self._program.packed))
            with self._lock:
                if bound and self._has_room(len(bound)):
                    self._kept.setdefault(port.key, []).extend(bound)
                    bound = []
                    return True
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            _close(bound)
            _check_all(port, self._mark)
            self._warn()
        finally:
            _close(bound)
        return False

    def _has_room(self, more: int) -> bool:
        """Whether so many more descriptors leave enough of them to the rest of the program."""
        self._count += more
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._count <= soft // 2:
            return True
        self._count -= more
        self._warn()
        return False

    def _warn(self) -> None:
        """Say once that descriptors run short."""
        if not self._is_full:
            self._is_full = True
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            logger().warning(
                "%d descriptors keep published ports from other programs; half of what this process may "
                "open (RLIMIT_NOFILE %d) is for the rest: further ports are published, but not kept",
                self._count,
                soft,
            )

    def release(self, port: PublishedPort) -> None:
        """Keep them no more."""
        with self._lock:
            kept = self._kept.pop(port.key, [])
            self._count -= len(kept)
        _close(kept)

    def close(self) -> None:
        """Keep nothing any more. Idempotent."""
        with self._lock:
            kept, self._kept = self._kept, {}
            self._count = 0
        for sockets in kept.values():
            _close(sockets)


def _close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _bound(port: PublishedPort, mark: int, program: bytes) -> Iterator[socket.socket]:
    for number in range(port.first, port.last + 1):
        try:
            yield _keep(port, number, mark, program)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _check(port, mark)  # all is well if it is one of ours


def _keep(port: PublishedPort, number: int, mark: int, program: bytes) -> socket.socket:
    kind = socket.SOCK_DGRAM if port.proto == "udp" else socket.SOCK_STREAM
    kept = socket.socket(_family(port), kind | socket.SOCK_CLOEXEC)
    try:
        kept.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        kept.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        if kind == socket.SOCK_STREAM:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that end are no matter
        _bind(kept, port, number)
        if kind == socket.SOCK_STREAM:
            kept.listen(1)
    except BaseException:
        kept.close()
        raise
    return kept


def _bind(each: socket.socket, port: PublishedPort, number: int) -> None:
    if port.version == 6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        each.bind((port.host or ("::" if port.version == 6 else "0.0.0.0"), number))  # noqa: S104 - on purpose
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        msg = f"cannot publish at {port.host}: it is no address of this host"
        raise InvalidValueError(msg) from None


def _family(port: PublishedPort) -> socket.AddressFamily:
    return socket.AF_INET6 if port.version == 6 else socket.AF_INET


class _Program:
    """A filter that drops all packets, as the kernel wants it: a length and the address of the code."""

    def __init__(self) -> None:
        import ctypes

        self._code = ctypes.create_string_buffer(_DROP_ALL)
        self.packed = struct.pack("HL", 1, ctypes.addressof(self._code))


def _check_all(port: PublishedPort, mark: int) -> None:
    """Raise when a port cannot be had, without keeping any."""
    if port.host is not None:
        with socket.socket(_family(port), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_port:
            _bind(any_port, port, 0)
    _check(port, mark)


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
    family = _family(port)
    states = _LISTEN_OR_BOUND if port.proto == "tcp" else _ANY_STATE
    wanted = None if port.host is None else socket.inet_pton(family, port.host)
    with NetlinkSocket(_SOCK_DIAG) as diag:
        # An IPv6 socket may serve IPv4 as well.
        for asked in dict.fromkeys((family, socket.AF_INET6)):
            request = _REQUEST.pack(asked, PROTOCOLS[port.proto], 0, states)
            for payload in diag.dump(Message(_BY_FAMILY, 0, request)):
                fields = _ANSWER.unpack_from(payload)
                number = socket.ntohs(fields[4])
                if not port.first <= number <= port.last or _is_connected(fields[5]):
                    continue
                found = attributes(payload, _ATTRIBUTES_AT)
                bound = _bound_to(fields[6], asked, family, is_v6only=any(found.get(_DIAG_V6ONLY, b"")))
                if bound is not None and (wanted is None or not any(bound) or bound == wanted):
                    mark = int.from_bytes(found.get(_DIAG_MARK, bytes(4)), sys.byteorder)
                    yield _Holder(number, fields[14], mark)


def _bound_to(source: bytes, asked: int, family: int, *, is_v6only: bool) -> bytes | None:
    """Return the address of *family* that a socket of family *asked* is bound to; None if it has none."""
    is_mapped = asked == socket.AF_INET6 and source.startswith(_MAPPED)
    if family == socket.AF_INET6:
        return None if is_mapped else source
    if asked == socket.AF_INET:
        return source[:4]
    if is_mapped:
        return source[12:]
    return None if any(source) or is_v6only else bytes(4)


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
