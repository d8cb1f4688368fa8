"""Control groups: which processes are a sandbox's, what they may use, what they used."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.resources.base import Resource

if TYPE_CHECKING:
    from pynetwork.resources.base import Key

__all__ = ["PERIOD", "Cgroup"]

#: Microseconds that a limit of processor time is kept in, the kernel's default (sched-bwc).
PERIOD: Final = 100_000
_ROOT: Final = "/sys/fs/cgroup"


@attrs.frozen(kw_only=True)
class Cgroup(Resource):
    """
    A control group, in each hierarchy of the host that is of use.

    Its deletion ends the processes that are in it.

    Args:
        path: Below the root of the hierarchies; its last part ends with the instance it belongs to.
        memory: Bytes its processes may use; None for no limit.
        cpus: Processors' worth of time, likewise.
        pids: Processes and threads, likewise.
    """

    kind = "cgroup"
    rank = 12  # after a namespace and its settings, which are made together: in between it would part them
    mutable = frozenset({"memory", "cpus", "pids"})

    path: str
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    @property
    def key(self) -> Key:
        return ("cgroup", self.path)

    @property
    def quota(self) -> int | None:
        """Microseconds of processor time in each :data:`PERIOD`."""
        return None if self.cpus is None else round(self.cpus * PERIOD)

    # The lines are those of version 2; version 1 has other names for the same.

    def render(self) -> tuple[str, ...]:
        return (f"mkdir {self._directory}", *self._limits(None))

    def render_delete(self) -> tuple[str, ...]:
        return (f"echo 1 > {self._directory}/cgroup.kill", f"rmdir {self._directory}")

    def render_update(self, previous: Resource) -> tuple[str, ...]:
        return self._limits(previous)

    @property
    def _directory(self) -> str:
        return shlex.quote(f"{_ROOT}/{self.path}")

    def _limits(self, previous: Resource | None) -> tuple[str, ...]:
        was = previous if isinstance(previous, Cgroup) else Cgroup(path=self.path)
        quota = "max" if self.quota is None else f"{self.quota} {PERIOD}"
        return tuple(
            f"echo {new} > {self._directory}/{file}"
            for file, new, changed in (
                ("memory.max", "max" if self.memory is None else self.memory, self.memory != was.memory),
                ("cpu.max", shlex.quote(quota), self.quota != was.quota),
                ("pids.max", "max" if self.pids is None else self.pids, self.pids != was.pids),
            )
            if changed
        )
