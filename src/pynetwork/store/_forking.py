"""What a store does around a fork: nothing that is open may be used by parent and child both."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forkable", "follow_forks"]


class Forkable(Protocol):
    """Something with connections, or what else a parent and its child cannot share."""

    def suspend(self) -> None:
        """Keep everybody out until :meth:`resume` or :meth:`start_anew`."""
        ...

    def resume(self) -> None:
        """Let users in again, in the parent."""
        ...

    def start_anew(self) -> None:
        """Let users in again, in the child, to something that shares nothing with the parent's."""
        ...


def follow_forks(thing: Forkable) -> None:
    """
    Tell *thing* of forks for as long as it lives.

    Programs that are started with exec inherit nothing and need none of this.
    A hook cannot be unregistered, hence the weak reference.
    """
    reference = weakref.ref(thing)

    def before() -> None:
        if (alive := reference()) is not None:
            alive.suspend()

    def in_parent() -> None:
        if (alive := reference()) is not None:
            alive.resume()

    def in_child() -> None:
        if (alive := reference()) is not None:
            alive.start_anew()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
