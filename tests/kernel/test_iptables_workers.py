"""The workers that write iptables end when they should, and who needs one that died gets another."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.kernel.iptables_hosts import (
    ID,
    OTHER,
    PLAN,
    create,
    everything,
    firewall,
    saved,
)

from pynetwork.errors import UnavailableError
from pynetwork.kernel.firewall import RulesRefusedError, choose_firewall, open_firewall
from pynetwork.kernel.netns import Namespaces
from pynetwork.plan import Plan, diff
from pynetwork.resources import Ruleset
from pynetwork.testing import Child, private_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.iptables import wire


pytestmark = pytest.mark.root


def publish(instance: str, start: str) -> None:
    from pynetwork.kernel.iptables.firewall import IptablesFirewall
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.plan import Plan, diff
    from pynetwork.resources import PublishedPort, Ruleset
    from pynetwork.testing import reach

    namespaces = Namespaces()
    made = IptablesFirewall(instance, namespaces.home)
    made.apply(diff(Plan(), Plan((Ruleset(),))))
    reach("ready")
    for number in range(int(start), int(start) + 100):
        new = PublishedPort(proto="tcp", first=number, last=number, target="10.88.0.2", target_first=number)
        made.apply(diff(Plan(), Plan((new,))))
    reach("done")


def test_two_processes_at_once_lose_nothing() -> None:
    with private_host() as host, Child(publish, ID, "1000") as one, Child(publish, OTHER, "2000") as two:
        for child in (one, two):
            child.wait_for("ready")
        for child in (one, two):
            child.proceed()
        for child in (one, two):
            child.wait_for("done")
        rules = [line for line in saved(host, 4) if "--dport" in line and "DNAT" in line]
        assert len(rules) == 200
        for instance, child in ((ID, one), (OTHER, two)):
            child.kill()
            with firewall(instance) as made:
                made.remove()
        assert everything(host) == []


def workers_of(pid: int) -> set[int]:
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def until(test: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_workers_end_when_their_parent_is_killed() -> None:
    with private_host(), Child(publish, ID, "1000") as child:
        child.wait_for("ready")
        workers = workers_of(child.pid)
        assert len(workers) == 2
        child.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        with firewall() as made:
            made.remove()


def test_workers_are_started_when_needed_and_leave_no_zombie() -> None:
    with private_host():
        before = workers_of(os.getpid())
        with firewall() as made:
            assert workers_of(os.getpid()) == before
            create(made, Ruleset())
            assert len(workers_of(os.getpid()) - before) == 2
            made.close()
            assert workers_of(os.getpid()) == before
            made.remove()
            made.close()
        assert workers_of(os.getpid()) == before


def test_a_worker_starts_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which ``ctypes`` does in search of a library, half a second each time."""
    started = tmp_path / "started"
    for name in ("gcc", "cc", "ld"):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\necho {name} >> {started}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with private_host(), firewall() as made:
        create(made, Ruleset())
        made.remove()
    assert not started.exists()


def test_a_worker_that_was_killed_is_replaced() -> None:
    with private_host(), firewall() as made:
        create(made, Ruleset())
        for worker in made._workers.values():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        create(made, *PLAN[1:])
        assert made.observe(PLAN) == PLAN
        made.remove()


# Takes the place of python-iptables, is it, and dies with the commit of that number.
DYING = """
import os, sys
sys.path.remove(os.path.dirname(__file__))
del sys.modules["iptc"]
import iptc
commits = []

class Table6(iptc.Table6):
    def commit(self):
        commits.append(self.name)
        if len(commits) == {at}:
            if {after}:
                super().commit()
            os._exit(1)
        super().commit()

iptc.Table6 = Table6
"""


@pytest.mark.parametrize("at", [5, 6, 7, 8])
@pytest.mark.parametrize("after", [False, True])
def test_a_worker_that_dies_half_way_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int, after: bool
) -> None:
    instead(monkeypatch, tmp_path, DYING.format(at=at, after=after))
    with private_host() as host, firewall() as made:
        create(made, Ruleset())  # four commits
        before = everything(host)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, *PLAN[1:])
        assert "worker ended with status 1" in str(refused.value.__cause__)
        assert everything(host) == before
        (tmp_path / "iptc.py").unlink()
        made.close()
        create(made, *PLAN[1:])
        assert made.observe(PLAN) == PLAN
        made.apply(diff(PLAN, Plan()))
        assert everything(host) == []


def test_what_was_told_and_not_done_is_undone_without_harm() -> None:
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        before = everything(host)
        told: list[tuple[int, wire.Message]] = []
        for version, worker in made._workers.items():
            request = {"do": "apply", "instance": ID[:8], "tables": {"nat": [made._end("nat")]}}
            worker.ask(request, lambda message, version=version: told.append((version, message)))  # type: ignore[misc]
        assert len(everything(host)) < len(before)
        for _ in range(2):
            for version, message in told:
                undo = {"do": "undo", "instance": ID[:8], "table": "nat", "undo": message["undo"]}
                assert "done" in made._workers[version].ask(undo)
            assert sorted(everything(host)) == sorted(before)
        assert made.observe(PLAN) == PLAN


@pytest.mark.parametrize("junk", [b"junk", b"\0\0\0\4junk", b"\0\0\0\2[]", b"\xff" * 64])
def test_a_worker_ends_when_it_is_told_nonsense(junk: bytes) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pynetwork.kernel.iptables.worker",
        "4",
        str(os.getpid()),
    ]
    with private_host():
        done = subprocess.run(command, input=junk, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "request_", [{}, {"do": "x"}, {"do": "apply"}, {"do": "undo", "table": "nonsense", "undo": 7}]
)
def test_a_worker_survives_a_request_that_makes_no_sense(request_: wire.Message) -> None:
    with private_host(), firewall() as made:
        worker = made._workers[4]
        pid = worker.pid
        assert "error" in worker.ask(request_)
        assert pid in {None, worker.pid}
        assert made.observe(PLAN) == Plan()


# What is missing


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Let workers find another module iptc."""
    (tmp_path / "iptc.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ModuleNotFoundError('No module named iptc')", "pip install 'pynetwork.iptables.'"),
        ("raise OSError('no libxtables')", "apt-get install iptables"),
        (
            "import os, sys; sys.stderr.write('libxt: already registered\\n'); os._exit(1)",
            "already registered",
        ),
    ],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, says: str
) -> None:
    instead(monkeypatch, tmp_path, code)
    before = workers_of(os.getpid())
    with private_host(), firewall() as made:
        for _ in range(2):
            with pytest.raises(UnavailableError, match=says):
                create(made, Ruleset())
        with pytest.raises(UnavailableError, match=says):
            made.observe(PLAN)
        assert workers_of(os.getpid()) == before


def test_a_table_that_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
    class IPTCError(Exception): pass
    def Table(name, autocommit):
        raise IPTCError("can't initialize nat: b'Table does not exist (do you need to insmod?)'")
    Table6, Rule, Rule6 = Table, None, None
    """
    instead(monkeypatch, tmp_path, re.sub(r"(?m)^    ", "", code))
    says = r"table nat cannot be read: .*do you need to insmod"
    with private_host(), firewall() as made, pytest.raises(UnavailableError, match=says):
        made.remove()


def test_a_host_without_nft_has_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    with private_host() as host:
        assert choose_firewall() == "nftables"
        host.run(["mount", "--bind", "/dev/null", shutil.which("nft") or "/usr/sbin/nft"])
        assert choose_firewall() == "iptables"
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [])
            with pytest.raises(UnavailableError, match="apt-get install nftables"):
                choose_firewall()
        namespaces = Namespaces()
        try:
            made = open_firewall("auto", ID, namespaces.home)
            assert made.name == "iptables"
            made.close()
        finally:
            namespaces.close()
