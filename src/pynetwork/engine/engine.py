"""The one place that changes a host: writes the intent ahead, applies, settles; undoes what fails.

A request is drafted under the mirror's lock and carried out without it. The draft compares all it
has read, so a concurrent writer makes it start over; a request that holds a scope this one wants is
waited for, or recovered when its process is dead.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from pynetwork.engine.counters import Counters
from pynetwork.engine.intent import Draft, Intent
from pynetwork.engine.journal import DONE, put_plans
from pynetwork.engine.lost import without_lost
from pynetwork.errors import (
    ApplyError,
    ConflictError,
    ExhaustedError,
    PynetworkError,
    RequestError,
    StoreError,
    UnavailableError,
)
from pynetwork.log import logger
from pynetwork.plan import Plan, Step, StepFailedError, Steps, Verb, diff, merge, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pynetwork.engine.journal import Journal
    from pynetwork.engine.mirror import Mirror
    from pynetwork.engine.world import World
    from pynetwork.kernel.port import Kernel

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
        journal: Where requests are written.
        is_alive: Whether the process of an identity still runs.

    Attributes:
        counters: What it has done so far.
    """

    mirror: Mirror
    world: World
    kernel: Kernel
    journal: Journal
    is_alive: Callable[[str], bool]
    counters: Counters = attrs.field(factory=Counters, init=False)
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
        with self.counters.attempt() as attempt:
            while True:
                draft = Draft()
                try:
                    with self.mirror.lock:
                        result, busy, intent = self._try(draft, build)
                finally:
                    attempt.what = draft.what
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
            if any(_shared_on_host(plan) for plan in (*self._before(draft).values(), *draft.plans.values())):
                draft.locks.add(SHARED)
            busy = self.world.holder(draft.needs)
            intent = None if busy else self._write_ahead(draft)
        except (RequestError, ExhaustedError):
            draft.release()
            # Refused because of what is no longer so, perhaps, or may yet be undone.
            busy = self.world.holder(draft.needs)
            if busy or self.mirror.refresh():
                return None, busy, None
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
                return self.spoken(diff(*self._plans(self._before(draft), draft.plans)))
            finally:
                draft.release()

    def spoken(self, steps: Sequence[Step]) -> Steps:
        """Return *steps* with the lines of this host, where it knows better than their resources."""
        speak = getattr(self.kernel, "lines", None)
        return Steps(steps if speak is None else (attrs.evolve(step, lines=speak(step)) for step in steps))

    def _said(self, step: Step) -> str:
        return str(self.spoken((step,))[0])

    def _before(self, draft: Draft) -> dict[str, Plan]:
        return {scope: self.world.plan(scope) for scope in draft.plans}

    def _write_ahead(self, draft: Draft) -> Intent | None:
        self.world.check(draft.plans)
        before = self._before(draft)
        draft.change = self._plans(before, draft.plans)  # fails if a plan contradicts itself
        return self.journal.write_ahead(draft, before)

    def _plans(self, before: Mapping[str, Plan], after: Mapping[str, Plan]) -> tuple[Plan, Plan]:
        """Return the plans of all scopes of a request, before and after it, less what others share."""
        scopes = after.keys()
        old, new = (
            self.world.without_shared(merge(plan for plan in plans.values() if plan), scopes)
            for plans in (before, after)
        )
        return old, new

    def _carry_out(self, draft: Draft, intent: Intent) -> None:
        if intent is DONE:
            return
        old, new = draft.change
        steps = diff(old, new)
        try:
            self._check(steps)
            draft.failed += self.force(draft.repairs)
            if steps:
                # To take away what is gone already, whoever took it, is no failure.
                began = time.perf_counter()
                self.kernel.apply(steps, replay=draft.finish)
                self.counters.applied(time.perf_counter() - began)
            self.journal.complete(intent, draft)
        except StepFailedError as error:
            leftovers = self._undo(old, progress(old, error.to_undo))
            self._abort(draft, intent, leftovers)
            if isinstance(error.__cause__, RequestError) and not leftovers:
                raise error.__cause__ from None  # such as a port that somebody else has
            failed = self._said(error.failed)
            raise _apply_error(draft.what, error, failed, leftovers) from (error.__cause__ or error)
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

    def _check(self, steps: Steps) -> None:
        check = getattr(self.kernel, "check", None)  # of those a part of which may be away
        if check is not None:
            check(steps)

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
                said = self._said(error.failed)
                logger().warning("could not undo or repair: %s: %s", said, error.__cause__)
                failed.append(f"{said} ({error.__cause__})")
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
        try:
            self.journal.commit(intent, [*put_plans(intent.before), *draft.on_abort])
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
            except (PynetworkError, OSError) as error:
                logger().warning("cannot %s: %s", "; ".join(map(str, effects)), error)

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
        if intent.owner == self.journal.owner:
            return intent.id in self._abandoned
        return not self.is_alive(intent.owner)

    def recover(self, intent: Intent) -> list[str]:
        """
        Finish or undo the request of a dead process.

        Returns:
            What could not be done, empty when all is well or another process was faster.
        """
        claim = self.journal.claim(intent)
        if claim is None:
            return []
        with self.mirror.lock:
            after = {scope: self.world.plan(scope) for scope in intent.before}
            old, new = self._plans(intent.before, after)
        logger().info("recovering what a dead process began: %s", intent.what)
        try:
            is_reached = not intent.finish and self._is_reached(new)
        except UnavailableError as error:  # a part of the host is away: another time
            self._abandoned.add(intent.id)
            return [str(error)]
        if is_reached:
            self.journal.commit(claim, ())
            return []
        goal, other = (new, old) if intent.finish else (old, new)
        goal = without_lost(self.kernel, self.world, goal)
        failed = self.force(ensure(goal, other))
        if failed:
            self._abandoned.add(intent.id)
            return failed
        restored = () if intent.finish else put_plans(intent.before)
        self.journal.commit(claim, [*restored, *intent.operations])
        self._abandoned.discard(intent.id)
        return []

    def _is_reached(self, goal: Plan) -> bool:
        """Whether the host is as *goal* says: who asked for that was told so, or died a moment before."""
        wanted = {resource.key for resource in goal}
        found = Plan(resource for resource in self.kernel.observe(goal) if resource.key in wanted)
        return not diff(found, goal)


def ensure(goal: Plan, other: Plan) -> Steps:
    """Return steps to *goal* from anywhere between it and *other*, to be replayed."""
    # Among what is deleted is what is made again with other attributes: it may be there with either.
    deletes = (step for step in diff(other, goal) if step.verb is Verb.DELETE)
    return Steps((*deletes, *diff(Plan(), goal)))


def _shared_on_host(plan: Plan) -> bool:
    return any(item.shared and getattr(item, "netns", None) is None for item in plan)


def _apply_error(what: str, error: StepFailedError, failed: str, leftovers: Sequence[str]) -> ApplyError:
    state = "the host is as before" if not leftovers else f"left on the host: {'; '.join(leftovers)}"
    return ApplyError(
        f"cannot {what}: {failed} failed: {error.__cause__}; {state}",
        step=failed,
        origin=error.failed.resource.origin,
        rolled_back=not leftovers,
        leftovers=leftovers,
    )
