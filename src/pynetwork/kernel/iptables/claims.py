"""Which host ports are published, by any instance: looked up in a few steps however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

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


@attrs.define
class _Held:
    """A port that is published: by rules of these tags, to this owner."""

    port: _Port
    owner: str
    tags: set[str] = attrs.field(factory=set)


class Claims:
    """Published ports, told by the comments of their rules."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._buckets: dict[tuple[str, int], dict[str, _Held]] = {}

    def add(self, comment: str) -> None:
        """Note that there is a rule of that comment."""
        port, parsed = _parse(comment), parse_comment(comment)
        if port is None or parsed is None:
            return
        key, tag, owner = parsed
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(port, owner or "another instance")
            for bucket in port.buckets():
                self._buckets.setdefault(bucket, {})[key] = held
        held.tags.add(tag)

    def discard(self, comment: str) -> None:
        """Note that there is none."""
        parsed = parse_comment(comment)
        held = None if parsed is None else self._held.get(parsed[0])
        if parsed is None or held is None:
            return
        held.tags.discard(parsed[1])
        if not held.tags:
            del self._held[parsed[0]]
            for bucket in held.port.buckets():
                del self._buckets[bucket][parsed[0]]

    def find(self, claim: dict[str, Any], key: str) -> tuple[int, str] | None:
        """
        Return the first port of *claim* that is taken, and by whom; None when all are free.

        Args:
            claim: What is to be published.
            key: Of its rules. Some of the same key are no obstacle if they are the same rules, or if this
                is done again.
        """
        port = _Port(claim["proto"], claim["host"], claim["first"], claim["last"])
        for bucket in port.buckets():
            for other, held in self._buckets.get(bucket, {}).items():
                number = port.overlap(held.port)
                is_same = other == key and (claim["replay"] or held.tags.issubset(claim["tags"]))
                if number is not None and not is_same:
                    return number, held.owner
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
