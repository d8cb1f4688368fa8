"""What a watch of etcd follows, and which of that one stream has begun to tell of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pynetwork.store.etcd_answers import Answer
    from pynetwork.store.etcd_http import Stream

__all__ = ["Conversation", "Followed", "name_of", "number_of"]

_FIRST: Final = 1  # the watch that is also told when nothing happens


@attrs.define(eq=False)
class Followed:
    """
    A prefix, and what was told of it.

    Attributes:
        span: Of its keys, as etcd has them.
        revision: All until then was told.
        known: Keys as told, and their revisions.
        cluster: That said so.
        is_stale: Whether the keys must be listed.
        is_confirmed: They were listed right before the stream was opened.
    """

    prefix: str
    span: dict[str, Any]
    revision: int
    known: dict[str, int]
    cluster: str
    is_stale: bool = False
    is_confirmed: bool = False

    def compared(self) -> Sequence[Answer]:
        """Return what asks for the keys put since, and how many there are."""
        since = {"min_mod_revision": str(self.revision + 1), "keys_only": True}
        return (
            {"request_range": {**self.span, **since}},
            {"request_range": {**self.span, "count_only": True}},
        )


class Conversation:
    """
    What is said on one stream of watches.

    Args:
        followed: What the stream was opened for, in the order of :meth:`requests`.

    Attributes:
        watches: The prefixes by their number on the stream.
        waiting: Numbers of watches that the member has not said to have begun.
        unsure: Numbers of those, and of what began with them: whether they miss something is not known.
        backlog: What the unsure were told.
        asked: When the first of the waiting was asked for.
    """

    def __init__(self, followed: Sequence[Followed]) -> None:
        self.watches = dict(enumerate(followed, start=_FIRST))
        self.waiting = set(self.watches)
        self.unsure = set(self.watches)
        self.backlog: list[Answer] = []
        self.asked = time.monotonic()
        self._next = len(followed) + _FIRST

    def requests(self) -> list[Answer]:
        """Return the requests for all watches."""
        return [_create(*each) for each in self.watches.items()]

    def change(self, stream: Stream, followed: Collection[Followed], patience: float) -> bool:
        """
        Ask for the watches that are new in *followed*, and for no more of those that are not in it.

        Returns:
            Whether the stream goes on: without its first watch nobody would say that it is not dead.
        """
        wanted = set(followed)
        if self.watches.get(_FIRST) not in wanted:
            return False
        dropped = [number for number, each in self.watches.items() if each not in wanted]
        added = wanted.difference(self.watches.values())
        requests: list[Answer] = [{"cancel_request": {"watch_id": str(number)}} for number in dropped]
        for number in dropped:
            del self.watches[number]
        self.waiting.difference_update(dropped)
        self.unsure.difference_update(dropped)
        if added and not self.waiting:
            self.asked = time.monotonic()
        for each in added:
            requests.append(_create(self._next, each))
            self.watches[self._next] = each
            self.waiting.add(self._next)
            self.unsure.add(self._next)
            self._next += 1
        if requests:
            stream.write(requests, patience)
        return True

    def is_forgotten(self, message: Answer) -> bool:
        """Return whether *message* is of a watch that was dropped since."""
        number = number_of(message)
        return _FIRST <= number < self._next and number not in self.watches


def name_of(followed: Sequence[Followed]) -> str:
    """Return what completes "cannot ..."."""
    more = f" and {len(followed) - 1} more" if len(followed) > 1 else ""
    return f"watch {followed[0].prefix!r}{more}"


def number_of(message: Answer) -> int:
    """Return the number of the watch that *message* is of; it may be none of a watch."""
    return int(message.get("watch_id", 0))


def _create(number: int, followed: Followed) -> Answer:
    create = {**followed.span, "watch_id": str(number), "start_revision": str(followed.revision + 1)}
    return {"create_request": {**create, "progress_notify": number == _FIRST}}
