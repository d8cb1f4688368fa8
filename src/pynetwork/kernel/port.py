"""The port between the engine and a host: few methods, so that a fake is a hundred lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pynetwork.plan import Plan, Step
    from pynetwork.resources import Key

__all__ = ["Away", "Checking", "Kernel"]


@attrs.frozen
class Away:
    """
    What of a host cannot be looked at, or changed, for now.

    Args:
        keys: Of resources.
        reason: Why, in words.
    """

    keys: frozenset[Key] = frozenset()
    reason: str = ""


class Kernel(Protocol):
    """A host that resources can be made on: the real one, or ``pynetwork.testing.FakeKernel``."""

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """
        Take *steps* in order.

        What is created carries the owner's tag; what does not carry it is never deleted. A deleted
        object may vanish a little later, but it is in nobody's way when the call returns: whatever has
        its name, its addresses or its routes can be made.

        Args:
            steps: From :func:`pynetwork.plan.diff`.
            replay: Some of the steps may have been taken before (an undo, a recovery): to create
                what exists makes it as wanted, to delete what is gone is no error.

        Raises:
            StepFailedError: One step failed. Those in its ``done`` took effect, no other did.
            UnavailableError: The host cannot do this at all; nothing was touched.
        """
        ...

    def observe(self, expected: Plan) -> Plan:
        """
        Return what is on the host: of *expected* all that exists, as it is, and beyond it all that
        carries the owner's tag.
        """
        ...

    def namespace_id(self, path: str | None) -> object:
        """
        Return what identifies a network namespace, as long as it exists: equal for two paths of one.

        Args:
            path: Of its file, such as ``/proc/PID/ns/net``; None is the host's own.

        Returns:
            None when *path* is no network namespace, or no longer.
        """
        ...

    def close(self) -> None:
        """Release sockets and threads; what was created stays. Idempotent."""
        ...


class Checking(Protocol):
    """What a host has as well if a part of it may be away, such as a switch that does not run."""

    def check(self, steps: Iterable[Step]) -> None:
        """
        Check that what takes *steps* is there.

        Raises:
            UnavailableError: It is not; says what starts it.
        """
        ...

    def away(self, expected: Plan) -> Away:
        """Return what of *expected* cannot be looked at now."""
        ...
