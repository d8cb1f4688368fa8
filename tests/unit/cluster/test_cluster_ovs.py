"""Open vSwitch as the datapath of a cluster's host: one bridge and one tunnel for all networks, and flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pynetwork import ExhaustedError, InvalidValueError, OverlayOptions, UnavailableError
from pynetwork.cluster.config import Cluster
from pynetwork.drivers.overlay_flows import OFPORT_MAX
from pynetwork.drivers.overlay_ovs import OvsDatapath
from pynetwork.peers import Flood, Reach, Resolve
from pynetwork.resources import Flow, OvsBridge, OvsPort, StrictVni, TxChecksum, Veth, Vxlan

if TYPE_CHECKING:
    from tests.unit.cluster.hosts import Host, World


def made(host: Host, kind: type) -> list[str]:
    return sorted(str(item.key[-1]) for item in host.kernel.resources if isinstance(item, kind))


def test_all_networks_of_a_host_are_flows_of_one_bridge(world: World) -> None:
    host = world.host("h1", datapath="ovs")
    for name in ("red", "blue"):
        host.controller.new_network("overlay", name, subnets=["10.1.0.0/24"], ipv6=True)
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
    one, two = (world.host(name, datapath="ovs") for name in ("h1", "h2"))
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
    one, two = world.host("h1", datapath="ovs"), world.host("h2", datapath="linux")
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
    host = world.host("h1", datapath="ovs")
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
    with pytest.raises(InvalidValueError, match="auto, linux, ovs are known"):
        Cluster(store=world.store, host="h1", datapath="ebpf")


def test_the_kernels_own_switch_needs_no_help_with_checksums(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pynetwork.testing.FakeKernel.switch_kind", lambda _self, _link: "system")
    host = world.host("h1", datapath="ovs")
    host.controller.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    host.joined("net", "web")
    assert not made(host, TxChecksum)
    assert OvsBridge(name="br-pynetwork", datapath="system") in host.kernel.resources
