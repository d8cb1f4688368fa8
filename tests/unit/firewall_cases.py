"""The resources of the firewall as lines, for test_resources.py."""

from __future__ import annotations

from pynetwork.resources import (
    EndpointRules,
    NetworkRules,
    PublishedPort,
    Resource,
    Ruleset,
    SubnetRules,
)
from pynetwork.resources.ruleset import skeleton

MAC = "02:00:00:00:00:01"
OTHER_MAC = "02:00:00:00:00:02"
V4, V6 = "10.88.0.0/24", "fd00::/64"
RULESET_KEY = ("ruleset",)


def lines(verb: str, *elements: str) -> list[str]:
    """Return the lines about *elements*, each the set's name and what is in the braces."""
    found = []
    for element in elements:
        name, _, text = element.partition(" ")
        family = "bridge" if name in {"guarded", "macs", "sources4", "sources6", "targets6"} else "inet"
        found.append(f"nft {verb} element {family} pynetwork {name} {{ {text} }}")
    return found


def both(resource: Resource, *elements: str, verb: str = "add") -> tuple[Resource, list[str], list[str]]:
    return resource, lines(verb, *elements), lines("delete", *reversed(elements))


NAT = NetworkRules(
    bridge="br0",
    subnets=(SubnetRules(subnet=V4, source="masquerade"), SubnetRules(subnet=V6, source="fd99::1")),
)
GUARD = EndpointRules(link="veth0", mac=MAC, addresses=("10.88.0.2", "fd00::2"))
PORT = PublishedPort(proto="tcp", first=8080, last=8080, target="10.88.0.2", target_first=80)

RENDERED: list[tuple[Resource, list[str], list[str]]] = [
    (
        Ruleset(priority=-5),
        ["nft -f - <<END", *skeleton("pynetwork", -5).splitlines(), "END"],
        ["nft delete table inet pynetwork", "nft delete table bridge pynetwork"],
    ),
    both(
        NAT,
        'bridges "br0"',
        'linked "br0" . "br0"',
        f'own4 {V4} . "br0"',
        f"direct4 {V4}",
        f"masquerade4 {V4}",
        f'own6 {V6} . "br0"',
        f"direct6 {V6}",
        f"snat6 {V6} : fd99::1",
    ),
    both(
        NetworkRules(
            bridge="br0",
            icc=False,
            is_open=True,
            trusted=("eth0",),
            subnets=(SubnetRules(subnet=V4, mode="nat-unprotected"), SubnetRules(subnet=V6, mode="routed")),
        ),
        'bridges "br0"',
        'open "br0"',
        'linked "eth0" . "br0"',
        f'own4 {V4} . "br0"',
        f'trusted4 "eth0" . {V4}',
        'unprotected4 "br0"',
        f'own6 {V6} . "br0"',
        f'trusted6 "eth0" . {V6}',
        'pingable6 "br0"',
    ),
    both(
        NetworkRules(
            bridge="br0",
            internal=True,
            is_open=True,
            trusted=("eth0",),
            subnets=(SubnetRules(subnet=V4, mode="routed", source="masquerade"),),
        ),
        'bridges "br0"',
        'internal "br0"',
        'linked "br0" . "br0"',
        f'own4 {V4} . "br0"',
        f"direct4 {V4}",
    ),
    both(
        GUARD,
        f'macs "veth0" . {MAC}',
        f'sources4 "veth0" . {MAC} . 10.88.0.2',
        f'sources6 "veth0" . {MAC} . fd00::2',
        'targets6 "veth0" . 0xfd000000000000000000000000000002',
        'guarded "veth0"',
    ),
    both(EndpointRules(link="veth0", mac=MAC, addresses=("10.88.0.2",), guard=False)),
    both(PORT, "ports4 tcp . 8080 : 10.88.0.2 . 80", verb="create"),
    both(
        PublishedPort(
            proto="udp", host="192.0.2.1", first=53, last=53, target="10.88.0.2", target_first=5353
        ),
        "address_ports4 192.0.2.1 . udp . 53 : 10.88.0.2 . 5353",
        verb="create",
    ),
    both(
        PublishedPort(proto="sctp", first=9000, last=9999, target="fd00::2", target_first=9000),
        "port_ranges6 sctp . 9000-9999 : fd00::2",
        verb="create",
    ),
    both(
        PublishedPort(proto="tcp", host="fd99::1", first=90, last=91, target="fd00::2", target_first=90),
        "address_port_ranges6 fd99::1 . tcp . 90-91 : fd00::2",
        verb="create",
    ),
    both(
        PublishedPort(proto="tcp", first=8080, last=8082, target="10.88.0.2", target_first=80),
        "ports4 tcp . 8080 : 10.88.0.2 . 80",
        "ports4 tcp . 8081 : 10.88.0.2 . 81",
        "ports4 tcp . 8082 : 10.88.0.2 . 82",
        verb="create",
    ),
    both(
        PublishedPort(proto="tcp", first=80, last=80, target="10.88.0.2", target_first=80, nat=False),
        "routed4 10.88.0.2 . tcp . 80",
        verb="create",
    ),
    both(
        PublishedPort(proto="udp", first=0, last=9, target="fd00::2", target_first=50, nat=False),
        "routed_ranges6 fd00::2 . udp . 50-59",
        verb="create",
    ),
]

UPDATED: list[tuple[Resource, Resource, list[str]]] = [
    (
        NAT,
        NetworkRules(bridge="br0", icc=False, subnets=(SubnetRules(subnet=V4, mode="routed"),)),
        [
            *lines(
                "delete",
                'linked "br0" . "br0"',
                f"direct4 {V4}",
                f"masquerade4 {V4}",
                f'own6 {V6} . "br0"',
                f"direct6 {V6}",
                f"snat6 {V6} : fd99::1",
            ),
            *lines("add", 'pingable4 "br0"'),
        ],
    ),
    (
        NetworkRules(bridge="br0"),
        NetworkRules(bridge="br0", internal=True),
        lines("add", 'internal "br0"'),
    ),
    (
        NetworkRules(bridge="br0", trusted=("eth0",)),
        NetworkRules(bridge="br0", is_open=True, trusted=("eth1",)),
        [
            *lines("delete", 'linked "eth0" . "br0"'),
            *lines("add", 'open "br0"', 'linked "eth1" . "br0"'),
        ],
    ),
    (
        EndpointRules(link="veth0", mac=MAC, addresses=("10.88.0.2",), guard=False),
        EndpointRules(link="veth0", mac=OTHER_MAC, addresses=("10.88.0.3",)),
        lines(
            "add",
            f'macs "veth0" . {OTHER_MAC}',
            f'sources4 "veth0" . {OTHER_MAC} . 10.88.0.3',
            'guarded "veth0"',
        ),
    ),
]

IDENTITIES: list[tuple[Resource, tuple[str | None, ...], set[tuple[str | None, ...]]]] = [
    (Ruleset(), RULESET_KEY, set()),
    (NAT, ("network_rules", "br0"), {RULESET_KEY}),
    (GUARD, ("endpoint_rules", "veth0"), {RULESET_KEY}),
    (PORT, ("port", "4", "tcp", None, "8080-8080"), {RULESET_KEY}),
    (
        PublishedPort(proto="tcp", first=80, last=89, target="10.88.0.2", target_first=1, nat=False),
        ("port", "4", "tcp", "to 10.88.0.2", "1-10"),
        {RULESET_KEY},
    ),
]
