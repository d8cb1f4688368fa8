"""The questions of ``benchmarks/wire.py``: each function measures, prints a table and returns the figures."""

from __future__ import annotations

import subprocess
import time
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from benchmarks.measure import percentile, print_table, python, window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.measure import Figures, Program

__all__ = ["cycles", "import_time", "memory", "scale", "threads", "unwire", "wire"]

Item = TypeVar("Item")

SETTLE_SECONDS = 0.1  # deferred work of a block is over before the next contestant's begins
SLOW = {"pyroute2": 4}  # a contestant that takes tens of ms per container gets a share of the containers
SINGLES = 10  # containers that are unwired one by one before the rest goes at once
BLOCK = 20
THREAD_BLOCKS = 5
IMPORTS = 10
WARM_UP = 50


def wire(programs: Sequence[Program], count: int, rounds: int) -> Figures:
    """Wire *count* containers with each program, in turns."""
    rows: dict[str, list[list[list[float]]]] = {program.name: [] for program in programs}
    for turn in range(rounds):
        first = turn % len(programs)
        for program in (*programs[first:], *programs[:first]):
            share = max(1, count // rounds // SLOW.get(program.name, 1))
            rows[program.name].append(program.wire(share)[0])
            time.sleep(SETTLE_SECONDS)
    totals = {name: [column(block, 0) for block in blocks] for name, blocks in rows.items()}
    figures = {name: summary(blocks, totals.get("floor", blocks)) for name, blocks in totals.items()}
    print_table(
        "Wire one container (us)",
        ("contestant", "median", "p95", "x floor", "lowest", "highest round", "N"),
        [(name, *found.values()) for name, found in figures.items()],
    )
    if "floor" in rows:
        floor = flat(rows["floor"])
        parts = {
            part: median(column(floor, index))
            for index, part in enumerate(("namespace", "host", "inside"), 1)
        }
        print("  floor: " + ", ".join(f"{part} {value:.0f}" for part, value in parts.items()))
        figures["floor"] |= {f"{part}_us": value for part, value in parts.items()}
    return figures


def summary(rounds: list[list[float]], floor: list[list[float]]) -> dict[str, float]:
    """Return median, 95th percentile, ratio to the floor (overall, lowest and highest round), and number."""
    samples = flat(rounds)
    ratios = [median(ours) / median(its) for ours, its in zip(rounds, floor, strict=True)]
    return {
        "median_us": median(samples),
        "p95_us": percentile(samples, 95),
        "x_floor": median(samples) / median(flat(floor)),
        "x_floor_lowest": min(ratios),
        "x_floor_highest": max(ratios),
        "n": len(samples),
    }


def unwire(programs: Sequence[Program]) -> Figures:
    """Unwire all that is wired: some one by one, the rest at once."""
    figures: Figures = {}
    for program in programs:
        single_ms = []
        for _ in range(min(SINGLES, program.wired - 1)):
            single_ms.append(seconds(unwire_and_wait, program, 1) * 1000)
            time.sleep(SETTLE_SECONDS)  # the kernel goes on clearing up, and the next would wait for it
        count, start = program.wired, time.perf_counter()
        caller = program.unwire(count)
        program.wait_gone()
        figures[program.name] = {
            "caller_median_us": median(caller),
            "caller_p95_us": percentile(caller, 95),
            "one_gone_ms": median(single_ms),
            "all_gone_ms_each": (time.perf_counter() - start) * 1000 / count,
            "n": count,
        }
        time.sleep(SETTLE_SECONDS)
    print_table(
        "Unwire (the caller's us; ms until the kernel's objects are gone, one alone, each of all at once)",
        ("contestant", "median", "p95", "one gone", "each gone", "N"),
        [(name, *found.values()) for name, found in figures.items()],
    )
    return figures


def scale(programs: Sequence[Program], count: int) -> Figures:
    """Wire *count* containers and look at the cost of the 10th, the 100th and so on, and the last."""
    samples: dict[str, list[float]] = {program.name: [] for program in programs}
    for done in range(0, count, BLOCK):
        for program in programs:
            samples[program.name] += column(program.wire(min(BLOCK, count - done))[0], 0)
    positions = [10**power for power in range(1, 7) if 10**power < count] + [count]
    figures = {
        name: {str(position): median(window(taken, position)) for position in positions}
        for name, taken in samples.items()
    }
    print_table(
        "The n-th container on one bridge (us, median of those around it)",
        ("contestant", *(f"n={position}" for position in positions)),
        [(name, *found.values()) for name, found in figures.items()],
    )
    return figures


def threads(one: Program, several: Program, number: int) -> Figures:
    """Wire from one thread and from *number* threads, in turns."""
    figures: Figures = {}
    walls: dict[int, list[float]] = {1: [], number: []}
    latencies: dict[int, list[float]] = {1: [], number: []}
    block = BLOCK * number
    for _ in range(THREAD_BLOCKS):
        for program, count in ((one, 1), (several, number)):
            rows, wall = program.wire(block, count)
            latencies[count] += column(rows, 0)
            walls[count].append(wall / block)
            unwire_and_wait(program, block)  # a bridge has at most 1023 ports
            time.sleep(SETTLE_SECONDS)
    for count, found in latencies.items():
        figures[f"{count} threads"] = {
            "wall_us_each": median(walls[count]),
            "median_us": median(found),
            "p99_us": percentile(found, 99),
            "n": len(found),
        }
    print_table(
        f"Threads of {one.name} (us)",
        ("", "wall each", "latency", "p99", "N"),
        [(name, *found.values()) for name, found in figures.items()],
    )
    return figures


def memory(program: Program, count: int) -> Figures:
    """Wire *count* containers and see what each adds to the process."""
    program.wire(WARM_UP)
    resident, descriptors = program.resident_kib(), program.descriptors()
    program.wire(count)
    found = {
        "resident_kib_each": (program.resident_kib() - resident) / count,
        "descriptors_each": (program.descriptors() - descriptors) / count,
        "resident_mib": program.resident_kib() / 1024,
        "n": count,
    }
    print_table(
        "Memory per wired container",
        ("contestant", "KiB each", "descriptors each", "MiB in all", "N"),
        [(program.name, *found.values())],
    )
    return {program.name: found}


def cycles(program: Program, count: int) -> Figures:
    """Wire and unwire *count* times and see what stays."""
    cycle(program, WARM_UP)
    before = readings(program)
    samples = cycle(program, count)
    after = readings(program)
    tenth = max(1, count // 10)
    found = {f"{name}_grown": after[name] - before[name] for name in before}
    found |= {"first_us": median(samples[:tenth]), "last_us": median(samples[-tenth:]), "n": count}
    print_table(
        "Growth over cycles of wire and unwire (us: median of the first and the last tenth)",
        ("contestant", "descriptors", "KiB", "namespaces", "links", "first", "last", "N"),
        [(program.name, *found.values())],
    )
    return {program.name: found}


def cycle(program: Program, count: int) -> list[float]:
    """Wire and unwire one container, *count* times; return the caller's microseconds of each."""
    samples = [program.wire(1)[0][0][0] + program.unwire(1)[0] for _ in range(count)]
    program.wait_gone()
    return samples


def readings(program: Program) -> dict[str, float]:
    return {
        "descriptors": program.descriptors(),
        "resident_kib": program.resident_kib(),
        "namespaces": program.namespaces(),
        "links": program.links(),
    }


def import_time(module: str) -> Figures:
    """Compare a Python that imports *module* with one that does nothing, both as whole processes."""
    bare, importing = [], []
    for _ in range(IMPORTS):
        bare.append(seconds(subprocess.run, python("-c", "pass"), check=True) * 1000)
        importing.append(seconds(subprocess.run, python("-c", f"import {module}"), check=True) * 1000)
    found = {"bare_ms": median(bare), "import_ms": median(importing) - median(bare), "n": IMPORTS}
    print_table("Import (ms)", ("module", "bare Python", "import", "N"), [(module, *found.values())])
    return {module: found}


def unwire_and_wait(program: Program, count: int) -> None:
    program.unwire(count)
    program.wait_gone()


def seconds(action: Callable[..., object], *arguments: object, **options: object) -> float:
    """Return how long *action* took."""
    start = time.perf_counter()
    action(*arguments, **options)
    return time.perf_counter() - start


def column(rows: list[list[float]], index: int) -> list[float]:
    return [row[index] for row in rows]


def flat(lists: Iterable[list[Item]]) -> list[Item]:
    return list(chain.from_iterable(lists))
