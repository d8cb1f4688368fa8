"""Asking names from inside sandboxes, and servers elsewhere that answer, lie, truncate, stall and die."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import dns.flags
import dns.message
import dns.query
import dns.rdatatype

from pynetwork.kernel.netns import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Sandbox

SERVER = "127.0.0.11"


class Dug(NamedTuple):
    """What ``dig`` says."""

    status: str
    flags: frozenset[str]
    answers: list[str]


def dig(sandbox: Sandbox, name: str, *arguments: str, server: str = SERVER) -> Dug:
    """Ask with ``dig`` in *sandbox*; the answers are sorted."""
    done = sandbox.run(
        ["dig", f"@{server}", "+tries=1", "+time=8", "+noall", "+comments", "+answer", name, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
    status, flags, answers = "no answer", frozenset[str](), []
    for line in done.stdout.splitlines():
        if "status:" in line:
            status = line.partition("status: ")[2].partition(",")[0]
        elif line.startswith(";; flags:"):
            flags = frozenset(line.partition("flags: ")[2].partition(";")[0].split())
        elif line and not line.startswith(";"):
            answers.append(line.split(maxsplit=4)[4])
    return Dug(status, flags, sorted(answers))


def getent(sandbox: Sandbox, name: str, database: str = "ahosts") -> set[str]:
    """Return the addresses that glibc finds in *sandbox*."""
    done = sandbox.run(["getent", database, name], capture_output=True, text=True, timeout=30)
    return {line.split()[0] for line in done.stdout.splitlines()}


def ask(
    path: object,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    edns: int | None = None,
    seconds: float = 8,
) -> dns.message.Message:
    """Ask with dnspython from the namespace *path*."""
    query = dns.message.make_query(name, dns.rdatatype.from_text(kind))
    if edns is not None:
        query.use_edns(payload=edns)
    with entered(str(path)):
        call: Any = dns.query.tcp if tcp else dns.query.udp
        reply: dns.message.Message = call(query, SERVER, timeout=seconds)
        return reply


def texts(message: dns.message.Message) -> list[str]:
    """Return the answers of a message, sorted."""
    return sorted(str(item) for rrset in message.answer for item in rrset)


def record(query: bytes, address: str = "192.0.2.80", *, count: int = 1) -> bytes:
    """Return a true answer to *query*: *count* addresses, the first of which is *address*."""
    question = dns.message.from_wire(query)
    reply = dns.message.make_response(question, recursion_available=True)
    first = struct.unpack("!I", socket.inet_aton(address))[0]
    listed = [socket.inet_ntoa(struct.pack("!I", first + number)) for number in range(count)]
    rrset = dns.rrset.from_text_list(question.question[0].name, 30, "IN", "A", listed)
    reply.answer.append(rrset)
    return reply.to_wire(max_size=65535)


def refusal(query: bytes, rcode: int) -> bytes:
    """Return an answer that is only an rcode."""
    reply = dns.message.make_response(dns.message.from_wire(query))
    reply.set_rcode(dns.rcode.Rcode(rcode))
    return reply.to_wire()


def cut(query: bytes) -> bytes:
    """Return an answer that says: come back with TCP."""
    reply = dns.message.make_response(dns.message.from_wire(query))
    reply.flags |= dns.flags.TC
    return reply.to_wire()


class Upstream:
    """
    A name server, UDP and TCP, that behaves as a test wants.

    Args:
        address: Where it listens, on port 53, in the calling thread's namespace.
        behave: Makes its reply, several, or None for silence, of a query and whether it came with TCP; may be
            replaced at any time.
    """

    def __init__(self, address: str, behave: Any = lambda query, _tcp: record(query)) -> None:
        self.behave: Any = behave
        self.queries: list[tuple[bytes, str, int, bool]] = []
        self._stop = threading.Event()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._tcp = socket.socket(family, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._udp.bind((address, 53))
        self._tcp.bind((address, 53))
        self._tcp.listen()
        self._thread = threading.Thread(target=self._run, name="upstream")
        self._thread.start()

    def close(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._udp.close()
            self._tcp.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._udp, selectors.EVENT_READ)
            selector.register(self._tcp, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.02):
                    if key.fileobj is self._udp:
                        query, asker = self._udp.recvfrom(65535)
                        for reply in self._replies(query, asker, tcp=False):
                            self._udp.sendto(reply, asker)
                    else:
                        self._serve_tcp()

    def _serve_tcp(self) -> None:
        connection, asker = self._tcp.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1.0)
            size = int.from_bytes(connection.recv(2), "big")
            query = connection.recv(size)
            for reply in self._replies(query, asker, tcp=True):
                connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def _replies(self, query: bytes, asker: Any, *, tcp: bool) -> list[bytes]:
        self.queries.append((query, asker[0], asker[1], tcp))
        reply = self.behave(query, tcp)
        if reply is None:
            return []
        return reply if isinstance(reply, list) else [reply]


@contextlib.contextmanager
def upstream(
    path: object, address: str, behave: Any = lambda query, _tcp: record(query)
) -> Iterator[Upstream]:
    """Return a server in the namespace *path*, for the ``with`` block."""
    with entered(str(path)):
        server = Upstream(address, behave)
    try:
        yield server
    finally:
        server.close()
