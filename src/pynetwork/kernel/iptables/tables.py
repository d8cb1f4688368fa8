"""What the worker does to the tables of one family, with python-iptables, under the lock of iptables.

python-iptables takes no lock, overwrites what others did meanwhile without a word, and keeps what it
read for ever; so each transaction takes the lock, reads anew, edits, and commits once for each table.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Any, Final

from pynetwork.kernel.iptables.claims import Claims
from pynetwork.kernel.iptables.edit import Entry, TableEdit
from pynetwork.kernel.iptables.layout import PREFIX, is_own_chain, user_chain
from pynetwork.kernel.iptables.values import mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.kernel.iptables.wire import Message

__all__ = ["RefusedError", "Tables"]

_LOCK: Final = os.environ.get("XTABLES_LOCKFILE", "/run/xtables.lock")  # as iptables itself has it
_LOCK_SECONDS: Final = 20.0
_ATTEMPTS: Final = 50
_NAMES: Final = {"ipv6-icmp": "icmpv6"}  # what python-iptables calls it


class RefusedError(Exception):
    """
    A transaction was refused.

    Args:
        message: Why.
        kind: ``taken``, ``refused``, ``unavailable`` or ``busy``.
        fields: More for the answer.
    """

    def __init__(self, message: str, *, kind: str, **fields: object) -> None:
        super().__init__(message)
        self.answer: Message = {"error": kind, "message": message, **fields}


class Tables:
    """
    The tables of one family.

    Args:
        iptc: The module python-iptables.
        version: 4 or 6.
    """

    def __init__(self, iptc: Any, version: int) -> None:  # noqa: ANN401 - it has no types
        self._iptc = iptc
        self._version = version
        self._rule = {4: iptc.Rule, 6: iptc.Rule6}[version]
        self._table = {4: iptc.Table, 6: iptc.Table6}[version]

    def apply(self, request: Message, tell: Callable[[Message], None]) -> None:
        """Make all changes of *request*; *tell* what undoes those of a table before they take effect."""
        tables = {
            name: [{**edit, "built": self._built(edit)} for edit in edits]
            for name, edits in request["tables"].items()
        }
        with _lock():
            for name, edits in tables.items():

                def change(edit: TableEdit, edits: list[Message] = edits) -> None:
                    for each in edits:
                        _DO[each["do"]](edit, each, request["instance"])

                self._commit(name, change, tell)

    def take_back(self, request: Message, tell: Callable[[Message], None]) -> None:
        """Do what undoes an earlier request."""
        with _lock():
            self._commit(request["table"], lambda edit: edit.take_back(request["undo"]), tell)

    def comments(self, request: Message) -> dict[str, dict[str, list[str]]]:
        """Return the comments of an instance's rules by table and chain; each of its chains is named."""
        found: dict[str, dict[str, list[str]]] = {}
        instance = request["instance"]
        for name in request["tables"]:
            edit = self._read(name)
            found[name] = {}
            for chain in edit.chains:
                is_own = is_own_chain(chain, instance)
                if is_own or chain == user_chain(instance):
                    found[name][chain] = [entry.comment for entry in edit.entries(chain)] if is_own else []
                elif chain in request["built_in"]:
                    marked = [entry.comment for entry in edit.entries(chain)]
                    found[name][chain] = [each for each in marked if each.startswith(mark(instance))]
        return found

    # python-iptables

    def _read(self, name: str) -> TableEdit:
        try:
            table = self._table(name, autocommit=False)
            table.refresh()
        except self._iptc.IPTCError as error:
            message = f"table {name} cannot be read: {_text(error)}"
            raise RefusedError(message, kind="unavailable") from error
        return TableEdit(table)

    def _commit(
        self, name: str, change: Callable[[TableEdit], None], tell: Callable[[Message], None]
    ) -> None:
        for attempt in range(_ATTEMPTS):
            edit = self._read(name)
            try:
                change(edit)
                if not edit.undo:
                    return
                tell({"table": name, "undo": edit.undo})
                self._table(name, autocommit=False).commit()
            except self._iptc.IPTCError as error:
                # Somebody who takes no lock, either, was faster.
                if "temporarily unavailable" in str(error) and attempt < _ATTEMPTS - 1:
                    continue
                message = f"the kernel refused a change of table {name}: {_text(error)}"
                raise RefusedError(message, kind="refused", table=name) from error
            else:
                return

    def _built(self, edit: Message) -> dict[str, list[Entry]]:
        return {
            part: [Entry(rule["comment"], self._build(rule, edit)) for rule in edit.get(part, ())]
            for part in ("rules", "jumps")
        }

    def _build(self, wire: Message, edit: Message) -> bytes:
        try:
            return self._bytes(wire)
        except Exception as error:
            # Whatever it does not know, it tells by an exception of its own choice.
            message = f"python-iptables cannot make a rule of chain {wire['chain']}: {_text(error)}"
            raise RefusedError(message, kind="refused", step=edit.get("step")) from error

    def _bytes(self, wire: Message) -> bytes:
        rule = self._rule()
        for name, value in (
            ("src", wire["source"]),
            ("dst", wire["destination"]),
            ("in_interface", wire["in"]),
            ("out_interface", wire["out"]),
            ("protocol", _NAMES.get(wire["proto"], wire["proto"])),
        ):
            if value:
                setattr(rule, name, value)
        if self._version == 6:
            _mend_masks(rule, wire)
        for name, options in [*wire["matches"], ["comment", [["comment", wire["comment"]]]]]:
            match = rule.create_match(name)
            for option, value in options:
                match.set_parameter(option, value)
        target = wire["target"]
        if target.startswith(PREFIX):
            # Told the name of a chain, python-iptables would look for it in all tables, and so make the
            # kernel set up those that nobody uses.
            rule.create_target("").standard_target = target
        else:
            made = rule.create_target(target)
            for option, value in wire["options"]:
                made.set_parameter(option, value)
        rule.final_check()
        return bytes(rule.rule)


# Edits


def _skeleton(edit: TableEdit, wanted: Message, instance: str) -> None:
    """Make the chains and what is always in them, unless they are there."""
    built = wanted["built"]
    rules = list(zip(wanted["rules"], built["rules"], strict=True))
    if not _has_skeleton(edit, wanted):
        _end(edit, wanted, instance)
        for chain in wanted["chains"]:
            edit.create(chain)
        for rule, entry in rules:
            edit.insert(rule["chain"], len(edit.entries(rule["chain"])), entry)
    for rule, entry in zip(wanted["jumps"], built["jumps"], strict=True):
        chain = rule["chain"]
        if [found.comment for found in edit.entries(chain)].count(entry.comment) != 1:
            edit.delete(chain, lambda found, comment=entry.comment: found.comment == comment)  # type: ignore[misc]  # called at once
            edit.insert(chain, 0 if rule["is_first"] else len(edit.entries(chain)), entry)


def _has_skeleton(edit: TableEdit, wanted: Message) -> bool:
    if not edit.chains.issuperset(wanted["chains"]):
        return False
    by_chain: dict[str, list[str]] = {}
    for rule in wanted["rules"]:
        by_chain.setdefault(rule["chain"], []).append(rule["comment"])
    return all(
        [found.comment for found in edit.entries(chain) if found.comment in comments] == comments
        for chain, comments in by_chain.items()
    )


def _put(edit: TableEdit, wanted: Message, _instance: str) -> None:
    """Make the rules of one key those wanted; none to delete them."""
    claim = wanted.get("claim")
    if claim is not None:
        _check_claim(edit, claim, wanted)
    key = wanted["key"]
    for chain in wanted["chains"]:
        placed = [
            (rule, entry)
            for rule, entry in zip(wanted["rules"], wanted["built"]["rules"], strict=True)
            if rule["chain"] == chain
        ]
        now = edit.of_key(chain, key)
        if sorted(now) == sorted(entry.comment for _, entry in placed):
            continue
        if now:
            edit.delete(chain, lambda found: found.key == key)
        if chain not in edit.chains:
            message = f"chain {chain} is gone: reconcile to make it again"
            raise RefusedError(message, kind="refused", step=wanted["step"])
        first = [entry for rule, entry in placed if rule["is_first"]]
        last = [entry for rule, entry in placed if not rule["is_first"]]
        for position, entry in enumerate(first):
            edit.insert(chain, position, entry)
        for entry in last:
            edit.insert(chain, len(edit.entries(chain)), entry)


def _check_claim(edit: TableEdit, claim: Message, wanted: Message) -> None:
    """Check that no instance has published what is to be published."""
    if edit.claims is None:
        edit.claims = Claims()
        for chain in edit.chains:
            if chain.startswith(f"{PREFIX}PUB-"):
                for entry in edit.entries(chain):
                    edit.claims.add(entry.comment)
    taken = edit.claims.find(claim, wanted["key"])
    if taken is not None:
        number, owner = taken
        raise RefusedError(owner, kind="taken", step=wanted["step"], port=number)


def _end(edit: TableEdit, wanted: Message, instance: str) -> None:
    """Delete all that is an instance's, but not what the user put into the user's chain."""
    start = mark(instance)
    for chain in wanted["built_in"]:
        edit.delete(chain, lambda found: found.comment.startswith(start))
    own = sorted(chain for chain in edit.chains if is_own_chain(chain, instance))
    for chain in own:
        edit.delete(chain, lambda _: True)
    for chain in own:
        edit.drop(chain)
    user = user_chain(instance)
    if user in edit.chains and not edit.entries(user):
        edit.drop(user)


_DO: Final[dict[str, Callable[[TableEdit, Message, str], None]]] = {
    "skeleton": _skeleton,
    "put": _put,
    "end": _end,
}


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Hold the lock of iptables."""
    descriptor = os.open(_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    message = f"another program has held {_LOCK} for {_LOCK_SECONDS:.0f} seconds"
                    raise RefusedError(message, kind="busy") from error
                time.sleep(0.002)
        yield
    finally:
        os.close(descriptor)


def _mend_masks(rule: Any, wire: Message) -> None:  # noqa: ANN401 - python-iptables has no types
    """
    Have the names of interfaces matched by all of their bits.

    python-iptables (1.2) has the kernel compare the lowest bit of each byte for IPv6, so that ``lan``
    passes for ``lo``, and one bridge for another.
    """
    for field, name in (("iniface_mask", wire["in"]), ("outiface_mask", wire["out"])):
        if name:
            setattr(rule.entry.ipv6, field, b"\xff" * (len(name.encode()) + 1))


def _text(error: Exception) -> str:
    """Return the message of an error of python-iptables, which holds the text of bytes."""
    return str(error).replace("b'", "").replace('b"', "").rstrip("'\"") or type(error).__name__
