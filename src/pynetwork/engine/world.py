"""What should exist on this host: the plans of all scopes, and the requests under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.engine.codec import changed, decode_plan, loads
from pynetwork.engine.intent import Intent
from pynetwork.plan import Plan, conflict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pynetwork.resources import Key, Resource

__all__ = ["Scoped", "World"]

_NOTHING = Plan()


@attrs.frozen
class Scoped:
    """The plan of a scope and the revision of its record."""

    plan: Plan
    revision: int


class World:
    """
    The tables ``plan``, ``journal`` and ``lock`` of the store, indexed by scope and by resource.

    Not locked itself: the mirror's lock is held by whoever calls.

    Attributes:
        done: Ids of intents of this process whose requests are done, and which hold nothing any more.
    """

    words = ("plan", "journal", "lock")

    def __init__(self) -> None:
        self.scopes: dict[str, Scoped] = {}
        self.intents: dict[str, Intent] = {}
        self.done: set[str] = set()
        self.locks: dict[str, int] = {}
        self._holders: dict[Key, tuple[str, ...]] = {}

    def put(self, key: str, value: str, revision: int, decoded: object = None) -> None:
        """Take in a record, as a :class:`~pynetwork.engine.mirror.Table` does."""
        table, _, name = key.partition("/")
        if table == "journal":
            intent = decoded if isinstance(decoded, Intent) else Intent.decode(key, value, revision)
            self.intents[name] = changed(intent, revision=revision)
        elif table == "lock":
            self.locks[name] = revision
        else:
            plan = decoded if isinstance(decoded, Plan) else decode_plan(key, loads(key, value)["plan"])
            self._put_plan(name, plan, revision)

    def _put_plan(self, name: str, plan: Plan, revision: int) -> None:
        self._drop(name)
        self.scopes[name] = Scoped(plan, revision)
        for item in _keys(plan):
            self._holders[item] = (*self._holders.get(item, ()), name)

    def delete(self, key: str) -> None:
        """Drop a record."""
        table, _, name = key.partition("/")
        if table == "journal":
            self.intents.pop(name, None)
            self.done.discard(name)
        elif table == "lock":
            self.locks.pop(name, None)
        else:
            self._drop(name)

    def clear(self) -> None:
        """Forget everything."""
        self.scopes.clear()
        self.intents.clear()  # what is done stays known as such: its intent follows anew, or is gone
        self.locks.clear()
        self._holders.clear()

    def plan(self, scope: str) -> Plan:
        """Return the plan of *scope*, empty when there is none."""
        scoped = self.scopes.get(scope)
        return _NOTHING if scoped is None else scoped.plan

    def holder(self, names: Collection[str]) -> Intent | None:
        """Return a request under way that holds one of *names*, scopes or locks."""
        return next((i for i in self.under_way() if not i.holds.isdisjoint(names)), None)

    def under_way(self) -> Iterable[Intent]:
        """Return the requests that are not done."""
        return (intent for identity, intent in self.intents.items() if identity not in self.done)

    def is_wanted(self, key: Key) -> bool:
        """Whether any scope has the object *key*."""
        return key in self._holders

    def find(self, key: Key) -> Resource | None:
        """Return the object *key*, as a scope has it."""
        for scope in self._holders.get(key, ()):
            return next((item for item in self.plan(scope) if key in item.keys), None)
        return None

    def mark_done(self, intent: Intent) -> bool:
        """Note that a request of this process holds nothing any more; False if another undid it."""
        known = self.intents.get(intent.id)
        if known is None or known.revision != intent.revision:
            return False
        self.done.add(intent.id)
        return True

    def is_in_the_making(self, scope: str) -> bool:
        """Whether *scope* is being created: it may yet be undone."""
        return any(not (i.finish or i.before.get(scope, True)) for i in self.under_way())

    def check(self, plans: Mapping[str, Plan]) -> None:
        """
        Check that *plans* can be beside those of all other scopes.

        Raises:
            ConflictError: Another scope has the same object, and it is not shared, or it differs.
        """
        for resource in (resource for plan in plans.values() for resource in plan):
            for key in resource.keys:
                for scope in self._holders.get(key, ()):
                    if scope in plans:
                        continue
                    other = next(item for item in self.plan(scope) if key in item.keys)
                    if not resource.shared or other != resource:
                        raise conflict(resource, other)

    def without_shared(self, plan: Plan, scopes: Collection[str]) -> Plan:
        """Return *plan* without what a scope other than *scopes* keeps as well."""
        if not any(item.shared for item in plan):
            return plan
        return Plan(item for item in plan if not (item.shared and self._held_beside(item, scopes)))

    def _held_beside(self, resource: Resource, scopes: Collection[str]) -> bool:
        return any(scope not in scopes for scope in self._holders.get(resource.key, ()))

    def _drop(self, scope: str) -> None:
        scoped = self.scopes.pop(scope, None)
        for item in _keys(() if scoped is None else scoped.plan):
            rest = tuple(name for name in self._holders[item] if name != scope)
            if rest:
                self._holders[item] = rest
            else:
                del self._holders[item]


def _keys(plan: Iterable[Resource]) -> Iterable[Key]:
    return dict.fromkeys(key for item in plan for key in item.keys)
