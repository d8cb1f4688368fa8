"""The port between the host and its firewall: whatever it is, it takes rules as values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pynetwork.resources import Rules, Ruleset
from pynetwork.resources.firewall import StrayElement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.plan import Plan, Step
    from pynetwork.resources import Resource

__all__ = ["Firewall", "NoFirewall", "RulesRefusedError", "is_of_firewall"]


class RulesRefusedError(Exception):
    """
    The firewall refused a transaction as a whole; the reason is chained as ``__cause__``.

    Attributes:
        number: Which of the steps it is about.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Firewall(Protocol):
    """Takes steps of :class:`~pynetwork.resources.Ruleset` and :class:`~pynetwork.resources.Rules`."""

    @property
    def name(self) -> str:
        """What it is: ``nftables``, ``iptables`` or ``none``."""
        ...

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """
        Take all of *steps*, or none.

        Args:
            steps: In order.
            replay: Some may have been taken before: to create what exists, or to delete what is gone, is
                no error. Then they need not be taken as one.

        Raises:
            RulesRefusedError: One was refused; nothing has changed.
            UnavailableError: The host lacks what this needs.
        """
        ...

    def observe(self, expected: Plan) -> Plan:
        """
        Return what of *expected* exists, as it is, and beyond it what else carries our name.

        Rules of which only a part is left are returned changed, so that a diff replaces or updates them.
        """
        ...

    def missing(self) -> tuple[str, ...]:
        """Return in words what somebody took away, as far as one cheap look tells."""
        ...

    def remove(self) -> None:
        """Delete all that this instance ever made: another firewall takes over."""
        ...

    def close(self) -> None:
        """Release sockets and processes; the rules stay. Idempotent."""
        ...


class NoFirewall:
    """For hosts whose firewall is somebody else's business: takes everything, does nothing."""

    name = "none"

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Do nothing."""

    def observe(self, expected: Plan) -> Plan:
        """Return *expected*."""
        return expected

    def missing(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def remove(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def is_of_firewall(resource: Resource) -> bool:
    """Whether *resource* is for a firewall to take."""
    return isinstance(resource, Rules | Ruleset | StrayElement)
