"""Flows that somebody makes something else of under their cookies: found, and put right, on a real switch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.drivers.overlay_flows import LocalPort, base_flows, endpoint_flows, flows_of, network_flows
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.ovs.channel import Channel
from pynetwork.kernel.ovs.peers import OvsPeers
from pynetwork.kernel.ovs.place import Place
from pynetwork.peers import Flood, Reach, Resolve
from pynetwork.plan import Plan, diff
from pynetwork.resources import OvsBridge
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.peers import Entry
    from pynetwork.testing.cluster import OvsHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

BRIDGE, VNI = "br-int", 7
WANTED: set[Entry] = {
    *(Reach(f"02:00:00:00:00:0{n}", f"192.0.2.{n}") for n in (3, 4)),
    Reach("02:00:00:00:00:05", "fd99::5"),
    *(Resolve(f"10.0.0.{n}", f"02:00:00:00:00:0{n}") for n in (3, 4)),
    Resolve("fd00::5", "02:00:00:00:00:05"),
    Flood("192.0.2.3"),
    Flood("fd99::5"),
}
#: Changes of flows that keep their cookies, for ``ovs-ofctl``: planned ones, those of other hosts.
PLANNED_CHANGES = [
    ("mod-flows", "table=11,icmp6,icmpv6_type=136,actions=goto_table:20"),
    ("mod-flows", "table=50,metadata=0x7,dl_dst=02:00:00:00:00:01,actions=drop"),
    ("mod-flows", "table=45,actions=goto_table:50"),
]
REMOTE_CHANGES = [
    ("mod-flows", "table=40,metadata=0x7,dl_dst=02:00:00:00:00:03,actions=drop"),
    ("mod-flows", "table=45,metadata=0x7,dl_src=02:00:00:00:00:03,actions=drop"),
    ("mod-flows", "table=20,arp,metadata=0x7,arp_op=1,arp_tpa=10.0.0.3,actions=drop"),
    ("mod-flows", "table=1,tun_id=0x7,actions=goto_table:2"),
]


@pytest.fixture(name="host")
def one_host() -> Iterator[OvsHost]:
    with private_host(), ovs_cluster(1) as hosts:
        yield hosts[0]


@contextlib.contextmanager
def wired(host: OvsHost) -> Iterator[tuple[LinuxKernel, Plan]]:
    """Make a bridge with one flow of each kind that an endpoint and a network have."""
    texts = [*base_flows(), *network_flows(VNI, strict=True, bum=True)]
    for number, guard in ((1, True), (2, False)):
        port = LocalPort(
            vni=VNI,
            ofport=100 + number,
            mac=f"02:00:00:00:00:0{number}",
            addresses=[f"10.0.0.{number}", f"fd00::{number}"],
            guard=guard,
            bum=True,
        )
        texts += endpoint_flows(port)
    plan = Plan(dict.fromkeys((OvsBridge(name=BRIDGE, datapath="netdev"), *flows_of(BRIDGE, texts))))
    with host.entered():
        kernel = LinuxKernel("0" * 32, Path("/run/pynetwork/n"), "none", ovs_directory=host.directory)
    kernel.apply(diff(Plan(), plan))
    try:
        yield kernel, plan
    finally:
        kernel.apply(diff(plan, Plan()), replay=True)
        kernel.close()


def dump(host: OvsHost) -> list[str]:
    lines = host.ofctl("dump-flows", BRIDGE, "--no-stats").splitlines()
    return sorted(line.strip() for line in lines)


def test_what_was_put_there_is_found_to_be_that_by_any_process(host: OvsHost) -> None:
    with wired(host) as (kernel, plan):
        channel = Channel(Place(host.directory), BRIDGE)
        with contextlib.closing(OvsPeers(channel)) as peers:
            assert peers.reconcile(VNI, WANTED) > 0
            assert peers.reconcile(VNI, WANTED) == 0
            assert OvsPeers(channel).reconcile(VNI, WANTED) == 0
        assert not diff(kernel.observe(plan), plan)


@pytest.mark.parametrize(("command", "flow"), PLANNED_CHANGES)
def test_planned_flows_are_put_right(host: OvsHost, command: str, flow: str) -> None:
    with wired(host) as (kernel, plan):
        assert not diff(kernel.observe(plan), plan)
        good = dump(host)
        for _ in range(2):
            host.ofctl(command, BRIDGE, flow)
            assert dump(host) != good
            steps = diff(kernel.observe(plan), plan)
            assert [step.resource.kind for step in steps] == ["flow"]
            kernel.apply(steps, replay=True)
            assert dump(host) == good
            assert not diff(kernel.observe(plan), plan)


@pytest.mark.parametrize(("command", "flow"), REMOTE_CHANGES)
def test_flows_of_other_hosts_are_put_right(host: OvsHost, command: str, flow: str) -> None:
    with wired(host), contextlib.closing(OvsPeers(Channel(Place(host.directory), BRIDGE))) as peers:
        peers.reconcile(VNI, WANTED)
        assert peers.reconcile(VNI, WANTED) == 0
        good = dump(host)
        for _ in range(2):
            host.ofctl(command, BRIDGE, flow)
            assert dump(host) != good
            assert peers.reconcile(VNI, WANTED) > 0
            assert dump(host) == good
            assert peers.reconcile(VNI, WANTED) == 0


def test_a_flow_beside_another_under_its_cookie_goes(host: OvsHost) -> None:
    """Of another priority, or of another match: nobody knows it by anything but a cookie that is right."""
    with wired(host) as (kernel, plan):
        peers = OvsPeers(Channel(Place(host.directory), BRIDGE))
        with contextlib.closing(peers):
            peers.reconcile(VNI, WANTED)
            good = dump(host)
            lines = (
                next(line for line in good if "table=50" in line and "dl_dst=02:00:00:00:00:01" in line),
                next(line for line in good if "table=40" in line and "dl_dst=02:00:00:00:00:03" in line),
            )
            for line in lines:
                cookie = line.partition("cookie=")[2].partition(",")[0]
                table = line.partition("table=")[2].partition(",")[0]
                other = f"cookie={cookie},table={table},priority=999,metadata=0x7,actions=drop"
                host.ofctl("add-flow", BRIDGE, other)
            assert len(dump(host)) == len(good) + 2
            kernel.apply(diff(kernel.observe(plan), plan), replay=True)
            assert peers.reconcile(VNI, WANTED) == 1
        assert dump(host) == good
