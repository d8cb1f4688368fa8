"""Threads that follow prefixes, as an agent does, and what they have come to believe."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from pynetwork.store import Change, Store, Watcher

PATIENCE_SECONDS = 60


class Follower:
    """
    Follows *prefix* from the snapshot it takes, or what *watcher* is told to follow.

    Attributes:
        changes: Everything it was told.
        entries: What it believes to be there.
        error: What the watch ended with.
    """

    def __init__(
        self, store: Store | None = None, prefix: str = "", *, watcher: Watcher | None = None
    ) -> None:
        self.changes: list[Change] = []
        self.entries: dict[str, str] = {}
        self.error: Exception | None = None
        self._news = threading.Condition()
        self._stop = threading.Event()
        if store is not None:
            snapshot = store.list(prefix)
            self.entries = {entry.key: entry.value for entry in snapshot.entries}
            self._changes = store.watch(prefix, snapshot.revision, stop=self._stop)
        elif watcher is not None:
            self._changes = watcher.changes(stop=self._stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, key: str, value: str | None) -> None:
        """Wait until the follower believes that *key* has *value*; None: that it is not there."""
        self.wait_until(lambda: self.entries.get(key) == value, f"{key!r} to be {value!r}")

    def wait_for_entries(self, entries: Mapping[str, str]) -> None:
        """Wait until it believes what is in *entries*."""
        self.wait_until(lambda: self.entries == entries, f"{entries}")

    def wait_for_end(self) -> Exception | None:
        """Wait until the watch has ended, and return the error it ended with."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        return self.error

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._news:
            while not condition():
                assert self._thread.is_alive(), f"the watch ended: {self.error!r}"
                left = deadline - time.monotonic()
                assert left > 0, f"waited for {what}; was told {self.changes}"
                self._news.wait(min(left, 0.1))

    def _run(self) -> None:
        try:
            for change in self._changes:
                self._take(change)
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def _take(self, change: Change) -> None:
        with self._news:
            self.changes.append(change)
            if change.value is None:
                self.entries.pop(change.key, None)
            else:
                self.entries[change.key] = change.value
            self._news.notify_all()
