"""The name server as a part of an instance: follows its records, opens and closes, in a thread of its own.

Whoever wires containers must not wait for it. So a record that changes costs them an entry in a queue; the
thread takes the queue in when somebody asks a name, or when nobody has changed anything for a moment, and
opens what is to be opened then. Who cannot wait, because it starts a program, says so (:meth:`ensure`).
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pynetwork.dns.forward import Limits
from pynetwork.dns.host import HostServers
from pynetwork.dns.loop import Loop
from pynetwork.dns.server import NameServer
from pynetwork.dns.sockets import open_sockets
from pynetwork.dns.zone import Directory
from pynetwork.errors import PynetworkError
from pynetwork.kernel.netns import Namespaces
from pynetwork.log import logger

if TYPE_CHECKING:
    from pynetwork.dns.statistics import DnsStatistics
    from pynetwork.dns.zone import Inmate, Server
    from pynetwork.engine.mirror import Mirror
    from pynetwork.records import Records

__all__ = ["Service"]

_TICK_SECONDS: Final = 0.04  # how late a change of another process is seen when nobody asks
_FRESH_SECONDS: Final = 0.005  # how late when somebody does
_QUIET_SECONDS: Final = 0.01
_OVERDUE_SECONDS: Final = 0.25
_READY_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = (0.02, 1.0)  # after a failure: first, and at most
_UNWIRED: Final = frozenset({errno.ENOENT, errno.EINVAL})  # in the making, or going


class Service:
    """
    Serves the sandboxes of an instance from this process.

    Args:
        mirror: The instance's store.
        records: The mirror's table of networks, endpoints and sandboxes.
        limits: Of questions that wait for other servers.
    """

    def __init__(self, mirror: Mirror, records: Records, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._mirror = mirror
        self._records = records
        self._changes: deque[tuple[str, Any]] = deque()
        self._changed = 0.0
        self._since = 0.0
        self._looked = 0.0
        self._directory = Directory()
        self._to_open: dict[str, _Due] = {}
        self._places: dict[str, str] = {}  # sandboxes that are served, and where
        self._namespaces = Namespaces()
        self._loop = Loop(self._before)
        self._server = NameServer(
            self._loop,
            changes=self._changes,
            news=self._take_in,
            dial=self._dial,
            host_servers=HostServers(),
            limits=limits,
        )
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        with mirror.lock:
            records.follow(self._follow)

    def ensure(self, sandbox: str) -> None:
        """Return once the names of the sandbox of that id can be asked in it, as far as it is to have any."""
        if self._is_closed or sandbox in self._server.served:
            return
        if not any(row.spec.addresses for row in self._records.joined(sandbox)):
            return
        self._start()
        done = threading.Event()
        self._loop.post(partial(self._hurry, sandbox, done))
        if not done.wait(_READY_SECONDS):
            logger().warning("dns: sandbox %s has no name server yet", sandbox[:12])

    def statistics(self) -> DnsStatistics:
        """Return what the server has done so far."""
        return self._server.statistics()

    def close(self) -> None:
        """Stop serving. Idempotent."""
        with self._starting:
            if self._is_closed:
                return
            self._is_closed = True
        with self._mirror.lock:
            self._records.followers.remove(self._follow)
        if self._thread is not None:
            self._loop.post(self._loop.stop)
            self._thread.join()
        self._server.close()
        self._loop.close()
        self._namespaces.close()

    # Called by whoever changes records, with the mirror's lock held

    def _follow(self, key: str, spec: Any) -> None:  # noqa: ANN401 - of the kind that the key says
        if not self._changes:
            self._since = time.monotonic()
        self._changed = time.monotonic()
        self._changes.append((key, spec))
        if key.startswith("sandbox/") and key.partition("/")[2] in self._server.served:
            self._loop.post(self._keep_up)  # it may have another namespace, or none
        if not key.startswith("endpoint/"):
            return
        is_joined = spec is not None and spec.sandbox is not None
        if self._thread is None:
            if is_joined:
                self._start()
        elif not is_joined and self._directory.sandbox_of(key.rpartition("/")[2]) in self._server.served:
            self._loop.post(self._keep_up)  # its sockets must not keep the namespace

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._loop.run, name="pynetwork-dns", daemon=True)
                self._namespaces.home(thread.start)  # a thread is where its maker is: the host's namespace
                self._thread = thread

    # The server's thread

    def _before(self, happened: bool) -> float:  # noqa: FBT001 - the loop's call
        """Keep up with the records, between two looks at the sockets; returns how long the next may take."""
        now = time.monotonic()
        if now - self._looked >= (_FRESH_SECONDS if happened else _TICK_SECONDS):
            self._looked = now
            self._refresh()
        is_quiet = now - self._changed >= _QUIET_SECONDS or now - self._since >= _OVERDUE_SECONDS
        if self._changes and (happened or is_quiet):
            self._take_in()
        self._close_left()
        if is_quiet and self._to_open and self._open_one(now):
            return 0.0
        return _TICK_SECONDS

    def _keep_up(self) -> None:
        self._take_in()
        self._close_left()

    def _hurry(self, sandbox: str, done: threading.Event) -> None:
        self._keep_up()
        if sandbox in self._to_open:
            self._open(sandbox)
        done.set()

    def _refresh(self) -> None:
        """Take in what other processes have written, unless somebody is just at it."""
        if not self._mirror.lock.acquire(blocking=False):
            return
        try:
            self._mirror.refresh()
        except PynetworkError as error:
            logger().debug("dns: the records cannot be read: %s", error)
        finally:
            self._mirror.lock.release()

    def _take_in(self) -> None:
        changes, directory = self._changes, self._directory
        while changes:
            key, spec = changes.popleft()
            if key:
                directory.put(key, spec)
            else:
                directory.clear()

    def _close_left(self) -> None:
        """Close what is no longer to be served, note what is to be."""
        touched = self._directory.touched
        while touched:
            identity = touched.pop()
            inmate = self._directory.inmates.get(identity)
            if inmate is None or not inmate.wants_server:
                self._leave(identity)
                self._to_open.pop(identity, None)
                continue
            if self._places.get(identity, inmate.netns) != inmate.netns:
                self._leave(identity)
            if identity not in self._server.served:
                self._to_open.setdefault(identity, _Due())
            else:
                self._server.served[identity].inmate = inmate

    def _leave(self, identity: str) -> None:
        self._server.leave(identity)
        self._places.pop(identity, None)

    def _open_one(self, now: float) -> bool:
        """Open the sockets of one sandbox that is due; returns whether there are more."""
        due = [identity for identity, due in self._to_open.items() if due.when <= now]
        if due:
            self._open(due[0])
        return len(due) > 1

    def _open(self, identity: str) -> None:
        inmate = self._directory.inmates[identity]
        if inmate.netns is None:
            return
        try:
            sockets = self._namespaces.call(inmate.netns, open_sockets)
        except (OSError, PynetworkError) as error:
            self._to_open[identity].failed(inmate, error)
            return
        self._server.serve(inmate, sockets)
        self._places[identity] = inmate.netns
        del self._to_open[identity]

    def _dial(self, server: Server, kind: int) -> socket.socket:
        """Open a socket from where *server* is asked."""
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        make = partial(socket.socket, family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if server.netns is None:
            return make()
        try:
            return self._namespaces.call(server.netns, make)
        except PynetworkError as error:
            raise OSError(errno.ENONET, str(error)) from error


class _Due:
    """When a sandbox is to be tried, and how often it has failed."""

    def __init__(self) -> None:
        self.when = 0.0
        self._seconds, self._most = _RETRY_SECONDS
        self._is_told = False

    def failed(self, inmate: Inmate, error: Exception) -> None:
        """Try again later, each time a little later."""
        self.when = time.monotonic() + self._seconds
        self._seconds = min(2 * self._seconds, self._most)
        if not self._is_told and getattr(error, "errno", None) not in _UNWIRED:
            self._is_told = True
            logger().warning("dns: no name server in sandbox %s: %s", inmate.id[:12], error)
