"""Numbers kept back from reuse for a while, in the order in which they were released."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Quarantine"]


@attrs.define(eq=False)
class Quarantine:
    """
    Who a number belonged to is still in caches: of ARP, of switches, of DNS clients. So it rests.

    Entries end in the order they began. An ``OrderedDict`` serves both that and a withdrawal from
    the middle at constant cost; a plain dict would search its emptied front at every look.

    Args:
        seconds: How long a number rests.
    """

    seconds: float
    _until: OrderedDict[int, float] = attrs.field(init=False, repr=False, factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, n: int) -> bool:
        return n in self._until

    def add(self, n: int, now: float) -> None:
        """Begin to keep *n* back."""
        self._until[n] = now + self.seconds

    def discard(self, n: int) -> bool:
        """End it early; False when *n* is not kept back."""
        return self._until.pop(n, None) is not None

    def pop_ended(self, now: float) -> Iterator[int]:
        """Remove and yield those that rested long enough."""
        until = self._until
        while until:
            n = next(iter(until))
            if until[n] > now:
                return
            del until[n]
            yield n

    def pop_oldest(self, start: int, stop: int) -> int | None:
        """
        Remove and return the one in ``[start, stop)`` that has rested the longest.

        At once for the window that holds all, else a scan: an exhausted sub-pool next to a busy one.
        """
        for n in self._until:
            if start <= n < stop:
                del self._until[n]
                return n
        return None

    def count(self, start: int, stop: int) -> int:
        """Count those in ``[start, stop)``."""
        return sum(start <= n < stop for n in self._until)
