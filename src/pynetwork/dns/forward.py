"""Asking other servers: in turn, until one answers, and always with an answer in the end."""

from __future__ import annotations

import os
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from pynetwork.dns import codec
from pynetwork.dns.upstream import TcpAttempt, UdpAttempt

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from pynetwork.dns.codec import Question
    from pynetwork.dns.loop import Loop, Timer
    from pynetwork.dns.statistics import Counters
    from pynetwork.dns.zone import Server

__all__ = ["Asker", "Forwarder", "Limits"]

_ALL_SECONDS: Final = 4.5  # resolvers give up after 5 (resolv.conf(5))
_EACH_SECONDS: Final = 1.5
_SILENT_SECONDS: Final = 10.0  # so long a server that was silent is asked last
_ATTEMPTS_MAX: Final = 6
_TRANSFERS: Final = frozenset({251, 252})  # IXFR, AXFR: zones are not passed on
_TRY_NEXT: Final = frozenset({codec.SERVFAIL, codec.REFUSED})


class Limits(NamedTuple):
    """How many questions may wait for other servers, of one sandbox and of all."""

    each: int = 128
    overall: int = 1024


class Asker(NamedTuple):
    """
    Who asks: what tells it from others, and how it is answered.

    Args:
        owner: Its sandbox.
        name: Whatever is its own, such as its address; one that repeats itself is the same.
        id: Of its question.
        limit: Bytes of an answer that it takes.
        is_tcp: Whether it asks with TCP.
        send: Takes the answer.
    """

    owner: str
    name: object
    id: bytes
    limit: int
    is_tcp: bool
    send: Callable[[bytes], None]


class _Pending:
    """A question under way, and all who have asked it in the same words."""

    def __init__(self, key: object, query: bytes, question: Question) -> None:
        self.key = key
        self.query = query
        self.question = question
        self.askers: list[Asker] = []
        self.attempts: list[UdpAttempt | TcpAttempt] = []
        self.best: bytes | None = None
        self.timer: Timer | None = None
        self.deadline: Timer | None = None
        self.left: list[Server] = []
        self.seconds = 0.0


class Forwarder:
    """
    Asks other servers.

    The same question to the same servers is under way once, however many ask it: many copies, each with
    an id of its own, would be as many chances for a forger (RFC 5452 section 5).

    Args:
        loop: The server's.
        dial: Opens a socket of a type (``SOCK_DGRAM``, ``SOCK_STREAM``) from where a server is asked.
        counters: Of the server.
        limits: How much may be under way.
        port: The servers' port.
    """

    def __init__(
        self,
        loop: Loop,
        dial: Callable[[Server, int], socket.socket],
        counters: Counters,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        port: int = 53,
    ) -> None:
        self._loop = loop
        self._dial = dial
        self._counters = counters
        self._limits = limits
        self._port = port
        self._pending: dict[object, _Pending] = {}
        self._waiting: dict[str, int] = {}
        self.count = 0
        self._silent: dict[Server, Timer] = {}

    def ask(self, query: bytes, question: Question, servers: Sequence[Server], asker: Asker) -> None:
        """
        Have *query* answered by one of *servers*; the asker gets an answer in any case, once.

        Args:
            query: The whole message.
            question: What it asks.
            servers: In the order of preference.
            asker: Who asks.
        """
        if question.type in _TRANSFERS or not servers:
            self._fail(query, question, asker, codec.SERVFAIL if not servers else codec.REFUSED)
            return
        key = (tuple(servers), query[2:])
        pending = self._pending.get(key)
        if pending is not None and any(
            (each.owner, each.name, each.id) == (asker.owner, asker.name, asker.id) for each in pending.askers
        ):
            return  # it repeats itself: the answer is on its way
        waiting = self._waiting.get(asker.owner, 0)
        if waiting >= self._limits.each or self.count >= self._limits.overall:
            self._counters.refused += 1
            asker.send(codec.error(query, question, codec.REFUSED))
            return
        self._waiting[asker.owner] = waiting + 1
        self.count += 1
        self._counters.forwarded += 1
        if pending is None:
            pending = self._pending[key] = _Pending(key, query, question)
            pending.askers.append(asker)
            self._begin(pending, servers)
        else:
            pending.askers.append(asker)

    def waiting(self, owner: str) -> int:
        """Return how many questions of a sandbox are under way."""
        return self._waiting.get(owner, 0)

    def drop(self, owner: str) -> None:
        """Forget the questions of a sandbox: it is going, and sockets in it must not keep it."""
        for pending in list(self._pending.values()):
            gone = [asker for asker in pending.askers if asker.owner == owner]
            if gone:
                pending.askers = [asker for asker in pending.askers if asker.owner != owner]
                self._forget(gone)
                if not pending.askers:
                    self._end(pending)

    def close(self) -> None:
        """Forget all questions."""
        for pending in list(self._pending.values()):
            self._forget(pending.askers)
            self._end(pending)
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()

    # The life of a question

    def _begin(self, pending: _Pending, servers: Sequence[Server]) -> None:
        ordered = sorted(servers, key=self._silent.__contains__)
        turns = min(_ATTEMPTS_MAX, max(2, 2 * len(ordered)))
        pending.left = list(islice(cycle(ordered), turns))
        pending.seconds = min(_EACH_SECONDS, _ALL_SECONDS / turns)
        pending.deadline = self._loop.later(_ALL_SECONDS, partial(self._give_up, pending))
        self._try_next(pending)

    def _try_next(self, pending: _Pending) -> None:
        """Ask the next server; those asked before may still answer."""
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None
        while pending.left:
            server = pending.left.pop(0)
            sent = os.urandom(2) + pending.query[2:]
            try:
                opened = self._dial(server, UdpAttempt.kind)
                attempt = UdpAttempt(self._loop, opened, (server.address, self._port), sent)
            except OSError:
                continue  # no such place any more, no route to it, no descriptor left
            self._counters.upstream_queries += 1
            attempt.server = server
            pending.attempts.append(attempt)
            attempt.start(partial(self._came, pending, attempt))
            pending.timer = self._loop.later(pending.seconds, partial(self._silence, pending, attempt))
            return
        if not pending.attempts:
            self._give_up(pending)

    def _silence(self, pending: _Pending, attempt: UdpAttempt) -> None:
        pending.timer = None
        self._counters.upstream_timeouts += 1
        self._mark(attempt.server)
        self._try_next(pending)

    def _came(self, pending: _Pending, attempt: UdpAttempt | TcpAttempt, reply: bytes | None) -> None:
        """Judge what an attempt has brought: an answer, or None when there will be none."""
        if reply is not None and not codec.answers_to(reply, attempt.sent, pending.question):
            self._counters.upstream_rejected += 1
            if isinstance(attempt, UdpAttempt):
                return  # the true answer may still come
            reply = None
        attempt.close()
        pending.attempts.remove(attempt)
        if reply is None:
            if isinstance(attempt, TcpAttempt) and pending.best is not None:
                self._finish(pending, pending.best)  # the truncated one
            else:
                self._try_another(pending, attempt.server)
            return
        self._unmark(attempt.server)
        if reply[3] & 0xF in _TRY_NEXT:
            pending.best = pending.best or reply
            self._try_another(pending, attempt.server)
        elif reply[2] & codec.TC and isinstance(attempt, UdpAttempt) and self._wants_all(pending):
            pending.best = reply
            self._try_tcp(pending, attempt)
        else:
            self._finish(pending, reply)

    def _try_another(self, pending: _Pending, server: Server) -> None:
        """Ask the next server, and *server*, which has said what it has to say, no more."""
        pending.left = [each for each in pending.left if each != server]
        self._try_next(pending)

    @staticmethod
    def _wants_all(pending: _Pending) -> bool:
        """Whether anybody takes more than fits into a UDP message of old."""
        return any(asker.limit > codec.UDP_LIMIT for asker in pending.askers)

    def _try_tcp(self, pending: _Pending, truncated: UdpAttempt) -> None:
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None
        self._counters.upstream_tcp += 1
        try:
            opened = self._dial(truncated.server, TcpAttempt.kind)
            attempt = TcpAttempt(self._loop, opened, (truncated.server.address, self._port), truncated.sent)
        except OSError:
            self._finish(pending, pending.best)
            return
        attempt.server = truncated.server
        pending.attempts.append(attempt)
        attempt.start(partial(self._came, pending, attempt))

    def _give_up(self, pending: _Pending) -> None:
        for attempt in pending.attempts:
            self._mark(attempt.server)
        self._finish(pending, pending.best)

    def _finish(self, pending: _Pending, reply: bytes | None) -> None:
        """Answer all who ask, in the words of their question."""
        self._end(pending)
        self._forget(pending.askers)
        query, question = pending.query, pending.question
        for asker in pending.askers:
            if reply is None:
                self._fail(query, question, asker, codec.SERVFAIL)
            elif reply[4:6] == b"\0\0":
                asker.send(asker.id + codec.error(query, question, reply[3] & 0xF)[2:])
            else:
                whole = asker.id + reply[2 : codec.HEADER] + query[codec.HEADER : question.end]
                whole += reply[question.end :]
                asker.send(whole if len(whole) <= asker.limit else codec.truncated(whole, question))

    def _fail(self, query: bytes, question: Question, asker: Asker, rcode: int) -> None:
        if rcode == codec.SERVFAIL:
            self._counters.failed += 1
        else:
            self._counters.refused += 1
        asker.send(asker.id + codec.error(query, question, rcode)[2:])

    def _end(self, pending: _Pending) -> None:
        self._pending.pop(pending.key, None)
        for timer in (pending.timer, pending.deadline):
            if timer is not None:
                timer.cancel()
        for attempt in pending.attempts:
            attempt.close()
        pending.attempts.clear()
        pending.left.clear()

    def _forget(self, askers: Sequence[Asker]) -> None:
        for asker in askers:
            self.count -= 1
            self._waiting[asker.owner] -= 1
            if not self._waiting[asker.owner]:
                del self._waiting[asker.owner]

    # Servers that are silent

    def _mark(self, server: Server) -> None:
        self._unmark(server)
        self._silent[server] = self._loop.later(_SILENT_SECONDS, partial(self._unmark, server))

    def _unmark(self, server: Server) -> None:
        timer = self._silent.pop(server, None)
        if timer is not None:
            timer.cancel()
