"""Making a host what the records say, after a reboot, a crash, or somebody else's hands.

Observe what carries our tag, compare with the plans of all scopes, repair each scope as a request
of its own (so nothing runs into a live one), and delete what no record knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import PynetworkError
from pynetwork.kernel.port import Away
from pynetwork.plan import Plan, Step, Steps, diff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pynetwork.engine.engine import Engine
    from pynetwork.resources import Key, Resource

__all__ = ["Adoptions", "Report", "reconcile"]

_DETAILS: Final = 20  # lines of what happened that are told, of each scope
_ORDER = ("network", "sandbox", "files", "join", "port")


@attrs.frozen(kw_only=True)
class Report:
    """
    What :meth:`Controller.reconcile` found and did; ``str()`` is for people.

    Attributes:
        dry_run: Whether it only looked.
        finished: Deletions of dead processes that were completed, in words.
        undone: Other requests of dead processes, undone.
        detached: Sandboxes whose adopted namespaces are gone, by name: they have none any more.
        attached: Sandboxes whose adopted namespaces are there again, by name.
        repaired: Steps that brought recorded objects back to what they should be.
        pruned: Steps that deleted objects which carry our tag and are in no record.
        failed: What could not be done, and why.
    """

    dry_run: bool
    finished: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()
    repaired: tuple[Step, ...] = ()
    pruned: tuple[Step, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there was nothing to do."""
        done = (self.finished, self.undone, self.detached, self.attached, self.repaired, self.pruned)
        return not any((*done, self.failed))

    def __str__(self) -> str:
        if self.is_clean:
            return "nothing to do: the host is as recorded"
        would = "would " if self.dry_run else ""
        lines = [
            *(f"{would}finish: {what}" for what in self.finished),
            *(f"{would}undo: {what}" for what in self.undone),
            *(f"{would}detach: sandbox {name!r}: its namespace is gone" for name in self.detached),
            *(f"{would}attach: sandbox {name!r}: its namespace is there again" for name in self.attached),
            *(f"{would}repair: {step}" for step in self.repaired),
            *(f"{would}prune: {step}" for step in self.pruned),
            *(f"failed: {line}" for line in self.failed),
        ]
        return "\n".join(lines)


@attrs.define
class Adoptions:
    """
    What became of namespaces that were adopted.

    Attributes:
        detached: Names of sandboxes whose namespaces are gone.
        attached: Names of those whose namespaces are there again.
        scopes: Scopes of plans that this is about.
        failed: What could not be done, and why.
    """

    detached: list[str] = attrs.field(factory=list)
    attached: list[str] = attrs.field(factory=list)
    scopes: set[str] = attrs.field(factory=set)
    failed: list[str] = attrs.field(factory=list)


@attrs.define
class _Findings:
    repairs: dict[str, Steps]
    prunes: Steps
    away: Away


def reconcile(engine: Engine, *, dry_run: bool = False, adopt: Callable[[], Adoptions] = Adoptions) -> Report:
    """
    Repair, prune, and finish or undo interrupted requests.

    Args:
        engine: Of the controller.
        dry_run: Only report what would be done.
        adopt: Sees to adopted namespaces that are gone, or there again; only looks in a dry run.

    Returns:
        A report. Failures are in it, not raised.
    """
    with engine.mirror.lock:
        engine.mirror.refresh()
        engine.journal.settle()
        dead = [intent for intent in engine.world.intents.values() if engine.is_dead(intent)]
    failed: list[str] = []
    for intent in dead if not dry_run else ():
        failed += (f"{intent.what}: {line}" for line in engine.recover(intent))
    adopted = adopt()
    failed += adopted.failed
    findings = _observe(engine)
    failed += filter(None, (findings.away.reason,))
    if dry_run:
        findings.repairs = {s: steps for s, steps in findings.repairs.items() if s not in adopted.scopes}
    else:
        found: dict[str | None, Steps] = dict(findings.repairs.items())
        if findings.prunes:
            found[None] = findings.prunes
        _tell(engine, "drift.found", {scope: [str(step) for step in steps] for scope, steps in found.items()})
        lines = _repair(engine, found)
        _tell(engine, "drift.failed", {scope: errors for scope, errors in lines.items() if errors})
        done = {scope: [str(s) for s in steps] for scope, steps in found.items() if not lines[scope]}
        _tell(engine, "drift.repaired", done)
        wrong = [line for errors in lines.values() for line in errors]
        failed += wrong
        engine.counters.reconcile(found=sum(map(len, found.values())), failed=len(wrong))
    return Report(
        dry_run=dry_run,
        finished=tuple(intent.what for intent in dead if intent.finish),
        undone=tuple(intent.what for intent in dead if not intent.finish),
        detached=tuple(adopted.detached),
        attached=tuple(adopted.attached),
        repaired=engine.spoken([step for steps in findings.repairs.values() for step in steps]),
        pruned=engine.spoken(findings.prunes),
        failed=tuple(failed),
    )


def _observe(engine: Engine) -> _Findings:
    with engine.mirror.lock:
        expected = _expected(engine)
        everything = Plan(dict.fromkeys(item for plan in _plans(engine) for item in plan))
        revision = engine.mirror.revision
    look = getattr(engine.kernel, "away", None)
    away = Away() if look is None else look(everything)
    observed = engine.kernel.observe(Plan(item for item in everything if item.key not in away.keys))
    with engine.mirror.lock:
        # A request may have come or gone since. Its intent was written before its first step, so
        # whatever it made is in the plans by now, and is none of our business.
        engine.mirror.refresh()
        still = _expected(engine)
        known = _claimed(engine)
    stable = {scope: plan for scope, plan in expected.items() if still.get(scope) == plan}
    by_key = {resource.key: resource for resource in observed}
    if engine.mirror.revision != revision:
        # What has no name may be of a request that came since: it is left for another time.
        observed = Plan(resource for resource in observed if not resource.nameless)
    return _Findings(
        repairs=_drift(stable, by_key, away),
        prunes=diff(Plan(item for item in observed if item.key not in known), Plan()),
        away=away,
    )


def _expected(engine: Engine) -> dict[str, Plan]:
    """Return the plans of the scopes that no request holds, networks first."""
    held = {name for intent in engine.world.under_way() for name in intent.holds}
    scopes = sorted(engine.world.scopes, key=lambda scope: _ORDER.index(scope.partition("/")[0]))
    return {scope: engine.world.plan(scope) for scope in scopes if scope not in held}


def _claimed(engine: Engine) -> set[Key]:
    """Return the keys of all that is recorded, or part of a request under way."""
    return {key for plan in _plans(engine) for item in plan for key in item.keys}


def _plans(engine: Engine) -> list[Plan]:
    """Return the plans of all scopes, and those before the requests under way."""
    plans = [scoped.plan for scoped in engine.world.scopes.values()]
    plans += (plan for intent in engine.world.intents.values() for plan in intent.before.values())
    return plans


def _drift(expected: Mapping[str, Plan], observed: Mapping[Key, Resource], away: Away) -> dict[str, Steps]:
    found = {}
    for scope, whole in expected.items():
        plan = Plan(item for item in whole if item.key not in away.keys) if away.keys else whole
        actual = Plan(observed[item.key] for item in plan if item.key in observed)
        steps = diff(actual, plan)
        if steps:
            found[scope] = steps
    return found


def _repair(engine: Engine, found: Mapping[str | None, Steps]) -> dict[str | None, list[str]]:
    """Take the steps of each scope, and those of none; return what failed."""
    failed = {}
    for scope, steps in found.items():
        try:
            failed[scope] = engine.force(steps) if scope is None else engine.repair(scope, steps)
        except PynetworkError as error:
            failed[scope] = [f"repair {scope}: {error}"]
    return failed


def _tell(engine: Engine, kind: str, found: Mapping[str | None, Sequence[str]]) -> None:
    """Tell what became of drift, each scope by itself, to those who follow events."""
    if found:
        events = [{"kind": kind, "scope": scope, "details": _some(lines)} for scope, lines in found.items()]
        engine.journal.tell("drift", events)


def _some(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - _DETAILS
    return [*lines[:_DETAILS], *([f"and {rest} more"] if rest > 0 else [])]
