"""The one place that changes a host: writes the intent ahead, applies, commits; undoes what fails.

A request is drafted under the mirror's lock and carried out without it. The draft compares all it
has read, so a concurrent writer makes it start over; a request that holds a scope this one wants is
waited for, or recovered when its process is dead.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from pynetwork.engine.codec import encode, encode_plan
from pynetwork.engine.intent import Draft, Intent, journal_key, lock_key, scope_key
from pynetwork.engine.mirror import Known
from pynetwork.errors import ApplyError, ConflictError, RequestError, StoreError, UnavailableError
from pynetwork.log import logger
from pynetwork.plan import Plan, Step, StepFailedError, Steps, Verb, diff, merge, progress
from pynetwork.store import Absent, Delete, Put, Unchanged
from pynetwork.types import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from pynetwork.engine.intent import Operation
    from pynetwork.engine.mirror import Mirror
    from pynetwork.engine.world import World
    from pynetwork.kernel.port import Kernel
    from pynetwork.store import Compare

__all__ = ["SHARED", "Engine"]

#: Lock of all requests that touch a resource of the host which several scopes may share.
SHARED: Final = "shared"
_BUSY_SECONDS: Final = 30.0
_T = TypeVar("_T")


@attrs.define(eq=False)
class Engine:
    """
    Carries out requests.

    Args:
        mirror: The store.
        world: The mirror's tables of plans and intents.
        kernel: The host.
        owner: Identity of this process, as recorded in its intents.
        is_alive: Whether the process of an identity still runs.
        random: Source of ids.
    """

    mirror: Mirror
    world: World
    kernel: Kernel
    owner: str
    is_alive: Callable[[str], bool]
    random: Random
    _abandoned: set[str] = attrs.field(factory=set, init=False)

    def request(self, build: Callable[[Draft], _T]) -> _T:
        """
        Carry out one request.

        Args:
            build: Fills in the draft from what the tables say, under the mirror's lock. It is called
                again when another writer was faster, so all it allocates goes to ``give_back``.

        Returns:
            What *build* returned.

        Raises:
            RequestError: From *build*, or another scope has one of the resources; nothing was touched.
            ApplyError: A step failed; it says what is left on the host.
            StoreError: The store cannot be written; the host is as before.
        """
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            draft = Draft()
            with self.mirror.lock:
                result, busy, intent = self._try(draft, build)
            if intent is not None:
                self._carry_out(draft, intent)
                return result  # type: ignore[return-value]  # set together with the intent
            if busy is not None:
                self._wait(busy, draft.what, deadline)

    def _try(
        self, draft: Draft, build: Callable[[Draft], _T]
    ) -> tuple[_T | None, Intent | None, Intent | None]:
        """Return the result and the intent, or what is in the way; nothing at all means to try again."""
        try:
            result = build(draft)
            busy = self.world.holder(draft.needs)
            intent = None if busy else self._write_ahead(draft)
        except RequestError:
            draft.release()
            if self.mirror.refresh():  # refused because of what is no longer so, perhaps
                return None, None, None
            raise
        except BaseException:
            draft.release()
            raise
        if intent is None:
            draft.release()
            self.mirror.refresh()
        return result, busy, intent

    def rehearse(self, build: Callable[[Draft], object]) -> Steps:
        """Return the steps that :meth:`request` would take now. Nothing is written, allocated or touched."""
        draft = Draft()
        with self.mirror.lock:
            self.mirror.refresh()
            try:
                build(draft)
                self.world.check(draft.plans)
                return diff(*self._plans(self._before(draft), draft.plans))
            finally:
                draft.release()

    def _before(self, draft: Draft) -> dict[str, Plan]:
        return {scope: self.world.plan(scope) for scope in draft.plans}

    def _write_ahead(self, draft: Draft) -> Intent | None:
        """Write the draft to the store. Returns None when a compare failed."""
        if not draft.plans:
            operations = [*draft.operations, *draft.on_commit]
            draft.written = self.mirror.transact(self._compares(draft), operations) is not None
            return _DONE if draft.written else None
        self.world.check(draft.plans)
        before = self._before(draft)
        if any(_shared_on_host(plan) for plan in (*before.values(), *draft.plans.values())):
            draft.locks.add(SHARED)
        intent = Intent(
            id=new_id(self.random),
            what=draft.what,
            owner=self.owner,
            finish=draft.finish,
            before=before,
            locks=frozenset(draft.locks),
            operations=tuple(draft.on_commit if draft.finish else draft.on_abort),
        )
        operations = [
            *draft.operations,
            *(_put_plan(scope, plan) for scope, plan in draft.plans.items()),
            *(Put(lock_key(name), intent.id) for name in draft.locks),
            Known(journal_key(intent.id), intent.encode(), decoded=intent),
        ]
        draft.written = self.mirror.transact(self._compares(draft), operations) is not None
        return self.world.intents[intent.id] if draft.written else None

    def _compares(self, draft: Draft) -> list[Compare]:
        compares = list(draft.compares)
        for scope in draft.undisturbed.union(draft.plans):
            scoped = self.world.scopes.get(scope)
            key = scope_key(scope)
            compares.append(Absent(key) if scoped is None else Unchanged(key, scoped.revision))
        for name in draft.locks:
            revision = self.world.locks.get(name)
            key = lock_key(name)
            compares.append(Absent(key) if revision is None else Unchanged(key, revision))
        return compares

    def _plans(self, before: Mapping[str, Plan], after: Mapping[str, Plan]) -> tuple[Plan, Plan]:
        """Return the plans of all scopes of a request, before and after it, less what others share."""
        scopes = after.keys()
        old, new = (
            self.world.without_shared(merge(plan for plan in plans.values() if plan), scopes)
            for plans in (before, after)
        )
        return old, new

    def _carry_out(self, draft: Draft, intent: Intent) -> None:
        if intent is _DONE:
            return
        with self.mirror.lock:
            old, new = self._plans(intent.before, draft.plans)
        steps = diff(old, new)
        try:
            draft.failed += self.force(draft.repairs)
            if steps:
                # To take away what is gone already, whoever took it, is no failure.
                self.kernel.apply(steps, replay=draft.finish)
            self._commit(intent, draft.plans, draft.on_commit)
        except StepFailedError as error:
            leftovers = self._undo(old, progress(old, (*error.done, error.failed)))
            self._abort(draft, intent, leftovers)
            raise _apply_error(draft.what, error, leftovers) from (error.__cause__ or error)
        except UnavailableError:
            self._abort(draft, intent, ())
            raise
        except BaseException as error:
            # Interrupted, or the store failed: how far the steps got is not known.
            leftovers = self._undo(old, new)
            self._abort(draft, intent, leftovers)
            if leftovers:
                error.add_note(f"not undone: {'; '.join(leftovers)}")
            raise
        self._emit(steps)

    def _commit(self, intent: Intent, plans: Mapping[str, Plan], operations: Sequence[Operation]) -> None:
        ended = [Delete(scope_key(scope)) for scope, plan in plans.items() if not plan]
        key = journal_key(intent.id)
        if (
            self.mirror.transact([Unchanged(key, intent.revision)], [*ended, *operations, Delete(key)])
            is None
        ):
            msg = f"cannot {intent.what}: another process took this one for dead and undid its work"
            raise StoreError(msg)

    def _undo(self, before: Plan, reached: Plan) -> list[str]:
        """Bring the host back from *reached*, or from anywhere on the way to it; return what could not."""
        return self.force(diff(reached, before))

    def force(self, steps: Sequence[Step]) -> list[str]:
        """Take all of *steps* that can be taken, taken before or not; return those that failed."""
        pending, failed = list(steps), []
        while pending:
            try:
                self.kernel.apply(pending, replay=True)
            except StepFailedError as error:
                logger().warning("could not undo or repair: %s: %s", error.failed, error.__cause__)
                failed.append(f"{error.failed} ({error.__cause__})")
                settled = {id(step) for step in (*error.done, error.failed)}
                pending = [step for step in pending if id(step) not in settled]
            else:
                break
        return failed

    def _abort(self, draft: Draft, intent: Intent, leftovers: Sequence[str]) -> None:
        if leftovers:
            # The intent stays open, so that the next recovery tries again; so does all it reserved.
            self._abandoned.add(intent.id)
            return
        restored = [
            _put_plan(scope, plan) if plan else Delete(scope_key(scope))
            for scope, plan in intent.before.items()
        ]
        key = journal_key(intent.id)
        try:
            self.mirror.transact([Unchanged(key, intent.revision)], [*restored, *draft.on_abort, Delete(key)])
        except StoreError as error:
            self._abandoned.add(intent.id)
            logger().warning("cannot record that %r was undone: %s", draft.what, error)
        else:
            draft.release()

    def _emit(self, steps: Sequence[Step]) -> None:
        """Start the effects of *steps* that are not state, such as announcing an address. Best effort."""
        effects = [Step(Verb.EMIT, effect) for step in steps for effect in step.effects()]
        if effects:
            try:
                self.kernel.apply(effects, replay=True)
            except StepFailedError as error:
                logger().warning("%s: %s", error.failed, error.__cause__)

    def repair(self, scope: str, steps: Sequence[Step]) -> list[str]:
        """Take *steps* towards the plan of *scope* while no request can change it; return what failed."""

        def build(draft: Draft) -> Draft:
            draft.what = f"repair {scope}"
            draft.finish = True
            draft.plans[scope] = self.world.plan(scope)
            draft.repairs = steps
            return draft

        return self.request(build).failed

    def _wait(self, intent: Intent, what: str, deadline: float) -> None:
        """Wait until *intent* is no longer under way; take over when its process is dead."""
        if self.is_dead(intent):
            failed = self.recover(intent)
            if failed:
                msg = f"cannot {what}: leftovers of {intent.what!r} cannot be removed: {'; '.join(failed)}"
                raise ApplyError(msg, leftovers=failed)
            return
        pause = 0.0001
        while True:
            time.sleep(pause)
            with self.mirror.lock:
                self.mirror.refresh()
                current = self.world.intents.get(intent.id)
            if current is None or self.is_dead(current):
                return
            if time.monotonic() > deadline:
                msg = f"cannot {what}: {intent.what!r} has been under way for {_BUSY_SECONDS:.0f} seconds"
                raise ConflictError(msg)
            pause = min(pause * 2, 0.005)

    def is_dead(self, intent: Intent) -> bool:
        """Whether nobody carries *intent* out any more."""
        if intent.owner == self.owner:
            return intent.id in self._abandoned
        return not self.is_alive(intent.owner)

    def recover(self, intent: Intent) -> list[str]:
        """
        Finish or undo the request of a dead process.

        Returns:
            What could not be done, empty when all is well or another process was faster.
        """
        with self.mirror.lock:
            claim = attrs.evolve(intent, owner=self.owner)
            key = journal_key(intent.id)
            revision = self.mirror.transact([Unchanged(key, intent.revision)], [Put(key, claim.encode())])
            if revision is None:
                self.mirror.refresh()
                return []
            claim = attrs.evolve(claim, revision=revision)
            after = {scope: self.world.plan(scope) for scope in intent.before}
            old, new = self._plans(intent.before, after)
        logger().info(
            "%s what a dead process began: %s", "finishing" if intent.finish else "undoing", intent.what
        )
        goal, other = (new, old) if intent.finish else (old, new)
        failed = self.force(ensure(goal, other))
        if failed:
            self._abandoned.add(intent.id)
            return failed
        plans = after if intent.finish else intent.before
        self._commit(
            claim,
            {scope: Plan() for scope, plan in plans.items() if not plan},
            [
                *(_put_plan(scope, plan) for scope, plan in plans.items() if plan and not intent.finish),
                *intent.operations,
            ],
        )
        self._abandoned.discard(intent.id)
        return []


def ensure(goal: Plan, other: Plan) -> Steps:
    """Return steps to *goal* from anywhere between it and *other*, to be replayed."""
    wanted = {resource.key for resource in goal}
    surplus = Plan(resource for resource in other if resource.key not in wanted)
    return Steps((*diff(surplus, Plan()), *diff(Plan(), goal)))


_DONE = Intent(id="", what="", owner="", finish=False, before={})


def _put_plan(scope: str, plan: Plan) -> Put:
    return Known(scope_key(scope), encode({"plan": encode_plan(plan)}), decoded=plan)


def _shared_on_host(plan: Plan) -> bool:
    return any(item.shared and getattr(item, "netns", None) is None for item in plan)


def _apply_error(what: str, error: StepFailedError, leftovers: Sequence[str]) -> ApplyError:
    state = "the host is as before" if not leftovers else f"left on the host: {'; '.join(leftovers)}"
    return ApplyError(
        f"cannot {what}: {error.failed} failed: {error.__cause__}; {state}",
        step=str(error.failed),
        origin=error.failed.resource.origin,
        rolled_back=not leftovers,
        leftovers=leftovers,
    )
