"""What the store adds to a request, beside what SQLite costs at all.

Run: ``python benchmarks/store.py [DIRECTORY]`` (a temporary directory by default; ``/dev/shm/x`` leaves
the disk out). Figures are microseconds per call. The floor of a write is a bare
``BEGIN IMMEDIATE; INSERT; COMMIT`` of one value of the same size, the floor of a read is a bare
``SELECT`` by integer key, both in WAL mode with ``synchronous = NORMAL`` and measured alternately with
the store, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pynetwork.store import Absent, MemoryStore, PrefixUnchanged, Put, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pynetwork.store import Compare, Store

ROUNDS = 2000
EXISTING = 5000  # entries in the store before the clock starts
VALUE = "x" * 400  # an endpoint's record is about that long


def floors(directory: Path) -> Generator[Callable[[], object]]:
    """Yield the bare write and the bare read."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, value TEXT)")
        cursor = connection.cursor()

        def write() -> None:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("INSERT INTO records (value) VALUES (?)", (VALUE,))
            cursor.execute("COMMIT")

        def read() -> None:
            cursor.execute("SELECT value FROM records WHERE id = 1").fetchone()

        yield write
        yield read


def calls(store: Store) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return what is measured: a name, which floor it is compared with (0 write, 1 read), the call."""
    store.transact([], [Put(f"endpoint/{n}", VALUE) for n in range(EXISTING)])
    numbers = itertools.count(EXISTING)

    def transact(puts: int) -> Callable[[], object]:
        def call() -> None:
            keys = [f"endpoint/{next(numbers)}" for _ in range(puts)]
            store.transact([], [Put(key, VALUE) for key in keys])

        return call

    def checked() -> None:
        keys = [f"endpoint/{next(numbers)}" for _ in range(5)]
        compares: list[Compare] = [Absent(keys[0]), Absent(keys[1]), PrefixUnchanged("network/", 0)]
        store.transact(compares, [Put(key, VALUE) for key in keys])

    def overwrite() -> None:
        store.transact([], [Put(f"endpoint/{n}", VALUE) for n in range(5)])

    return {
        "transact, 1 new key": (0, transact(1)),
        "transact, 5 new keys": (0, transact(5)),
        "transact, 3 compares and 5 new keys": (0, checked),
        "transact, 5 existing keys": (0, overwrite),
        "get": (1, lambda: store.get("endpoint/7")),
    }


def medians(measured: list[Callable[[], object]]) -> list[float]:
    """Return the median microseconds of each call, all called in turn."""
    samples: list[list[int]] = [[] for _ in measured]
    for _ in range(ROUNDS):
        for call, durations in zip(measured, samples, strict=True):
            start = time.perf_counter_ns()
            call()
            durations.append(time.perf_counter_ns() - start)
    return [sorted(durations)[ROUNDS // 2] / 1000 for durations in samples]


def report(name: str, store: Store, bare: list[Callable[[], object]]) -> None:
    print(f"\n{name:<42} {'us':>8} {'floor':>8} {'ratio':>7}")
    measured = calls(store)
    for what, (floor, call) in measured.items():
        cost, lowest = medians([call, bare[floor]])
        print(f"{what:<42} {cost:>8.1f} {lowest:>8.1f} {cost / lowest:>7.1f}")
    revision = store.list("nothing").revision
    cost, lowest = medians([lambda: store.changes(revision), bare[1]])
    print(f"{'changes, nothing new':<42} {cost:>8.1f} {lowest:>8.1f} {cost / lowest:>7.1f}")
    start = time.perf_counter_ns()
    entries = len(store.list("").entries)
    print(f"{f'list, per entry of {entries}':<42} {(time.perf_counter_ns() - start) / 1000 / entries:>8.2f}")


def main(parent: str | None = None) -> None:
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.platform()}")
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory = Path(name)
        bare = floors(directory)
        with contextlib.closing(bare), SqliteStore(directory) as sqlite_store, MemoryStore() as memory_store:
            floor = [next(bare), next(bare)]
            report("SqliteStore", sqlite_store, floor)
            report("MemoryStore", memory_store, floor)


if __name__ == "__main__":
    main(*sys.argv[1:])
