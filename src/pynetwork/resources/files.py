"""Files that programs in a sandbox read, and the directory they are in."""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.resources.base import Resource

if TYPE_CHECKING:
    from pynetwork.resources.base import Key

__all__ = ["Directory", "File"]

#: How a file is kept up to date, see :class:`File`.
UPKEEP: Final = ("first", "whole", "part")
_HEAD: Final = "# Kept up to date by pynetwork until somebody edits it (sha256 of the rest: {})\n"
_HEAD_LINE: Final = re.compile(re.escape(_HEAD).replace(r"\{\}", "([0-9a-f]{64})"))
_BEGIN: Final = "# pynetwork keeps what follows up to date\n"
_END: Final = "# pynetwork: all outside of these two lines is yours\n"


def _check_upkeep(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in UPKEEP:
        msg = f"invalid upkeep {value!r}: one of {', '.join(UPKEEP)} is expected"
        raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class Directory(Resource):
    """
    A directory of ours, with all that is in it.

    Args:
        path: Absolute; its name ends with the instance it belongs to.
    """

    kind = "directory"
    rank = 2

    path: str

    @property
    def key(self) -> Key:
        return ("directory", self.path)

    def render(self) -> tuple[str, ...]:
        return (f"mkdir -p {shlex.quote(self.path)}",)

    def render_delete(self) -> tuple[str, ...]:
        return (f"rm -r {shlex.quote(self.path)}",)


@attrs.frozen(kw_only=True)
class File(Resource):
    """
    A text file in a :class:`Directory`, written in place: a bind mount of it sees every change.

    What others write into it is theirs. *upkeep* says how it is told from ours, from what the file
    itself holds, so that nothing depends on who wrote last and how far that came.

    Args:
        path: Absolute.
        text: What it should say, whole lines.
        upkeep: ``first``: it is written once, and left alone from then on. ``whole``: its first line holds a
            hash of the rest, as libnetwork keeps one beside its resolv.conf; as long as that fits the file
            is ours, and from the first edit on it is left alone. ``part``: what is between two comment
            lines is ours; whoever removes these takes it over.
    """

    kind = "file"
    rank = 3
    mutable = frozenset({"text"})

    path: str
    text: str
    upkeep: str = attrs.field(default="first", validator=_check_upkeep)

    @property
    def key(self) -> Key:
        return ("file", self.path)

    @property
    def parents(self) -> tuple[Key, ...]:
        return (("directory", self.path.rpartition("/")[0]),)

    @property
    def full(self) -> str:
        """What a new file holds: the text and what tells that it is ours."""
        if self.upkeep == "whole":
            return _HEAD.format(_hash(self.text)) + self.text
        return f"{_BEGIN}{self.text}{_END}" if self.upkeep == "part" else self.text

    def over(self, current: str | None) -> str:
        """
        Return what the file should hold.

        Args:
            current: What it holds; None when it does not exist. Nothing at all is what is left of a write
                that was cut short, and never somebody's.
        """
        if not current or current.isspace():
            return self.full
        if self.upkeep == "whole":
            head, rest = _HEAD_LINE.match(current), current.partition("\n")[2]
            return self.full if head is not None and head[1] == _hash(rest) else current
        if self.upkeep == "part":
            before, begin, rest = current.partition(_BEGIN)
            # Without an end it was cut short.
            return f"{before}{self.full}{rest.partition(_END)[2]}" if begin else current
        return current

    def render(self) -> tuple[str, ...]:
        text = self.full.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n")
        return (f"printf {shlex.quote(text)} > {shlex.quote(self.path)}",)

    def render_delete(self) -> tuple[str, ...]:
        return (f"rm {shlex.quote(self.path)}",)

    def render_update(self, previous: Resource) -> tuple[str, ...]:  # noqa: ARG002 - it is written as a whole
        return self.render()


def _hash(text: str) -> str:
    # Empty lines at the end are what is left of a longer text for a moment, see the kernel's writing.
    return hashlib.sha256(text.rstrip("\n").encode(errors="surrogateescape")).hexdigest()
