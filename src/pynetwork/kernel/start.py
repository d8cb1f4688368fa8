"""Programs started in a sandbox: in its network namespace, with its files over those in /etc, in its group.

A thread of ours goes where the program shall be, starts it there, and ends. ``subprocess`` does the rest as
always: nothing of the caller is copied (``vfork``), however large it is, and no other thread of it moves.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs

from pynetwork.errors import ApplyError, InvalidValueError
from pynetwork.kernel import syscalls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.resources import Cgroup

__all__ = ["Setting", "Starter"]

# The program's arguments are those of the script, which is always this one. To move a process that runs takes
# ten milliseconds and more, see Groups.enter, but version 2 has no other way that Python can reach.
_JOIN_AND_EXEC: Final = ("/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"')

#: Options of Popen for which it copies the caller, or which a script cannot pass on.
_COPIED: Final = frozenset({"preexec_fn", "user", "group", "extra_groups", "executable"})


@attrs.frozen(kw_only=True)
class Setting:
    """
    What is around a program in a sandbox, besides the network.

    Args:
        files: Path of a file to the path, such as ``/etc/hosts``, that it is seen at.
        hostname: What it sees as the host's name; None is the host's own.
        domainname: Likewise, of its domain.
        group: Its control group.
    """

    files: Mapping[str, str] = attrs.field(factory=dict)
    hostname: str | None = None
    domainname: str | None = None
    group: Cgroup | None = None


class Starter:
    """
    Starts programs in one place.

    Args:
        namespaces: Has threads that go there.
        path: The file that pins the network namespace; None is the host's own.
        setting: What else is there.
        groups: The host's control groups.
    """

    def __init__(
        self, namespaces: Namespaces, path: str | None, setting: Setting | None, groups: Groups | None
    ) -> None:
        self._namespaces = namespaces
        self._path = path
        self._setting = setting or Setting()
        self._groups = groups

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - as Popen's
        """Start a program there, see :meth:`Sandbox.popen`."""
        check_argv(argv)
        if options.get("shell"):
            msg = "invalid option shell=True: there is no shell"
            raise InvalidValueError(msg)

        def start() -> subprocess.Popen[Any]:
            self._enter()
            try:
                return self._started(argv, options)
            except BlockingIOError:
                # Who was ending all processes may have died before it was done.
                group = self._setting.group
                if group is None or self._groups is None or not self._groups.allow(group):
                    raise
                return self._started(argv, options)

        return self._namespaces.apart(self._path, start, undo=_kill)

    def exec(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
        """Become a program there, see :meth:`Sandbox.exec`."""
        check_argv(argv)

        def become() -> NoReturn:
            self._enter()
            if self._procs is not None:
                _check_found(argv[0], {"env": env})
                Path(self._procs).write_text("0", encoding="ascii")
            os.execvpe(argv[0], list(argv), os.environ if env is None else env)  # noqa: S606 - no shell

        self._namespaces.apart(self._path, become)
        raise AssertionError

    @property
    def _procs(self) -> str | None:
        """The file that a process joins the group with, where a thread of ours cannot be in it."""
        group, groups = self._setting.group, self._groups
        if group is None or groups is None or groups.hierarchies.version == 1:
            return None
        return str(groups.directory(group.path) / "cgroup.procs")

    def _started(self, argv: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
        """Start a program from where the calling thread is, in the group at any rate."""
        procs = self._procs
        if procs is None:
            return subprocess.Popen(argv, **options)  # noqa: S603 - the caller's own program
        if not _COPIED.isdisjoint(options):
            return _started_as_copy(argv, options, procs)
        _check_found(argv[0], options)
        process = subprocess.Popen([*_JOIN_AND_EXEC, procs, *argv], **options)  # noqa: S603 - likewise
        process.args = argv
        try:
            # It joins before it becomes the program, and by the time that somebody has it in hand.
            _move(process.pid, procs)
        except BaseException:
            _kill(process)
            raise
        return process

    def _enter(self) -> None:
        """Put the calling thread where the program shall be; it is in the network namespace already."""
        setting = self._setting
        try:
            if setting.files or setting.hostname is not None:
                _surround(setting)
            if (
                setting.group is not None
                and self._groups is not None
                and self._groups.hierarchies.version == 1
            ):
                self._groups.enter(setting.group.path)
        except OSError as error:
            msg = f"no program can be started in {self._path or 'the namespace of the host'}: {error}"
            raise ApplyError(msg) from error


def check_argv(argv: object) -> None:
    """Refuse text in place of a program and its arguments."""
    if isinstance(argv, str | bytes) or not isinstance(argv, Sequence) or not argv:
        msg = f"invalid program {argv!r}: a list of its name and arguments is expected, there is no shell"
        raise InvalidValueError(msg)


def _surround(setting: Setting) -> None:
    """Give the calling thread mounts and a name of its own."""
    syscalls.unshare(syscalls.CLONE_NEWNS | (0 if setting.hostname is None else syscalls.CLONE_NEWUTS))
    # What is mounted here stays here; what the host unmounts is unmounted here, too, and kept by nobody.
    syscalls.mount("none", "/", "none", syscalls.MS_SLAVE | syscalls.MS_REC)
    for source, target in setting.files.items():
        try:
            syscalls.mount(source, target, "none", syscalls.MS_BIND)
        except OSError as error:
            if error.errno != errno.ENOENT or not os.path.exists(source):  # noqa: PTH110 - a path as text
                raise
            # The host has no such file to put it over.
    if setting.hostname is not None:
        socket.sethostname(setting.hostname)
        syscalls.setdomainname(setting.domainname or "(none)")  # the kernel's word for it


def _move(pid: int, procs: str) -> None:
    """Put a process into the group of the file *procs*; one that has ended is no error."""
    try:
        with open(procs, "wb", buffering=0) as file:  # noqa: PTH123 - a path as text
            file.write(b"%d" % pid)
    except ProcessLookupError:
        pass
    except OSError as error:
        msg = f"no program can be started in control group {procs.rpartition('/')[0]}: {error}"
        raise ApplyError(msg) from error


def _kill(process: subprocess.Popen[Any]) -> None:
    """End a process that nobody waits for any more."""
    process.kill()
    process.wait()


def _started_as_copy(argv: Sequence[str], options: dict[str, Any], procs: str) -> subprocess.Popen[Any]:
    """
    Start a program with options for which ``subprocess`` copies the caller: the copy joins the group.

    What may be moved is up to who opened the file (Linux 5.16), so the copy may have become another user.
    """
    theirs = options.get("preexec_fn")
    descriptor = os.open(procs, os.O_WRONLY | os.O_CLOEXEC)

    def join() -> None:
        os.write(descriptor, b"0")
        if theirs is not None:
            theirs()

    try:
        return subprocess.Popen(argv, **{**options, "preexec_fn": join})  # noqa: S603 - the caller's own program
    finally:
        os.close(descriptor)


def _check_found(program: Any, options: Mapping[str, Any]) -> None:  # noqa: ANN401 - as Popen's
    """Raise what Popen would if there is no such program; the script would only end."""
    import shutil

    text = os.fsdecode(program)
    if os.path.dirname(text):  # noqa: PTH120 - as Popen looks at it
        there = os.path.join(options.get("cwd") or "", text)  # noqa: PTH118 - likewise
        is_there = os.path.exists(there)  # noqa: PTH110 - likewise
    else:
        path = os.pathsep.join(os.get_exec_path(options.get("env")))
        is_there = shutil.which(text, path=path) is not None
    if not is_there:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
