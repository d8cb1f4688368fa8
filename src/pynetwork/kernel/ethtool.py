"""Offloads of interfaces, by the ioctl of ethtool. Called in the namespace that the interface is in."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from typing import Final

__all__ = ["leaves_checksums", "let_leave_checksums"]

# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL: Final = 0x8946
_GET: Final = 0x16  # ETHTOOL_GTXCSUM
_SET: Final = 0x17  # ETHTOOL_STXCSUM


def leaves_checksums(dev: str) -> bool:
    """
    Return whether an interface leaves checksums to who receives its packets.

    Raises:
        OSError: There is no such interface.
    """
    return bool(_call(dev, _GET, 0))


def let_leave_checksums(dev: str, *, on: bool) -> None:
    """
    Let an interface leave checksums to others, or not; without, it cuts TCP into segments itself as well.

    Raises:
        OSError: There is no such interface, or it cannot.
    """
    _call(dev, _SET, int(on))


def _call(dev: str, command: int, value: int) -> int:
    data = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sP16x", dev.encode(), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)
    return int(struct.unpack_from("=II", data.raw)[1])
