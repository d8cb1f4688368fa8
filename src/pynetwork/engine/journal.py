"""The journal: intents written ahead, committed or aborted, and removed when they are done.

A request that has nothing more to write is done with its last step on the host. Its intent is then
removed along with whatever is written next, or a little later: that saves a write, and loses
nothing, because a recovery looks at the host and takes a request whose goal is reached for done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.engine.codec import encode, encode_plan
from pynetwork.engine.intent import Intent, journal_key, lock_key, scope_key
from pynetwork.engine.mirror import Known
from pynetwork.errors import StoreError
from pynetwork.kernel.later import Later
from pynetwork.log import logger
from pynetwork.store import Absent, Delete, Put, Unchanged
from pynetwork.types import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from pynetwork.engine.intent import Draft, Operation
    from pynetwork.engine.mirror import Mirror
    from pynetwork.engine.world import World
    from pynetwork.plan import Plan
    from pynetwork.store import Compare

__all__ = ["DONE", "HISTORY", "REMEMBERED", "TOLD", "Journal", "put_plans", "tell"]

#: Changes that are known at least: of some four hundred containers, from their beginning to their end.
HISTORY: Final = 8192
#: First words of the keys whose past tells what happened: objects, requests, and what was told.
REMEMBERED: Final = ("network", "endpoint", "port", "sandbox", "journal", "event")

#: Beginning of the keys of what happened and shows in no record. Only the last value of each is kept.
TOLD: Final = "event/"

#: Stands for the intent of a request that only writes.
DONE: Final = Intent(id="", what="", owner="", finish=False, before={})


@attrs.define(eq=False)
class Journal:
    """
    Writes requests to the store.

    Args:
        mirror: The store.
        world: The mirror's tables of plans and intents.
        owner: Identity of this process, as recorded in its intents.
        random: Source of ids.
        settle_seconds: How long recording that a request is done may wait for the next request to do
            it along.
    """

    mirror: Mirror
    world: World
    owner: str
    random: Random
    settle_seconds: float
    _later: Later = attrs.field(factory=Later, init=False)

    def write_ahead(self, draft: Draft, before: Mapping[str, Plan]) -> Intent | None:
        """Write the draft to the store; *before* are the plans of its scopes. None: a compare failed."""
        if not draft.plans:
            taken = (Put(lock_key(name), "") for name in draft.turns)
            draft.written = self._write(draft, [*draft.operations, *draft.on_commit, *taken])
            return DONE if draft.written else None
        intent = Intent(
            id=new_id(self.random),
            what=draft.what,
            owner=self.owner,
            finish=draft.finish,
            before=dict(before),
            locks=frozenset(draft.locks),
            operations=tuple(draft.on_commit if draft.finish else draft.on_abort),
            undo=tuple(draft.on_abort) if draft.finish else (),
        )
        operations = [
            *draft.operations,
            *put_plans(draft.plans),
            *(Put(lock_key(name), intent.id) for name in draft.locks | draft.turns),
            Known(journal_key(intent.id), intent.encode(), decoded=intent),
        ]
        draft.written = self._write(draft, operations)
        return self.world.intents[intent.id] if draft.written else None

    def complete(self, intent: Intent, draft: Draft) -> None:
        """Record that all steps of a request were taken."""
        if draft.on_commit:
            self.commit(intent, draft.on_commit)
            return
        with self.mirror.lock:
            if not self.world.mark_done(intent):
                raise _taken_for_dead(intent)
        if self.settle_seconds:
            self._later.call("settle", self.settle_seconds, self._try_to_settle)
        else:
            self._try_to_settle()

    def commit(self, intent: Intent, operations: Sequence[Operation]) -> None:
        """End an intent and write what follows from it."""
        key = journal_key(intent.id)
        if self.mirror.transact([Unchanged(key, intent.revision)], [*operations, Delete(key)]) is None:
            raise _taken_for_dead(intent)

    def tell(self, source: str, events: Sequence[Mapping[str, object]]) -> None:
        """
        Write what happened that shows in no record, for those who follow the store. Best effort.

        Args:
            source: Who tells: a word.
            events: Each a ``kind``, the ``scope`` it is about, and ``details``.
        """
        tell(self.mirror, source, events)

    def claim(self, intent: Intent) -> Intent | None:
        """Make the intent of a dead process that of this one; None when another was faster."""
        with self.mirror.lock:
            mine = attrs.evolve(intent, owner=self.owner)
            key = journal_key(intent.id)
            revision = self.mirror.transact([Unchanged(key, intent.revision)], [Put(key, mine.encode())])
            if revision is None:
                self.mirror.refresh()
                return None
            return attrs.evolve(mine, revision=revision)

    def settle(self) -> None:
        """Remove the intents of requests that are done."""
        with self.mirror.lock:
            while (settling := self._settling())[1]:
                if self.mirror.transact(*settling) is None:
                    self.mirror.refresh()

    def close(self) -> None:
        """Record what is done. Idempotent."""
        self._later.close()
        self._try_to_settle()

    def _try_to_settle(self) -> None:
        try:
            self.settle()
        except StoreError as error:
            logger().warning("what is done is not recorded as done yet: %s", error)

    def _settling(self) -> tuple[list[Compare], list[Operation]]:
        """Return what removes the intents of requests that are done."""
        compares: list[Compare] = []
        operations: list[Operation] = []
        for identity in self.world.done.intersection(self.world.intents):
            key = journal_key(identity)
            compares.append(Unchanged(key, self.world.intents[identity].revision))
            operations.append(Delete(key))
        return compares, operations

    def _write(self, draft: Draft, operations: Sequence[Operation]) -> bool:
        """Write, and with it what is due of requests that are done; returns whether all compares held."""
        compares, due = self._settling()
        return self.mirror.transact([*self._compares(draft), *compares], [*operations, *due]) is not None

    def _compares(self, draft: Draft) -> list[Compare]:
        compares = list(draft.compares)
        for scope in draft.undisturbed.union(draft.plans):
            scoped = self.world.scopes.get(scope)
            key = scope_key(scope)
            compares.append(Absent(key) if scoped is None else Unchanged(key, scoped.revision))
        for name in draft.locks | draft.turns:
            revision = self.world.locks.get(name)
            key = lock_key(name)
            compares.append(Absent(key) if revision is None else Unchanged(key, revision))
        return compares


def tell(mirror: Mirror, source: str, events: Sequence[Mapping[str, object]]) -> None:
    """Write what happened, see :meth:`Journal.tell`."""
    try:
        mirror.transact([], [Put(f"{TOLD}{source}", encode({"events": list(events)}))])
    except StoreError as error:
        logger().warning("cannot tell what happened: %s", error)


def put_plans(plans: Mapping[str, Plan]) -> list[Operation]:
    """Return what makes *plans* the recorded ones of their scopes."""
    return [
        Known(scope_key(scope), encode({"plan": encode_plan(plan)}), decoded=plan)
        if plan
        else Delete(scope_key(scope))
        for scope, plan in plans.items()
    ]


def _taken_for_dead(intent: Intent) -> StoreError:
    msg = f"cannot {intent.what}: another process took this one for dead and undid its work"
    return StoreError(msg)
