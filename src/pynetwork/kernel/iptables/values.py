"""A rule of iptables as a value: told by its comment, and the same in text as ``iptables-save`` prints."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, TypeAlias

import attrs

__all__ = ["CHAIN_LENGTH", "COMMENT_LENGTH", "Match", "Rule", "mark", "parse_comment"]

#: Bytes in the name of a chain, at most (XT_EXTENSION_MAXNAMELEN and its NUL).
CHAIN_LENGTH: Final = 28
#: Bytes in a comment, at most (XT_MAX_COMMENT_LEN and its NUL).
COMMENT_LENGTH: Final = 255

_BY: Final = " by "
_COMMENT: Final = re.compile(
    rf"(?P<tag>(?P<key>pynetwork-[0-9a-f]{{8}} .+?) #[0-9a-f]{{8}})(?:{_BY}(?P<owner>.*))?"
)

#: Options by name; a value that begins with ``!`` is negated.
Options: TypeAlias = tuple[tuple[str, str], ...]


@attrs.frozen
class Match:
    """
    A match extension.

    Args:
        name: As after ``-m``.
        options: As after it.
    """

    name: str
    options: Options = ()


@attrs.frozen(kw_only=True)
class Rule:
    """
    One rule.

    Fields that begin with ``!`` are negated.

    Args:
        table: ``raw``, ``mangle``, ``filter`` or ``nat``.
        chain: It is in.
        target: Name of the target, or of a chain to jump to.
        options: Of the target.
        source: CIDR.
        destination: CIDR.
        in_: Interface.
        out: Interface.
        proto: Protocol.
        matches: Extensions, in this order.
        is_first: Whether it is put at the head of its chain, before what is there; else at the end.
        key: What it belongs to: part of the comment.
        owner: For those who want the same port: the rest of the comment.
    """

    table: str
    chain: str
    target: str
    options: Options = ()
    source: str = ""
    destination: str = ""
    in_: str = ""
    out: str = ""
    proto: str = ""
    matches: tuple[Match, ...] = ()
    is_first: bool = attrs.field(default=False, eq=False)
    key: str = ""
    owner: str = attrs.field(default="", eq=False)

    @property
    def tag(self) -> str:
        """What tells it from all other rules of its chain; changes with the rule."""
        text = f"{self.table} {' '.join([*self._head(), *self._tail()])}"
        return f"{self.key} #{hashlib.blake2s(text.encode(), digest_size=4).hexdigest()}"

    @property
    def comment(self) -> str:
        """Its tag, and who it is for."""
        # Apostrophes do not survive libxtables' quoting and python-iptables' reading of it.
        whole = self.tag + (_BY + self.owner.replace("'", '"') if self.owner else "")
        return whole.encode()[:COMMENT_LENGTH].decode(errors="ignore")

    def render(self) -> str:
        """Return it as a line of ``iptables-save``."""
        comment = self.comment.replace("\\", "\\\\").replace('"', '\\"')
        return " ".join([*self._head(), f'-m comment --comment "{comment}"', *self._tail()])

    def wire(self) -> dict[str, Any]:
        """Return it as JSON for the worker."""
        return {
            "chain": self.chain,
            "is_first": self.is_first,
            "comment": self.comment,
            "source": self.source,
            "destination": self.destination,
            "in": self.in_,
            "out": self.out,
            "proto": self.proto,
            "matches": [[match.name, [list(option) for option in match.options]] for match in self.matches],
            "target": self.target,
            "options": [list(option) for option in self.options],
        }

    def _head(self) -> list[str]:
        fields = (("-s", self.source), ("-d", self.destination), ("-i", self.in_), ("-o", self.out))
        words = ["-A", self.chain]
        for flag, value in (*fields, ("-p", self.proto)):
            if value:
                words += _option(flag, value)
        for match in self.matches:
            words += ["-m", match.name, *_options(match.options)]
        return words

    def _tail(self) -> list[str]:
        return ["-j", self.target, *_options(self.options)]


def mark(instance: str) -> str:
    """Return what the comments of an instance begin with."""
    return f"pynetwork-{instance[:8]} "


def parse_comment(comment: str) -> tuple[str, str, str] | None:
    """Return the key, the tag and the owner in a comment, None when it is none of ours."""
    found = _COMMENT.fullmatch(comment)
    return (found["key"], found["tag"], (found["owner"] or "").replace('"', "'")) if found else None


def _option(flag: str, value: str) -> list[str]:
    return ["!", flag, value[1:]] if value.startswith("!") else [flag, value]


def _options(options: Options) -> list[str]:
    return [word for name, value in options for word in _option(f"--{name}", value)]
