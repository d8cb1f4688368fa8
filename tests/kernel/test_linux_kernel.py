"""Each kind of resource on the real kernel: made, found, changed, deleted, and again; pyroute2 agrees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from tests.kernel.conftest import DIRECTORY, INSTANCE

from pynetwork.kernel import LinuxKernel
from pynetwork.plan import Plan, Step, Verb, diff
from pynetwork.resources import (
    Address,
    Bridge,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    Route,
    Sysctl,
    Veth,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Oracle

    from pynetwork.resources import Resource

pytestmark = pytest.mark.root

PATH = f"{DIRECTORY}/a.{INSTANCE[:8]}"
MAC = "02:00:00:00:00:01"
NETNS = Netns(path=PATH)
BRIDGE = Bridge(name="br0", mac="02:00:00:00:00:02", mtu=1400)
VETH = Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac=MAC, mtu=1400)
UP = LinkUp(netns=PATH, dev="eth0")
ADDRESSES = [Address(netns=PATH, dev="eth0", cidr=cidr) for cidr in ("10.0.0.2/24", "fd00::2/64")]
WIRE = Plan((NETNS, BRIDGE, LinkUp(dev="br0"), VETH, UP, *ADDRESSES))


def make(kernel: LinuxKernel, plan: Plan, before: Plan = Plan(), *, replay: bool = False) -> None:  # noqa: B008 - a tuple
    kernel.apply(diff(before, plan), replay=replay)


def is_there(kernel: LinuxKernel, plan: Plan) -> bool:
    """Tell whether *plan* is what the kernel finds of it, and nothing else is ours."""
    return set(kernel.observe(plan)) == set(plan)


CASES: dict[str, tuple[Plan, Resource, Resource | None]] = {
    "netns": (Plan(), NETNS, None),
    "bridge": (
        Plan(),
        BRIDGE,
        attrs.evolve(BRIDGE, mac="02:00:00:00:00:03", mtu=1300, multicast_snooping=True),
    ),
    "veth": (
        Plan((NETNS, BRIDGE, Bridge(name="br1"))),
        VETH,
        attrs.evolve(VETH, bridge="br1", mtu=1300),
    ),
    "veth without bridge": (
        Plan((NETNS, BRIDGE)),
        attrs.evolve(VETH, bridge=None, mtu=None),
        attrs.evolve(VETH, mtu=None),
    ),
    "address": (Plan((NETNS, BRIDGE, VETH)), ADDRESSES[0], None),
    "address v6": (Plan((NETNS, BRIDGE, VETH)), ADDRESSES[1], None),
    "address of the host": (Plan((BRIDGE,)), Address(dev="br0", cidr="10.0.0.1/24"), None),
    "up": (Plan((NETNS, BRIDGE, VETH)), UP, None),
    "neighbour": (
        WIRE,
        Neighbour(netns=PATH, dev="eth0", address="10.0.0.9", mac=MAC),
        Neighbour(netns=PATH, dev="eth0", address="10.0.0.9", mac="02:00:00:00:00:09"),
    ),
    "neighbour v6": (
        WIRE,
        Neighbour(netns=PATH, dev="eth0", address="fd00::9", mac=MAC),
        Neighbour(netns=PATH, dev="eth0", address="fd00::9", mac="02:00:00:00:00:09"),
    ),
    "default route": (
        WIRE,
        Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", via="10.0.0.1"),
        Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", via="10.0.0.8"),
    ),
    "default route v6": (
        WIRE,
        Route(netns=PATH, dev="eth0", dst="::/0", via="fd00::1"),
        Route(netns=PATH, dev="eth0", dst="::/0", via="fd00::8"),
    ),
    "route on the link": (
        WIRE,
        Route(netns=PATH, dev="eth0", dst="10.9.0.0/16", metric=5),
        Route(netns=PATH, dev="lo", dst="10.9.0.0/16", metric=5),
    ),
    "route of the host": (
        Plan((BRIDGE, LinkUp(dev="br0"))),
        Route(dev="br0", dst="10.9.0.0/16"),
        Route(dev="lo", dst="10.9.0.0/16"),
    ),
    "link sysctl": (
        Plan((NETNS, BRIDGE, VETH)),
        LinkSysctl(netns=PATH, dev="eth0", name="net.ipv4.conf.eth0.rp_filter", value="2"),
        LinkSysctl(netns=PATH, dev="eth0", name="net.ipv4.conf.eth0.rp_filter", value="1"),
    ),
    "sysctl": (
        Plan((NETNS,)),
        Sysctl(netns=PATH, name="net.ipv4.ip_local_port_range", value="1025 2000"),
        Sysctl(netns=PATH, name="net.ipv4.ip_local_port_range", value="1026 2000"),
    ),
    "sysctl of the host": (
        Plan(),
        Sysctl(name="net.ipv4.conf.lo.rp_filter", value="2"),
        Sysctl(name="net.ipv4.conf.lo.rp_filter", value="1"),
    ),
}


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_made_found_changed_and_deleted(name: str, replay: bool, kernel: LinuxKernel) -> None:
    base, resource, other = CASES[name]
    make(kernel, base)
    plan = Plan((*base, resource))
    for _ in range(2 if replay else 1):
        make(kernel, plan, base, replay=replay)
        assert is_there(kernel, plan)
    if other is not None:
        changed = Plan((*base, other))
        steps = diff(plan, changed)
        assert [step.verb for step in steps] == [Verb.UPDATE]
        for _ in range(2 if replay else 1):
            kernel.apply(steps, replay=replay)
            assert is_there(kernel, changed)
        make(kernel, plan, changed)
        assert is_there(kernel, plan)
    for _ in range(2 if replay else 1):
        make(kernel, base, plan, replay=replay)
        assert is_there(kernel, base)
    left = kernel.observe(plan)
    assert (resource in left) == (not resource.render_delete())  # settings have no delete


@pytest.mark.parametrize("name", [name for name, (_, _, other) in CASES.items() if other is not None])
def test_to_make_what_is_there_otherwise_makes_it_as_wanted(name: str, kernel: LinuxKernel) -> None:
    """What recovery relies on: a create that is replayed over something half made or old."""
    base, resource, other = CASES[name]
    assert other is not None
    make(kernel, Plan((*base, resource)))
    kernel.apply([Step(Verb.CREATE, other)], replay=True)
    assert is_there(kernel, Plan((*base, other)))
    kernel.apply([Step(Verb.UPDATE, resource, other)], replay=True)
    assert is_there(kernel, Plan((*base, resource)))


def test_an_update_of_what_is_gone_is_made_when_replayed(kernel: LinuxKernel) -> None:
    for name, (base, resource, other) in CASES.items():
        if other is None or not resource.render_delete():
            continue
        make(kernel, base)
        kernel.apply([Step(Verb.UPDATE, other, resource)], replay=True)
        assert is_there(kernel, Plan((*base, other))), name
        make(kernel, Plan(), Plan((*base, other)), replay=True)
        kernel.flush()


def test_pyroute2_sees_what_was_made(kernel: LinuxKernel, oracle: Oracle) -> None:
    neighbour = Neighbour(netns=PATH, dev="eth0", address="10.0.0.9", mac="02:00:00:00:00:09")
    routes = [
        Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", via="10.0.0.1"),
        Route(netns=PATH, dev="eth0", dst="::/0", via="fd00::1", metric=7),
        Route(netns=PATH, dev="eth0", dst="10.9.0.0/16"),
    ]
    make(kernel, Plan((*WIRE, neighbour, *routes)))
    outside, inside = oracle.links(), oracle.links(PATH)
    bridge, veth, peer = outside["br0"], outside["veth0"], inside["eth0"]
    assert (bridge.kind, bridge.mac, bridge.mtu, bridge.up) == ("bridge", BRIDGE.mac, 1400, True)
    assert (bridge.group, bridge.generation_mode, bridge.snooping) == (kernel.group, 1, 0)
    assert (veth.kind, veth.mtu, veth.up, veth.master) == ("veth", 1400, True, bridge.ifindex)
    assert (veth.group, veth.generation_mode, veth.queues) == (kernel.group, 1, (1, 1))
    assert (peer.mac, peer.mtu, peer.up, peer.generation_mode) == (MAC, 1400, True, 1)
    assert (peer.queues, peer.peer, veth.peer) == ((1, 1), veth.ifindex, peer.ifindex)
    assert inside["lo"].up
    found = {each.cidr: each for each in oracle.addresses(PATH) if each.ifindex == peer.ifindex}
    assert found.keys() == {"10.0.0.2/24", "fd00::2/64"}  # no link-local one of its own
    assert {each.protocol for each in found.values()} == {0x70}
    tentative, no_dad = 0x40, 0x02
    assert found["fd00::2/64"].flags & (tentative | no_dad) == no_dad
    ours = {each[:1] + each[2:4] for each in oracle.routes(PATH) if each.protocol == 0x70}
    assert ours == {("0.0.0.0/0", "10.0.0.1", 0), ("::/0", "fd00::1", 7), ("10.9.0.0/16", None, 0)}
    permanent = [each for each in oracle.neighbours(PATH) if each.state == 0x80]
    assert (peer.ifindex, "10.0.0.9", "02:00:00:00:00:09", 0x80) in permanent


def test_a_bridge_keeps_its_mtu_when_ports_come_and_go(kernel: LinuxKernel, oracle: Oracle) -> None:
    for mtu in (1400, 9000):
        bridge = attrs.evolve(BRIDGE, mtu=mtu)
        plain = Plan((NETNS, bridge, LinkUp(dev="br0")))
        ported = Plan((*plain, attrs.evolve(VETH, mtu=1300)))
        make(kernel, plain)
        make(kernel, ported, plain)
        assert oracle.links()["br0"].mtu == mtu
        make(kernel, plain, ported)
        kernel.flush()
        assert oracle.links()["br0"].mtu == mtu
        make(kernel, Plan(), plain)
        kernel.flush()


def test_what_is_deleted_is_gone_soon_and_its_name_at_once(
    kernel: LinuxKernel, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    for _ in range(3):
        make(kernel, WIRE)
        make(kernel, Plan(), WIRE)
        assert "br0" not in oracle.links()
        assert not Path(PATH).exists()
    assert soon(lambda: oracle.links().keys() == {"lo"})


def test_a_link_that_takes_the_name_of_one_on_its_way_out_is_made_completely(
    kernel: LinuxKernel, oracle: Oracle
) -> None:
    """What is set on a link behind its creation does not go to the old one, which is still there."""
    port = attrs.evolve(VETH, isolated=True, hairpin=True)
    plan = Plan((NETNS, BRIDGE, LinkUp(dev="br0"), port))
    for number in range(5):
        make(kernel, plan)
        again = attrs.evolve(port, peer=f"eth{number + 1}")
        replaced = Plan((*plan[:-1], again))
        make(kernel, replaced, plan)
        assert is_there(kernel, replaced)
        make(kernel, Plan(), replaced)
    kernel.flush()


def test_a_veth_leaves_a_namespace_that_somebody_keeps_open(kernel: LinuxKernel, oracle: Oracle) -> None:
    make(kernel, WIRE)
    with Path(PATH).open("rb") as held:
        make(kernel, Plan(), WIRE)
        kernel.flush()
        assert oracle.links().keys() == {"lo"}
        assert oracle.links(f"/proc/self/fd/{held.fileno()}").keys() == {"lo"}


def test_a_name_inside_is_free_for_another_process_as_soon_as_its_link_was_deleted(
    kernel: LinuxKernel, oracle: Oracle
) -> None:
    """Whoever is in need of it does not wait for the process that put the deletion off."""
    make(kernel, WIRE)
    other = LinuxKernel(INSTANCE, DIRECTORY)
    try:
        other.flush()
        base = Plan((NETNS, BRIDGE, LinkUp(dev="br0")))
        make(kernel, base, WIRE)
        make(other, Plan((*base, attrs.evolve(VETH, name="veth1"))), base)
        assert oracle.links(PATH)["eth0"].peer == oracle.links()["veth1"].ifindex
    finally:
        other.close()


def test_what_is_doomed_while_links_are_reaped_is_reaped_too(
    kernel: LinuxKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whichever generation it is: the round that runs may have passed it."""
    reaped: list[int] = []

    def delete(group: int) -> None:
        reaped.append(group)
        if len(reaped) == 1:
            kernel.reap()

    kernel.flush()
    monkeypatch.setattr(kernel.doomed, "_delete", delete)
    kernel.reap()
    kernel._later.flush()
    assert set(reaped[1:]) == {kernel.group | 1, kernel.group | 2}
