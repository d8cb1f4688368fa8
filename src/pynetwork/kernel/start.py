"""Programs started in a sandbox: in its network namespace, with its files over those in /etc, in its group.

A thread of ours goes where the program shall be, starts it there, and ends. ``subprocess`` does the rest as
always: nothing of the caller is copied (``vfork``), however large it is, and no other thread of it moves.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs

from pynetwork.errors import ApplyError, InvalidValueError
from pynetwork.kernel import syscalls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.resources import Cgroup

__all__ = ["Setting", "Starter"]

# The program's arguments are those of the script, which is always this one. To move a process that runs takes
# ten milliseconds and more, see Groups.enter, but version 2 has no other way that Python can reach.
_JOIN_AND_EXEC: Final = ("/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"')


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
        asked = argv
        argv, options = self._in_group(argv, options)

        def start() -> subprocess.Popen[Any]:
            self._enter()
            try:
                return subprocess.Popen(argv, **options)  # noqa: S603 - the caller's own program
            except BlockingIOError:
                # Who was ending all processes may have died before it was done.
                group = self._setting.group
                if group is None or self._groups is None or not self._groups.allow(group):
                    raise
                return subprocess.Popen(argv, **options)  # noqa: S603 - likewise

        process = self._namespaces.apart(self._path, start, undo=_kill)
        process.args = asked
        return process

    def exec(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
        """Become a program there, see :meth:`Sandbox.exec`."""
        check_argv(argv)

        def become() -> NoReturn:
            self._enter()
            argument, _ = self._in_group(argv, {"env": env})
            os.execvpe(argument[0], list(argument), os.environ if env is None else env)  # noqa: S606 - no shell

        self._namespaces.apart(self._path, become)
        raise AssertionError

    def _in_group(self, argv: Sequence[str], options: dict[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
        """Return program and options that end up in the group where the starting thread cannot be in it."""
        group, groups = self._setting.group, self._groups
        if group is None or groups is None or groups.hierarchies.version == 1:
            return argv, options
        program = _found(options.pop("executable", None) or argv[0], options)
        procs = str(groups.directory(group.path) / "cgroup.procs")
        return [*_JOIN_AND_EXEC, procs, program, *argv[1:]], options

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
    if isinstance(argv, str | bytes):
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


def _kill(process: subprocess.Popen[Any]) -> None:
    """End a process that nobody waits for any more."""
    process.kill()
    process.wait()


def _found(program: Any, options: Mapping[str, Any]) -> str:  # noqa: ANN401 - as Popen's
    """Return the path of a program as Popen would find it, or raise as it would."""
    text = os.fsdecode(program)
    environment = options.get("env")
    if os.path.dirname(text):  # noqa: PTH120 - as Popen looks at it
        path: str | None = text
        there = os.path.join(options.get("cwd") or "", text)  # noqa: PTH118 - likewise
        if not os.path.exists(there):  # noqa: PTH110
            path = None
    else:
        import shutil

        path = shutil.which(text, path=os.pathsep.join(os.get_exec_path(environment)))
    if path is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
    return path
