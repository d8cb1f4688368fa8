"""What wiring a container costs: pynetwork beside a C program, ``ip -batch`` and pyroute2, in one run.

The contestants take turns in blocks, so that a noisy machine is noisy for all; read the ratios. Each
works on a private host of its own; nothing is left on the machine. pyroute2, which takes tens of
milliseconds, wires a quarter of the containers. Needs root and gcc.

    python -m benchmarks.wire                       # the table
    python -m benchmarks.wire --scale 1000 --threads 8 --import --memory --cycles 5000 --json FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for ``python benchmarks/wire.py``

from benchmarks import contestants, studies
from benchmarks.measure import Figures, Program, ProgramError, machine, print_table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n", type=int, default=200, help="containers per contestant, 0: no comparison (200)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="blocks that the containers come in (10)")
    parser.add_argument("--only", default=",".join(contestants.NAMES), help="contestants, with commas")
    parser.add_argument(
        "--scale", type=int, metavar="N", help="the cost of the 10th, 100th ... N-th container"
    )
    parser.add_argument("--threads", type=int, metavar="T", help="T threads against one")
    parser.add_argument("--import", action="store_true", dest="import_time", help="the time of the import")
    parser.add_argument(
        "--memory", type=int, nargs="?", const=500, metavar="N", help="growth per container (500)"
    )
    parser.add_argument("--cycles", type=int, metavar="N", help="wire and unwire N times: what grows?")
    parser.add_argument("--subject", default="pynetwork", help="whom the last four are about (pynetwork)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


def start_all(names: list[str], floor: Path, stack: contextlib.ExitStack) -> list[Program]:
    """Start the contestants that can run here, and say which cannot."""
    programs = []
    for name in names:
        try:
            programs.append(stack.enter_context(contestants.start(name, floor)))
        except ProgramError as error:
            print(f"{name} is left out: {error}")
    return programs


def compare(options: argparse.Namespace, floor: Path) -> dict[str, Figures]:
    """Run the comparison."""
    with contextlib.ExitStack() as stack:
        programs = start_all(options.only.split(","), floor, stack)
        return {"wire": studies.wire(programs, options.n, options.rounds), "unwire": studies.unwire(programs)}


def study(options: argparse.Namespace, floor: Path) -> dict[str, Figures]:
    """Run what was asked for beyond the comparison."""
    results: dict[str, Figures] = {}
    subject: str = options.subject

    def start(name: str = subject) -> Program:
        return contestants.start(name, floor)

    if options.scale:
        with start("floor") as one, start() as other:
            results["scale"] = studies.scale([one, other], options.scale)
    if options.threads:
        with start() as one, start() as other:
            results["threads"] = studies.threads(one, other, options.threads)
    if options.memory:
        with start() as program:
            results["memory"] = studies.memory(program, options.memory)
    if options.cycles:
        with start() as program:
            results["cycles"] = studies.cycles(program, options.cycles)
    return results


def main() -> None:
    options = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("The benchmark makes network namespaces: run it as root.")
    results: dict[str, object] = {"machine": machine()}
    print_table("Machine", ("", ""), list(machine().items()))
    with tempfile.TemporaryDirectory(prefix="pynetwork-benchmark-") as directory:
        floor = contestants.compile_floor(Path(directory))
        if options.n:
            results |= compare(options, floor)
        if options.import_time:
            results["import"] = studies.import_time("pynetwork")
        try:
            results |= study(options, floor)
        except ProgramError as error:
            print(f"\nThe studies of {options.subject} are left out: {error}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
