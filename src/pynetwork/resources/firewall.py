"""What is allowed on a host's networks: rules as values, for whichever firewall the host has.

Each is a few elements of the sets in :mod:`pynetwork.resources.ruleset`; hosts without nftables get
the same values as iptables rules.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from pynetwork.resources.addresses import ForgetNeighbour
from pynetwork.resources.base import Effect, Resource
from pynetwork.resources.ruleset import TABLE, Element, skeleton

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.resources.base import Key

__all__ = [
    "Conntrack",
    "EndpointRules",
    "NetworkRules",
    "PublishedPort",
    "Rules",
    "Ruleset",
    "SubnetRules",
]

RULESET_KEY: Key = ("ruleset",)


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


@attrs.frozen(kw_only=True)
class Ruleset(Resource):
    """
    The skeleton of the firewall, there as long as a network needs it.

    Args:
        priority: Added to the standard priority of each base chain.
    """

    kind = "ruleset"
    rank = 5
    shared = True

    priority: int = 0

    @property
    def key(self) -> Key:
        return RULESET_KEY

    def render(self, table: str = TABLE) -> tuple[str, ...]:
        return ("nft -f - <<END", *skeleton(table, self.priority).splitlines(), "END")

    def render_delete(self, table: str = TABLE) -> tuple[str, ...]:
        return (f"nft delete table inet {table}", f"nft delete table bridge {table}")


@attrs.frozen(kw_only=True)
class Conntrack(Effect):
    """
    Forget connections, so that no packet follows a translation that is gone.

    Args:
        proto: ``tcp``, ``udp`` or ``sctp``; None for all.
        address: Of a container: connections from it, to it and answered by it.
        destination: A host address whose port *first* to *last* was published; None for any address.
        first: First port.
        last: Last port.
        target: The container that they were translated to; None for any. A port may be another's a
            moment later, and connections to that one stay.
        sparing: Connections to this container stay: it has the port now, and may have been asked already.
        version: 4 or 6.
    """

    kind = "conntrack"

    version: int
    proto: str | None = None
    address: str | None = None
    destination: str | None = None
    first: int | None = None
    last: int | None = None
    target: str | None = None
    sparing: str | None = None

    @property
    def key(self) -> Key:
        ports = f"{self.first}-{self.last}"
        ends = (self.address, self.destination, self.target, self.sparing)
        return ("conntrack", str(self.version), self.proto, *ends, ports)

    def render(self) -> tuple[str, ...]:
        family = {4: "ipv4", 6: "ipv6"}[self.version]
        if self.address is not None:
            return tuple(
                f"conntrack -D -f {family} {way} {self.address}" for way in ("--orig-src", "--reply-src")
            )
        to = f" --orig-dst {self.destination}" if self.destination else ""
        to += f" --reply-src {self.target}" if self.target else ""
        ports = range(self.first or 0, (self.last or 0) + 1)
        return tuple(f"conntrack -D -f {family} -p {self.proto}{to} --orig-port-dst {p}" for p in ports)

    def render_delete(self) -> tuple[str, ...]:
        return ()


@attrs.frozen(kw_only=True)
class Rules(Resource):
    """Rules that are elements of the skeleton's sets."""

    verb: ClassVar[str] = "add"

    @property
    def parents(self) -> tuple[Key, ...]:
        return (RULESET_KEY,)

    @abstractmethod
    def elements(self) -> tuple[Element, ...]:
        """Return the elements that they are."""

    def render(self, table: str = TABLE) -> tuple[str, ...]:
        return tuple(element.render(self.verb, table) for element in self.elements())

    def render_delete(self, table: str = TABLE) -> tuple[str, ...]:
        return tuple(element.render("delete", table) for element in reversed(self.elements()))

    def render_update(self, previous: Resource, table: str = TABLE) -> tuple[str, ...]:
        was = previous.elements() if isinstance(previous, Rules) else ()
        gone = (element.render("delete", table) for element in was if element not in self.elements())
        new = (element.render(self.verb, table) for element in self.elements() if element not in was)
        return (*gone, *new)


@attrs.frozen(kw_only=True)
class SubnetRules:
    """
    What is allowed to and from one subnet of a network.

    Args:
        subnet: CIDR, canonical text.
        mode: ``nat``: only published ports are reachable from outside, and only by the host's
            addresses; ``nat-unprotected``: unpublished ones are reachable by direct routing as well;
            ``routed``: published ones are, by direct routing, and pings; ``isolated``: nothing.
        source: What its packets to the outside come from: ``masquerade`` for the address of the
            outgoing interface, an address, or None for their own.
    """

    subnet: str = attrs.field(converter=str)
    mode: str = "nat"
    source: str | None = None

    @property
    def version(self) -> int:
        """4 or 6."""
        return _version(self.subnet)


def _subnets(values: Iterable[Any]) -> tuple[SubnetRules, ...]:
    return tuple(SubnetRules(**value) if isinstance(value, dict) else value for value in values)


@attrs.frozen(kw_only=True)
class NetworkRules(Rules):
    """
    What is allowed on a bridge: who may reach whom, and as whom its packets leave the host.

    Args:
        bridge: Interface name.
        subnets: For each subnet.
        internal: Nothing goes out, and nothing comes in.
        icc: Whether packets may be routed from the bridge back to it: its endpoints may talk to each
            other (inter-container communication).
        is_open: Whether it may talk to other open networks.
        trusted: Interfaces of the host from which all of it may be reached.
    """

    kind = "network_rules"
    rank = 24
    mutable = frozenset({"subnets", "internal", "icc", "is_open", "trusted"})

    bridge: str
    subnets: tuple[SubnetRules, ...] = attrs.field(default=(), converter=_subnets)
    internal: bool = False
    icc: bool = True
    is_open: bool = False
    trusted: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    @property
    def key(self) -> Key:
        return ("network_rules", self.bridge)

    def elements(self) -> tuple[Element, ...]:
        bridge = self.bridge
        flags = {"bridges": True, "internal": self.internal, "open": self.is_open and not self.internal}
        found = [Element(name, (bridge,)) for name, is_set in flags.items() if is_set]
        if self.icc:
            found.append(Element("linked", (bridge, bridge)))
        if not self.internal:
            found += (Element("linked", (link, bridge)) for link in self.trusted)
        for subnet in self.subnets:
            found += self._of(subnet)
        return tuple(dict.fromkeys(found))

    def _of(self, rules: SubnetRules) -> Iterator[Element]:
        version, subnet = rules.version, rules.subnet
        yield Element(f"own{version}", (subnet, self.bridge))
        if rules.mode in {"nat", "isolated"} or self.internal:
            yield Element(f"direct{version}", (subnet,))
        if self.internal:
            return
        yield from (Element(f"trusted{version}", (link, subnet)) for link in self.trusted)
        if rules.mode == "nat-unprotected":
            yield Element(f"unprotected{version}", (self.bridge,))
        elif rules.mode == "routed":
            yield Element(f"pingable{version}", (self.bridge,))
        if rules.source == "masquerade":
            yield Element(f"masquerade{version}", (subnet,))
        elif rules.source is not None:
            yield Element(f"snat{version}", (subnet,), (rules.source,))


@attrs.frozen(kw_only=True)
class EndpointRules(Rules):
    """
    Who an endpoint may pretend to be: nobody but itself. Its connections are forgotten with it.

    Args:
        link: Interface name of the host's end of its veth pair.
        mac: Of its interface.
        addresses: Its own, without prefix length.
        guard: Whether packets with another source are dropped (spoof protection).
        bridge: Interface name of the bridge that *link* is a port of, for firewalls that see only that.
    """

    kind = "endpoint_rules"
    rank = 24
    mutable = frozenset({"mac", "addresses", "guard"})

    link: str
    mac: str
    addresses: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    guard: bool = True
    bridge: str = ""

    @property
    def key(self) -> Key:
        return ("endpoint_rules", self.link)

    def effects_of_delete(self) -> tuple[Effect, ...]:
        connections = (Conntrack(version=_version(each), address=each) for each in self.addresses)
        neighbours = self.addresses if self.bridge else ()
        return (*connections, *(ForgetNeighbour(dev=self.bridge, address=each) for each in neighbours))

    def elements(self) -> tuple[Element, ...]:
        if not self.guard:
            return ()
        # The guard comes first and goes last: a packet of a guarded link needs all the rest.
        return (
            Element("macs", (self.link, self.mac)),
            *(Element(f"sources{_version(a)}", (self.link, self.mac, a)) for a in self.addresses),
            *(Element("targets6", (self.link, a)) for a in self.addresses if _version(a) == 6),
            Element("guarded", (self.link,)),
        )


@attrs.frozen(kw_only=True)
class PublishedPort(Rules):
    """
    A port, or a range of them, through which an endpoint is reached from outside.

    Args:
        proto: ``tcp``, ``udp`` or ``sctp``.
        host: Address of the host; None for all of its addresses of the family of *target*.
        first: First port on the host.
        last: Last port on the host.
        target: Address of the endpoint.
        target_first: First port there.
        nat: Whether *host* and its ports are translated to the target's; else the target's own are
            opened, and those of the host are of no account.
        owner: Whose it is, for those who want the same port: ``endpoint 'web' of network 'front'``.
    """

    kind = "port"
    rank = 25
    verb = "create"

    proto: str
    host: str | None = None
    first: int
    last: int
    target: str = attrs.field(converter=str)
    target_first: int
    nat: bool = True
    owner: str = attrs.field(default="", eq=False)

    @property
    def shared(self) -> bool:  # type: ignore[override]  # of all others it is a constant
        """Whether several may ask for it: the endpoint's own port is open or not, however often asked for."""
        return not self.nat

    @property
    def key(self) -> Key:
        version = str(self.version)
        if self.nat:
            return ("port", version, self.proto, self.host, f"{self.first}-{self.last}")
        ports = f"{self.target_first}-{self.target_last}"
        return ("port", version, self.proto, f"to {self.target}", ports)

    @property
    def version(self) -> int:
        """4 or 6."""
        return _version(self.target)

    @property
    def target_last(self) -> int:
        """The last port of the endpoint."""
        return self.target_first + self.last - self.first

    def elements(self) -> tuple[Element, ...]:
        if not self.nat:
            return (self._opened(),)
        of = "port" if self.host is None else "address_port"
        prefix = (self.proto,) if self.host is None else (self.host, self.proto)
        if self.first == self.target_first and self.first < self.last:
            ports = (self.first, self.last)
            return (Element(f"{of}_ranges{self.version}", (*prefix, ports), (self.target,)),)
        # The kernel cannot shift a range: one element for each port.
        return tuple(
            Element(f"{of}s{self.version}", (*prefix, port), (self.target, self.target_first + n))
            for n, port in enumerate(range(self.first, self.last + 1))
        )

    def _opened(self) -> Element:
        first, last = self.target_first, self.target_last
        if first == last:
            return Element(f"routed{self.version}", (self.target, self.proto, first))
        return Element(f"routed_ranges{self.version}", (self.target, self.proto, (first, last)))

    def effects(self) -> tuple[Effect, ...]:
        # What is no connection begins anew with each packet, and would go on to wherever it went before.
        return () if self.proto == "tcp" else self._forgets(sparing=self.target)

    def effects_of_delete(self) -> tuple[Effect, ...]:
        return self._forgets(target=self.target)

    def _forgets(self, *, target: str | None = None, sparing: str | None = None) -> tuple[Effect, ...]:
        if not self.nat:
            return ()
        return (
            Conntrack(
                version=self.version,
                proto=self.proto,
                destination=self.host,
                first=self.first,
                last=self.last,
                target=target,
                sparing=sparing,
            ),
        )
