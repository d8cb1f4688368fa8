"""Endpoints and sandboxes: every rule of libnetwork's life cycle."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from pynetwork import (
    ConflictError,
    Controller,
    InvalidValueError,
    MemoryStore,
    NotFoundError,
    PynetworkError,
)
from pynetwork.testing import Clock, FakeKernel, assert_plan, fake_surroundings


def test_join_makes_the_interface(controller: Controller, kernel: FakeKernel) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], options={"bridge": "br0"})
    sandbox = controller.new_sandbox("s")
    endpoint = network.create_endpoint(
        "e",
        mac="02:00:00:00:00:05",
        link_local=["169.254.7.7"],
        routes=[("192.0.2.0/24", "10.88.0.9"), "198.51.100.0/24"],
        sysctls={"net.ipv4.conf.IFNAME.rp_filter": "1"},
    )
    before = kernel.resources
    steps = endpoint.plan_join(sandbox)
    assert kernel.resources == before
    endpoint.join(sandbox)
    ns = sandbox.netns_path
    link = next(r.name for r in kernel.resources if r.kind == "veth")  # type: ignore[attr-defined]  # a Veth
    expected = f"""
        nft add element bridge pynetwork macs {{ "{link}" . 02:00:00:00:00:05 }}
        nft add element bridge pynetwork sources4 {{ "{link}" . 02:00:00:00:00:05 . 10.88.0.2 }}
        nft add element bridge pynetwork sources4 {{ "{link}" . 02:00:00:00:00:05 . 169.254.7.7 }}
        nft add element bridge pynetwork guarded {{ "{link}" }}
        ip link add {link} numtxqueues 1 numrxqueues 1 type veth peer name eth0 address 02:00:00:00:00:05 numtxqueues 1 numrxqueues 1 netns {ns}
        ip link set {link} addrgenmode none
        ip link set {link} master br0 up
        bridge link set dev {link} hairpin on
        nsenter --net={ns} ip link set eth0 addrgenmode none
        nsenter --net={ns} sysctl -w net.ipv4.conf.eth0.rp_filter=1
        nsenter --net={ns} ip address add 10.88.0.2/24 dev eth0
        nsenter --net={ns} ip address add 169.254.7.7/16 dev eth0
        nsenter --net={ns} ip link set eth0 up
        nsenter --net={ns} ip route add 198.51.100.0/24 dev eth0
        nsenter --net={ns} ip route add 192.0.2.0/24 via 10.88.0.9 dev eth0
        nsenter --net={ns} ip route add 0.0.0.0/0 via 10.88.0.1 dev eth0
    """  # noqa: E501 - a line as it would be typed
    assert_plan(type(kernel.resources)(r for r in kernel.resources if r not in before), expected)
    assert [str(step) for step in steps][2:-1] == [str(step) for step in kernel.log[-len(steps) :]][2:-1]
    assert endpoint.interface == "eth0"
    assert endpoint.sandbox == sandbox
    assert sandbox.endpoints == (endpoint,)
    assert endpoint.gateways == (ip_address("10.88.0.1"),)


def test_a_full_life_leaves_nothing(
    controller: Controller, kernel: FakeKernel, store: MemoryStore, clock: Clock
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd00::/64"])
    endpoint = network.create_endpoint("e")
    sandbox = controller.new_sandbox("s")
    endpoint.join(sandbox)
    endpoint.leave()
    endpoint.delete()
    sandbox.delete()
    network.delete()
    assert kernel.resources == ()
    left = {entry.key.partition("/")[0] for entry in store.list("").entries}
    assert left <= {"meta", "lock"}
    assert controller.statistics() | {"revision": 0} == {
        "networks": 0,
        "endpoints": 0,
        "sandboxes": 0,
        "requests": 0,
        "revision": 0,
    }


def test_containers_come_in_any_order_and_endpoints_outlive_them(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    endpoint = network.create_endpoint("e")
    address, mac = endpoint.addresses, endpoint.mac
    for name in ("first", "rebuilt"):
        sandbox = controller.new_sandbox(name)
        endpoint.join(sandbox)
        assert (endpoint.addresses, endpoint.mac) == (address, mac)
        sandbox.delete()
        assert endpoint.sandbox is None
        assert endpoint.interface is None
        assert (endpoint.addresses, endpoint.mac) == (address, mac)


def test_join_and_leave_out_of_turn(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    endpoint = network.create_endpoint("e")
    one, two = controller.new_sandbox("one"), controller.new_sandbox("two")
    with pytest.raises(ConflictError, match="has joined no sandbox"):
        endpoint.leave()
    endpoint.join(one)
    with pytest.raises(ConflictError, match="already joined"):
        endpoint.join(one)
    with pytest.raises(ConflictError, match="another sandbox, 'one'"):
        endpoint.join(two)
    with pytest.raises(ConflictError, match="is in sandbox 'one', not in 'two'"):
        endpoint.leave(two)
    with pytest.raises(ConflictError, match="is active: it is joined to sandbox 'one'"):
        endpoint.delete()
    endpoint.leave(one)
    endpoint.delete()
    with pytest.raises(NotFoundError):
        endpoint.join(one)
    with pytest.raises(NotFoundError):
        endpoint.leave()
    with pytest.raises(NotFoundError):
        endpoint.delete()
    endpoint.delete(missing_ok=True)
    network.delete()
    with pytest.raises(NotFoundError):
        network.create_endpoint("e")


def test_force_leaves_before_it_deletes(controller: Controller, kernel: FakeKernel) -> None:
    network = controller.new_network("bridge", "n")
    sandbox = controller.new_sandbox("s")
    endpoint = network.create_endpoint("e")
    endpoint.join(sandbox)
    endpoint.delete(force=True)
    assert sandbox.endpoints == ()
    assert "veth" not in {resource.kind for resource in kernel.resources}
    assert dict(network.endpoints) == {}


def test_a_network_with_endpoints_stays(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    network.create_endpoint("b")
    network.create_endpoint("a")
    with pytest.raises(ConflictError, match="active endpoints: a, b"):
        network.delete()


def test_endpoint_names_are_unique_in_their_network(controller: Controller) -> None:
    one, two = controller.new_network("bridge", "one"), controller.new_network("bridge", "two")
    one.create_endpoint("e")
    two.create_endpoint("e")
    with pytest.raises(ConflictError, match="endpoint with name 'e' already exists in network 'one'"):
        one.create_endpoint("e")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"addresses": ["10.1.0.5"]}, InvalidValueError),
        ({"addresses": ["10.0.0.5", "10.0.0.6"]}, InvalidValueError),
        ({"addresses": "10.0.0.5"}, InvalidValueError),
        ({"addresses": ["10.0.0.0"]}, InvalidValueError),
        ({"addresses": ["10.0.0.1"]}, ConflictError),
        ({"addresses": ["x"]}, InvalidValueError),
        ({"addresses": [None]}, InvalidValueError),
        ({"addresses": ["fd00::5"]}, InvalidValueError),
        ({"mac": "01:00:00:00:00:01"}, InvalidValueError),
        ({"mac": "zz"}, InvalidValueError),
        ({"interface": "a b"}, InvalidValueError),
        ({"interface": "x" * 16}, InvalidValueError),
        ({"link_local": ["10.0.0.7"]}, InvalidValueError),
        ({"aliases": ["a b"]}, InvalidValueError),
        ({"routes": [("10.9.0.0/16", "fd00::1")]}, InvalidValueError),
        ({"routes": ["x"]}, InvalidValueError),
        ({"exposed": "80/tcp"}, InvalidValueError),
        ({"exposed": ["8080:80/tcp"]}, InvalidValueError),
        ({"exposed": ["127.0.0.1::80/tcp"]}, InvalidValueError),
        ({"exposed": ["80/icmp"]}, InvalidValueError),
        ({"links": ["db"]}, InvalidValueError),
        ({"links": {"d b": "x"}}, InvalidValueError),
        ({"links": {"db": "x y"}}, InvalidValueError),
        ({"sysctls": {"kernel.panic": "1"}}, InvalidValueError),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}}, InvalidValueError),
        ({"sysctls": {"net.ipv4.conf.IFNAME": "1"}}, InvalidValueError),
        ({"priority": "high"}, InvalidValueError),
        ({"labels": {"a": None}}, InvalidValueError),
    ],
)
def test_bad_endpoints_are_refused_and_take_no_address(
    controller: Controller, arguments: dict[str, object], error: type[Exception]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
    with pytest.raises(error):
        network.create_endpoint("e", **arguments)  # type: ignore[arg-type]  # junk on purpose
    assert str(network.create_endpoint("e").addresses[0]) == "10.0.0.2/24"


def test_wanted_addresses_and_macs(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24", "fd00::/64"])
    one = network.create_endpoint("one", addresses=["10.0.0.77", "fd00::77/64"], mac="0242.ac11.0002")
    assert [str(address) for address in one.addresses] == ["10.0.0.77/24", "fd00::77/64"]
    assert one.mac == "02:42:ac:11:00:02"
    with pytest.raises(ConflictError, match=r"10\.0\.0\.77 is already in use"):
        network.create_endpoint("two", addresses=["10.0.0.77"])
    with pytest.raises(ConflictError, match="in use by endpoint 'one'"):
        network.create_endpoint("two", mac="02:42:AC:11:00:02")


def test_a_freed_address_rests_before_it_is_handed_out_again(controller: Controller, clock: Clock) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
    first = network.create_endpoint("e").addresses
    network.endpoints["e"].delete()
    second = network.create_endpoint("e").addresses
    assert second != first
    assert network.create_endpoint("f", addresses=first).addresses == first


def test_interface_names(controller: Controller) -> None:
    sandbox = controller.new_sandbox("s")
    wanted = [None, "eth2", None, None, "wan"]
    found = []
    for number, interface in enumerate(wanted):
        network = controller.new_network("bridge", f"n{number}")
        endpoint = network.create_endpoint("e", interface=interface)
        endpoint.join(sandbox)
        found.append(endpoint.interface)
    assert found == ["eth0", "eth2", "eth1", "eth3", "wan"]
    last = controller.new_network("bridge", "last", options={"interface_prefix": "net"})
    clash = last.create_endpoint("clash", interface="eth2")
    with pytest.raises(ConflictError, match="interface name 'eth2' is taken"):
        clash.join(sandbox)
    plain = last.create_endpoint("plain")
    plain.join(sandbox)
    assert plain.interface == "net0"


def test_overlapping_networks_do_not_share_a_sandbox(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    sandbox = controller.new_sandbox("s")
    network.create_endpoint("a").join(sandbox)
    with pytest.raises(ConflictError, match="conflicts with"):
        network.create_endpoint("b").join(sandbox)


class TestDefaultGateway:
    """Who provides a sandbox's default routes: priority, not internal, families, age."""

    def _joined(self, controller: Controller, *specs: dict[str, Any]) -> list[tuple[str, ...]]:
        sandbox = controller.new_sandbox("s")
        endpoints = []
        for number, spec in enumerate(specs):
            priority = spec.pop("priority", 0)
            network = controller.new_network("bridge", f"n{number}", **spec)
            endpoint = network.create_endpoint("e", priority=priority)
            endpoint.join(sandbox)
            endpoints.append(endpoint)
        return [tuple(str(via) for via in endpoint.gateways) for endpoint in endpoints]

    def test_the_first_joined_wins(self, controller: Controller) -> None:
        one, two = {"subnets": ["10.1.0.0/24"]}, {"subnets": ["10.2.0.0/24"]}
        assert self._joined(controller, one, two) == [("10.1.0.1",), ()]

    def test_a_higher_priority_takes_over(self, controller: Controller, kernel: FakeKernel) -> None:
        one, two = {"subnets": ["10.1.0.0/24"]}, {"subnets": ["10.2.0.0/24"], "priority": 1}
        assert self._joined(controller, one, two) == [(), ("10.2.0.1",)]
        routes = [r for r in kernel.resources if r.kind == "route"]
        assert [(r.via, r.dev) for r in routes] == [("10.2.0.1", "eth1")]  # type: ignore[attr-defined]

    def test_internal_networks_provide_none(self, controller: Controller) -> None:
        one = {"subnets": ["10.1.0.0/24"], "internal": True, "priority": 9}
        two = {"subnets": ["10.2.0.0/24"]}
        assert self._joined(controller, one, two) == [(), ("10.2.0.1",)]

    def test_more_families_come_first_and_each_is_chosen_separately(self, controller: Controller) -> None:
        four = {"subnets": ["10.1.0.0/24"]}
        both = {"subnets": ["10.2.0.0/24", "fd02::/64"]}
        six = {"subnets": ["fd03::/64"], "priority": 5}
        assert self._joined(controller, four, both, six) == [(), ("10.2.0.1",), ("fd03::1",)]

    def test_when_it_leaves_the_next_takes_over(self, controller: Controller, kernel: FakeKernel) -> None:
        self._joined(controller, {"subnets": ["10.1.0.0/24"]}, {"subnets": ["10.2.0.0/24"]})
        controller.networks["n0"].endpoints["e"].leave()
        routes = [r for r in kernel.resources if r.kind == "route"]
        assert [(r.via, r.dev) for r in routes] == [("10.2.0.1", "eth1")]  # type: ignore[attr-defined]

    def test_an_auxiliary_address_may_be_the_next_hop(self, controller: Controller) -> None:
        subnet = {"network": "10.1.0.0/24", "auxiliary": {"DefaultGatewayIPv4": "10.1.0.254"}}
        assert self._joined(controller, {"subnets": [subnet]}) == [("10.1.0.254",)]


def test_the_host_network_is_for_host_sandboxes(controller: Controller, kernel: FakeKernel) -> None:
    host = controller.new_network("host", "host")
    bridge = controller.new_network("bridge", "n")
    shared = controller.new_sandbox("shared", netns="host")
    before = kernel.resources
    own = controller.new_sandbox("own")
    endpoint = host.create_endpoint("e")
    with pytest.raises(ConflictError, match="netns='host'"):
        endpoint.join(own)
    with pytest.raises(ConflictError, match="only networks of type 'host'"):
        bridge.create_endpoint("e").join(shared)
    endpoint.join(shared)
    assert shared.netns_path is None
    assert endpoint.interface is None
    own.delete()
    assert kernel.resources == before
    endpoint.leave()
    shared.delete()


def test_null_endpoints_have_nothing(controller: Controller) -> None:
    sandbox = controller.new_sandbox("s")
    endpoint = controller.new_network("null", "none").create_endpoint("e")
    endpoint.join(sandbox)
    assert (endpoint.interface, endpoint.addresses) == (None, ())
    sandbox.delete()


@pytest.mark.parametrize("netns", [0, -1, True, 1.5, "relative/path", b"/x", object()])
def test_malformed_namespaces_are_refused(controller: Controller, kernel: FakeKernel, netns: object) -> None:
    with pytest.raises(InvalidValueError, match=r"namespace|process id"):
        controller.new_sandbox("s", netns=netns)
    assert kernel.log == ()


def test_sandboxes_have_unique_names_and_can_be_renamed(controller: Controller) -> None:
    one = controller.new_sandbox("one", hostname="web", labels={"a": "b"})
    with pytest.raises(ConflictError, match="sandbox with name 'one' already exists"):
        controller.new_sandbox("one")
    one.rename("two")
    assert list(controller.sandboxes) == ["two"]
    assert (one.hostname, one.labels) == ("web", {"a": "b"})
    one.delete()
    with pytest.raises(NotFoundError):
        one.delete()
    one.delete(missing_ok=True)


def test_handles_are_values(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    assert controller.networks["n"] == network
    assert len({controller.networks["n"], network}) == 1
    assert network != controller.new_sandbox("n")
    with pytest.raises(TypeError, match="made by a controller"):
        type(network)()
    with pytest.raises(AttributeError):
        network.nmae = "typo"  # type: ignore[attr-defined]  # a typo on purpose


def test_a_scratch_block_removes_what_was_made_in_it(controller: Controller, kernel: FakeKernel) -> None:
    kept = controller.new_network("bridge", "kept")
    before = kernel.resources
    with controller.scratch():
        host = controller.new_network("host", "host")
        network = controller.new_network("bridge", "n")
        sandbox = controller.new_sandbox("s")
        network.create_endpoint("e").join(sandbox)
        kept.create_endpoint("e").join(sandbox)
        host.create_endpoint("e").join(controller.new_sandbox("h", netns="host"))
        network.create_endpoint("gone").delete()
    assert kernel.resources == before
    assert list(controller.networks) == ["kept"]
    assert dict(controller.sandboxes) == {}


def test_a_closed_controller_says_so(controller: Controller) -> None:
    network = controller.new_network("bridge", "n")
    controller.close()
    controller.close()
    for use in (lambda: network.name, lambda: controller.new_sandbox("s"), lambda: list(controller.networks)):
        with pytest.raises(PynetworkError, match="closed"):
            use()


def test_handles_of_two_controllers_do_not_mix(controller: Controller) -> None:
    with Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings(7)) as other:
        endpoint = other.new_network("bridge", "n").create_endpoint("e")
        with pytest.raises(InvalidValueError, match="another controller"):
            endpoint.join(controller.new_sandbox("s"))


def test_what_it_serves_and_whom_it_knows_is_recorded(controller: Controller, store: MemoryStore) -> None:
    network = controller.new_network("bridge", "n", dns=["192.0.2.53", "2001:db8::53"])
    endpoint = network.create_endpoint("e", exposed=[80, "80/tcp", "8000-8010/udp"], links={"db": "postgres"})
    assert endpoint.exposed == ("80/tcp", "8000-8010/udp")
    assert endpoint.links == {"db": "postgres"}
    assert network.dns == (ip_address("192.0.2.53"), ip_address("2001:db8::53"))
    with Controller(store=store, kernel=FakeKernel(), surroundings=fake_surroundings(process="p2")) as other:
        assert other.networks["n"].dns == network.dns
        again = other.networks["n"].endpoints["e"]
        assert (again.exposed, again.links) == (endpoint.exposed, endpoint.links)
