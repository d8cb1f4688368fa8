"""A cluster that many tests share: three hosts on a real etcd, and a network that has a sandbox on each."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
from tests.cluster.overlay import SUBNETS, eventually, joined, knows, reaches
from tests.conftest import grown, observe_process

from pynetwork import ConflictError, EtcdStore
from pynetwork.testing.cluster import SwitchedHost, etcd_cluster, overlay_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pynetwork import Network, Sandbox
    from pynetwork.testing import PrivateHost
    from pynetwork.testing.cluster import EtcdCluster, LinuxHost

#: Of the third host, the one that fails; etcd knows no shorter one with its usual timers.
TTL = 2.0
#: Of the other hosts.
LONG_TTL = 10.0
#: Where etcd listens: on the underlay, which all hosts reach.
ADDRESS = "192.0.2.254"


@attrs.frozen
class Cluster:
    """Three hosts and their store."""

    hosts: tuple[LinuxHost, ...]
    etcd: EtcdCluster

    def repair(self) -> None:
        """Have all run that a test has ended, and all connected that it has cut off."""
        for member in self.etcd.members:
            member.resume()
            member.start()
        self.etcd.wait()
        for host in self.hosts:
            subprocess.run(["ip", "link", "set", host.cable, "up"], check=True)
            if isinstance(host, SwitchedHost):
                host.switch.start_database()
                host.switch.start_switch()

    def clear(self, *names: str) -> None:
        """Remove the networks of these names, by default all, and all that is in them."""
        for host in self.hosts:
            with host.entered():
                self._empty(host, names)
        with self.hosts[0].entered():
            for network in list(self.hosts[0].controller.networks.values()):
                if not names or network.name in names:
                    assert eventually(partial(is_deleted, network))

    def _empty(self, host: LinuxHost, names: Sequence[str]) -> None:
        for network in host.controller.networks.values():
            if not names or network.name in names:
                for endpoint in network.endpoints.values():
                    endpoint.delete(force=True)
        for sandbox in list(host.controller.sandboxes.values()):
            if not sandbox.endpoints:
                sandbox.delete()


def is_deleted(network: Network) -> bool:
    try:
        network.delete(missing_ok=True)
    except ConflictError:  # the last one to leave is about to
        return False
    return True


@contextmanager
def cluster_on(host: PrivateHost, datapaths: Sequence[str], members: int = 3) -> Iterator[Cluster]:
    """Have a host of each datapath, and an etcd on the underlay that each reaches from its own namespace."""
    before = observe_process()
    endpoints: list[str] = []
    store = partial(EtcdStore, endpoints, timeout=5.0)  # an election takes up to two, on a busy machine more
    with (
        overlay_cluster(datapaths, store=store, ttl=LONG_TTL) as hosts,
        etcd_cluster(members, host=host, addresses=[ADDRESS] * members) as etcd,
    ):
        endpoints += etcd.endpoints
        hosts[2].cluster = attrs.evolve(hosts[2].cluster, ttl=TTL)
        made = Cluster(hosts, etcd)
        yield made
        made.repair()
        for each in hosts:
            each.erase()
    left = grown(observe_process, before)
    assert not left


@attrs.frozen
class Scene:
    """A network of three hosts, with a sandbox of it on each: 10.1.0.10, 11 and 12."""

    hosts: tuple[LinuxHost, ...]
    etcd: EtcdCluster
    boxes: list[Sandbox]

    @property
    def network(self) -> str:
        """Its id."""
        return self.hosts[0].controller.networks["net"].id

    def cut_off(self, *, is_so: bool = True) -> float:
        """Cut the third host off, or not any more; return when that was."""
        state = "down" if is_so else "up"
        subprocess.run(["ip", "link", "set", self.hosts[2].cable, state], check=True)
        return time.time()


@contextmanager
def scene_of(cluster: Cluster) -> Iterator[Scene]:
    """Have a network ``net`` that all hosts know all of, and all of whose sandboxes reach each other."""
    with cluster.hosts[0].entered():
        cluster.hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
    try:
        boxes = [joined(host, "net", host.name, 10 + n) for n, host in enumerate(cluster.hosts)]
        assert all(eventually(partial(knows, host, "net", 2)) for host in cluster.hosts)
        for box in boxes:
            for number in (10, 11, 12):
                assert reaches(box, f"10.1.0.{number}")
        yield Scene(cluster.hosts, cluster.etcd, boxes)
    finally:
        cluster.repair()
        cluster.clear()
