"""Follows keys under prefixes, come what may: a lost member, a silent one, compaction, another cluster.

One stream carries the watches of all prefixes. What is added or dropped later is said on it, too: a host
that joins one network after the other would begin all its watches again each time.

A stream is resumed after the last revision that came through it. For a watch that begins in the past etcd
reads all that was written since, by anybody, and everybody waits meanwhile; so one that begins far in the
past, because its keys are quiet, is first moved on if they are as they were.

When a stream cannot be resumed any more, the keys are listed again and compared with what the watch knows,
so that it can tell what is gone. Whether that is necessary is looked at every ten minutes, for servers have
lost events (etcd issue 18089), or sooner by lot: a thousand hosts that came together would ask together.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from pynetwork.errors import HistoryLostError, StoreUnavailableError
from pynetwork.log import logger
from pynetwork.store.etcd_answers import OUT_OF_RANGE, PERMISSION_DENIED, RefusedError
from pynetwork.store.etcd_followed import Conversation, Followed, name_of, number_of
from pynetwork.store.etcd_http import BrokenError
from pynetwork.store.etcd_wire import LARGEST, revision_of
from pynetwork.store.port import Change

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from pynetwork.store.etcd_answers import Answer
    from pynetwork.store.etcd_client import Client
    from pynetwork.store.etcd_http import Stream
    from pynetwork.store.etcd_wire import Layout

__all__ = ["Watch"]

_RANGE: Final = "/kv/range"
_TXN: Final = "/kv/txn"
_WATCH: Final = "/watch"
_FAR: Final = 1000  # revisions, of all keys of the cluster, that a stream may go back to be resumed
_TOGETHER: Final = 60  # prefixes of a transaction, with two operations each: etcd takes 128
_LOOKED_AT: Final = 120  # with one operation each
_LONGEST_WAIT: Final = 0.25  # seconds without a look at whether to stop
_IDLE_WAIT: Final = 1.0  # seconds without a look at the clock, when nothing but close() stops it
_SHORTEST_WAIT: Final = 0.05  # changes are told of at once, whatever it is
_BREATH: Final = 0.05  # seconds until another stream is opened for one that broke off
_PAUSE: Final = 0.2  # seconds until the next try, when no member opened a stream


class Watch:
    """
    Follows prefixes by one thread; others may add some.

    Args:
        client: Of the cluster.
        layout: Of the store in it.
        silence: Seconds after which a stream that says nothing is opened anew.
        refresh: Seconds after which it is looked whether an event was lost, at the latest; half of it by lot.
    """

    def __init__(self, client: Client, layout: Layout, *, silence: float, refresh: float) -> None:
        self._client = client
        self._layout = layout
        self._silence = silence
        self._refresh = refresh
        self._due = self._next_due()
        self._lock = threading.Lock()
        self._followed: dict[str, Followed] = {}
        self._stream: Stream | None = None
        self._news = threading.Event()  # others are followed than the stream knows
        self._closed = threading.Event()
        self._may_be_denied = False
        self._is_failing = False

    def add(self, prefix: str, since: int) -> None:
        """Follow *prefix*, too, from revision *since* on: note what there is, to say later what is gone."""
        what, span = f"watch {prefix!r}", self._layout.span(prefix)
        # Revision 0 is before anything; for etcd that is 1.
        body = {**span, "revision": str(max(1, since)), "keys_only": True}
        answer = None
        if 0 <= since <= LARGEST:
            try:
                answer = self._client.call(what, _RANGE, body)
            except RefusedError as error:
                if error.code != OUT_OF_RANGE:
                    raise
        if answer is None:
            msg = (
                f"cannot {what}: the changes after revision {since} are no longer known; "
                "list it again and watch from the revision of that snapshot"
            )
            raise HistoryLostError(msg, since=since)
        known = {self._layout.name(item): int(item["mod_revision"]) for item in answer.get("kvs", ())}
        cluster = answer["header"]["cluster_id"]
        with self._lock:
            self._followed[prefix] = Followed(prefix, span, since, known, cluster)
        self._wake()

    def drop(self, prefix: str) -> None:
        """Follow *prefix* no more."""
        with self._lock:
            known = self._followed.pop(prefix, None)
        if known is not None:
            self._wake()

    def close(self) -> None:
        """End."""
        self._closed.set()
        self._wake()

    def changes(self, stop: threading.Event | None, wait: float) -> Iterator[Change]:
        """Yield the changes until *stop* is set, which is looked at about every *wait* seconds."""
        if stop is None:
            wait = max(_SHORTEST_WAIT, min(_IDLE_WAIT, self._silence / 4))
        else:
            wait = max(_SHORTEST_WAIT, min(wait, _LONGEST_WAIT))
        ends = (self._closed, stop or self._closed)
        while not _is_any(ends):
            followed = self._take_news()
            if not followed:
                self._news.wait(wait)
                continue
            try:
                self._move_on(followed)
                if time.monotonic() > self._due:
                    self._look_again(followed)
                    self._due = self._next_due()
                for each in followed:
                    each.is_confirmed = each.is_stale
                    if each.is_stale:
                        yield from self._compare(each)
                yield from self._follow(followed, ends, wait)
            except BrokenError as error:
                self._note(error)
                self._client.leave()
                ends[1].wait(_BREATH)  # it worked a moment ago
            except StoreUnavailableError as error:
                self._note(error)
                ends[1].wait(_PAUSE)

    def _take_news(self) -> Sequence[Followed]:
        with self._lock:
            if not self._closed.is_set():
                self._news.clear()
            return tuple(self._followed.values())

    def _wake(self) -> None:
        """Have the thread look at what is followed now."""
        with self._lock:
            self._news.set()
            if self._stream is not None:
                self._stream.wake()

    def _move_on(self, followed: Sequence[Followed]) -> None:
        """Say of what is as it was long ago that it is so now. What came and went since is not told."""
        for start in range(0, len(followed), _TOGETHER):
            group = followed[start : start + _TOGETHER]
            body = {"success": [operation for each in group for operation in each.compared()]}
            answer = self._client.call(name_of(group), _TXN, body)
            revision, cluster = revision_of(answer), answer["header"]["cluster_id"]
            ranges = [each["response_range"] for each in answer["responses"]]
            for each, put, there in zip(group, ranges[::2], ranges[1::2], strict=True):
                if cluster != each.cluster or revision < each.revision:
                    each.is_stale = True
                elif revision - each.revision > _FAR and not put.get("kvs"):
                    is_whole = int(there.get("count", 0)) == len(each.known)
                    each.revision = revision if is_whole else each.revision

    def _look_again(self, followed: Sequence[Followed]) -> None:
        """Find what is otherwise than it was told, for all at once: nothing is told meanwhile."""
        for start in range(0, len(followed), _LOOKED_AT):
            group = followed[start : start + _LOOKED_AT]
            body = {"success": [{"request_range": {**each.span, "keys_only": True}} for each in group]}
            answer = self._client.call(name_of(group), _TXN, body)
            for each, response in zip(group, answer["responses"], strict=True):
                items = response["response_range"].get("kvs", ())
                there = {self._layout.name(item): int(item["mod_revision"]) for item in items}
                each.is_stale = each.is_stale or there != each.known

    def _follow(
        self, followed: Sequence[Followed], ends: Sequence[threading.Event], wait: float
    ) -> Iterator[Change]:
        """Yield what a stream tells of *followed*, and of what is added, until another must be opened."""
        token, patience = self._client.token, self._client.patience
        talk = Conversation(followed)
        stream, first = self._client.stream(name_of(followed), _WATCH, talk.requests())
        message: Answer | None = first
        with self._held(stream):
            heard = time.monotonic()
            while not _is_any(ends):
                now = time.monotonic()
                if self._client.is_closed or now > self._due:
                    return
                if message is not None:
                    heard = now
                    if not (yield from self._hear(message, talk, token)):
                        return
                elif talk.waiting and now - max(talk.asked, heard) > patience:
                    msg = f"no answer within {patience:.3g} s"
                    raise BrokenError(msg, sent=True)
                elif now - heard > self._silence:
                    self._note(None)
                    return
                if self._news.is_set() and not talk.change(stream, self._take_news(), patience):
                    return
                message = _read(stream, min(wait, patience) if talk.waiting else wait)

    @contextlib.contextmanager
    def _held(self, stream: Stream) -> Iterator[None]:
        """Let others wake the reader of *stream*, and close it in the end."""
        with contextlib.closing(stream):
            with self._lock:
                self._stream = stream
            try:
                yield
            finally:
                with self._lock:
                    self._stream = None

    def _hear(self, message: Answer, talk: Conversation, token: str | None) -> Generator[Change, None, bool]:
        """Yield what *message* tells, once nothing before it is missing. Return whether to go on."""
        if not talk.is_forgotten(message):
            if not self._is_good(message, talk, token):
                return False
            if message.get("created"):
                talk.waiting.discard(number_of(message))
            elif number_of(message) in talk.unsure:
                talk.backlog.append(message)
            else:
                yield from self._tell(message, talk)
        if talk.waiting or not talk.unsure:
            return True
        return (yield from self._begin(talk))

    def _begin(self, talk: Conversation) -> Generator[Change, None, bool]:
        """Yield what watches that have all begun were told, if they begin where they shall."""
        self._may_be_denied = False
        begun = [talk.watches[number] for number in sorted(talk.unsure)]
        since = min(each.revision for each in begun)
        if not self._client.remembers(name_of(begun), begun[0].span["key"], since):
            self._list_again(begun)
            return False
        talk.unsure.clear()
        backlog, talk.backlog = talk.backlog, []
        for message in backlog:
            if not talk.is_forgotten(message):
                yield from self._tell(message, talk)
        return True

    def _is_good(self, message: Answer, talk: Conversation, token: str | None) -> bool:
        """Whether the stream goes on after *message*."""
        known = talk.watches.get(number_of(message))
        whom = list(talk.watches.values()) if known is None else [known]
        cluster = message.get("header", {}).get("cluster_id")
        if cluster is not None and any(cluster != each.cluster for each in whom):
            for each in talk.watches.values():
                each.is_stale = True
            self._client.leave()  # if the others are where they were, it is this one that is wrong
            return False
        if message.get("created") and not message.get("canceled"):
            behind = [e for e in whom if revision_of(message) < e.revision and not e.is_confirmed]
            for each in behind:
                each.is_stale = True  # a member that lags behind, or all were set back: listing tells
            return not behind
        if message.get("canceled"):
            self._cancelled(message, whom, token)
            return False
        return True

    def _cancelled(self, message: Answer, whom: Sequence[Followed], token: str | None) -> None:
        reason = str(message.get("cancel_reason", ""))
        if "compact_revision" in message:
            self._list_again(whom)
        elif (refusal := RefusedError(reason, PERMISSION_DENIED)).wants_token or "denied" in reason:
            # Denied is what some versions say of a token that is too old, too.
            if self._may_be_denied or not self._client.renew_token(token):
                refusal.by = self._client.names
                raise refusal
            self._may_be_denied = True
        else:
            msg = f"it broke off: {reason or 'no reason given'}"
            raise BrokenError(msg, sent=True)

    def _list_again(self, whom: Sequence[Followed]) -> None:
        since = min(each.revision for each in whom)
        logger().info("%s: what follows revision %d is no longer known", name_of(whom), since)
        for each in whom:
            each.is_stale = True

    def _tell(self, message: Answer, talk: Conversation) -> Iterator[Change]:
        events = message.get("events", ())
        if not events:
            return
        followed = talk.watches[number_of(message)]
        for event in events:
            item = event["kv"]
            revision = int(item["mod_revision"])
            if event.get("type") == "DELETE":
                change = Change(self._layout.name(item), None, revision)
                followed.known.pop(change.key, None)
            else:
                entry = self._layout.entry(item)
                change = Change(entry.key, entry.value, revision)
                followed.known[change.key] = revision
            yield change
        followed.revision = int(events[-1]["kv"]["mod_revision"])  # all of a revision are in one message
        self._note(None)

    def _compare(self, followed: Followed) -> Iterator[Change]:
        """List the keys; yield what the watch does not know."""
        what = name_of([followed])
        answer = self._client.call(what, _RANGE, followed.span)
        revision, cluster = revision_of(answer), answer["header"]["cluster_id"]
        entries = [self._layout.entry(item) for item in answer.get("kvs", ())]
        if cluster != followed.cluster or revision < followed.revision:
            logger().warning("%s: the history is another one now; all is told anew", what)
            changed = entries
        else:
            changed = [entry for entry in entries if followed.known.get(entry.key) != entry.revision]
        known = {entry.key: entry.revision for entry in entries}
        gone = sorted(followed.known.keys() - known.keys())
        followed.known, followed.cluster = known, cluster
        for entry in sorted(changed, key=lambda entry: entry.revision):
            yield Change(entry.key, entry.value, entry.revision)
        for key in gone:
            yield Change(key, None, revision)
        followed.revision = revision
        followed.is_stale = False

    def _next_due(self) -> float:
        return time.monotonic() + self._refresh * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _note(self, error: Exception | None) -> None:
        """Log the first of several failures, and the end of them."""
        if error is not None and not self._is_failing:
            logger().warning("watches of %s: trying again: %s", self._client, error)
        elif error is None and self._is_failing:
            logger().info("watches of %s: go on", self._client)
        self._is_failing = error is not None


def _read(stream: Stream, wait: float) -> Answer | None:
    """Return what *stream* says next, None when that takes longer than *wait* seconds."""
    message = stream.read(wait)
    if message is None:
        return None
    if "result" not in message:
        msg = f"it broke off: {message}"
        raise BrokenError(msg, sent=True)
    result: Answer = message["result"]
    return result


def _is_any(events: Sequence[threading.Event]) -> bool:
    return any(event.is_set() for event in events)
