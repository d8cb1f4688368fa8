"""The benchmark of very many hosts runs, with few, and what it measures is what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.thousand_hosts import entries_in_all

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
HOSTS, CONTAINERS = 5, 3


@pytest.mark.parametrize("networks", [1, HOSTS])
def test_a_small_run_tells_every_host_of_everything_in_its_networks(tmp_path: Path, networks: int) -> None:
    found = tmp_path / "figures.json"
    options = {
        "hosts": HOSTS,
        "containers": CONTAINERS,
        "networks": networks,
        "quiet": 8,
        "rate": 20,
        "seconds": 2,
        "idle": 1,
        "patience": 60,
        "json": found,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.thousand_hosts", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    machine, converged, quiet, churned = json.loads(found.read_text()).values()
    assert machine["cores"] >= 1
    assert converged["entries missing"] == 0
    # Each host hears of the containers of the others that are in a network of its own.
    assert converged["entries on all hosts"] == (60 if networks == 1 else 30)
    # Of each network of a host, and of what networks are called.
    assert converged["watches in etcd"] == HOSTS * (min(networks, CONTAINERS) + 1)
    for figures in (quiet, churned):
        assert figures["of whom were not told, it came and went"] == 0
        assert figures["entries missing or too many at the end"] == 0
        assert figures["hosts told of a change"] == (4 if networks == 1 else 2)
        assert (
            0
            < figures["from the write to a host, ms, p50"]
            <= figures["from the write to the last host, ms, p99"]
        )
        assert (
            figures["from the write to the last host, ms, p99"]
            <= figures["from the call to the last host, ms, p99"]
        )


def test_how_many_entries_there_will_be_is_worked_out_for_hosts_in_a_network_more_than_once() -> None:
    total, hosts = entries_in_all(hosts=3, containers=4, networks=2)
    assert hosts == {"n0": 3, "n1": 3}
    assert total == 3 * (12 - 4)  # each hears of all but its own
    assert entries_in_all(hosts=4, containers=1, networks=4)[0] == 0  # each is alone
