"""Control groups: where they are found, and what is written where, on pretended hierarchies."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from pynetwork import UnavailableError
from pynetwork.kernel import groups as module
from pynetwork.kernel.figures import DiskStatistics, usage
from pynetwork.kernel.groups import Groups
from pynetwork.kernel.hierarchies import Hierarchies, find_hierarchies
from pynetwork.resources import Cgroup

NAME = "pynetwork-0123456789ab.01234567"
TWO = "memory", "cpu", "pids", "io"


def _mounts(tmp_path: Path, *lines: str) -> Path:
    """Write a mountinfo: of each line the place, the kind and the options count."""
    path = tmp_path / "mountinfo"
    words = (line.split() for line in lines)
    path.write_text(
        "".join(
            f"30 23 0:26 / {place} rw shared:9 - {kind} none rw,{options}\n" for place, kind, options in words
        )
        + "22 1 254:0 / / rw - ext4 /dev/root rw\n"
    )
    return path


def _unified(tmp_path: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    place = tmp_path / "unified"
    place.mkdir(exist_ok=True)
    (place / "cgroup.controllers").write_text(f"{controllers}\n")
    return place


class TestFind:
    """The controllers are where the host has put them."""

    def test_one_hierarchy_of_version_2(self, tmp_path: Path) -> None:
        place = _unified(tmp_path)
        found = find_hierarchies(_mounts(tmp_path, f"{place} cgroup2 nsdelegate"))
        assert (found.version, found.home, found.roots, found.problem) == (2, place, (place,), "")
        assert set(found.controllers) == set(TWO)

    def test_version_2_without_controllers_is_enough_when_there_is_nothing_else(self, tmp_path: Path) -> None:
        place = _unified(tmp_path, "")
        found = find_hierarchies(_mounts(tmp_path, f"{place} cgroup2 x"))
        assert (found.version, found.controllers, found.problem) == (2, {}, "")

    def test_beside_version_1_it_counts_when_it_has_the_controllers(self, tmp_path: Path) -> None:
        place, other = _unified(tmp_path, "memory pids"), tmp_path / "freezer"
        other.mkdir()
        lines = (f"{place} cgroup2 x", f"{other} cgroup freezer")
        assert find_hierarchies(_mounts(tmp_path, *lines)).version == 2
        _unified(tmp_path, "hugetlb")
        found = find_hierarchies(_mounts(tmp_path, *lines))
        assert (found.version, found.home, found.controllers) == (1, other, {"freezer": other})

    def test_of_version_1_pids_are_at_home(self, tmp_path: Path) -> None:
        places = {name: tmp_path / name for name in ("blkio", "cpu,cpuacct", "pids", "memory", "systemd")}
        for place in places.values():
            place.mkdir()
        lines = [f"{place} cgroup {name}" for name, place in places.items() if name != "systemd"]
        found = find_hierarchies(_mounts(tmp_path, *lines, f"{places['systemd']} cgroup xattr,name=systemd"))
        assert (found.version, found.home) == (1, places["pids"])
        assert found.controllers == {
            "pids": places["pids"],
            "memory": places["memory"],
            "cpu": places["cpu,cpuacct"],
            "cpuacct": places["cpu,cpuacct"],
            "io": places["blkio"],
        }
        assert len(found.roots) == 4

    def test_where_there_are_none_or_they_cannot_be_written_it_says_so(self, tmp_path: Path) -> None:
        assert "no control groups are mounted" in find_hierarchies(_mounts(tmp_path)).problem
        assert "no control groups are mounted" in find_hierarchies(tmp_path / "missing").problem
        gone = f"{tmp_path}/gone"
        assert (
            find_hierarchies(_mounts(tmp_path, f"{gone} cgroup pids")).problem == f"{gone} cannot be written"
        )


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Version 2 as directories: a new group has the files that the kernel would give it."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")

    real = os.mkdir

    def make(path: str, mode: int) -> None:
        real(path, mode)
        for name, text in (("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max")):
            (Path(path) / name).write_text(text)

    monkeypatch.setattr(os, "mkdir", make)
    return Groups(lambda: Hierarchies(version=2, home=tmp_path, controllers=dict.fromkeys(TWO, tmp_path)))


class TestLimits:
    """What is written where. That it limits is shown where a kernel has the controllers."""

    def test_version_2_has_its_own_words(self, two: Groups, tmp_path: Path) -> None:
        group = Cgroup(path=NAME, memory=1 << 20, cpus=1.5, pids=7)
        two.make(group)
        said = {name: (tmp_path / NAME / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")}
        # In memory a shorter text leaves what the old one had more; the kernel reads what is written.
        assert said["memory.max"] == "1048576"
        assert said["cpu.max"].startswith("150000 100000")
        assert said["pids.max"].startswith("7")

    def test_what_is_as_wanted_is_seen_to_be(self, two: Groups, tmp_path: Path) -> None:
        group = Cgroup(path=NAME, memory=(1 << 20) + 1, cpus=1.5, pids=7)
        assert two.seen(group) is None
        two.make(group)
        (tmp_path / NAME / "memory.max").write_text("1048576\n")  # the kernel counts in pages
        (tmp_path / NAME / "pids.max").write_text("7\n")
        assert two.seen(group) == group
        assert two.seen(Cgroup(path=NAME)) == Cgroup(path=NAME, memory=1 << 20, cpus=1.5, pids=7)

    def test_limits_that_are_no_more_wanted_are_taken_back(self, two: Groups, tmp_path: Path) -> None:
        two.make(Cgroup(path=NAME, pids=7))
        (tmp_path / NAME / "pids.max").write_text("")
        two.make(Cgroup(path=NAME))
        assert (tmp_path / NAME / "pids.max").read_text() == "max"

    def test_controllers_are_offered_below_once(self, two: Groups, tmp_path: Path) -> None:
        two.make(Cgroup(path=NAME))
        control = tmp_path / "cgroup.subtree_control"
        assert control.read_text().startswith("+")
        control.write_text("")
        two.make(Cgroup(path=f"{NAME}x"))
        assert control.read_text() == ""

    def test_a_controller_that_is_not_there_limits_nothing(self, tmp_path: Path) -> None:
        groups = Groups(lambda: Hierarchies(version=2, home=tmp_path))
        groups.make(Cgroup(path=NAME))
        with pytest.raises(UnavailableError, match="memory cannot be limited"):
            groups.make(Cgroup(path=NAME, memory=1 << 20))

    def test_groups_are_told_by_the_end_of_their_names(self, two: Groups, tmp_path: Path) -> None:
        for path in ("a.01234567", "a.76543210", "jobs", "jobs/b.01234567", "jobs/c"):
            (tmp_path / path).mkdir()
        assert list(two.strangers({"jobs"}, ".01234567")) == ["a.01234567", "jobs/b.01234567"]
        assert list(two.strangers({"missing"}, ".01234567")) == ["a.01234567"]


def test_a_group_that_stays_busy_is_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "tasks").write_text("")

    def busy(path: str) -> None:
        raise OSError(errno.EBUSY, "busy", path)

    monkeypatch.setattr(os, "rmdir", busy)
    monkeypatch.setattr(module, "_KILL_SECONDS", 0.01)
    groups = Groups(lambda: Hierarchies(version=1, home=tmp_path, controllers={"pids": tmp_path}))
    with pytest.raises(OSError, match=NAME):
        groups.remove(Cgroup(path=NAME))


@pytest.mark.parametrize(("version", "file"), [(1, "tasks"), (2, "cgroup.procs")])
def test_a_process_that_cannot_be_seen_from_here_is_nobody_to_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, file: str
) -> None:
    """The kernel shows those of a pid namespace outside of ours as 0, which kill(2) takes for ourselves."""
    (tmp_path / NAME / "inner").mkdir(parents=True)
    (tmp_path / NAME / file).write_text("0\n")
    (tmp_path / NAME / "inner" / file).write_text(f"0\n{os.getpid()}\n")
    signalled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
    groups = Groups(partial(Hierarchies, version=version, home=tmp_path))
    assert groups.pids(NAME) == [os.getpid()]
    with pytest.raises(UnavailableError, match=f"processes {os.getpid()} in control group"):
        groups.kill(NAME, seconds=0)
    assert set(signalled) == {os.getpid()}


class TestFigures:
    """What the files of a group say."""

    def test_version_2(self, tmp_path: Path) -> None:
        place = tmp_path / NAME
        place.mkdir()
        for name, text in {
            "memory.current": "4096\n",
            "memory.peak": "8192\n",
            "memory.max": "max\n",
            "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nthrottled_usec 250000\n",
            "pids.current": "3\n",
            "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n",
        }.items():
            (place / name).write_text(text)
        groups = Groups(
            lambda: Hierarchies(version=2, home=tmp_path, controllers=dict.fromkeys(TWO, tmp_path))
        )
        assert usage(groups, NAME) == {
            "memory": 4096,
            "memory_peak": 8192,
            "memory_limit": None,
            "cpu": 1.5,
            "cpu_user": 1.0,
            "cpu_system": 0.5,
            "cpu_throttled": 0.25,
            "pids": 3,
            "disks": {
                "8:0": DiskStatistics(
                    read_bytes=4096, read_operations=1, write_bytes=8192, write_operations=2
                )
            },
        }

    def test_version_1(self, tmp_path: Path) -> None:
        places = {name: tmp_path / name for name in ("pids", "memory", "cpu", "cpuacct", "io")}
        for place in places.values():
            (place / NAME).mkdir(parents=True)
        for path, text in {
            "memory/x/memory.usage_in_bytes": "4096\n",
            "memory/x/memory.max_usage_in_bytes": "8192\n",
            "memory/x/memory.limit_in_bytes": "9223372036854771712\n",
            "cpuacct/x/cpuacct.usage": "1500000000\n",
            "cpuacct/x/cpuacct.usage_user": "1000000000\n",
            "cpuacct/x/cpuacct.usage_sys": "500000000\n",
            "cpu/x/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 250000000\n",
            "pids/x/pids.current": "3\n",
            "io/x/blkio.throttle.io_service_bytes_recursive": "Total 0\n",
            "io/x/blkio.bfq.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\nTotal 12288\n",
            "io/x/blkio.bfq.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
        }.items():
            (tmp_path / path.replace("/x/", f"/{NAME}/")).write_text(text)
        groups = Groups(lambda: Hierarchies(version=1, home=places["pids"], controllers=places))
        found = usage(groups, NAME)
        assert found["memory_limit"] is None
        assert (found["memory"], found["memory_peak"], found["pids"]) == (4096, 8192, 3)
        assert [found[name] for name in ("cpu", "cpu_user", "cpu_system", "cpu_throttled")] == [
            1.5,
            1.0,
            0.5,
            0.25,
        ]
        assert found["disks"] == {
            "8:0": DiskStatistics(read_bytes=4096, read_operations=1, write_bytes=8192, write_operations=2)
        }

    def test_what_is_not_counted_is_none(self, tmp_path: Path) -> None:
        for version in (1, 2):
            groups = Groups(partial(Hierarchies, version=version, home=tmp_path))
            found = usage(groups, NAME)
            assert found.pop("disks") == {}
            assert set(found.values()) == {None}
