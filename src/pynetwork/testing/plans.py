"""Comparing plans as the lines they render to, which is how people read them."""

from __future__ import annotations

import difflib
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pynetwork.plan import Plan, Steps

__all__ = ["assert_plan"]


def assert_plan(plan: Plan | Steps, text: str) -> None:
    """
    Assert that *plan* renders as *text*.

    Args:
        plan: A plan, or the steps of a diff.
        text: The lines; common indentation and blank lines around them do not matter.

    Raises:
        AssertionError: It does not; shows the lines that are missing (``-``) or too many (``+``).
    """
    expected = textwrap.dedent(text).strip().splitlines()
    actual = plan.render().strip().splitlines()
    if expected != actual:
        lines = difflib.unified_diff(expected, actual, "expected", "actual", lineterm="")
        raise AssertionError("\n".join(("the plan differs:", *lines)))
