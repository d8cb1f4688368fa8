"""What blocks our networks on a host, and the command that would allow them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import StoreError, UnavailableError
from pynetwork.peers import Reached
from pynetwork.requests.common import network_scope
from pynetwork.resources import NetworkRules, Ruleset, StrictVni

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.cluster.peer_view import Lag
    from pynetwork.cluster.span import Span
    from pynetwork.core import Core
    from pynetwork.kernel.diagnosis import DropChain, HostFacts
    from pynetwork.kernel.port import Kernel

__all__ = ["Finding", "Wanted", "across_hosts", "diagnose", "missing", "wanted"]

_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
_FIREWALLD = "firewalld"
_LAG_SECONDS = 1.0
_LAG_LOOKS = 10
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
    """
    A bridge that packets must pass to and from.

    Args:
        bridge: Interface name.
        versions: Its address families.
        internal: Whether they go only from one of its endpoints to another.
    """

    bridge: str
    versions: tuple[int, ...]
    internal: bool = False


def diagnose(
    facts: HostFacts, networks: Iterable[Wanted], missing: Iterable[str] = ()
) -> tuple[Finding, ...]:
    """
    Return what is in the way.

    Args:
        facts: Of the host.
        networks: Ours.
        missing: What somebody took away of our rules, in words.
    """
    ours = list(networks)
    return (
        *(
            Finding(problem=what, effect="networks are not isolated, ports not published: reconcile()")
            for what in missing
        ),
        *(
            Finding(problem=f"this host's rules cannot be read: {what}", effect="they may block networks")
            for what in facts.unseen
        ),
        *_forwarding(facts, ours),
        *_without_ipv6(facts, ours),
        *(finding for chain in facts.drops for finding in _dropped(chain, facts, ours)),
    )


def _forwarding(facts: HostFacts, networks: list[Wanted]) -> Iterator[Finding]:
    for version, name in _FORWARDING.items():
        if version not in facts.forwards and any(
            version in network.versions and not network.internal for network in networks
        ):
            yield Finding(
                problem=f"the host does not forward IPv{version} packets",
                effect="endpoints reach nothing but their own network",
                commands=(f"sysctl -w {name}=1",),
            )


def _without_ipv6(facts: HostFacts, networks: list[Wanted]) -> Iterator[Finding]:
    for network in networks:
        if 6 in network.versions and network.bridge in facts.without_ipv6:
            yield Finding(
                problem=f"IPv6 is switched off on {network.bridge}",
                effect="its endpoints have no gateway for IPv6; reconcile() when it is on again",
                commands=(f"sysctl -w net/ipv6/conf/{network.bridge}/disable_ipv6=0",),
            )


def _dropped(chain: DropChain, facts: HostFacts, networks: list[Wanted]) -> Iterator[Finding]:
    families = _FAMILIES[chain.family]
    blocked = {}
    for network in networks:
        # Frames that stay on a bridge are none of its business, unless they are made to be.
        passing = set(facts.filters_frames) if network.internal else {4, 6}
        lines = _accept(chain, network)
        if passing.intersection(network.versions, families) and lines:
            blocked[network.bridge] = lines
    if not blocked:
        return
    frames = set(facts.filters_frames).intersection(families)
    within = ", nor between their own endpoints: bridged frames pass it, too" if frames else ""
    # What DOCKER-USER accepts, Docker's own chains do not see any more.
    then = (
        "; once they are allowed, they reach Docker's containers at ports that are not published, too"
        if chain.has_docker_user
        else ""
    )
    yield Finding(
        problem=f"chain {chain.chain} of {chain.family} {chain.table} drops what it does not accept",
        effect=f"nothing passes to or from {', '.join(blocked)}{within}{then}",
        commands=(
            *(line for lines in blocked.values() for line in lines),
            *(("firewall-cmd --reload",) if chain.table == _FIREWALLD else ()),
        ),
    )


def _accept(chain: DropChain, network: Wanted) -> tuple[str, ...]:
    """Return the commands that are still missing."""
    bridge = network.bridge
    ways = [way for way in ("in", "out") if (way, bridge) not in chain.accepts]
    if network.internal and len(ways) == 1:
        return ()  # what stays on a bridge comes in by it and goes out by it
    if chain.tool != "nft":
        into = "DOCKER-USER" if chain.has_docker_user else chain.chain
        options = {"in": "-i", "out": "-o"}
        return tuple(f"{chain.tool} -I {into} {options[way]} {bridge} -j ACCEPT" for way in ways)
    if chain.table == _FIREWALLD:  # what was translated it accepts by itself
        return (f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}",) if "in" in ways else ()
    place = f"{chain.family} {chain.table} {chain.chain}"
    return tuple(f'nft insert rule {place} {way[0]}ifname "{bridge}" accept' for way in ways)


def across_hosts(core: Core) -> Iterator[Finding]:
    """Yield what is in the way between this host and others of its cluster. It takes seconds if there is."""
    if core.span is None:
        return
    if core.span.datapath.startswith("ovs-"):
        yield from _on_switch(core.engine.kernel, core.span)
    mtu = core.span.underlay.mtu
    for host, probe in sorted(core.span.worker.probe().items()):
        reached = probe.reached
        if reached is Reached.NOT:
            yield Finding(
                problem=f"host {host!r} does not answer this one, {core.span.underlay.vtep}",
                effect="endpoints there are not reached, unless only pings are dropped on the way",
            )
        elif reached is Reached.SMALL:
            yield Finding(
                problem=f"packets of {mtu} bytes do not reach host {host!r}, smaller ones do",
                effect="what fills a packet vanishes on the way: connections hang once they carry much",
                commands=("ip link set INTERFACE mtu SMALLER  # and make networks with a smaller mtu=",),
            )
    try:
        lags = _lasting(core.span)
    except StoreError as error:
        yield Finding(
            problem=f"the store of the cluster does not answer: {error}",
            effect="nothing can be made or changed in networks that span hosts; packets go on",
        )
        return
    with core.reading() as records:
        names = {identity: row.spec.name for identity, row in records.networks.items()}
    for lag in lags:
        yield Finding(
            problem=f"this host has not been told of all endpoints of host {lag.host!r} in network "
            f"{names.get(lag.network, lag.network)!r}",
            effect="some of them are not reached: reconcile(), and the log says what failed",
        )


def _lasting(span: Span) -> list[Lag]:
    """Return of whom this host knows too little, and does not get to know more."""
    lags = span.lagging()
    for _ in range(_LAG_LOOKS):
        if not lags:
            break
        time.sleep(_LAG_SECONDS / _LAG_LOOKS)  # news may be on their way
        still = span.lagging()
        lags = [lag for lag in lags if lag in still]
    return lags


def _on_switch(kernel: Kernel, span: Span) -> Iterator[Finding]:
    """Yield what is wrong with the host's Open vSwitch."""
    switch = getattr(kernel, "switch", None)
    if switch is None:
        return
    number = span.underlay.port
    try:
        switch().check(span.underlay.link if span.datapath == "ovs-userspace" else None)
        foreign = switch().foreign_tunnels(number)
    except UnavailableError as error:
        yield Finding(
            problem=str(error),
            effect="networks that span hosts are as they are, or away, until it runs",
            commands=("systemctl start openvswitch-switch",),
        )
        return
    for what in foreign:
        yield Finding(
            problem=f"{what} has UDP port {number}, as the tunnel of this host's networks",
            effect="packets of one go to the other: remove it, or use another vxlan_port on all hosts",
        )


def wanted(core: Core) -> list[Wanted]:
    """Return the bridges of our networks."""
    with core.reading() as records:
        return [
            Wanted(
                bridge=rules.bridge,
                versions=tuple(sorted({subnet.version for subnet in rules.subnets})),
                internal=rules.internal,
            )
            for identity in records.networks
            for rules in core.engine.world.plan(network_scope(identity))
            if isinstance(rules, NetworkRules)
        ]


def missing(core: Core) -> tuple[str, ...]:
    """Return what somebody took away of our rules, in words, looking at next to no cost."""
    with core.reading() as records:
        is_wanted = core.engine.world.is_wanted(Ruleset().key)
        strict = [
            row.spec.options.vni
            for row in records.networks.values()
            if getattr(row.spec.options, "strict", False)
        ]
        vnis = [vni for vni in strict if core.engine.world.is_wanted(StrictVni(vni=vni).key)]
    look = getattr(core.engine.kernel, "missing", None)
    return look(vnis) if is_wanted and look is not None else ()
