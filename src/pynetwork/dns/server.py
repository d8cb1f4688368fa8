"""The name server of all sandboxes of a process: one thread, and one way from a question to its answer.

What the server answers itself it has ready as bytes, by the very bytes of the question; so the common case
is one look into a table between receiving and sending.
"""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pynetwork.dns import codec
from pynetwork.dns.forward import Asker, Forwarder
from pynetwork.dns.statistics import Counters
from pynetwork.dns.tcp import IDLE_SECONDS, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Sized

    from pynetwork.dns.codec import Body, Question
    from pynetwork.dns.forward import Limits
    from pynetwork.dns.loop import Loop, Timer
    from pynetwork.dns.sockets import Sockets
    from pynetwork.dns.statistics import DnsStatistics
    from pynetwork.dns.zone import Inmate, Server

__all__ = ["NameServer", "place_of"]

_LONGEST: Final = 1536  # of a question over UDP
_AT_ONCE: Final = 64  # questions of one socket before others have their turn
_PAUSE_SECONDS: Final = 0.1
_DRAIN_SECONDS: Final = 0.1
_LONE: Final = 8  # questions that came alone, after which it is tried whether another has come
_CONNECTIONS: Final = 32  # of one sandbox
_ALL_CONNECTIONS: Final = 512
_UDP_MAX: Final = 4096  # bytes of an answer over UDP, whatever the asker says it takes
_PLAIN_OPTIONS: Final = 11  # bytes of an OPT record without options


class Served:
    """A sandbox that is served: what it may know, which may change, and the sockets in it."""

    __slots__ = ("inmate", "netns", "place", "sockets")

    def __init__(self, inmate: Inmate, sockets: Sockets) -> None:
        self.inmate = inmate
        self.netns = inmate.netns
        self.place = place_of(inmate)
        self.sockets = sockets


def place_of(inmate: Inmate) -> object:
    """Return what tells the namespace that a sandbox has now from others; None when it has none."""
    try:
        status = Path(inmate.netns or "").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Udp:
    """A UDP socket of a sandbox, and how many questions are taken from it at once."""

    __slots__ = ("at_once", "lone", "receive", "send", "served")

    def __init__(self, served: Served, opened: socket.socket) -> None:
        self.served = served
        self.receive = opened.recvfrom
        self.send: Callable[[bytes, Any], int] = opened.sendto
        self.at_once = 1
        self.lone = 0


class NameServer:
    """
    Answers in sandboxes. All of it runs in the loop's thread.

    Args:
        loop: Waits for the sockets.
        changes: What is not empty when something has changed; looked at between two questions.
        news: Takes it in, and empties it.
        dial: Opens a socket to ask other servers with.
        host_servers: Returns the host's own name servers.
        limits: Of questions that wait for other servers.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        changes: Sized,
        news: Callable[[], None],
        dial: Callable[[Server, int], socket.socket],
        host_servers: Callable[[], Sequence[Server]],
        limits: Limits,
    ) -> None:
        self.counters = Counters()
        self.served: dict[str, Served] = {}
        self._loop = loop
        self._changes = changes
        self._news = news
        self._host_servers = host_servers
        self._forwarder = Forwarder(loop, dial, self.counters, limits)
        self._connections: dict[Connection, Served] = {}
        self.draining: dict[str, Sockets] = {}
        self._sweep: Timer | None = None
        self._turn = 0

    def statistics(self) -> DnsStatistics:
        """Return what it has done so far."""
        return self.counters.frozen(
            sandboxes=len(self.served), connections=len(self._connections), pending=self._forwarder.count
        )

    def serve(self, inmate: Inmate, sockets: Sockets) -> None:
        """Answer on *sockets* from now on, and own them."""
        served = self.served[inmate.id] = Served(inmate, sockets)
        for opened in sockets.udp:
            self._loop.add(opened.fileno(), partial(self._answer, _Udp(served, opened)))
        for opened in sockets.tcp:
            self._loop.add(opened.fileno(), partial(self._accept, served, opened))

    def holds(self, identity: str | None) -> bool:
        """Whether any socket of it is in that sandbox."""
        return identity in self.served or identity in self.draining

    def leave(self, identity: str) -> None:
        """Close all that is open in a sandbox: sockets keep a namespace alive."""
        for sockets in (self.release(identity), self.draining.pop(identity, None)):
            if sockets is not None:
                sockets.close()
        self._forwarder.drop(identity)
        for connection in [each for each, of in self._connections.items() if of.inmate.id == identity]:
            connection.close()

    def release(self, identity: str) -> Sockets | None:
        """Give the sockets of a sandbox away, unread questions included; what is under way is finished."""
        served = self.served.pop(identity, None)
        if served is None:
            return None
        for opened in (*served.sockets.udp, *served.sockets.tcp):
            self._loop.remove(opened.fileno())
        return served.sockets

    def drain(self, identity: str, sockets: Sockets) -> None:
        """Close the sockets, which were released, once the questions that were read are answered on them."""
        if self._forwarder.waiting(identity):
            self.draining[identity] = sockets
            self._loop.later(_DRAIN_SECONDS, partial(self._drain_more, identity))
        else:
            sockets.close()

    def _drain_more(self, identity: str) -> None:
        sockets = self.draining.pop(identity, None)
        if sockets is not None:
            self.drain(identity, sockets)

    @property
    def is_busy(self) -> bool:
        """Whether anybody still waits for an answer, or may ask on a connection."""
        return bool(self._forwarder.count or self._connections)

    def close(self) -> None:
        """Close everything."""
        for identity in [*self.served, *self.draining]:
            self.leave(identity)
        for connection in list(self._connections):
            connection.close()
        self._forwarder.close()

    # UDP

    def _answer(self, udp: _Udp, _happened: int) -> None:
        """
        Answer what has come in on a socket.

        As many questions as there were the last time, if it was one: to find out that there is no second one
        costs as much as a third of an answer.
        """
        received = prepared = 0
        most = udp.at_once
        try:
            while received < most:
                query, asker = udp.receive(_LONGEST)
                received += 1
                if self._changes:
                    self._news()
                reply = udp.served.inmate.cache.get(query[2:])
                if reply is None:
                    self._ask_udp(udp.served.inmate, udp, query, asker)
                    continue
                prepared += 1
                if reply.__class__ is tuple:
                    self._turn += 1
                    reply = reply[self._turn % len(reply)]
                udp.send(query[:2] + reply, asker)  # type: ignore[operator]  # no tuple any more
            udp.lone += 1
            if most > 1 or udp.lone >= _LONE:
                udp.at_once = min(2 * most, _AT_ONCE)
                udp.lone = 0
        except BlockingIOError:  # all is read; or an asker's buffer is full
            udp.at_once = max(received, 1)
        except OSError:
            self.counters.dropped += 1
        self.counters.queries += received
        self.counters.local += prepared

    def _ask_udp(self, inmate: Inmate, udp: _Udp, query: bytes, address: object) -> None:
        reply = partial(self._reply_udp, udp, address)
        question = self._checked(query, reply)
        if question is None:
            return
        limit = min(question.limit, _UDP_MAX)
        bodies = inmate.view.bodies(question, limit)
        if bodies is None:
            asker = Asker(inmate.id, address, query[:2], limit, False, reply)
            self._forward(inmate, query, question, asker)
            return
        self.counters.local += 1
        if len(query) == question.end + (_PLAIN_OPTIONS if question.edns else 0):
            replies = tuple(codec.reply(query, question, body)[2:] for body in bodies)
            inmate.view.remember(query[2:], replies)
        reply(self._one_of(bodies, query, question))

    def _reply_udp(self, udp: _Udp, address: object, reply: bytes) -> None:
        try:
            udp.send(reply, address)
        except OSError:  # closed meanwhile, or full
            self.counters.dropped += 1

    # TCP

    def _accept(self, served: Served, opened: socket.socket, _happened: int) -> None:
        try:
            accepted, _ = opened.accept()
        except BlockingIOError:  # gone again
            return
        except OSError:  # no descriptor left, say: it waits
            self._loop.pause(opened.fileno(), _PAUSE_SECONDS)
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        siblings = [each for each, other in self._connections.items() if other is served]
        if len(siblings) >= _CONNECTIONS or len(self._connections) >= _ALL_CONNECTIONS:
            min(siblings or self._connections, key=lambda each: each.heard).close()
        if self._sweep is None:
            self._sweep = self._loop.later(IDLE_SECONDS / 2, self._close_idle)
        connection = Connection(self._loop, accepted, partial(self._ask_tcp, served), self._forget)
        self._connections[connection] = served

    def _ask_tcp(self, served: Served, query: bytes, connection: Connection) -> None:
        self.counters.queries += 1
        if self._changes:
            self._news()
        inmate = served.inmate
        question = self._checked(query, connection.send)
        if question is None:
            return
        bodies = inmate.view.bodies(question, Connection.limit)
        if bodies is None:
            asker = Asker(inmate.id, connection, query[:2], Connection.limit, True, connection.send)
            self._forward(inmate, query, question, asker)
            return
        self.counters.local += 1
        connection.send(self._one_of(bodies, query, question))

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def _close_idle(self) -> None:
        """Close the connections that have been silent for long; look again later."""
        oldest = time.monotonic() - IDLE_SECONDS
        for connection in [each for each in self._connections if each.heard < oldest]:
            connection.close()
        again = bool(self._connections)
        self._sweep = self._loop.later(IDLE_SECONDS / 2, self._close_idle) if again else None

    # Both

    def _one_of(self, bodies: tuple[Body, ...], query: bytes, question: Question) -> bytes:
        self._turn += 1
        return codec.reply(query, question, bodies[self._turn % len(bodies)])

    def _checked(self, query: bytes, reply: Callable[[bytes], None]) -> Question | None:
        """Return the question, unless there is something wrong with it, which is answered here."""
        question = codec.parse(query)
        if isinstance(question, codec.Question):
            return question
        if question is None:
            self.counters.dropped += 1
        else:
            self.counters.malformed += 1
            reply(codec.error(query, None, question))
        return None

    def _forward(self, inmate: Inmate, query: bytes, question: Question, asker: Asker) -> None:
        servers = self._host_servers() if inmate.uses_host else inmate.route
        self._forwarder.ask(query, question, servers, asker)
