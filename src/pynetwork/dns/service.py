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
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pynetwork.dns.due import Due, is_unwired
from pynetwork.dns.forward import Limits
from pynetwork.dns.host import HostServers
from pynetwork.dns.loop import Loop
from pynetwork.dns.office import Office
from pynetwork.dns.server import NameServer, place_of
from pynetwork.dns.sockets import Sockets, open_sockets
from pynetwork.dns.statistics import DnsStatistics
from pynetwork.dns.zone import Directory
from pynetwork.engine.journal import tell
from pynetwork.errors import PynetworkError
from pynetwork.kernel.netns import entered, namespace_of_thread
from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pynetwork.dns.place import Place
    from pynetwork.dns.zone import Server
    from pynetwork.engine.mirror import Mirror
    from pynetwork.records import Records

__all__ = ["Service"]

_T = TypeVar("_T")
_TICK_SECONDS: Final = 0.06  # how late a change of another process is seen when nobody asks
_IDLE_TICK_SECONDS: Final = 0.1  # the same when there is no sandbox to serve
_STAND_BY_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 0.005  # how late a change of another process is seen when somebody asks
_QUIET_SECONDS: Final = 0.01
_OVERDUE_SECONDS: Final = 0.25
_READY_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 0.02
_UNREAD_MAX: Final = 1000  # changes, before there is a thread to take them in
_LINGER_SECONDS: Final = 15.0
_IDLE_SECONDS: Final = 5.0


class Service:
    """
    Serves the sandboxes of an instance from this process, unless another one does.

    Args:
        mirror: The instance's store.
        records: The mirror's table of networks, endpoints and sandboxes.
        place: Where the instance's processes meet.
        home: Calls a function in the host's network namespace.
        is_companion: Whether this process is there for nothing else: it serves even if another one does,
            which hands over, and stops when there has been nothing to serve for a while.
        limits: Of questions that wait for other servers.
    """

    def __init__(
        self,
        mirror: Mirror,
        records: Records,
        place: Place,
        home: Callable[[Callable[[], None]], None],
        *,
        is_companion: bool = False,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._mirror = mirror
        self._records = records
        self._place = place
        self._is_companion = is_companion
        self._changes: deque[tuple[str, Any]] = deque()
        self._changed = self._since = self._looked = 0.0
        self._busy = time.monotonic()
        self._directory = Directory()
        self._to_open: dict[str, Due] = {}
        self._home = home
        self._loop = Loop(self._before)
        self._office = Office(self._loop, place, self, is_companion=is_companion)
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
        self._is_closed = self._is_closing = False
        with mirror.lock:
            records.follow(self._follow)

    def ensure(self, sandbox: str) -> None:
        """Return once the names of the sandbox of that id can be asked in it, as far as it is to have any."""
        if self._is_closed or sandbox in self._server.served:
            return
        if not any(row.spec.addresses for row in self._records.joined(sandbox)):
            return
        self.start()
        deadline = time.monotonic() + _READY_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if self._hurried(sandbox, left):
                return
            time.sleep(_AGAIN_SECONDS)  # it is in the making, or the one who served has just gone
        logger().warning("dns: sandbox %s has no name server yet", sandbox[:12])

    def _hurried(self, sandbox: str, seconds: float) -> bool:
        """Have a sandbox served at once; returns whether that is done, or is not going to be soon."""
        outcome: SimpleQueue[bool] = SimpleQueue()
        self._loop.post(partial(self._hurry, sandbox, outcome))
        with suppress(Empty):
            is_settled = outcome.get(timeout=seconds)
            if self._office.is_held:
                return is_settled
        found = self._place.ask({"op": "ready", "sandbox": sandbox}, seconds)
        return found is not None and bool(found.get("settled"))

    def statistics(self) -> DnsStatistics:
        """Return what the server has done so far, in whichever process it is."""
        if not self._office.is_held and self._thread is not None:
            found = self._place.ask({"op": "statistics"}, _READY_SECONDS)
            if found is not None:
                return DnsStatistics(**found)
        return self._server.statistics()

    def revive(self) -> None:
        """See to it that somebody serves, in the namespaces that the sandboxes have now."""
        if not self._records.has_joined():
            return
        self.start()
        done = threading.Event()
        self._loop.post(partial(self._check_then, done))
        done.wait(_READY_SECONDS)
        if not self._office.is_held:
            self._place.ask({"op": "check"}, _READY_SECONDS)

    def stop(self) -> None:
        """Have it end soon. May be called by a handler of signals."""
        self._loop.post(self._loop.stop)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._starting:
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._run, name="pynetwork-dns", daemon=True)
                self._loop.post(self._office.run_for)
                self._home(thread.start)  # a thread is where its maker is: in the host's namespace
                self._thread = thread

    def wait(self) -> None:
        """Return when the service has ended of its own accord, as a companion's does."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop serving; another process that stands by takes over. Idempotent."""
        with self._starting:
            if self._is_closed:
                return
            self._is_closed = True
        with self._mirror.lock:
            self._records.followers.remove(self._follow)
        if self._thread is not None:
            self._loop.post(self._loop.stop)
            self._thread.join()
        self._office.close()
        self._server.close()
        self._loop.close()

    # Called by whoever changes records, with the mirror's lock held

    def _follow(self, key: str, spec: Any) -> None:  # noqa: ANN401 - of the kind that the key says
        self._changed = time.monotonic()
        if not self._changes:
            self._since = self._changed
        self._changes.append((key, spec))
        if self._thread is None and len(self._changes) > _UNREAD_MAX:
            with self._starting:
                if self._thread is None:  # and so nobody else reads them
                    self._take_in()
        if key.startswith("sandbox/") and spec is not None and self._server.holds(key.partition("/")[2]):
            self._loop.post(self._keep_up)  # it may have another namespace, or none
        if not key.startswith("endpoint/"):
            return
        is_joined = spec is not None and spec.sandbox is not None
        if self._thread is None:
            if is_joined:
                self.start()
        elif not is_joined and self._server.holds(self._directory.sandbox_of(key.rpartition("/")[2])):
            self._close_soon()

    def _close_soon(self) -> None:
        """Have sockets closed that would keep a namespace; in a moment, not while others leave and wait."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.post(self._keep_up_soon)

    # The office, in the server's thread as all that follows

    def elected(self, given: Mapping[str, Sockets]) -> None:
        """Serve from now on; in some sandboxes with the sockets that are *given*."""
        self._refresh(wait=True)
        self._take_in()
        for identity, sockets in given.items():
            inmate = self._directory.inmates.get(identity)
            if inmate is None or not inmate.wants_server or identity in self._server.served:
                sockets.close()
            else:
                self._server.serve(inmate, sockets)
        self._directory.touched.update(self._directory.inmates)
        self._loop.post(self._close_left)  # and look again at once what is to be opened

    def release(self) -> Mapping[str, Sockets]:
        """Serve no more, and return the sockets of each sandbox, still open."""
        self._to_open.clear()
        released = {identity: self._server.release(identity) for identity in list(self._server.served)}
        return {identity: sockets for identity, sockets in released.items() if sockets is not None}

    def gave(self, given: Mapping[str, Sockets]) -> None:
        """Close the sockets, which another process has by now, once what is under way is answered."""
        for identity, sockets in given.items():
            self._server.drain(identity, sockets)

    def ready(self, sandbox: str) -> bool:
        """Serve a sandbox at once, if it is to be served; returns False when that is to be tried again."""
        self._refresh(wait=True)
        self._keep_up()
        return self._open(sandbox)

    def check(self) -> None:
        """Serve in the namespaces that the sandboxes have now: a lost one may have been made anew."""
        self._refresh(wait=True)
        self._keep_up()
        for identity, served in list(self._server.served.items()):
            if served.place != place_of(served.inmate):
                self._server.leave(identity)
                self._directory.touched.add(identity)
        self._close_left()
        for identity in list(self._to_open):
            self._open(identity)

    def quit(self, *, at_once: bool) -> None:
        """End the process's service; *at_once*, or when what is under way is answered."""
        if at_once or not self._server.is_busy:
            self._loop.stop()
        else:
            deadline = time.monotonic() + _LINGER_SECONDS
            self._loop.later(_AGAIN_SECONDS, partial(self._linger, deadline))

    def _linger(self, deadline: float) -> None:
        if time.monotonic() > deadline or not self._server.is_busy:
            self._loop.stop()
        else:
            self._loop.later(_AGAIN_SECONDS, partial(self._linger, deadline))

    # Keeping up

    def _run(self) -> None:
        self._at_home = namespace_of_thread()
        self._loop.run()

    def _before(self, happened: bool) -> float:  # noqa: FBT001 - the loop's call
        """Keep up with the records, between two looks at the sockets; returns how long the next may take."""
        if not self._office.is_held:
            self._take_in()
            self._close_left()  # also what was passed on, and waits for answers
            return _TICK_SECONDS if self._server.draining else _STAND_BY_SECONDS
        now = time.monotonic()
        if now - self._looked >= (_FRESH_SECONDS if happened else _TICK_SECONDS):
            self._looked = now
            self._refresh()
        is_quiet = now - self._changed >= _QUIET_SECONDS or now - self._since >= _OVERDUE_SECONDS
        if self._changes and (happened or is_quiet):
            self._take_in()
        self._close_left()
        if self._server.served or self._to_open:
            self._busy = now
            return 0.0 if is_quiet and self._open_one(now) else _TICK_SECONDS
        if self._is_companion and now - self._busy > _IDLE_SECONDS:
            self._loop.stop()
        return _IDLE_TICK_SECONDS

    def _keep_up_soon(self) -> None:
        self._loop.later(_QUIET_SECONDS, self._keep_up)

    def _keep_up(self) -> None:
        self._is_closing = False  # first: whoever leaves from here on has it done again
        self._take_in()
        self._close_left()

    def _hurry(self, sandbox: str, outcome: SimpleQueue[bool]) -> None:
        is_settled = False
        if self._office.is_held:
            self._keep_up()
            is_settled = self._open(sandbox)
        outcome.put(is_settled)

    def _check_then(self, done: threading.Event) -> None:
        if self._office.is_held:
            self.check()
        done.set()

    def _refresh(self, *, wait: bool = False) -> None:
        """Take in what other processes have written, unless somebody is just at it and we need not *wait*."""
        if not self._mirror.lock.acquire(blocking=wait):
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
                self._server.leave(identity)
                self._to_open.pop(identity, None)
                continue
            served = self._server.served.get(identity)
            if served is not None and served.netns == inmate.netns:
                served.inmate = inmate
                continue
            if served is not None:
                self._server.leave(identity)  # it is in another namespace now
            if self._office.is_held:
                self._to_open.setdefault(identity, Due())

    def _open_one(self, now: float) -> bool:
        """Open the sockets of one sandbox that is due; returns whether there are more."""
        due = [identity for identity, due in self._to_open.items() if due.when <= now]
        if due:
            self._open(due[0])
        return len(due) > 1

    def _open(self, identity: str) -> bool:
        """Open the sockets of a sandbox, if it is to have any; returns False when that may work soon."""
        inmate = self._directory.inmates.get(identity)
        if identity not in self._to_open or inmate is None or inmate.netns is None:
            return True
        try:
            sockets = self._visit(inmate.netns, open_sockets)
        except (OSError, PynetworkError) as error:
            if self._to_open[identity].failed(inmate, error):
                event = {"kind": "dns.failed", "scope": f"sandbox/{identity}", "details": [str(error)]}
                tell(self._mirror, "dns", [event])
            return not is_unwired(error)
        self._server.serve(inmate, sockets)
        del self._to_open[identity]
        return True

    def _dial(self, server: Server, kind: int) -> socket.socket:
        """Open a socket from where *server* is asked."""
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        make = partial(socket.socket, family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if server.netns is None:
            return make()
        try:
            return self._visit(server.netns, make)
        except PynetworkError as error:
            raise OSError(errno.ENONET, str(error)) from error

    def _visit(self, netns: str, function: Callable[[], _T]) -> _T:
        """Call *function* in a namespace, in this thread, which is nobody else's."""
        try:
            with entered(netns):
                return function()
        except OSError as error:
            if namespace_of_thread() != self._at_home:  # where nothing that follows would be right
                logger().critical("dns: no way back from %s, the server ends: %s", netns, error)
                self._loop.stop()
            raise
