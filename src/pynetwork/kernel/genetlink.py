"""Generic netlink: what families a kernel has, each a feature that a module may bring."""

from __future__ import annotations

import errno
import struct
from typing import Final

from pynetwork.kernel.netlink import Message, NetlinkError, NetlinkSocket

__all__ = ["has_family"]

# linux/genetlink.h
_NETLINK_GENERIC: Final = 16
_GENL_ID_CTRL: Final = 16
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_NAME: Final = 2


def has_family(name: str) -> bool:
    """Return whether the kernel has the family *name*, such as ``ovs_datapath``."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), _CTRL_ATTR_FAMILY_NAME) + text + bytes(-len(text) % 4)
    payload = struct.pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0) + attribute
    with NetlinkSocket(_NETLINK_GENERIC) as opened:
        try:
            opened.ask(Message(_GENL_ID_CTRL, 0, payload))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
    return True
