"""Plans and the steps between them: pure functions over resources.

A plan is what should exist. ``diff`` of two plans is what to do; an undo is ``diff`` the other way
round, so none is ever written by hand.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import ConflictError
from pynetwork.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pynetwork.resources import Effect, Key

__all__ = ["Plan", "Step", "StepFailedError", "Steps", "Verb", "conflict", "diff", "merge", "progress"]

_FEW_LINES: Final = 16


class Plan(tuple[Resource, ...]):
    """Resources that should exist, in any order. A tuple with a few more words."""

    __slots__ = ()

    def __add__(self, other: object) -> Plan:
        if not isinstance(other, tuple):
            return NotImplemented
        return Plan((*self, *other))

    def render(self) -> str:
        """Return the lines (``ip``, ``nft`` ...) that would make all of it on an empty host."""
        return diff(Plan(), self).render()


class Verb(StrEnum):
    """What a step does to its resource."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    EMIT = "emit"


@attrs.frozen
class Step:
    """
    One change of one resource.

    Args:
        verb: What to do.
        resource: The object as it should be (create, update) or as it was (delete), or the effect (emit).
        previous: The object before an update.
        lines: What a user could type on the host it is for, where that host is known and knows better
            than the resource.
    """

    verb: Verb
    resource: Resource
    previous: Resource | None = None
    lines: tuple[str, ...] | None = attrs.field(default=None, eq=False, repr=False)

    def render(self) -> tuple[str, ...]:
        """Return the step as lines a user could type."""
        if self.lines is not None:
            return self.lines
        if self.verb is Verb.DELETE:
            return self.resource.render_delete()
        if self.previous is not None:
            return self.resource.render_update(self.previous)
        return self.resource.render()

    def effects(self) -> tuple[Effect, ...]:
        """Return what should happen once, after the step is committed."""
        return self.resource.effects_of_delete() if self.verb is Verb.DELETE else self.resource.effects()

    def __str__(self) -> str:
        lines = self.render()
        if len(lines) > _FEW_LINES:  # a whole ruleset, which nobody wants in a message
            lines = (*lines[:2], f"... {len(lines) - 2} more lines")
        return "; ".join(lines) or f"{self.verb} {self.resource}"


class Steps(tuple[Step, ...]):
    """Changes in the order they are made."""

    __slots__ = ()

    def render(self) -> str:
        """Return them as lines a user could type, one newline after each."""
        return "".join(f"{line}\n" for step in self for line in step.render())


class StepFailedError(Exception):
    """
    Raised by a kernel when a step fails.

    Args:
        failed: The step.
        done: The steps that took effect, before or after it. The others did not.
        half_done: Whether the step that failed may have taken effect in part. Only then it is undone:
            it may have failed because what it was to make is there already, and somebody else's.

    The reason is chained as ``__cause__``.
    """

    def __init__(self, failed: Step, done: Sequence[Step], *, half_done: bool = True) -> None:
        super().__init__(str(failed))
        self.failed = failed
        self.done = tuple(done)
        self.half_done = half_done

    @property
    def to_undo(self) -> tuple[Step, ...]:
        """The steps that took effect, if only in part."""
        return (*self.done, self.failed) if self.half_done else self.done


def merge(plans: Iterable[Plan]) -> Plan:
    """
    Return one plan that holds each object of *plans* once.

    Raises:
        ConflictError: Two plans want the same object differently, or both want one that is not shared.
    """
    merged: dict[Key, Resource] = {}
    for plan in plans:
        for resource in plan:
            for key in resource.keys:
                other = merged.setdefault(key, resource)
                if other is not resource and not (resource.shared and other == resource):
                    raise conflict(resource, other)
    return Plan(dict.fromkeys(merged.values()))


def conflict(wanted: Resource, existing: Resource) -> ConflictError:
    """Return the error for two scopes that want the same object."""
    where = f" (asked for at {existing.origin})" if existing.origin else ""
    return ConflictError(f"{wanted} cannot be had: {existing} is in use{where}")


def diff(actual: Plan, desired: Plan) -> Steps:
    """
    Return the steps from *actual* to *desired*: deletions from the leaves up, then the rest by rank.

    What the kernel removes together with its parent is not deleted again, and is created again when
    it is still wanted. Neither plan may hold a key twice (see :func:`merge`).
    """
    if not actual:
        return Steps(sorted((Step(Verb.CREATE, resource) for resource in desired), key=_rank))
    old = {resource.key: resource for resource in actual}
    new = {resource.key: resource for resource in desired}
    replaced = {key for key, was in old.items() if key in new and not _mutable(was, new[key])}
    doomed = [was for key, was in old.items() if key not in new or key in replaced]
    gone = _closure(actual, doomed)
    deletes = [Step(Verb.DELETE, was) for was in doomed if gone.isdisjoint(was.parents)]
    changes = []
    for key, resource in new.items():
        was = old.get(key)
        if was is None or key in gone or key in replaced:
            changes.append(Step(Verb.CREATE, resource))
            continue
        left = was.after(gone)
        if left != resource:
            changes.append(Step(Verb.UPDATE, resource, was if left is None else left))
    # What was made last goes first: an IPv4 address takes the later ones of its subnet with it.
    deletes.reverse()
    deletes.sort(key=_rank, reverse=True)
    changes.sort(key=_rank)
    return Steps((*deletes, *changes))


def progress(actual: Plan, done: Collection[Step]) -> Plan:
    """Return what exists after *done*, some steps of a diff from *actual*, took effect."""
    removed = [step.resource for step in done if step.verb is Verb.DELETE]
    gone = _closure(actual, removed).union(resource.key for resource in removed)
    left = [was.after(gone) for was in actual if was.key not in gone]
    state = {was.key: was for was in left if was is not None}
    state.update((step.resource.key, step.resource) for step in done if step.verb is not Verb.DELETE)
    return Plan(state.values())


def _rank(step: Step) -> int:
    return step.resource.order


def _mutable(was: Resource, wanted: Resource) -> bool:
    if was == wanted:
        return True
    if type(was) is not type(wanted):
        return False
    fields = attrs.fields(type(wanted))
    changed = {f.name for f in fields if f.eq and getattr(was, f.name) != getattr(wanted, f.name)}
    return changed <= wanted.mutable


def _closure(actual: Plan, doomed: Iterable[Resource]) -> set[Key]:
    """Return the keys of *doomed* and of all that the kernel removes with them."""
    gone = {key for resource in doomed if not resource.stays for key in resource.keys}
    if not gone:
        return gone
    pending = list(actual)
    while True:
        hit = [resource for resource in pending if not gone.isdisjoint(resource.parents)]
        if not hit:
            return gone
        gone.update(key for resource in hit for key in resource.keys)
        pending = [resource for resource in pending if gone.isdisjoint(resource.parents)]
