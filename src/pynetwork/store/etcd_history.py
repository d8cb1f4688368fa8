"""What was: the keys as they were at a revision, and every change since one, in order.

etcd tells changes on a watch, which never says that it has told all. So a mark is moved first, in the
same range of keys: once the watch has told of that, it has told of everything before it. The marks of
transactions come along, and say when each was made.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import StoreUnavailableError
from pynetwork.store.etcd_answers import OUT_OF_RANGE, RefusedError
from pynetwork.store.etcd_http import BrokenError
from pynetwork.store.etcd_wire import LARGEST, revision_of
from pynetwork.store.etcd_writer import time_of
from pynetwork.store.port import Change, Changes, Snapshot

if TYPE_CHECKING:
    from pynetwork.store.etcd_answers import Answer
    from pynetwork.store.etcd_client import Client
    from pynetwork.store.etcd_http import Stream
    from pynetwork.store.etcd_wire import Layout
    from pynetwork.store.etcd_writer import Writers

__all__ = ["History"]

_RANGE: Final = "/kv/range"
_WATCH: Final = "/watch"
_PAUSE: Final = 0.1  # seconds until a stream that broke off is opened anew


@attrs.frozen
class History:
    """Reads the past of the store that *layout* describes, as far as *client*'s cluster keeps it."""

    client: Client
    layout: Layout
    writers: Writers

    def at(self, revision: int) -> Snapshot | None:
        """Return all entries as they were at *revision*, None when that is not known."""
        if not 0 <= revision <= LARGEST:
            return None
        # Revision 0 is before anything; for etcd that is 1.
        body = {**self.layout.span(""), "revision": str(max(1, revision))}
        try:
            answer = self.client.call(f"look back at revision {revision}", _RANGE, body)
        except RefusedError as error:
            if error.code != OUT_OF_RANGE:
                raise
            return None
        return Snapshot(revision, tuple(map(self.layout.entry, answer.get("kvs", ()))))

    def after(self, since: int, limit: int) -> Changes | None:
        """Return every change after *since*, about *limit* of them, None when they are not known."""
        what = f"read the history after revision {since}"
        look: Answer = {"key": self.layout.key("x"), "count_only": True}
        now = revision_of(self.client.call(what, _RANGE, look))
        if since == now:
            return Changes(since, ())
        if not 0 <= since < now:
            return None
        deadline = self.client.deadline()
        end = self.writers.mark(what)
        create = {**self.layout.everything(), "start_revision": str(since + 1)}
        while True:
            try:
                stream, first = self.client.stream(what, _WATCH, [{"create_request": create}])
                with closing(stream):
                    if not self.client.remembers(what, look["key"], since):
                        return None
                    return self._read(stream, first, end, limit)
            except (BrokenError, StoreUnavailableError) as error:
                self.client.leave()
                if not deadline.left():
                    msg = f"cannot {what}: {error}"
                    raise StoreUnavailableError(msg) from error
                time.sleep(min(_PAUSE, deadline.left()))

    def _read(self, stream: Stream, message: Answer, end: int, limit: int) -> Changes | None:
        """Read what *stream* tells until it has told of revision *end*, or has told enough."""
        told: list[Change] = []
        times: dict[int, float] = {}
        reached = 0
        while reached < end and len(told) < limit:
            if "compact_revision" in message:
                return None
            if message.get("canceled"):
                msg = f"it broke off: {message.get('cancel_reason', 'no reason given')}"
                raise BrokenError(msg, sent=True)
            for event in message.get("events", ()):
                reached = self._take(event, told, times)  # all of a revision are in one message
            if reached < end and len(told) < limit:
                message = self._next(stream)
        if len(told) > limit:  # a message may have many revisions
            reached = told[limit - 1].revision
        changes = [change for change in told if change.revision <= reached]
        return Changes(reached, tuple(attrs.evolve(c, time=times.get(c.revision, 0.0)) for c in changes))

    def _next(self, stream: Stream) -> Answer:
        message = stream.read(self.client.patience)
        if message is None or "result" not in message:
            msg = f"it broke off: {message}" if message else f"silent for {self.client.patience:.3g} s"
            raise BrokenError(msg, sent=True)
        result: Answer = message["result"]
        return result

    def _take(self, event: Answer, told: list[Change], times: dict[int, float]) -> int:
        """Add what *event* says; return its revision."""
        item = event["kv"]
        revision = int(item["mod_revision"])
        if not self.layout.is_data(item):
            if event.get("type") != "DELETE":
                times[revision] = time_of(item.get("value", ""))
        elif event.get("type") == "DELETE":
            told.append(Change(self.layout.name(item), None, revision))
        else:
            entry = self.layout.entry(item)
            told.append(Change(entry.key, entry.value, revision))
        return revision
