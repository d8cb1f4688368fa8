"""What the tests of iptables share: resources to make, and what is then on a host."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pynetwork.kernel.iptables.firewall import IptablesFirewall
from pynetwork.kernel.netns import Namespaces
from pynetwork.plan import Plan, Step, Verb, diff
from pynetwork.resources import (
    EndpointRules,
    NetworkRules,
    PublishedPort,
    Resource,
    Rules,
    Ruleset,
    SubnetRules,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.kernel.iptables.values import Rule
    from pynetwork.testing import PrivateHost


ID, OTHER = "0123abcd4567", "89abcdef0123"
OWNER = "endpoint 'web' of network 'n'"
MAC = "02:00:00:00:00:01"
NETWORK = NetworkRules(
    bridge="br0",
    subnets=(
        SubnetRules(subnet="10.88.0.0/24", source="masquerade"),
        SubnetRules(subnet="fd88::/64", mode="routed", source="2001:db8::1"),
    ),
)
GUARD = EndpointRules(link="veth0", mac=MAC, addresses=("10.88.0.2", "fd88::2"), bridge="br0")


def port(first: int, last: int = 0, **fields: object) -> PublishedPort:
    known = {
        "proto": "tcp",
        "target": "10.88.0.2",
        "target_first": first,
        "owner": "endpoint 'web' of network 'n'",
    }
    return PublishedPort(first=first, last=last or first, **{**known, **fields})  # type: ignore[arg-type]  # of a port


PLAN = Plan((Ruleset(), NETWORK, GUARD, port(8080, target_first=80), port(53, proto="udp", target="fd88::2")))


@contextmanager
def firewall(instance: str = ID) -> Iterator[IptablesFirewall]:
    namespaces = Namespaces()
    made = IptablesFirewall(instance, namespaces.home)
    try:
        yield made
    finally:
        made.close()
        namespaces.close()


def saved(host: PrivateHost, version: int) -> list[str]:
    """Return the rules and chains of the host, without counters, policies and the order of tables."""
    text = host.run([f"{'ip6' if version == 6 else 'ip'}tables-legacy-save"]).stdout
    found = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A") or (line.startswith(":") and " - " in line):
            found.append(f"{table} {line.partition(' [')[0] if line.startswith(':') else line}")
    return sorted(line for line in found if " :" in line) + [line for line in found if " :" not in line]


def restore_text(resources: Iterable[Iterable[Rule]], chains: dict[str, tuple[str, ...]]) -> str:
    """
    Return what ``iptables-restore`` reads to make rules on an empty host.

    Args:
        resources: The rules of each, in the order in which they are added.
        chains: To make, by table.
    """
    placed: dict[tuple[str, str], list[str]] = {}
    for rules in resources:
        heads: Counter[tuple[str, str]] = Counter()
        for rule in rules:
            place = rule.table, rule.chain
            lines = placed.setdefault(place, [])
            lines.insert(heads[place] if rule.is_first else len(lines), rule.render())
            heads[place] += rule.is_first
    text = []
    for table, names in chains.items():
        text += [f"*{table}", *(f":{name} - [0:0]" for name in names)]
        text += [line for (of, _), lines in placed.items() if of == table for line in lines]
        text.append("COMMIT")
    return "".join(f"{line}\n" for line in text)


def everything(host: PrivateHost) -> list[str]:
    return [*saved(host, 4), *saved(host, 6)]


def create(made: IptablesFirewall, *resources: Resource, replay: bool = False) -> None:
    made.apply(diff(Plan(), Plan(resources)), replay=replay)


def delete(made: IptablesFirewall, *resources: Resource, replay: bool = False) -> None:
    made.apply([Step(Verb.DELETE, resource) for resource in resources], replay=replay)


def variety() -> list[Rules]:
    """Return resources with every option."""
    found: list[Rules] = []
    modes = ("nat", "nat-unprotected", "routed", "isolated")
    options = itertools.product(modes, (None, "masquerade", "address"), (False, True), ((), ("eth1",)))
    for number, (mode, source, flag, trusted) in enumerate(options):
        addresses = {4: f"10.{number}.0.0/16", 6: f"fd00:{number:x}::/64"}
        sources = {4: "192.0.2.1", 6: "2001:db8::1"}
        found.append(
            NetworkRules(
                bridge=f"br{number}",
                internal=flag and number % 3 == 0,
                icc=not flag,
                is_open=flag,
                trusted=trusted,
                subnets=tuple(
                    SubnetRules(
                        subnet=addresses[v], mode=mode, source=sources[v] if source == "address" else source
                    )
                    for v in (4, 6)
                ),
            )
        )
    found.append(GUARD)
    start = 1000
    for proto, target, is_at, nat in itertools.product(
        ("tcp", "udp", "sctp"), ("10.88.0.2", "fd88::2"), (False, True), (False, True)
    ):
        host = {False: None, True: "2001:db8::1" if ":" in target else "192.0.2.1"}[is_at]
        for last, shift in ((0, 0), (0, 1), (9, 0), (9, 5)):
            found.append(
                port(
                    start,
                    start + last,
                    target_first=start - shift,
                    proto=proto,
                    target=target,
                    host=host,
                    nat=nat,
                )
            )
            start += 20
    return found
