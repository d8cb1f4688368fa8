"""Following a cluster for callers that exit: ``python -m pynetwork.agent``.

A controller follows its cluster as long as it is open. Where nobody keeps one open, this program does: it
announces what any process of the host has joined, tells the datapath of endpoints on other hosts, and
keeps the host's lease. Several may run on a host, or beside open controllers: one of them works, another
takes over when that ends.

::

    python -m pynetwork.agent --cluster mymodule:cluster

*mymodule* is imported from where Python finds modules, the current directory first; *cluster* in it is a
:class:`~pynetwork.Cluster`, or a function that returns one.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pynetwork.cluster import Cluster
from pynetwork.controller import RUN_DIR, STATE_DIR, Controller
from pynetwork.errors import InvalidValueError, PynetworkError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """
    Follow a cluster until SIGTERM or SIGINT.

    Args:
        argv: Arguments, by default those of the program.

    Returns:
        The status to exit with: 0 when it was told to end, 1 when it could not begin, the reason on
        standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m pynetwork.agent", description="Follow a cluster.")
    parser.add_argument(
        "--cluster", required=True, metavar="MODULE:NAME", help="a Cluster, or what makes one"
    )
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR, help="where the records are")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="where namespaces are pinned")
    options = parser.parse_args(argv)
    # Before there are threads, which inherit it: whoever is told first must be the one that waits.
    waited_for = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        cluster = attrs.evolve(find_cluster(options.cluster), agent=True)
        with Controller(options.state_dir, run_dir=options.run_dir, cluster=cluster, dns="off"):
            print(f"host {cluster.host} is followed", flush=True)  # noqa: T201 - a program's own output
            signal.sigwait(waited_for)
    except PynetworkError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201 - likewise
        return 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def find_cluster(where: str) -> Cluster:
    """
    Return the cluster that ``MODULE:NAME`` is, or what it returns.

    Raises:
        InvalidValueError: There is no such thing, or it is something else.
    """
    module, _, name = where.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"invalid --cluster {where!r}: MODULE:NAME is expected ({error})"
        raise InvalidValueError(msg) from error
    cluster = found() if callable(found) else found
    if not isinstance(cluster, Cluster):
        msg = f"invalid --cluster {where!r}: it is {cluster!r}, no Cluster"
        raise InvalidValueError(msg)
    return cluster


if __name__ == "__main__":
    sys.exit(main())
