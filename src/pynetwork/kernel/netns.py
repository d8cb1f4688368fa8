"""Network namespaces: made, pinned, opened and entered, by a thread of ours and never by the caller's.

A namespace belongs to a thread. One worker enters namespaces for everybody, which costs a hand-off
of some ten microseconds and means that no signal, no exception and no slow caller can leave a
thread of the program in the wrong one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from pynetwork.errors import InvalidValueError, UnavailableError
from pynetwork.kernel import syscalls
from pynetwork.kernel.netlink import NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "IP_NETNS",
    "Namespaces",
    "entered",
    "is_pinned",
    "make_directory",
    "open_namespace",
    "remove_directory",
    "unpin",
]

T = TypeVar("T")
#: Where iproute2 keeps namespaces.
IP_NETNS: Final = Path("/run/netns")
_OWN: Final = "/proc/thread-self/ns/net"
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h
_FEW: Final = 2  # spares; as few are made up for at once
_QUIET_SECONDS: Final = 0.005
_TMPFS_FLAGS: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


class _Job:
    """Work for the worker, and its outcome."""

    __slots__ = ("done", "error", "function", "result")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.result: object = None
        self.error: BaseException | None = None
        self.done = threading.Lock()  # the cheapest thing to wait for
        self.done.acquire()


class Namespaces:
    """
    Makes and enters network namespaces in threads of its own.

    Making one takes as long as all the rest of a container. So from the first on, some are kept
    ready, made while the caller does something else: open descriptors that nobody sees, and that go
    with the process.

    The threads' home is the namespace of the thread that makes this object.

    Args:
        prepare: Called in each new namespace, before anything else happens in it; opens a socket in it.
        spares: How many are kept ready.
    """

    def __init__(self, prepare: Callable[[], NetlinkSocket] = NetlinkSocket, *, spares: int = 0) -> None:
        self._prepare = prepare
        self._spares = Spares(self._new, spares)
        self._home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        self._home_id = _identity(os.fstat(self._home))
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._closed = False
        self._lost = False

    def call(self, path: str, function: Callable[[], T]) -> T:
        """
        Return what *function* returns when it is called in the namespace that *path* is.

        Sockets it opens and processes it starts stay there; it must not block for long.
        """
        return self._run(lambda: self._inside(path, function))

    def home(self, function: Callable[[], T]) -> T:
        """Return what *function* returns when it is called in the host's own namespace."""
        if not self._closed and _identity(os.stat(_OWN)) == self._home_id:  # noqa: PTH116 - often asked
            return function()  # the calling thread is there

        def at_home() -> T:
            self._go_home()  # a thread starts where its maker is at that moment, perhaps in a sandbox
            return function()

        return self._run(at_home)

    @property
    def home_path(self) -> str:
        """A path of the host's own namespace, for this process."""
        return f"/proc/self/fd/{self._home}"

    def create(self, path: str) -> Opened:
        """Make a namespace and pin it with a new file *path*; the caller closes what it is given."""
        opened = self._spares.take()
        if opened is None:
            opened = self._run(self._new)
        try:
            _pin(opened.descriptor, path)
        except BaseException:
            opened.close()
            raise
        return opened

    def pin(self, source: str, path: str) -> None:
        """Pin the existing namespace that *source* is with a new file *path*."""
        descriptor = open_namespace(source)
        try:
            _pin(descriptor, path)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End the thread. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._spares.close()
            if self._jobs is not None:
                self._jobs.put(None)
                self._thread.join()
            os.close(self._home)

    def _new(self) -> Opened:
        """Return a new namespace, prepared. For a thread that may go astray."""
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            socket = self._prepare()
            try:
                return Opened(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC), socket)
            except BaseException:
                socket.close()
                raise
        finally:
            self._go_home()

    def _inside(self, path: str, function: Callable[[], T]) -> T:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        try:
            return function()
        finally:
            self._go_home()

    def _run(self, function: Callable[[], T]) -> T:
        job = _Job(function)
        with self._lock:
            if self._closed:
                msg = "the namespace worker is closed"
                raise UnavailableError(msg)
            if self._jobs is None:
                self._jobs = SimpleQueue()
                self._thread = threading.Thread(
                    target=self._work, args=(self._jobs,), name="pynetwork-netns", daemon=True
                )
                self._thread.start()
            self._jobs.put(job)
        job.done.acquire()
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]  # what the function returned

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            try:
                job.result = job.function()
            except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
                job.error = error
            if self._lost:
                self._abandon(jobs)
            job.done.release()
            del job  # or the last one's result lives until the next comes

    def _go_home(self) -> None:
        try:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)
        except BaseException:
            self._lost = True
            raise

    def _abandon(self, jobs: SimpleQueue[_Job | None]) -> None:
        """Serve nobody from the wrong namespace: fail what waits; the next call starts a new thread."""
        with self._lock:
            self._lost = False
            self._jobs = None
            waiting = [jobs.get() for _ in range(jobs.qsize())]
        for job in waiting:
            if job is not None:
                job.error = UnavailableError("the namespace worker was lost; try again")
                job.done.release()
        jobs.put(None)


class Opened(NamedTuple):
    """A namespace that is open: whoever holds this keeps it alive."""

    descriptor: int
    socket: NetlinkSocket

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
        self.socket.close()


class Spares:
    """
    New namespaces, made ahead by a thread of their own.

    They are made when nobody has wanted one for a while, or when few are left: making them takes the
    kernel's and the interpreter's locks from whoever is wiring containers just now.

    Args:
        make: Returns one. It runs in that thread.
        size: How many are kept; 0 for none, and no thread.
    """

    def __init__(self, make: Callable[[], Opened], size: int) -> None:
        self._make = make
        self._size = size
        self._ready: list[Opened] = []
        self._wanted = threading.Condition()
        self._last_taken = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self) -> Opened | None:
        """Return one that is ready, None when there is none; from now on some are made ahead."""
        if not self._size:
            return None
        with self._wanted:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="pynetwork-spares", daemon=True)
                self._thread.start()
            self._last_taken = time.monotonic()
            if len(self._ready) in {_FEW, self._size}:
                self._wanted.notify()
            return self._ready.pop() if self._ready else None

    def close(self) -> None:
        """Close those that are left and end the thread."""
        with self._wanted:
            self._closed = True
            self._wanted.notify()
        if self._thread is not None:
            self._thread.join()
        while self._ready:
            self._ready.pop().close()

    def _work(self) -> None:
        while self._wait():
            try:
                opened = self._make()
            except OSError:
                return  # the next caller makes its own, and hears why it cannot
            with self._wanted:
                self._ready.append(opened)

    def _wait(self) -> bool:
        """Wait until one should be made; False when it is time to end."""
        with self._wanted:
            while not self._closed:
                missing = self._size - len(self._ready)
                quiet = time.monotonic() - self._last_taken
                if missing and (len(self._ready) < _FEW or quiet >= _QUIET_SECONDS):
                    return True
                self._wanted.wait(_QUIET_SECONDS - quiet if missing else None)
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _pin(descriptor: int, path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
    try:
        syscalls.mount(f"/proc/self/fd/{descriptor}", path, "none", syscalls.MS_BIND)
    except BaseException:
        Path(path).unlink()
        raise


def open_namespace(path: str) -> int:
    """
    Return a descriptor of the network namespace that *path* is.

    Raises:
        InvalidValueError: It is no network namespace.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        is_network = fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == syscalls.CLONE_NEWNET
    except OSError:  # ENOTTY: no namespace at all
        is_network = False
    if not is_network:
        os.close(descriptor)
        msg = f"{path} is no network namespace"
        raise InvalidValueError(msg)
    return descriptor


def is_pinned(path: str) -> bool:
    """Return whether a network namespace is mounted on the file *path*."""
    try:
        os.close(open_namespace(path))
    except (OSError, InvalidValueError):
        return False
    return True


def unpin(path: str) -> None:
    """Remove the file *path* and the mount on it; what is gone is no error."""
    with contextlib.suppress(FileNotFoundError):
        try:
            syscalls.umount(path, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:  # not mounted
                raise
        Path(path).unlink()


def make_directory(directory: Path) -> None:
    """
    Make the directory that namespaces are pinned in: a tmpfs of our own, private and 0700.

    Private, because a mount that spreads to other mount namespaces keeps what is pinned alive there.
    Processes that do this at once end up with one tmpfs.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.ismount(directory):
            syscalls.mount("pynetwork", str(directory), "tmpfs", _TMPFS_FLAGS, "mode=0700")
            syscalls.mount("none", str(directory), "none", syscalls.MS_PRIVATE)
    finally:
        os.close(lock)


def remove_directory(directory: Path) -> None:
    """Unmount and remove the directory if it is a tmpfs of ours and nothing is pinned in it."""
    with contextlib.suppress(OSError):
        if any(directory.iterdir()):
            return
        syscalls.umount(str(directory))
        directory.rmdir()
        directory.parent.rmdir()


@contextlib.contextmanager
def entered(path: str) -> Iterator[None]:
    """
    Put the CALLING thread into the namespace that *path* is, for the ``with`` block.

    The one place where a thread of the program is moved: because it asked for it.

    Raises:
        OSError: At the end, the way back is barred. The thread must not be used any more.
    """
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = open_namespace(path)
        try:
            syscalls.setns(target, syscalls.CLONE_NEWNET)
        finally:
            os.close(target)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
