"""Controllers on hosts with Open vSwitch: what is peculiar to them; the rest is in test_overlay_matrix.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cluster.overlay import SUBNETS, eventually, joined, knows, ping, reaches

from pynetwork import InvalidValueError, OverlayOptions
from pynetwork.testing import private_host
from pynetwork.testing.cluster import SwitchedHost, overlay_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(name="hosts")
def two_hosts() -> Iterator[tuple[SwitchedHost, ...]]:
    with private_host(), overlay_cluster(["ovs-userspace"] * 2) as hosts:
        yield tuple(host for host in hosts if isinstance(host, SwitchedHost))


def test_endpoints_leave_and_join_and_leave_nothing(hosts: tuple[SwitchedHost, ...]) -> None:
    options = OverlayOptions(strict=True)
    hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS, options=options)
    box, other = (joined(host, "net", host.name, 10 + n) for n, host in enumerate(hosts))
    for address in ("10.1.0.11", "fd01::b"):
        assert reaches(box, address)
    assert reaches(joined(hosts[0], "net", "neighbour", 12), "10.1.0.10")
    (far,) = other.endpoints
    far.leave()
    far.join(other)
    assert reaches(box, "10.1.0.11")
    assert hosts[0].controller.reconcile().is_clean
    for host in hosts:
        host.erase()
        assert host.switch.vsctl("list-br").split() == ["br-phy"]


def test_not_even_the_first_packet_to_a_host_is_lost(hosts: tuple[SwitchedHost, ...]) -> None:
    """The switch knows where the other host is before there is anything for it."""
    hosts[0].controller.new_network("overlay", "net", subnets=SUBNETS)
    joined(hosts[1], "net", "far", 11)
    box = joined(hosts[0], "net", "near", 10)
    for host, other in (hosts, hosts[::-1]):
        assert eventually(lambda host=host, other=other: other.vtep in host.switch.appctl("tnl/neigh/show"))  # type: ignore[misc]
        assert eventually(lambda host=host: knows(host, "net", 1))  # type: ignore[misc]
    assert ping(box, "10.1.0.11") == 1


def test_a_cluster_of_unknown_datapaths_is_refused() -> None:
    with (
        pytest.raises(InvalidValueError, match="linux or ovs-userspace is expected, not dpdk"),
        overlay_cluster(["dpdk"]),
    ):
        pass
