"""Packets between hosts whose cluster is in a real etcd, which fails meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.cluster.conftest import check_can_run

from pynetwork.store import EtcdStore
from pynetwork.testing import private_host
from pynetwork.testing.cluster import etcd_cluster, linux_cluster

if TYPE_CHECKING:
    from pynetwork import Endpoint, Sandbox
    from pynetwork.testing.cluster import LinuxHost

pytestmark = pytest.mark.root

PATIENCE_SECONDS = 30
ETCD = "192.0.2.100"  # on the underlay, where all hosts reach it


def joined(host: LinuxHost, name: str) -> tuple[Endpoint, Sandbox]:
    endpoint = host.controller.networks["net"].create_endpoint(name)
    sandbox = host.controller.new_sandbox(name)
    endpoint.join(sandbox)
    return endpoint, sandbox


def reaches(sandbox: Sandbox, endpoint: Endpoint) -> bool:
    """Return whether pings arrive, with patience: the other host hears of an endpoint a little later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    argv = ["ping", "-c1", "-W1", str(endpoint.addresses[0].ip)]
    while sandbox.run(argv, check=False, capture_output=True).returncode:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_packets_arrive_whatever_becomes_of_the_store() -> None:
    check_can_run()
    with private_host() as machine:
        machine.run(["ip", "address", "add", f"{ETCD}/32", "dev", "lo"])
        with (
            etcd_cluster(members=3, host=machine, addresses=[ETCD] * 3) as cluster,
            EtcdStore(cluster.endpoints, timeout=20) as store,
            linux_cluster(2, store=store, ttl=5) as (one, two),
        ):
            machine.run(["ip", "route", "add", "192.0.2.0/24", "dev", "underlay", "src", ETCD])
            one.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
            web, web_box = joined(one, "web")
            db, db_box = joined(two, "db")
            assert reaches(web_box, db)
            assert reaches(db_box, web)
            cluster.leader().kill()
            cache, _ = joined(two, "cache")
            assert reaches(web_box, cache)
            for member in cluster.members:
                member.kill()
            assert reaches(web_box, db)  # what is known stays known
            assert reaches(web_box, cache)
            cluster.start()
            new, _ = joined(one, "new")
            assert reaches(db_box, new)
