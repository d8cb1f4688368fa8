"""Trying other host ports where those chosen turn out to be somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from pynetwork.errors import PortTakenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.ports import PortBinding

__all__ = ["avoiding_taken_ports"]

T = TypeVar("T")
_PORT_TRIES: Final = 10  # libnetwork's


def avoiding_taken_ports(
    core: Core,
    build: Callable[[set[tuple[str, int]]], Callable[[Draft], T]],
    bindings: Callable[[], Iterable[PortBinding]],
) -> T:
    """
    Carry out a request, with other host ports where those chosen turn out to be somebody else's.

    That somebody outside of this instance has a port shows only when it is claimed.

    Args:
        core: The instance.
        build: Returns what drafts the request, for the protocols and ports to avoid.
        bindings: Returns what the request publishes.
    """
    avoid: set[tuple[str, int]] = set()
    while True:
        try:
            return core.request(build(avoid))
        except PortTakenError as error:
            taken = (error.proto, error.port)
            is_known = taken in avoid
            may_choose = any(each.is_flexible and each.proto == error.proto for each in bindings())
            avoid.add(taken)
            if is_known or len(avoid) == _PORT_TRIES or not may_choose:
                raise
