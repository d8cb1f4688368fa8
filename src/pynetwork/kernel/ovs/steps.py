"""Which steps are for an Open vSwitch, and which of them it takes as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from pynetwork.plan import Verb
from pynetwork.resources import Flow, OvsBridge, OvsPort
from pynetwork.resources.stray import StrayFlow

if TYPE_CHECKING:
    from pynetwork.plan import Step
    from pynetwork.resources import Resource

__all__ = ["Together", "is_of_switch", "together"]

#: What steps have in common that are taken as one.
Together: TypeAlias = tuple[str, str]
# Tuples, because unions take five times as long, for each resource of each request.
_ROWS: Final = (OvsBridge, OvsPort)
_ALL: Final = (*_ROWS, Flow, StrayFlow)


def is_of_switch(resource: Resource) -> bool:
    """Whether *resource* is for an Open vSwitch to take."""
    return isinstance(resource, _ALL)


def together(step: Step) -> Together | None:
    """
    Return what the steps have in common that are taken as one with *step*; None when it is not for a switch.

    Rows are deleted in one transaction and made in another: a port that is deleted and made again in one
    passes nothing any more. Flows are a bundle for each bridge.
    """
    resource = step.resource
    if isinstance(resource, _ROWS):
        return ("rows", "delete" if step.verb is Verb.DELETE else "make")
    return ("flows", resource.bridge) if isinstance(resource, Flow | StrayFlow) else None
