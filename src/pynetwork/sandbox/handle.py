"""Sandboxes: the network stack of one container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetwork.core import Handle
from pynetwork.errors import NotFoundError
from pynetwork.requests.common import plain, rename, sandbox_scope
from pynetwork.requests.sandbox import delete_sandbox
from pynetwork.sandbox.namespace import Inside
from pynetwork.types import check_name

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pynetwork.endpoint import Endpoint
    from pynetwork.engine import Draft
    from pynetwork.kernel.stats import InterfaceStatistics
    from pynetwork.plan import Steps
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
        """The file that pins its namespace; None when that is the host's own."""
        from pathlib import Path

        path = self._spec.netns
        return None if path is None else Path(path)

    @property
    def labels(self) -> dict[str, str]:
        """The caller's labels."""
        return dict(self._spec.labels)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its endpoints, the longest joined first."""
        from pynetwork.endpoint import Endpoint

        with self._core.reading() as records:
            self._core.sandbox(self.id)
            return tuple(Endpoint.of(self._core, row.spec.id) for row in records.joined(self.id))

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
        return self._inside().run(
            argv, input=input, capture_output=capture_output, timeout=timeout, check=check, **options
        )

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - as Popen's
        """
        Start a program in it, with the options of :class:`subprocess.Popen`.

        The program starts in the namespace; no thread of the caller is moved, and nothing of the caller
        is copied (``vfork``), however large it is.
        """
        return self._inside().popen(argv, **options)

    def entered(self) -> AbstractContextManager[None]:
        """
        Return a block in which the calling thread is in its namespace.

        For code that must open its own sockets there. Only the calling thread moves, and threads and
        processes it starts meanwhile.
        """
        return self._inside().entered()

    def statistics(self) -> dict[str, InterfaceStatistics]:
        """Return what passed through each of its interfaces but ``lo``, by interface name."""
        return self._inside().statistics()

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

        A process that still runs in it keeps the bare namespace, cut off from all networks.

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
        with self._core.reading() as records:
            spec = self._core.sandbox(self.id).spec
            joined = [row.spec.id for row in records.joined(self.id)]
        return plain(spec) | {"endpoints": joined}

    def __repr__(self) -> str:
        row = self._core.records.sandboxes.get(self.id)
        return f"<Sandbox {self.id[:12]} {row.spec.name if row else '(deleted)'}>"

    @property
    def _spec(self) -> SandboxSpec:
        with self._core.reading():
            return self._core.sandbox(self.id).spec

    def _inside(self) -> Inside:
        if self._core.dns is not None:
            self._core.dns.ensure(self.id)
        return Inside(self._core.namespaces(), self._spec.netns)

    def _deleting(self, draft: Draft) -> None:
        delete_sandbox(self._core, draft, self.id)
