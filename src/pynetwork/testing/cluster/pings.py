"""How long somebody is not reached: a ping every 50 ms, and which of them were lost."""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.sandbox import Sandbox

__all__ = ["Pings", "pinging"]

_INTERVAL: Final = 0.05  # seconds
_SECONDS: Final = 30.0  # until a ping that does not end is an error
_ANSWER: Final = re.compile(r"^\[(\d+\.\d+)\] .*icmp_seq=(\d+) .*ttl=", re.MULTILINE)
_SENT: Final = re.compile(r"(\d+) packets transmitted")


@attrs.define
class Pings:
    """
    What became of pings, once they are over. Made by :func:`pinging`.

    Attributes:
        interval: Seconds between two of them.
        sent: How many there were.
        answered: When each was answered, by number from 1 on: seconds since the epoch.
    """

    interval: float = _INTERVAL
    sent: int = 0
    answered: dict[int, float] = attrs.field(factory=dict)

    @property
    def lost(self) -> int:
        """How many were not answered."""
        return self.sent - len(self.answered)

    @property
    def longest(self) -> int:
        """How many were lost in a row, at most."""
        runs = groupby(number in self.answered for number in range(1, self.sent + 1))
        return max((len(list(run)) for is_answered, run in runs if not is_answered), default=0)

    @property
    def outage(self) -> float:
        """The longest time without an answer, in seconds: of what was lost in a row."""
        return self.longest * self.interval

    def back_after(self, moment: float) -> float:
        """
        Return how many seconds after *moment* the first answer came.

        Raises:
            ValueError: None has come.
        """
        return min(when for when in self.answered.values() if when > moment) - moment

    def __str__(self) -> str:
        return f"{self.lost} of {self.sent} lost, {self.longest} in a row: {self.outage:.2f} s"


@contextmanager
def pinging(sandbox: Sandbox, address: str, *, interval: float = _INTERVAL) -> Iterator[Pings]:
    """
    Ping *address* from a sandbox as long as the ``with`` block lasts.

    Args:
        sandbox: Where ``ping`` (iputils) runs.
        address: Whom it asks.
        interval: Seconds between two pings.
    """
    found = Pings(interval)
    argv = ["ping", "-n", "-D", "-i", str(interval), "-W", "1", address]
    process = sandbox.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if process.stdout is None or "PING" not in process.stdout.readline():
            msg = f"{' '.join(argv)} has ended with status {process.wait(_SECONDS)}"
            raise RuntimeError(msg)
        yield found
        process.send_signal(signal.SIGINT)  # says how many there were
        output = process.stdout.read()  # not communicate(): it forgets what was read ahead
        found.answered = {int(number): float(when) for when, number in _ANSWER.findall(output)}
        sent = _SENT.search(output)
        found.sent = int(sent[1]) if sent else 0
        if found.sent not in found.answered and found.sent - 1 in found.answered:
            found.sent -= 1  # its answer was under way
    finally:
        process.kill()
        process.communicate()
