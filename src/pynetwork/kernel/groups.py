"""Control groups on the host: made, limited, entered, emptied and removed, in either version."""

from __future__ import annotations

import errno
import functools
import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pynetwork.errors import UnavailableError
from pynetwork.kernel.hierarchies import find_hierarchies
from pynetwork.kernel.members import is_process, tasks_of
from pynetwork.resources import Cgroup
from pynetwork.resources.groups import PERIOD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pynetwork.kernel.hierarchies import Hierarchies

__all__ = ["Groups"]

_MODE: Final = 0o755
_KILL_SECONDS: Final = 10.0  # a process in an uninterruptible sleep may take as long as it likes
_PAUSE_SECONDS: Final = 0.0005
_NO_LIMIT: Final = {1: "-1", 2: "max"}
_NO_PIDS_LIMIT: Final = "max"  # of both versions
_BOUNDLESS: Final = 1 << 62  # what version 1 shows for no limit of memory is less than 64 bits by a page
#: Controller to its file of a limit, by version.
_LIMITS: Final = {
    1: {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us", "pids": "pids.max"},
    2: {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max"},
}
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Groups:
    """
    Control groups of this host, named by their path below the roots of its hierarchies.

    In version 1 a group is a directory in each of several hierarchies. That of its home and those that a
    limit needs are made with it, the others by the first process that starts in it: together they cost as
    much as a network interface does.

    Args:
        find: Returns where they are; called once, when that is first needed.
    """

    def __init__(self, find: Callable[[], Hierarchies] = find_hierarchies) -> None:
        self._find = find
        self._delegated: set[Path] = set()

    @functools.cached_property
    def hierarchies(self) -> Hierarchies:
        """Where they are."""
        return self._find()

    @property
    def problem(self) -> str:
        """Why none can be made; empty when they can."""
        return self.hierarchies.problem

    def directory(self, path: str) -> Path:
        """Return the directory that tells who is in a group."""
        return self.hierarchies.home / path

    def make(self, group: Cgroup) -> None:
        """
        Make a group as it should be, whether there is one or not.

        Raises:
            UnavailableError: Its parent is not there, or a controller that a limit needs.
        """
        if self.hierarchies.version == 2:
            self._delegate(group.path)
        is_new = self._make_home(group.path)
        if is_new and group == Cgroup(path=group.path):
            return
        for controller, value in _limits(group, self.hierarchies.version).items():
            if value is not None or not is_new:
                self._limit(group.path, controller, value)

    def remove(self, group: Cgroup) -> None:
        """End the processes in a group and remove it; one that is gone is no error."""
        deadline = time.monotonic() + _KILL_SECONDS
        for root in self.hierarchies.roots:
            while not _is_removed(f"{root}/{group.path}"):  # somebody is in it, or has not quite gone
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), f"{root}/{group.path}")
                if not self.kill(group.path):
                    time.sleep(_PAUSE_SECONDS)

    def seen(self, group: Cgroup) -> Cgroup | None:
        """Return a group as it is: equal to *group* when there is nothing to do, None when it is gone."""
        if not self.directory(group.path).is_dir():
            return None
        memory, quota = self._limit_of(group.path, "memory"), self._limit_of(group.path, "cpu")
        if group.memory is not None and memory == group.memory // _PAGE * _PAGE:
            memory = group.memory  # the kernel counts in pages
        return Cgroup(
            path=group.path,
            memory=memory,
            cpus=group.cpus if quota == group.quota else (quota or 0) / PERIOD,
            pids=self._limit_of(group.path, "pids"),
        )

    def strangers(self, parents: Iterable[str], suffix: str) -> Iterator[str]:
        """Yield the paths of groups in *parents*, or in none, whose names end with *suffix*."""
        for parent in sorted({"", *parents}):
            with suppress(OSError):
                for name in sorted(os.listdir(self.hierarchies.home / parent)):  # noqa: PTH208 - names only
                    if name.endswith(suffix):
                        yield f"{parent}/{name}" if parent else name

    def complete(self, path: str) -> None:
        """Make the directories of a group in all hierarchies, if it is there at all."""
        if self.hierarchies.version == 1 and self.directory(path).is_dir():
            for root in self.hierarchies.roots:
                _make_below(root, path)

    # Processes

    def pids(self, path: str) -> list[int]:
        """Return the ids of the processes in a group and in the groups below it."""
        tasks = tasks_of(self.directory(path), "cgroup.procs" if self.hierarchies.version == 2 else "tasks")
        tasks.discard(0)  # one of a pid namespace that is not ours: to signal 0 is to signal ourselves
        if self.hierarchies.version == 2:
            return sorted(tasks)
        # A thread of ours is in it for a moment while it starts a process there: its process is not.
        return sorted(task for task in tasks if is_process(task, tasks))

    def enter(self, path: str) -> None:
        """
        Put the calling thread into a group of version 1; a process it starts is born there.

        A thread that moves itself waits for nobody. To move a whole process takes a lock that other
        processors have to agree on, ten milliseconds and more (``cgroup_threadgroup_rwsem``).
        """
        for root in self.hierarchies.roots:
            tasks = f"{root}/{path}/tasks"
            try:
                _write(tasks, "0")
            except FileNotFoundError:
                if root == self.hierarchies.home:  # it is being deleted
                    raise
                if _make_below(root, path):  # else its parent, which is somebody else's, is not in this one
                    _write(tasks, "0")

    def kill(self, path: str, *, seconds: float = _KILL_SECONDS) -> set[int]:
        """
        End all processes in a group, however fast they multiply.

        Args:
            path: The group; one that is gone is empty.
            seconds: Patience with processes that the kernel is busy for.

        Returns:
            Ids of those that were killed.

        Raises:
            UnavailableError: Some are still there.
        """
        pids = self.pids(path)
        if not pids:
            return set()
        deadline = time.monotonic() + seconds
        killed = set(pids)
        with self._nobody_is_born(path):
            while pids:
                self._kill_once(path, pids)
                if time.monotonic() > deadline:
                    msg = f"processes {', '.join(map(str, pids))} in control group {path} cannot be ended"
                    raise UnavailableError(msg)
                time.sleep(_PAUSE_SECONDS)
                pids = self.pids(path)
                killed.update(pids)
        return killed

    def allow(self, group: Cgroup) -> bool:
        """Let processes of a group start others again, if somebody kept them from it and died."""
        file = self._file(group.path, "pids")
        if file is None or _read(file) != "0":
            return False
        _write(file, _limits(group, self.hierarchies.version)["pids"] or _NO_PIDS_LIMIT)
        return True

    @contextmanager
    def _nobody_is_born(self, path: str) -> Iterator[None]:
        """
        Keep processes of a group from starting others, where the kernel cannot end all of them in one go.

        The freezer would do as well, but would freeze a thread of ours that is about to start a process
        there, and with it the interpreter.
        """
        file = None if self._kills_at_once(path) else self._file(path, "pids")
        limit = None if file is None else _read(file)
        if file is not None and limit:
            _write(file, "0")
        try:
            yield
        finally:
            if file is not None and limit:
                with suppress(FileNotFoundError):
                    _write(file, limit)

    def _kills_at_once(self, path: str) -> bool:
        return self.hierarchies.version == 2 and (self.directory(path) / "cgroup.kill").exists()  # Linux 5.14

    def _kill_once(self, path: str, pids: Iterable[int]) -> None:
        if self._kills_at_once(path):
            with suppress(FileNotFoundError):
                _write(f"{self.directory(path)}/cgroup.kill", "1")
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # Limits

    def _make_home(self, path: str) -> bool:
        """Make the directory that tells who is in a group; returns whether it is new."""
        try:
            os.mkdir(f"{self.hierarchies.home}/{path}", _MODE)  # noqa: PTH102 - a path as text
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            parent = self.directory(path).parent
            msg = f"control group {parent} does not exist: it is for its owner to make"
            raise UnavailableError(msg) from error
        return True

    def _delegate(self, path: str) -> None:
        """Have version 2 offer its controllers to the groups beside *path*, as far as that is permitted."""
        parent = self.directory(path).parent
        if parent in self._delegated:
            return
        with suppress(OSError):
            offered = _read(f"{parent}/cgroup.subtree_control").split()
            for name in self.hierarchies.controllers.keys() - set(offered):
                with suppress(OSError):  # such as EBUSY: there are processes in it
                    _write(f"{parent}/cgroup.subtree_control", f"+{name}")
        self._delegated.add(parent)

    def _file(self, path: str, controller: str) -> str | None:
        """Return the file of a limit, None when there is none."""
        root = self.hierarchies.controllers.get(controller)
        file = f"{root}/{path}/{_LIMITS[self.hierarchies.version][controller]}"
        return None if root is None or not os.path.exists(file) else file  # noqa: PTH110 - a path as text

    def _limit(self, path: str, controller: str, value: str | None) -> None:
        root = self.hierarchies.controllers.get(controller)
        if value is not None and root is not None and self.hierarchies.version == 1:
            _make_below(root, path)
        file = self._file(path, controller)
        if file is not None:
            none = _NO_PIDS_LIMIT if controller == "pids" else _NO_LIMIT[self.hierarchies.version]
            _write(file, none if value is None else value)
        elif value is not None:
            msg = f"{controller} cannot be limited: this host has no such controller of control groups there"
            raise UnavailableError(msg)

    def _limit_of(self, path: str, controller: str) -> int | None:
        file = self._file(path, controller)
        word = "max" if file is None else _read(file).split()[0]
        if word in {"max", "-1"} or int(word) >= _BOUNDLESS:
            return None
        return int(word)


def _limits(group: Cgroup, version: int) -> dict[str, str | None]:
    """Return what the file of each limit should say; None for no limit."""
    quota = None if group.quota is None else str(group.quota)
    return {
        "memory": None if group.memory is None else str(group.memory),
        "cpu": quota if quota is None or version == 1 else f"{quota} {PERIOD}",
        "pids": None if group.pids is None else str(group.pids),
    }


def _make_below(root: Path, path: str) -> bool:
    """Make the directory of a group in one more hierarchy; False where its parent is not."""
    try:
        os.mkdir(f"{root}/{path}", _MODE)  # noqa: PTH102 - a path as text
    except FileExistsError:
        pass
    except FileNotFoundError:
        return False
    return True


def _is_removed(path: str) -> bool:
    """Remove a directory of control groups with those below it; False when somebody is in one of them."""
    try:
        os.rmdir(path)  # noqa: PTH106 - a path as text
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            raise
    else:
        return True
    with suppress(FileNotFoundError):
        children = [child.path for child in os.scandir(path) if child.is_dir(follow_symlinks=False)]
        return bool(children) and all(map(_is_removed, children)) and _is_removed(path)
    return True


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - a path as text
        return file.read().strip()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
