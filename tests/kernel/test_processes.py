"""Processes in a sandbox: where they are, how they end; in control groups of both versions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import cannot_run

from pynetwork import ApplyError, Controller, InvalidValueError, NotFoundError, Surroundings, UnavailableError
from pynetwork.kernel.groups import Groups
from pynetwork.kernel.hierarchies import Hierarchies, find_hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork import Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

UNIFIED = Path("/sys/fs/cgroup/unified")
# A shell that says when it is ready, so that nothing is stopped before it has set its traps.
READY = "echo ready; "
FOREVER = "while :; do sleep 60 & wait; done"


def _version_2() -> Hierarchies:
    """Version 2 as it is here: without controllers where version 1 has them."""
    found = find_hierarchies()
    if found.version == 2:
        return found
    if not (UNIFIED / "cgroup.procs").exists():
        cannot_run("no hierarchy of version 2 is mounted")
    return Hierarchies(version=2, home=UNIFIED)


@pytest.fixture(params=["as it is here", "version 2"])
def sandbox(request: pytest.FixtureRequest, controller: Controller) -> Iterator[Sandbox]:
    """A sandbox on a network, with groups of this host's kind and of the other."""
    kernel = controller._core.engine.kernel
    if request.param == "version 2":
        kernel.groups = Groups(_version_2)  # type: ignore[attr-defined]  # the port has none
    sandbox = controller.new_sandbox("s", hostname="web")
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    network.create_endpoint("e").join(sandbox)
    yield sandbox
    sandbox.delete(missing_ok=True)
    assert _groups_of(controller) == []


def _groups_of(controller: Controller) -> list[Path]:
    """Return the control groups that an instance has left anywhere."""
    suffix = f".{controller._core.instance[:8]}"
    places = [*Path("/sys/fs/cgroup").iterdir(), Path("/sys/fs/cgroup")]
    return [group for place in places if place.is_dir() for group in place.glob(f"pynetwork-*{suffix}")]


def _start(sandbox: Sandbox, script: str) -> subprocess.Popen[str]:
    """Start a shell in a sandbox, and wait until it says that it is ready."""
    process = sandbox.popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _reap(*processes: subprocess.Popen[str]) -> list[int]:
    """Return how processes ended."""
    for process in processes:
        if process.stdout is not None:
            process.stdout.close()
    return [process.wait(10) for process in processes]


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class TestStart:
    """Starting a program: as subprocess does, elsewhere."""

    def test_it_is_in_the_namespace_and_in_the_group(self, sandbox: Sandbox) -> None:
        assert sandbox.netns_path is not None
        script = "readlink /proc/self/ns/net; cat /proc/self/cgroup; hostname; ip -o address show eth0"
        said = sandbox.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
        assert f"net:[{sandbox.netns_path.stat().st_ino}]\n" in said
        assert sandbox.cgroup is not None
        assert f"/{sandbox.cgroup.name}\n" in said
        assert "\nweb\n" in said
        assert "10.88.0.2/24" in said

    def test_no_thread_of_the_caller_goes_anywhere(self, sandbox: Sandbox) -> None:
        def places() -> set[str]:
            found = {
                str(Path(f"/proc/thread-self/ns/{kind}").readlink())
                for kind in ("net", "mnt", "uts", "cgroup")
            }
            return found | set(Path("/proc/thread-self/cgroup").read_text().splitlines())

        sandbox.run(["true"])  # whatever threads are needed are there now
        before, threads = places(), threading.active_count()
        sandbox.run(["true"])
        with pytest.raises(FileNotFoundError):
            sandbox.run(["no-such-program"])
        assert (places(), threading.active_count()) == (before, threads)

    def test_what_subprocess_knows_is_known_here(
        self, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def said(script: str, **options: Any) -> str:
            argv = ["/bin/sh", "-c", script]
            return str(sandbox.run(argv, capture_output=True, text=True, **options).stdout)

        monkeypatch.chdir(tmp_path)
        assert said("pwd") == f"{tmp_path}\n"
        assert said("pwd", cwd="/usr") == "/usr\n"
        assert said("echo $X", env={"X": "1"}) == "1\n"
        assert said("id -u", user="nobody", group="nogroup", extra_groups=[]) == "65534\n"
        assert said("umask", umask=0o27) == "0027\n"
        assert sandbox.run(["sh", "-c", "exit 7"]).returncode == 7
        assert sandbox.run(["sh", "-c", "kill -9 $$"]).returncode == -9
        assert sandbox.run(["cat"], input=b"x", capture_output=True).stdout == b"x"
        with pytest.raises(subprocess.TimeoutExpired):
            sandbox.run(["sleep", "60"], timeout=0.05)

    @pytest.mark.parametrize("argv", [["no-such-program"], ["/no/such/program"], ["./no-such-program"]])
    def test_a_program_that_is_not_there_is_what_subprocess_says_it_is(
        self, sandbox: Sandbox, argv: list[str]
    ) -> None:
        with pytest.raises(FileNotFoundError) as theirs:
            subprocess.run(argv, check=False)
        with pytest.raises(FileNotFoundError) as ours:
            sandbox.run(argv)
        assert (ours.value.errno, ours.value.filename) == (theirs.value.errno, theirs.value.filename)

    def test_arguments_are_passed_on_to_the_letter(self, sandbox: Sandbox) -> None:
        words = ["$(id)", "a b", "'", '"', "`", "\\", "", "-n", "*", "\n"]
        done = sandbox.run(["printf", "%s|", *words], capture_output=True, text=True)
        assert done.stdout == "".join(f"{word}|" for word in words)
        assert done.args == ["printf", "%s|", *words]

    def test_a_process_becomes_a_program_in_it(self, sandbox: Sandbox) -> None:
        """The pid stays, so whoever started the one waits for the other."""
        code = """
            try:
                sandbox.exec(["no-such-program"])
            except FileNotFoundError:
                print(os.getpid(), flush=True)
            sandbox.exec(["sh", "-c", "echo $$; cat /etc/hostname /proc/self/cgroup; echo $X"], {"X": "1",
                "PATH": os.environ["PATH"]})
        """
        done = _run_elsewhere(sandbox, code)
        assert done.returncode == 0, done.stderr
        before, after, name, *groups, x = done.stdout.splitlines()
        assert (before, name, x) == (after, "web", "1")
        assert sandbox.cgroup is not None
        assert any(line.endswith(f"/{sandbox.cgroup.name}") for line in groups)

    def test_nothing_starts_in_a_sandbox_that_is_gone(self, sandbox: Sandbox) -> None:
        sandbox.delete()
        with pytest.raises(NotFoundError):
            sandbox.run(["true"])

    def test_a_group_that_somebody_took_away_is_missed_and_repaired(
        self, controller: Controller, sandbox: Sandbox
    ) -> None:
        assert sandbox.cgroup is not None
        sandbox.cgroup.rmdir()
        with pytest.raises(ApplyError, match="no program can be started"):
            sandbox.run(["true"])
        report = controller.reconcile()
        assert [step.resource.kind for step in report.repaired] == ["cgroup"]
        assert sandbox.run(["true"]).returncode == 0


def _is_on_disk(path: Path) -> bool:
    """Tell whether a file system has a disk of its own (Documentation/admin-guide/devices.txt: 0 is none)."""
    return os.major(path.stat().st_dev) != 0


def _run_elsewhere(sandbox: Sandbox, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with a controller and the sandbox, and groups of the same kind."""
    before = f"""
        import os, signal
        from pathlib import Path
        from pynetwork import Controller
        from pynetwork.kernel.groups import Groups
        from pynetwork.kernel.hierarchies import Hierarchies, find_hierarchies
        controller = Controller()
        if {_version(sandbox)} != find_hierarchies().version:
            controller._core.engine.kernel.groups = Groups(
                lambda: Hierarchies(version=2, home=Path({str(UNIFIED)!r}))
            )
        sandbox = controller.sandboxes["s"]
    """
    argv = [sys.executable, "-c", textwrap.dedent(before) + textwrap.dedent(code)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _version(sandbox: Sandbox) -> int:
    return int(sandbox._core.engine.kernel.groups.hierarchies.version)  # type: ignore[attr-defined]


class TestStop:
    """Ending processes: all of them, and all of them are named."""

    def test_who_ends_when_asked_and_who_does_not(self, sandbox: Sandbox) -> None:
        polite = _start(sandbox, f"trap 'exit 3' TERM; {READY}{FOREVER}")
        stubborn = _start(sandbox, f"trap '' TERM; {READY}{FOREVER}")
        stopped = sandbox.stop(timeout=0.3)
        assert {polite.pid, stubborn.pid} <= {each.pid for each in (*stopped.ended, *stopped.killed)}
        assert polite.pid in {each.pid for each in stopped.ended}
        assert stubborn.pid in {each.pid for each in stopped.killed}
        assert next(each for each in stopped.killed if each.pid == stubborn.pid).argv[:2] == ("sh", "-c")
        assert _reap(polite, stubborn) == [3, -signal.SIGKILL]
        assert sandbox.processes() == ()

    def test_each_sandbox_has_its_own_word_for_it(self, controller: Controller) -> None:
        sandbox = controller.new_sandbox("own", stop_signal="USR1")
        process = _start(sandbox, f"trap 'exit 4' USR1; trap 'exit 5' INT; {READY}{FOREVER}")
        assert process.pid in {each.pid for each in sandbox.stop().ended}
        assert _reap(process) == [4]
        # What a shell starts in the background takes no notice of INT, and would be waited for.
        loop = "while :; do sleep 0.1; done"
        process = _start(sandbox, f"trap 'exit 4' USR1; trap 'exit 5' INT; {READY}{loop}")
        sandbox.stop(signal="INT")
        assert _reap(process) == [5]

    def test_a_process_that_was_halted_is_woken_to_end(self, sandbox: Sandbox) -> None:
        process = _start(sandbox, f"trap 'exit 3' TERM; {READY}{FOREVER}")
        os.kill(process.pid, signal.SIGSTOP)
        sandbox.stop()
        assert _reap(process) == [3]

    def test_a_daemon_that_went_away_from_everybody_is_found(
        self, sandbox: Sandbox, soon: Callable[[Callable[[], bool]], bool]
    ) -> None:
        process = _start(sandbox, f"(setsid sleep 61 &) ; {READY}")
        assert _reap(process) == [0]
        assert soon(lambda: [each.name for each in sandbox.processes()] == ["sleep"])
        (daemon,) = sandbox.processes()
        assert daemon.argv == ("sleep", "61")
        assert Path(f"/proc/{daemon.pid}/stat").read_text().split()[3] != str(os.getpid())
        assert sandbox.stop().ended == (daemon,)
        assert not _is_running(daemon.pid)

    def test_to_delete_is_to_kill(self, sandbox: Sandbox) -> None:
        process = _start(sandbox, f"trap '' TERM; {READY}{FOREVER}")
        sandbox.delete()
        assert _reap(process) == [-signal.SIGKILL]

    def test_what_a_dead_process_started_is_ended_by_the_next(self, sandbox: Sandbox) -> None:
        code = """
            nowhere = open(os.devnull, "r+b")
            print(sandbox.popen(["sleep", "61"], stdout=nowhere, stderr=nowhere).pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
        done = _run_elsewhere(sandbox, code)
        assert done.returncode == -signal.SIGKILL, done.stderr
        orphan = int(done.stdout)
        assert [each.pid for each in sandbox.processes()] == [orphan]
        sandbox.delete()
        assert not _is_running(orphan)

    @pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", None, True])
    def test_a_time_that_is_none_is_refused_before_anybody_is_asked(
        self, sandbox: Sandbox, timeout: Any
    ) -> None:
        process = _start(sandbox, f"{READY}exec sleep 61")
        for call in (lambda: sandbox.stop(timeout=timeout), lambda: next(sandbox.stream_stats(timeout))):
            with pytest.raises(InvalidValueError, match="a number of seconds is expected"):
                call()
        with pytest.raises(InvalidValueError, match="invalid signal"):
            sandbox.stop(signal="SIGNOTHING")
        assert process.poll() is None
        sandbox.stop()
        _reap(process)

    def test_an_empty_sandbox_is_stopped_at_once(self, sandbox: Sandbox) -> None:
        stopped = sandbox.stop(timeout=60)
        assert (stopped.ended, stopped.killed) == ((), ())

    def test_groups_that_processes_made_below_go_too(self, sandbox: Sandbox) -> None:
        group = sandbox.cgroup
        assert group is not None
        inner = group / "inner" / "most"
        inner.mkdir(parents=True)
        process = _start(sandbox, f"echo 0 > {inner}/cgroup.procs; {READY}exec sleep 61")
        assert [each.pid for each in sandbox.processes()] == [process.pid]
        sandbox.delete()
        assert not group.exists()
        assert _reap(process) == [-signal.SIGKILL]

    def test_who_starts_processes_meanwhile_is_not_hit(self, sandbox: Sandbox) -> None:
        """For a moment a thread of ours is in the group; its process is not, and lives."""
        ends = threading.Event()
        failures: list[BaseException] = []

        def keep_starting() -> None:
            while not ends.is_set():
                try:
                    sandbox.run(["true"])
                except BlockingIOError:
                    pass  # it was just being emptied
                except BaseException as error:  # noqa: BLE001 - told below
                    failures.append(error)

        threads = [threading.Thread(target=keep_starting) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            sandbox.stop(signal="KILL", timeout=0.05)
        ends.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sandbox.run(["true"]).returncode == 0


@pytest.fixture
def bomb(controller: Controller) -> Sandbox:
    """A sandbox whose processes may be forty."""
    if not find_hierarchies().controllers.get("pids"):
        cannot_run("this host has no controller of pids")
    return controller.new_sandbox("bomb", limits={"pids": 40})


class TestLimits:
    """What processes may use together."""

    def test_a_fork_bomb_goes_off_in_its_group_and_is_put_out(
        self, bomb: Sandbox, soon: Callable[[Callable[[], bool]], bool]
    ) -> None:
        code = "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.001)"
        process = bomb.popen([sys.executable, "-S", "-E", "-c", code], text=True)
        while len(bomb.processes()) < 31:
            assert process.poll() is None
        assert 30 < (bomb.stats().pids or 0) <= 40
        stopped = bomb.stop(signal="CONT", timeout=0.1)
        assert len(stopped.killed) > 30
        assert bomb.processes() == ()
        assert _reap(process) == [-signal.SIGKILL]
        # Those that whoever has inherited them has not waited for yet count until then.
        assert soon(lambda: bomb.stats().pids == 0)
        assert bomb.run(["true"]).returncode == 0  # nobody is kept from anything any more

    def test_a_process_that_died_while_it_put_one_out_keeps_nobody_from_starting(self, bomb: Sandbox) -> None:
        assert bomb.cgroup is not None
        if _version(bomb) == 2:
            pytest.skip("in version 2 the kernel ends all processes in one go")
        file = bomb._core.engine.kernel.groups._file(bomb.cgroup.name, "pids")  # type: ignore[attr-defined]
        Path(file).write_text("0")
        assert bomb.run(["true"]).returncode == 0
        assert Path(file).read_text() == "40\n"

    def test_limits_are_in_force_seen_and_repaired(self, controller: Controller) -> None:
        found = find_hierarchies()
        if not {"memory", "cpu", "pids"} <= set(found.controllers):
            cannot_run("this host does not have these controllers")
        sandbox = controller.new_sandbox("s", limits={"memory": (16 << 20) + 1, "cpus": 0.5, "pids": 20})
        assert controller.reconcile().is_clean
        code = "x = bytearray(64 << 20); print(len(x))"
        assert sandbox.run([sys.executable, "-S", "-c", code], capture_output=True).returncode == -9
        assert sandbox.stats().memory_limit == 16 << 20
        group = controller._core.engine.kernel.groups  # type: ignore[attr-defined]
        name = sandbox.cgroup.name if sandbox.cgroup else ""
        for controller_name in ("memory", "cpu", "pids"):
            group._limit(name, controller_name, None)
            report = controller.reconcile()
            assert [step.resource.kind for step in report.repaired] == ["cgroup"], controller_name
            assert controller.reconcile().is_clean

    def test_a_parent_is_its_owners(self, controller: Controller) -> None:
        home = find_hierarchies().home
        parent = home / f"jobs-{os.getpid()}"
        with pytest.raises(ApplyError, match="does not exist: it is for its owner to make"):
            controller.new_sandbox("s", cgroup_parent=parent.name)
        assert dict(controller.sandboxes) == {}
        parent.mkdir()
        try:
            sandbox = controller.new_sandbox("s", cgroup_parent=parent.name)
            assert sandbox.cgroup is not None
            assert sandbox.cgroup.parent == parent
            assert sandbox.run(["true"]).returncode == 0
            stray = parent / f"pynetwork-0123456789ab.{controller._core.instance[:8]}"
            stray.mkdir()
            (parent / "somebody").mkdir()
            assert len(controller.reconcile().pruned) == 1
            sandbox.delete()
            assert [path.name for path in parent.iterdir() if path.is_dir()] == ["somebody"]
        finally:
            (parent / "somebody").rmdir()
            parent.rmdir()


class TestFigures:
    """What a sandbox uses and used."""

    def test_what_was_used_is_counted(self, controller: Controller, sandbox: Sandbox) -> None:
        process = _start(sandbox, f"{READY}ping -c 3 -i 0.01 10.88.0.1 >&2; {FOREVER}")
        before = sandbox.stats()
        code = "x = bytearray(32 << 20); sum(range(3_000_000))"
        sandbox.run([sys.executable, "-S", "-c", code], check=True)
        sandbox.run(["ping", "-c", "2", "-i", "0.01", "10.88.0.1"], capture_output=True, check=True)
        after = sandbox.stats()
        assert after.time > before.time
        assert after.interfaces["eth0"].tx_bytes > before.interfaces["eth0"].tx_bytes
        assert after.interfaces["eth0"].rx_packets >= 2
        counted = set(controller._core.engine.kernel.groups.hierarchies.controllers)  # type: ignore[attr-defined]
        if "cpuacct" in counted or _version(sandbox) == 2:
            assert after.cpu is not None
            assert before.cpu is not None
            assert after.cpu - before.cpu > 0.01
        if "memory" in counted:
            assert after.memory_peak is not None
            assert after.memory_peak > 32 << 20
        if "pids" in counted:
            assert after.pids == 2
        sandbox.stop(timeout=0)
        _reap(process)

    def test_disks_are_counted_by_bytes_and_operations(self, controller: Controller, tmp_path: Path) -> None:
        if "io" not in find_hierarchies().controllers:
            cannot_run("this host does not have this controller")
        sandbox = controller.new_sandbox("s")
        self._count(sandbox, tmp_path)
        if not _is_on_disk(tmp_path):
            pytest.skip("files in memory use no disk")
        argv = ["dd", "if=/dev/zero", f"of={tmp_path}/x", "bs=64K", "count=16", "oflag=direct"]
        assert sandbox.run(argv, capture_output=True).returncode == 0
        disks = sandbox.stats().disks
        assert sum(disk.write_bytes for disk in disks.values()) >= 1 << 20
        assert sum(disk.write_operations for disk in disks.values()) >= 1

    def _count(self, sandbox: Sandbox, path: Path) -> None:
        """Have version 1 count: it does when somebody has a rule for the disk, or the scheduler is bfq."""
        if _version(sandbox) == 1:
            assert sandbox.stats().time  # now all directories are there
            place = find_hierarchies().controllers["io"] / (sandbox.cgroup.name if sandbox.cgroup else "")
            device = path.stat().st_dev
            rule = f"{os.major(device)}:{os.minor(device)} 1000000000000"
            (place / "blkio.throttle.write_bps_device").write_text(rule)

    def test_they_come_as_long_as_the_sandbox_is_there(self, controller: Controller) -> None:
        sandbox = controller.new_sandbox("s")
        seen = []
        for stats in sandbox.stream_stats(0.001):
            seen.append(stats.time)
            if len(seen) == 3:
                sandbox.delete()
        assert len(seen) == 3
        assert seen == sorted(seen)


def test_without_control_groups_the_namespace_tells_who_is_in_it(host: PrivateHost) -> None:
    around = Surroundings(cgroup_problem=lambda: "they are not mounted")
    with Controller(surroundings=around) as controller:
        sandbox = controller.new_sandbox("s")
        assert (sandbox.cgroup, sandbox.cgroup_problem) == (None, "they are not mounted")
        with pytest.raises(UnavailableError, match="cannot be limited: they are not mounted"):
            controller.new_sandbox("t", limits={"pids": 9})
        process = _start(sandbox, f"trap '' TERM; {READY}{FOREVER}")
        assert process.pid in {each.pid for each in sandbox.processes()}
        assert process.pid in {each.pid for each in sandbox.stop(timeout=0.05).killed}
        assert _reap(process) == [-signal.SIGKILL]
        assert sandbox.stats().memory is None
        shared = controller.new_sandbox("host", netns="host")
        with pytest.raises(UnavailableError, match="cannot be told from the host's"):
            shared.processes()
        assert shared.run(["true"]).returncode == 0
        survivor = _start(sandbox, f"{READY}exec sleep 61")
        sandbox.delete()
        assert survivor.poll() is None
        survivor.kill()
        _reap(survivor)
        controller.erase()


@pytest.mark.timeout(300)
def test_a_thousand_sandboxes_leave_nothing(host: PrivateHost) -> None:
    controller = Controller()
    processes = []
    for number in range(1000):
        sandbox = controller.new_sandbox(f"s{number}")
        if not number % 20:
            processes.append(sandbox.popen(["sleep", "61"]))
        if not number % 10:
            assert sandbox.hosts_path.exists()
        if number % 3:
            sandbox.delete()
    assert len(controller.sandboxes) == 334
    controller.erase()
    assert {process.wait(10) for process in processes} == {-signal.SIGKILL}
    assert _groups_of(controller) == []
    assert not Path("/run/pynetwork/files").exists()
