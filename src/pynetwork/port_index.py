"""Which ports of the host are published: an index over all endpoints of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.ports import PortBinding
    from pynetwork.specs import EndpointSpec
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

    def add(self, spec: EndpointSpec) -> None:
        """Take in the ports of an endpoint."""
        for binding in spec.ports:
            for key, taken in _entries(spec, binding):
                self._buckets.setdefault(key, []).append(taken)
            if binding.host_port is not None and binding.is_flexible:
                self._last[binding.proto] = binding.host_port + binding.size - 1

    def remove(self, spec: EndpointSpec) -> None:
        """Drop the ports of an endpoint."""
        for binding in spec.ports:
            for key, taken in _entries(spec, binding):
                self._buckets[key].remove(taken)
                if not self._buckets[key]:
                    del self._buckets[key]

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._last.clear()

    def last_chosen(self, proto: str) -> int:
        """Return the host port that was chosen last, 0 when none was."""
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


def _entries(spec: EndpointSpec, binding: PortBinding) -> Iterator[tuple[tuple[int, str, int], _Taken]]:
    first, last = binding.host_port, binding.host_end
    if first is None or last is None:
        return
    address = binding.host_address
    taken = _Taken(spec.id, first, last, None if address is None or address.is_unspecified else address)
    for version in binding.versions:
        if spec.address(version) is not None:
            for bucket in range(first >> _BITS, (last >> _BITS) + 1):
                yield (version, binding.proto, bucket), taken
