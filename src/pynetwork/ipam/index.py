"""Which subnets of an address space are in use: the one place that knows.

Everything that must not overlap is answered here, for all pools and both families, so there is no
second check that could disagree (libnetwork has several, and they do: moby#46756).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import ConflictError, InvalidValueError, NotFoundError
from pynetwork.ipam.subnets import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.types import IPNetwork

__all__ = ["SubnetIndex"]


@attrs.define(eq=False)
class _Runs:
    # Integers covered by intervals [start, stop), as maximal runs in order. Neighbours are merged: a
    # thousand subnets side by side are one run, and a search jumps over them in one step.
    starts: list[int] = attrs.Factory(list)
    stops: list[int] = attrs.Factory(list)

    def add(self, start: int, stop: int) -> None:
        low = bisect_left(self.stops, start)  # the first run that touches [start, stop] ...
        high = bisect_right(self.starts, stop)  # ... and the first after it that does not
        if low < high:
            start = min(start, self.starts[low])
            stop = max(stop, self.stops[high - 1])
        self.starts[low:high] = [start]
        self.stops[low:high] = [stop]

    def remove(self, start: int, stop: int) -> None:
        # The interval is known to lie in one run; what remains of it on either side stays.
        at = bisect_right(self.starts, start) - 1
        rest = [(self.starts[at], start), (stop, self.stops[at])]
        rest = [(left, right) for left, right in rest if left < right]
        self.starts[at : at + 1] = [left for left, _ in rest]
        self.stops[at : at + 1] = [right for _, right in rest]

    def end_of_overlap(self, start: int, stop: int) -> int:
        # Where the last run that overlaps [start, stop) ends; start itself when none does.
        at = bisect_left(self.starts, stop) - 1
        return max(start, self.stops[at]) if at >= 0 else start


@attrs.define(eq=False)
class _Family:
    # Disjoint subnets in order, by their first addresses; and what they cover together.
    firsts: list[int] = attrs.Factory(list)
    subnets: list[IPNetwork] = attrs.Factory(list)
    runs: _Runs = attrs.Factory(_Runs)


@attrs.define(eq=False)
class SubnetIndex:
    """
    The subnets in use in one address space. They are disjoint. Not thread-safe by itself.

    Args:
        space: Name of the address space, for messages.
    """

    space: str
    _families: dict[int, _Family] = attrs.field(
        init=False, repr=False, factory=lambda: {4: _Family(), 6: _Family()}
    )

    def __iter__(self) -> Iterator[IPNetwork]:
        """Iterate over the subnets in use, IPv4 first, in order."""
        return (subnet for family in self._families.values() for subnet in family.subnets)

    def __len__(self) -> int:
        return sum(len(family.subnets) for family in self._families.values())

    def overlapping(self, subnet: IPNetwork) -> IPNetwork | None:
        """Return the lowest subnet in use that shares an address with *subnet*, if any does."""
        family = self._families[subnet.version]
        start, stop = span(subnet)
        at = bisect_right(family.firsts, start)
        for other in family.subnets[max(at - 1, 0) : at + 1]:
            other_start, other_stop = span(other)
            if start < other_stop and other_start < stop:
                return other
        return None

    def add(self, subnet: IPNetwork) -> None:
        """
        Put *subnet* in use.

        Raises:
            ConflictError: It overlaps one that is in use.
        """
        other = self.overlapping(subnet)
        if other is not None:
            msg = f"subnet {subnet} overlaps {other}, which is in use in address space {self.space!r}"
            raise ConflictError(msg)
        family = self._families[subnet.version]
        start, stop = span(subnet)
        at = bisect_right(family.firsts, start)
        family.firsts.insert(at, start)
        family.subnets.insert(at, subnet)
        family.runs.add(start, stop)

    def remove(self, subnet: IPNetwork) -> None:
        """
        Free *subnet*.

        Raises:
            NotFoundError: It is not in use; a part of it, or more than it, may be.
        """
        family = self._families[subnet.version]
        start, stop = span(subnet)
        at = bisect_left(family.firsts, start)
        if family.subnets[at : at + 1] != [subnet]:
            msg = f"subnet {subnet} is not in use in address space {self.space!r}"
            raise NotFoundError(msg)
        del family.firsts[at], family.subnets[at]
        family.runs.remove(start, stop)

    def lowest_gap(
        self, base: IPNetwork, prefixlen: int, exclude: Iterable[IPNetwork] = ()
    ) -> IPNetwork | None:
        """
        Find the lowest free subnet of a size.

        Args:
            base: The subnet must lie in it.
            prefixlen: The size.
            exclude: The subnet must not overlap any of these either; they may overlap each other.

        Returns:
            The subnet, not put in use yet; None when there is none.

        Raises:
            InvalidValueError: A subnet of *prefixlen* does not fit in *base*, ever.
        """
        if not base.prefixlen <= prefixlen <= base.max_prefixlen:
            msg = f"invalid prefix length {prefixlen} for a subnet of {base}"
            raise InvalidValueError(msg)
        obstacles = (self._families[base.version].runs, _runs_of(exclude, base.version))
        size = 1 << (base.max_prefixlen - prefixlen)
        start, end = span(base)
        while start < end:
            beyond = max(runs.end_of_overlap(start, start + size) for runs in obstacles)
            if beyond == start:
                network = IPv4Network if base.version == 4 else IPv6Network
                return network((start, prefixlen))
            start = -(-beyond // size) * size  # on to the first boundary behind the obstacle
        return None


def _runs_of(networks: Iterable[IPNetwork], version: int) -> _Runs:
    runs = _Runs()
    # In order, so that each addition happens at the end of the lists.
    for start, stop in sorted(span(network) for network in networks if network.version == version):
        runs.add(start, stop)
    return runs
