"""VXLAN devices and what they are told of other hosts, on the kernel, with pyroute2 as the observer."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from pyroute2 import IPRoute  # type: ignore[attr-defined]  # it has no explicit exports

from pynetwork.peers import Change, Entry, Flood, Peer, PeerTable, Reach, Resolve
from pynetwork.plan import Plan, StepFailedError, diff
from pynetwork.resources import Bridge, BridgePort, FdbEntry, LinkUp, Vxlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.kernel import LinuxKernel
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
BRIDGE = Bridge(name="ov-7", mac="02:00:00:00:00:07", mtu=1450)
VXLAN = Vxlan(name="vx-7", vni=7, local="192.0.2.1", bridge="ov-7", mtu=1450)
NETWORK = Plan((BRIDGE, VXLAN, BridgePort(dev="vx-7", bridge="ov-7"), LinkUp(dev="ov-7")))
WEB: set[Entry] = {Reach(MAC, "192.0.2.2"), Resolve("10.0.0.1", MAC), Resolve("fd00::1", MAC)}


@contextmanager
def made(kernel: LinuxKernel, plan: Plan) -> Iterator[None]:
    kernel.apply(diff(Plan(), plan))
    try:
        yield
    finally:
        kernel.apply(diff(plan, Plan()), replay=True)
        kernel.flush()


def link(name: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return a link as pyroute2 sees it, what is of its kind, and how its bridge treats it."""
    with IPRoute() as ip:
        found = ip.link("get", ifname=name)[0]
    info = found.get_attr("IFLA_LINKINFO")
    slave = info.get_attr("IFLA_INFO_SLAVE_DATA")
    port = dict(slave["attrs"]) if slave else {}
    return found, dict(info.get_attr("IFLA_INFO_DATA")["attrs"]), port


def seen(name: str) -> tuple[set[tuple[str, str | None]], set[tuple[str, str]]]:
    """Return what a device forwards (None: its bridge does, statically) and answers, as pyroute2 sees it."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)[0]
        entries = [each for each in ip.fdb("dump", ifindex=index) if each["ifindex"] == index]
        answered = {
            (each.get_attr("NDA_DST"), each.get_attr("NDA_LLADDR"))
            for each in ip.get_neighbours()
            if each["ifindex"] == index and each["state"] == 0x80 and each["family"] in {2, 10}
        }
    forwarded = {
        (each.get_attr("NDA_LLADDR"), each.get_attr("NDA_DST"))
        for each in entries
        if each["state"] & 0x40  # static
    }
    return forwarded, answered


def test_a_device_is_as_asked_for(host: PrivateHost, kernel: LinuxKernel) -> None:
    with made(kernel, NETWORK):
        found, data, port = link("vx-7")
        assert (found.get_attr("IFLA_MTU"), bool(found["flags"] & 1)) == (1450, True)
        assert (data["IFLA_VXLAN_ID"], data["IFLA_VXLAN_LOCAL"]) == (7, "192.0.2.1")
        assert (data["IFLA_VXLAN_LEARNING"], data["IFLA_VXLAN_PROXY"]) == (0, 1)
        assert data["IFLA_VXLAN_PORT"] == 4789
        assert (port["IFLA_BRPORT_LEARNING"], port["IFLA_BRPORT_UNICAST_FLOOD"]) == (0, 0)
        assert seen("vx-7") == (set(), set())  # no default destination
        assert not diff(kernel.observe(NETWORK), NETWORK)
        addresses = host.run(["ip", "-6", "address", "show", "dev", "vx-7"]).stdout
        assert "inet6" not in addresses


def test_an_underlay_of_ipv6(host: PrivateHost, kernel: LinuxKernel) -> None:
    plan = Plan((BRIDGE, attrs.evolve(VXLAN, local="fd01::1", port=4790)))
    with made(kernel, plan):
        _, data, _ = link("vx-7")
        assert (data["IFLA_VXLAN_LOCAL6"], data["IFLA_VXLAN_PORT"]) == ("fd01::1", 4790)
        assert not diff(kernel.observe(plan), plan)
        kernel.peers().apply(7, Change(put=(Reach(MAC, "fd01::2"),)))
        assert seen("vx-7")[0] == {(MAC, "fd01::2"), (MAC, None)}
        assert kernel.peers().reconcile(7, {Reach(MAC, "fd01::2")}) == 0


def test_two_devices_of_one_vni_are_refused_in_words(host: PrivateHost, kernel: LinuxKernel) -> None:
    with made(kernel, NETWORK):
        with pytest.raises(StepFailedError) as caught:
            kernel.apply(diff(Plan(), Plan((attrs.evolve(VXLAN, name="vx-8", bridge=None),))))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EEXIST


@pytest.mark.parametrize(
    "change", [{"mtu": 1400}, {"local": "192.0.2.9"}, {"port": 4790}, {"vni": 8}, {"bridge": None}]
)
def test_a_difference_is_found_and_repaired(
    host: PrivateHost, kernel: LinuxKernel, change: dict[str, Any]
) -> None:
    other = Plan((BRIDGE, attrs.evolve(VXLAN, **change)))
    with made(kernel, other):
        kernel.apply(diff(kernel.observe(NETWORK), NETWORK))
        assert not diff(kernel.observe(NETWORK), NETWORK)
        assert set(kernel.observe(NETWORK)) == set(NETWORK)


def test_a_bridge_that_somebody_deleted_gets_its_device_back(host: PrivateHost, kernel: LinuxKernel) -> None:
    with made(kernel, NETWORK):
        host.run(["ip", "link", "delete", "ov-7"])
        kernel.apply(diff(kernel.observe(NETWORK), NETWORK))
        assert not diff(kernel.observe(NETWORK), NETWORK)
        assert link("vx-7")[2]["IFLA_BRPORT_LEARNING"] == 0


def test_a_device_that_no_record_knows_is_found_as_ours(host: PrivateHost, kernel: LinuxKernel) -> None:
    with made(kernel, NETWORK):
        strangers = kernel.observe(Plan((BRIDGE,)))
        assert [item.key for item in strangers if item.key != BRIDGE.key] == [("link", None, "vx-7")]
        kernel.apply(diff(Plan(item for item in strangers if item.key != BRIDGE.key), Plan()))
        kernel.flush()
        assert not list(host.run(["ip", "-br", "link", "show", "type", "vxlan"]).stdout.split())


def test_a_static_entry_is_of_one_port_and_moves_with_the_next(
    host: PrivateHost, kernel: LinuxKernel
) -> None:
    """It is deleted from the port it is at, not from the one that it went to."""
    entry = FdbEntry(dev="vx-7", bridge="ov-7", mac=MAC)
    host.run(["ip", "link", "add", "cable0", "type", "veth", "peer", "cable1"])
    with made(kernel, NETWORK):
        kernel.apply(diff(Plan(), Plan((entry,))))
        assert set(kernel.observe(Plan((*NETWORK, entry)))) == {*NETWORK, entry}
        host.run(["ip", "link", "set", "cable0", "master", "ov-7"])
        host.run(["bridge", "fdb", "replace", MAC, "dev", "cable0", "master", "static"])
        assert set(kernel.observe(Plan((*NETWORK, entry)))) == set(NETWORK)
        kernel.apply(diff(Plan((entry,)), Plan()), replay=True)
        assert seen("cable0")[0] == {(MAC, None)}
    host.run(["ip", "link", "delete", "cable0"])


def test_what_is_told_of_other_hosts_is_forwarded_and_answered(
    host: PrivateHost, kernel: LinuxKernel
) -> None:
    peers = kernel.peers()
    with made(kernel, NETWORK):
        peers.apply(7, Change(put=(*WEB, Flood("192.0.2.2"), Flood("192.0.2.3"))))
        everyone = {("00:00:00:00:00:00", f"192.0.2.{number}") for number in (2, 3)}
        assert seen("vx-7") == (
            {(MAC, "192.0.2.2"), (MAC, None), *everyone},
            {("10.0.0.1", MAC), ("fd00::1", MAC)},
        )
        moved = Change(
            put=(Reach(MAC, "192.0.2.3"), Resolve("10.0.0.1", OTHER_MAC)), drop=(Flood("192.0.2.2"),)
        )
        peers.apply(7, moved)
        assert seen("vx-7") == (
            {(MAC, "192.0.2.3"), (MAC, None), ("00:00:00:00:00:00", "192.0.2.3")},
            {("10.0.0.1", OTHER_MAC), ("fd00::1", MAC)},
        )
        # The end of what was there before takes nothing from what is there now.
        peers.apply(7, Change(drop=(Flood("192.0.2.3"), Reach(MAC, "192.0.2.3"), *WEB)))
        assert seen("vx-7") == (set(), set())
        peers.apply(7, Change(drop=tuple(WEB)))  # gone already, whoever took it


def test_what_somebody_changed_is_put_right(host: PrivateHost, kernel: LinuxKernel) -> None:
    peers = kernel.peers()
    wanted: set[Entry] = {*WEB, Reach(OTHER_MAC, "192.0.2.3"), Flood("192.0.2.2")}
    with made(kernel, NETWORK):
        peers.apply(7, Change(put=tuple(wanted)))
        good = seen("vx-7")
        assert peers.reconcile(7, wanted) == 0
        dev = ["dev", "vx-7"]
        for words in (
            ["bridge", "fdb", "delete", MAC, *dev, "self"],
            ["bridge", "fdb", "delete", OTHER_MAC, *dev, "master"],
            ["bridge", "fdb", "replace", OTHER_MAC, *dev, "dst", "192.0.2.9", "self"],
            [
                "bridge",
                "fdb",
                "add",
                "02:00:00:00:00:66",
                *dev,
                "dst",
                "192.0.2.9",
                "self",
                "master",
                "static",
            ],
            ["bridge", "fdb", "add", "02:00:00:00:00:67", *dev, "master", "static"],
            ["bridge", "fdb", "append", "00:00:00:00:00:00", *dev, "dst", "192.0.2.9", "self"],
            ["ip", "neighbour", "replace", "10.0.0.1", "lladdr", OTHER_MAC, *dev, "nud", "permanent"],
            ["ip", "neighbour", "add", "10.0.0.9", "lladdr", OTHER_MAC, *dev, "nud", "permanent"],
            ["ip", "neighbour", "delete", "fd00::1", *dev],
        ):
            host.run(words)
        assert seen("vx-7") != good
        assert peers.reconcile(7, wanted) == 8
        assert seen("vx-7") == good
        assert peers.reconcile(7, wanted) == 0
        assert peers.reconcile(7, ()) > 0
        assert seen("vx-7") == (set(), set())


def test_many_at_once(host: PrivateHost, kernel: LinuxKernel) -> None:
    """More than the answers of a batch, and than neighbours may be by default (gc_thresh3 is 1024)."""
    table = PeerTable("here")
    for number in range(1500):
        octets = f"{number >> 8:02x}:{number & 255:02x}"
        addresses = [f"10.1.{number >> 8}.{number & 255}", f"fd00::{number + 1:x}"]
        peer = Peer(host="b", vtep="192.0.2.2", mac=f"02:00:00:00:{octets}", addresses=addresses)
        table.put(str(number), peer, number)
    with made(kernel, NETWORK):
        wanted = set(table.entries())
        assert len(wanted) == 4500
        kernel.peers().apply(7, Change(put=tuple(wanted)))
        assert kernel.peers().reconcile(7, wanted) == 0
        forwarded, answered = seen("vx-7")
        assert (len(forwarded), len(answered)) == (3000, 3000)


def test_without_the_device_it_is_an_error(host: PrivateHost, kernel: LinuxKernel) -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        kernel.peers().apply(7, Change(put=tuple(WEB)))
    assert caught.value.errno == errno.ENODEV
