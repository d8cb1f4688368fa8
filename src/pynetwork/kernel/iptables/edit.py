"""A table of iptables while it is changed, in the worker: what is in our chains, and what undoes a change.

Rules are told by their comments and otherwise kept as the bytes the kernel gave us, so none has to be
understood to be deleted, or to be put back.
"""

from __future__ import annotations

import ctypes
import sys
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetwork.kernel.iptables.claims import Claims

__all__ = ["Entry", "TableEdit"]

_NAME: Final = 29  # of an extension, with its revision behind it
_HEADER: Final = 32  # struct xt_entry_match


@attrs.frozen
class Entry:
    """A rule: its comment, empty if it has none, and its bytes."""

    comment: str
    raw: bytes

    @property
    def key(self) -> str:
        """What it belongs to, when it is ours."""
        return self.comment.partition(" #")[0]


class TableEdit:
    """
    Changes of one table, none of which takes effect before the commit.

    Args:
        table: Of python-iptables, read just now.

    Attributes:
        chains: Those that there are.
        claims: Ports that are published; kept up to date once somebody has filled it.
    """

    def __init__(self, table: Any) -> None:  # noqa: ANN401 - python-iptables has no types
        self._table = table
        self._loaded: dict[str, list[Entry]] = {}
        self.chains: set[str] = {chain.name for chain in table.chains}
        self.claims: Claims | None = None
        self._keys: dict[str, dict[str, list[str]]] = {}
        self._undo: list[list[Any]] = []

    @property
    def undo(self) -> list[list[Any]]:
        """What takes the changes back, in the order in which it has to be done."""
        return self._undo[::-1]

    def entries(self, chain: str) -> Sequence[Entry]:
        """Return the rules of a chain, none if there is no such chain."""
        if chain not in self.chains:
            return ()
        if chain not in self._loaded:
            found = []
            entry = self._table.first_rule(chain)
            while entry:
                found.append(_read(self._table, entry))
                entry = self._table.next_rule(entry)
            self._loaded[chain] = found
        return self._loaded[chain]

    def of_key(self, chain: str, key: str) -> Sequence[str]:
        """Return the comments of the rules of a key in a chain."""
        if chain not in self._keys:
            keys: dict[str, list[str]] = {}
            for entry in self.entries(chain):
                keys.setdefault(entry.key, []).append(entry.comment)
            self._keys[chain] = keys
        return self._keys[chain].get(key, [])

    def create(self, chain: str) -> None:
        """Make a chain unless it is there."""
        if chain not in self.chains:
            self._table.create_chain(chain)
            self.chains.add(chain)
            self._loaded[chain] = []
            self._undo.append(["drop", chain])

    def drop(self, chain: str) -> None:
        """Delete a chain that is empty."""
        if chain in self.chains:
            self._table.delete_chain(chain)
            self.chains.discard(chain)
            self._loaded.pop(chain, None)
            self._keys.pop(chain, None)
            self._undo.append(["create", chain])

    def insert(self, chain: str, position: int, entry: Entry) -> None:
        """Put a rule into a chain."""
        rules = self._rules(chain)
        position = min(position, len(rules))
        self._table.insert_entry(chain, _buffer(entry.raw), position)
        rules.insert(position, entry)
        if chain in self._keys:
            self._keys[chain].setdefault(entry.key, []).append(entry.comment)
        if self.claims is not None:
            self.claims.add(entry.comment)
        self._undo.append(["delete", chain, entry.comment])

    def delete(self, chain: str, doomed: Callable[[Entry], bool]) -> None:
        """Delete the rules of a chain that *doomed* is true of."""
        rules = self._rules(chain)
        for position in reversed(range(len(rules))):
            entry = rules[position]
            if doomed(entry):
                mask = (ctypes.c_ubyte * len(entry.raw))(*b"\xff" * len(entry.raw))
                self._table.delete_entry(chain, _buffer(entry.raw), mask)
                del rules[position]
                if chain in self._keys:
                    self._keys[chain][entry.key].remove(entry.comment)
                if self.claims is not None:
                    self.claims.discard(entry.comment)
                self._undo.append(["insert", chain, position, entry.comment, entry.raw.hex()])

    def take_back(self, undo: Sequence[Sequence[Any]]) -> None:
        """Do what is in the *undo* of another edit, which may not have taken effect."""
        for (verb, chain), changes in groupby(undo, itemgetter(0, 1)):
            if verb == "create":
                self.create(chain)
            elif verb == "drop":
                if not self.entries(chain):
                    self.drop(chain)
            elif verb == "delete":
                comments = {comment for _, _, comment in changes}
                self.delete(chain, lambda entry, comments=comments: entry.comment in comments)  # type: ignore[misc]  # bound at once
            elif verb == "insert" and chain in self.chains:
                there = {entry.comment for entry in self.entries(chain)} - {""}
                for _, _, position, comment, raw in changes:
                    if comment not in there:
                        self.insert(chain, position, Entry(comment, bytes.fromhex(raw)))

    def _rules(self, chain: str) -> list[Entry]:
        self.entries(chain)
        return self._loaded.get(chain, [])


def _buffer(raw: bytes) -> Any:  # noqa: ANN401 - an array of its length
    return (ctypes.c_ubyte * len(raw)).from_buffer_copy(raw)


def _read(table: Any, entry: Any) -> Entry:  # noqa: ANN401 - python-iptables has no types
    raw = bytearray(ctypes.string_at(ctypes.addressof(entry), entry.next_offset))
    comment = ""
    offset = ctypes.sizeof(entry)
    while offset < entry.target_offset:
        size = int.from_bytes(raw[offset : offset + 2], sys.byteorder)
        if raw[offset + 2 : offset + 2 + _NAME].startswith(b"comment\0"):
            text = bytes(raw[offset + _HEADER : offset + size])
            comment = text.partition(b"\0")[0].decode(errors="replace")
        offset += size
    name = entry.target_offset + 2
    if not raw[name]:  # a verdict, or a jump: its number means something in the table it was read from
        target = table.get_target(entry) or b""
        raw[name : name + _NAME] = target.ljust(_NAME, b"\0")
    return Entry(comment, bytes(raw))
