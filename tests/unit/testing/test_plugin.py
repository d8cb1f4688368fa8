"""The fixtures work in a suite that names the plugin; hosts that cannot be made skip, or fail in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
import stat

from pynetwork.testing import FakeKernel


def test_state_dir(state_dir):
    assert list(state_dir.iterdir()) == []
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


def test_fake_kernel(fake_kernel):
    assert isinstance(fake_kernel, FakeKernel)
    assert fake_kernel.resources == ()
"""

HOSTLESS = """
import contextlib

import pytest

from pynetwork.testing import hosts


@pytest.fixture(autouse=True)
def unprivileged(monkeypatch):
    @contextlib.contextmanager
    def private_host():
        raise PermissionError("not here")
        yield

    monkeypatch.setattr(hosts, "private_host", private_host)


def test_private_host(unprivileged, private_host):
    pass
"""


def run_suite(directory: Path, source: str, *, ci: str) -> str:
    """Run *source* as a suite of its own and return what pytest says."""
    (directory / "conftest.py").write_text(
        'pytest_plugins = ["pynetwork.testing.plugin"]\n', encoding="ascii"
    )
    (directory / "test_it.py").write_text(source, encoding="ascii")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir", directory, directory],
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout


def test_a_suite_gets_fixtures(tmp_path: Path) -> None:
    assert "2 passed" in run_suite(tmp_path, SUITE, ci="")


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("0", "1 skipped"), ("true", "1 error")])
def test_a_host_that_cannot_be_made_skips_or_fails_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    output = run_suite(tmp_path, HOSTLESS, ci=ci)
    assert outcome in output
    assert "no private host can be made: not here" in output


@pytest.mark.root
def test_a_suite_gets_a_private_host(tmp_path: Path) -> None:
    source = """
import socket


def test_private_host(private_host):
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert private_host.run(["true"]).returncode == 0
"""
    assert "1 passed" in run_suite(tmp_path, source, ci="true")


OVERLAYS = """
def test_three_hosts(three_ovs_hosts):
    assert len({host.vtep for host in three_ovs_hosts}) == 3
    assert three_ovs_hosts[2].vsctl("list-br").split() == ["br-phy"]
"""


@pytest.mark.root
def test_a_suite_gets_hosts_with_open_vswitch(tmp_path: Path) -> None:
    assert "1 passed" in run_suite(tmp_path, OVERLAYS, ci="true")


def test_hosts_that_lack_open_vswitch_fail_in_ci(tmp_path: Path) -> None:
    hostless = HOSTLESS.replace("PermissionError", "OSError").partition("@pytest.fixture")[0]
    source = f"""{hostless}
from pynetwork.errors import UnavailableError
from pynetwork.testing import cluster


@pytest.fixture
def private_host():
    return None


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    def ovs_cluster(count):
        raise UnavailableError("no switch here")

    monkeypatch.setattr(cluster, "ovs_cluster", ovs_cluster)


def test_three_hosts(three_ovs_hosts):
    pass
"""
    for ci, outcome in (("", "1 skipped"), ("true", "1 error")):
        output = run_suite(tmp_path, source, ci=ci)
        assert outcome in output
        assert "no switch here" in output
