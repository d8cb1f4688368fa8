"""A watch for stores that are not told of changes: they look again every now and then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pynetwork.errors import HistoryLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.store.port import Change, Store

__all__ = ["poll_changes"]


def poll_changes(
    store: Store, prefix: str, since: int, *, poll: float, stop: threading.Event | None
) -> Iterator[Change]:
    """Serve :meth:`Store.watch <pynetwork.store.port.Store.watch>` by asking *store* for its changes."""
    stopped = stop or threading.Event()  # one that nobody sets: its wait() is a sleep
    while not stopped.is_set():
        news = store.changes(since)
        if news is None:
            msg = (
                f"cannot watch {prefix!r}: the changes after revision {since} are no longer known; "
                "list it again and watch from the revision of that snapshot"
            )
            raise HistoryLostError(msg, since=since)
        for change in news.changes:
            if change.key.startswith(prefix):
                yield change
        since = news.revision
        stopped.wait(poll)
