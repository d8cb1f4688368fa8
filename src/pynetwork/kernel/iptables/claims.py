"""Which host ports are published, by any instance: looked up in a few steps however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pynetwork.kernel.iptables.values import parse_comment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Claims"]

_BITS: Final = 8


class _Port(NamedTuple):
    """A published port or range; *host* is ``*`` for all addresses."""

    proto: str
    host: str
    first: int
    last: int

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Yield where to look for what overlaps it."""
        for bucket in range(self.first >> _BITS, (self.last >> _BITS) + 1):
            yield self.proto, bucket

    def overlap(self, other: _Port) -> int | None:
        """Return the first port that is also *other*'s."""
        if self.host != other.host and "*" not in {self.host, other.host}:
            return None
        port = max(self.first, other.first)
        return port if port <= min(self.last, other.last) else None


class Claims:
    """Published ports, told by the comments of their rules."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int], dict[str, _Port]] = {}

    def add(self, comment: str) -> None:
        """Note that there is a rule of that comment."""
        port = _parse(comment)
        if port is not None:
            for bucket in port.buckets():
                self._buckets.setdefault(bucket, {})[comment] = port

    def discard(self, comment: str) -> None:
        """Note that there is none."""
        port = _parse(comment)
        if port is not None:
            for bucket in port.buckets():
                self._buckets.get(bucket, {}).pop(comment, None)

    def find(self, claim: dict[str, Any], key: str) -> tuple[int, str] | None:
        """
        Return the first port of *claim* that is taken, and by whom; None when all are free.

        Args:
            claim: What is to be published.
            key: Of its rule. One of the same key is no obstacle if it is the same rule, or if this is done
                again.
        """
        port = _Port(claim["proto"], claim["host"], claim["first"], claim["last"])
        for bucket in port.buckets():
            for comment, other in self._buckets.get(bucket, {}).items():
                number = port.overlap(other)
                parsed = parse_comment(comment)
                if number is None or parsed is None:
                    continue
                if parsed[0] != key or not (claim["replay"] or parsed[1] == claim["tag"]):
                    return number, parsed[2] or "another instance"
        return None


def _parse(comment: str) -> _Port | None:
    """Read ``pynetwork-ID port VERSION PROTO HOST FIRST-LAST #...``; None if it is something else."""
    words = comment.partition(" #")[0].split(" ")
    if len(words) != 6 or words[1] != "port":
        return None
    first, _, last = words[5].partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        return None
    return _Port(words[3], words[4], int(first), int(last))
