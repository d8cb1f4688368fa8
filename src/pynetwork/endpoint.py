"""Endpoints: a network's address and interface for one sandbox at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetwork.core import Handle
from pynetwork.errors import InvalidValueError, NotFoundError
from pynetwork.ports import PortBinding
from pynetwork.requests.avoiding import avoiding_taken_ports
from pynetwork.requests.common import plain
from pynetwork.requests.endpoint import delete_endpoint
from pynetwork.requests.membership import join, leave
from pynetwork.requests.publish import publish, unpublish
from pynetwork.requests.renaming import rename_endpoint
from pynetwork.types import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.engine import Draft
    from pynetwork.network import Network
    from pynetwork.plan import Steps
    from pynetwork.requests.ports import Avoided
    from pynetwork.sandbox import Sandbox
    from pynetwork.specs import EndpointSpec
    from pynetwork.types import IPAddress, IPInterface

__all__ = ["Endpoint"]


class Endpoint(Handle):
    """An endpoint, made by :meth:`Network.create_endpoint`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self._spec.name

    @property
    def network(self) -> Network:
        """The network it is of."""
        from pynetwork.network import Network

        return Network.of(self._core, self._spec.network)

    @property
    def addresses(self) -> tuple[IPInterface, ...]:
        """Its addresses with their prefix lengths, IPv4 first."""
        return self._spec.addresses

    @property
    def link_local(self) -> tuple[IPInterface, ...]:
        """Its further addresses of link scope."""
        return self._spec.link_local

    @property
    def mac(self) -> str:
        """MAC address of its interface."""
        return self._spec.mac

    @property
    def interface(self) -> str | None:
        """Name of its interface in the sandbox; None before it joined, unless one was asked for."""
        return self._spec.interface

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its further names in the network."""
        return self._spec.aliases

    @property
    def ports(self) -> tuple[PortBinding, ...]:
        """Its published ports, with the host ports that were chosen."""
        with self._core.reading() as records:
            self._core.endpoint(self.id)
            return tuple(row.spec.binding for row in records.ports_of(self.id))

    @property
    def exposed(self) -> tuple[str, ...]:
        """Ports it serves, ``80/tcp``, besides those it publishes."""
        return self._spec.exposed

    @property
    def links(self) -> dict[str, str]:
        """Names that only its sandbox knows, to the names of endpoints of its network."""
        return dict(self._spec.links)

    @property
    def priority(self) -> int:
        """Its claim to be its sandbox's default gateway; the highest wins."""
        return self._spec.priority

    @property
    def labels(self) -> dict[str, str]:
        """The caller's labels."""
        return dict(self._spec.labels)

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """Next hops of the default routes that it provides to its sandbox."""
        return self._spec.default_via

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox it is joined to, if any."""
        from pynetwork.sandbox import Sandbox

        identity = self._spec.sandbox
        return None if identity is None else Sandbox.of(self._core, identity)

    def join(self, sandbox: Sandbox) -> None:
        """
        Put its interface into *sandbox*.

        Raises:
            ConflictError: It has joined a sandbox already, the interface name is taken, or one of the
                sandbox's networks has an overlapping subnet.
            NotFoundError: It, its network or the sandbox was deleted.
            ApplyError: The host refused a step; it is as before.
        """
        avoiding_taken_ports(self._core, lambda avoid: self._joining(sandbox, avoid), lambda: self.ports)

    def publish(self, port: object) -> PortBinding:
        """
        Publish a port: at once if it is joined, else when it joins.

        Args:
            port: Docker's ``[[ADDRESS:][HOSTPORT[-END]]:]PORT[-END][/PROTO]``, a number or a
                :class:`PortBinding`.

        Returns:
            The port with the host port that was chosen.

        Raises:
            InvalidValueError: Malformed, or nothing can be published there.
            PortTakenError: The host port is in use.
            ExhaustedError: No host port is free.
            ApplyError: The host refused a step; it is as before.
        """
        asked = PortBinding.parse(port)
        return avoiding_taken_ports(
            self._core,
            lambda avoid: lambda draft: publish(self._core, draft, self.id, asked, avoid),
            lambda: (asked, *self.ports),
        )

    def unpublish(self, port: object) -> None:
        """
        Publish a port no more; connections through it end.

        Args:
            port: As for :meth:`publish`, or one of :attr:`ports`. What it leaves open does not matter:
                ``80/tcp`` is all that leads to it.

        Raises:
            NotFoundError: It does not publish that.
        """
        asked = port if isinstance(port, PortBinding) else PortBinding.parse(port)
        self._core.request(lambda draft: unpublish(self._core, draft, self.id, asked))

    def plan_join(self, sandbox: Sandbox) -> Steps:
        """Return the steps that :meth:`join` would take."""
        return self._core.rehearse(self._joining(sandbox))

    def leave(self, sandbox: Sandbox | None = None) -> None:
        """
        Take its interface out of its sandbox; addresses and MAC stay its own.

        Args:
            sandbox: Checked to be the one it is in, when given.

        Raises:
            ConflictError: It is in no sandbox, or in another.
        """
        self._core.request(self._leaving(sandbox))

    def plan_leave(self) -> Steps:
        """Return the steps that :meth:`leave` would take."""
        return self._core.rehearse(self._leaving(None))

    def rename(self, name: str) -> None:
        """
        Give it another name, unique in its network, on all hosts.

        Raises:
            ConflictError: Another one has it.
        """
        check_name("endpoint", name)
        core = self._core
        if core.span is not None and core.span.is_global(self._spec.network):
            core.span.rename_endpoint(self.id, name)
        else:
            core.request(lambda draft: rename_endpoint(core, draft, self.id, name))

    def delete(self, *, force: bool = False, missing_ok: bool = False) -> None:
        """
        Delete it and release its addresses.

        Args:
            force: Leave the sandbox first, if it is in one.
            missing_ok: It is no error when it is gone already.

        Raises:
            ConflictError: It is in a sandbox, and *force* is not given.
            NotFoundError: It was deleted before.
        """
        span = self._core.span
        try:
            if span is not None and span.is_global(self._spec.network):
                span.delete_endpoint(self.id, force=force)
            else:
                self._core.request(self._deleting(force=force))
        except NotFoundError:
            if not missing_ok:
                raise

    def plan_delete(self, *, force: bool = False) -> Steps:
        """Return the steps that :meth:`delete` would take."""
        return self._core.rehearse(self._deleting(force=force))

    def inspect(self) -> dict[str, Any]:
        """Return all that is recorded of it as plain data, ready for JSON."""
        return plain(self._spec) | {"ports": [str(port) for port in self.ports]}

    def __repr__(self) -> str:
        row = self._core.records.endpoints.get(self.id)
        return f"<Endpoint {self.id[:12]} {row.spec.name if row else '(deleted)'}>"

    @property
    def _spec(self) -> EndpointSpec:
        with self._core.reading():
            return self._core.endpoint(self.id).spec

    def _joining(self, sandbox: Sandbox, avoid: Avoided = ()) -> Callable[[Draft], None]:
        self._check_sandbox(sandbox)
        return lambda draft: join(self._core, draft, self.id, sandbox.id, avoid)

    def _check_sandbox(self, sandbox: object) -> None:
        from pynetwork.sandbox import Sandbox

        if not isinstance(sandbox, Sandbox):
            msg = f"invalid sandbox {sandbox!r}: a Sandbox is expected, such as controller.sandboxes[name]"
            raise InvalidValueError(msg)
        if sandbox._core is not self._core:  # noqa: SLF001 - both are handles
            msg = f"{sandbox!r} is of another controller than {self!r}"
            raise InvalidValueError(msg)

    def _leaving(self, sandbox: Sandbox | None) -> Callable[[Draft], None]:
        if sandbox is not None:
            self._check_sandbox(sandbox)
        expected = None if sandbox is None else sandbox.id
        return lambda draft: leave(self._core, draft, self.id, expected)

    def _deleting(self, *, force: bool) -> Callable[[Draft], None]:
        return lambda draft: delete_endpoint(self._core, draft, self.id, force=force)
