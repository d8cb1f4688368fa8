"""A firewall that keeps the host ports of what it publishes from other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.errors import PynetworkError
from pynetwork.kernel.firewall import RulesRefusedError
from pynetwork.kernel.sockets import PortSockets
from pynetwork.plan import Verb
from pynetwork.resources import PublishedPort, Ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetwork.kernel.firewall import Firewall
    from pynetwork.plan import Plan, Step

__all__ = ["ReservingFirewall"]


class ReservingFirewall:
    """
    Sockets for ports, and rules, together or not at all.

    Args:
        rules: The firewall that takes the rules.
        instance: Hexadecimal id of the owner.
        home: Calls a function in the host's network namespace.
    """

    def __init__(
        self, rules: Firewall, instance: str, home: Callable[[Callable[[], object]], object]
    ) -> None:
        self._rules = rules
        self._home = home
        self._sockets = PortSockets(instance)

    @property
    def name(self) -> str:
        """What the firewall is."""
        return self._rules.name

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Take all of *steps*, or none, see :meth:`Firewall.apply`."""
        # What is replayed is ours already, whoever sits on the port by now.
        wanted = [
            (number, step.resource)
            for number, step in enumerate(() if replay else steps)
            if step.verb is Verb.CREATE and isinstance(step.resource, PublishedPort)
        ]
        reserved: list[PublishedPort] = []
        try:
            if wanted:
                self._home(lambda: self._reserve(wanted, reserved))
            self._rules.apply(steps, replay=replay)
        except BaseException:
            for port in reserved:
                self._sockets.release(port)
            raise
        # One that goes to another endpoint is deleted and created: it stays ours.
        stay = {step.resource.key for step in steps if step.verb is Verb.CREATE}
        for step in steps:
            resource = step.resource
            if step.verb is Verb.DELETE and isinstance(resource, PublishedPort) and resource.key not in stay:
                self._sockets.release(resource)
            elif step.verb is Verb.DELETE and isinstance(resource, Ruleset):
                self._sockets.close()  # of ports that went with it

    def _reserve(self, wanted: Sequence[tuple[int, PublishedPort]], reserved: list[PublishedPort]) -> None:
        for number, port in wanted:
            try:
                if self._sockets.reserve(port):
                    reserved.append(port)
            except PynetworkError as error:
                raise RulesRefusedError(number) from error

    def observe(self, expected: Plan) -> Plan:
        """Return what is there, see :meth:`Firewall.observe`."""
        return self._rules.observe(expected)

    def missing(self) -> tuple[str, ...]:
        """Return what somebody took away, see :meth:`Firewall.missing`."""
        return self._rules.missing()

    def lines(self, step: Step) -> tuple[str, ...]:
        """Return *step* as lines a user could type, see :meth:`Firewall.lines`."""
        return self._rules.lines(step)

    def remove(self) -> None:
        """Delete all that this instance ever made."""
        self._rules.remove()

    def close(self) -> None:
        """Release sockets; the rules stay. Idempotent."""
        self._sockets.close()
        self._rules.close()
