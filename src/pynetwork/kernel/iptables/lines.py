"""What is done with iptables, as lines a user could type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pynetwork.kernel.iptables import layout
from pynetwork.kernel.iptables.rules import rules_of
from pynetwork.plan import Verb
from pynetwork.resources import Rules, Ruleset
from pynetwork.resources.stray import StrayRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.kernel.iptables.values import Rule
    from pynetwork.plan import Step
    from pynetwork.resources import Resource

__all__ = ["lines"]

_PROGRAMS: Final = {4: "iptables-legacy", 6: "ip6tables-legacy"}


def lines(step: Step, instance: str, versions: Iterable[int]) -> tuple[str, ...]:
    """
    Return the lines of a step; for an update those that delete what was, and make what is to be.

    Args:
        step: Of the firewall.
        instance: Hexadecimal id of the owner.
        versions: The families that the host has.
    """
    resource = step.resource
    if isinstance(resource, StrayRules):
        return resource.render_delete() if step.verb is Verb.DELETE else ()
    found: list[str] = []
    for version in versions:
        if isinstance(resource, Ruleset):
            ends = step.verb is Verb.DELETE
            found += (_unmade if ends else _made)(instance, version, resource.priority)
            continue
        wanted = () if step.verb is Verb.DELETE else _rules(resource, instance, version)
        was = _rules(resource if step.verb is Verb.DELETE else step.previous, instance, version)
        # Of a chain in which anything changes, all are made anew.
        for place in dict.fromkeys((rule.table, rule.chain) for rule in (*was, *wanted)):
            old, new = ([r for r in rules if (r.table, r.chain) == place] for rules in (was, wanted))
            if old != new:
                found += (_line(version, rule, f"-D {rule.chain}") for rule in reversed(old))
                found += _added(new, version)
    return tuple(found)


def _rules(resource: Resource | None, instance: str, version: int) -> tuple[Rule, ...]:
    """Return the rules of a resource, what protects first."""
    found = rules_of(resource, instance, version) if isinstance(resource, Rules) else ()
    return tuple(sorted(found, key=lambda rule: layout.TABLES.index(rule.table)))


def _made(instance: str, version: int, priority: int) -> Iterator[str]:
    """Yield what makes all chains, and what is always in them."""
    for table, chains in layout.chain_names(instance).items():
        yield from (f"{_command(version, table)} -N {chain}" for chain in chains)
        wanted = (*layout.static_rules(instance, version), *layout.jumps(instance, version, priority))
        yield from _added([rule for rule in wanted if rule.table == table], version)


def _unmade(instance: str, version: int, priority: int) -> Iterator[str]:
    """Yield what removes them; the user's chain stays as long as there is something in it."""
    user = layout.user_chain(instance)
    for table, chains in reversed(layout.chain_names(instance).items()):
        for rule in layout.jumps(instance, version, priority):
            if rule.table == table:
                yield _line(version, rule, f"-D {rule.chain}")
        own = [chain for chain in chains if chain != user]
        yield from (f"{_command(version, table)} -F {chain}" for chain in own)
        yield from (f"{_command(version, table)} -X {chain}" for chain in own)
        if user in chains:
            yield f"{_command(version, table)} -X {user}"


def _added(rules: Iterable[Rule], version: int) -> Iterator[str]:
    """Yield what adds *rules* in their order, some at the heads of their chains."""
    heads: dict[tuple[str, str], int] = {}
    for rule in rules:
        place = f"-A {rule.chain}"
        if rule.is_first:
            number = heads[rule.table, rule.chain] = heads.get((rule.table, rule.chain), 0) + 1
            place = f"-I {rule.chain} {number}"
        yield _line(version, rule, place)


def _line(version: int, rule: Rule, place: str) -> str:
    return f"{_command(version, rule.table)} {place} {rule.render().removeprefix(f'-A {rule.chain} ')}"


def _command(version: int, table: str) -> str:
    return f"{_PROGRAMS[version]} -w -t {table}"
