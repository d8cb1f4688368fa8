"""Failure and sudden death on demand, so that a test can have them at every step in turn.

::

    for n in itertools.count():
        kernel = FakeKernel()
        chaos = Chaos(kernel, fail_at=n)
        ...  # do something with chaos for its kernel; check what is left on kernel
        if not chaos.fired:
            break
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, NoReturn, cast

from pynetwork.errors import StoreError
from pynetwork.plan import StepFailedError, Verb
from pynetwork.store.port import Store, Watcher
from pynetwork.testing._model import os_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pynetwork.kernel.port import Kernel
    from pynetwork.peers import Peers, Underlay
    from pynetwork.plan import Plan, Step
    from pynetwork.store.port import (
        Change,
        Changes,
        Compare,
        Entry,
        Lease,
        Leasing,
        Operation,
        Snapshot,
    )
    from pynetwork.types import IPAddress

__all__ = ["Chaos", "ChaosStore", "Fate", "Killed"]


class Killed(BaseException):
    """
    The process is dead. No code of it may clean up, so this is no :class:`Exception`, and whatever
    does run in an ``except`` or ``finally`` finds its kernel and store out of reach.
    """


class Fate:
    """The life of one pretended process. Its kernel and its store share it, and die together."""

    def __init__(self) -> None:
        self.is_dead = False

    def check(self) -> None:
        """Raise :class:`Killed` when the process is dead."""
        if self.is_dead:
            msg = "the process was killed"
            raise Killed(msg)

    def kill(self) -> NoReturn:
        """Kill the process."""
        self.is_dead = True
        msg = "the process is killed here"
        raise Killed(msg)


class Chaos:
    """
    A kernel that passes steps on to another one until its time comes.

    Steps are counted from 0 over all calls of :meth:`apply`; effects (``Verb.EMIT``) are passed on and
    not counted, since they may fail without harm.

    Args:
        kernel: The host.
        fail_at: The step that fails with ``EIO``, once; those before it are really taken.
        half_done: The step that fails is really taken, too.
        fail_undo: From then on, whatever is replayed fails as well.
        die_at: After this many steps the process dies, before :meth:`apply` returns: 0 is before the
            first, the number of all steps is after the last.
        fate: Shared with the store of the same process.

    Attributes:
        fired: Whether the time came. When it did not, *fail_at* or *die_at* was beyond the last step.
        count: The steps seen so far.
    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        fail_at: int | None = None,
        half_done: bool = False,
        fail_undo: bool = False,
        die_at: int | None = None,
        fate: Fate | None = None,
    ) -> None:
        self.fired = False
        self.count = 0
        self.fate = Fate() if fate is None else fate
        self._kernel = kernel
        self._fail_at = fail_at
        self._half_done = half_done
        self._fail_undo = fail_undo
        self._die_at = die_at
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._kernel!r}, {self.count} steps, fired={self.fired})>"

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Take *steps*, or some of them, see :meth:`pynetwork.kernel.port.Kernel.apply`."""
        with self._lock:
            self.fate.check()
            if not steps or all(step.verb is Verb.EMIT for step in steps):
                self._kernel.apply(steps, replay=replay)
                return
            if self.fired and self._fail_undo and replay:
                raise _failure(steps[0], ())
            self._take(steps, replay=replay)

    def observe(self, expected: Plan) -> Plan:
        """Return what is on the host."""
        self.fate.check()
        return self._kernel.observe(expected)

    def namespace_id(self, path: str | None) -> object:
        """Return what identifies a network namespace of the host."""
        self.fate.check()
        return self._kernel.namespace_id(path)

    def peers(self, bridge: str | None = None) -> Peers:
        """Return what tells the host of endpoints on others. What it is told fails never."""
        self.fate.check()
        return cast("Peers", self._kernel.peers(bridge))  # type: ignore[attr-defined]  # of those that have it

    def has_switch_module(self) -> bool:
        """Whether the host can forward for an Open vSwitch."""
        return bool(self._kernel.has_switch_module())  # type: ignore[attr-defined]  # of those that have it

    def check_switch(self, link: str | None = None) -> None:
        """Check that the host's Open vSwitch can be told of changes."""
        self._kernel.check_switch(link)  # type: ignore[attr-defined]  # likewise

    def underlay(self, vtep: IPAddress | None) -> Underlay:
        """Return how the host reaches others."""
        self.fate.check()
        return cast("Underlay", self._kernel.underlay(vtep))  # type: ignore[attr-defined]  # likewise

    def close(self) -> None:
        """Close the kernel."""
        self.fate.check()
        self._kernel.close()

    def _take(self, steps: Sequence[Step], *, replay: bool) -> None:
        first, self.count = self.count, self.count + len(steps)
        if self._die_at is not None and first <= self._die_at <= self.count:
            self._die_after(steps[: self._die_at - first], replay=replay)
        if self._fail_at is not None and first <= self._fail_at < self.count:
            self._fail_after(steps[: self._fail_at - first], steps[self._fail_at - first], replay=replay)
        self._kernel.apply(steps, replay=replay)

    def _die_after(self, steps: Sequence[Step], *, replay: bool) -> NoReturn:
        for number, step in enumerate(steps):
            try:
                self._kernel.apply((step,), replay=replay)
            except StepFailedError as error:
                done = (*steps[:number], *error.done)
                raise StepFailedError(error.failed, done, half_done=error.half_done) from error.__cause__
        self.fired = True
        self.fate.kill()

    def _fail_after(self, steps: Sequence[Step], victim: Step, *, replay: bool) -> NoReturn:
        taken = (*steps, victim) if self._half_done else steps
        if taken:
            self._kernel.apply(taken, replay=replay)
        self.fired = True
        raise _failure(victim, steps)


def _failure(step: Step, done: Sequence[Step]) -> StepFailedError:
    error = StepFailedError(step, done)
    error.__cause__ = os_error(errno.EIO, step)
    return error


class _ChaosWatcher(Watcher):
    """Passes everything on, as long as the process lives."""

    def __init__(self, watcher: Watcher, fate: Fate) -> None:
        self._watcher = watcher
        self._fate = fate

    def add(self, prefix: str, since: int) -> None:
        self._fate.check()
        self._watcher.add(prefix, since)

    def drop(self, prefix: str) -> None:
        self._watcher.drop(prefix)

    def changes(self, *, poll: float = 0.1, stop: threading.Event | None = None) -> Iterator[Change]:
        for change in self._watcher.changes(poll=poll, stop=stop):
            self._fate.check()
            yield change

    def close(self) -> None:
        self._watcher.close()


class ChaosStore(Store):
    """
    A store that passes everything on to another one until its time comes.

    Args:
        store: The records.
        fail_at: The transaction, counted from 0, that fails with :class:`~pynetwork.errors.StoreError`,
            once; nothing of it is written.
        die_at: The transaction at which the process dies.
        after: It dies after the transaction was written, else before.
        fate: Shared with the kernel of the same process.

    Attributes:
        fired: Whether the time came.
        count: The transactions seen so far.
    """

    def __init__(
        self,
        store: Store,
        *,
        fail_at: int | None = None,
        die_at: int | None = None,
        after: bool = False,
        fate: Fate | None = None,
    ) -> None:
        self.fired = False
        self.count = 0
        self.fate = Fate() if fate is None else fate
        self._store = store
        self._fail_at = fail_at
        self._die_at = die_at
        self._after = after
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._store!r}, {self.count} transactions, fired={self.fired})>"

    def get(self, key: str) -> Entry | None:
        """Return the entry of *key*."""
        self.fate.check()
        return self._store.get(key)

    def list(self, prefix: str) -> Snapshot:
        """Return what is under *prefix*."""
        self.fate.check()
        return self._store.list(prefix)

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, seen: int | None = None
    ) -> int | None:
        """Write, fail or die, see :meth:`pynetwork.store.port.Store.transact`."""
        with self._lock:
            self.fate.check()
            number, self.count = self.count, self.count + 1
            if number == self._fail_at:
                self.fired = True
                msg = f"cannot write transaction {number}: {os_error(errno.ENOSPC, 'chaos')}"
                raise StoreError(msg)
            if number == self._die_at and not self._after:
                self._die()
            revision = self._store.transact(compares, operations, seen=seen)
            if number == self._die_at:
                self._die()
            return revision

    def changes(self, since: int) -> Changes | None:
        """Return what happened after revision *since*."""
        self.fate.check()
        return self._store.changes(since)

    def past(self, revision: int) -> Snapshot | None:
        """Return all entries as they were at *revision*."""
        self.fate.check()
        return self._store.past(revision)

    def history(self, since: int, *, limit: int = 1024) -> Changes | None:
        """Return every change after revision *since*."""
        self.fate.check()
        return self._store.history(since, limit=limit)

    def watcher(self) -> Watcher:
        """Return what follows prefixes as long as the process lives."""
        return _ChaosWatcher(self._store.watcher(), self.fate)

    def grant(self, ttl: float) -> Lease:
        """Return a new lease of a store that has them. Leases outlive the process, until they end."""
        return self._leasing().grant(ttl)

    def keep_alive(self, lease: Lease) -> float | None:
        """Renew *lease*."""
        return self._leasing().keep_alive(lease)

    def remaining(self, lease: Lease) -> float | None:
        """Return the seconds that *lease* lasts."""
        return self._leasing().remaining(lease)

    def revoke(self, lease: Lease) -> None:
        """End *lease*."""
        self._leasing().revoke(lease)

    def close(self) -> None:
        """Close the store."""
        self.fate.check()
        self._store.close()

    def _leasing(self) -> Leasing:
        self.fate.check()
        return cast("Leasing", self._store)

    def _die(self) -> NoReturn:
        self.fired = True
        self.fate.kill()
