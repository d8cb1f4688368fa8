"""A request on its way: drafted in memory, written ahead as an intent, then carried out.

The intent is all that another process needs to finish or undo the request after a crash: the plans
before it (those after it are in the scopes' own records), and what to write to the store at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from pynetwork.engine.codec import decode_plan, encode, encode_plan, loads
from pynetwork.plan import Plan
from pynetwork.store import Absent, Delete, Put, Unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pynetwork.plan import Step
    from pynetwork.store import Compare

__all__ = ["Draft", "Intent", "Operation", "journal_key", "lock_key", "scope_key"]

Operation: TypeAlias = Put | Delete
_NOTHING: Final = Plan()


def scope_key(scope: str) -> str:
    """Return the key of the record that holds the plan of *scope*."""
    return f"plan/{scope}"


def lock_key(name: str) -> str:
    """Return the key of the record that is written by whoever takes the lock *name*."""
    return f"lock/{name}"


def journal_key(intent_id: str) -> str:
    """Return the key of the record of an intent."""
    return f"journal/{intent_id}"


@attrs.define(eq=False)
class Draft:
    """
    A request as it is put together; nothing is written yet.

    Args:
        what: The request in words, for errors and reports: ``join endpoint 'a' to sandbox 'b'``.
        finish: What recovery does after a crash: finish it (a deletion) or undo it (a creation).
        plans: Scope to its plan after the request; an empty plan ends the scope.
        locks: What no other request may hold meanwhile, besides the scopes.
        turns: What it does one request after the other with all that name it, though not until its end.
        undisturbed: Scopes that no other request may be changing when this one is written.
        compares: What must still hold when the intent is written.
        operations: Written together with the intent, such as names taken.
        on_commit: Written when the host is as wanted: what must not be so before, as an address set free.
        on_abort: Written when the request failed and was undone.
        give_back: Called when the request fails: returns what was allocated in memory.
        written: Whether the store has it: what it allocated is on record.
        change: What of the plans is this request's to change, before and after it; filled in by the engine.
        repairs: Steps to take although no plan changes.
        failed: Those of them that failed, filled in by the engine.
    """

    what: str = ""
    finish: bool = False
    plans: dict[str, Plan] = attrs.field(factory=dict)
    locks: set[str] = attrs.field(factory=set)
    turns: set[str] = attrs.field(factory=set)
    undisturbed: set[str] = attrs.field(factory=set)
    compares: list[Compare] = attrs.field(factory=list)
    operations: list[Operation] = attrs.field(factory=list)
    on_commit: list[Operation] = attrs.field(factory=list)
    on_abort: list[Operation] = attrs.field(factory=list)
    give_back: list[Callable[[], None]] = attrs.field(factory=list)
    written: bool = False
    change: tuple[Plan, Plan] = (_NOTHING, _NOTHING)
    repairs: Sequence[Step] = ()
    failed: list[str] = attrs.field(factory=list)

    @property
    def needs(self) -> set[str]:
        """The scopes and locks that no request under way may hold."""
        return self.locks.union(self.plans, self.undisturbed)

    def reserve(self, put: Put) -> None:
        """Take a key with the intent, if nobody has it, and let it go if the request fails."""
        self.compares.append(Absent(put.key))
        self.operations.append(put)
        self.on_abort.append(Delete(put.key))

    def replace(self, new: Put, old: Put) -> None:
        """Write the record *new* with the intent, and *old* in its place if the request fails."""
        self.operations.append(new)
        self.on_abort.append(old)

    def rely_on(self, key: str, revision: int) -> None:
        """Require that the record read at *revision* is unchanged."""
        self.compares.append(Unchanged(key, revision))

    def release(self) -> None:
        """Return what was allocated in memory."""
        while self.give_back:
            self.give_back.pop()()


@attrs.frozen(kw_only=True)
class Intent:
    """
    A request that was written ahead.

    Args:
        id: Its own.
        what: In words.
        owner: The process that carries it out.
        finish: Whether recovery finishes it; else it is undone.
        before: Scope to its plan before the request.
        locks: What else it holds.
        operations: What recovery writes at the end, in its direction.
        undo: What undoing it would write, when recovery finishes it: the records as they were, for whoever
            begins to follow the store while it is under way.
        revision: Of the record.
    """

    id: str
    what: str
    owner: str
    finish: bool
    before: dict[str, Plan] = attrs.field(eq=False)
    locks: frozenset[str] = frozenset()
    operations: tuple[Operation, ...] = ()
    undo: tuple[Operation, ...] = ()
    revision: int = 0

    @property
    def was(self) -> tuple[Operation, ...]:
        """What writes the records as they were before the request; all of it is written when it is undone."""
        return self.undo if self.finish else self.operations

    @property
    def holds(self) -> frozenset[str]:
        """The scopes and locks of the request."""
        return self.locks.union(self.before)

    def encode(self) -> str:
        """Return it as a record."""
        return encode(
            {
                "what": self.what,
                "owner": self.owner,
                "finish": self.finish,
                "before": {scope: encode_plan(plan) for scope, plan in self.before.items()},
                "locks": sorted(self.locks),
                "operations": _plain_operations(self.operations),
                **({"undo": _plain_operations(self.undo)} if self.undo else {}),
            }
        )

    @classmethod
    def decode(cls, key: str, text: str, revision: int) -> Intent:
        """Return the intent that :meth:`encode` made *text* of."""
        fields: dict[str, Any] = loads(key, text)
        return cls(
            id=key.removeprefix("journal/"),
            what=fields["what"],
            owner=fields["owner"],
            finish=fields["finish"],
            before={scope: decode_plan(key, plan) for scope, plan in fields["before"].items()},
            locks=frozenset(fields["locks"]),
            operations=_operations(fields["operations"]),
            undo=_operations(fields.get("undo", ())),
            revision=revision,
        )


def _plain_operations(operations: Iterable[Operation]) -> list[tuple[str, str | None]]:
    return [(o.key, o.value if isinstance(o, Put) else None) for o in operations]


def _operations(items: Iterable[tuple[str, str | None]]) -> tuple[Operation, ...]:
    return tuple(Delete(key) if value is None else Put(key, value) for key, value in items)
