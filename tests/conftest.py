"""What all tests share: the ``root`` marker, checks that nothing is left behind, and private hosts."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytest.register_assert_rewrite("tests.store_contract", "tests.store_model")

# No test is about time: a machine may be slow.
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")

CLONE_NEWNET = 0x40000000
STATE_DIRECTORIES = (Path("/run/pynetwork"), Path("/var/lib/pynetwork"))
PRIVATE_HOST_MARK = ".made-by-pynetwork-testing"  # of private hosts, another process's perhaps
GRACE_SECONDS = 2.0  # what goes asynchronously may take that long
PRIVATE_HOST_SECONDS = 60


def in_ci() -> bool:
    """Return whether a test that cannot run here is a failure."""
    return os.environ.get("CI", "") not in {"", "0", "false"}


@functools.cache
def why_no_root() -> str | None:
    """Return why tests that need root cannot run here, or None when they can."""
    if os.geteuid() != 0:
        return "needs root"
    errors = []

    def make_namespace() -> None:  # in a thread of its own: it ends with the thread
        libc = ctypes.CDLL(None, use_errno=True)
        errors.append(ctypes.get_errno() if libc.unshare(CLONE_NEWNET) else 0)

    thread = threading.Thread(target=make_namespace)
    thread.start()
    thread.join()
    return f"cannot make a network namespace: {os.strerror(errors[0])}" if errors[0] else None


def cannot_run(reason: str) -> None:
    """Skip the test, or fail it in CI."""
    if in_ci():
        pytest.fail(f"cannot run, and CI is set: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """
    Return how many tests ``-n auto`` runs at once: twice as many as there are processors.

    Those of the kernel wait for it, and for other processes, for more than half of their time.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # as somebody says
    return max(1, len(os.sched_getaffinity(0)) * 2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked ``root`` where they cannot run."""
    if item.get_closest_marker("root") and (reason := why_no_root()):
        cannot_run(reason)


def observe_process() -> Counter[str]:
    """Count the open descriptors by kind, and the threads by name."""
    found = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a Path per descriptor is ten times slower
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            target = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - likewise
            found["descriptor " + re.sub(r"\[\d+\]", "", target)] += 1
    return found


def observe_host() -> Counter[str]:
    """Count the links, pinned namespaces and state files of the host, and the children of this process."""
    found = Counter(f"link {name}" for _, name in socket.if_nameindex())
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found.update(f"namespace {line.split()[4]}" for line in lines if " - nsfs " in line)
    found.update(
        f"file {path}"
        for directory in STATE_DIRECTORIES
        for path in directory.rglob("*")
        if path.name != PRIVATE_HOST_MARK
    )
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found.update(f"child {pid}" for pid in (task / "children").read_text(encoding="ascii").split())
    return found


def observe_all() -> Counter[str]:
    return observe_host() + observe_process()


def grown(observe: Callable[[], Counter[str]], before: Counter[str]) -> list[str]:
    """Return what is there in excess of *before*, after some patience."""
    deadline = time.monotonic() + GRACE_SECONDS
    while (excess := observe() - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    return sorted(excess.elements())


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_session() -> Iterator[None]:
    """Fail the session when the tests leave something on the host or in this process."""
    gc.collect()
    before = observe_all()
    yield
    gc.collect()
    if left := grown(observe_all, before):
        pytest.fail(f"the tests left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture(autouse=True)
def nothing_left_by_root_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test marked ``root`` that leaves descriptors or threads."""
    if request.node.get_closest_marker("root") is None:
        yield
        return
    before = observe_process()
    yield
    if left := grown(observe_process, before):
        pytest.fail(f"the test left behind: {', '.join(left)}", pytrace=False)


class RunPrivately(Protocol):
    """Runs a program on a private host, see `run_privately`."""

    def __call__(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run_privately() -> RunPrivately:
    """Return a function that runs a program in its own network and mount namespaces; see private_host.py."""

    def run(argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        runner = Path(__file__).with_name("private_host.py")
        return subprocess.run(
            [
                *("unshare", "--net", "--mount", "--propagation", "private"),
                *(sys.executable, runner, str(PRIVATE_HOST_SECONDS), *argv),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
