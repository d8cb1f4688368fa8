"""Bridges, ports and flows of a real Open vSwitch: made as stated, found as they are, undone and repaired."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.kernel import LinuxKernel, ethtool
from pynetwork.kernel.ovs import session
from pynetwork.kernel.ovs.place import SwitchAwayError
from pynetwork.plan import Plan, Step, StepFailedError, Verb, diff
from pynetwork.resources import Address, Flow, LinkUp, Netns, OvsBridge, OvsPort, TxChecksum, Veth
from pynetwork.resources.stray import StrayFlow
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.resources import Resource
    from pynetwork.testing.cluster import OvsHost

pytestmark = pytest.mark.root

ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "f" * 32
BRIDGE = OvsBridge(name="br-int", datapath="netdev")
TUNNEL = OvsPort(
    bridge="br-int",
    name="vx0",
    type="vxlan",
    ofport=1,
    options={"remote_ip": "flow", "key": "flow", "local_ip": "192.0.2.1"}.items(),
    ids=[("note", "x")],
)
MACS = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}


@pytest.fixture(name="host")
def one_host() -> Iterator[OvsHost]:
    """The test's thread is on the host."""
    with private_host(), ovs_cluster(1) as hosts, hosts[0].entered():
        yield hosts[0]


def kernel_of(host: OvsHost, instance: str = ID) -> LinuxKernel:
    return LinuxKernel(instance, Path("/run/pynetwork/netns"), "none", ovs_directory=host.directory)


@pytest.fixture(name="kernel")
def a_kernel(host: OvsHost) -> Iterator[LinuxKernel]:
    with contextlib.closing(kernel_of(host)) as kernel:
        yield kernel
        kernel.apply(diff(kernel.observe(Plan()), Plan()), replay=True)


def netns(name: str) -> str:
    return f"/run/pynetwork/netns/{name}.{ID[:8]}"


def cabled(name: str, number: int) -> Plan:
    """Return a namespace with an interface that is port *number*, and has the address 10.0.0.NUMBER."""
    path, link = netns(name), f"veth{number}"
    return Plan(
        (
            Netns(path=path),
            Veth(name=link, netns=path, peer="eth0", mac=MACS[name]),
            TxChecksum(dev=link),
            TxChecksum(netns=path, dev="eth0"),
            OvsPort(bridge="br-int", name=link, ofport=number),
            Address(netns=path, dev="eth0", cidr=f"10.0.0.{number}/24"),
            LinkUp(netns=path, dev="eth0"),
        )
    )


def crossed() -> Plan:
    """Return two namespaces, and flows that pass on to each what comes from the other."""
    flows = [
        Flow(bridge="br-int", table=0, priority=9, match=f"in_port={here}", actions=f"output:{there}")
        for here, there in ((5, 6), (6, 5))
    ]
    return Plan((BRIDGE, *cabled("a", 5), *cabled("b", 6), *flows))


def make(kernel: LinuxKernel, plan: Plan) -> None:
    kernel.apply(diff(Plan(), plan))


def repair(kernel: LinuxKernel, plan: Plan) -> Plan:
    """Make the host as *plan* says, and return what was found before."""
    found = kernel.observe(plan)
    kernel.apply(diff(found, plan), replay=True)
    return found


def pings(tries: int = 5) -> bool:
    """Tell whether one of several pings is answered: a switch that starts may lose the first."""
    command = ["nsenter", f"--net={netns('a')}", "ping", "-c", "1", "-W", "1", "10.0.0.6"]
    return any(
        subprocess.run(command, check=False, capture_output=True).returncode == 0 for _ in range(tries)
    )


def by_key(plan: Plan) -> dict[tuple[str | None, ...], Resource]:
    return {item.key: item for item in plan}


def test_a_plan_is_made_found_and_unmade(host: OvsHost, kernel: LinuxKernel) -> None:
    plan = Plan((*crossed(), TUNNEL))
    make(kernel, plan)
    assert by_key(kernel.observe(plan)) == by_key(plan)
    assert pings()
    assert host.vsctl("get", "interface", "veth5", "ofport", "error").split() == ["5", "[]"]
    assert host.vsctl("get", "bridge", "br-int", "fail_mode", "external_ids:pynetwork").split() == [
        "secure",
        f'"{ID}"',
    ]
    kernel.apply(diff(plan, Plan()))
    assert host.vsctl("list-br").split() == ["br-phy"]
    assert kernel.observe(Plan()) == ()


def test_the_lines_that_a_plan_renders_to_make_the_same(host: OvsHost, kernel: LinuxKernel) -> None:
    plan = Plan((BRIDGE, TUNNEL, Flow(bridge="br-int", table=3, priority=4, match="ip,in_port=1")))
    words = ["get", "bridge", "br-int", "datapath_type", "fail_mode", "protocols", "--"]
    words += ["get", "interface", "vx0", "type", "options", "ofport", "external_ids"]
    made = []
    for is_typed in (False, True):
        if is_typed:
            environment = {"OVS_RUNDIR": str(host.directory), "PATH": "/usr/bin:/bin"}
            subprocess.run(["sh", "-ec", plan.render()], check=True, env=environment)
        else:
            make(kernel, plan)
        made.append((host.vsctl(*words), host.ofctl("dump-flows", "br-int", "--no-stats")))
        if is_typed:
            undo = diff(plan, Plan()).render()
            subprocess.run(["sh", "-ec", undo], check=True, env=environment)
            assert host.vsctl("list-br").split() == ["br-phy"]
        else:
            kernel.apply(diff(plan, Plan()))
    assert made[0] == made[1]


def test_what_was_done_before_may_be_done_again(kernel: LinuxKernel) -> None:
    plan = Plan((*crossed(), TUNNEL))
    make(kernel, plan)
    kernel.apply(diff(Plan(), plan), replay=True)
    assert by_key(kernel.observe(plan)) == by_key(plan)
    with pytest.raises(StepFailedError):
        kernel.apply(diff(Plan(), Plan((BRIDGE,))))
    with pytest.raises(StepFailedError):
        kernel.apply(diff(Plan(), Plan((TUNNEL,))))
    for _ in range(2):
        kernel.apply(diff(plan, Plan()), replay=True)
    kernel.flush()
    assert kernel.observe(plan) == ()
    with pytest.raises(StepFailedError):
        kernel.apply(diff(Plan((BRIDGE,)), Plan()))


def fails(kernel: LinuxKernel, plan: Plan, resource: Resource) -> Exception:
    """Return why a plan cannot be made; *resource* is what it fails at."""
    with pytest.raises(StepFailedError) as caught:
        make(kernel, plan)
    assert caught.value.failed.resource == resource
    cause = caught.value.__cause__
    assert isinstance(cause, Exception)
    kernel.apply([Step(Verb.DELETE, step.resource) for step in reversed(caught.value.done)])
    return cause


def test_a_port_of_no_link_is_refused_and_no_row_stays(host: OvsHost, kernel: LinuxKernel) -> None:
    port = OvsPort(bridge="br-int", name="veth5", ofport=5)
    cause = fails(kernel, Plan((BRIDGE, TUNNEL, port)), port)
    assert isinstance(cause, PynetworkError)
    assert "cannot use veth5: could not open network device veth5 (No such device)" in str(cause)
    assert host.vsctl("list-br").split() == ["br-phy"]


def test_a_number_that_another_port_has_is_refused(host: OvsHost, kernel: LinuxKernel) -> None:
    make(kernel, Plan((BRIDGE, *cabled("a", 5))))
    path = netns("a")
    port = OvsPort(bridge="br-int", name="veth9", ofport=5)
    cause = fails(kernel, Plan((Veth(name="veth9", netns=path, peer="eth1", mac=MACS["b"]), port)), port)
    assert "not 5: another has that" in str(cause)
    assert host.vsctl("list-ports", "br-int").split() == ["veth5"]


def test_what_is_somebody_elses_is_neither_taken_nor_deleted(host: OvsHost, kernel: LinuxKernel) -> None:
    host.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev")
    assert "not ours" in str(fails(kernel, Plan((BRIDGE,)), BRIDGE))
    assert kernel.observe(Plan((BRIDGE,))) == ()
    kernel.apply([Step(Verb.DELETE, BRIDGE)], replay=True)
    assert "br-int" in host.vsctl("list-br")


def test_a_tunnel_of_somebody_else_on_the_same_udp_port_is_named(host: OvsHost, kernel: LinuxKernel) -> None:
    """One with a fixed address would get what is for ours; one without, the switch refuses, later."""
    options = ["type=vxlan", "options:remote_ip=192.0.2.9"]
    host.vsctl("add-port", "br-phy", "theirs", "--", "set", "interface", "theirs", *options)
    cause = fails(kernel, Plan((BRIDGE, TUNNEL)), TUNNEL)
    assert "port theirs of Open vSwitch has UDP port 4789" in str(cause)
    other = attrs.evolve(TUNNEL, options=[*TUNNEL.options, ("dst_port", "4790")])
    make(kernel, Plan((BRIDGE, other)))
    assert by_key(kernel.observe(Plan((BRIDGE, other)))) == by_key(Plan((BRIDGE, other)))


def test_whether_a_switch_can_be_told_of_changes_is_found_out(host: OvsHost, kernel: LinuxKernel) -> None:
    assert kernel.has_switch_module() == Path("/sys/module/openvswitch").exists()
    kernel.check_switch()
    kernel.check_switch("br-phy")
    with pytest.raises(UnavailableError, match=r"only through a bridge of its own: .* address of lo;"):
        kernel.check_switch("lo")
    host.kill_switch()
    with pytest.raises(SwitchAwayError, match=r"does not run: .* \(systemctl start openvswitch-switch"):
        kernel.check_switch("br-phy")
    host.kill_database()
    with pytest.raises(SwitchAwayError, match=r"does not answer .* \(systemctl start openvswitch-switch"):
        kernel.check_switch()
    host.start_database()
    host.start_switch()
    kernel.check_switch()


def test_a_port_may_be_plugged_into_no_bridge_that_is_not_there(kernel: LinuxKernel) -> None:
    assert "no bridge br-int" in str(fails(kernel, Plan((TUNNEL,)), TUNNEL))


def test_each_instance_finds_what_is_its_own(host: OvsHost, kernel: LinuxKernel) -> None:
    mine = Plan((BRIDGE, TUNNEL, Flow(bridge="br-int", table=0, priority=1)))
    theirs = Plan((OvsBridge(name="br-other", datapath="netdev"),))
    make(kernel, mine)
    with contextlib.closing(kernel_of(host, OTHER_ID)) as other:
        make(other, theirs)
        assert by_key(other.observe(Plan())) == by_key(theirs)
    host.ofctl("add-flow", "br-int", "table=9,cookie=0x504e000000000001,actions=drop")
    host.ofctl("add-flow", "br-int", "table=9,priority=1,cookie=0x1,actions=drop")
    found = kernel.observe(Plan())
    flow = mine[2]
    assert isinstance(flow, Flow)
    strays = {
        StrayFlow(bridge="br-int", table=0, cookie=flow.cookie),
        StrayFlow(bridge="br-int", table=9, cookie=0x504E << 48 | 1),
    }
    assert set(found) == {BRIDGE, TUNNEL, *strays}
    kernel.apply(diff(kernel.observe(mine), mine))
    assert "cookie=0x1" in host.ofctl("dump-flows", "br-int", "table=9")
    assert "cookie=0x504e" not in host.ofctl("dump-flows", "br-int", "table=9")
    kernel.apply(diff(kernel.observe(Plan()), Plan()))
    assert host.vsctl("list-br").split() == ["br-other", "br-phy"]


def test_a_flow_that_is_refused_is_named_and_the_others_of_its_bridge_are_not_made(
    host: OvsHost, kernel: LinuxKernel
) -> None:
    good = [Flow(bridge="br-int", table=0, priority=number) for number in range(1, 5)]
    bad = Flow(bridge="br-int", table=7, priority=1, actions="goto_table:3")
    make(kernel, Plan((BRIDGE,)))
    cause = fails(kernel, Plan((*good[:2], bad, *good[2:])), bad)
    assert "table out of range" in str(cause)
    assert host.ofctl("dump-flows", "br-int", "--no-stats").count("priority") == 0


@pytest.mark.parametrize("is_known", [True, False])
def test_a_port_whose_link_was_made_anew_passes_packets_again(kernel: LinuxKernel, is_known: bool) -> None:
    """Left alone it would pass none, without any error, whether we or somebody else made it anew."""
    plan = crossed()
    make(kernel, plan)
    assert pings()
    if is_known:
        less = Plan(item for item in plan if item not in cabled("a", 5))
        kernel.apply(diff(plan, less))
        kernel.apply(diff(less, plan))
    else:
        subprocess.run(["ip", "link", "delete", "veth5"], check=True)
        found = repair(kernel, plan)
        assert by_key(found)["ovs_port", "veth5"] == OvsPort(bridge="br-int", name="veth5", ofport=0)
    assert by_key(kernel.observe(plan)) == by_key(plan)
    assert pings()


def test_a_link_that_is_replaced_takes_its_port_with_it(kernel: LinuxKernel) -> None:
    plan = crossed()
    make(kernel, plan)
    new = Plan(
        Veth(name="veth5", netns=item.netns, peer="eth0", mac="02:00:00:00:00:0c")
        if isinstance(item, Veth) and item.name == "veth5"
        else item
        for item in plan
    )
    kernel.apply(diff(plan, new))
    assert by_key(kernel.observe(new)) == by_key(new)
    assert pings()


def test_a_controller_that_somebody_set_is_removed_and_the_flows_are_back(
    host: OvsHost, kernel: LinuxKernel
) -> None:
    plan = crossed()
    make(kernel, plan)
    host.vsctl(
        "set-controller", "br-int", "tcp:127.0.0.1:9999", "--", "set-fail-mode", "br-int", "standalone"
    )
    assert not host.ofctl("dump-flows", "br-int", "cookie=0x504e000000000000/0xffff000000000000").count(
        "in_port=5"
    )
    found = by_key(repair(kernel, plan))[BRIDGE.key]
    assert isinstance(found, OvsBridge)
    assert (found.controllers, found.fail_mode) == (("tcp:127.0.0.1:9999",), "standalone")
    assert by_key(kernel.observe(plan)) == by_key(plan)
    assert host.vsctl("get-controller", "br-int") == ""
    assert pings()


def test_flows_that_went_with_the_switch_are_found_missing_and_come_back(
    host: OvsHost, kernel: LinuxKernel
) -> None:
    plan = crossed()
    make(kernel, plan)
    host.kill_switch()
    with pytest.raises(UnavailableError, match="does not answer"):
        kernel.observe(plan)
    host.start_switch()
    assert not pings(tries=1)
    found = repair(kernel, plan)
    assert {item.kind for item in plan} - {item.kind for item in found} == {"flow"}
    assert pings()


def test_without_a_switch_a_request_fails_and_changes_nothing(host: OvsHost, kernel: LinuxKernel) -> None:
    host.kill_switch()
    assert isinstance(fails(kernel, Plan((BRIDGE,)), BRIDGE), UnavailableError)
    host.kill_database()
    cause = fails(kernel, Plan((BRIDGE,)), BRIDGE)
    assert "ovsdb-server does not answer" in str(cause)
    with pytest.raises(UnavailableError):
        kernel.observe(Plan((BRIDGE,)))
    assert kernel.observe(Plan()) == ()  # who has nothing there is not bothered
    host.start_database()
    host.start_switch()
    assert host.vsctl("list-br").split() == ["br-phy"]


def test_what_a_switch_that_hangs_does_not_take_up_is_taken_back(
    host: OvsHost, kernel: LinuxKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would come about some other day, when nobody wants it any more."""
    monkeypatch.setattr(session, "_SECONDS", 0.3)
    with host.frozen():
        assert isinstance(fails(kernel, Plan((BRIDGE,)), BRIDGE), UnavailableError)
    assert host.vsctl("list-br").split() == ["br-phy"]
    monkeypatch.undo()
    make(kernel, Plan((BRIDGE,)))


def test_without_the_kernels_datapath_it_says_what_to_load(host: OvsHost, kernel: LinuxKernel) -> None:
    bridge = OvsBridge(name="br-int")
    if Path("/sys/module/openvswitch").exists():
        make(kernel, Plan((bridge,)))
        kernel.apply(diff(Plan((bridge,)), Plan()))
        return
    cause = fails(kernel, Plan((bridge,)), bridge)
    assert isinstance(cause, UnavailableError)
    assert "modprobe openvswitch" in str(cause)
    assert host.vsctl("list-br").split() == ["br-phy"]


def test_what_is_noted_with_a_port_changes_in_place(host: OvsHost, kernel: LinuxKernel) -> None:
    make(kernel, Plan((BRIDGE, TUNNEL)))
    other = attrs.evolve(TUNNEL, ids=[("note", "y"), ("more", "z")])
    row = host.vsctl("get", "interface", "vx0", "_uuid")
    kernel.apply(diff(Plan((BRIDGE, TUNNEL)), Plan((BRIDGE, other))))
    assert host.vsctl("get", "interface", "vx0", "_uuid") == row
    assert host.vsctl("get", "interface", "vx0", "external_ids").strip() == "{more=z, note=y}"
    assert by_key(kernel.observe(Plan((BRIDGE, other)))) == by_key(Plan((BRIDGE, other)))


def test_checksums_are_left_to_others_or_not(kernel: LinuxKernel) -> None:
    plan = cabled("a", 5)
    make(kernel, Plan((BRIDGE, *plan)))
    assert not ethtool.leaves_checksums("veth5")
    assert not kernel.namespaces.call(netns("a"), lambda: ethtool.leaves_checksums("eth0"))
    on = Plan((TxChecksum(dev="veth5", on=True), TxChecksum(netns=netns("a"), dev="eth0", on=True)))
    found = Plan(item for item in kernel.observe(on) if isinstance(item, TxChecksum))
    kernel.apply(diff(found, on))
    assert by_key(kernel.observe(on)).items() >= by_key(on).items()
    assert ethtool.leaves_checksums("veth5")
    with pytest.raises(OSError, match="No such device"):
        ethtool.leaves_checksums("veth99")
    assert ("tx_checksum", None, "veth99") not in by_key(kernel.observe(Plan((TxChecksum(dev="veth99"),))))
