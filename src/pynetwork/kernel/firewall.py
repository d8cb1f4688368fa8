"""The port between the host and its firewall: whatever it is, it takes rules as values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from pynetwork.errors import InvalidValueError, UnavailableError
from pynetwork.resources import Rules, Ruleset
from pynetwork.resources.stray import StrayElement, StrayRules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetwork.plan import Plan, Step
    from pynetwork.resources import Resource

__all__ = [
    "FIREWALLS",
    "Firewall",
    "NoFirewall",
    "RulesRefusedError",
    "check_name",
    "choose_firewall",
    "is_of_firewall",
    "open_firewall",
]

#: Names of the firewalls there are.
FIREWALLS: Final = ("nftables", "iptables", "none")
# A tuple, because a union takes five times as long, for each resource of each request.
_TAKEN: Final = (Rules, Ruleset, StrayElement, StrayRules)


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

    def lines(self, step: Step) -> tuple[str, ...]:
        """Return what :meth:`apply` does for *step*, as lines a user could type."""
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

    def lines(self, _step: Step) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def remove(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def choose_firewall() -> str:
    """
    Return the name of the firewall that this host has: nftables where ``nft`` is, else iptables.

    Raises:
        UnavailableError: It has neither; says what to install.
    """
    from importlib.util import find_spec

    from pynetwork.kernel.nftables import find_nft

    if find_nft() is not None:
        return "nftables"
    if find_spec("iptc") is not None:
        return "iptables"
    msg = (
        "networks need a firewall: install nftables (apt-get install nftables), or for iptables "
        "pip install 'pynetwork[iptables]', or make the controller with firewall='none' and leave isolation, "
        "masquerading and published ports to somebody else"
    )
    raise UnavailableError(msg)


def check_name(name: object) -> None:
    """
    Check that *name* is that of a firewall, or ``auto``.

    Raises:
        InvalidValueError: It is not.
    """
    if name != "auto" and name not in FIREWALLS:
        msg = f"unknown firewall {name!r}: known are auto, {', '.join(FIREWALLS)}"
        raise InvalidValueError(msg)


def open_firewall(name: str, instance: str, home: Callable[[Callable[[], object]], object]) -> Firewall:
    """
    Return the firewall called *name*, for an instance.

    Args:
        name: One of FIREWALLS, or ``auto``.
        instance: Hexadecimal id of the owner.
        home: Calls a function in the host's network namespace.

    Raises:
        InvalidValueError: There is none of that name.
        UnavailableError: The host has none.
    """
    check_name(name)
    name = choose_firewall() if name == "auto" else name
    if name == "none":
        return NoFirewall()
    if name == "nftables":
        from pynetwork.kernel.nftables import NftablesFirewall

        return NftablesFirewall(instance, home)
    from pynetwork.kernel.iptables.firewall import IptablesFirewall

    return IptablesFirewall(instance, home)


def is_of_firewall(resource: Resource) -> bool:
    """Whether *resource* is for a firewall to take."""
    return isinstance(resource, _TAKEN)
