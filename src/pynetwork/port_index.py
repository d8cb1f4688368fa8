"""Which ports of the host are published: an index over all endpoints of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.specs import PortSpec
    from pynetwork.types import IPAddress

__all__ = ["PortIndex"]

_BITS: Final = 8  # ports are kept in buckets of 256


@attrs.frozen
class _Taken:
    """Ports of the host that are published: on one address, or on all of a family (None)."""

    endpoint: str
    first: int
    last: int
    address: IPAddress | None


class PortIndex:
    """
    Host ports of endpoints by address family, protocol and number.

    Not locked itself: the mirror's lock is held by whoever calls.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, str, int], list[_Taken]] = {}
        self._last: dict[str, int] = {}

    def add(self, spec: PortSpec) -> None:
        """Take in a published port."""
        for key, taken in _entries(spec):
            self._buckets.setdefault(key, []).append(taken)
        last = spec.binding.host_end
        if last is not None and spec.binding.host_first is None:
            self._last[spec.binding.proto] = last

    def remove(self, spec: PortSpec) -> None:
        """Drop one that was taken in."""
        for key, taken in _entries(spec):
            self._buckets[key].remove(taken)
            if not self._buckets[key]:
                del self._buckets[key]

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._last.clear()

    def last_chosen(self, proto: str) -> int:
        """Return the host port that was chosen last of all that could be, 0 when none was."""
        return self._last.get(proto, 0)

    def taken(
        self, version: int, proto: str, address: IPAddress | None, first: int, last: int
    ) -> tuple[int, str] | None:
        """
        Return the last port from *first* to *last* that is taken, and the id of the endpoint.

        Args:
            version: Address family, 4 or 6.
            proto: ``tcp``, ``udp`` or ``sctp``.
            address: Of the host; None for all of the family.
            first: First port.
            last: Last port.
        """
        found = [
            (min(last, taken.last), taken.endpoint)
            for bucket in range(first >> _BITS, (last >> _BITS) + 1)
            for taken in self._buckets.get((version, proto, bucket), ())
            if taken.first <= last
            and first <= taken.last
            and (address is None or taken.address is None or address == taken.address)
        ]
        return max(found, default=None)


def _entries(spec: PortSpec) -> Iterator[tuple[tuple[int, str, int], _Taken]]:
    first, last = spec.binding.host_port, spec.binding.host_end
    if first is None or last is None:
        return
    address = spec.binding.host_address
    everywhere = address is None or address.is_unspecified
    taken = _Taken(spec.endpoint, first, last, None if everywhere else address)
    for version in spec.versions:
        for bucket in range(first >> _BITS, (last >> _BITS) + 1):
            yield (version, spec.binding.proto, bucket), taken
