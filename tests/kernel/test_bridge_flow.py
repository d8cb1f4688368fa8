"""The whole flow on the real kernel: networks, endpoints, sandboxes, and packets that arrive."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from pynetwork import ApplyError, BridgeOptions, ConflictError, Subnet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Oracle

    from pynetwork import Controller, Endpoint, Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def ping(sandbox: Sandbox, target: object, *options: str, tries: int = 3) -> bool:
    """Tell whether *target* answers a ping from *sandbox*, at the latest the last of some *tries*."""
    command = ["ping", "-c1", "-W0.5", *options, str(target).partition("/")[0]]
    # On a busy kernel a port of a bridge forwards a little after its carrier is there.
    return any(sandbox.run(command, capture_output=True).returncode == 0 for _ in range(tries))


def wire(controller: Controller, network: str, name: str, **options: object) -> tuple[Endpoint, Sandbox]:
    """Create endpoint and sandbox *name*, and join them."""
    endpoint = controller.networks[network].create_endpoint(name, **options)  # type: ignore[arg-type]
    sandbox = controller.sandboxes[name] if name in controller.sandboxes else controller.new_sandbox(name)
    endpoint.join(sandbox)
    return endpoint, sandbox


def path_of(sandbox: Sandbox) -> str:
    return str(sandbox.netns_path)


@pytest.mark.parametrize("subnets", [["10.88.0.0/24"], ["fd88::/64"], ["10.88.0.0/24", "fd88::/64"]])
def test_two_sandboxes_ping_each_other_and_their_gateway(
    subnets: list[str], controller: Controller, host: PrivateHost
) -> None:
    network = controller.new_network("bridge", "n", subnets=subnets)
    one, first = wire(controller, "n", "one")
    two, second = wire(controller, "n", "two")
    assert len(one.addresses) == len(subnets)
    for mine, theirs in ((first, two), (second, one)):
        for target in (*theirs.addresses, *network.gateways):
            assert ping(mine, target)
    for address in (*one.addresses, *two.addresses):
        host.run(["ping", "-c3", "-i0.2", "-W1", str(address.ip)])
    two.leave()
    assert not any(ping(first, address, tries=1) for address in two.addresses)
    assert controller.reconcile().is_clean


def test_packets_of_the_mtu_pass_and_larger_ones_do_not(controller: Controller, oracle: Oracle) -> None:
    network = controller.new_network(
        "bridge", "n", subnets=["10.88.0.0/24"], options=BridgeOptions(bridge="br-mtu", mtu=1400)
    )
    (one, first), (two, _) = wire(controller, "n", "one"), wire(controller, "n", "two")
    assert oracle.links()["br-mtu"].mtu == oracle.links(path_of(first))["eth0"].mtu == 1400
    assert ping(first, two.addresses[0], "-M", "do", "-s", "1372")
    assert not ping(first, two.addresses[0], "-M", "do", "-s", "1373", tries=1)
    assert ping(first, network.gateways[0], "-M", "do", "-s", "1372")
    one.leave()
    two.leave()
    assert controller.reconcile().is_clean


def test_links_too_small_for_ipv6_carry_ipv4(controller: Controller, oracle: Oracle) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], options={"mtu": 1000})
    (_, first), (two, _) = wire(controller, "n", "one"), wire(controller, "n", "two")
    assert oracle.links(path_of(first))["eth0"].mtu == 1000
    assert all(ping(first, target) for target in (two.addresses[0], network.gateways[0]))
    assert controller.reconcile().is_clean


def test_interfaces_have_the_name_mac_address_and_settings_asked_for(
    controller: Controller, oracle: Oracle
) -> None:
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    endpoint, sandbox = wire(
        controller,
        "n",
        "e",
        addresses=["10.88.0.77", "fd88::77"],
        mac="02:00:00:00:00:77",
        interface="lan.7",
        link_local=["169.254.7.7", "fe80::7"],
        routes=[("192.0.2.0/24", "10.88.0.9"), "198.51.100.0/24", ("2001:db8::/64", "fd88::9")],
        sysctls={"net.ipv4.conf.IFNAME.rp_filter": "2", "net.ipv6.conf.IFNAME.hop_limit": "33"},
    )
    inside = path_of(sandbox)
    link = oracle.links(inside)["lan.7"]
    assert (link.mac, link.up) == ("02:00:00:00:00:77", True)
    assert oracle.cidrs("lan.7", inside) == {
        "10.88.0.77/24",
        "fd88::77/64",
        "169.254.7.7/16",
        "fe80::7/64",
    }
    assert oracle.routes_of("lan.7", inside) == {
        ("192.0.2.0/24", "10.88.0.9"),
        ("198.51.100.0/24", None),
        ("2001:db8::/64", "fd88::9"),
        ("0.0.0.0/0", "10.88.0.1"),
        ("::/0", "fd88::1"),
    }
    for name, value in (("ipv4/conf/lan.7/rp_filter", "2"), ("ipv6/conf/lan.7/hop_limit", "33")):
        shown = sandbox.run(["cat", f"/proc/sys/net/{name}"], capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == value
    assert endpoint.interface == "lan.7"
    assert controller.reconcile().is_clean


def test_the_default_routes_are_those_of_the_network_of_highest_priority(
    controller: Controller, oracle: Oracle
) -> None:
    for number in range(3):
        controller.new_network("bridge", f"n{number}", subnets=[f"10.{number}.0.0/24", f"fd0{number}::/64"])
    endpoints = [
        wire(controller, f"n{n}", "box" if n == 0 else f"x{n}", priority=p)[0]
        for n, p in enumerate((0, 5, 1))
    ]
    box = controller.sandboxes["box"]
    inside = path_of(box)

    def defaults() -> set[str | None]:
        return {each.via for each in oracle.routes(inside) if each.dst in {"0.0.0.0/0", "::/0"}}

    assert defaults() == {"10.0.0.1", "fd00::1"}
    for endpoint in endpoints[1:]:
        endpoint.leave()
        endpoint.join(box)
    assert sorted(oracle.links(inside)) == ["eth0", "eth1", "eth2", "lo"]
    assert [endpoint.interface for endpoint in box.endpoints] == ["eth0", "eth1", "eth2"]
    assert defaults() == {"10.1.0.1", "fd01::1"}
    endpoints[1].leave()
    assert defaults() == {"10.2.0.1", "fd02::1"}
    endpoints[1].join(box)
    assert endpoints[1].interface == "eth1"
    assert defaults() == {"10.1.0.1", "fd01::1"}
    assert all(ping(box, gateway) for number in range(3) for gateway in (f"10.{number}.0.1",))
    assert controller.reconcile().is_clean


def test_ipv4_and_ipv6_may_leave_through_different_networks(controller: Controller, oracle: Oracle) -> None:
    controller.new_network("bridge", "four", subnets=["10.4.0.0/24"])
    controller.new_network("bridge", "six", subnets=["fd06::/64"])
    wire(controller, "four", "box")
    controller.networks["six"].create_endpoint("e").join(controller.sandboxes["box"])
    inside = path_of(controller.sandboxes["box"])
    assert oracle.routes_of("eth0", inside) == {("0.0.0.0/0", "10.4.0.1")}
    assert oracle.routes_of("eth1", inside) == {("::/0", "fd06::1")}


def test_an_internal_network_has_no_default_route(controller: Controller, oracle: Oracle) -> None:
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"], internal=True)
    one, first = wire(controller, "n", "one")
    two, _ = wire(controller, "n", "two")
    assert one.gateways == ()
    assert oracle.routes_of("eth0", path_of(first)) == set()
    assert all(ping(first, address) for address in two.addresses)
    assert not ping(first, "192.0.2.1", tries=1)


def test_the_gateway_may_be_another_machine_s(controller: Controller, oracle: Oracle) -> None:
    network = controller.new_network(
        "bridge",
        "n",
        subnets=[Subnet("10.88.0.0/24", gateway="10.88.0.254")],
        options={"bridge": "br-lan", "inhibit_gateway": True, "spoof_protection": False},
    )
    _, router = wire(controller, "n", "router", interface="wan0")
    endpoint, box = wire(controller, "n", "box")
    assert oracle.cidrs("br-lan") == set()
    assert oracle.routes_of("eth0", path_of(box)) == {("0.0.0.0/0", "10.88.0.254")}
    assert endpoint.gateways == network.gateways == (ipaddress.ip_address("10.88.0.254"),)
    router.run(["ip", "address", "add", "10.88.0.254/24", "dev", "wan0"], check=True)
    assert ping(box, "10.88.0.254")


def test_an_existing_bridge_is_used_and_left_behind(
    host: PrivateHost, controller: Controller, oracle: Oracle
) -> None:
    host.run(["ip", "link", "add", "lan0", "address", "02:00:00:00:00:88", "type", "bridge"])
    host.run(["ip", "address", "add", "10.88.0.1/24", "dev", "lan0"])
    before = oracle.links()["lan0"]
    network = controller.new_network(
        "bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"], options={"bridge": "lan0"}
    )
    endpoint, sandbox = wire(controller, "n", "one")
    assert all(ping(sandbox, gateway) for gateway in network.gateways)
    assert controller.reconcile().is_clean
    endpoint.delete(force=True)
    network.delete()
    after = oracle.links()["lan0"]
    assert (after.ifindex, after.group, after.mac) == (before.ifindex, before.group, before.mac)
    # Its own link-local address is the bridge's affair.
    assert {cidr for cidr in oracle.cidrs("lan0") if not cidr.startswith("fe80:")} == {"10.88.0.1/24"}
    host.run(["ip", "link", "delete", "lan0"])


def test_a_link_that_is_no_bridge_cannot_be_one(
    host: PrivateHost, controller: Controller, oracle: Oracle
) -> None:
    host.run(["ip", "link", "add", "x0", "type", "veth", "peer", "name", "x1"])
    with pytest.raises(ApplyError, match="there is a link of that name, of type veth") as caught:
        controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], options={"bridge": "x0"})
    assert caught.value.rolled_back
    assert "n" not in controller.networks
    assert oracle.links().keys() == {"lo", "x0", "x1"}
    host.run(["ip", "link", "delete", "x0"])
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], options={"bridge": "x0"})


def test_the_host_network_is_the_host_and_the_null_network_is_nothing(
    host: PrivateHost, controller: Controller, oracle: Oracle
) -> None:
    host.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"])
    box = controller.new_sandbox("box", netns="host")
    endpoint = controller.new_network("host", "host").create_endpoint("e")
    endpoint.join(box)
    assert (box.netns_path, endpoint.interface, endpoint.addresses) == (None, None, ())
    shown = box.run(["ip", "-brief", "address"], capture_output=True, text=True).stdout
    assert "192.0.2.1/32" in shown
    with box.entered(), socket.create_server(("192.0.2.1", 0)):
        pass
    alone = controller.new_sandbox("alone")
    nothing = controller.new_network("null", "none").create_endpoint("e")
    nothing.join(alone)
    assert oracle.links(path_of(alone)).keys() == {"lo"}
    assert alone.stats().interfaces == {}
    with pytest.raises(ConflictError):
        nothing.join(box)
    assert controller.reconcile().is_clean


def test_an_endpoint_exists_before_its_sandbox_outlives_it_and_moves_with_its_address_and_mac(
    controller: Controller, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    _, watcher = wire(controller, "n", "watcher")
    endpoint = network.create_endpoint("e")
    addresses, mac = endpoint.addresses, endpoint.mac
    cidrs = {str(address) for address in addresses}
    first, second = controller.new_sandbox("first"), controller.new_sandbox("second")
    for box in (first, second, first):
        endpoint.join(box)
        assert (endpoint.addresses, endpoint.mac, endpoint.sandbox) == (addresses, mac, box)
        assert oracle.cidrs("eth0", path_of(box)) == cidrs
        assert oracle.links(path_of(box))["eth0"].mac == mac
        assert all(ping(watcher, address) for address in addresses)
        endpoint.leave()
        assert soon(lambda box=box: "eth0" not in oracle.links(path_of(box)))  # type: ignore[misc]
    endpoint.join(first)
    first.delete()
    assert endpoint.sandbox is None
    # The container is built again, under the same name.
    again = controller.new_sandbox("first")
    endpoint.join(again)
    assert all(ping(watcher, address) for address in addresses)
    assert oracle.links(path_of(again))["eth0"].mac == mac
    assert controller.reconcile().is_clean


def test_the_next_endpoint_may_have_the_interface_name_of_one_that_just_left(
    controller: Controller, oracle: Oracle
) -> None:
    for number in range(2):
        controller.new_network("bridge", f"n{number}", subnets=[f"10.{number}.0.0/24"])
    box = controller.new_sandbox("box")
    endpoints = [controller.networks[f"n{n}"].create_endpoint("e") for n in range(2)]
    for endpoint in endpoints * 4:
        endpoint.join(box)
        assert endpoint.interface == "eth0"
        assert oracle.cidrs("eth0", path_of(box)) == {str(endpoint.addresses[0])}
        endpoint.leave()


def test_default_routes_are_free_as_soon_as_their_endpoint_left(
    controller: Controller, oracle: Oracle
) -> None:
    """Links go a little later, what was routed through them must not be in the way until then."""
    for number in range(2):
        subnets = [f"10.{number}.0.0/24", f"fd0{number}::/64"]
        controller.new_network("bridge", f"n{number}", subnets=subnets)
    box = controller.new_sandbox("box")
    endpoints = [controller.networks[f"n{n}"].create_endpoint(f"x{n}", interface=f"lan{n}") for n in range(2)]
    for number, endpoint in enumerate(endpoints * 4):
        endpoint.join(box)
        routes = oracle.routes_of(f"lan{number % 2}", path_of(box))
        assert routes == {("0.0.0.0/0", f"10.{number % 2}.0.1"), ("::/0", f"fd0{number % 2}::1")}
        endpoint.leave()
    assert controller.reconcile().is_clean


def test_counters_programs_and_threads_are_in_the_sandbox(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    endpoint, box = wire(controller, "n", "box")
    before = box.stats().interfaces["eth0"]
    assert ping(box, network.gateways[0], "-s", "1000")
    after = box.stats().interfaces
    assert after.keys() == {"eth0"}
    assert after["eth0"].tx_packets > before.tx_packets
    assert after["eth0"].tx_bytes - before.tx_bytes > 1000 < after["eth0"].rx_bytes - before.rx_bytes
    address = str(endpoint.addresses[0].ip)
    with box.entered():
        server = socket.create_server((address, 0))
    with server, socket.create_connection(server.getsockname()) as client:
        connection, _ = server.accept()
        with connection:
            client.sendall(b"hello")
            assert connection.recv(9) == b"hello"
    code = f"read line; ip -brief address show eth0 | grep -q {address} && echo $line"
    with box.popen(["sh", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate("yes\n")
    assert (output, process.returncode) == ("yes\n", 0)
    assert box.run(["cat"], input=b"in", capture_output=True).stdout == b"in"
    with pytest.raises(subprocess.CalledProcessError):
        box.run(["false"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        box.run(["sleep", "60"], timeout=0.01)
    with pytest.raises(FileNotFoundError):
        box.run(["no-such-program"])


def test_a_router_on_the_bridge_cannot_configure_a_sandbox(controller: Controller, oracle: Oracle) -> None:
    """A sandbox is deaf to router advertisements, and makes no address of its own."""
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    _, box = wire(controller, "n", "box")
    shown = box.run(["cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"], capture_output=True, text=True)
    assert shown.stdout == "0\n"
    assert not [each for each in oracle.addresses(path_of(box)) if each.cidr.startswith("fe80")]
