"""Follows the keys under a prefix, come what may: a lost member, a silent one, compaction, another cluster.

A stream is resumed after the last revision that came through it. When that is no longer possible, the
keys are listed again and compared with what the watch knows, so that it can tell what is gone. The
same is done every ten minutes: servers have lost events (etcd issue 18089).
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from pynetwork.errors import HistoryLostError, StoreUnavailableError
from pynetwork.log import logger
from pynetwork.store.etcd_answers import OUT_OF_RANGE, PERMISSION_DENIED, RefusedError
from pynetwork.store.etcd_http import BrokenError
from pynetwork.store.etcd_wire import LARGEST, revision_of
from pynetwork.store.port import Change

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from pynetwork.store.etcd_answers import Answer
    from pynetwork.store.etcd_client import Client
    from pynetwork.store.etcd_http import Stream
    from pynetwork.store.etcd_wire import Layout

__all__ = ["Watch"]

_RANGE: Final = "/kv/range"
_WATCH: Final = "/watch"
_LONGEST_WAIT: Final = 0.25  # seconds without a look at whether to stop
_SHORTEST_WAIT: Final = 0.05  # changes are told of at once, whatever it is
_BREATH: Final = 0.05  # seconds until another stream is opened for one that broke off
_PAUSE: Final = 0.2  # seconds until the next try, when no member opened a stream


class Watch:
    """
    One watch, by one thread.

    Args:
        client: Of the cluster.
        layout: Of the store in it.
        prefix: Of the keys to follow.
        since: The revision after which to begin.
        silence: Seconds after which a stream that says nothing is opened anew.
        refresh: Seconds after which the keys are listed and compared.
    """

    def __init__(
        self,
        client: Client,
        layout: Layout,
        prefix: str,
        since: int,
        *,
        silence: float,
        refresh: float,
    ) -> None:
        self._client = client
        self._layout = layout
        self._prefix = prefix
        self._silence = silence
        self._refresh = refresh
        self._what = f"watch {prefix!r}"
        self._span = layout.span(prefix)
        self._revision = since  # all until then was told
        self._known: dict[str, int] = {}  # key to revision, as told
        self._cluster = ""
        self._is_stale = False  # the keys must be listed
        self._is_confirmed = False  # they were, right before the stream was opened
        self._listed = 0.0
        self._may_be_denied = False
        self._is_failing = False

    def changes(self, stop: threading.Event, wait: float) -> Iterator[Change]:
        """Yield the changes until *stop* is set, which is looked at about every *wait* seconds."""
        self._begin()
        wait = max(_SHORTEST_WAIT, min(wait, _LONGEST_WAIT))
        while not stop.is_set():
            try:
                self._is_confirmed = self._is_stale or self._is_due()
                if self._is_confirmed:
                    yield from self._compare()
                token = self._client.token
                stream, first = self._client.stream(self._what, _WATCH, self._request())
                with closing(stream):
                    if not self._client.remembers(self._what, self._span["key"], self._revision):
                        self._list_again()
                        continue
                    yield from self._follow(stream, first, stop, wait, token)
            except BrokenError as error:
                self._note(error)
                self._client.leave()
                stop.wait(_BREATH)  # it worked a moment ago
            except StoreUnavailableError as error:
                self._note(error)
                stop.wait(_PAUSE)

    def _begin(self) -> None:
        """Note what there is, so that later it can be said what is gone."""
        # Revision 0 is before anything; for etcd that is 1.
        body = {**self._span, "revision": str(max(1, self._revision)), "keys_only": True}
        answer = None
        if 0 <= self._revision <= LARGEST:
            try:
                answer = self._client.call(self._what, _RANGE, body)
            except RefusedError as error:
                if error.code != OUT_OF_RANGE:
                    raise
        if answer is None:
            msg = (
                f"cannot {self._what}: the changes after revision {self._revision} are no longer known; "
                "list it again and watch from the revision of that snapshot"
            )
            raise HistoryLostError(msg, since=self._revision)
        self._known = {self._layout.name(item): int(item["mod_revision"]) for item in answer.get("kvs", ())}
        self._cluster = answer["header"]["cluster_id"]
        self._listed = time.monotonic()

    def _request(self) -> dict[str, Any]:
        create = {**self._span, "start_revision": str(self._revision + 1), "progress_notify": True}
        return {"create_request": create}

    def _follow(
        self, stream: Stream, message: Answer | None, stop: threading.Event, wait: float, token: str | None
    ) -> Iterator[Change]:
        """Yield what *stream* tells, beginning with *message*, until it must be opened anew."""
        heard = time.monotonic()
        while not stop.is_set():
            if message is not None:
                if not self._is_good(message, token):
                    return
                heard = time.monotonic()
                yield from self._tell(message)
            elif time.monotonic() - heard > self._silence:
                self._note(None)
                return
            if self._client.is_closed or self._is_due():
                return
            message = stream.read(wait)
            if message is not None:
                message = self._result(message)

    def _result(self, message: Answer) -> Answer:
        if "result" not in message:
            msg = f"it broke off: {message}"
            raise BrokenError(msg, sent=True)
        result: Answer = message["result"]
        return result

    def _is_good(self, message: Answer, token: str | None) -> bool:
        """Whether the stream goes on after *message*."""
        header = message.get("header", {})
        if header.get("cluster_id", self._cluster) != self._cluster:
            self._is_stale = True
            self._client.leave()  # if the others are where they were, it is this one that is wrong
            return False
        if message.get("created") and revision_of(message) < self._revision and not self._is_confirmed:
            self._is_stale = True  # a member that lags behind, or all were set back: listing tells
            return False
        if not message.get("canceled"):
            self._may_be_denied = False
            return True
        self._cancelled(message, token)
        return False

    def _cancelled(self, message: Answer, token: str | None) -> None:
        reason = str(message.get("cancel_reason", ""))
        if "compact_revision" in message:
            self._list_again()
        elif (refusal := RefusedError(reason, PERMISSION_DENIED)).wants_token or "denied" in reason:
            # Denied is what some versions say of a token that is too old, too.
            if self._may_be_denied or not self._client.renew_token(token):
                refusal.by = self._client.names
                raise refusal
            self._may_be_denied = True
        else:
            msg = f"it broke off: {reason or 'no reason given'}"
            raise BrokenError(msg, sent=True)

    def _list_again(self) -> None:
        logger().info("%s: what follows revision %d is no longer known", self._what, self._revision)
        self._is_stale = True

    def _tell(self, message: Answer) -> Iterator[Change]:
        events = message.get("events", ())
        for event in events:
            item = event["kv"]
            revision = int(item["mod_revision"])
            if event.get("type") == "DELETE":
                change = Change(self._layout.name(item), None, revision)
                self._known.pop(change.key, None)
            else:
                entry = self._layout.entry(item)
                change = Change(entry.key, entry.value, revision)
                self._known[change.key] = revision
            yield change
        if events:
            self._revision = int(events[-1]["kv"]["mod_revision"])  # all of a revision are in one message
            self._note(None)

    def _compare(self) -> Iterator[Change]:
        """List the keys; yield what the watch does not know."""
        answer = self._client.call(self._what, _RANGE, self._span)
        revision, cluster = revision_of(answer), answer["header"]["cluster_id"]
        entries = [self._layout.entry(item) for item in answer.get("kvs", ())]
        if cluster != self._cluster or revision < self._revision:
            logger().warning("%s: the history is another one now; all is told anew", self._what)
            changed = entries
        else:
            changed = [entry for entry in entries if self._known.get(entry.key) != entry.revision]
        known = {entry.key: entry.revision for entry in entries}
        gone = sorted(self._known.keys() - known.keys())
        self._known, self._cluster = known, cluster
        for entry in sorted(changed, key=lambda entry: entry.revision):
            yield Change(entry.key, entry.value, entry.revision)
        for key in gone:
            yield Change(key, None, revision)
        self._revision = revision
        self._listed = time.monotonic()
        self._is_stale = False

    def _is_due(self) -> bool:
        return time.monotonic() - self._listed > self._refresh

    def _note(self, error: Exception | None) -> None:
        """Log the first of several failures, and the end of them."""
        if error is not None and not self._is_failing:
            logger().warning("%s: trying again: %s", self._what, error)
        elif error is None and self._is_failing:
            logger().info("%s: goes on", self._what)
        self._is_failing = error is not None
