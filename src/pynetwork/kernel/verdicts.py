"""What becomes of a packet that no rule was made for: chains of other tools, as far as that takes.

A chain that drops what is left need not have a policy of dropping: many end in a rule that rejects.
And one that drops lets pass what an earlier rule accepts. Rules come from nftables by netlink, or from
what ``iptables-save`` writes; of their conditions only the name of an interface is understood.
"""

from __future__ import annotations

import shlex
import struct
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from pynetwork.kernel.netlink import attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Chains", "Link", "Rule", "fate", "parse_nft", "parse_saved"]

#: A way, ``in`` or ``out``, and the name of an interface.
Link: TypeAlias = tuple[str, str]

_JUMPS: Final = frozenset({"jump", "goto"})
_ENDS: Final = frozenset({"accept", "drop", "return"})
# linux/netfilter/nf_tables.h
_VERDICTS: Final = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}
_WAYS: Final = {6: "in", 7: "out"}  # NFT_META_IIFNAME, NFT_META_OIFNAME
_IDLE: Final = frozenset({"counter", "log"})
_TARGETS: Final = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_OPTIONS: Final = {"-i": "in", "-o": "out"}
_NAME_SIZE: Final = 16  # with its NUL; shorter is the beginning of a name


@attrs.frozen
class Rule:
    """
    A rule.

    Args:
        verdict: ``accept``, ``drop``, ``return``, ``jump``, ``goto``; empty where the next rule follows.
        chain: Where it jumps or goes to.
        link: Its condition, if that is an interface and nothing else.
        has_conditions: Whether it has any.
    """

    verdict: str = ""
    chain: str = ""
    link: Link | None = None
    has_conditions: bool = False


Chains: TypeAlias = "Mapping[str, Sequence[Rule]]"


def fate(chains: Chains, chain: str, policy: str) -> tuple[str, frozenset[Link]]:
    """
    Return what becomes of packets that meet no condition, and the interfaces whose are accepted before.

    Args:
        chains: All chains of its table.
        chain: A base chain.
        policy: Its policy: ``accept`` or ``drop``.
    """
    accepted: set[Link] = set()
    return _walk(chains, chain, accepted, ()) or policy, frozenset(accepted)


def _walk(chains: Chains, chain: str, accepted: set[Link], path: tuple[str, ...]) -> str:
    for rule in chains.get(chain, ()) if chain not in path else ():
        verdict = rule.verdict
        if rule.has_conditions:
            if rule.link is not None:
                if verdict in _JUMPS:
                    verdict = _walk(chains, rule.chain, set(), (*path, chain))
                if verdict == "accept":
                    accepted.add(rule.link)
        elif verdict in _ENDS:
            return "" if verdict == "return" else verdict
        elif verdict in _JUMPS:
            there = _walk(chains, rule.chain, accepted, (*path, chain))
            if there or verdict == "goto":
                return there
    return ""


def parse_nft(payload: bytes) -> tuple[str, str, Rule]:
    """Return table, chain and meaning of a rule in a dump of nftables."""
    fields = attributes(payload, 4)
    table, chain = (fields[kind].rstrip(b"\0").decode(errors="replace") for kind in (1, 2))
    expressions = []
    for element in _each(fields.get(4, b"")):
        found = attributes(element)
        expressions.append((found[1].rstrip(b"\0").decode(), attributes(found.get(2, b""))))
    verdict = target = ""
    conditions = []
    for name, data in expressions:
        if name == "immediate" and data.get(1) == bytes(4):
            verdict, target = _verdict(data)
        elif name == "reject" or (name == "target" and data.get(1, b"").rstrip(b"\0") == b"REJECT"):
            verdict = "drop"
        elif name not in _IDLE and not _is_comment(name, data):
            conditions.append((name, data))
    link = _link(conditions)
    return table, chain, Rule(verdict, target, link, has_conditions=bool(conditions))


def _each(payload: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + 4 <= len(payload):
        (length,) = struct.unpack_from("=H", payload, offset)
        yield payload[offset + 4 : offset + length]
        offset += length + (-length % 4)


def _verdict(data: dict[int, bytes]) -> tuple[str, str]:
    said = attributes(attributes(data.get(2, b"")).get(2, b""))
    code = int.from_bytes(said.get(1, b"\xff"), "big", signed=True)
    return _VERDICTS.get(code, ""), said.get(2, b"").rstrip(b"\0").decode(errors="replace")


def _is_comment(name: str, data: dict[int, bytes]) -> bool:
    return name == "match" and data.get(1, b"").rstrip(b"\0") == b"comment"


def _link(conditions: Sequence[tuple[str, dict[int, bytes]]]) -> Link | None:
    if [name for name, _ in conditions] != ["meta", "cmp"]:
        return None
    (_, meta), (_, compared) = conditions
    way = _WAYS.get(int.from_bytes(meta.get(2, b""), "big"))
    value = attributes(compared.get(3, b"")).get(1, b"")
    is_whole = len(value) == _NAME_SIZE or value.endswith(b"\0")
    if way is None or not is_whole or any(compared.get(2, b"")):  # any operation but "equal"
        return None
    return way, value.rstrip(b"\0").decode(errors="replace")


def parse_saved(lines: Iterable[str]) -> tuple[dict[str, list[Rule]], dict[str, str]]:
    """Return chains and policies of a table that ``iptables-save`` wrote."""
    chains: dict[str, list[Rule]] = {}
    policies: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains[name] = []
            policies[name] = policy.lower()
        elif line.startswith("-A "):
            words = shlex.split(line)
            chains[words[1]].append(_saved_rule(words[2:], chains))
    return chains, policies


def _saved_rule(words: list[str], chains: Mapping[str, object]) -> Rule:
    at = next((n for n, word in enumerate(words) if word in {"-j", "-g"}), len(words))
    conditions, action = words[:at], words[at : at + 2]
    if conditions[:3] == ["-m", "comment", "--comment"]:
        conditions = conditions[4:]
    verdict = chain = ""
    if len(action) == 2:
        verdict = _TARGETS.get(action[1], "")
        if action[1] in chains:
            verdict, chain = "jump" if action[0] == "-j" else "goto", action[1]
    link = None
    if len(conditions) == 2 and conditions[0] in _OPTIONS and not conditions[1].endswith("+"):
        link = (_OPTIONS[conditions[0]], conditions[1])
    return Rule(verdict, chain, link, has_conditions=bool(conditions))
