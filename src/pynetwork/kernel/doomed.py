"""Links on their way out: they have a group of their own, and are deleted by it, all of a time at once."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Final

from pynetwork.kernel import rtnl
from pynetwork.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from pynetwork.kernel.later import Later
    from pynetwork.kernel.netlink import NetlinkSocket

__all__ = ["Doomed"]

_SECONDS: Final = 0.04


class Doomed:
    """
    Two groups, which take turns: what was doomed last time is deleted now.

    Args:
        group: Of the living; its lowest two bits are zero, and tell the doomed from them.
        later: Calls functions after a while.
        socket: Of the host's own namespace, for what takes long.

    Attributes:
        group: Group of a link that is doomed now.
    """

    def __init__(self, group: int, later: Later, socket: NetlinkSocket) -> None:
        self.group = group | 1
        self._before = group | 2
        self._later = later
        self._socket = socket
        self._rounds, self._counting = 0, threading.Lock()  # of deleting that are to begin yet

    def has(self, group: int) -> bool:
        """Whether links of *group* are on their way out."""
        return group in {self.group, self._before}

    def delete_soon(self) -> None:
        """Have all that is doomed by now deleted."""
        with self._counting:
            self._rounds = 2  # one for each group, and none that has begun already counts
        self._later.call("reap", _SECONDS, self._reap)

    def delete_now(self) -> None:
        """Wait until all that was doomed is gone, by whichever process of this instance."""
        with self._counting:
            self._rounds = 0  # before the links go: whoever dooms one meanwhile wants rounds of his own
        for group in (self.group, self._before):
            self._delete(group)

    def _reap(self) -> None:
        """
        Delete what was doomed before the last time.

        That is little: most links have gone with their namespaces by then, without anybody waiting. To
        delete holds the kernel's one lock for all of these things, so whoever wires would wait.
        """
        with self._counting:
            self._rounds -= 1
        self._delete(self._before)
        self.group, self._before = self._before, self.group
        if self._rounds > 0:
            self._later.call("reap", _SECONDS, self._reap)

    def _delete(self, group: int) -> None:
        try:
            self._socket.request(rtnl.delete_group(group))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:  # none left
                raise
