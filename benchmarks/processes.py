"""What it costs to run a program in a sandbox, beside ``subprocess`` alone, in small and large callers.

``sandbox.run(["true"])`` starts the program in its network, mount and UTS namespaces and in its control
group; ``subprocess.run(["true"])`` starts it where the caller is. What single parts cost is measured, too: a
thread for each start, and a copy of the caller (``fork``), which ``preexec_fn`` would take. Needs root.

    python -m benchmarks.processes                          # the table, for callers of 0 and of 1000 MB
    python -m benchmarks.processes --megabytes 4000 --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for ``python benchmarks/processes.py``

from benchmarks.measure import machine, percentile, print_table

import pynetwork
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 200
COPIES = 10
TRUE = ["true"]
PAGE = 4096


def in_thread() -> None:
    thread = threading.Thread(target=subprocess.run, args=(TRUE,))
    thread.start()
    thread.join()


def copied() -> None:
    subprocess.run(TRUE, preexec_fn=int, check=True)


def contestants(controller: pynetwork.Controller) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name; the first is what the others are compared with."""
    sandbox = controller.new_sandbox("s", hostname="web")
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    network.create_endpoint("e").join(sandbox)
    limited = controller.new_sandbox("limited", limits={"memory": 1 << 30, "cpus": 2, "pids": 1000})
    return {
        "subprocess": lambda: subprocess.run(TRUE, check=True),
        "in a thread": in_thread,
        "sandbox": lambda: sandbox.run(TRUE, check=True),
        "limited sandbox": lambda: limited.run(TRUE, check=True),
    }


def measure(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Take all of them in turns."""
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()  # whatever is imported or made once
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.perf_counter_ns()
            action()
            samples[name].append((time.perf_counter_ns() - start) / 1000)
    base = median(next(iter(samples.values())))
    return {
        name: {"median": median(each), "p95": percentile(each, 95), "ratio": median(each) / base}
        for name, each in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000, help="of the large caller (1000)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often ({ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("The benchmark makes network namespaces: run it as root.")
    print_table("Machine", ("", ""), list(machine().items()))
    figures = {}
    ballast = bytearray()
    with private_host(), tempfile.TemporaryDirectory(prefix="pynetwork-benchmark-") as directory:
        controller = pynetwork.Controller(Path(directory) / "state", run_dir=Path("/run/processes"))
        actions = contestants(controller)
        for megabytes in (0, options.megabytes):
            ballast.extend(bytes(megabytes << 20))
            for position in range(0, len(ballast), PAGE):
                ballast[position] = 1
            found = figures[f"{megabytes} MB"] = measure(actions, options.rounds)
            # By itself: what a copy shares with the caller makes that wait for a while after it.
            base = found["subprocess"]["median"]
            found["with a copy of the caller"] = measure({"": copied}, COPIES)[""]
            found["with a copy of the caller"]["ratio"] = found["with a copy of the caller"]["median"] / base
        controller.erase()
    for size, found in figures.items():
        print_table(
            f"Run true, from a caller that holds {size} (us)",
            ("", "median", "p95", "x subprocess"),
            [(name, *each.values()) for name, each in found.items()],
        )
    if options.json:
        results = {"machine": machine(), "processes": figures}
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
