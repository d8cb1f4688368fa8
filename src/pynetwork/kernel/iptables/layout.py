"""The chains of an instance, and the rules that are always in them.

What a resource adds goes into chains that hold nothing but such rules, at the head or at the end: among
those at one end the order is of no account. The other chains never change. From each chain of the
kernel's own there is one jump.
"""

from __future__ import annotations

from typing import Final

from pynetwork.kernel.iptables.values import CHAIN_LENGTH, Match, Rule, mark

__all__ = [
    "BUILT_IN",
    "DYNAMIC",
    "PREFIX",
    "RULESET",
    "TABLES",
    "TRANSLATED",
    "chain_name",
    "chain_names",
    "is_own_chain",
    "jumps",
    "static_rules",
    "user_chain",
]

#: What the chains of all instances begin with.
PREFIX: Final = "PYNETWORK-"
#: In the order they are written when something is added.
TABLES: Final = ("raw", "mangle", "filter", "nat")
#: The kernel's own chains that we jump from.
BUILT_IN: Final = {
    "raw": ("PREROUTING",),
    "mangle": ("PREROUTING",),
    "filter": ("FORWARD",),
    "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
}
#: The key of what is always there.
RULESET: Final = "ruleset"

#: That a connection's destination was translated.
TRANSLATED: Final = Match("conntrack", (("ctstate", "DNAT"),))
_ANSWERS: Final = Match("conntrack", (("ctstate", "RELATED,ESTABLISHED"),))
_TO_HOST: Final = Match("addrtype", (("dst-type", "LOCAL"),))

#: Chains that resources add to, by table. The names are short: a chain has 28 bytes.
DYNAMIC: Final = {
    "raw": ("LOCAL", "FROM"),
    "mangle": ("DIRECT",),
    "filter": ("INTERNAL", "BRIDGES", "LINKED", "OPENFROM", "OPENTO", "OUTSIDE", "ALLOW"),
    "nat": ("PUB", "POST"),
}
# Chains that never change; USER is the user's.
_STATIC: Final = {
    "raw": ("RAW",),
    "mangle": ("MANGLE",),
    "filter": ("USER", "FORWARD", "ONLY", "TO"),
    "nat": (),
}


def chain_name(instance: str, part: str) -> str:
    """Return the name of a chain."""
    name = f"{PREFIX}{part}-{instance[:8]}"
    if len(name) > CHAIN_LENGTH:
        msg = f"the name of chain {name} is too long"
        raise ValueError(msg)
    return name


def user_chain(instance: str) -> str:
    """Return the name of the user's chain: our rules about forwarding begin with it and never change it."""
    return chain_name(instance, "USER")


def chain_names(instance: str) -> dict[str, tuple[str, ...]]:
    """Return the names of all chains, by table."""
    return {
        table: tuple(chain_name(instance, part) for part in (*_STATIC[table], *DYNAMIC[table]))
        for table in TABLES
    }


def is_own_chain(name: str, instance: str) -> bool:
    """Whether a chain is the instance's, and not for the user to fill."""
    return name.startswith(PREFIX) and name.endswith(f"-{instance[:8]}") and name != user_chain(instance)


def static_rules(instance: str, version: int) -> tuple[Rule, ...]:
    """Return the rules that are always in our chains."""
    key = mark(instance) + RULESET

    def rule(table: str, chain: str, target: str, **fields: object) -> Rule:
        name = target if target in {"ACCEPT", "DROP", "RETURN"} else chain_name(instance, target)
        return Rule(table=table, chain=chain_name(instance, chain), target=name, key=key, **fields)  # type: ignore[arg-type]  # fields of a rule, stated below

    return (
        # The host's own packets to itself come in by lo.
        rule("raw", "RAW", "RETURN", in_="lo"),
        rule("raw", "RAW", "LOCAL"),
        rule("raw", "RAW", "FROM"),
        # Answers to what went out under its own address are no direct access.
        rule("mangle", "MANGLE", "RETURN", in_="lo"),
        rule("mangle", "MANGLE", "RETURN", matches=(_ANSWERS,)),
        rule("mangle", "MANGLE", "DIRECT"),
        # What has no address of its own yet: RFC 2131 (DHCP), RFC 4862 (duplicate address detection).
        *(
            rule("raw", "FROM", "RETURN", source=source, **fields)
            for source, fields in _UNADDRESSED[version].items()
        ),
        rule("filter", "FORWARD", "USER"),
        rule("filter", "FORWARD", "INTERNAL"),
        rule("filter", "FORWARD", "BRIDGES"),
        rule("filter", "ONLY", "LINKED"),
        rule("filter", "ONLY", "DROP"),
        rule("filter", "TO", "ACCEPT", matches=(_ANSWERS,)),
        rule("filter", "TO", "ACCEPT", matches=(TRANSLATED,)),
        rule("filter", "TO", "LINKED"),
        rule("filter", "TO", "OPENFROM"),
        rule("filter", "TO", "OUTSIDE"),
        rule("filter", "TO", "ALLOW"),
        rule("filter", "TO", "DROP"),
        rule("nat", "POST", "RETURN", destination=_MULTICAST[version]),
    )


def jumps(instance: str, version: int, priority: int = 0) -> tuple[Rule, ...]:
    """
    Return the jumps from the kernel's own chains.

    Args:
        instance: Whose.
        version: 4 or 6.
        priority: Up to 0: they come before what is there; else behind it.
    """
    key = mark(instance) + RULESET

    def jump(table: str, chain: str, part: str, *matches: Match, destination: str = "") -> Rule:
        return Rule(
            table=table,
            chain=chain,
            target=chain_name(instance, part),
            destination=destination,
            matches=matches,
            is_first=priority <= 0,
            key=key,
        )

    return (
        jump("raw", "PREROUTING", "RAW"),
        jump("mangle", "PREROUTING", "MANGLE"),
        jump("filter", "FORWARD", "FORWARD"),
        jump("nat", "PREROUTING", "PUB", _TO_HOST, destination={4: "!127.0.0.0/8", 6: ""}[version]),
        jump("nat", "OUTPUT", "PUB", _TO_HOST),
        jump("nat", "POSTROUTING", "POST"),
    )


_MULTICAST: Final = {4: "224.0.0.0/4", 6: "ff00::/8"}
_DHCP: Final = Match("udp", (("sport", "68"), ("dport", "67")))
_UNADDRESSED: Final[dict[int, dict[str, dict[str, object]]]] = {
    4: {"0.0.0.0/32": {"proto": "udp", "matches": (_DHCP,)}},
    6: {"::/128": {}, "fe80::/10": {}},
}
