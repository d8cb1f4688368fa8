"""When a sandbox whose sockets could not be opened is tried again."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final

from pynetwork.errors import InvalidValueError
from pynetwork.log import logger

if TYPE_CHECKING:
    from pynetwork.dns.zone import Inmate

__all__ = ["Due", "is_unwired"]

_FIRST_SECONDS: Final = 0.01
_MOST_SECONDS: Final = 2.0
_UNWIRED: Final = frozenset({errno.ENOENT, errno.EINVAL})  # in the making, or going


class Due:
    """
    How often opening has failed, and what follows.

    Attributes:
        when: Not to be tried before, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.when = 0.0
        self._seconds = _FIRST_SECONDS
        self._is_told = False

    def failed(self, inmate: Inmate, error: Exception) -> bool:
        """Try again later, each time a little later; returns whether this is news."""
        self.when = time.monotonic() + self._seconds
        self._seconds = min(2 * self._seconds, _MOST_SECONDS)
        if not self._is_told and not is_unwired(error):
            self._is_told = True
            logger().warning("dns: no name server in sandbox %s: %s", inmate.id[:12], error)
            return True
        return False


def is_unwired(error: Exception) -> bool:
    """Whether opening failed because a sandbox is in the making, or going: it is worth waiting for."""
    return isinstance(error, InvalidValueError) or getattr(error, "errno", None) in _UNWIRED
