"""Sandboxes: the network stack of one container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from pynetwork.core import Handle
from pynetwork.errors import NotFoundError
from pynetwork.requests.attach import attach, detach, find_source
from pynetwork.requests.avoiding import avoiding_taken_ports
from pynetwork.requests.common import plain, rename, sandbox_scope
from pynetwork.requests.sandbox import delete_sandbox
from pynetwork.sandbox.gateway import gateway_of, members_of
from pynetwork.sandbox.interior import crew_of, files_of, group_of, groups_of, inside, within
from pynetwork.specs.sandbox import parse_signal
from pynetwork.types import check_name, check_seconds

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pynetwork.endpoint import Endpoint
    from pynetwork.engine import Draft
    from pynetwork.kernel.ending import Stopped
    from pynetwork.kernel.figures import SandboxStatistics
    from pynetwork.kernel.members import Process
    from pynetwork.plan import Steps
    from pynetwork.sandbox.gateway import Gateway
    from pynetwork.specs import Limits, SandboxSpec
    from pynetwork.types import IPAddress

__all__ = ["Sandbox"]


class Sandbox(Handle):
    """A sandbox, made by :meth:`Controller.new_sandbox`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self._spec.name

    @property
    def hostname(self) -> str | None:
        """The container's own name."""
        return self._spec.hostname

    @property
    def domainname(self) -> str | None:
        """The domain it is in."""
        return self._spec.domainname

    @property
    def dns(self) -> tuple[IPAddress, ...]:
        """Its own name servers."""
        return self._spec.dns

    @property
    def dns_search(self) -> tuple[str, ...]:
        """Its own search domains; ``.`` alone is none at all."""
        return self._spec.dns_search

    @property
    def dns_options(self) -> tuple[str, ...]:
        """Its own options of the resolver."""
        return self._spec.dns_options

    @property
    def extra_hosts(self) -> dict[str, IPAddress | str]:
        """Further names it knows, to their addresses, or to ``host-gateway``."""
        return dict(self._spec.extra_hosts)

    @property
    def stop_signal(self) -> int:
        """Number of the signal that asks its processes to end."""
        return self._spec.stop_signal

    @property
    def limits(self) -> Limits | None:
        """What its processes may use together."""
        return self._spec.limits

    @property
    def netns_path(self) -> Path | None:
        """The file that pins its namespace; None when that is the host's own, or there is none yet."""
        from pathlib import Path

        spec = self._spec
        return None if spec.netns is None or not spec.attached else Path(spec.netns)

    @property
    def hosts_path(self) -> Path:
        """Its ``hosts`` file, made when this is first asked for: the names it knows, its own included."""
        from pathlib import Path

        return Path(files_of(self._core, self.id), "hosts")

    @property
    def hostname_path(self) -> Path:
        """Its ``hostname`` file, made when this is first asked for."""
        from pathlib import Path

        return Path(files_of(self._core, self.id), "hostname")

    @property
    def resolv_conf_path(self) -> Path:
        """Its ``resolv.conf`` file, made when this is first asked for: whom it asks for names."""
        from pathlib import Path

        return Path(files_of(self._core, self.id), "resolv.conf")

    @property
    def cgroup(self) -> Path | None:
        """
        The directory of its control group, in the hierarchy that tells who is in it.

        None where there can be none; :attr:`cgroup_problem` says why.
        """
        from pathlib import Path

        group, groups = group_of(self._core, self.id), groups_of(self._core)
        if group is None:
            return None
        return Path("/sys/fs/cgroup", group.path) if groups is None else groups.directory(group.path)

    @property
    def cgroup_problem(self) -> str:
        """Why it has no control group; empty when it has one."""
        if group_of(self._core, self.id) is not None:
            return ""
        return self._core.cgroup_problem or "it was made when there could be none"

    @property
    def labels(self) -> dict[str, str]:
        """The caller's labels."""
        return dict(self._spec.labels)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its endpoints, the longest joined first."""
        from pynetwork.endpoint import Endpoint

        with self._core.reading():
            self._core.sandbox(self.id)
            return tuple(Endpoint.of(self._core, identity) for identity in members_of(self._core, self.id))

    @property
    def gateway(self) -> Gateway | None:
        """Its way out through the host's gateway network, if it has one; see :class:`Gateway`."""
        with self._core.reading():
            self._core.sandbox(self.id)
            return gateway_of(self._core, self.id)

    @property
    def is_attached(self) -> bool:
        """Whether it has a network namespace; else its endpoints wait for one."""
        return self._spec.attached

    def attach(self, netns: object) -> None:
        """
        Put it, and all of its endpoints, into another namespace: one that a container runtime made.

        It may have none yet (``new_sandbox(netns="later")``), or one, which is left then, and is gone if it
        was made by this library. Interface names, addresses, MACs and published ports stay. To attach
        it again to where it is changes nothing. :attr:`netns_path` is another one afterwards.

        Args:
            netns: The path of its file, an open file, or the id of a process in it.

        Raises:
            NotFoundError: There is no such namespace, or process, or no longer.
            InvalidValueError: Malformed, no network namespace, or the host's own.
            ConflictError: This sandbox is the host's own namespace.
            PortTakenError: Somebody has a host port by now that one of its endpoints publishes.
            ApplyError: The host refused a step; it is as before.
        """
        source = find_source(self._core, self._spec, netns)
        if source is not None:
            avoiding_taken_ports(
                self._core,
                lambda avoid: lambda draft: attach(self._core, draft, self.id, source, avoid),
                lambda: [port for endpoint in self.endpoints for port in endpoint.ports],
            )

    def plan_attach(self, netns: object) -> Steps:
        """Return the steps that :meth:`attach` would take, none when it is there already."""
        source = find_source(self._core, self._spec, netns)
        if source is None:
            return self._core.rehearse(lambda _: None)
        return self._core.rehearse(lambda draft: attach(self._core, draft, self.id, source))

    def detach(self) -> None:
        """
        Take its namespace away. Its endpoints stay in it with all that is theirs, and wait for another.

        Raises:
            ConflictError: It has none, or that is the host's own.
        """
        self._core.request(lambda draft: detach(self._core, draft, self.id))

    def plan_detach(self) -> Steps:
        """Return the steps that :meth:`detach` would take."""
        return self._core.rehearse(lambda draft: detach(self._core, draft, self.id))

    def run(
        self,
        argv: Sequence[str],
        *,
        input: Any = None,  # noqa: A002, ANN401 - as subprocess.run's
        capture_output: bool = False,
        timeout: float | None = None,
        check: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> subprocess.CompletedProcess[Any]:
        """
        Run a program in it and wait for its end.

        Args:
            argv: The program and its arguments; there is no shell.
            input: Sent to its standard input.
            capture_output: Keep what it writes.
            timeout: Seconds after which it is killed.
            check: Raise when its exit status is not 0.
            options: Further ones of :class:`subprocess.Popen`.

        Returns:
            Its exit status and output, as :func:`subprocess.run` does.

        Raises:
            CalledProcessError: With *check*, its exit status is not 0.
            TimeoutExpired: It was killed.
        """
        return within(self._core, self.id).run(
            argv, input=input, capture_output=capture_output, timeout=timeout, check=check, **options
        )

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - as Popen's
        """
        Start a program in it, with the options of :class:`subprocess.Popen`.

        The program starts in its network namespace and its control group, sees its files in ``/etc`` and its
        hostname, in a mount namespace of its own. No thread of the caller is moved, and nothing of the
        caller is copied (``vfork``, but for *user*, *group* and *preexec_fn*), however large it is.

        The thread that starts it ends at once, which counts as the death of its parent for a program that
        has asked for a signal then (``PR_SET_PDEATHSIG``).

        Raises:
            OSError: There is no such program, as Popen raises it.
            ApplyError: What it should be started in is not there.
        """
        return within(self._core, self.id).popen(argv, **options)

    def exec(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
        """
        Become a program in it: the calling process is replaced (execve(2)), with all its threads.

        Args:
            argv: The program and its arguments; there is no shell.
            env: Its environment; the caller's when None.

        Raises:
            OSError: There is no such program. The caller is as before.
            ApplyError: What it should be started in is not there, likewise.
        """
        within(self._core, self.id).exec(argv, env)

    def processes(self) -> tuple[Process, ...]:
        """
        Return the processes in it, by id: those that were started in it, and all that these started.

        Without a control group: those in its network namespace.

        Raises:
            UnavailableError: It has neither, being the host's.
        """
        found = crew_of(self._core, self.id).processes()
        return tuple(found[pid] for pid in sorted(found))

    def stop(self, *, signal: object = None, timeout: float = 10.0) -> Stopped:
        """
        End all processes in it: ask first, kill what is left.

        Args:
            signal: What they are asked with, a name or a number; its own when None.
            timeout: Seconds that they have.

        Returns:
            Which of them ended and which were killed.

        Raises:
            UnavailableError: It has no control group and is the host's, or the kernel keeps one alive.
        """
        from pynetwork.kernel.ending import stop

        number = self._spec.stop_signal if signal is None else parse_signal(signal)
        return stop(crew_of(self._core, self.id), number, check_seconds("timeout", timeout))

    def entered(self) -> AbstractContextManager[None]:
        """
        Return a block in which the calling thread is in its namespace.

        For code that must open its own sockets there. Only the calling thread moves, and threads and
        processes it starts meanwhile.
        """
        return inside(self._core, self.id).entered()

    def stats(self) -> SandboxStatistics:
        """Return what it uses and used: interfaces, disks, memory, processor time."""
        from time import time

        from pynetwork.kernel.figures import SandboxStatistics, usage

        used: dict[str, Any] = {}
        group, groups = group_of(self._core, self.id), groups_of(self._core)
        if groups is not None and group is not None:
            used = usage(groups, group.path)
        return SandboxStatistics(time=time(), interfaces=inside(self._core, self.id).interfaces(), **used)

    def stream_stats(self, interval: float = 1.0) -> Iterator[SandboxStatistics]:
        """
        Return what :meth:`stats` does, again and again, as long as the sandbox exists.

        Args:
            interval: Seconds from one to the next, at least; the first comes at once.
        """
        from time import monotonic, sleep

        interval, due = check_seconds("interval", interval), monotonic()
        while True:
            sleep(max(0.0, due - monotonic()))
            due = max(due + interval, monotonic())
            try:
                yield self.stats()
            except NotFoundError:
                return

    def rename(self, name: str) -> None:
        """Give it another name, unique in its controller."""
        check_name("sandbox", name)

        def build(draft: Draft) -> None:
            row = self._core.sandbox(self.id)
            draft.what = f"rename sandbox {row.spec.name!r} to {name!r}"
            rename(draft, row, self._core.records.named("sandbox", name), "sandbox", name)
            draft.undisturbed.add(sandbox_scope(self.id))

        self._core.request(build)

    def delete(self, *, missing_ok: bool = False) -> None:
        """
        Delete it. Its endpoints leave, and outlive it with their addresses.

        Processes that still run in it are killed, as ``docker rm -f`` does; :meth:`stop` asks them first.
        Only without a control group they live on in the bare namespace, cut off from all networks.

        Args:
            missing_ok: It is no error when it is gone already.

        Raises:
            NotFoundError: It was deleted before.
        """
        try:
            self._core.request(self._deleting)
        except NotFoundError:
            if not missing_ok:
                raise

    def plan_delete(self) -> Steps:
        """Return the steps that :meth:`delete` would take."""
        return self._core.rehearse(self._deleting)

    def inspect(self) -> dict[str, Any]:
        """Return all that is recorded of it as plain data, ready for JSON."""
        with self._core.reading():
            spec = self._core.sandbox(self.id).spec
            joined, gateway = members_of(self._core, self.id), gateway_of(self._core, self.id)
        return plain(spec) | {"endpoints": joined, "gateway": gateway and plain(gateway)}

    def __repr__(self) -> str:
        row = self._core.records.sandboxes.get(self.id)
        return f"<Sandbox {self.id[:12]} {row.spec.name if row else '(deleted)'}>"

    @property
    def _spec(self) -> SandboxSpec:
        with self._core.reading():
            return self._core.sandbox(self.id).spec

    def _deleting(self, draft: Draft) -> None:
        delete_sandbox(self._core, draft, self.id)
