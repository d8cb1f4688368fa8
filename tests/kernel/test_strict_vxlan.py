"""Strict networks on the kernel's VXLAN: what the table of nftables has, with nft as the observer."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from tests.kernel.conftest import DIRECTORY, INSTANCE

from pynetwork import UnavailableError
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.peers import LinuxPeers
from pynetwork.peers import Change, Reach, Resolve
from pynetwork.plan import Plan, StepFailedError, diff
from pynetwork.resources import Bridge, BridgePort, LinkUp, StrictVni, Vxlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.peers import Entry
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

TABLE = f"pynetwork-vxlan-{INSTANCE[:8]}"
MACS = [f"02:00:00:00:00:{number:02x}" for number in range(1, 5)]
STRICT = StrictVni(vni=7)


def network(vni: int, *, strict: bool = True, local: str = "192.0.2.1") -> Plan:
    bridge = Bridge(name=f"ov-{vni}", mac="02:00:00:00:00:77", mtu=1450)
    device = Vxlan(name=f"vx-{vni}", vni=vni, local=local, bridge=bridge.name, mtu=1450)
    parts = (bridge, device, BridgePort(dev=device.name, bridge=bridge.name), LinkUp(dev=bridge.name))
    return Plan((*((StrictVni(vni=vni),) if strict else ()), *parts))


@pytest.fixture
def seven(host: PrivateHost, kernel: LinuxKernel) -> Iterator[Plan]:
    plan = network(7)
    kernel.apply(diff(Plan(), plan))
    yield plan
    kernel.apply(diff(plan, Plan()), replay=True)
    kernel.flush()
    assert not tables(host)


def told(kernel: LinuxKernel) -> LinuxPeers:
    peers = kernel.peers()
    assert isinstance(peers, LinuxPeers)
    return peers


def tables(host: PrivateHost) -> list[str]:
    listed = json.loads(host.run(["nft", "-j", "list", "tables"]).stdout)["nftables"]
    return [item["table"]["name"] for item in listed if "table" in item]


def elements(host: PrivateHost, name: str) -> set[Any]:
    """Return the elements of a set as nft lists them; MACs are numbers to it."""
    listed = json.loads(host.run(["nft", "-j", "list", "set", "inet", TABLE, name]).stdout)["nftables"]
    found = next(item["set"] for item in listed if "set" in item).get("elem", [])
    return {tuple(item["concat"]) if isinstance(item, dict) else item for item in found}


def sources(host: PrivateHost) -> set[tuple[str, int, str]]:
    """Return what frames are taken: address of the host, VNI, MAC."""
    found = elements(host, "sources4") | elements(host, "sources6")
    return {(vtep, vni, number.to_bytes(6, "big").hex(":")) for vtep, vni, number in found}


def test_a_strict_network_is_closed_with_its_plan_and_the_table_goes_with_the_last(
    host: PrivateHost, kernel: LinuxKernel, seven: Plan
) -> None:
    assert tables(host) == [TABLE]
    assert (elements(host, "strict"), elements(host, "ports")) == ({7}, {4789})
    assert sources(host) == set()
    assert not diff(kernel.observe(seven), seven)
    eight = network(8)
    kernel.apply(diff(Plan(), eight))
    assert elements(host, "strict") == {7, 8}
    told(kernel).reconcile(8, {Reach(MACS[0], "192.0.2.2")})
    kernel.apply(diff(eight, Plan()))
    assert elements(host, "strict") == {7}
    assert sources(host) == set()


def test_frames_are_taken_from_where_endpoints_are(
    host: PrivateHost, kernel: LinuxKernel, seven: Plan
) -> None:
    peers = told(kernel)
    one, two, three = (Reach(mac, f"192.0.2.{number}") for number, mac in enumerate(MACS[:3], 2))
    with pytest.raises(OSError, match="looked at first"):
        peers.apply(7, Change(put=(one,)))
    assert peers.reconcile(7, {one, two, Resolve("10.0.0.1", MACS[0])}) == 5
    expected = {("192.0.2.2", 7, MACS[0]), ("192.0.2.3", 7, MACS[1])}
    assert sources(host) == expected
    peers.apply(7, Change(put=(three,), drop=(two,)))
    assert sources(host) == {("192.0.2.2", 7, MACS[0]), ("192.0.2.4", 7, MACS[2])}
    # It moves, and nothing stays behind.
    moved = Reach(MACS[0], "192.0.2.9")
    peers.apply(7, Change(put=(moved, Resolve("10.0.0.1", MACS[0]))))
    assert sources(host) == {("192.0.2.9", 7, MACS[0]), ("192.0.2.4", 7, MACS[2])}
    peers.apply(7, Change(put=(moved,)))  # the same again
    assert peers.reconcile(7, {moved, Resolve("10.0.0.1", MACS[0]), three}) == 0
    peers.apply(7, Change(drop=(three, moved)))
    assert sources(host) == set()
    peers.apply(7, Change(drop=(three,)))  # gone already


def test_an_underlay_of_ipv6(host: PrivateHost, kernel: LinuxKernel) -> None:
    plan = network(7, local="fd00::1")
    kernel.apply(diff(Plan(), plan))
    peers, moved = told(kernel), Reach(MACS[0], "fd00::3")
    assert peers.reconcile(7, {Reach(MACS[0], "fd00::2")}) == 2
    assert sources(host) == {("fd00::2", 7, MACS[0])}
    peers.apply(7, Change(put=(moved,)))
    assert sources(host) == {("fd00::3", 7, MACS[0])}
    assert peers.reconcile(7, {moved}) == 0
    kernel.apply(diff(plan, Plan()))
    kernel.flush()
    assert not tables(host)


def test_a_network_that_is_not_strict_has_no_sources(host: PrivateHost, kernel: LinuxKernel) -> None:
    plan = network(9, strict=False)
    kernel.apply(diff(Plan(), plan))
    told(kernel).reconcile(9, {Reach(MACS[0], "192.0.2.2")})
    told(kernel).apply(9, Change(put=(Reach(MACS[1], "192.0.2.2"),)))
    assert not tables(host)
    kernel.apply(diff(plan, Plan()))
    kernel.flush()


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        f"delete table inet {TABLE}",
        f"flush chain inet {TABLE} input",
        f"flush chain inet {TABLE} sources",
        f"delete element inet {TABLE} strict {{ 7 }}",
        f"delete element inet {TABLE} ports {{ 4789 }}",
    ],
)
def test_what_somebody_takes_away_is_found_and_put_back(
    host: PrivateHost, kernel: LinuxKernel, seven: Plan, damage: str
) -> None:
    """Closed at first: frames are taken again when their sources are told."""
    wanted: set[Entry] = {Reach(MACS[0], "192.0.2.2"), Reach(MACS[1], "192.0.2.3")}
    told(kernel).reconcile(7, wanted)
    rules = host.run(["nft", "list", "table", "inet", TABLE]).stdout
    host.run(["nft", damage])
    steps = diff(kernel.observe(seven), seven)
    assert [step.resource.kind for step in steps] == ["strict_vni"]
    kernel.apply(steps, replay=True)
    assert not diff(kernel.observe(seven), seven)
    told(kernel).reconcile(7, wanted)
    assert host.run(["nft", "list", "table", "inet", TABLE]).stdout == rules
    assert told(kernel).reconcile(7, wanted) == 0


def test_sources_that_somebody_changes_are_put_right(
    host: PrivateHost, kernel: LinuxKernel, seven: Plan
) -> None:
    peers = told(kernel)
    wanted: set[Entry] = {Reach(MACS[0], "192.0.2.2"), Reach(MACS[1], "192.0.2.3")}
    peers.reconcile(7, wanted)
    host.run(["nft", f"add element inet {TABLE} sources4 {{ 192.0.2.66 . 7 . 0x020000000001 }}"])
    host.run(["nft", f"add element inet {TABLE} sources6 {{ fd00::66 . 7 . 0x020000000001 }}"])
    host.run(["nft", f"delete element inet {TABLE} sources4 {{ 192.0.2.3 . 7 . 0x020000000002 }}"])
    assert peers.reconcile(7, wanted) == 3
    assert sources(host) == {("192.0.2.2", 7, MACS[0]), ("192.0.2.3", 7, MACS[1])}
    # A chain that does not do its work any more is noticed without a plan, too; strict it stays.
    host.run(["nft", f"flush chain inet {TABLE} sources"])
    assert peers.reconcile(7, wanted) == 2
    assert sources(host) == {("192.0.2.2", 7, MACS[0]), ("192.0.2.3", 7, MACS[1])}
    assert not diff(kernel.observe(seven), seven)


def test_members_that_somebody_changes_are_put_right(
    host: PrivateHost, kernel: LinuxKernel, seven: Plan
) -> None:
    peers = told(kernel)
    peers.admit(4789, {7: {"192.0.2.2", "fd00::3"}, 8: set()})
    assert elements(host, "networks") == {7, 8}
    assert elements(host, "members4") | elements(host, "members6") == {("192.0.2.2", 7), ("fd00::3", 7)}
    peers.admit(4789, {7: {"192.0.2.3", "fd00::3"}})
    assert elements(host, "networks") == {7}
    assert elements(host, "members4") == {("192.0.2.3", 7)}
    host.run(["nft", f"flush set inet {TABLE} members4"])
    host.run(["nft", f"add element inet {TABLE} members6 {{ fd00::66 . 7 }}"])
    assert peers.reconcile(7, set()) == 2
    host.run(["nft", "flush", "ruleset"])
    peers.admit(4789, {7: {"192.0.2.3", "fd00::3", "192.0.2.4"}})  # goes on where nothing is left
    assert elements(host, "members4") == {("192.0.2.3", 7), ("192.0.2.4", 7)}
    peers.admit(4789, {})
    assert not tables(host)  # strict is no network any more, as somebody left it


def test_a_process_finds_what_another_left(host: PrivateHost, kernel: LinuxKernel, seven: Plan) -> None:
    told(kernel).admit(4789, {7: {"192.0.2.2"}})
    told(kernel).reconcile(7, {Reach(MACS[0], "192.0.2.2"), Reach(MACS[1], "192.0.2.3")})
    other = LinuxKernel(INSTANCE, DIRECTORY)
    try:
        assert not diff(other.observe(seven), seven)
        told(other).admit(4789, {7: {"192.0.2.3"}})
        assert elements(host, "members4") == {("192.0.2.3", 7)}
        assert told(other).reconcile(7, {Reach(MACS[1], "192.0.2.3")}) == 2
        assert sources(host) == {("192.0.2.3", 7, MACS[1])}
        strangers = [item for item in other.observe(Plan()) if isinstance(item, StrictVni)]
        assert [item.key for item in strangers] == [STRICT.key]
        told(other).admit(4789, {})
        assert elements(host, "strict") == {7}
    finally:
        other.close()


def test_another_port_is_a_change(kernel: LinuxKernel, host: PrivateHost, seven: Plan) -> None:
    moved = Plan(attrs.evolve(item, port=4790) if isinstance(item, StrictVni) else item for item in seven)
    steps = diff(kernel.observe(moved), moved)
    assert [(step.verb.name, step.resource.kind) for step in steps] == [("UPDATE", "strict_vni")]
    kernel.apply(steps)
    assert elements(host, "ports") == {4789, 4790}
    told(kernel).admit(4790, {7: set()})
    assert elements(host, "ports") == {4790}
    told(kernel).admit(4790, {})


def test_many_come_and_go_at_once(host: PrivateHost, kernel: LinuxKernel) -> None:
    """Those who need the table never find it gone for good, whoever removes it as the last."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        other = LinuxKernel(INSTANCE, DIRECTORY)
        try:
            for _ in range(20):
                other.apply(diff(Plan(), Plan((StrictVni(vni=number),))))
                assert number in elements(host, "strict")
                other.apply(diff(Plan((StrictVni(vni=number),)), Plan()))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)
        finally:
            other.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not tables(host)


def test_without_nft_nothing_is_made(kernel: LinuxKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.tells_senders()
    monkeypatch.setattr("pynetwork.kernel.vxlan_table.find_nft", lambda: None)
    assert not kernel.tells_senders()
    with pytest.raises(StepFailedError) as caught:
        kernel.apply(diff(Plan(), network(7)))
    assert isinstance(caught.value.__cause__, UnavailableError)
    assert not caught.value.done
    open_to_all = network(8, strict=False)  # needs none of it
    kernel.apply(diff(Plan(), open_to_all))
    assert told(kernel).reconcile(8, {Reach(MACS[0], "192.0.2.2")}) == 1
    kernel.apply(diff(open_to_all, Plan()))
    kernel.flush()


def test_fifty_thousand_sources(host: PrivateHost, kernel: LinuxKernel, seven: Plan) -> None:
    wanted: set[Entry] = {
        Reach((0x020000000000 + number).to_bytes(6, "big").hex(":"), f"192.0.2.{number % 200 + 1}")
        for number in range(50_000)
    }
    peers = told(kernel)
    assert peers.reconcile(7, wanted) == 100_000
    assert peers.reconcile(7, wanted) == 0
    peers.apply(7, Change(put=(Reach("02:ff:00:00:00:01", "192.0.2.1"),)))
    assert ("192.0.2.1", 7, "02:ff:00:00:00:01") in sources(host)
