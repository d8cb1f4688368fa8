"""The way out of networks that span hosts, and the ports they publish: a gateway network of each host."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from tests.unit.cluster.gateways import check, prepare

from pynetwork import (
    ConflictError,
    Controller,
    Gateway,
    InvalidValueError,
    MemoryStore,
    NotFoundError,
    PortTakenError,
)
from pynetwork.dns.zone import Directory
from pynetwork.resources import Bridge, File, NetworkRules, PublishedPort, Veth
from pynetwork.testing import FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from tests.unit.cluster.hosts import Host, World

    from pynetwork import Endpoint


def made(host: Host, kind: type) -> list[Any]:
    return [item for item in host.kernel.resources if isinstance(item, kind)]


def gateway_of(endpoint: Endpoint) -> Gateway:
    assert endpoint.sandbox is not None
    gateway = endpoint.sandbox.gateway
    assert gateway is not None
    return gateway


def test_a_sandbox_goes_out_by_an_interface_of_its_own_on_one_bridge_of_its_host(world: World) -> None:
    host = world.host("h1")
    for name, subnet in (("red", "10.1.0.0/24"), ("blue", "10.2.0.0/24")):
        host.controller.new_network("overlay", name, subnets=[subnet])
    red, blue = host.joined("red", "web"), host.joined("blue", "web")
    gateways = [gateway_of(each) for each in (red, blue)]
    assert gateways[0].interface == gateways[1].interface == "gw0"
    assert gateways[0].next_hops == gateways[1].next_hops
    assert [hop.version for hop in gateways[0].next_hops] == [4, 6]
    assert gateways[0].addresses != gateways[1].addresses
    assert red.gateways == ()
    assert red.interface == "eth0"
    bridge = next(rules for rules in made(host, NetworkRules) if rules.subnets)
    assert not bridge.icc
    assert not bridge.internal
    assert {subnet.source for subnet in bridge.subnets} == {"masquerade"}
    assert [veth.isolated for veth in made(host, Veth) if veth.bridge == bridge.bridge] == [True, True]
    assert red.sandbox is not None
    red.sandbox.delete()
    host.controller.networks["red"].endpoints["web"].delete()
    assert len(made(host, Bridge)) == 2
    blue.delete(force=True)
    assert not made(host, Bridge)


def test_the_gateway_is_in_no_list_and_in_no_count(world: World) -> None:
    host = world.host("h1")
    controller = host.controller
    controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    own = controller.new_network("bridge", "gateway", subnets=["10.2.0.0/24"])  # the name is anybody's
    since = controller.revision
    endpoint = host.joined("net", "web", ports=["8080:80"])
    sandbox = endpoint.sandbox
    assert sandbox is not None
    assert sandbox.endpoints == (endpoint,)
    assert sandbox.inspect()["endpoints"] == [endpoint.id]
    assert sandbox.inspect()["gateway"]["interface"] == "gw0"
    assert sorted(controller.networks) == ["gateway", "net"]
    assert controller.networks["gateway"] == own
    assert {k: controller.statistics()[k] for k in ("networks", "endpoints")} == {
        "networks": 2,
        "endpoints": 1,
    }
    assert sorted(controller.inspect()["networks"]) == ["gateway", "net"]
    text = controller.metrics()
    assert "pynetwork_networks 2\n" in text
    assert "pynetwork_endpoints 1\n" in text
    assert text.count("pynetwork_pool_addresses{") == len(set(text.splitlines())) - len(
        {line for line in text.splitlines() if not line.startswith("pynetwork_pool_addresses{")}
    )  # no sample twice, though there are two of the name
    told = [
        (event.kind.value, event.endpoint or event.network)
        for event in controller.events(since=since, timeout=0)
    ]
    assert sorted(told) == [
        ("endpoint.created", "web"),
        ("endpoint.joined", "web"),
        ("network.created", "net"),
        ("port.published", "web"),
        ("sandbox.created", None),
    ]
    assert controller.doctor() == ()


def test_names_lead_to_no_gateway_and_the_hosts_file_does_not_have_it(world: World) -> None:
    host = world.host("h1")
    core = host.controller._core
    directory = Directory()
    core.records.follow(directory.put)
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    endpoint = host.controller.networks["net"].create_endpoint("web")
    box = host.controller.new_sandbox("box", extra_hosts={"host": "host-gateway"})
    assert box.hosts_path.name == "hosts"
    endpoint.join(box)
    (inmate,) = directory.inmates.values()
    assert set(inmate.endpoints) == {endpoint.id}
    assert inmate.uses_host
    (text,) = (item.text for item in made(host, File) if item.path.endswith("hosts"))
    gateway = gateway_of(endpoint)
    assert not any(str(address.ip) in text for address in gateway.addresses)
    assert f"{endpoint.addresses[0].ip}\t" in text
    assert f"{gateway.next_hops[0]}\thost\n" in text  # the host, where it is reached
    endpoint.leave()
    endpoint.delete()
    assert not directory._zones


def test_an_internal_one_has_neither(world: World) -> None:
    host = world.host("h1")
    host.controller.new_network("overlay", "net", internal=True)
    endpoint = host.joined("net", "web")
    assert endpoint.sandbox is not None
    assert endpoint.sandbox.gateway is None
    assert len(made(host, Bridge)) == 1
    for ask in (lambda: endpoint.publish(80), lambda: endpoint.network.create_endpoint("x", ports=[80])):
        with pytest.raises(InvalidValueError, match="'net': it is internal"):
            ask()


def test_ports_are_published_where_the_sandbox_goes_out(world: World) -> None:
    host = world.host("h1")
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    four = host.controller.new_network("bridge", "four", subnets=["10.5.0.0/24"])
    endpoint = host.joined("net", "web", ports=["8080:80"])
    assert endpoint.publish("[::]:53/udp").versions == (6,)

    def targets() -> set[tuple[str, str]]:
        return {(port.proto, port.target) for port in made(host, PublishedPort)}

    v4, v6 = (str(address.ip) for address in gateway_of(endpoint).addresses)
    assert targets() == {("tcp", v4), ("tcp", v6), ("udp", v6)}
    other = four.create_endpoint("other")
    assert endpoint.sandbox is not None
    other.join(endpoint.sandbox)
    # All that the network itself has is IPv4, and that has another way out.
    assert endpoint.sandbox.gateway is None
    assert targets() == {("tcp", "10.5.0.2")}
    # Else the port that is taken over would be taken for another's.
    assert {port.owner for port in made(host, PublishedPort)} == {"endpoint 'web' of network 'net'"}
    other.leave()
    v4, v6 = (str(address.ip) for address in gateway_of(endpoint).addresses)
    assert targets() == {("tcp", v4), ("tcp", v6), ("udp", v6)}
    endpoint.unpublish("80")
    assert targets() == {("udp", v6)}
    endpoint.leave()
    assert targets() == set()


def test_a_port_is_one_endpoint_s_on_a_host_and_another_s_on_another(world: World) -> None:
    a, b = world.host("h1"), world.host("h2")
    network = a.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    local = b.controller.new_network("bridge", "local", subnets=["10.5.0.0/24"])
    here, there = a.joined("net", "here", ports=["8080:80"]), b.joined("net", "there", ports=["8080:80"])
    with pytest.raises(PortTakenError, match="endpoint 'there' of network 'net'"):
        local.create_endpoint("x", ports=["8080:80"])
    with pytest.raises(PortTakenError, match="endpoint 'here' of network 'net'"):
        network.create_endpoint("x", ports=["8079-8081:79-81"])
    # Moved to where it is taken, it is refused, and nothing is entered for it.
    ports, addresses, mac = here.ports, here.addresses, here.mac
    assert here.sandbox is not None
    here.sandbox.delete()
    here.delete()
    assert not a.kernel.resources
    before = world.keys()
    with pytest.raises(PortTakenError, match="endpoint 'there'"):
        b.controller.networks["net"].create_endpoint("here", ports=ports, addresses=addresses, mac=mac)
    assert world.keys() == before
    there.unpublish("80")
    moved = b.joined("net", "here", ports=ports, addresses=addresses, mac=mac)
    assert (moved.addresses, moved.mac, moved.ports) == (addresses, mac, ports)


def test_a_gateway_stays_out_of_the_way_of_all_networks_of_the_cluster(world: World) -> None:
    """Its subnet is none that any of them has; who asks for it later is told at the join."""
    a, b = world.host("h1"), world.host("h2")
    a.controller.new_network("overlay", "here", subnets=["10.1.0.0/24"])
    a.controller.new_network("overlay", "elsewhere", subnets=["172.16.0.0/20"])
    own = gateway_of(b.joined("here", "web")).addresses[0].network
    assert own.overlaps(ip_network("172.16.0.0/12"))
    assert not own.overlaps(ip_network("172.16.0.0/20"))
    a.controller.new_network("overlay", "late", subnets=[own])
    late = b.controller.networks["late"].create_endpoint("late")
    box = b.controller.new_sandbox("late")
    before = b.kernel.resources
    with pytest.raises(
        ConflictError, match=r"the host's gateway network conflicts with .* of network 'late'"
    ):
        late.join(box)
    assert b.kernel.resources == before
    assert box.gateway is None


def test_a_host_without_ipv6_has_a_way_out_without_it(world: World) -> None:
    host = world.host("h1")
    around = host.controller._core.surroundings
    files = attrs.evolve(around.host_files(), ipv6=False)
    host.controller._core.surroundings = attrs.evolve(around, host_files=lambda: files)
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    gateway = gateway_of(host.joined("net", "web", ports=["8080:80"]))
    assert [address.version for address in gateway.addresses] == [4]
    with pytest.raises(InvalidValueError, match="has no IPv6 address"):
        host.controller.networks["net"].endpoints["web"].publish("[::]:80")


def test_a_controller_without_the_cluster_knows_the_gateways_of_its_host(world: World) -> None:
    """One process of a host is in the cluster, another only stops what runs there."""
    store, kernel = MemoryStore(), FakeKernel()
    host = world.host("h1", store=store, kernel=kernel)
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    bridge = host.controller.new_network("bridge", "bridge", subnets=["10.5.0.0/24"])
    endpoint = host.joined("net", "web", ports=["8080:80"])
    box = endpoint.sandbox
    assert box is not None
    bridge.create_endpoint("web").join(box)
    with Controller(store=store, kernel=kernel, surroundings=fake_surroundings(process="q")) as other:
        other.networks["bridge"].endpoints["web"].leave()
        assert other.sandboxes["net-web"].gateway == box.gateway is not None
        other.networks["net"].endpoints["web"].publish("53/udp")
        other.sandboxes["net-web"].delete()
    with pytest.raises(NotFoundError):
        assert box.gateway
    endpoint.delete()
    check(host.controller, kernel)


def test_many_at_once_make_one_gateway_network_and_leave_none(world: World) -> None:
    """The first one brings it, the last one takes it away, and each time another may be about to use it."""
    store, kernel = MemoryStore(), FakeKernel()
    hosts = [world.host("h1", store=store, kernel=kernel, process=f"p{n}") for n in range(2)]
    for number in range(3):
        hosts[0].controller.new_network("overlay", f"net{number}", subnets=[f"10.{number}.0.0/24"])
    start = threading.Barrier(6)

    def churn(worker: int) -> None:
        controller = hosts[worker % 2].controller
        start.wait()
        for number in range(8):
            endpoint = controller.networks[f"net{number % 3}"].create_endpoint(
                f"e-{worker}-{number}", ports=[80]
            )
            box = controller.new_sandbox(f"b-{worker}-{number}")
            endpoint.join(box)
            assert box.gateway is not None
            if number % 2:
                endpoint.leave()
            box.delete()
            endpoint.delete()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(churn, range(6)))
    assert not kernel.resources
    assert not [
        e.key
        for e in store.list("").entries
        if e.key.startswith(("network", "endpoint", "port", "plan", "pool"))
    ]


def test_what_is_erased_is_gone_and_a_reboot_brings_all_back(world: World) -> None:
    store, kernel = MemoryStore(), FakeKernel()
    host = world.host("h1", store=store, kernel=kernel)
    prepare(host.controller, kernel)
    before = set(kernel.resources)
    gateways = {name: box.gateway for name, box in host.controller.sandboxes.items()}
    host.controller.close()
    heir = world.host("h1", store=store, kernel=kernel, process="heir", dead=("process of h1",))
    assert {name: box.gateway for name, box in heir.controller.sandboxes.items()} == gateways
    kernel.reboot()
    assert not heir.controller.reconcile().failed
    assert {item for item in before if item.kind != "netns"} <= set(kernel.resources)
    heir.controller.erase()
    assert not [item for item in kernel.resources if item.kind != "netns"]
