"""The rules of the firewall: a skeleton that never changes, and the sets and maps that it looks into.

What a network, an endpoint or a published port adds are elements, never rules, so nothing gets slower
as they grow in number. The skeleton is text as ``nft`` reads it; elements are values that render to
such text, and that the kernel floor writes by netlink.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

import attrs

__all__ = [
    "SETS",
    "TABLE",
    "USER",
    "Element",
    "Field",
    "SetType",
    "restoration",
    "rule_counts",
    "skeleton",
    "table_name",
]

#: One field of a key or of data: an address, a number, a name; or the first and last of an interval.
Field: TypeAlias = str | int | tuple[str | int, str | int]


#: What the tables are called in plans. On a host the instance follows, see :func:`table_name`.
TABLE: Final = "pynetwork"
#: The chain that is the user's.
USER: Final = "user"


@attrs.frozen
class SetType:
    """
    What a set or map holds.

    Args:
        key: nft types of the fields of a key; ``@...`` for bytes of a packet that nft has no type for.
        data: Those of what a map yields; none for a set.
        interval: Whether a field of a key may be an interval.
        family: Of the table it is in: ``inet`` or ``bridge``.
    """

    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False
    family: str = "inet"


_V4, _V6, _LINK, _PROTO, _PORT = "ipv4_addr", "ipv6_addr", "ifname", "inet_proto", "inet_service"
_TARGET: Final = "@th,64,128"  # of a neighbour advertisement (RFC 4861, 4.4): nft 1.0.6 has no name for it


def _of_family(version: int, address: str) -> dict[str, SetType]:
    sets = {
        "unprotected": SetType((_LINK,)),
        "pingable": SetType((_LINK,)),
        "routed": SetType((address, _PROTO, _PORT)),
        "routed_ranges": SetType((address, _PROTO, _PORT), interval=True),
        "direct": SetType((address,), interval=True),
        "trusted": SetType((_LINK, address), interval=True),
        "own": SetType((address, _LINK), interval=True),
        "masquerade": SetType((address,), interval=True),
        "snat": SetType((address,), (address,), interval=True),
        "ports": SetType((_PROTO, _PORT), (address, _PORT)),
        "port_ranges": SetType((_PROTO, _PORT), (address,), interval=True),
        "address_ports": SetType((address, _PROTO, _PORT), (address, _PORT)),
        "address_port_ranges": SetType((address, _PROTO, _PORT), (address,), interval=True),
    }
    return {f"{name}{version}": kind for name, kind in sets.items()}


#: Every set and map, by name. Names are unique over both tables.
SETS: Final[dict[str, SetType]] = {
    "bridges": SetType((_LINK,)),
    "internal": SetType((_LINK,)),
    "open": SetType((_LINK,)),
    "linked": SetType((_LINK, _LINK)),
    **_of_family(4, _V4),
    **_of_family(6, _V6),
    "guarded": SetType((_LINK,), family="bridge"),
    "macs": SetType((_LINK, "ether_addr"), family="bridge"),
    "sources4": SetType((_LINK, "ether_addr", _V4), family="bridge"),
    "sources6": SetType((_LINK, "ether_addr", _V6), family="bridge"),
    "targets6": SetType((_LINK, _TARGET), family="bridge"),
}

_HEADERS: Final = {4: "ip", 6: "ip6"}


@attrs.frozen
class Element:
    """
    One element of a set or map.

    Args:
        of: Name of the set.
        key: Its fields.
        data: What a map yields for it.
    """

    of: str
    key: tuple[Field, ...]
    data: tuple[Field, ...] = ()

    def __str__(self) -> str:
        kind = SETS[self.of]
        key = " . ".join(_text(field, type_) for field, type_ in zip(self.key, kind.key, strict=True))
        if not self.data:
            return key
        return f"{key} : {' . '.join(_text(f, type_) for f, type_ in zip(self.data, kind.data, strict=True))}"

    def render(self, verb: str, table: str = TABLE) -> str:
        """Return the line that adds or deletes it: *verb* is ``add``, ``create`` or ``delete``."""
        return f"nft {verb} element {SETS[self.of].family} {table} {self.of} {{ {self} }}"


def _text(field: Field, kind: str) -> str:
    if isinstance(field, tuple):
        return f"{field[0]}-{field[1]}"
    if kind == _TARGET:
        return f"0x{ipaddress.IPv6Address(field).packed.hex()}"
    return f'"{field}"' if kind == _LINK else str(field)


def table_name(instance: str) -> str:
    """Return the name of the tables of an instance."""
    return f"{TABLE}-{instance[:8]}"


def skeleton(table: str, priority: int = 0) -> str:
    """
    Return the two tables of an instance as ``nft -f`` reads them. Where they exist it fails as a whole.

    Args:
        table: Their name.
        priority: Added to the standard priority of each base chain (``filter``, ``raw``, ``mangle``,
            ``dstnat``, ``srcnat``): negative to come before other tools, positive to come behind them.
    """
    return "".join(
        _table(family, table, {name: chain.render(priority) for name, chain in chains.items()})
        for family, chains in _CHAINS.items()
    )


def restoration(table: str, priority: int = 0) -> str:
    """
    Return what makes the two tables of an instance whole again, in one transaction, as ``nft -f`` reads it.

    All sets are empty afterwards, the chain ``user`` is as it was. It fails as a whole where a base chain
    has another priority.

    Args:
        table: Their name.
        priority: As for :func:`skeleton`.
    """
    text = ""
    for family, chains in _CHAINS.items():
        name = f"{family} {table}"
        bare = {chain: parts.render(priority)[: parts.base is not None] for chain, parts in chains.items()}
        text += _body(family, table, bare)
        text += "".join(f"flush chain {name} {chain}\n" for chain in chains if chain != USER)
        text += "".join(
            f"flush {_word(kind)} {name} {set_name}\n"
            for set_name, kind in SETS.items()
            if kind.family == family
        )
        text += _body(family, table, {chain: parts.rules for chain, parts in chains.items()}, sets=False)
    return text


def rule_counts() -> dict[str, dict[str, int]]:
    """Return how many rules each chain has, by family of the table and name of the chain."""
    return {
        family: {name: len(chain.rules) for name, chain in chains.items()}
        for family, chains in _CHAINS.items()
    }


@attrs.frozen
class _Chain:
    """A chain: its rules, and for a base chain its type, hook and standard priority."""

    rules: tuple[str, ...]
    base: tuple[str, str, int] | None = None

    def render(self, priority: int) -> tuple[str, ...]:
        if self.base is None:
            return self.rules
        kind, hook, standard = self.base
        return (f"type {kind} hook {hook} priority {standard + priority}; policy accept;", *self.rules)


def _both(*rules: str) -> tuple[str, ...]:
    """Return *rules* for IPv4, then for IPv6: ``IP`` is the header's name, ``#`` the version."""
    return tuple(
        rule.replace("IP", header).replace("#", str(version))
        for version, header in _HEADERS.items()
        for rule in rules
    )


# Loopback addresses are routable on our bridges (route_localnet), for the host's connections to ports
# published on 127.0.0.1, and for nothing else.
_RAW: Final = ("iifname @bridges ip daddr 127.0.0.0/8 drop",)

# The host's own packets to itself come in by lo. Answers to what went out under its own address are no
# direct access: so this comes behind the tracking of connections, and before addresses are translated.
_DIRECT: Final = (
    'iifname "lo" accept',
    "iifname @bridges accept",
    "ct state established,related accept",
    *_both("IP daddr @direct# iifname . IP daddr != @trusted# drop"),
)

_FORWARD: Final = (
    "jump user",
    "iifname @internal jump internal_only",
    "oifname @internal jump internal_only",
    "oifname != @bridges accept",
    "ct state established,related accept",
    "ct status dnat accept",
    "iifname . oifname @linked accept",
    "iifname @open oifname @open accept",
    *_both(
        "meta nfproto ipv# iifname != @bridges oifname @unprotected# accept",
        "IP daddr . meta l4proto . th dport @routed# accept",
        "IP daddr . meta l4proto . th dport @routed_ranges# accept",
    ),
    "meta l4proto icmp oifname @pingable4 accept",
    "meta l4proto ipv6-icmp oifname @pingable6 accept",
    "counter drop",
)

_INTERNAL: Final = ("iifname . oifname @linked accept", "counter drop")

_PUBLISHED: Final = _both(
    "dnat IP to IP daddr . meta l4proto . th dport map @address_ports#",
    "dnat IP to IP daddr . meta l4proto . th dport map @address_port_ranges#",
    "dnat IP to meta l4proto . th dport map @ports#",
    "dnat IP to meta l4proto . th dport map @port_ranges#",
)

# A container that reaches itself or a sibling by a published port must see the answer come back through
# the host, as must the host when it asks from a loopback address.
_POSTROUTING: Final = (
    "oifname @bridges ct status dnat ip saddr 127.0.0.0/8 masquerade",
    *_both(
        "ct status dnat IP saddr . oifname @own# masquerade",
        "IP saddr . oifname @own# accept",
    ),
    "ip daddr 224.0.0.0/4 accept",
    "ip6 daddr ff00::/8 accept",
    *_both(
        "snat IP to IP saddr map @snat#",
        "IP saddr @masquerade# masquerade",
    ),
)

# Addresses that a port may use before it has one of its own: RFC 2131 (DHCP), RFC 5227 (probes),
# RFC 4862 (duplicate address detection); link-local ones with its own MAC. Of whom a neighbour
# advertisement speaks is another thing than whom it is from (RFC 4861, 7.2.5).
_SPOOFED: Final = (
    "iifname != @guarded accept",
    "iifname . ether saddr != @macs drop",
    "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
    "ether type ip iifname . ether saddr . ip saddr != @sources4 drop",
    "arp saddr ip 0.0.0.0 accept",
    "ether type arp iifname . arp saddr ether . arp saddr ip != @sources4 drop",
    f"icmpv6 type nd-neighbor-advert @th,64,16 & 0xffc0 != 0xfe80 iifname . {_TARGET} != @targets6 drop",
    "ip6 saddr { ::, fe80::/10 } accept",
    "ether type ip6 iifname . ether saddr . ip6 saddr != @sources6 drop",
)


_CHAINS: Final = {
    "inet": {
        # Yours: what it accepts or drops is settled. It is never flushed, and as long as it has rules the
        # table stays.
        USER: _Chain(()),
        "raw": _Chain(_RAW, ("filter", "prerouting", -300)),
        "direct": _Chain(_DIRECT, ("filter", "prerouting", -150)),
        "forward": _Chain(_FORWARD, ("filter", "forward", 0)),
        "internal_only": _Chain(_INTERNAL),
        "prerouting": _Chain(("ip daddr 127.0.0.0/8 accept", "jump published"), ("nat", "prerouting", -100)),
        "output": _Chain(("jump published",), ("nat", "output", -100)),
        "published": _Chain(("fib daddr type != local accept", *_PUBLISHED)),
        "postrouting": _Chain(_POSTROUTING, ("nat", "postrouting", 100)),
    },
    "bridge": {"prerouting": _Chain(_SPOOFED, ("filter", "prerouting", -300))},
}


def _table(family: str, table: str, chains: dict[str, tuple[str, ...]]) -> str:
    return f"create table {family} {table}\n{_body(family, table, chains)}"


def _body(family: str, table: str, chains: dict[str, tuple[str, ...]], *, sets: bool = True) -> str:
    lines = [f"table {family} {table} {{"]
    for set_name, kind in SETS.items():
        if sets and kind.family == family:
            lines += _set(set_name, kind)
    for chain, rules in chains.items():
        lines += [f"\tchain {chain} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    return "\n".join([*lines, "}", ""])


def _set(name: str, kind: SetType) -> list[str]:
    of = " . ".join(kind.key) + (f" : {' . '.join(kind.data)}" if kind.data else "")
    of = f"typeof {of.replace(_LINK, 'iifname')}" if _TARGET in kind.key else f"type {of}"
    flags = ["\t\tflags interval"] if kind.interval else []
    return [f"\t{_word(kind)} {name} {{", f"\t\t{of}", *flags, "\t}"]


def _word(kind: SetType) -> str:
    return "map" if kind.data else "set"
