"""Surroundings that are the same in every run: seeded ids, a clock that a test turns, no real host."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pynetwork.core import Surroundings
from pynetwork.etc import HostFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pynetwork.types import IPNetwork

__all__ = ["Clock", "fake_surroundings"]


class Clock:
    """A clock that stands still until it is turned. Call it for the time in seconds."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def turn(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds


def fake_surroundings(
    seed: int = 0,
    *,
    clock: Clock | None = None,
    process: str = "process-1",
    dead: Collection[str] = (),
    host_networks: Iterable[IPNetwork] = (),
    boot: str = "boot-1",
    host_files: HostFiles | None = None,
    cgroup_problem: str = "",
) -> Surroundings:
    """
    Return surroundings for a controller under test.

    Args:
        seed: Of ids, MAC addresses and host interface names.
        clock: A clock of the test's.
        process: Identity of the process that the controller is in.
        dead: Identities of processes that have died; all others live.
        host_networks: What the host has routes to.
        boot: Identity of the host's boot.
        host_files: What the host's ``resolv.conf`` and ``hosts`` say.
        cgroup_problem: Why the host cannot have control groups.
    """
    networks = tuple(host_networks)
    files = host_files or HostFiles(resolv_conf="nameserver 192.0.2.53\n")
    return Surroundings(
        random=Random(f"{seed}/{process}"),  # noqa: S311 - the same in every run is the point
        clock=clock or Clock(),
        host_networks=lambda: networks,
        machine_seed=lambda: b"machine",
        process_identity=lambda: process,
        is_alive=lambda identity: identity not in dead,
        boot_id=lambda: boot,
        ephemeral_ports=lambda: (32768, 60999, ()),
        host_files=lambda: files,
        cgroup_problem=lambda: cgroup_problem,
        settle_seconds=0.0,
    )
