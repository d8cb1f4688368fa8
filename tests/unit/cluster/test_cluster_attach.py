"""Endpoints of networks that span hosts, in sandboxes whose namespaces come later, change, or go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.peers import Flood
from pynetwork.resources import Netns

if TYPE_CHECKING:
    from tests.unit.cluster.hosts import Host, World


def heard_of(host: Host) -> set[str]:
    """The MAC addresses that the datapath of a host was told of."""
    return {entry.mac for entry in host.entries("net") if not isinstance(entry, Flood)}


def test_other_hosts_hear_of_an_endpoint_while_it_has_a_namespace(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    for path in ("/run/netns/x", "/run/netns/y"):
        a.kernel.plant(Netns(path=path))
    network = a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    b.joined("net", "there")
    endpoint = network.create_endpoint("here")
    sandbox = a.controller.new_sandbox("box", netns="later")
    endpoint.join(sandbox)
    chosen = endpoint.addresses, endpoint.mac
    world.settle()
    assert b.entries("net") == set()
    for path in ("/run/netns/x", "/run/netns/y"):
        sandbox.attach(path)
        world.settle()
        assert endpoint.mac in heard_of(b)
        assert a.entries("net")
        assert (endpoint.addresses, endpoint.mac) == chosen
        assert a.controller.reconcile().is_clean
    sandbox.detach()
    world.settle()
    assert endpoint.mac not in heard_of(b)
    assert a.controller.reconcile().is_clean
