"""Children stop where they are told, die of SIGKILL, and leave what they had done until then."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from pynetwork.store import SqliteStore
from pynetwork.testing import Child

if TYPE_CHECKING:
    from pathlib import Path

KILLED = -signal.SIGKILL


def write_twice(path: str) -> None:
    from pathlib import Path

    from pynetwork.testing import reach

    Path(path).write_text("once", encoding="ascii")
    print("wrote")  # noqa: T201 - it is what is tested
    reach("middle")
    Path(path).write_text("twice", encoding="ascii")


def apply_until_killed(at: str) -> None:
    from pynetwork.plan import Plan, diff
    from pynetwork.resources import Bridge, LinkUp
    from pynetwork.testing import FakeKernel, SuicidalKernel

    class Loud(FakeKernel):
        def apply(self, steps: object, *, replay: bool = False) -> None:
            super().apply(steps, replay=replay)  # type: ignore[arg-type]
            for step in steps:  # type: ignore[attr-defined]
                print(step.resource.kind, flush=True)  # noqa: T201 - to the parent

    SuicidalKernel(Loud(), int(at)).apply(diff(Plan(), Plan((Bridge(name="br0"), LinkUp(dev="br0")))))


def put_until_killed(directory: str, at: str, after: str) -> None:
    from pynetwork.store import Put, SqliteStore
    from pynetwork.testing import SuicidalStore

    store = SuicidalStore(SqliteStore(directory), int(at), after=bool(after))
    for number in range(9):
        store.transact((), [Put(str(number), "")])


def test_a_child_stops_at_its_point_and_is_killed_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with Child(write_twice, str(file)) as child:
        child.wait_for("middle")
        assert child.kill() == KILLED
    assert child.output == ["wrote"]
    assert file.read_text(encoding="ascii") == "once"
    assert repr(child) == f"<Child(pid={child.pid}, status={KILLED})>"


def test_a_child_may_go_on(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with Child(write_twice, str(file)) as child:
        child.wait_for("middle")
        child.proceed()
        assert child.wait() == 0
        assert child.wait() == 0
    assert file.read_text(encoding="ascii") == "twice"


def test_source_text_gets_its_arguments_and_all_it_prints_is_kept() -> None:
    code = """
        import sys
        print(*sys.argv[1:])
        print("x" * 300_000, end="")
        sys.exit(3)
    """
    with Child(code, "a", "b") as child:
        assert child.wait() == 3
    assert child.output == ["a b", "x" * 300_000]


def test_a_child_that_does_not_get_there_is_an_error() -> None:
    with (
        Child("print('x')") as child,
        pytest.raises(RuntimeError, match="status 0 before it reached 'there'"),
    ):
        child.wait_for("there")
    with Child("from pynetwork.testing import reach; reach('here')") as child:
        with pytest.raises(RuntimeError, match="stopped at 'here', not at 'there'"):
            child.wait_for("there")
        child.proceed()
    with Child("import time; time.sleep(60)", timeout=0.1) as child:
        with pytest.raises(TimeoutError, match="did not reach 'there'"):
            child.wait_for("there")
        with pytest.raises(TimeoutError, match="still runs"):
            child.wait()


def test_what_a_child_left_running_is_not_waited_for() -> None:
    code = f"""
        import subprocess
        from pynetwork.testing import reach
        child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(5)"])
        print(child.pid)
        reach("here")
    """
    with Child(code) as child:
        child.wait_for("here")
        assert child.kill() == KILLED
        assert child.wait() == KILLED
        import os

        os.kill(int(child.output[0]), signal.SIGKILL)


@pytest.mark.parametrize("at", range(4))
def test_a_suicidal_kernel_really_dies(at: int) -> None:
    with Child(apply_until_killed, str(at)) as child:
        assert (KILLED if at < 3 else 0) == child.wait()
    assert ["bridge", "up"][:at] == child.output


@pytest.mark.parametrize("after", ["", "after"])
def test_a_suicidal_store_really_dies(tmp_path: Path, after: str) -> None:
    with Child(put_until_killed, str(tmp_path / "state"), "2", after) as child:
        assert child.wait() == KILLED
    with SqliteStore(tmp_path / "state") as store:
        assert len(store.list("").entries) == (3 if after else 2)
