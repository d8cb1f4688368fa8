"""Who is called what in which network, and what a sandbox may know of it. Pure: specs in, tables out.

A table follows the records one by one, so a change costs what it concerns: an endpoint that joins adds its
names to its network's and empties the prepared answers of those who are in that network, nobody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from pynetwork.dns import RESOLVER
from pynetwork.dns.codec import reverse_name, wire_name
from pynetwork.dns.view import Prepared, View
from pynetwork.ports import PortBinding
from pynetwork.types import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pynetwork.peers import Peer
    from pynetwork.specs import EndpointSpec, NetworkSpec, PortSpec, SandboxSpec
    from pynetwork.types import IPAddress

__all__ = ["Directory", "Inmate", "Member", "Server", "Zone"]

#: What the sandboxes' own server listens on: it is nobody's upstream.
ADDRESSES: Final = (RESOLVER, "::1")
_PORTS_MAX: Final = 64  # of an endpoint that are told as services: nobody wants to hear of 10 000


class Server(NamedTuple):
    """
    A name server to forward to.

    Args:
        address: Its address.
        netns: The namespace it is asked from; None for the host's own.
    """

    address: str
    netns: str | None = None


class Member(NamedTuple):
    """A joined endpoint, as DNS knows it."""

    id: str
    name: bytes
    names: tuple[bytes, ...]
    addresses: tuple[IPAddress, ...]
    ports: tuple[tuple[str, int], ...]
    sandbox: str


class Zone:
    """The names in a network."""

    def __init__(self) -> None:
        self.is_known = False
        self.suffix = b"\0"  # the network's name on the wire; the root's until it is known
        self.internal = False
        self.servers: tuple[IPAddress, ...] = ()
        # Tuples: most names have one endpoint, and there may be very many names.
        self.names: dict[bytes, tuple[Member, ...]] = {}
        self.reverse: dict[bytes, tuple[Member, ...]] = {}
        self.views: WeakSet[View] = WeakSet()
        self.inmates: set[str] = set()

    def add(self, member: Member) -> None:
        """Take in an endpoint."""
        for table, key in self._places(member):
            table[key] = (*table.get(key, ()), member)
        self.changed()

    def remove(self, member: Member) -> None:
        """Forget an endpoint."""
        for table, key in self._places(member):
            rest = tuple(each for each in table.get(key, ()) if each is not member)
            if rest:
                table[key] = rest
            else:
                table.pop(key, None)
        self.changed()

    def _places(self, member: Member) -> Iterator[tuple[dict[bytes, tuple[Member, ...]], bytes]]:
        for name in member.names:
            yield self.names, name
        for address in member.addresses:
            yield self.reverse, reverse_name(address)

    def changed(self) -> None:
        """Forget the answers that were prepared from it."""
        for view in self.views:
            view.forget()


class Inmate:
    """
    A sandbox, as DNS knows it.

    Attributes:
        netns: The file that pins its namespace; None is the host's own.
        servers: Its own name servers.
        endpoints: The endpoints it has, by id.
        cache: Answers prepared for it, those of :attr:`view`; empty until that is known.
    """

    def __init__(self, directory: Directory, identity: str) -> None:
        self.id = identity
        self.netns: str | None = None
        self.servers: tuple[IPAddress, ...] = ()
        self.endpoints: dict[str, EndpointSpec] = {}
        self.cache: Mapping[bytes, Prepared] = {}
        self._directory = directory
        self._view: View | None = None
        self._route: tuple[Server, ...] | None = None

    @property
    def wants_server(self) -> bool:
        """Whether it is to have a server: in a network with addresses, and not the host itself."""
        return self.netns is not None and any(spec.addresses for spec in self.endpoints.values())

    @property
    def view(self) -> View:
        """What it can resolve."""
        if self._view is None:
            self._view = self._directory.view_of(self.endpoints.values())
            self.cache = self._view.cache
        return self._view

    @property
    def is_internal(self) -> bool:
        """Whether it has no network with a way out."""
        return all(self._directory.zone(spec.network).internal for spec in self.endpoints.values())

    @property
    def route(self) -> tuple[Server, ...]:
        """
        The name servers it was given, itself or by its networks; none when the host's are meant.

        They are asked from inside, where an address of one of its networks means what it meant to who
        gave it. A loopback address given to a network can only be the host's.
        """
        if self._route is None:
            own = [Server(str(address), self.netns) for address in self.servers]
            given = own or [
                Server(str(address), None if address.is_loopback else self.netns)
                for spec in self._directory.in_order(self.endpoints.values())
                for address in self._directory.zone(spec.network).servers
                if not (address.is_loopback and self.is_internal)
            ]
            kept = [server for server in given if server.netns is None or server.address not in ADDRESSES]
            self._route = tuple(dict.fromkeys(kept))
        return self._route

    @property
    def uses_host(self) -> bool:
        """Whether the host's own name servers are asked, for want of others."""
        return not self.route and not self.is_internal

    def forget(self) -> None:
        """Work out anew what it can resolve, and whom it asks."""
        self._view = self._route = None
        self.cache = {}


class Directory:
    """
    All zones and sandboxes of an instance.

    Attributes:
        inmates: Sandboxes by id.
        touched: Ids of those that were changed; whoever serves them takes them out.
    """

    def __init__(self) -> None:
        self.inmates: dict[str, Inmate] = {}
        self.touched: set[str] = set()
        self._zones: dict[str, Zone] = {}
        self._specs: dict[str, EndpointSpec] = {}
        self._members: dict[str, Member] = {}
        self._peers: dict[str, Member] = {}
        self._ports: dict[str, dict[str, PortSpec]] = {}
        self._views: WeakValueDictionary[object, View] = WeakValueDictionary()

    def clear(self) -> None:
        """Forget everything."""
        self.touched.update(self.inmates)
        for table in (self.inmates, self._zones, self._specs, self._members, self._peers, self._ports):
            table.clear()

    def put(self, key: str, spec: Any) -> None:  # noqa: ANN401 - of the kind that the key says
        """
        Take in a record.

        Args:
            key: Its key in the store.
            spec: What it says, None when it is gone.
        """
        table, _, rest = key.partition("/")
        identity = rest.rpartition("/")[2]
        if getattr(spec, "system", False):
            return  # nobody in a gateway network reaches another, nor is called anything
        if table == "endpoint":
            self._put_endpoint(identity, spec)
        elif table == "network":
            self._put_network(identity, spec)
        elif table == "sandbox":
            self._put_sandbox(identity, spec)
        elif table == "port":
            self._put_port(rest.partition("/")[0], identity, spec)
        elif table == "peer":
            self._put_peer(rest.partition("/")[0], identity, spec)

    def zone(self, network: str) -> Zone:
        """Return the zone of the network of that id."""
        return self._zones.setdefault(network, Zone())

    def sandbox_of(self, endpoint: str) -> str | None:
        """Return the id of the sandbox that the endpoint of that id is known to be in."""
        member = self._members.get(endpoint)
        return None if member is None else member.sandbox

    def in_order(self, specs: Iterable[EndpointSpec]) -> list[EndpointSpec]:
        """Return the endpoints of a sandbox, those whose network's names come first at the front."""
        # The order of its default routes, as in libnetwork.
        return sorted(
            specs,
            key=lambda spec: (
                -spec.priority,
                self.zone(spec.network).internal,
                -len(spec.addresses),
                spec.joined,
            ),
        )

    def view_of(self, specs: Iterable[EndpointSpec]) -> View:
        """Return what a sandbox with these endpoints can resolve: the same for all that are like it."""
        ordered = self.in_order(specs)
        key = tuple((spec.network, frozenset(spec.links.items())) for spec in ordered)
        view = self._views.get(key)
        if view is None:
            zones = tuple(self.zone(spec.network) for spec in ordered)
            view = View(tuple((zone, _links(spec.links)) for zone, spec in zip(zones, ordered, strict=True)))
            self._views[key] = view
            for zone in zones:
                zone.views.add(view)
        return view

    # Records

    def _put_network(self, identity: str, spec: NetworkSpec[Any] | None) -> None:
        zone = self.zone(identity)
        zone.is_known = spec is not None
        zone.suffix = wire_name(spec.name if spec else "") or b"\0"
        zone.internal, zone.servers = (spec.internal, spec.dns) if spec else (False, ())
        zone.changed()
        self._drop_if_gone(identity)
        for inmate in zone.inmates:
            self.inmates[inmate].forget()

    def _drop_if_gone(self, network: str) -> None:
        """Forget a network that is gone once its last endpoint is: they may go in any order."""
        zone = self.zone(network)
        if not (zone.is_known or zone.names or zone.reverse or zone.inmates):
            del self._zones[network]

    def _put_endpoint(self, identity: str, spec: EndpointSpec | None) -> None:
        old = self._specs.pop(identity, None)
        if old is not None and old.sandbox is not None:
            self._take_out(old, old.sandbox)
        if spec is None:
            return
        self._specs[identity] = spec
        if spec.sandbox is not None:
            inmate = self._inmate(spec.sandbox)
            inmate.endpoints[identity] = spec
            inmate.forget()
            self.zone(spec.network).inmates.add(spec.sandbox)
            self._add(spec)

    def _take_out(self, spec: EndpointSpec, sandbox: str) -> None:
        zone = self.zone(spec.network)
        zone.remove(self._members.pop(spec.id))
        inmate = self._inmate(sandbox)
        inmate.endpoints.pop(spec.id, None)
        inmate.forget()
        if all(other.network != spec.network for other in inmate.endpoints.values()):
            zone.inmates.discard(sandbox)
        self._drop_if_gone(spec.network)
        if inmate.netns is None and not inmate.endpoints:
            self.inmates.pop(sandbox, None)

    def _put_port(self, endpoint: str, identity: str, spec: PortSpec | None) -> None:
        ports = self._ports.setdefault(endpoint, {})
        ports.pop(identity, None)
        if spec is not None:
            ports[identity] = spec
        if not ports:
            del self._ports[endpoint]
        known = self._specs.get(endpoint)
        if known is not None and known.sandbox is not None:
            self.zone(known.network).remove(self._members[endpoint])
            self._add(known)

    def _put_peer(self, network: str, identity: str, spec: Peer | None) -> None:
        """Take in an endpoint of another host."""
        old = self._peers.pop(identity, None)
        if old is not None:
            self.zone(network).remove(old)
            self._drop_if_gone(network)
        if spec is not None:
            member = self._peers[identity] = Member(
                id=identity,
                name=wire_name(spec.name) or b"\0",
                names=_wire_names((spec.name, *spec.aliases)),
                addresses=tuple(map(parse_address, spec.addresses)),
                ports=(),
                sandbox="",
            )
            self.zone(network).add(member)

    def _put_sandbox(self, identity: str, spec: SandboxSpec | None) -> None:
        inmate = self._inmate(identity)
        inmate.netns, inmate.servers = None, ()
        if spec is not None:
            inmate.netns, inmate.servers = spec.netns if spec.attached else None, spec.dns
        elif not inmate.endpoints:
            self.inmates.pop(identity, None)
        inmate.forget()

    def _inmate(self, identity: str) -> Inmate:
        self.touched.add(identity)
        inmate = self.inmates.get(identity)
        if inmate is None:
            inmate = self.inmates[identity] = Inmate(self, identity)
        return inmate

    def _add(self, spec: EndpointSpec) -> None:
        published = [port.binding for port in self._ports.get(spec.id, {}).values()]
        member = Member(
            id=spec.id,
            name=wire_name(spec.name) or b"\0",
            names=_wire_names((spec.name, *spec.aliases)),
            addresses=tuple(address.ip for address in spec.addresses),
            ports=_ports([*map(PortBinding.parse, spec.exposed), *published]),
            sandbox=spec.sandbox or "",
        )
        self._members[spec.id] = member
        self.zone(spec.network).add(member)


def _wire_names(names: Iterable[str]) -> tuple[bytes, ...]:
    """Return those of *names* that DNS can say."""
    return tuple(dict.fromkeys(wire for name in names if (wire := wire_name(name)) is not None))


def _links(links: Mapping[str, str]) -> dict[bytes, bytes]:
    found = {wire_name(alias): wire_name(name) for alias, name in links.items()}
    return {alias: name for alias, name in found.items() if alias is not None and name is not None}


def _ports(bindings: Iterable[PortBinding]) -> tuple[tuple[str, int], ...]:
    found: dict[tuple[str, int], None] = {}
    for binding in bindings:
        for port in range(binding.first, binding.last + 1):
            if len(found) >= _PORTS_MAX:
                return tuple(found)
            found[binding.proto, port] = None
    return tuple(found)
