"""Open vSwitch as the datapath of a cluster's host: one bridge and one tunnel for all networks, and flows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    ConflictError,
    ExhaustedError,
    InvalidValueError,
    MemoryStore,
    OverlayOptions,
    UnavailableError,
)
from pynetwork.cluster.config import Cluster
from pynetwork.drivers.overlay_flows import OFPORT_MAX
from pynetwork.drivers.overlay_ovs import OvsDatapath
from pynetwork.kernel.ovs.place import SwitchAwayError
from pynetwork.kernel.port import Away
from pynetwork.peers import Flood, Reach, Resolve
from pynetwork.resources import Flow, OvsBridge, OvsPort, StrictVni, TxChecksum, Veth, Vxlan
from pynetwork.testing import Chaos, ChaosStore, FakeKernel, Fate, Killed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.unit.cluster.hosts import Host, World

    from pynetwork.plan import Plan, Step


def made(host: Host, kind: type) -> list[str]:
    return sorted(str(item.key[-1]) for item in host.kernel.resources if isinstance(item, kind))


def test_all_networks_of_a_host_are_flows_of_one_bridge(world: World) -> None:
    host = world.host("h1", datapath="ovs-userspace")
    for name in ("red", "blue"):
        host.controller.new_network("overlay", name, subnets=["10.1.0.0/24"], ipv6=True, internal=True)
        host.joined(name, "web")
    assert made(host, OvsBridge) == ["br-pynetwork"]
    links = made(host, Veth)
    assert made(host, OvsPort) == sorted([*links, "vx-pynetwork"])
    assert len(links) == 2
    assert {item.on for item in host.kernel.resources if isinstance(item, TxChecksum)} == {False}
    tunnel = next(
        item for item in host.kernel.resources if isinstance(item, OvsPort) and item.type == "vxlan"
    )
    assert dict(tunnel.options) == {
        "remote_ip": "flow",
        "key": "flow",
        "local_ip": "192.0.2.1",
        "dst_port": "4789",
    }
    assert "ovs-vsctl add-br br-pynetwork" in host.kernel.render()
    host.controller.erase()
    assert not host.kernel.resources


def test_what_is_elsewhere_is_told_and_goes_with_the_network(world: World) -> None:
    one, two = (world.host(name, datapath="ovs-userspace") for name in ("h1", "h2"))
    one.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"], options=OverlayOptions(bum=True))
    near, far = one.joined("net", "near"), two.joined("net", "far")
    world.settle()
    vtep, address = "192.0.2.2", str(far.addresses[0].ip)
    assert one.entries("net") == {Reach(far.mac, vtep), Resolve(address, far.mac), Flood(vtep)}
    vni = one.controller.networks["net"].options.vni
    near.leave()
    near.delete()
    world.settle()
    assert not made(one, Flow)
    with pytest.raises(OSError, match="No such device"):
        one.kernel.peers().reconcile(vni, set())


def test_hosts_of_both_datapaths_are_in_a_strict_network_if_they_can_tell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without nftables cannot, and says what it takes."""
    one, two = world.host("h1", datapath="ovs-userspace"), world.host("h2", datapath="linux")
    one.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"], options=OverlayOptions(strict=True))
    one.joined("net", "web")
    assert any(isinstance(item, Flow) and item.actions == "goto_table:45" for item in one.kernel.resources)
    other = two.joined("net", "other")
    assert len([item for item in two.kernel.resources if isinstance(item, StrictVni)]) == 1
    other.delete(force=True)
    assert not any(isinstance(item, StrictVni | Vxlan) for item in two.kernel.resources)
    monkeypatch.setattr("pynetwork.testing.FakeKernel.tells_senders", lambda _self: False, raising=False)
    three = world.host("h3", datapath="linux")
    with pytest.raises(UnavailableError, match=r"datapath 'linux' of this host .*apt-get install nftables"):
        three.joined("net", "third")
    assert not any(isinstance(item, StrictVni | Vxlan) for item in three.kernel.resources)


def test_ports_of_a_host_have_different_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if their names, which are random, would give the same; and there is an end to them."""
    monkeypatch.setattr(OvsDatapath, "port_number", lambda _self, link: 2 + int(link[-1], 16) % 4)
    host = world.host("h1", datapath="ovs-userspace")
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    ends = [host.joined("net", f"e{number}") for number in range(4)]
    numbers = [item.ofport for item in host.kernel.resources if isinstance(item, OvsPort) and not item.type]
    assert sorted(numbers) == [2, 3, 4, 5]
    with pytest.raises(ExhaustedError, match="no number is left for a port of network 'net'"):
        host.joined("net", "e4")
    ends[1].leave()
    host.controller.networks["net"].endpoints["e4"].join(host.controller.sandboxes["net-e4"])


def test_numbers_are_those_of_ports_of_endpoints() -> None:
    numbers = {OvsDatapath().port_number(f"veth{number:010x}") for number in range(20_000)}
    assert min(numbers) == 2
    assert max(numbers) == OFPORT_MAX
    assert len(numbers) > 4000


def test_a_datapath_that_there_is_none_of_is_refused(world: World) -> None:
    for name in ("ebpf", "ovs", "OVS-kernel", ""):
        with pytest.raises(InvalidValueError, match="auto, ovs-kernel, ovs-userspace, linux are known"):
            Cluster(store=world.store, host="h1", datapath=name)


_OF_SWITCH = (OvsBridge, OvsPort, Flow)


class Switched(FakeKernel):
    """A host with the kernel's module, or without, and a switch that runs, or does not."""

    has_module = True
    reason = ""

    def has_switch_module(self) -> bool:
        return self.has_module

    def check(self, steps: Iterable[Step]) -> None:
        if self.reason and any(isinstance(step.resource, _OF_SWITCH) for step in steps):
            raise SwitchAwayError(self.reason)

    def away(self, expected: Plan) -> Away:
        keys = frozenset(item.key for item in expected if isinstance(item, _OF_SWITCH))
        return Away(keys, self.reason) if self.reason else Away()

    def observe(self, expected: Plan) -> Plan:
        if self.reason and any(isinstance(item, _OF_SWITCH) for item in expected):
            raise SwitchAwayError(self.reason)
        return super().observe(expected)

    def check_switch(self, link: str | None = None) -> None:
        if self.reason:
            raise SwitchAwayError(self.reason)
        if link is not None:
            msg = f"{link} is none of its own"
            raise UnavailableError(msg)


def test_the_kernels_own_switch_needs_no_help_with_checksums(world: World) -> None:
    host = world.host("h1", datapath="ovs-kernel", kernel=Switched())
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    host.joined("net", "web")
    assert not made(host, TxChecksum)
    assert OvsBridge(name="br-pynetwork", datapath="system") in host.kernel.resources
    assert place(host) == {"host": "h1", "vtep": "192.0.2.1", "datapath": "ovs-kernel"}


def place(host: Host) -> object:
    return host.controller.inspect()["cluster"]


def test_the_best_is_taken_that_a_host_has_and_kept(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Until another is asked for: what is there, or runs, may be another at every start."""
    caplog.set_level("INFO")
    kernel, store = Switched(), MemoryStore()
    host = world.host("h1", kernel=kernel, store=store)
    assert "datapath ovs-kernel forwards on this host" in caplog.messages
    host.controller.close()
    kernel.has_module, kernel.reason = False, "it does not run"
    host = world.host("h1", kernel=kernel, store=store)
    assert place(host) == {"host": "h1", "vtep": "192.0.2.1", "datapath": "ovs-kernel"}
    assert "networks that span hosts wait for their switch: it does not run" in caplog.messages
    host.controller.close()
    assert world.host("h1", kernel=kernel, store=store, datapath="linux").controller.inspect()["cluster"][
        "datapath"
    ] == ("linux")
    kernel.has_module, kernel.reason = True, ""
    host = world.host("h1", kernel=kernel, store=store)
    host.controller.new_network("overlay", "net")
    host.joined("net", "web")
    assert made(host, Vxlan)


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        ({"has_module": False}, r"the kernel lacks openvswitch \(modprobe openvswitch\)"),
        ({"reason": "it does not run: start it"}, "it does not run: start it"),
        ({"package": None}, r"the Python package ovs is missing \(pip install 'pynetwork\[overlay\]'\)"),
    ],
)
def test_a_host_that_lacks_something_takes_the_kernels_vxlan_and_says_why(
    world: World,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lacks: dict[str, Any],
    reason: str,
) -> None:
    caplog.set_level("INFO")
    kernel = Switched()
    for name, value in lacks.items():
        setattr(kernel, name, value)
    if "package" in lacks:
        monkeypatch.setattr("pynetwork.cluster.datapaths.find_spec", lambda _name: None)
    host = world.host("h1", kernel=kernel)
    assert place(host) == {"host": "h1", "vtep": "192.0.2.1", "datapath": "linux"}
    assert re.search(f"datapath linux forwards on this host: {reason}", caplog.text)


def test_what_was_asked_for_and_cannot_be_had_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Switched()
    kernel.has_module = False
    with pytest.raises(UnavailableError, match=r"'ovs-kernel' cannot be had: .* \(modprobe openvswitch\)"):
        world.host("h1", kernel=kernel, datapath="ovs-kernel")
    with pytest.raises(UnavailableError, match="is none of its own"):
        world.host("h1", kernel=kernel, datapath="ovs-userspace")
    monkeypatch.setattr("pynetwork.cluster.datapaths.find_spec", lambda _name: None)
    for name in ("ovs-kernel", "ovs-userspace"):
        with pytest.raises(UnavailableError, match=r"pip install 'pynetwork\[overlay\]'"):
            world.host("h1", kernel=Switched(), datapath=name)


def test_a_host_does_not_change_its_datapath_under_endpoints(world: World) -> None:
    kernel, store = FakeKernel(), MemoryStore()
    host = world.host("h1", kernel=kernel, store=store, datapath="linux")
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    host.joined("net", "web")
    host.controller.close()
    before = kernel.resources
    with pytest.raises(ConflictError, match=r"cannot become 'ovs-userspace': .* on 'linux', .* first: web"):
        world.host("h1", kernel=kernel, store=store, datapath="ovs-userspace")
    assert kernel.resources == before
    host = world.host("h1", kernel=kernel, store=store)
    host.controller.networks["net"].endpoints["web"].leave()
    host.controller.close()
    host = world.host("h1", kernel=kernel, store=store, datapath="ovs-userspace")
    assert made(host, OvsBridge)
    assert not made(host, Vxlan)


def test_what_needs_no_switch_works_while_it_does_not_run(world: World) -> None:
    """The rest is refused before anything is touched, and looked at when it runs again."""
    kernel = Switched()
    host = world.host("h1", datapath="ovs-kernel", kernel=kernel)
    controller = host.controller
    controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    host.joined("net", "web")
    sandbox = controller.new_sandbox("late")
    late = controller.networks["net"].create_endpoint("late")
    before = kernel.resources
    kernel.reason = "it does not run: start it"
    for request in (lambda: late.join(sandbox), controller.networks["net"].endpoints["web"].leave):
        with pytest.raises(UnavailableError, match="it does not run: start it"):
            request()
    assert kernel.resources == before
    assert late.sandbox is None
    near = controller.new_network("bridge", "near").create_endpoint("near")
    near.join(sandbox)
    veth = next(item for item in kernel.resources if item not in before and isinstance(item, Veth))
    kernel.wreck(veth.key)
    kernel.wreck(next(item.key for item in kernel.resources if isinstance(item, Flow)))
    report = controller.reconcile()
    assert report.failed == ("it does not run: start it",)
    assert veth in kernel.resources
    assert not any(isinstance(step.resource, _OF_SWITCH) for step in report.repaired)
    kernel.reason = ""
    assert any(isinstance(step.resource, Flow) for step in controller.reconcile().repaired)
    assert controller.reconcile().is_clean
    late.delete()


def test_what_a_process_left_half_done_waits_for_the_switch(world: World) -> None:
    kernel, store, fate = Switched(), MemoryStore(), Fate()
    chaos = Chaos(kernel, fate=fate)
    local = ChaosStore(store, die_at=None, fate=fate)
    first = world.host(
        "h1", datapath="ovs-kernel", kernel=kernel, store=local, through=chaos, process="first"
    )
    first.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    endpoint = first.controller.networks["net"].create_endpoint("web")
    sandbox = first.controller.new_sandbox("box")
    chaos._die_at = chaos.count + 4
    with pytest.raises(Killed):
        endpoint.join(sandbox)
    kernel.reason = "it does not run: start it"
    second = world.host("h1", kernel=kernel, store=store, process="second", dead=("first",))
    assert any("it does not run: start it" in line for line in second.controller.reconcile().failed)
    kernel.reason = ""
    assert not second.controller.reconcile().failed
    assert second.controller.reconcile().is_clean
    second.controller.networks["net"].endpoints["web"].join(second.controller.sandboxes["box"])
