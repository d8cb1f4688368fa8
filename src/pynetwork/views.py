"""Read-only mappings of objects by name, always as recorded now."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import TypeVar

from pynetwork.errors import NotFoundError

__all__ = ["View"]

H = TypeVar("H")


class View(Mapping[str, H]):
    """
    Objects by name.

    Args:
        kind: ``network``, ``endpoint`` or ``sandbox``, for errors.
        read: Returns the objects there are now by name, oldest first.
        find: Returns the one of a name, or None.
    """

    __slots__ = ("_find", "_kind", "_read")

    def __init__(self, kind: str, read: Callable[[], dict[str, H]], find: Callable[[str], H | None]) -> None:
        self._kind = kind
        self._read = read
        self._find = find

    def __getitem__(self, name: str) -> H:
        found = self._find(name)
        if found is None:
            # A LookupError, though no KeyError: `get` and `in` of Mapping need to be told.
            msg = f"{self._kind} {name!r} does not exist"
            raise ViewKeyError(msg)
        return found

    # One look for all of them: what others delete while a caller goes through them is still in it.

    def values(self) -> ValuesView[H]:
        """Return the objects there are now."""
        return self._read().values()

    def items(self) -> ItemsView[str, H]:
        """Return the names and objects there are now."""
        return self._read().items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"<{len(self)} {self._kind}: {', '.join(self)}>"


class ViewKeyError(NotFoundError, KeyError):
    """NotFoundError, and a KeyError as a mapping must raise."""

    __str__ = NotFoundError.__str__
