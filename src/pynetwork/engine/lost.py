"""Adopted namespaces that are gone: nobody can make them again, so nothing may wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.plan import Plan
from pynetwork.resources import Netns

if TYPE_CHECKING:
    from pynetwork.engine.world import World
    from pynetwork.kernel.port import Kernel
    from pynetwork.resources import Resource

__all__ = ["can_be_adopted", "is_lost", "without_lost"]


def can_be_adopted(kernel: Kernel, source: str) -> bool:
    """Whether the path *source* is a network namespace of somebody else's now."""
    found = kernel.namespace_id(source)
    return found is not None and found != kernel.namespace_id(None)


def is_lost(kernel: Kernel, pin: Netns) -> bool:
    """Whether an adopted namespace is pinned no more, and cannot be adopted again."""
    if pin.adopted is None or kernel.namespace_id(pin.path) is not None:
        return False
    return not (pin.may_return and can_be_adopted(kernel, pin.adopted))


def without_lost(kernel: Kernel, world: World, plan: Plan) -> Plan:
    """Return *plan* without what is in adopted namespaces that are lost, and without these."""
    pins = {path: _pin(world, plan, path) for path in {_place(item) for item in plan} if path is not None}
    lost = {path for path, pin in pins.items() if pin is not None and is_lost(kernel, pin)}
    return Plan(item for item in plan if _place(item) not in lost) if lost else plan


def _place(item: Resource) -> str | None:
    """Return the path of the namespace that *item* is, or is in."""
    if isinstance(item, Netns):
        return item.path
    place: str | None = getattr(item, "netns", None)
    return place


def _pin(world: World, plan: Plan, path: str) -> Netns | None:
    key = ("netns", path)
    found = next((item for item in plan if item.key == key), None) or world.find(key)
    return found if isinstance(found, Netns) else None
