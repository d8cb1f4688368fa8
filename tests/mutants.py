"""Deletes each rule of the firewall in turn, and runs the tests with packets: one of them must fail.

    python -m tests.mutants                      # all mutants of both firewalls; lists the survivors
    python -m tests.mutants nftables             # of one
    python -m tests.mutants nftables 12          # one of them, as pytest tells it

Needs root, and half an hour.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from tests.kernel import lan

from pynetwork.kernel.iptables import layout, rules
from pynetwork.resources import ruleset

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
#: What is tried, the quickest to find something first.
TESTS = {
    "nftables": [
        "test_firewall_matrix",
        "test_firewall_reasons",
        "test_firewall_spoofing",
        "test_firewall_rules",
    ],
    "iptables": [
        "test_firewall_matrix",
        "test_firewall_reasons",
        "test_iptables_packets",
        "test_firewall_rules",
    ],
}
#: Those that no packet can tell from what they were made of, and why.
EQUIVALENT = {
    "IPv4 static_rules: raw -A PYNETWORK-RAW -i lo -j RETURN": "a shortcut past rules that do not match",
    "IPv6 static_rules: raw -A PYNETWORK-RAW -i lo -j RETURN": "likewise",
    "IPv6 static_rules: raw -A PYNETWORK-RAW -j PYNETWORK-LOCAL": "for IPv6 there is nothing in that chain",
}
AT_ONCE = 2
#: What should not pass must not be taken for lost because the machine is busy.
SILENCE = 2.0


def nftables() -> dict[str, Callable[[], None]]:
    """Return what deletes each rule of the skeleton, by the rule."""

    def delete(family: str, name: str, number: int) -> None:
        chain = ruleset._CHAINS[family][name]
        left = (*chain.rules[:number], *chain.rules[number + 1 :])
        ruleset._CHAINS[family][name] = attrs.evolve(chain, rules=left)

    return {
        f"{family} {name}: {rule}": partial(delete, family, name, number)
        for family, chains in ruleset._CHAINS.items()
        for name, chain in chains.items()
        for number, rule in enumerate(chain.rules)
    }


def iptables() -> dict[str, Callable[[], None]]:
    """Return what leaves out each rule of either family, by what it is without its comment."""
    found: dict[str, Callable[[], None]] = {}
    for version in (4, 6):
        for name, make in (("static_rules", layout.static_rules), ("jumps", layout.jumps)):
            for number, rule in enumerate(make("0" * 8, version)):
                found[f"IPv{version} {name}: {_plain(rule)}"] = partial(_without, name, version, number)
        for name in rules._OF:
            for number, at in _made_of(name, version):
                found[f"IPv{version} of {name}: {at}"] = partial(_less, name, version, number)
    for part in ("_published", "_guards"):
        for number in range({"_published": 1, "_guards": 3}[part]):
            found[f"of {part}: kind {number}"] = partial(_fewer, part, number)
    return found


def _plain(rule: Any) -> str:
    text = rule.render().replace(f' -m comment --comment "{rule.comment}"', "")
    return f"{rule.table} {text}".replace("-00000000", "")


def _without(name: str, version: int, number: int) -> None:
    """Have static rules or jumps of a family lack one."""
    whole = getattr(layout, name)

    def make(instance: str, of: int, *more: Any) -> Any:
        made = whole(instance, of, *more)
        return tuple(rule for n, rule in enumerate(made) if (of, n) != (version, number))

    setattr(layout, name, make)


_EXAMPLES = {
    "linked": ("a", "b"),
    "routed": ("ADDRESS", "tcp", 80),
    "routed_ranges": ("ADDRESS", "tcp", (80, 81)),
    "direct": ("SUBNET",),
    "trusted": ("a", "SUBNET"),
    "own": ("SUBNET", "a"),
    "masquerade": ("SUBNET",),
    "snat": ("SUBNET", "ADDRESS"),
}
_VALUES = {
    4: {"ADDRESS": "10.0.0.2", "SUBNET": "10.0.0.0/24"},
    6: {"ADDRESS": "fd00::2", "SUBNET": "fd00::/64"},
}


def _made_of(name: str, version: int) -> list[tuple[int, str]]:
    """Return the number and text of each rule that an element of a set becomes."""
    key = _EXAMPLES.get(name, ("a",))
    made = rules._OF[name](version, *(_VALUES[version].get(f, f) if isinstance(f, str) else f for f in key))
    return [(number, _plain(attrs.evolve(rule, key="k"))) for number, rule in enumerate(made)]


def _less(name: str, version: int, number: int) -> None:
    whole = rules._OF[name]
    rules._OF[name] = lambda of, *key: tuple(
        rule for n, rule in enumerate(whole(of, *key)) if (of, n) != (version, number)
    )


def _fewer(part: str, number: int) -> None:
    """Have ports, or endpoints, lack their rules of a kind: to return, to drop by MAC, by address."""
    whole = getattr(rules, part)

    def kind(rule: Any) -> int:
        return 0 if rule.is_first or part == "_published" else 1 if rule.matches else 2

    setattr(rules, part, lambda *arguments: (rule for rule in whole(*arguments) if kind(rule) != number))


FIREWALLS = {"nftables": nftables, "iptables": iptables}


def run(name: str, number: int) -> int:
    """Make a mutant of this process, and run the tests up to the first that fails."""
    list(FIREWALLS[name]().values())[number]()
    lan._SILENCE = SILENCE
    others = " or ".join(other for other in FIREWALLS if other != name)
    files = [str(ROOT / "tests" / "kernel" / f"{each}.py") for each in TESTS[name]]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-k", f"not {others}"]
    return int(pytest.main([*options, *files]))


def outcome(name: str, number: int, mutant: str) -> tuple[str, str]:
    """Return a mutant, and the test that found it; empty when it survived."""
    command = [sys.executable, "-m", "tests.mutants", name, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    found = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode not in {0, 1}:
        raise RuntimeError(done.stdout + done.stderr)
    by = found[0].partition("::")[2].partition(" - ")[0] if found else ""
    print(f"{name} {number:3} {by or 'SURVIVED':60.60} {mutant}", flush=True)  # noqa: T201 - a script
    return mutant, by if done.returncode else ""


def main() -> int:
    names = sys.argv[1:2] or list(FIREWALLS)
    if len(sys.argv) > 2:
        return run(names[0], int(sys.argv[2]))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(outcome, name, number, mutant)
            for name in names
            for number, mutant in enumerate(FIREWALLS[name]())
            if mutant not in EQUIVALENT
        ]
        survivors = [mutant for mutant, by in (job.result() for job in jobs) if not by]
    print(f"{len(survivors)} of {len(jobs)} survived", *survivors, sep="\n")  # noqa: T201
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
