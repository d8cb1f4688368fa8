"""The server's sockets in a sandbox: on port 53 of its loopback addresses, UDP and TCP."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Final, NamedTuple

from pynetwork.dns.zone import ADDRESSES

__all__ = ["PORT", "Sockets", "open_sockets"]

PORT: Final = 53
_BACKLOG: Final = 64
_IPV6_FREEBIND: Final = 78  # linux/in6.h
_IP_FREEBIND: Final = 15  # linux/in.h
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class Sockets(NamedTuple):
    """Those of one sandbox."""

    udp: tuple[socket.socket, ...]
    tcp: tuple[socket.socket, ...]

    def close(self) -> None:
        """Close them."""
        for opened in (*self.udp, *self.tcp):
            opened.close()


def open_sockets() -> Sockets:
    """
    Open the sockets in the calling thread's namespace.

    The TCP socket comes first: of those who listen there can be one only, so it decides who serves. The UDP
    socket may be shared, else no program in the sandbox could have a server of its own on all addresses.

    Raises:
        OSError: EADDRINUSE: another process serves, or a program in the sandbox has the port.
    """
    with ExitStack() as stack:
        udp, tcp = [], []
        for family, address in zip((socket.AF_INET, socket.AF_INET6), ADDRESSES, strict=True):
            try:
                listening = stack.enter_context(_bound(family, socket.SOCK_STREAM, address))
                listening.listen(_BACKLOG)
                tcp.append(listening)
                udp.append(stack.enter_context(_bound(family, socket.SOCK_DGRAM, address)))
            except OSError as error:
                if family == socket.AF_INET or error.errno not in _NO_IPV6:
                    raise
        stack.pop_all()
    return Sockets(tuple(udp), tuple(tcp))


def _bound(family: int, kind: int, address: str) -> socket.socket:
    opened = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Also while the loopback interface of an adopted namespace is still down.
        if family == socket.AF_INET:
            opened.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        opened.bind((address, PORT))
    except BaseException:
        opened.close()
        raise
    return opened
