"""New namespaces, kept open until their first use, which then need not enter them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.kernel.spares import Opened

__all__ = ["Fresh"]

_MOST: Final = 32


class Fresh:
    """
    Open namespaces by path. What is taken belongs to the taker alone, and is closed by it.

    An open namespace outlives its pin, so nothing stays here for long: it is taken by the first use
    or by the deletion, and the oldest makes room for the 33rd.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[str, Opened] = {}

    def keep(self, path: str, opened: Opened) -> None:
        """Keep a namespace for whoever uses it first."""
        with self._lock:
            self._opened[path] = opened
            oldest = None
            if len(self._opened) > _MOST:
                oldest = self._opened.pop(next(iter(self._opened)))
        if oldest is not None:
            oldest.close()

    def take(self, paths: Iterable[str | None]) -> dict[str, Opened]:
        """Return those of *paths* that are kept and still pinned there; they are not kept any more."""
        with self._lock:
            taken = {path: self._opened.pop(path) for path in paths if path in self._opened}
        for path in [path for path, opened in taken.items() if not _is_pinned(opened, path)]:
            taken.pop(path).close()
        return taken

    def close(self) -> None:
        """Close all that nobody took."""
        with self._lock:
            opened, self._opened = self._opened, {}
        for each in opened.values():
            each.close()


def _is_pinned(opened: Opened, path: str) -> bool:
    """Return whether a namespace is still what *path* is: somebody else may have removed or replaced it."""
    try:
        return os.path.samestat(os.fstat(opened.descriptor), os.stat(path))  # noqa: PTH116 - a Path costs more
    except FileNotFoundError:
        return False
