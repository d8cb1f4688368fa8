"""Stands between a store and a member, and does to requests what bad networks do."""

from __future__ import annotations

import contextlib
import enum
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Fate(enum.Enum):
    """What becomes of a request."""

    PASS = "it is answered"  # noqa: S105 - no password
    LOSE_ANSWER = "it is carried out, and the connection breaks before the answer arrives"
    LOSE_REQUEST = "the connection breaks before it arrives"
    DELAY = "the connection breaks, and it arrives when the test says so"
    SWALLOW = "it arrives nowhere, and the connection stays open"


@attrs.frozen
class Request:
    path: str
    body: dict[str, Any]
    more: list[dict[str, Any]] = attrs.field(factory=list)  # of a stream of requests, as they come

    @property
    def is_transaction(self) -> bool:
        """Whether it is one that writes the caller's own keys, beside the mark of the writer."""
        return self.path == "/v3/kv/txn" and len(self.body.get("success", ())) > 1


class Proxy:
    """
    Passes requests on to one member.

    Args:
        endpoint: Of the member.
        decide: Returns the fate of a request.

    Attributes:
        endpoint: For the store.
        requests: What has come so far.
        is_frozen: While it is set, nothing of what a member says on a stream is passed on.
        withheld: Released for each piece that was not.
        passed: Released for each piece that was.
    """

    def __init__(self, endpoint: str, decide: Callable[[Request], Fate] = lambda _: Fate.PASS) -> None:
        self.target = endpoint
        self.decide = decide
        self.requests: list[Request] = []
        self.is_frozen = threading.Event()
        self.withheld = threading.Semaphore(0)
        self.passed = threading.Semaphore(0)
        self._delayed: list[Request] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def deliver(self) -> list[dict[str, Any]]:
        """Let the requests arrive that were delayed; return the answers, which go nowhere else."""
        delayed, self._delayed = self._delayed, []
        return [json.loads(self._ask(request)[1]) for request in delayed]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, http.client.HTTPException):
            try:
                with sock.makefile("rb") as lines:
                    while (request := self._read(lines)) is not None:
                        if not self._handle(sock, lines, request):
                            break
                    sock.shutdown(socket.SHUT_RDWR)
            finally:
                with self._lock:
                    self._open.discard(sock)

    def _read(self, lines: Any) -> Request | None:
        start = lines.readline().split()
        if not start:
            return None
        length = 0
        while line := lines.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        path = start[1].decode()
        request = Request(path, json.loads(lines.readline() if path == "/v3/watch" else lines.read(length)))
        self.requests.append(request)
        return request

    def _handle(self, sock: socket.socket, lines: Any, request: Request) -> bool:
        """Return whether the connection stays open."""
        fate = self.decide(request)
        if fate is Fate.SWALLOW:
            sock.recv(1)  # until the store hangs up, or the test
        if fate is Fate.DELAY and request.path != "/v3/watch":  # whose answer has no end
            self._delayed.append(request)
        if fate in {Fate.SWALLOW, Fate.DELAY, Fate.LOSE_REQUEST}:
            return False
        if request.path == "/v3/watch":
            self._pipe(sock, lines, request)
            return False
        status, body = self._ask(request)
        if fate is Fate.LOSE_ANSWER:
            return False
        head = f"HTTP/1.1 {status} as it was\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        return True

    def _ask(self, request: Request) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", request.path, json.dumps(request.body))
            response = connection.getresponse()
            return response.status, response.read()

    def _pipe(self, sock: socket.socket, lines: Any, request: Request) -> None:
        place = urlsplit(self.target)
        with socket.create_connection((place.hostname, place.port)) as member:
            with self._lock:
                self._open.add(member)
            try:
                head = f"POST {request.path} HTTP/1.0\r\nContent-Length: {1 << 30}\r\n\r\n"
                member.sendall(f"{head}{json.dumps(request.body)}\n".encode())
                self._start(self._pass_on, lines, member, request)
                while chunk := member.recv(65536):
                    if self.is_frozen.is_set():
                        self.withheld.release()
                    else:
                        sock.sendall(chunk)
                        self.passed.release()
            finally:
                with self._lock:
                    self._open.discard(member)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # who reads its lines finds the end of them

    def _pass_on(self, lines: Any, member: socket.socket, request: Request) -> None:
        """Tell the member what else the store says, until it hangs up."""
        with contextlib.suppress(OSError, ValueError):  # it was closed meanwhile
            for line in lines:
                request.more.append(json.loads(line))
                member.sendall(line)
        with contextlib.suppress(OSError):
            member.shutdown(socket.SHUT_RDWR)
