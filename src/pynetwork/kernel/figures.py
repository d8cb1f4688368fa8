"""What the processes of a control group use: memory, processor time, disks; of either version."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.stats import InterfaceStatistics

__all__ = ["DiskStatistics", "SandboxStatistics", "usage"]

_BOUNDLESS: Final = 1 << 62
#: Files of version 1 with bytes and operations by disk; which of them count depends on the disk's scheduler.
_BLKIO: Final = ("blkio.throttle.{}_recursive", "blkio.bfq.{}_recursive", "blkio.{}_recursive")


@attrs.frozen(kw_only=True)
class DiskStatistics:
    """What was read from a disk and written to it."""

    read_bytes: int = 0
    read_operations: int = 0
    write_bytes: int = 0
    write_operations: int = 0


@attrs.frozen(kw_only=True)
class SandboxStatistics:
    """
    What a sandbox uses, and used so far. None where the host does not count it.

    Args:
        time: When it was read, in seconds since the epoch.
        interfaces: Its interfaces by name, but ``lo``.
        disks: Disks its processes used, by number, such as ``8:0``.
        memory: Bytes its processes have now.
        memory_peak: The most they ever had.
        memory_limit: What they may have.
        cpu: Seconds of processor time they have used.
        cpu_user: Of these, in their own code.
        cpu_system: Of these, in the kernel's.
        cpu_throttled: Seconds they were kept waiting by their limit.
        pids: How many processes and threads there are.
    """

    time: float
    interfaces: Mapping[str, InterfaceStatistics]
    disks: Mapping[str, DiskStatistics] = MappingProxyType({})
    memory: int | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    cpu: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    cpu_throttled: float | None = None
    pids: int | None = None


def usage(groups: Groups, path: str) -> dict[str, object]:
    """Return the fields of :class:`SandboxStatistics` that come from a control group."""
    groups.complete(path)
    roots = groups.hierarchies.controllers
    places = {name: root / path for name, root in roots.items()}
    read = _version_2 if groups.hierarchies.version == 2 else _version_1
    return read(places, groups.directory(path))


def _version_2(_: Mapping[str, Path], home: Path) -> dict[str, object]:
    cpu = _table(home / "cpu.stat")
    return {
        "disks": _disks_of_version_2(home / "io.stat"),
        "memory": _number(home / "memory.current"),
        "memory_peak": _number(home / "memory.peak"),
        "memory_limit": _number(home / "memory.max"),
        "cpu": _seconds(cpu.get("usage_usec"), 1e6),
        "cpu_user": _seconds(cpu.get("user_usec"), 1e6),
        "cpu_system": _seconds(cpu.get("system_usec"), 1e6),
        "cpu_throttled": _seconds(cpu.get("throttled_usec"), 1e6),
        "pids": _number(home / "pids.current"),
    }


def _version_1(places: Mapping[str, Path], home: Path) -> dict[str, object]:
    memory, cpu, account = (places.get(name, home) for name in ("memory", "cpu", "cpuacct"))
    return {
        "disks": _disks_of_version_1(places.get("io", home)),
        "memory": _number(memory / "memory.usage_in_bytes"),
        "memory_peak": _number(memory / "memory.max_usage_in_bytes"),
        "memory_limit": _number(memory / "memory.limit_in_bytes"),
        "cpu": _seconds(_number(account / "cpuacct.usage"), 1e9),
        "cpu_user": _seconds(_number(account / "cpuacct.usage_user"), 1e9),
        "cpu_system": _seconds(_number(account / "cpuacct.usage_sys"), 1e9),
        "cpu_throttled": _seconds(_table(cpu / "cpu.stat").get("throttled_time"), 1e9),
        "pids": _number(places.get("pids", home) / "pids.current"),
    }


def _disks_of_version_2(path: Path) -> Mapping[str, DiskStatistics]:
    found = {}
    for line in _lines(path):
        disk, *words = line.split()
        counts = {
            key: int(value) for key, _, value in (word.partition("=") for word in words) if value.isdecimal()
        }
        if counts:
            found[disk] = DiskStatistics(
                read_bytes=counts.get("rbytes", 0),
                read_operations=counts.get("rios", 0),
                write_bytes=counts.get("wbytes", 0),
                write_operations=counts.get("wios", 0),
            )
    return MappingProxyType(found)


def _disks_of_version_1(place: Path) -> Mapping[str, DiskStatistics]:
    for name in _BLKIO:
        amounts = _by_disk(_lines(place / name.format("io_service_bytes")))
        counts = _by_disk(_lines(place / name.format("io_serviced")))
        if amounts or counts:
            return MappingProxyType(
                {
                    disk: DiskStatistics(
                        read_bytes=amounts.get((disk, "Read"), 0),
                        read_operations=counts.get((disk, "Read"), 0),
                        write_bytes=amounts.get((disk, "Write"), 0),
                        write_operations=counts.get((disk, "Write"), 0),
                    )
                    for disk in sorted({disk for disk, _ in (*amounts, *counts)})
                }
            )
    return MappingProxyType({})


def _by_disk(lines: Iterable[str]) -> dict[tuple[str, str], int]:
    """Return the numbers of lines such as ``8:0 Read 4096``."""
    words = (line.split() for line in lines)
    return {(each[0], each[1]): int(each[2]) for each in words if len(each) == 3}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """Return the number in a file; None when there is none, or no limit."""
    words = _lines(path)
    return int(words[0]) if words and words[0].isdecimal() and int(words[0]) < _BOUNDLESS else None


def _table(path: Path) -> dict[str, int]:
    """Return the numbers of lines such as ``usage_usec 17``."""
    words = (line.split() for line in _lines(path))
    return {each[0]: int(each[1]) for each in words if len(each) == 2}


def _seconds(amount: int | None, unit: float) -> float | None:
    return None if amount is None else amount / unit
