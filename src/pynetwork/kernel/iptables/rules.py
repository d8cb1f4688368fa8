"""What resources are in iptables: pure functions from their elements to rules of either family.

The rules mean what those of the nftables skeleton (:mod:`pynetwork.resources.ruleset`) mean, with these
differences, which are those of iptables itself:

- To accept is final. So what goes to or comes from our bridges and is allowed is accepted, past the
  host's own rules (with ``Ruleset.priority`` above 0 they come first); all else goes on to them.
- Frames between two ports of one bridge are not seen, unless somebody has turned on ``bridge-nf``, which
  is not ours to do: an endpoint that pretends to be its sibling, to a sibling, is not stopped, nor is
  any lie in ARP. What endpoints send to the host, or through it, is checked by MAC address.
- The port of a bridge that a packet came by is not seen either: what has neither the MAC address nor the
  IP address of an endpoint is taken for somebody else's.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.kernel.iptables.layout import TRANSLATED, chain_name
from pynetwork.kernel.iptables.values import Match, Rule, mark
from pynetwork.resources import EndpointRules, PublishedPort, Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.resources.base import Key
    from pynetwork.resources.ruleset import Element

__all__ = ["key_text", "rules_of", "versions_of"]

_VERSIONS: Final = (4, 6)
_JUMPS: Final = frozenset({"ONLY", "TO", "OPENTO"})
_ICMP: Final = {4: "icmp", 6: "ipv6-icmp"}
# Others mean something to iptables: a name ending in "+" stands for all that begin so.
_INTERFACE: Final = re.compile(r"(?!!)[!-~]+(?<!\+)")


def key_text(key: Key) -> str:
    """Return the key of a resource as text for comments."""
    return " ".join("*" if part is None else quote(part, safe=" :/") for part in key)


def versions_of(resource: Rules) -> tuple[int, ...]:
    """Return the families that a resource has rules of."""
    return (resource.version,) if isinstance(resource, PublishedPort) else _VERSIONS


def rules_of(resource: Rules, instance: str, version: int) -> tuple[Rule, ...]:
    """
    Return the rules that a resource is, in the order in which they are in their chains.

    Args:
        resource: What should be.
        instance: Hexadecimal id of the owner.
        version: 4 or 6.

    Raises:
        InvalidValueError: iptables cannot match an interface of that name.
    """
    if version not in versions_of(resource):
        return ()
    if isinstance(resource, PublishedPort) and resource.nat:
        found: tuple[Rule, ...] = tuple(_published(resource))
    elif isinstance(resource, EndpointRules):
        found = tuple(_guards(resource, version))
    else:
        found = tuple(rule for element in resource.elements() for rule in _of_element(element, version))
    key = mark(instance) + key_text(resource.key)
    owner = resource.owner if isinstance(resource, PublishedPort) else ""
    return tuple(
        attrs.evolve(
            rule,
            chain=chain_name(instance, rule.chain),
            target=chain_name(instance, rule.target)
            if rule.target in {"ONLY", "TO", "OPENTO"}
            else rule.target,
            key=key,
            owner=owner,
        )
        for rule in dict.fromkeys(found)
    )


# Elements. The chains are named without the instance here.


def _of_element(element: Element, version: int) -> tuple[Rule, ...]:
    name = element.of
    if name[-1].isdigit():
        if int(name[-1]) != version:
            return ()
        name = name[:-1]
    return _OF[name](version, *element.key, *element.data)


def _bridges(version: int, bridge: str) -> tuple[Rule, ...]:
    bridge = _interface(bridge)
    found = [
        Rule(table="mangle", chain="DIRECT", in_=bridge, target="RETURN", is_first=True),
        Rule(table="filter", chain="BRIDGES", out=bridge, target="TO", is_first=True),
        Rule(table="filter", chain="BRIDGES", in_=bridge, target="ACCEPT"),
        Rule(table="filter", chain="OUTSIDE", in_=bridge, target="RETURN", is_first=True),
    ]
    if version == 4:
        # Loopback addresses are routable on our bridges (route_localnet), for the host's connections to
        # ports published on 127.0.0.1, and for nothing else.
        local = "127.0.0.0/8"
        found += [
            Rule(table="raw", chain="LOCAL", in_=bridge, destination=local, target="DROP"),
            _back("POST", bridge, local),
        ]
    return tuple(found)


def _internal(_version: int, bridge: str) -> tuple[Rule, ...]:
    bridge = _interface(bridge)
    return (
        Rule(table="filter", chain="INTERNAL", in_=bridge, target="ONLY"),
        Rule(table="filter", chain="INTERNAL", out=bridge, target="ONLY"),
    )


def _open(_version: int, bridge: str) -> tuple[Rule, ...]:
    bridge = _interface(bridge)
    return (
        Rule(table="filter", chain="OPENFROM", in_=bridge, target="OPENTO"),
        Rule(table="filter", chain="OPENTO", out=bridge, target="ACCEPT"),
    )


def _linked(_version: int, link: str, bridge: str) -> tuple[Rule, ...]:
    link, bridge = _interface(link), _interface(bridge)
    return (Rule(table="filter", chain="LINKED", in_=link, out=bridge, target="ACCEPT"),)


def _unprotected(_version: int, bridge: str) -> tuple[Rule, ...]:
    return (Rule(table="filter", chain="OUTSIDE", out=_interface(bridge), target="ACCEPT"),)


def _pingable(version: int, bridge: str) -> tuple[Rule, ...]:
    bridge = _interface(bridge)
    return (Rule(table="filter", chain="ALLOW", out=bridge, proto=_ICMP[version], target="ACCEPT"),)


def _routed(_version: int, address: str, proto: str, ports: int | tuple[int, int]) -> tuple[Rule, ...]:
    first, last = ports if isinstance(ports, tuple) else (ports, ports)
    return (
        Rule(
            table="filter",
            chain="ALLOW",
            destination=_cidr(address),
            proto=proto,
            matches=(_ports(proto, first, last),),
            target="ACCEPT",
        ),
    )


def _direct(_version: int, subnet: str) -> tuple[Rule, ...]:
    return (Rule(table="mangle", chain="DIRECT", destination=_cidr(subnet), target="DROP"),)


def _trusted(_version: int, link: str, subnet: str) -> tuple[Rule, ...]:
    link = _interface(link)
    subnet = _cidr(subnet)
    return (
        Rule(table="mangle", chain="DIRECT", destination=subnet, in_=link, target="RETURN", is_first=True),
    )


def _own(_version: int, subnet: str, bridge: str) -> tuple[Rule, ...]:
    # A container that reaches itself or a sibling by a published port must see the answer come back
    # through the host, as must the host when it asks from a loopback address.
    subnet, bridge = _cidr(subnet), _interface(bridge)
    return (
        _back("POST", bridge, subnet),
        Rule(table="nat", chain="POST", source=subnet, out=bridge, target="RETURN", is_first=True),
    )


def _back(chain: str, bridge: str, source: str) -> Rule:
    return Rule(
        table="nat",
        chain=chain,
        source=source,
        out=bridge,
        matches=(TRANSLATED,),
        target="MASQUERADE",
        is_first=True,
    )


def _masquerade(_version: int, subnet: str) -> tuple[Rule, ...]:
    return (Rule(table="nat", chain="POST", source=_cidr(subnet), target="MASQUERADE"),)


def _snat(_version: int, subnet: str, source: str) -> tuple[Rule, ...]:
    options = (("to-source", str(ipaddress.ip_address(source))),)
    return (Rule(table="nat", chain="POST", source=_cidr(subnet), target="SNAT", options=options),)


_OF: Final[dict[str, Callable[..., tuple[Rule, ...]]]] = {
    "bridges": _bridges,
    "internal": _internal,
    "open": _open,
    "linked": _linked,
    "unprotected": _unprotected,
    "pingable": _pingable,
    "routed": _routed,
    "routed_ranges": _routed,
    "direct": _direct,
    "trusted": _trusted,
    "own": _own,
    "masquerade": _masquerade,
    "snat": _snat,
}


# What is another thing in iptables than its elements


def _published(port: PublishedPort) -> Iterator[Rule]:
    is_to_itself = port.first == port.target_first
    # The kernel may shift a range, but then takes any port of it when the same client has a connection to
    # the right one already: so one rule for each port.
    starts = (port.first,) if is_to_itself else range(port.first, port.last + 1)
    for first in starts:
        yield Rule(
            table="nat",
            chain="PUB",
            destination="" if port.host is None else _cidr(port.host),
            proto=port.proto,
            matches=(_ports(port.proto, first, port.last if is_to_itself else first),),
            target="DNAT",
            options=(("to-destination", _destination(port, first)),),
            is_first=port.host is not None,
        )


def _destination(port: PublishedPort, host_port: int) -> str:
    target = str(ipaddress.ip_address(port.target))
    if port.first == port.target_first and port.first < port.last:
        return target  # the port stays as it is; and an address without one has no brackets
    number = port.target_first + host_port - port.first
    return f"[{target}]:{number}" if port.version == 6 else f"{target}:{number}"


def _guards(rules: EndpointRules, version: int) -> Iterator[Rule]:
    if not rules.guard:
        return
    bridge = _interface(rules.bridge) if rules.bridge else ""
    mac = Match("mac", (("mac-source", rules.mac.lower()),))
    own = [_cidr(address) for address in rules.addresses if (":" in address) == (version == 6)]
    for address in own:
        yield Rule(
            table="raw",
            chain="FROM",
            in_=bridge,
            source=address,
            matches=(mac,),
            target="RETURN",
            is_first=True,
        )
    yield Rule(table="raw", chain="FROM", in_=bridge, matches=(mac,), target="DROP")
    if bridge:  # elsewhere the address may be somebody else's
        yield from (
            Rule(table="raw", chain="FROM", in_=bridge, source=address, target="DROP") for address in own
        )


def _ports(proto: str, first: int, last: int) -> Match:
    return Match(proto, (("dport", str(first) if first == last else f"{first}:{last}"),))


def _cidr(address: str) -> str:
    return str(ipaddress.ip_network(address))


def _interface(name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        msg = f"iptables cannot match the interface {name!r}: it may not begin with '!' or end with '+'"
        raise InvalidValueError(msg)
    return name
