"""What every kernel object in a plan is, and how it is named."""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from types import CodeType

__all__ = ["Effect", "Key", "Resource", "inside", "link_key", "netns_keys"]

#: Identity of a kernel object: its kind, and what the kernel knows it by.
Key: TypeAlias = tuple[str | None, ...]


@attrs.frozen(kw_only=True)
class Resource:
    """
    One kernel object. Two equal values mean "already as wanted".

    Abstract to type checkers alone: the metaclass that has the interpreter see to it makes each
    ``isinstance`` and each ``case`` several times as slow, and a join asks hundreds.

    Class attributes:
        kind: Name in stored plans and reports.
        rank: Place in the order of creation; deletion runs in reverse.
        shared: Whether several scopes may ask for the same object; it goes when the last lets go.
        mutable: Fields that can be changed in place; a change of any other replaces the object.
        nameless: Whether nothing tells whose it is but that no record knows it.
    """

    kind: ClassVar[str]
    rank: ClassVar[int]
    shared: ClassVar[bool] = False
    mutable: ClassVar[frozenset[str]] = frozenset()
    nameless: ClassVar[bool] = False

    _keys: tuple[Key, ...] | None = attrs.field(default=None, eq=False, repr=False, init=False)
    # Code, and how far it was: the line costs as much as all the rest of a value, and is seldom asked for.
    _site: tuple[CodeType, int] | None = attrs.field(eq=False, repr=False, init=False)

    def __attrs_post_init__(self) -> None:
        # Frame 0 is this method, 1 the generated __init__, 2 the line of the driver.
        frame = sys._getframe(2)  # noqa: SLF001 - the documented way to the caller without a traceback
        object.__setattr__(self, "_site", (frame.f_code, frame.f_lasti))

    @property
    def origin(self) -> str:
        """``file:line`` of the code that made this value."""
        if self._site is None:
            return ""
        code, instruction = self._site
        line = next(line for start, end, line in code.co_lines() if start <= instruction < end)
        return f"{code.co_filename}:{line}"

    @property
    @abstractmethod
    def key(self) -> Key:
        """What identifies the object on the host."""

    @property
    def provides(self) -> tuple[Key, ...]:
        """Further objects that come and go with this one."""
        return ()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Its key and those of what it provides."""
        if self._keys is None:
            object.__setattr__(self, "_keys", (self.key, *self.provides))
        return self._keys or ()

    @property
    def parents(self) -> tuple[Key, ...]:
        """Objects whose removal makes the kernel remove this one as well."""
        return ()

    @property
    def order(self) -> int:
        """Place in the order of creation, finer than the rank of its type."""
        return self.rank

    def after(self, gone: AbstractSet[Key]) -> Resource | None:
        """
        Return what is left of this when the objects *gone* were removed: itself, changed or not, or None.

        None also stands for "perhaps nothing": whoever still wants it states it again.
        """
        return None if not gone.isdisjoint(self.parents) else self

    @property
    def stays(self) -> bool:
        """Whether its deletion may leave the object, and so what is on it, on the host."""
        return False

    def effects(self) -> tuple[Effect, ...]:
        """Return what should happen once it was created or changed."""
        return ()

    def effects_of_delete(self) -> tuple[Effect, ...]:
        """Return what should happen once it was deleted."""
        return ()

    @abstractmethod
    def render(self) -> tuple[str, ...]:
        """Return its creation as lines a user could type."""

    @abstractmethod
    def render_delete(self) -> tuple[str, ...]:
        """Return its deletion as lines a user could type."""

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        """Return the change from *previous* as lines a user could type."""
        return (*previous.render_delete(), *self.render())


@attrs.frozen(kw_only=True)
class Effect(Resource):
    """
    Something that happens once and leaves no state behind.

    Effects are never part of a plan: they follow from its steps, run after the commit and may fail
    without harm.
    """

    rank = 1000


def link_key(netns: str | None, name: str) -> Key:
    """Return the key of the interface *name* in a namespace."""
    return ("link", netns, name)


def netns_keys(netns: str | None) -> tuple[Key, ...]:
    """Return the key of a namespace; the host's has none, it does not go away."""
    return () if netns is None else (("netns", netns),)


def inside(netns: str | None) -> str:
    """Return what to put before a command to run it in a namespace."""
    return "" if netns is None else f"nsenter --net={netns} "
