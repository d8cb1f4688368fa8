"""What of an instance is in the tables of one family: read off the comments."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from pynetwork.kernel.iptables import layout
from pynetwork.kernel.iptables.values import mark, parse_comment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.kernel.iptables.values import Rule

__all__ = ["View"]


@attrs.define
class View:
    """
    What is there.

    Args:
        instance: Whose.
        version: 4 or 6.
        comments: Of the rules in order, by table and chain.
    """

    instance: str
    version: int
    comments: dict[str, dict[str, list[str]]]
    _by_key: dict[str, Counter[tuple[str, str, str]]] | None = None

    def has_chains(self) -> bool:
        """Whether any chain but the user's is there."""
        return any(
            layout.is_own_chain(chain, self.instance) for chains in self.comments.values() for chain in chains
        )

    def has_skeleton(self) -> bool:
        """Whether all chains are there, and in them what is always in them."""
        return not any(self._lost())

    def has_jumps(self) -> bool:
        """Whether there is one jump from each of the kernel's own chains."""
        return not any(self._unreached())

    def missing(self) -> Iterator[str]:
        """Yield in words what of the skeleton is missing."""
        yield from self._lost()
        yield from self._unreached()

    def has(self, key: str, rules: Iterable[Rule]) -> bool:
        """Whether the rules of a key are *rules*."""
        return self._keys().get(key, Counter()) == Counter(
            (rule.table, rule.chain, rule.tag) for rule in rules
        )

    def keys(self) -> set[str]:
        """Return the keys of all that is in chains which resources add to."""
        return set(self._keys())

    def _keys(self) -> dict[str, Counter[tuple[str, str, str]]]:
        if self._by_key is None:
            self._by_key = {}
            for table, chains in self.comments.items():
                for chain, comments in chains.items():
                    if not layout.is_own_chain(chain, self.instance):
                        continue
                    for comment in comments:
                        parsed = parse_comment(comment)
                        if parsed is not None and comment.startswith(mark(self.instance)):
                            found = self._by_key.setdefault(parsed[0], Counter())
                            found[table, chain, parsed[1]] += 1
        return self._by_key

    def _lost(self) -> Iterator[str]:
        for table, chains in layout.chain_names(self.instance).items():
            for chain in chains:
                if chain not in self.comments[table]:
                    yield f"chain {chain} of table {table} is gone"
                    continue
                wanted = [
                    rule.comment
                    for rule in layout.static_rules(self.instance, self.version)
                    if (rule.table, rule.chain) == (table, chain)
                ]
                if [c for c in self.comments[table][chain] if c in wanted] != wanted:
                    yield f"rules of chain {chain} of table {table} are gone"

    def _unreached(self) -> Iterator[str]:
        for jump in layout.jumps(self.instance, self.version):
            if self.comments[jump.table].get(jump.chain, []).count(jump.comment) != 1:
                yield f"the jump from {jump.chain} of table {jump.table} is gone"
