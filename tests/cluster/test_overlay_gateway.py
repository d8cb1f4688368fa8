"""Containers of networks that span hosts go out into the world, and are reached at published ports."""

from __future__ import annotations

import subprocess
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pytest
from tests.cluster.gateway_hosts import WORLD, Site, World, inside, is_cut_off, seen, world_around
from tests.cluster.overlay import SUBNETS, eventually, ping
from tests.kernel.lan import FIREWALLS

from pynetwork import PortTakenError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Endpoint, Gateway
    from pynetwork.types import IPInterface

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

LISTENER = "import socket,time; s=socket.create_server(('', 8080)); print(1, flush=True); time.sleep(60)"
BOTH = list(product(("tcp", "udp"), (4, 6)))


@pytest.fixture(params=["linux", "ovs-userspace"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_around(request.param) as made:
        yield made


@pytest.fixture
def kernels() -> Iterator[World]:
    """The same with the kernel's VXLAN: what does not depend on who forwards between hosts."""
    with world_around("linux") as made:
        yield made


def gateway_of(endpoint: Endpoint) -> Gateway:
    assert endpoint.sandbox is not None
    gateway = endpoint.sandbox.gateway
    assert gateway is not None
    return gateway


def address_of(interface: IPInterface) -> str:
    return str(interface.ip)


def is_published(world: World, site: Site, endpoint: Endpoint, port: int, own: int) -> bool:
    """Tell whether the endpoint answers the world at a port of *site*, over all there is."""
    server = inside(endpoint.sandbox)
    return all(
        seen(world.entered, server, proto, site.addresses[version], (port, own)) == WORLD[version]
        for proto, version in BOTH
    )


def test_a_container_goes_out_as_its_host_and_is_reached_at_its_published_ports(world: World) -> None:
    """By TCP and UDP, over IPv4 and IPv6; from the world, and from another host and a container there."""
    one, two = world.sites
    one.controller.new_network("overlay", "net", subnets=SUBNETS)
    here = one.joined("net", "here", ports=["8080:80/tcp", "8080:80/udp"])
    there = two.joined("net", "there")
    assert there.sandbox is not None
    assert here.sandbox is not None
    own, mine = (dict(zip((4, 6), map(address_of, end.addresses), strict=True)) for end in (here, there))
    for address in own.values():
        assert eventually(partial(ping, there.sandbox, address))
    for (proto, version), (site, end) in product(BOTH, ((one, here), (two, there))):
        out = seen(inside(end.sandbox), world.entered, proto, WORLD[version])
        assert out == site.addresses[version], (proto, version)
    assert is_published(world, one, here, 8080, 80)
    for proto, version in BOTH:
        server, address = inside(here.sandbox), one.addresses[version]
        for asker in (two.entered, inside(there.sandbox)):
            assert seen(asker, server, proto, address, (8080, 80)) == two.addresses[version]
        # The network itself is as before.
        assert seen(inside(there.sandbox), server, proto, own[version]) == mine[version]
        # What is not published is out of reach, also for who knows the way.
        assert is_cut_off(world.entered, server, proto, address, (8081, 81))
        target = next(str(each.ip) for each in gateway_of(here).addresses if each.version == version)
        world.router.run(["ip", f"-{version}", "route", "replace", target, "via", address])
        assert is_cut_off(world.entered, server, proto, target, (81, 81))
    for site in world.sites:
        assert site.controller.doctor() == ()
        assert site.controller.reconcile(dry_run=True).is_clean
    here.unpublish("80/tcp")
    server = inside(here.sandbox)
    assert is_cut_off(world.entered, server, "tcp", one.addresses[4], (8080, 80))
    assert seen(world.entered, server, "udp", one.addresses[4], (8080, 80))
    assert here.publish("9090:80/tcp").host_port == 9090
    assert seen(world.entered, server, "tcp", one.addresses[6], (9090, 80)) == WORLD[6]


def test_an_endpoint_that_moves_takes_its_ports_along(world: World) -> None:
    one, two = world.sites
    network = one.controller.new_network("overlay", "net", subnets=SUBNETS)
    here = one.joined("net", "web", ports=["8080:80/tcp", "8080:80/udp"])
    assert is_published(world, one, here, 8080, 80)
    ports, addresses, mac = here.ports, here.addresses, here.mac
    assert here.sandbox is not None
    here.sandbox.delete()
    here.delete()
    assert not network.endpoints
    moved = two.controller.networks["net"].create_endpoint("web", ports=ports, addresses=addresses, mac=mac)
    moved.join(two.controller.new_sandbox("web"))
    assert is_published(world, two, moved, 8080, 80)
    assert is_cut_off(world.entered, inside(moved.sandbox), "tcp", one.addresses[4], (8080, 80))
    assert not {link for link in one.links() if link.startswith(("br-", "veth", "ov-"))} - {
        "br-phy",
        "br-pynetwork",
    }


def test_the_gateway_leads_from_no_container_to_another(kernels: World) -> None:
    """Not within a network nor to another, but at published ports; the host and they reach each other."""
    site = kernels.sites[0]
    for name in ("red", "blue"):
        site.controller.new_network("overlay", name, subnets=SUBNETS if name == "red" else ["10.9.0.0/24"])
    ends = [site.joined("red", "a"), site.joined("red", "b"), site.joined("blue", "c")]
    gateways = list(map(gateway_of, ends))
    for number, other in ((0, 1), (0, 2), (2, 1)):
        asker, server = inside(ends[number].sandbox), inside(ends[other].sandbox)
        for address in gateways[other].addresses:
            assert is_cut_off(asker, server, "tcp", str(address.ip))
            assert is_cut_off(asker, server, "udp", str(address.ip))
            # Nor by way of the host, which routes.
            via = next(hop for hop in gateways[number].next_hops if hop.version == address.version)
            box = ends[number].sandbox
            assert box is not None
            box.run(["ip", "route", "replace", str(address.ip), "via", str(via), "dev", "gw0"], check=True)
            assert is_cut_off(asker, server, "tcp", str(address.ip))
    for end, gateway in zip(ends, gateways, strict=True):
        for address, hop in zip(gateway.addresses, gateway.next_hops, strict=True):
            assert seen(site.entered, inside(end.sandbox), "tcp", str(address.ip)) == str(hop)
            assert seen(inside(end.sandbox), site.entered, "tcp", str(hop)) == str(address.ip)
    # What is published is for everybody, unless the kernel takes bridged frames through iptables.
    ends[1].publish("8080:80")
    frames = (f"net.bridge.bridge-nf-call-{name}=0" for name in ("iptables", "ip6tables"))
    site.host.run(["sysctl", "-qw", *frames], check=False)  # there are none where they are not taken there
    server = inside(ends[1].sandbox)
    for end, hop in product(ends, gateways[1].next_hops):
        outer = site.addresses[hop.version]
        assert seen(inside(end.sandbox), server, "tcp", outer, (8080, 80)) == str(hop)


def test_an_internal_network_has_no_way_out(kernels: World) -> None:
    site = kernels.sites[0]
    site.controller.new_network("overlay", "vault", subnets=SUBNETS, internal=True)
    end = site.joined("vault", "box")
    assert end.sandbox is not None
    for proto, version in BOTH:
        assert is_cut_off(inside(end.sandbox), kernels.entered, proto, WORLD[version])
    shown = end.sandbox.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert len(shown.splitlines()) == 2  # the loopback, and that of the network
    assert not any(link.startswith("br-") for link in site.links())


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_another_network_s_way_out_takes_over_and_gives_back(firewall: str) -> None:
    """Whoever is the way out, ports are reached; connections from inside leave by it."""
    with world_around("linux", 1, firewall) as world:
        (site,) = world.sites
        site.controller.new_network("overlay", "net", subnets=SUBNETS)
        site.controller.new_network("bridge", "bridge", ipv4=True, ipv6=True)
        web = site.joined("net", "web", ports=["8080:80/tcp", "8080:80/udp"])
        other = site.controller.networks["bridge"].create_endpoint("other")
        for _ in range(2):
            assert is_published(world, site, web, 8080, 80)
            assert web.sandbox is not None
            other.join(web.sandbox)
            assert web.sandbox.gateway is None
            assert is_published(world, site, web, 8080, 80)
            assert seen(inside(web.sandbox), world.entered, "tcp", WORLD[6]) == site.addresses[6]
            assert site.controller.reconcile(dry_run=True).is_clean
            other.leave()
            assert gateway_of(web).interface == "gw0"
            assert seen(inside(web.sandbox), world.entered, "udp", WORLD[4]) == site.addresses[4]
        assert is_published(world, site, web, 8080, 80)


def test_a_port_of_another_program_is_refused_and_nothing_is_left_of_the_join(kernels: World) -> None:
    site = kernels.sites[0]
    site.controller.new_network("overlay", "net", subnets=SUBNETS)
    end = site.controller.networks["net"].create_endpoint("web", ports=["8080:80", "81"])
    box = site.controller.new_sandbox("web")
    before = site.links()
    netns = ["ip", "netns", "exec", site.host.name]
    listener = subprocess.Popen(
        [*netns, "python3", "-c", LISTENER],
        stdout=subprocess.PIPE,
    )
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"1\n"
        with pytest.raises(PortTakenError, match="8080/tcp"):
            end.join(box)
        assert box.gateway is None
        assert site.links() == before
        assert site.controller.reconcile(dry_run=True).is_clean
    finally:
        listener.kill()
        listener.communicate()
    end.join(box)
    assert seen(kernels.entered, inside(box), "tcp", site.addresses[4], (8080, 80)) == WORLD[4]


def test_it_outlives_its_process_and_is_repaired_and_erased(kernels: World) -> None:
    site = kernels.sites[0]
    before = site.links()
    site.controller.new_network("overlay", "net", subnets=SUBNETS)
    web = site.joined("net", "web", ports=["8080:80/tcp", "8080:80/udp"])
    gateway, server = gateway_of(web), inside(web.sandbox)
    site.controller.close()
    for proto, version in BOTH:  # nobody is there but the kernel
        assert seen(kernels.entered, server, proto, site.addresses[version], (8080, 80)) == WORLD[version]
    site.reopen()
    web = site.controller.networks["net"].endpoints["web"]
    assert gateway_of(web) == gateway
    assert is_published(kernels, site, web, 8080, 80)
    with site.entered():
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        bridge = next(link for link in site.links() if link.startswith("br-"))
        subprocess.run(["ip", "link", "delete", bridge], check=True)
    assert is_cut_off(kernels.entered, server, "tcp", site.addresses[4], (8080, 80))
    assert not site.controller.reconcile().failed
    assert is_published(kernels, site, web, 8080, 80)
    assert site.controller.reconcile().is_clean
    web.delete(force=True)
    site.controller.sandboxes["web"].delete()
    assert eventually(lambda: site.links() == before)  # some go a little later
    site.controller.networks["net"].delete()
    assert site.controller.statistics()["endpoints"] == 0
