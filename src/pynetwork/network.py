"""Networks: what joins endpoints to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetwork.core import Handle
from pynetwork.endpoint import Endpoint
from pynetwork.errors import NotFoundError
from pynetwork.plan import Steps
from pynetwork.requests.common import plain, pool_of
from pynetwork.requests.endpoint import EndpointRequest
from pynetwork.requests.network import delete_network
from pynetwork.requests.renaming import rename_network
from pynetwork.types import check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.cluster import PeerHost
    from pynetwork.engine import Draft
    from pynetwork.ipam import Usage
    from pynetwork.records import AnyNetworkSpec
    from pynetwork.specs import StaticRoute
    from pynetwork.types import AnyInterface, AnyNetwork, IPAddress, IPNetwork

__all__ = ["Network"]


class Network(Handle):
    """A network, made by :meth:`Controller.new_network`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self._spec.name

    @property
    def driver(self) -> str:
        """Its type: the name of its driver."""
        return self._spec.driver

    @property
    def options(self) -> Any:  # noqa: ANN401 - the driver's own type
        """The driver's options for it."""
        return self._spec.options

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """Its subnets."""
        return tuple(subnet.network for subnet in self._spec.subnets)

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The gateway of each subnet that has one."""
        return tuple(subnet.gateway for subnet in self._spec.subnets if subnet.gateway is not None)

    @property
    def internal(self) -> bool:
        """Whether it has no way out."""
        return self._spec.internal

    @property
    def dns(self) -> tuple[IPAddress, ...]:
        """Name servers of its sandboxes, where these have none of their own."""
        return self._spec.dns

    @property
    def labels(self) -> dict[str, str]:
        """The caller's labels."""
        return dict(self._spec.labels)

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Its endpoints by name."""
        return self._core.view(Endpoint, f"endpoint/{self.id}", self._core.records.endpoints)

    @property
    def peers(self) -> tuple[PeerHost, ...]:
        """The other hosts that have joined endpoints of it, if it spans hosts; see :class:`PeerHost`."""
        span = self._core.span
        return span.peers(self.id) if span is not None and span.is_global(self.id) else ()

    def create_endpoint(
        self,
        name: str,
        *,
        addresses: Iterable[AnyInterface] = (),
        mac: object = None,
        interface: str | None = None,
        link_local: Iterable[AnyInterface] = (),
        aliases: Iterable[str] = (),
        ports: Iterable[object] = (),
        exposed: Iterable[object] = (),
        links: Mapping[str, str] | None = None,
        routes: Iterable[StaticRoute | AnyNetwork | tuple[AnyNetwork, object]] = (),
        sysctls: Mapping[str, str] | None = None,
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """
        Create an endpoint and allot its addresses; it can join a sandbox now or later.

        Args:
            name: Unique in this network.
            addresses: Wanted ones, at most one of each address family; the IPAM driver chooses
                what is not given.
            mac: Wanted MAC address; random when None.
            interface: Name of the interface in the sandbox; the driver's prefix and the lowest free
                number when None.
            link_local: Further addresses, link-local unicast ones; /16 and /64 when no prefix length
                is given (libnetwork).
            aliases: Further names in this network; several endpoints may have the same.
            ports: Ports to publish while it is joined, in Docker's notation: ``8080:80/tcp``, or
                :class:`PortBinding` values. Host ports that are left open are chosen now and kept.
            exposed: Ports it serves, ``80/tcp``, in its network's names as service records (RFC 2782);
                those it publishes are among them and need not be named.
            links: Names that only its sandbox knows, to the names of endpoints of this network.
            routes: Static routes it brings into its sandbox: ``(destination, next hop)``, or a
                destination on the link. Default routes are not among them, the network has those.
            sysctls: Settings of the interface, ``net.X.Y.IFNAME.Z`` to value (libnetwork's
                endpoint sysctls); written before it goes up.
            priority: A sandbox's default gateway is that of its endpoint of highest priority.
            labels: Kept for the caller.

        Returns:
            The endpoint.

        Raises:
            InvalidValueError: Malformed, or an address in none of the subnets.
            ConflictError: The name, an address or the MAC is in use.
            PortTakenError: A host port is in use.
            ExhaustedError: No address or no host port is free.
            NotFoundError: The network was deleted.
        """
        request = EndpointRequest(
            network=self.id,
            name=name,
            addresses=addresses,
            mac=mac,
            interface=interface,
            link_local=link_local,
            aliases=aliases,
            ports=ports,
            exposed=exposed,
            links=links,
            routes=routes,
            sysctls={} if sysctls is None else sysctls,
            priority=priority,
            labels={} if labels is None else labels,
        )
        core = self._core
        if core.span is not None and core.span.is_global(self.id):
            return core.made(Endpoint.of(core, core.span.create_endpoint(request)))
        return core.made(Endpoint.of(core, core.request(lambda draft: request.build(core, draft))))

    def rename(self, name: str) -> None:
        """
        Give it another name, unique in its controller, or in its cluster if it spans hosts.

        Raises:
            ConflictError: Another one has it.
        """
        check_name("network", name)
        core = self._core
        if core.span is not None and core.span.is_global(self.id):
            core.span.rename_network(self.id, name)
        else:
            core.request(lambda draft: rename_network(core, draft, self.id, name))

    def plan_delete(self) -> Steps:
        """Return the steps that :meth:`delete` would take on this host."""
        core = self._core
        with core.reading() as records:
            is_here = self.id in records.networks
        if core.span is not None and not is_here:
            core.span.network(self.id)  # which says so if it is nowhere
            return Steps()
        return core.rehearse(self._deleting)

    def delete(self, *, missing_ok: bool = False) -> None:
        """
        Delete it.

        Args:
            missing_ok: It is no error when it is gone already.

        Raises:
            ConflictError: It has endpoints, or it is of a type that always exists (libnetwork).
            NotFoundError: It was deleted before.
        """
        try:
            self._delete()
        except NotFoundError:
            if not missing_ok:
                raise

    def usage(self) -> dict[IPNetwork, Usage]:
        """Return how full each subnet is; one whose IPAM driver cannot tell is left out."""
        if self._core.span is not None and self._core.span.is_global(self.id):
            return self._core.span.usage(self.id)
        count = self._core.allocations.usage
        with self._core.reading():
            spec = self._core.network(self.id).spec
            found = {subnet.network: count(spec.ipam, pool_of(spec, subnet)) for subnet in spec.subnets}
        return {subnet: usage for subnet, usage in found.items() if usage is not None}

    def inspect(self) -> dict[str, Any]:
        """Return all that is recorded of it as plain data, ready for JSON."""
        with self._core.reading():
            spec = self._spec
        return plain(spec) | {"endpoints": sorted(self.endpoints)}

    def __repr__(self) -> str:
        row = self._core.records.networks.get(self.id)
        absent = "(deleted)" if self._core.span is None else "(not on this host)"
        return f"<Network {self.id[:12]} {row.spec.name if row else absent}>"

    @property
    def _spec(self) -> AnyNetworkSpec:
        core = self._core
        with core.reading() as records:
            row = records.networks.get(self.id)
            if row is None and core.span is None:
                row = core.network(self.id)  # which says that it is gone
        return row.spec if row is not None else core.span.network(self.id)  # type: ignore[union-attr]  # see above

    def _delete(self, *, force: bool = False) -> None:
        """Delete it, with *force* also if it is of a type that always exists."""
        core = self._core
        if core.span is not None and core.span.is_global(self.id):
            core.span.delete_network(self.id)
        else:
            core.request(lambda draft: delete_network(core, draft, self.id, force=force))

    def _deleting(self, draft: Draft) -> None:
        delete_network(self._core, draft, self.id)
