"""Hosts with an Open vSwitch: they reach each other, break where they are told to, and leave nothing."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import UnavailableError
from pynetwork.testing import Child, private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.testing.cluster import OvsHost

pytestmark = pytest.mark.root


@pytest.fixture(name="hosts")
def two_hosts() -> Iterator[tuple[OvsHost, ...]]:
    with private_host(), ovs_cluster(2) as hosts:
        yield hosts


def pings(host: OvsHost, address: str, *, count: int = 3) -> tuple[int, int]:
    """Return how many answers came, and how many came twice."""
    output = host.run(["ping", "-c", str(count), "-i", "0.05", "-W", "1", address], check=False).stdout
    return len(set(re.findall(r"icmp_seq=(\d+) ttl", output))), output.count("DUP!")


def test_hosts_reach_each_other_through_their_switches(hosts: tuple[OvsHost, ...]) -> None:
    """And every packet is heard once, by the switch, not a second time by the host behind it."""
    assert pings(hosts[0], hosts[1].vtep) == (3, 0)
    assert "eth0" in hosts[0].vsctl("list-ports", "br-phy").split()
    assert "NORMAL" in hosts[1].ofctl("dump-flows", "br-phy")


def test_a_cable_that_is_cut_cuts_off_its_host(hosts: tuple[OvsHost, ...]) -> None:
    cable = ["ip", "link", "set", hosts[0].cable]
    subprocess.run([*cable, "down"], check=True)
    assert pings(hosts[0], hosts[1].vtep, count=1) == (0, 0)
    subprocess.run([*cable, "up"], check=True)
    assert any(pings(hosts[0], hosts[1].vtep, count=1) == (1, 0) for _ in range(10))


def test_a_switch_that_is_killed_comes_back_with_its_configuration(hosts: tuple[OvsHost, ...]) -> None:
    hosts[0].kill_switch()
    assert pings(hosts[0], hosts[1].vtep, count=1) == (0, 0)
    hosts[0].start_switch()
    assert any(pings(hosts[0], hosts[1].vtep, count=1)[0] for _ in range(10))


def test_a_database_that_is_killed_keeps_what_it_held(hosts: tuple[OvsHost, ...]) -> None:
    hosts[0].vsctl("set", "bridge", "br-phy", "external_ids:mine=kept")
    hosts[0].kill_database()
    hosts[0].start_database()
    assert "kept" in hosts[0].vsctl("get", "bridge", "br-phy", "external_ids:mine")


def test_nothing_is_left_when_the_block_breaks() -> None:
    with private_host() as host:
        seen: list[Path] = []
        with pytest.raises(ZeroDivisionError):
            break_on_hosts(seen)
        directory, *pids = seen
        assert len(pids) == 4
        host.check()
        assert not any(path.exists() for path in (directory, *pids))


def test_its_processes_die_with_a_test_that_is_killed() -> None:
    with private_host(), Child(has_a_host) as child:
        child.wait_for("here")
        directory = Path(child.output[-1])
        opened = [os.pidfd_open(pid) for pid in daemons(directory)]
        try:
            assert len(opened) == 2
            child.kill()
            assert all(select.select([descriptor], [], [], 5.0)[0] for descriptor in opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)
            shutil.rmtree(directory)
            for link in ("underlay", "ul-h1"):
                subprocess.run(["ip", "link", "delete", link], check=True)
            subprocess.run(["ip", "netns", "delete", "h1"], check=True)


def break_on_hosts(seen: list[Path]) -> None:
    with ovs_cluster(2) as hosts:
        directory = hosts[0].directory.parent
        seen += (directory, *(Path(f"/proc/{pid}") for pid in daemons(directory)))
        assert all(path.exists() for path in seen)
        raise ZeroDivisionError


def has_a_host() -> None:
    from pynetwork.testing import reach
    from pynetwork.testing.cluster import ovs_cluster

    with ovs_cluster(1) as hosts:
        print(hosts[0].directory.parent, flush=True)  # noqa: T201 - the test reads it
        reach("here")


def daemons(directory: Path) -> list[int]:
    return [int(path.read_text(encoding="ascii")) for path in directory.glob("h*/*.pid")]


def test_without_open_vswitch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynetwork.testing.cluster.ovs_hosts._PROGRAMS", ("ip", "ovs-no-such-program"))
    with pytest.raises(UnavailableError, match=r"ovs-no-such-program: apt-get install"), ovs_cluster(1):
        pass


def test_a_program_runs_on_the_host_that_a_thread_enters(hosts: tuple[OvsHost, ...]) -> None:
    with hosts[1].entered():
        links = subprocess.run(["ip", "-br", "address"], check=True, capture_output=True, text=True).stdout
    assert f"{hosts[1].vtep}/24" in links
    process = hosts[0].start(["sleep", "60"])
    process.kill()
    assert process.wait() == -9
    with pytest.raises(RuntimeError, match="ended with status 1"):
        hosts[0].run(["false"])
