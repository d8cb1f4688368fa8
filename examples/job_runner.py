"""Jobs that nobody trusts, each in a sandbox of its own: limits, figures, a sure end. Needs root.

A job gets so many processes, so much memory and so much time. Whatever it starts is in its control group:
it is counted with it, and gone with it, fork bombs and daemons included.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import pynetwork
from pynetwork import Controller, Network, SandboxStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = 1.0
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
LIMITS = {"memory": 64 << 20, "cpus": 0.5, "pids": 20}
JOBS: Mapping[str, Sequence[str]] = {
    "good": ["sh", "-c", "echo sum: $((6 * 7)); getent hosts neighbour"],
    "hungry": ["python3", "-S", "-c", "bytearray(256 << 20)"],
    "fork-bomb": ["python3", "-S", "-c", BOMB],
    "daemon": ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo left something behind"],
    "endless": ["sh", "-c", "trap '' TERM; while :; do :; done"],
}


def run_job(controller: Controller, network: Network, name: str, argv: Sequence[str]) -> str:
    """Run a job to its end, or to the end of its time; return what became of it, in words."""
    with controller.scratch():
        sandbox = controller.new_sandbox(name, hostname=name, limits=limits(controller))
        network.create_endpoint(name).join(sandbox)
        process = sandbox.popen(argv, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + SECONDS
        stats = sandbox.stats()
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            stats = sandbox.stats()
        stopped = sandbox.stop(timeout=0.2)
        output, _ = process.communicate()
        left = (
            f", {len(stopped.ended)} ended and {len(stopped.killed)} killed"
            if stopped != pynetwork.Stopped()
            else ""
        )
        return f"status {process.returncode}, {used(stats)}{left}; it said {output!r}"


def limits(controller: Controller) -> dict[str, float] | None:
    """Return the limits that this host can keep, all or none."""
    with controller.scratch():
        try:
            controller.new_sandbox("probe", limits=LIMITS)
        except pynetwork.PynetworkError as error:
            print(f"without limits: {error}")
            return None
    return dict(LIMITS)


def used(stats: SandboxStatistics) -> str:
    """Return what a job used, in words."""
    memory = "?" if stats.memory_peak is None else f"{stats.memory_peak >> 20} MiB"
    cpu = "?" if stats.cpu is None else f"{stats.cpu:.2f} s"
    return f"at most {memory}, {cpu}"


def main() -> None:
    """Run all jobs, one after the other."""
    with tempfile.TemporaryDirectory(prefix="job-runner-") as place:
        controller = Controller(f"{place}/state", run_dir=f"{place}/run")
        network = controller.new_network("bridge", "jobs", internal=True)
        network.create_endpoint("neighbour").join(controller.new_sandbox("neighbour"))
        for name, argv in JOBS.items():
            print(f"{name}: {run_job(controller, network, name, argv)}")
        print("left:", *controller.sandboxes)
        controller.erase()


if __name__ == "__main__":
    main()
