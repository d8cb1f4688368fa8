"""What a network driver is: a name, an options type, and two pure functions from specs to plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs

from pynetwork.specs import Capabilities, EndpointSpec, NetworkSpec, SandboxSpec

if TYPE_CHECKING:
    from pynetwork.plan import Plan
    from pynetwork.ports import PortBinding
    from pynetwork.types import IPAddress

__all__ = [
    "Capabilities",
    "Driver",
    "EndpointSpec",
    "NetworkSpec",
    "NoOptions",
    "Numbering",
    "Publisher",
    "Publishing",
    "SandboxSpec",
]

O = TypeVar("O")  # noqa: E741 - "options", as in specs


@attrs.frozen(kw_only=True)
class NoOptions:
    """The options of a driver that has none."""


@attrs.frozen(kw_only=True)
class Publishing:
    """
    How ports of a network's endpoints are published.

    Args:
        translated: Address families in which a port of the host stands for one of the endpoint.
        opened: Those in which the endpoint's own port is opened, to whoever has a route to it.
        address: Address of the host for ports that name none; None for all of its addresses.
    """

    translated: tuple[int, ...] = ()
    opened: tuple[int, ...] = ()
    address: IPAddress | None = None


class Publisher(Protocol[O]):
    """What a driver has as well if ports can be published in its networks."""

    def publishing(self, network: NetworkSpec[O]) -> Publishing:
        """Return how; no address family at all where nothing can be published."""
        ...

    def port_plan(self, network: NetworkSpec[O], endpoint: EndpointSpec, binding: PortBinding) -> Plan:
        """
        Return what exists as long as *endpoint* is joined and publishes *binding*.

        ``binding.host_port`` is chosen, unless no address family is translated.
        """
        ...


class Numbering(Protocol):
    """What a driver has as well if the ports of its endpoints have numbers, no two the same on a host."""

    def port_number(self, link: str) -> int | None:
        """
        Return the number of the port that the link of that name is.

        The names of links are chosen so that it is no other's. None when it does not matter.
        """
        ...


class Driver(Protocol[O]):
    """
    Makes networks of one type.

    A driver touches nothing: the same specs give the same plan, always. It writes no teardown, no
    rollback, no restore; the engine derives them. It may raise
    :class:`~pynetwork.errors.RequestError` for what it cannot do.
    """

    @property
    def name(self) -> str:
        """The type, as given to ``new_network``."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the controller must know before it plans."""
        ...

    @property
    def options_type(self) -> type[O]:
        """A frozen attrs class; its fields are the driver's options."""
        ...

    def interface_prefix(self, network: NetworkSpec[O]) -> str:
        """Return the prefix of interface names in a sandbox, such as ``eth``; empty for no interface."""
        ...

    def network_plan(self, network: NetworkSpec[O]) -> Plan:
        """Return what exists on this host as long as the network does."""
        ...

    def join_plan(self, network: NetworkSpec[O], endpoint: EndpointSpec, sandbox: SandboxSpec) -> Plan:
        """
        Return what exists as long as *endpoint* is joined to *sandbox*.

        Everything is chosen already: ``endpoint.interface`` (name inside), ``endpoint.link`` (a unique
        name for the host's end), MAC, addresses, and in ``endpoint.default_via`` the next hops of the
        default routes this endpoint owns.
        """
        ...
