"""Hosts that all take addresses of a network at the same time, from a real etcd."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.cluster.overlay_scene import cluster_on

from pynetwork import NotFoundError

if TYPE_CHECKING:
    from pynetwork import Endpoint, Network
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def forty(network: Network) -> list[Endpoint]:
    return [network.create_endpoint(f"e-{id(network)}-{number}") for number in range(40)]


def test_three_hosts_take_addresses_at_once_from_a_real_store(host: PrivateHost) -> None:
    with cluster_on(host, ["linux"] * 3, members=1) as cluster:
        cluster.hosts[0].controller.new_network("overlay", "net", subnets=["10.1.0.0/22"])
        networks = [each.controller.networks["net"] for each in cluster.hosts]
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(forty, networks))
        assert len({endpoint.addresses[0].ip for endpoints in made for endpoint in endpoints}) == 120
        for endpoint in made[1]:
            endpoint.delete()
        with pytest.raises(NotFoundError):
            _ = made[1][0].name
