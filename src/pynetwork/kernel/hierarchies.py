"""Where control groups are made on this host, and of which version.

The controllers are where the host has put them: in the one hierarchy of version 2, or, on a host that still
mounts them one by one (version 1, also beside a version 2 without controllers), in those. Nothing is mounted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Hierarchies", "find_hierarchies"]

#: Controllers that are of use, named as in version 2; ``cpuacct`` and ``freezer`` are of version 1 alone.
_USEFUL: Final[tuple[str, ...]] = ("pids", "memory", "cpu", "cpuacct", "io", "freezer")
_OF_VERSION_1: Final = {"blkio": "io"}


@attrs.frozen(kw_only=True)
class Hierarchies:
    """
    The mounted hierarchies of control groups.

    Args:
        version: 2 or 1.
        home: Where the processes of a group are told from others: the only hierarchy of version 2; of
            version 1 that of ``pids``, or else the first there is.
        controllers: Controller, named as in version 2, to where it is.
        problem: Why no groups can be made, empty when they can.
    """

    version: int = 2
    home: Path = Path("/sys/fs/cgroup")
    controllers: Mapping[str, Path] = attrs.field(factory=dict)
    problem: str = ""

    @property
    def roots(self) -> tuple[Path, ...]:
        """All of them, home first."""
        return tuple(dict.fromkeys((self.home, *self.controllers.values())))


def find_hierarchies(mountinfo: Path = Path("/proc/thread-self/mountinfo")) -> Hierarchies:
    """
    Return where control groups are made.

    Args:
        mountinfo: What is mounted, see proc(5).
    """
    unified, separate = _mounted(mountinfo)
    offered = () if unified is None else _words(unified / "cgroup.controllers")
    if unified is not None and (not separate or {"pids", "memory"} & set(offered)):
        controllers = {name: unified for name in _USEFUL if name in offered}
        return _checked(Hierarchies(version=2, home=unified, controllers=controllers))
    if not separate:
        return Hierarchies(problem="no control groups are mounted on this host")
    ordered = {name: separate[name] for name in _USEFUL if name in separate}
    return _checked(Hierarchies(version=1, home=next(iter(ordered.values())), controllers=ordered))


def _checked(found: Hierarchies) -> Hierarchies:
    if os.access(found.home, os.W_OK):
        return found
    return attrs.evolve(found, problem=f"{found.home} cannot be written")


def _mounted(mountinfo: Path) -> tuple[Path | None, dict[str, Path]]:
    """Return where version 2 is mounted, and where each useful controller of version 1 is."""
    unified: Path | None = None
    separate: dict[str, Path] = {}
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None, {}
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if not kind.startswith("cgroup"):
            continue
        place = Path(before.split(" ")[4].replace("\\040", " "))
        if kind == "cgroup2":
            unified = unified or place
        for option in options.split(",") if kind == "cgroup" else ():
            name = _OF_VERSION_1.get(option, option)
            if name in _USEFUL:
                separate.setdefault(name, place)
    return unified, separate


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="ascii").split())
    except OSError:
        return ()
