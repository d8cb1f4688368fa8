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
from _thread import start_new_thread
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

from pynetwork.errors import InvalidValueError, UnavailableError
from pynetwork.kernel import syscalls
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.spares import Opened, Spares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "IP_NETNS",
    "Namespaces",
    "entered",
    "is_pinned",
    "make_directory",
    "namespace_of_thread",
    "open_namespace",
    "remove_directory",
    "unpin",
]

T = TypeVar("T")
#: Where iproute2 keeps namespaces.
IP_NETNS: Final = Path("/run/netns")
_OWN: Final = "/proc/thread-self/ns/net"
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h
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

    def run(self) -> None:
        """Do it."""
        try:
            self.result = self.function()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
            self.error = error

    def run_apart(self) -> None:
        """Do it, and let whoever waits go on."""
        self.run()
        self.done.release()

    def outcome(self) -> object:
        """Return what came of it, or raise it."""
        if self.error is not None:
            raise self.error
        return self.result


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
        if not self._closed and namespace_of_thread() == self._home_id:
            return function()  # the calling thread is there

        def at_home() -> T:
            self._go_home()  # a thread starts where its maker is at that moment, perhaps in a sandbox
            return function()

        return self._run(at_home)

    def apart(
        self, path: str | None, function: Callable[[], T], *, undo: Callable[[T], None] | None = None
    ) -> T:
        """
        Return what *function* returns when it is called in the namespace that *path* is, or the host's.

        In a thread of its own, which ends with it: it may change what cannot be changed back, such as the
        mounts that it sees, and take its time. The thread starts with the working directory of the caller.

        Args:
            path: The file that pins the namespace; None is the host's own.
            function: What to call.
            undo: Called with what it returned when the caller is interrupted and will never have it.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            descriptor = os.dup(self._home) if path is None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)

        def there() -> T:
            try:
                syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
            finally:
                os.close(descriptor)
            return function()

        job = _Job(there)
        # Without threading's bookkeeping, which waits for a thread to begin before it lets its maker go on.
        start_new_thread(job.run_apart, ())
        try:
            job.done.acquire()
        except BaseException:
            job.done.acquire()
            if undo is not None and job.error is None:
                undo(job.result)  # type: ignore[arg-type]  # what the function returned
            raise
        return job.outcome()  # type: ignore[return-value]  # likewise

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
        """
        Pin the existing namespace that *source* is with a new file *path*.

        Raises:
            InvalidValueError: It is no network namespace, or the host's own.
            OSError: There is none, or no longer.
        """
        descriptor = open_namespace(source)
        try:
            if os.path.samestat(os.fstat(descriptor), os.fstat(self._home)):
                msg = f"{source} is the host's own namespace: that is netns='host', without adopting it"
                raise InvalidValueError(msg)
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
        with contextlib.ExitStack() as undo:
            try:
                socket = self._prepare()
                undo.callback(socket.close)
                opened = Opened(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC), socket)
                undo.pop_all()
                undo.callback(opened.close)
            finally:
                self._go_home()
            undo.pop_all()
            return opened

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
                raise _closed()
            if self._jobs is None:
                self._jobs = SimpleQueue()
                self._thread = threading.Thread(
                    target=self._work, args=(self._jobs,), name="pynetwork-netns", daemon=True
                )
                self._thread.start()
            self._jobs.put(job)
        job.done.acquire()
        return job.outcome()  # type: ignore[return-value]  # what the function returned

    def _work(self, jobs: SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            job.run()
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


def namespace_of_thread() -> tuple[int, int]:
    """Return what tells the network namespace that the calling thread is in from others."""
    return _identity(os.stat(_OWN))  # noqa: PTH116 - a magic link, followed


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _closed() -> UnavailableError:
    return UnavailableError("the namespace worker is closed")


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
    # Nobody waits at a pipe that is taken for a namespace.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
