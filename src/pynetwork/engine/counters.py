"""What an engine counts: a few additions a request, and nothing else until somebody asks."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Self

from pynetwork.errors import ExhaustedError, RequestError, UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BOUNDS", "Attempt", "Counters", "Durations"]

#: Upper bounds of the buckets that durations are sorted into, in seconds.
BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OBJECTS: Final = frozenset({"network", "endpoint", "sandbox"})
_REFUSALS: Final = (RequestError, ExhaustedError, UnavailableError)
_WORDS: Final = {"take": "leave"}  # "take endpoint 'a' out of its sandbox"


class Durations:
    """How long something took, each time: how many in each bucket, the last without bound, and their sum."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class Counters:
    """
    Counters of one process, from the opening of its controller on. Thread-safe.

    Attributes:
        requests: How many there were, by kind and outcome: ``done``, ``refused`` (nothing was touched) or
            ``failed``.
        whole: How long requests took.
        applying: How long the host took of that.
        reconciled: How often somebody reconciled.
        drift: How many steps were ``found`` to be necessary, ``repaired`` or ``failed``.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: dict[tuple[str, str], int] = {}
        self.whole = Durations()
        self.applying = Durations()
        self.reconciled = 0
        self.drift = {"found": 0, "repaired": 0, "failed": 0}

    def attempt(self) -> Attempt:
        """Return a block to carry out one request in."""
        return Attempt(self)

    def applied(self, seconds: float) -> None:
        """Count that the host was changed for that long."""
        with self.lock:
            self.applying.add(seconds)

    def reconcile(self, *, found: int, failed: int) -> None:
        """Count that somebody reconciled."""
        with self.lock:
            self.reconciled += 1
            self.drift["found"] += found
            self.drift["repaired"] += max(0, found - failed)
            self.drift["failed"] += failed


class Attempt:
    """
    A ``with`` block around one request, which counts it.

    Attributes:
        what: The request in words, set in the block.
    """

    __slots__ = ("_began", "_counters", "what")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._began = 0.0
        self.what = ""

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        outcome = "done" if error is None else "refused" if isinstance(error, _REFUSALS) else "failed"
        key = (_kind(self.what), outcome)
        counters = self._counters
        with counters.lock:
            counters.requests[key] = counters.requests.get(key, 0) + 1
            counters.whole.add(seconds)


def _kind(what: str) -> str:
    """Return what kind of a request *what* tells of, without the names in it: ``join_endpoint``."""
    verb, *rest = what.split(" ", 2)
    verb = _WORDS.get(verb, verb)
    return f"{verb}_{rest[0]}" if rest and rest[0] in _OBJECTS else verb or "unknown"
