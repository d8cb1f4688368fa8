"""Overlay networks on a real etcd, and what they do when it, a host or a process fails."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
from tests.cluster.conftest import check_can_run
from tests.cluster.overlay import SUBNETS, eventually, joined, knows, ping

from pynetwork import EtcdStore, NotFoundError, StoreError
from pynetwork.testing import private_host
from pynetwork.testing.cluster import etcd_cluster, linux_cluster, pinging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetwork.testing.cluster import EtcdCluster, LinuxHost

pytestmark = pytest.mark.root

TTL = 3.0
#: Where etcd listens: on the underlay, which all hosts reach.
ADDRESS = "192.0.2.254"


@contextmanager
def cluster_of(
    hosts: int, members: int, ttl: float = TTL
) -> Iterator[tuple[tuple[LinuxHost, ...], EtcdCluster]]:
    """Have hosts, and an etcd that each of their controllers connects to from its own host."""
    check_can_run()
    endpoints: list[str] = []
    with (
        private_host() as machine,
        linux_cluster(hosts, store=lambda: EtcdStore(endpoints, timeout=5.0), ttl=ttl) as made,
        etcd_cluster(members, host=machine, addresses=[ADDRESS] * members) as etcd,
    ):
        endpoints += etcd.endpoints
        try:
            yield made, etcd
        finally:
            for member in etcd.members:
                if not member.is_running:
                    member.start()
            etcd.wait()
            for host in made:
                host.erase()


def test_the_members_of_the_store_fail_one_after_the_other_and_all_at_once() -> None:
    """Packets go on whatever becomes of it; what is written is written once it is back."""
    with cluster_of(2, 3) as (hosts, etcd):
        network = hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
        box = joined(hosts[0], "net", "a", 10)
        joined(hosts[1], "net", "b", 11)
        assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
        assert ping(box, "10.1.0.11") == 1
        with pinging(box, "10.1.0.11") as pings:
            etcd.leader().kill()
            joined(hosts[1], "net", "c", 12)
            assert eventually(lambda: ping(box, "10.1.0.12") == 1)
            for member in etcd.members:
                if member.is_running:
                    member.kill()
            with pytest.raises(StoreError):
                network.create_endpoint("late")
            time.sleep(TTL)  # longer than a lease lasts: it starts anew with the next leader
            for member in etcd.members:
                member.start()
            etcd.wait()
            assert eventually(lambda: joined_again(hosts[0]))
            assert knows(hosts[0], "net", 2)
        assert pings.lost == 0, pings
        assert pings.sent > 100


def joined_again(host: LinuxHost) -> bool:
    """Tell whether an endpoint can be made: the members have found each other."""
    try:
        host.controller.networks["net"].create_endpoint("late")
    except StoreError:
        return False
    return True


def test_a_host_that_is_cut_off_is_withdrawn_and_back_when_it_is_reached_again() -> None:
    """It goes on itself with what it knows; its addresses stay its own."""
    with cluster_of(3, 1) as (hosts, _):
        hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
        boxes = [joined(host, "net", host.name, 10 + number) for number, host in enumerate(hosts)]
        assert eventually(lambda: all(knows(host, "net", 2) for host in hosts))
        assert ping(boxes[0], "10.1.0.12") == 1
        # All of its connections are from its own namespace then, none from the test's.
        hosts[2].close()
        boxes[2] = hosts[2].controller.sandboxes["net-h3"]
        assert eventually(lambda: knows(hosts[0], "net", 2))
        cable = ["ip", "link", "set", hosts[2].cable]
        subprocess.run([*cable, "down"], check=True)
        assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
        assert ping(boxes[0], "10.1.0.12") == 0
        follower = hosts[2].controller._core.span
        assert follower is not None
        known = follower.worker.followed(hosts[0].controller.networks["net"].id)
        assert known is not None
        assert len(known.records) == 2
        subprocess.run([*cable, "up"], check=True)
        assert eventually(lambda: knows(hosts[0], "net", 2))
        assert eventually(lambda: ping(boxes[0], "10.1.0.12") == 1)
        assert eventually(lambda: ping(boxes[2], "10.1.0.11") == 1)


AGENT = """
from pynetwork import EtcdCluster

cluster = EtcdCluster({endpoints!r}, host="h1", vtep="192.0.2.1", ttl={ttl})
"""


@contextmanager
def agent(host: LinuxHost, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a host followed by a process of its own."""
    places = ["--state-dir", f"/var/lib/pynetwork/{host.name}", "--run-dir", f"/run/pynetwork/{host.name}"]
    with host.entered():
        process = subprocess.Popen(
            [sys.executable, "-m", "pynetwork.agent", "--cluster", "followed:cluster", *places],
            cwd=directory,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "host h1 is followed\n"
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_process_that_follows_is_killed_and_another_finds_what_changed(tmp_path: Path) -> None:
    """Callers of its host come and go, and none of them keeps a controller open."""
    ttl = 7.0  # longer than the next one takes to begin
    with cluster_of(2, 1, ttl) as (hosts, etcd):
        text = AGENT.format(endpoints=list(etcd.endpoints), ttl=ttl)
        (tmp_path / "followed.py").write_text(text, encoding="utf-8")
        hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
        box = joined(hosts[0], "net", "a", 10)
        joined(hosts[1], "net", "b", 11)
        assert eventually(lambda: knows(hosts[0], "net", 1) and knows(hosts[1], "net", 1))
        with agent(hosts[0], tmp_path) as first, pinging(box, "10.1.0.11") as pings:
            hosts[0].close()
            hosts[0].cluster = attrs.evolve(hosts[0].cluster, agent=False)
            box = hosts[0].controller.sandboxes["net-a"]
            time.sleep(ttl + 1)  # the process has the lease from now on
            assert knows(hosts[1], "net", 1)
            first.kill()
            first.wait()
            joined(hosts[1], "net", "late", 12)
            assert ping(box, "10.1.0.12") == 0
            with agent(hosts[0], tmp_path):
                assert eventually(lambda: ping(box, "10.1.0.12") == 1)
                assert eventually(lambda: knows(hosts[1], "net", 1))
                more = joined(hosts[0], "net", "more", 13)  # by a controller that follows nobody
                assert eventually(lambda: ping(more, "10.1.0.11") == 1)
        assert pings.lost == 0, pings
        assert pings.sent > 100


def test_three_hosts_take_addresses_at_once_from_a_real_store() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with cluster_of(3, 1) as (hosts, _):
        hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/22"])
        networks = [host.controller.networks["net"] for host in hosts]
        with ThreadPoolExecutor(3) as pool:
            made = list(
                pool.map(
                    lambda network: [network.create_endpoint(f"e-{id(network)}-{n}") for n in range(40)],
                    networks,
                )
            )
        addresses = {endpoint.addresses[0].ip for endpoints in made for endpoint in endpoints}
        assert len(addresses) == 120
        for endpoint in made[1]:
            endpoint.delete()
        with pytest.raises(NotFoundError):
            _ = made[1][0].name
