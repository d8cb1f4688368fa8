"""The companion: ``python -m pynetwork.dns`` serves the names of an instance, and outlives who made it.

It takes over from the process that serves, which hands over its sockets; it is replaced by starting another
one; it ends when there has been nothing to serve for a while, or with SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.dns.place import Place
from pynetwork.dns.service import Service
from pynetwork.drivers import Registry
from pynetwork.engine import Mirror
from pynetwork.engine.journal import HISTORY, REMEMBERED
from pynetwork.errors import PynetworkError
from pynetwork.records import Records
from pynetwork.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_READY_SECONDS: Final = 10.0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m pynetwork.dns", description="Serves the names of an instance in its sandboxes."
    )
    parser.add_argument("--state-dir", type=Path, required=True, help="state directory of the instance")
    parser.add_argument("--run-dir", type=Path, required=True, help="directory of its sockets")
    parser.add_argument("--detach", action="store_true", help="go on alone, and return once it serves")
    return parser.parse_args(argv)


def serve(state_dir: Path, run_dir: Path, ready: Callable[[], object]) -> None:
    """
    Serve until there is nothing to serve, or another companion does, or a signal comes.

    Args:
        state_dir: The instance's.
        run_dir: The instance's.
        ready: Called once it serves.

    Raises:
        PynetworkError: There is no such instance, or it cannot be read.
    """
    if not state_dir.is_dir():
        msg = f"no instance in {state_dir}: there is no such directory"
        raise PynetworkError(msg)
    with SqliteStore(state_dir, history=HISTORY, remembered=REMEMBERED) as store:
        entry = store.get("meta/instance")
        if entry is None:
            msg = f"no instance in {state_dir}: no controller has ever been there"
            raise PynetworkError(msg)
        records = Records(Registry("driver", "", (), ()))  # nobody here looks at options
        mirror = Mirror(store, dict.fromkeys(Records.words, records))
        mirror.load()
        place = Place(run_dir / "dns", entry.value)
        service = Service(mirror, records, place, lambda start: start(), is_companion=True)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: service.stop())
            service.start()
            _wait_for(place)
            place.ask({"op": "check"}, _READY_SECONDS)  # answered when all sandboxes are served
            ready()
            service.wait()
        finally:
            service.close()


def _wait_for(place: Place) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while (place.ask({"op": "who"}, 1.0) or {}).get("pid") != os.getpid():
        if time.monotonic() > deadline:
            msg = "cannot take over: the process that serves does not hand over"
            raise PynetworkError(msg)
        time.sleep(0.005)


def detach() -> Callable[[], object]:
    """Go on as a process of nobody's; the original ends when what is returned is called, or with an error."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        outcome = os.read(reading, 1)
        os._exit(0 if outcome else 1)
    os.close(reading)
    os.setsid()

    def ready() -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):  # whoever reads what we write shall not wait for our end
            os.dup2(nothing, standard)
        os.close(nothing)
        os.write(writing, b"+")
        os.close(writing)

    return ready


def main() -> int:
    """Run the command line's wish; returns the exit status."""
    options = parse_arguments()
    ready: Callable[[], object] = detach() if options.detach else lambda: None
    with suppress(ValueError, OSError):  # four sockets a sandbox
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    try:
        serve(options.state_dir, options.run_dir, ready)
    except PynetworkError as error:
        sys.stderr.write(f"pynetwork.dns: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
