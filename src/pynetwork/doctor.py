"""What blocks our networks on a host, and the command that would allow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.requests.common import network_scope
from pynetwork.resources import NetworkRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.core import Core
    from pynetwork.kernel.diagnosis import DropChain, HostFacts

__all__ = ["Finding", "Wanted", "diagnose", "wanted"]

_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


@attrs.frozen(kw_only=True)
class Finding:
    """
    Something on the host that is in the way; ``str()`` is for people.

    Args:
        problem: What was found.
        effect: What of ours it blocks.
        commands: What would allow it, line by line. They are never run by the library.
    """

    problem: str
    effect: str
    commands: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join((f"{self.problem}: {self.effect}", *(f"    {line}" for line in self.commands)))


@attrs.frozen(kw_only=True)
class Wanted:
    """A bridge that packets must pass to and from, and its address families."""

    bridge: str
    versions: tuple[int, ...]


def diagnose(
    facts: HostFacts, networks: Iterable[Wanted], missing: Iterable[str] = ()
) -> tuple[Finding, ...]:
    """
    Return what is in the way.

    Args:
        facts: Of the host.
        networks: Those of our networks that are not internal.
        missing: What somebody took away of our rules, in words.
    """
    ours = list(networks)
    return (
        *(
            Finding(problem=what, effect="networks are not isolated, ports not published: reconcile()")
            for what in missing
        ),
        *_forwarding(facts, ours),
        *(finding for chain in facts.drops for finding in _dropped(chain, ours)),
    )


def _forwarding(facts: HostFacts, networks: list[Wanted]) -> Iterator[Finding]:
    for version, name in _FORWARDING.items():
        if version not in facts.forwards and any(version in network.versions for network in networks):
            yield Finding(
                problem=f"the host does not forward IPv{version} packets",
                effect="endpoints reach nothing but their own network",
                commands=(f"sysctl -w {name}=1",),
            )


def _dropped(chain: DropChain, networks: list[Wanted]) -> Iterator[Finding]:
    bridges = [n.bridge for n in networks if set(n.versions).intersection(_FAMILIES[chain.family])]
    if bridges:
        yield Finding(
            problem=f"chain {chain.chain} of {chain.family} {chain.table} drops what it does not accept",
            effect=f"nothing passes to or from {', '.join(bridges)}",
            commands=tuple(line for bridge in bridges for line in _accept(chain, bridge)),
        )


def _accept(chain: DropChain, bridge: str) -> tuple[str, ...]:
    if chain.tool != "nft":
        into = "DOCKER-USER" if chain.has_docker_user else chain.chain
        return tuple(f"{chain.tool} -I {into} {way} {bridge} -j ACCEPT" for way in ("-i", "-o"))
    if chain.table == "firewalld":
        return (
            f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}",
            "firewall-cmd --reload",
        )
    place = f"{chain.family} {chain.table} {chain.chain}"
    return tuple(f'nft insert rule {place} {way} "{bridge}" accept' for way in ("iifname", "oifname"))


def wanted(core: Core) -> list[Wanted]:
    """Return the bridges that packets must pass."""
    with core.reading() as records:
        return [
            Wanted(bridge=rules.bridge, versions=tuple({subnet.version for subnet in rules.subnets}))
            for identity in records.networks
            for rules in core.engine.world.plan(network_scope(identity))
            if isinstance(rules, NetworkRules) and not rules.internal
        ]
