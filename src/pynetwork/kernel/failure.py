"""What is said of a request that failed on the way: which of its steps took effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.kernel.operations import Do, Treat
from pynetwork.plan import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from pynetwork.kernel.operations import Operation
    from pynetwork.plan import Step

__all__ = ["failure"]


def failure(
    steps: Sequence[Step], failed: int, operations: Sequence[tuple[int, Operation]], done: AbstractSet[int]
) -> StepFailedError:
    """Return the failure of step number *failed* when the operations *done* took effect."""
    undone = {number for at, (number, _) in enumerate(operations) if at not in done}
    own = [(at, operation) for at, (number, operation) in enumerate(operations) if number == failed]
    return StepFailedError(
        steps[failed],
        [step for number, step in enumerate(steps) if number not in undone],
        half_done=any(at in done or isinstance(operation, Treat | Do) for at, operation in own),
    )
