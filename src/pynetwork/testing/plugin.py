"""Fixtures for pytest: ``pytest_plugins = ["pynetwork.testing.plugin"]`` in a ``conftest.py``."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

from pynetwork.errors import UnavailableError
from pynetwork.testing import cluster, hosts
from pynetwork.testing.fake_kernel import FakeKernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetwork.testing.cluster import OvsHost

__all__ = ["fake_kernel", "private_host", "state_dir", "three_ovs_hosts"]


@pytest.fixture
def fake_kernel() -> FakeKernel:
    """An empty host in memory."""
    return FakeKernel()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty directory that only its owner can enter."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def private_host() -> Iterator[hosts.PrivateHost]:
    """
    A private host that the test's thread is on, see :func:`pynetwork.testing.private_host`.

    Where none can be made the test is skipped, or fails when the environment variable ``CI`` is set.
    """
    with contextlib.ExitStack() as stack:
        try:
            host = stack.enter_context(hosts.private_host())
        except OSError as error:
            _cannot_run(f"no private host can be made: {error}")
        yield host


@pytest.fixture
def three_ovs_hosts(private_host: hosts.PrivateHost) -> Iterator[tuple[OvsHost, ...]]:  # noqa: ARG001 - the thread is on it
    """
    Three hosts with an Open vSwitch each, see :func:`pynetwork.testing.cluster.ovs_cluster`.

    The test's thread is on their underlay. Where Open vSwitch is missing the test is skipped, or fails
    when the environment variable ``CI`` is set.
    """
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(cluster.ovs_cluster(3))
        except UnavailableError as error:
            _cannot_run(str(error))
        yield made


def _cannot_run(reason: str) -> NoReturn:
    if os.environ.get("CI", "") not in {"", "0", "false"}:
        pytest.fail(f"{reason}, and CI is set", pytrace=False)
    pytest.skip(reason)
