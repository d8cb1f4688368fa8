"""What becomes of packets that no rule was made for: with chains as values, as text, and as messages."""

from __future__ import annotations

import pytest

from pynetwork.kernel.netlink import attribute, nested, text
from pynetwork.kernel.verdicts import Rule, fate, parse_nft, parse_saved

DROP, ACCEPT, RETURN = Rule("drop"), Rule("accept"), Rule("return")
OTHER = Rule("accept", has_conditions=True)


def from_link(verdict: str, chain: str = "", way: str = "in", name: str = "br0") -> Rule:
    return Rule(verdict, chain, (way, name), has_conditions=True)


@pytest.mark.parametrize(
    ("chains", "verdict", "accepted"),
    [
        ({}, "policy", set()),
        ({"f": [OTHER, DROP]}, "drop", set()),
        ({"f": [ACCEPT, DROP]}, "accept", set()),
        ({"f": [RETURN, DROP]}, "policy", set()),
        ({"f": [Rule("jump", "a"), DROP], "a": [OTHER]}, "drop", set()),
        ({"f": [Rule("jump", "a"), DROP], "a": [RETURN, ACCEPT]}, "drop", set()),
        ({"f": [Rule("jump", "a"), DROP], "a": [ACCEPT]}, "accept", set()),
        ({"f": [Rule("goto", "a"), DROP], "a": [OTHER]}, "policy", set()),
        ({"f": [Rule("goto", "a")], "a": [Rule("jump", "b")], "b": [DROP]}, "drop", set()),
        ({"f": [Rule("jump", "gone"), DROP]}, "drop", set()),
        ({"f": [from_link("accept"), DROP]}, "drop", {("in", "br0")}),
        ({"f": [DROP, from_link("accept")]}, "drop", set()),
        ({"f": [Rule("jump", "a"), DROP], "a": [from_link("accept", way="out")]}, "drop", {("out", "br0")}),
        ({"f": [from_link("jump", "a"), DROP], "a": [ACCEPT]}, "drop", {("in", "br0")}),
        ({"f": [from_link("jump", "a"), DROP], "a": [OTHER, RETURN]}, "drop", set()),
        ({"f": [from_link("drop"), DROP]}, "drop", set()),
    ],
)
def test_rules_are_followed_as_a_packet_would(
    chains: dict[str, list[Rule]], verdict: str, accepted: set[tuple[str, str]]
) -> None:
    assert fate(chains, "f", "policy") == (verdict, frozenset(accepted))


def test_chains_that_call_each_other_end() -> None:
    """The kernel takes no such rules, but a dump may be made of two generations of them."""
    chains = {"f": [Rule("jump", "a"), DROP], "a": [Rule("jump", "f")]}
    assert fate(chains, "f", "accept")[0] == "drop"


SAVED = """# Generated
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [12:3456]
:MINE - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment "all of \\"it\\" -j DROP" -j MINE
-A FORWARD -i br0 -j ACCEPT
-A FORWARD -o br+ -j ACCEPT
-A FORWARD ! -i br1 -j ACCEPT
-A FORWARD -i br2 -p tcp -j ACCEPT
-A FORWARD -j LOG --log-prefix "DROP "
-A FORWARD -i br3 -g MINE
-A FORWARD -j REJECT --reject-with icmp-port-unreachable
-A MINE -m comment --comment hello
COMMIT
"""


def test_what_iptables_saves_is_understood() -> None:
    chains, policies = parse_saved(SAVED.splitlines())
    assert policies == {"INPUT": "accept", "FORWARD": "drop", "MINE": "-"}
    assert chains["FORWARD"] == [
        OTHER,
        Rule("jump", "MINE"),
        from_link("accept"),
        OTHER,
        OTHER,
        OTHER,
        Rule(),
        from_link("goto", "MINE", name="br3"),
        DROP,
    ]
    assert chains["MINE"] == [Rule()]


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "big", signed=value < 0))


def expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def verdict(code: int, chain: str = "") -> bytes:
    said = nested(2, u32(1, code), text(2, chain) if chain else b"")
    return expression("immediate", u32(1, 0), nested(2, said))


def meta(key: int) -> bytes:
    return expression("meta", u32(2, key), u32(1, 1))


def equals(value: bytes, operation: int = 0) -> bytes:
    return expression("cmp", u32(1, 1), u32(2, operation), nested(3, attribute(1, value)))


@pytest.mark.parametrize(
    ("expressions", "rule"),
    [
        ([], Rule()),
        ([verdict(0)], DROP),
        ([expression("counter"), expression("log"), verdict(1)], ACCEPT),
        ([verdict(-5)], RETURN),
        ([verdict(-3, "a")], Rule("jump", "a")),
        ([verdict(-4, "a")], Rule("goto", "a")),
        ([expression("reject", u32(1, 2))], DROP),
        ([expression("target", text(1, "REJECT"))], DROP),
        ([expression("target", text(1, "MARK"))], Rule(has_conditions=True)),
        ([expression("match", text(1, "comment")), verdict(0)], DROP),
        ([expression("match", text(1, "mark")), verdict(0)], Rule("drop", has_conditions=True)),
        ([expression("immediate", u32(1, 1), nested(2, attribute(1, b"x")))], Rule(has_conditions=True)),
        ([meta(6), equals(b"br0\0"), verdict(1)], from_link("accept")),
        ([meta(7), equals(b"br0".ljust(16, b"\0")), verdict(1)], from_link("accept", way="out")),
        ([meta(6), equals(b"br"), verdict(1)], OTHER),
        ([meta(6), equals(b"br0\0", 1), verdict(1)], OTHER),
        ([meta(16), equals(b"\6"), verdict(1)], OTHER),
        ([meta(6), equals(b"br0\0"), meta(16), equals(b"\6"), verdict(1)], OTHER),
    ],
)
def test_what_the_kernel_dumps_is_understood(expressions: list[bytes], rule: Rule) -> None:
    payload = bytes(4) + text(1, "t") + text(2, "c") + nested(4, *expressions)
    assert parse_nft(payload) == ("t", "c", rule)
