"""Programs for the tests that need other processes: ``python store_programs.py NAME DIRECTORY [ARGUMENT]``.

Each prints what its test reads, flushed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from pynetwork.store import Absent, Put, SqliteStore, Store, Unchanged

if TYPE_CHECKING:
    from collections.abc import Callable


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def count_up(store: Store, times: int) -> None:
    """Add one to the number at ``counter``, *times* times, each time until nobody was faster."""
    done = 0
    while done < times:
        entry = store.get("counter")
        compare = Unchanged("counter", entry.revision) if entry else Absent("counter")
        value = int(entry.value) + 1 if entry else 1
        done += store.transact([compare], [Put("counter", str(value))]) is not None


def increment(directory: str, times: str) -> None:
    """Open the store when told to, and count."""
    say("ready")
    sys.stdin.readline()
    with SqliteStore(directory) as store:
        count_up(store, int(times))


def reopen(directory: str, times: str) -> None:
    """Count, opening and closing the store for each step, as a command-line tool does."""
    say("ready")
    sys.stdin.readline()
    for _ in range(int(times)):
        with SqliteStore(directory) as store:
            count_up(store, 1)


def write_pairs(directory: str, _: str) -> None:
    """Write two keys that are always equal, until killed."""
    with SqliteStore(directory, history=16) as store:
        n = 0
        while True:
            n += 1
            store.transact([], [Put("left", f"{n}"), Put("right", f"{n}"), Put(f"filler/{n % 97}", "x" * n)])
            if n % 50 == 0:
                say(n)


def in_child(run: Callable[[], None]) -> int:
    """Run in a forked child and return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the child must not return
            say(f"child failed: {error!r}")
            os._exit(1)
        os._exit(0)
    return pid


def fork_and_share(directory: str, times: str) -> None:
    """Parent and child count at once on what was one open store."""
    with SqliteStore(directory) as store:
        count_up(store, int(times))
        pid = in_child(lambda: count_up(store, int(times)))
        count_up(store, int(times))
        say(os.waitpid(pid, 0)[1])


def fork_and_close(directory: str, _: str) -> None:
    """The child writes, the parent closes its store, the child writes on; then both look."""
    to_child, to_parent = os.pipe(), os.pipe()
    store = SqliteStore(directory)
    store.transact([], [Put("parent", "1")])

    def child() -> None:
        store.transact([], [Put("first", "1")])
        os.write(to_parent[1], b"x")
        os.read(to_child[0], 1)
        store.transact([], [Put("second", "1")])
        os.write(to_parent[1], b"x")
        os.read(to_child[0], 1)

    pid = in_child(child)
    os.read(to_parent[0], 1)
    store.close()
    os.write(to_child[1], b"x")
    os.read(to_parent[0], 1)
    with SqliteStore(directory) as again:  # while the child has it open
        say(" ".join(entry.key for entry in again.list("").entries))
    os.write(to_child[1], b"x")
    say(os.waitpid(pid, 0)[1])


def fork_while_writing(directory: str, times: str) -> None:
    """Children are forked while other threads are in the middle of transactions."""
    with SqliteStore(directory) as store:
        stop = threading.Event()

        def write_on() -> None:
            while not stop.is_set():
                store.transact([], [Put("left", "x" * 3000), Put("right", "x" * 3000)])

        threads = [threading.Thread(target=write_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(int(times)):
            time.sleep(0.001)
            pid = in_child(lambda: count_up(store, 5))
            say(os.waitpid(pid, 0)[1])
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    programs: dict[str, Callable[[str, str], None]] = {
        program.__name__: program
        for program in (increment, reopen, write_pairs, fork_and_share, fork_and_close, fork_while_writing)
    }
    programs[name](*arguments)
