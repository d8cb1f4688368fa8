"""Rules of libnetwork's life cycle that need a second process, a restart, or an odd order of things."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    BridgeDriver,
    ConflictError,
    Controller,
    InvalidValueError,
    MemoryStore,
    NetworkSpec,
    NoOptions,
    NotFoundError,
    PynetworkError,
    UnavailableError,
    UnknownDriverError,
    Usage,
)
from pynetwork.resources import Bridge
from pynetwork.store import Put
from pynetwork.testing import FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from pathlib import Path

Opener = Callable[..., Controller]


@pytest.fixture
def again(kernel: FakeKernel, store: MemoryStore) -> Opener:
    """Open a controller as another process would."""

    def open_another(process: str = "p2", **arguments: Any) -> Controller:
        around = fake_surroundings(process=process)
        return Controller(store=store, kernel=kernel, surroundings=around, **arguments)

    return open_another


class TestRestart:
    """Whatever was made is found as it was by the next process."""

    def test_everything_recorded_is_the_same(self, controller: Controller, again: Opener) -> None:
        subnet = {
            "network": "10.0.0.0/24",
            "gateway": "10.0.0.254",
            "sub_pool": "10.0.0.128/25",
            "auxiliary": {"DefaultGatewayIPv4": "10.0.0.130", "other": "10.0.0.7"},
        }
        network = controller.new_network(
            "bridge", "n", subnets=[subnet], ipv6=True, options={"mtu": 1400}, labels={"a": "b"}
        )
        endpoint = network.create_endpoint(
            "e",
            interface="wan",
            link_local=["169.254.1.1"],
            aliases=["web", "www", "web"],
            routes=["192.0.2.0/24", ("198.51.100.0/24", "10.0.0.130")],
            sysctls={"net.ipv4.conf.IFNAME.rp_filter": "2"},
            priority=-3,
            labels={"c": "d"},
        )
        endpoint.join(controller.new_sandbox("s", hostname="web"))
        controller.new_network("bridge", "internal", internal=True).create_endpoint("free")
        controller.new_network("bridge", "bare", ipam="null")
        controller.new_network("null", "none").create_endpoint("nothing")
        host = controller.new_network("host", "host").create_endpoint("h")
        host.join(controller.new_sandbox("shared", netns="host"))
        recorded = controller.inspect()
        controller.close()
        with again() as other:
            assert other.inspect() == recorded
            assert other.networks["n"].endpoints["e"].interface == "wan"
            assert other.networks["n"].endpoints["e"].aliases == ("web", "www")
            assert other.reconcile(dry_run=True).is_clean

    def test_close_keeps_everything_on_the_host(self, controller: Controller, kernel: FakeKernel) -> None:
        controller.new_network("bridge", "n").create_endpoint("e").join(controller.new_sandbox("s"))
        before = kernel.resources
        controller.close()
        assert kernel.resources == before

    def test_what_a_newer_version_wrote_beside_survives_every_rewrite(
        self, controller: Controller, store: MemoryStore, again: Opener
    ) -> None:
        network = controller.new_network("bridge", "n")
        endpoint, sandbox = network.create_endpoint("e"), controller.new_sandbox("s")
        keys = [f"network/{network.id}", f"endpoint/{network.id}/{endpoint.id}", f"sandbox/{sandbox.id}"]
        for key in keys:
            store.transact([], [Put(key, json.dumps(json.loads(_value(store, key)) | {"new": [key]}))])
        with again() as other:
            other.networks["n"].endpoints["e"].join(other.sandboxes["s"])
            other.networks["n"].endpoints["e"].leave()
            other.networks["n"].endpoints["e"].rename("e2")
            other.networks["n"].rename("n2")
            other.sandboxes["s"].rename("s2")
        for key in keys:
            assert json.loads(_value(store, key))["new"] == [key]

    def test_a_network_whose_driver_is_gone_can_be_seen_and_deleted(
        self, kernel: FakeKernel, store: MemoryStore, again: Opener
    ) -> None:
        with again("p1", drivers=[Renamed()]) as controller:
            network = controller.new_network("renamed", "n", options={"mtu": 1400})
            network.create_endpoint("e").join(controller.new_sandbox("s"))
        with again() as other:
            network = other.networks["n"]
            assert network.options.items() >= {"mtu": 1400, "icc": True, "interface_prefix": "eth"}.items()
            network.rename("m")
            network.endpoints["e"].leave()
            with pytest.raises(UnknownDriverError, match="renamed"):
                network.endpoints["e"].join(other.sandboxes["s"])
            other.sandboxes["s"].delete()
            network.endpoints["e"].delete()
            network.delete()
        assert kernel.resources == ()
        assert {entry.key.partition("/")[0] for entry in store.list("").entries} <= {
            "meta",
            "lock",
            "address",
        }

    def test_options_of_another_version_of_the_driver_are_said_to_be(
        self, controller: Controller, store: MemoryStore, again: Opener
    ) -> None:
        network = controller.new_network("bridge", "n")
        network.create_endpoint("e")
        controller.new_sandbox("s")
        key = f"network/{network.id}"
        record = json.loads(_value(store, key))
        record["options"]["quantum"] = True
        store.transact([], [Put(key, json.dumps(record))])
        with again() as other:
            endpoint = other.networks["n"].endpoints["e"]
            with pytest.raises(UnavailableError, match=r"another version of driver 'bridge'.*quantum"):
                endpoint.join(other.sandboxes["s"])
            endpoint.delete()
            other.networks["n"].delete()


class Renamed(BridgeDriver):
    """A driver that is not installed everywhere."""

    name = "renamed"


class TestStale:
    """Two processes, one of which has not looked for a while."""

    def test_one_mac_is_not_given_twice(self, controller: Controller, again: Opener) -> None:
        network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        with again() as other:
            theirs = other.networks["n"]
            mac = "02:00:00:00:00:01"
            network.create_endpoint("a", mac=mac, addresses=["10.0.0.7"])
            with pytest.raises(ConflictError, match="in use by endpoint 'a'"):
                theirs.create_endpoint("b", mac=mac, addresses=["10.0.0.8"])

    def test_one_bridge_is_not_given_twice(self, controller: Controller, again: Opener) -> None:
        with again() as other:
            controller.new_network("bridge", "a", ipam="null", options={"bridge": "br0"})
            with pytest.raises(ConflictError, match="br0"):
                other.new_network("bridge", "b", ipam="null", options={"bridge": "br0"})

    def test_an_address_freed_elsewhere_is_no_longer_taken(
        self, controller: Controller, again: Opener
    ) -> None:
        endpoint = controller.new_network("bridge", "n", subnets=["10.0.0.0/30"]).create_endpoint("e")
        with again() as other:
            network = other.networks["n"]
            endpoint.delete()
            assert [str(address) for address in network.create_endpoint("f").addresses] == ["10.0.0.2/30"]

    def test_what_is_deleted_elsewhere_is_not_found(self, controller: Controller, again: Opener) -> None:
        network = controller.new_network("bridge", "n")
        endpoint, sandbox = network.create_endpoint("e"), controller.new_sandbox("s")
        with again() as other:
            theirs = other.networks["n"], other.networks["n"].endpoints["e"], other.sandboxes["s"]
            endpoint.delete()
            sandbox.delete()
            network.delete()
            uses: list[Callable[[], object]] = [
                lambda: theirs[0].create_endpoint("x"),
                theirs[0].usage,
                theirs[0].inspect,
                lambda: theirs[1].join(theirs[2]),
                lambda: theirs[1].rename("y"),
                lambda: theirs[1].network,
                lambda: theirs[2].endpoints,
                lambda: theirs[2].rename("y"),
                theirs[2].inspect,
                lambda: theirs[2].netns_path,
                theirs[2].plan_delete,
            ]
            for use in uses:
                with pytest.raises(NotFoundError, match="was deleted"):
                    use()


class TestRename:
    """Names are no identity: whatever has one can be given another, also while in use."""

    def test_while_joined_nothing_is_touched(self, controller: Controller, kernel: FakeKernel) -> None:
        network, sandbox = controller.new_network("bridge", "n"), controller.new_sandbox("s")
        endpoint = network.create_endpoint("e")
        endpoint.join(sandbox)
        log = kernel.log
        for thing in (network, endpoint, sandbox):
            thing.rename(f"{thing.name}2")
        assert kernel.log == log
        assert list(controller.networks["n2"].endpoints) == ["e2"]
        assert endpoint.sandbox == controller.sandboxes["s2"]
        network.create_endpoint("e")
        with pytest.raises(ConflictError, match="endpoint with name 'e' already exists"):
            endpoint.rename("e")
        endpoint.leave()
        endpoint.delete()

    def test_the_old_name_is_free_also_where_people_see_it(self, again: Opener) -> None:
        """With ``ip_netns`` a file has the sandbox's name, and keeps it."""
        with again(ip_netns=True) as controller:
            one = controller.new_sandbox("a")
            one.rename("b")
            two = controller.new_sandbox("a")
            assert one.netns_path != two.netns_path
            assert one.netns_path is not None
            assert one.netns_path.name.startswith("a.")
            three = controller.new_sandbox("x" * 255)
            assert three.netns_path is not None
            assert len(three.netns_path.name) <= 255


class TestJoin:
    """What join and leave take, and what is theirs to choose."""

    @pytest.mark.parametrize("what", [None, "s", 7, "network"])
    def test_only_a_sandbox_can_be_joined_or_left(self, controller: Controller, what: object) -> None:
        network = controller.new_network("bridge", "n")
        endpoint = network.create_endpoint("e")
        wrong: Any = network if what == "network" else what
        with pytest.raises(InvalidValueError, match="a Sandbox is expected"):
            endpoint.join(wrong)
        if wrong is not None:
            with pytest.raises(InvalidValueError, match="a Sandbox is expected"):
                endpoint.leave(wrong)

    def test_the_loopback_name_is_taken(self, controller: Controller) -> None:
        endpoint = controller.new_network("bridge", "n").create_endpoint("e", interface="lo")
        with pytest.raises(ConflictError, match="'lo' is taken"):
            endpoint.join(controller.new_sandbox("s"))

    def test_an_internal_network_gives_no_default_route_of_either_family(
        self, controller: Controller, kernel: FakeKernel
    ) -> None:
        network = controller.new_network("bridge", "n", ipv4=True, ipv6=True, internal=True)
        endpoint = network.create_endpoint("e")
        endpoint.join(controller.new_sandbox("s"))
        assert len(endpoint.addresses) == 2
        assert endpoint.gateways == ()
        assert not [resource for resource in kernel.resources if resource.kind == "route"]

    def test_two_endpoints_of_a_sandbox_cannot_bring_the_same_route(
        self, controller: Controller, kernel: FakeKernel
    ) -> None:
        sandbox = controller.new_sandbox("s")
        for number in range(2):
            network = controller.new_network("bridge", f"n{number}")
            endpoint = network.create_endpoint("e", routes=["192.0.2.0/24"])
            if not number:
                endpoint.join(sandbox)
        before = kernel.resources
        with pytest.raises(ConflictError, match=r"192\.0\.2\.0/24"):
            endpoint.join(sandbox)
        assert kernel.resources == before

    def test_an_adopted_bridge_that_differs_is_left_as_it_is(self, again: Opener, kernel: FakeKernel) -> None:
        kernel.plant(Bridge(name="br0", mac="02:00:00:00:00:99", mtu=1400, multicast_snooping=True))
        with again() as controller:
            controller.new_network("bridge", "n", options={"bridge": "br0", "mtu": 1500})
            assert controller.reconcile().is_clean


class TestUsage:
    """How full a network is."""

    def test_each_subnet_is_counted(self, controller: Controller) -> None:
        subnet = {"network": "10.0.0.0/29", "auxiliary": {"router": "10.0.0.2"}}
        network = controller.new_network("bridge", "n", subnets=[subnet, "fd00::/120"])
        network.create_endpoint("a")
        four, six = ip_network("10.0.0.0/29"), ip_network("fd00::/120")
        assert network.usage()[four] == Usage(size=6, taken=3)
        assert network.usage()[four].free == 3
        assert network.usage()[six].taken == 2
        network.endpoints["a"].delete()
        assert network.usage()[four] == Usage(size=6, taken=2, quarantined=1)

    def test_networks_without_addresses_have_nothing_to_count(self, controller: Controller) -> None:
        assert controller.new_network("bridge", "n", ipam="null").usage() == {}
        assert controller.new_network("null", "none").usage() == {}


class TestController:
    """Blocks, erasing, closing."""

    def test_a_scratch_block_inside_another_leaves_the_outer_one_its_things(
        self, controller: Controller
    ) -> None:
        with controller.scratch():
            with controller.scratch():
                pass
            controller.new_network("bridge", "outer")
            with controller.scratch():
                controller.new_network("bridge", "inner")
            assert list(controller.networks) == ["outer"]
        assert dict(controller.networks) == {}
        controller.new_network("bridge", "kept")
        assert list(controller.networks) == ["kept"]

    def test_what_a_scratch_block_cannot_remove_is_reported_and_the_rest_is_removed(
        self, controller: Controller
    ) -> None:
        def block() -> None:
            with controller.scratch():
                network = controller.new_network("bridge", "used")
                controller.new_sandbox("s")
                controller._core.scratches.append([])  # what follows is not the block's
                network.create_endpoint("e")
                controller._core.scratches.pop()

        with pytest.raises(ExceptionGroup, match="could not be deleted") as caught:
            block()
        (error,) = caught.value.exceptions
        assert isinstance(error, ConflictError)
        assert list(controller.networks) == ["used"]
        assert dict(controller.sandboxes) == {}

    def test_erase_leaves_no_directory(self, tmp_path: Path, kernel: FakeKernel) -> None:
        state, run = tmp_path / "state", tmp_path / "run"
        with Controller(state, run_dir=run, kernel=kernel, surroundings=fake_surroundings()) as controller:
            controller.new_network("bridge", "n").create_endpoint("e")
            assert state.is_dir()
            controller.erase()
        assert not state.exists()
        assert not run.exists()

    def test_erase_deletes_everything_and_closes(self, controller: Controller, kernel: FakeKernel) -> None:
        network = controller.new_network("bridge", "n")
        network.create_endpoint("e").join(controller.new_sandbox("s"))
        controller.new_network("host", "host")
        controller.erase()
        assert kernel.resources == ()
        with pytest.raises(PynetworkError, match="closed"):
            controller.erase()

    def test_nothing_works_after_close(self, controller: Controller) -> None:
        network = controller.new_network("bridge", "n")
        endpoint, sandbox = network.create_endpoint("e"), controller.new_sandbox("s")
        controller.close()
        uses: list[Callable[[], object]] = [
            controller.statistics,
            controller.inspect,
            controller.reconcile,
            lambda: controller.new_network("bridge", "m"),
            lambda: controller.plan_network("bridge", "m"),
            lambda: "n" in controller.networks,
            network.plan_delete,
            network.usage,
            network.delete,
            lambda: network.delete(missing_ok=True),
            lambda: endpoint.join(sandbox),
            lambda: endpoint.plan_join(sandbox),
            endpoint.plan_leave,
            endpoint.plan_delete,
            sandbox.plan_delete,
            sandbox.stats,
            sandbox.entered,
            lambda: sandbox.run(["true"]),
        ]
        for use in uses:
            with pytest.raises(PynetworkError, match="controller is closed"):
                use()
        assert repr(network).startswith("<Network ")

    def test_statistics_and_inspection_are_json(self, controller: Controller) -> None:
        network = controller.new_network("bridge", "n", ipv4=True, ipv6=True, labels={"a": "b"})
        network.create_endpoint("e", routes=["192.0.2.0/24"], sysctls={"net.ipv4.conf.IFNAME.rp_filter": "1"})
        network.endpoints["e"].join(controller.new_sandbox("s"))
        controller.new_sandbox("h", netns="host")
        data = controller.inspect()
        assert json.loads(json.dumps(data)) == data
        assert data["networks"]["n"]["endpoints"]["e"]["sandbox"] == data["sandboxes"]["s"]["id"]
        statistics = controller.statistics()
        assert json.loads(json.dumps(statistics)) == statistics
        assert (statistics["networks"], statistics["endpoints"], statistics["sandboxes"]) == (1, 1, 2)

    def test_handles_are_short_and_say_when_they_are_gone(self, controller: Controller) -> None:
        network = controller.new_network("bridge", "n")
        endpoint, sandbox = network.create_endpoint("e"), controller.new_sandbox("s")
        handles = (network, endpoint, sandbox)
        assert [repr(handle) for handle in handles] == [
            f"<Network {network.id[:12]} n>",
            f"<Endpoint {endpoint.id[:12]} e>",
            f"<Sandbox {sandbox.id[:12]} s>",
        ]
        assert len({*handles, *handles}) == 3
        endpoint.delete()
        sandbox.delete()
        network.delete()
        assert all(repr(handle).endswith("(deleted)>") for handle in handles)
        for handle in handles:
            handle.delete(missing_ok=True)
            with pytest.raises(NotFoundError):
                handle.delete()


class TestSpecs:
    """What a driver is given."""

    def test_a_driver_gets_the_spec_it_may_refuse_before_anything_is_touched(
        self, kernel: FakeKernel, store: MemoryStore
    ) -> None:
        class Picky(BridgeDriver):
            name = "picky"

            def network_plan(self, network: NetworkSpec[Any]) -> Any:
                message = f"no network {network.name}"
                raise ConflictError(message)

        around = fake_surroundings()
        with Controller(store=store, kernel=kernel, surroundings=around, drivers=[Picky()]) as controller:
            before = store.list("")
            with pytest.raises(ConflictError, match="no network n"):
                controller.new_network("picky", "n", subnets=["10.0.0.0/24"])
            assert store.list("") == before
            assert kernel.log == ()
            controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])

    def test_options_of_a_driver_without_any_are_refused(self, controller: Controller) -> None:
        assert controller.new_network("null", "n").options == NoOptions()
        with pytest.raises(InvalidValueError, match="unknown options mtu"):
            controller.new_network("host", "h", options={"mtu": 1500})


def _value(store: MemoryStore, key: str) -> str:
    entry = store.get(key)
    assert entry is not None
    return entry.value
