"""A private host: the current thread in network and mount namespaces of its own, undone afterwards.

Threads and processes started meanwhile live on it, too, so a test of the real kernel can neither
see nor break the machine it runs on. It ends with a look at what was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.kernel import syscalls
from pynetwork.kernel.groups import Groups
from pynetwork.resources import Cgroup
from pynetwork.types import check_interface_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["HostNamespace", "LeakError", "PrivateHost", "private_host"]

#: What is empty on a private host: where namespaces are pinned and state is kept.
PRIVATE_DIRECTORIES: Final = ("/run/pynetwork", "/var/lib/pynetwork", "/run/netns")

_GRACE_SECONDS: Final = 1.0
# Marks a directory that was made only to be mounted on; it is below the mount.
_MARK: Final = ".made-by-pynetwork-testing"
# Control groups: the process that made one is in its name.
_GROUP: Final = "private-"
_GROUP_NAME: Final = re.compile(r"private-(\d+)-[0-9a-f]{8}")


class LeakError(AssertionError):
    """Something was left on a private host. The message lists it."""


class HostNamespace:
    """
    Another machine, connected to a private host by a cable. Made by :meth:`PrivateHost.add_machine`.

    Attributes:
        name: Of the machine, and of the private host's interface at the other end of the cable.
        interface: The machine's own interface.
    """

    interface: Final = "eth0"

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.name!r})>"

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the machine, and return its status and output, both as text."""
        return _run(self._inside(argv), check=check, timeout=timeout)

    def start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program on the machine. End it before the host ends."""
        return subprocess.Popen(self._inside(argv))  # noqa: S603 - a test's own command

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]


class PrivateHost:
    """The host that the current thread is on inside :func:`private_host`."""

    def __init__(self) -> None:
        self._machines: list[HostNamespace] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({len(self._machines)} machines)>"

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host, and return its status and output, both as text."""
        return _run(argv, check=check, timeout=timeout)

    def add_machine(self, name: str, *, address: str, host_address: str) -> HostNamespace:
        """
        Connect another machine, for instance one on the host's LAN.

        Args:
            name: Of the machine, and of the host's interface towards it.
            address: Of the machine, with prefix length: ``192.0.2.2/24``.
            host_address: Of the host's interface. The machine has no other route than to this subnet.
        """
        machine = HostNamespace(check_interface_name(name))
        self.run(["ip", "netns", "add", name])
        self._machines.append(machine)
        cable = ["ip", "link", "add", name, "type", "veth", "peer", "name", machine.interface, "netns", name]
        self.run(cable)
        ends = (("ip",), host_address, name), (("ip", "-n", name), address, machine.interface)
        for ip, cidr, link in ends:
            nodad = ["nodad"] if ":" in cidr else []
            self.run([*ip, "address", "add", cidr, "dev", link, *nodad])
            self.run([*ip, "link", "set", link, "up"])
        machine.run(["ip", "link", "set", "lo", "up"])
        return machine

    def leftovers(self) -> list[str]:
        """Return what is on the host beyond its loopback interface and its machines, in words."""
        machines = {machine.name for machine in self._machines}
        names = {name for _, name in socket.if_nameindex()} - machines - {"lo"}
        mounts = set(_namespace_mounts()) - {f"/run/netns/{name}" for name in machines}
        return [
            *(f"interface {name}" for name in sorted(names)),
            *(f"namespace {path}" for path in sorted(mounts)),
        ]

    def check(self) -> None:
        """
        Check that nothing is left on the host, with some patience: much goes asynchronously.

        Raises:
            LeakError: Something is.
        """
        deadline = time.monotonic() + _GRACE_SECONDS
        while left := self.leftovers():
            if time.monotonic() > deadline:
                msg = f"left on the private host: {', '.join(left)}"
                raise LeakError(msg)
            time.sleep(0.01)


@contextlib.contextmanager
def private_host(
    directories: Sequence[str] = PRIVATE_DIRECTORIES, *, control_groups: bool = True
) -> Iterator[PrivateHost]:
    """
    Put the current thread on a private host for the ``with`` block.

    Its network has nothing but ``lo``, which is up, and its control groups are its own: who is left in
    them at the end is killed, or, when the process was killed, by the next private host that is made. Of
    other files than *directories* it sees the same as before.

    Args:
        directories: What is an empty file system in memory, made when missing and then removed:
            by default ``/run/pynetwork``, ``/var/lib/pynetwork`` and ``/run/netns``.
        control_groups: False leaves the machine's own, for runtimes that cannot do with a part of them,
            such as runc on version 1.

    Raises:
        LeakError: At the end, interfaces or pinned namespaces were left. When the block ends with an
            error, that is raised, and what was left is a note on it.
        OSError: The process may not make namespaces.
    """
    with contextlib.ExitStack() as stack:
        paths = [Path(directory) for directory in directories]
        for parent in dict.fromkeys(path.parent for path in paths):
            stack.enter_context(_made(parent, [path for path in paths if path.parent == parent]))
        groups = stack.enter_context(_groups()) if control_groups else {}
        stack.enter_context(_namespaces())
        for source, target in groups.items():
            syscalls.mount(source, target, "none", syscalls.MS_BIND)
        for directory in directories:
            syscalls.mount("tmpfs", directory, "tmpfs", 0, "mode=755")
        _run(["ip", "link", "set", "lo", "up"])
        host = PrivateHost()
        try:
            yield host
        except BaseException as error:
            if left := host.leftovers():
                error.add_note(f"left on the private host: {', '.join(left)}")
            raise
        host.check()


@contextlib.contextmanager
def _namespaces() -> Iterator[None]:
    """Put the current thread in new network and mount namespaces."""
    with contextlib.ExitStack() as saved:
        network, mounts, directory = (_opened(saved, path) for path in ("ns/net", "ns/mnt", "cwd"))
        syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
        try:
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE, "")
            yield
        finally:
            # Threads started meanwhile share the working directory, which bars the way back.
            syscalls.unshare(syscalls.CLONE_FS)
            syscalls.setns(mounts, syscalls.CLONE_NEWNS)
            syscalls.setns(network, syscalls.CLONE_NEWNET)
            os.fchdir(directory)


@contextlib.contextmanager
def _groups() -> Iterator[dict[str, str]]:
    """Yield control groups and the hierarchies that they stand for; at the end nobody is left in them."""
    groups = Groups()
    if groups.problem:
        yield {}
        return
    home = groups.hierarchies.home
    group = Cgroup(path=f"{_GROUP}{os.getpid()}-{secrets.token_hex(4)}")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError), _locked(home, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _remove_dead(groups)
        # Shared, as this home may be the group of a private host that this one is made on. Who removes
        # the dead sees no group that is not locked yet.
        with _locked(home, fcntl.LOCK_SH):
            groups.make(group)
            stack.callback(groups.remove, group)
            stack.enter_context(_locked(groups.directory(group.path), fcntl.LOCK_SH))
        groups.complete(group.path)
        yield {f"{root}/{group.path}": str(root) for root in groups.hierarchies.roots}


def _remove_dead(groups: Groups) -> None:
    """Remove the groups of private hosts whose process was killed, with whoever is left in them."""
    for path in groups.hierarchies.home.glob(f"{_GROUP}*"):
        owner = _GROUP_NAME.fullmatch(path.name)
        if owner is None or Path("/proc", owner[1]).exists():
            continue
        # A process that is not seen from here, being in another namespace, holds the lock.
        with contextlib.suppress(OSError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            groups.remove(Cgroup(path=path.name))


@contextlib.contextmanager
def _locked(directory: Path, how: int) -> Iterator[None]:
    """Hold the lock of a directory, see flock(2) for *how*."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _opened(stack: contextlib.ExitStack, path: str) -> int:
    descriptor = os.open(f"/proc/thread-self/{path}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


@contextlib.contextmanager
def _made(parent: Path, directories: Sequence[Path]) -> Iterator[None]:
    """Make *directories* to mount on; the last of all processes to need them removes what was made."""
    # Who holds the parent's lock, shared, may be sure that they stay: removed, they would take along
    # what other processes have mounted on them.
    lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        for directory in directories:
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o755)
                (directory / _MARK).touch()
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(directories)
    finally:
        os.close(lock)


def _remove(directories: Sequence[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):
            (directory / _MARK).unlink()
            with contextlib.suppress(OSError):  # somebody uses it by now
                directory.rmdir()


def _namespace_mounts() -> Iterator[str]:
    """Yield the files below /run that namespaces are mounted on, as the current thread sees them."""
    for line in Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, file_system = line.partition(" - ")
        path = mount.split()[4]
        if file_system.startswith("nsfs ") and path.startswith("/run/"):
            yield path


def _run(
    argv: Sequence[str], *, check: bool = True, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout)  # noqa: S603 - a test's own command
    if check and result.returncode:
        msg = f"{' '.join(argv)} ended with status {result.returncode}: {result.stderr.strip()}"
        raise RuntimeError(msg)
    return result
