"""What one address costs, in every state of a subnet that has ever made an allocator slow.

Run: ``python benchmarks/ipam.py``. Three figures per state, in microseconds, medians over batches of 500:
the bitmap alone, a whole ``request_address`` (lock, look-up, and 2 us to build the ``ipaddress`` value),
and a ``release_address``. The floor is what no Python allocator beats: count up, and insert into a dict.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from pynetwork.ipam import DefaultIpam, PoolRequest
from pynetwork.types import parse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Interface, IPv6Interface

    from pynetwork.ipam import Bitmap, Pool

BATCH = 500
BATCHES = 15
SEED = 1


class State(NamedTuple):
    """A subnet, and which of its addresses are taken before the clock starts."""

    name: str
    subnet: str
    taken: Callable[[int, random.Random], Iterable[int]]


def none_taken(_size: int, _rng: random.Random) -> Iterable[int]:
    return ()


def sequential(_size: int, _rng: random.Random) -> Iterable[int]:
    return range(1, 60_001)


def scattered(size: int, rng: random.Random) -> Iterable[int]:
    return {rng.randrange(1, size - 1) for _ in range(60_000)}


def half(size: int, rng: random.Random) -> Iterable[int]:
    return rng.sample(range(1, size - 1), size // 2)


def nearly_all(size: int, rng: random.Random) -> Iterable[int]:
    free = set(rng.sample(range(1, size - 1), size // 1000))
    return (n for n in range(1, size - 1) if n not in free)


STATES = (
    State("/16 empty", "10.0.0.0/16", none_taken),
    State("/16 50 % random", "10.0.0.0/16", half),
    State("/16 60k sequential", "10.0.0.0/16", sequential),
    State("/16 99.9 % full", "10.0.0.0/16", nearly_all),
    State("/8 60k sequential", "10.0.0.0/8", sequential),
    State("/8 60k random", "10.0.0.0/8", scattered),
    State("/8 99.9 % full", "10.0.0.0/8", nearly_all),
    State("/31", "10.0.0.0/31", none_taken),
    State("/64 60k random", "fd00::/64", scattered),
)


def floor() -> float:
    """Return the cost of counting up and remembering the number."""
    seen: dict[int, int] = {}
    count = 0

    def batch() -> None:
        nonlocal count
        for _ in range(BATCH):
            count += 1
            seen[count] = count

    return median(batch, BATCH)


def median(batch: Callable[[], object], size: int, undo: Callable[[], object] = lambda: None) -> float:
    """Time batches, undoing each one's effect off the clock, and return microseconds per operation."""
    samples = []
    for _ in range(BATCHES):
        start = time.perf_counter()
        batch()
        samples.append((time.perf_counter() - start) / size * 1e6)
        undo()
    return statistics.median(samples)


def bitmap_cost(bitmap: Bitmap, batch: int) -> float:
    """Return the cost of taking the lowest free number."""
    taken: list[int | None] = []

    def take() -> None:
        for _ in range(batch):
            taken.append(bitmap.take_lowest())  # noqa: PERF401 - a growing list is part of the loop's cost

    def undo() -> None:
        while taken:
            number = taken.pop()
            if number is None:
                msg = "the batch is longer than what is free"
                raise AssertionError(msg)
            bitmap.release(number)

    return median(take, batch, undo)


def request_cost(ipam: DefaultIpam, pool: Pool, batch: int) -> tuple[float, float]:
    """Return the costs of request_address and release_address."""
    held: list[IPv4Interface | IPv6Interface] = []

    def request() -> None:
        for _ in range(batch):
            held.append(ipam.request_address(pool))  # noqa: PERF401 - as above

    def release() -> None:
        for interface in held:
            ipam.release_address(pool, interface)

    def undo() -> None:
        release()
        held.clear()

    requested = median(request, batch, undo)
    released = []
    for _ in range(BATCHES):
        request()
        start = time.perf_counter()
        release()
        released.append((time.perf_counter() - start) / batch * 1e6)
        held.clear()
    return requested, statistics.median(released)


def measure(state: State) -> tuple[float, float, float]:
    """Return the three costs of *state*."""
    subnet = parse_network(state.subnet)
    ipam = DefaultIpam(quarantine=0)
    pool = ipam.request_pool(PoolRequest(subnet=subnet))
    # Behind the driver's back: 16 million calls with preferred= would take a minute.
    bitmap = ipam._windows[pool].block._bitmap  # noqa: SLF001
    for number in state.taken(subnet.num_addresses, random.Random(SEED)):  # noqa: S311 - repeatable
        bitmap.take(number)
    batch = min(BATCH, ipam.usage(pool).free)
    return bitmap_cost(bitmap, batch), *request_cost(ipam, pool, batch)


def main() -> None:
    """Print the table."""
    base = floor()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print(f"floor: {base:.3f} us (count up, insert into a dict); in brackets: times the floor\n")
    print(f"{'us per operation':20} {'bitmap':>15} {'request_address':>17} {'release_address':>17}")
    for state in STATES:
        columns = " ".join(f"{cost:9.2f} ({cost / base:4.0f}x)" for cost in measure(state))
        print(f"{state.name:20} {columns}")


if __name__ == "__main__":
    main()
