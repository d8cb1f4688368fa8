"""Each resource renders as lines one could type, and says what it is, what comes with it, what it is on."""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from tests.unit import firewall_cases, ovs_cases

from pynetwork import resources
from pynetwork.errors import UnavailableError
from pynetwork.kernel.compile import compile_step
from pynetwork.plan import Step, Verb
from pynetwork.resources import (
    KINDS,
    Address,
    Announce,
    Bridge,
    BridgePort,
    Cgroup,
    Directory,
    Effect,
    FdbEntry,
    File,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    OvsBridge,
    Resource,
    Route,
    Rules,
    StrictVni,
    Sysctl,
    Veth,
    Vxlan,
)

if TYPE_CHECKING:
    from pynetwork.resources import Key

NS = "/run/pynetwork/netns/a"
IN = f"nsenter --net={NS} "
MAC = "02:00:00:00:00:01"
OTHER_MAC = "02:00:00:00:00:02"
GROUP = "jobs/pynetwork-1.2"
GROUP_DIR = f"/sys/fs/cgroup/{GROUP}"
PART = "# pynetwork keeps what follows up to date\\n{}# pynetwork: all outside of these two lines is yours\\n"
WHOLE = "# Kept up to date by pynetwork until somebody edits it (sha256 of the rest: {})\\n"
VETH = Veth(name="veth0", netns=NS, peer="eth0", mac=MAC)
VXLAN = Vxlan(name="vx-7", vni=7, local="192.0.2.1", mtu=1450)
PORT = BridgePort(dev="vx-7", bridge="br0")

RENDERED: list[tuple[Resource, list[str], list[str]]] = [
    (
        Netns(path=NS),
        [f"touch {NS}", f"unshare --net={NS} ip link set lo up"],
        [f"umount --lazy {NS}", f"rm {NS}"],
    ),
    (
        Netns(path=NS, adopted="/proc/7/ns/net"),
        [f"touch {NS}", f"mount --bind /proc/7/ns/net {NS}"],
        [f"umount --lazy {NS}", f"rm {NS}"],
    ),
    (Directory(path="/run/f/a"), ["mkdir -p /run/f/a"], ["rm -r /run/f/a"]),
    (
        File(path="/run/f/a/hostname", text="it's 100%\n"),
        ["printf 'it'\"'\"'s 100%%\\n' > /run/f/a/hostname"],
        ["rm /run/f/a/hostname"],
    ),
    (
        File(path="/run/f/a/hosts", text="x\n", upkeep="part"),
        ["printf '" + PART.format("x\\n") + "' > /run/f/a/hosts"],
        ["rm /run/f/a/hosts"],
    ),
    (
        File(path="/run/f/a/resolv.conf", text="x\n", upkeep="whole"),
        ["printf '" + WHOLE.format(hashlib.sha256(b"x").hexdigest()) + "x\\n' > /run/f/a/resolv.conf"],
        ["rm /run/f/a/resolv.conf"],
    ),
    (Cgroup(path=GROUP), [f"mkdir {GROUP_DIR}"], [f"echo 1 > {GROUP_DIR}/cgroup.kill", f"rmdir {GROUP_DIR}"]),
    (
        Cgroup(path=GROUP, memory=1 << 20, cpus=1.5, pids=7),
        [
            f"mkdir {GROUP_DIR}",
            f"echo 1048576 > {GROUP_DIR}/memory.max",
            f"echo '150000 100000' > {GROUP_DIR}/cpu.max",
            f"echo 7 > {GROUP_DIR}/pids.max",
        ],
        [f"echo 1 > {GROUP_DIR}/cgroup.kill", f"rmdir {GROUP_DIR}"],
    ),
    (
        Sysctl(name="net.ipv4.ip_forward", value="1"),
        ["sysctl -w net.ipv4.ip_forward=1"],
        [],
    ),
    (
        Sysctl(netns=NS, name="net.ipv4.ip_forward", value="1"),
        [f"{IN}sysctl -w net.ipv4.ip_forward=1"],
        [],
    ),
    (
        Bridge(name="br0"),
        [
            "ip link add br0 type bridge mcast_snooping 0",
            "ip link set br0 addrgenmode none",
            "sysctl -w net.ipv6.conf.br0.accept_ra=0",
        ],
        ["ip link delete br0"],
    ),
    (
        Bridge(name="br0", mac=MAC, mtu=1400),
        [
            f"ip link add br0 address {MAC} type bridge mcast_snooping 0",
            "ip link set br0 addrgenmode none",
            "sysctl -w net.ipv6.conf.br0.accept_ra=0",
            "ip link set br0 mtu 1400",
        ],
        ["ip link delete br0"],
    ),
    (
        VETH,
        [
            (
                "ip link add veth0 numtxqueues 1 numrxqueues 1 type veth"
                f" peer name eth0 address {MAC} numtxqueues 1 numrxqueues 1 netns {NS}"
            ),
            "ip link set veth0 addrgenmode none",
            "ip link set veth0 up",
            f"{IN}ip link set eth0 addrgenmode none",
        ],
        ["ip link delete veth0"],
    ),
    (
        Veth(name="veth0", bridge="br0", netns=NS, peer="eth0", mac=MAC, mtu=1400),
        [
            (
                "ip link add veth0 mtu 1400 numtxqueues 1 numrxqueues 1 type veth"
                f" peer name eth0 address {MAC} mtu 1400 numtxqueues 1 numrxqueues 1 netns {NS}"
            ),
            "ip link set veth0 addrgenmode none",
            "ip link set veth0 master br0 up",
            f"{IN}ip link set eth0 addrgenmode none",
        ],
        ["ip link delete veth0"],
    ),
    (
        LinkSysctl(dev="br0", name="net.ipv4.conf.br0.rp_filter", value="1"),
        ["sysctl -w net.ipv4.conf.br0.rp_filter=1"],
        [],
    ),
    (
        LinkSysctl(netns=NS, dev="eth0", name="net/ipv4/conf/eth0/rp_filter", value="1"),
        [f"{IN}sysctl -w net/ipv4/conf/eth0/rp_filter=1"],
        [],
    ),
    (
        Address(dev="br0", cidr="10.0.0.1/24"),
        ["ip address add 10.0.0.1/24 dev br0"],
        ["ip address delete 10.0.0.1/24 dev br0"],
    ),
    (
        Address(netns=NS, dev="eth0", cidr="fd00::1/64"),
        [f"{IN}ip address add fd00::1/64 dev eth0 nodad"],
        [f"{IN}ip address delete fd00::1/64 dev eth0"],
    ),
    (LinkUp(dev="br0"), ["ip link set br0 up"], []),
    (LinkUp(netns=NS, dev="eth0"), [f"{IN}ip link set eth0 up"], []),
    (
        Neighbour(netns=NS, dev="eth0", address="10.0.0.9", mac=MAC),
        [f"{IN}ip neighbour add 10.0.0.9 lladdr {MAC} dev eth0 nud permanent"],
        [f"{IN}ip neighbour delete 10.0.0.9 dev eth0"],
    ),
    (
        Route(netns=NS, dst="0.0.0.0/0", via="10.0.0.1", dev="eth0"),
        [f"{IN}ip route add 0.0.0.0/0 via 10.0.0.1 dev eth0"],
        [f"{IN}ip route delete 0.0.0.0/0 via 10.0.0.1 dev eth0"],
    ),
    (
        Route(dst="fd09::/64", dev="br0", metric=7),
        ["ip route add fd09::/64 dev br0 metric 7"],
        ["ip route delete fd09::/64 dev br0 metric 7"],
    ),
    (
        Announce(netns=NS, dev="eth0", address="10.0.0.2"),
        [f"{IN}arping -c 1 -U -I eth0 10.0.0.2"],
        [],
    ),
    (
        Announce(netns=NS, dev="eth0", address="fd00::2"),
        [f"{IN}ndsend fd00::2 eth0"],
        [],
    ),
    (
        attrs.evolve(VXLAN, bridge="br0"),
        [
            (
                "ip link add vx-7 mtu 1450 master br0 type vxlan id 7 local 192.0.2.1 dstport 4789"
                " nolearning proxy"
            ),
            "ip link set vx-7 addrgenmode none",
            "ip link set vx-7 up",
        ],
        ["ip link delete vx-7"],
    ),
    (PORT, ["bridge link set dev vx-7 learning off flood off"], []),
    (
        StrictVni(vni=7),
        [
            "nft add element inet pynetwork-vxlan ports { 4789 }",
            "nft add element inet pynetwork-vxlan strict { 7 }",
        ],
        ["nft delete element inet pynetwork-vxlan strict { 7 }"],
    ),
    (
        FdbEntry(dev="veth0", bridge="br0", mac=MAC),
        [f"bridge fdb replace {MAC} dev veth0 master static"],
        [f"bridge fdb delete {MAC} dev veth0 master"],
    ),
    *firewall_cases.RENDERED,
    *ovs_cases.RENDERED,
]

UPDATED: list[tuple[Resource, Resource, list[str]]] = [
    (
        File(path="/f/a/hostname", text="a\n"),
        File(path="/f/a/hostname", text="b\n"),
        ["printf 'b\\n' > /f/a/hostname"],
    ),
    (
        Cgroup(path=GROUP, memory=1 << 20, cpus=1.5, pids=7),
        Cgroup(path=GROUP),
        [
            f"echo max > {GROUP_DIR}/memory.max",
            f"echo max > {GROUP_DIR}/cpu.max",
            f"echo max > {GROUP_DIR}/pids.max",
        ],
    ),
    (
        Cgroup(path=GROUP, pids=7),
        Cgroup(path=GROUP, pids=8, cpus=0.25),
        [f"echo '25000 100000' > {GROUP_DIR}/cpu.max", f"echo 8 > {GROUP_DIR}/pids.max"],
    ),
    (
        Bridge(name="br0"),
        Bridge(name="br0", multicast_snooping=True),
        ["ip link set br0 type bridge mcast_snooping 1"],
    ),
    (
        Sysctl(name="net.ipv4.ip_forward", value="0"),
        Sysctl(name="net.ipv4.ip_forward", value="1"),
        ["sysctl -w net.ipv4.ip_forward=1"],
    ),
    (
        Bridge(name="br0", mac=MAC),
        Bridge(name="br0", mac=OTHER_MAC, mtu=1400),
        [f"ip link set br0 address {OTHER_MAC} mtu 1400"],
    ),
    (
        Bridge(name="br0", mac=MAC, mtu=1500),
        Bridge(name="br0", mac=MAC, mtu=1400),
        ["ip link set br0 mtu 1400"],
    ),
    (
        VETH,
        attrs.evolve(VETH, bridge="br0"),
        ["ip link set veth0 master br0"],
    ),
    (
        attrs.evolve(VETH, bridge="br0"),
        VETH,
        ["ip link set veth0 nomaster"],
    ),
    (
        VETH,
        attrs.evolve(VETH, mtu=1400),
        ["ip link set veth0 mtu 1400", f"{IN}ip link set eth0 mtu 1400"],
    ),
    (
        VETH,
        attrs.evolve(VETH, isolated=True, hairpin=True),
        ["bridge link set dev veth0 isolated on", "bridge link set dev veth0 hairpin on"],
    ),
    (
        attrs.evolve(VETH, isolated=True, hairpin=True),
        attrs.evolve(VETH, isolated=True),
        ["bridge link set dev veth0 hairpin off"],
    ),
    (
        LinkSysctl(dev="br0", name="net.ipv4.conf.br0.rp_filter", value="1"),
        LinkSysctl(dev="br0", name="net.ipv4.conf.br0.rp_filter", value="2"),
        ["sysctl -w net.ipv4.conf.br0.rp_filter=2"],
    ),
    (
        Neighbour(netns=NS, dev="eth0", address="10.0.0.9", mac=MAC),
        Neighbour(netns=NS, dev="eth0", address="10.0.0.9", mac=OTHER_MAC),
        [f"{IN}ip neighbour replace 10.0.0.9 lladdr {OTHER_MAC} dev eth0 nud permanent"],
    ),
    (
        Route(netns=NS, dst="0.0.0.0/0", via="10.0.0.1", dev="eth0"),
        Route(netns=NS, dst="0.0.0.0/0", via="10.1.0.1", dev="eth1"),
        [f"{IN}ip route replace 0.0.0.0/0 via 10.1.0.1 dev eth1"],
    ),
    (
        Address(dev="br0", cidr="10.0.0.1/24"),
        Address(dev="br1", cidr="10.0.0.1/24"),
        ["ip address delete 10.0.0.1/24 dev br0", "ip address add 10.0.0.1/24 dev br1"],
    ),
    (VXLAN, attrs.evolve(VXLAN, bridge="br0"), ["ip link set vx-7 master br0"]),
    (attrs.evolve(VXLAN, bridge="br0"), VXLAN, ["ip link set vx-7 nomaster"]),
    (VXLAN, attrs.evolve(VXLAN, mtu=1400), ["ip link set vx-7 mtu 1400"]),
    (
        StrictVni(vni=7),
        StrictVni(vni=7, port=4790),
        [
            "nft add element inet pynetwork-vxlan ports { 4790 }",
            "nft add element inet pynetwork-vxlan strict { 7 }",
        ],
    ),
    (
        FdbEntry(dev="veth0", bridge="br0", mac=MAC),
        FdbEntry(dev="veth1", bridge="br0", mac=MAC),
        [f"bridge fdb replace {MAC} dev veth1 master static"],
    ),
    (
        PORT,
        attrs.evolve(PORT, learning=True, flood=True),
        ["bridge link set dev vx-7 learning on flood on"],
    ),
    *firewall_cases.UPDATED,
    *ovs_cases.UPDATED,
]

NETNS_KEY = ("netns", NS)
PEER_KEY = ("link", NS, "eth0")

IDENTITIES: list[tuple[Resource, tuple[str | None, ...], set[tuple[str | None, ...]]]] = [
    (Netns(path=NS), NETNS_KEY, set()),
    (Sysctl(name="a.b", value="1"), ("sysctl", None, "a.b"), set()),
    (Sysctl(netns=NS, name="a.b", value="1"), ("sysctl", NS, "a.b"), {NETNS_KEY}),
    (Directory(path="/f/a"), ("directory", "/f/a"), set()),
    (File(path="/f/a/hosts", text=""), ("file", "/f/a/hosts"), {("directory", "/f/a")}),
    (Cgroup(path=GROUP, pids=1), ("cgroup", GROUP), set()),
    (Bridge(name="br0"), ("link", None, "br0"), set()),
    (VETH, ("link", None, "veth0"), set()),
    (LinkSysctl(netns=NS, dev="eth0", name="a.b", value="1"), ("sysctl", NS, "a.b"), {PEER_KEY, NETNS_KEY}),
    (
        Address(netns=NS, dev="eth0", cidr="10.0.0.1/24"),
        ("address", NS, "eth0", "10.0.0.1/24"),
        {PEER_KEY, NETNS_KEY},
    ),
    (
        Address(dev="br0", cidr="10.0.0.1/24"),
        ("address", None, "br0", "10.0.0.1/24"),
        {("link", None, "br0")},
    ),
    (LinkUp(netns=NS, dev="eth0"), ("up", NS, "eth0"), {PEER_KEY, NETNS_KEY}),
    (
        Neighbour(netns=NS, dev="eth0", address="fd00::9", mac=MAC),
        ("neighbour", NS, "eth0", "fd00::9"),
        {PEER_KEY, NETNS_KEY},
    ),
    (Route(netns=NS, dst="::/0", dev="eth0"), ("route", NS, "::/0", "1024"), {PEER_KEY, NETNS_KEY}),
    (
        Route(netns=NS, dst="::/0", dev="eth0", metric=7),
        ("route", NS, "::/0", "7"),
        {PEER_KEY, NETNS_KEY},
    ),
    (Announce(netns=NS, dev="eth0", address="10.0.0.2"), ("announce", NS, "eth0", "10.0.0.2"), set()),
    (VXLAN, ("link", None, "vx-7"), set()),
    (StrictVni(vni=7), ("strict_vni", "7"), set()),
    (PORT, ("bridge_port", "vx-7", "br0"), {("link", None, "vx-7"), ("link", None, "br0")}),
    (
        FdbEntry(dev="veth0", bridge="br0", mac=MAC),
        ("fdb", "br0", MAC),
        {("link", None, "veth0"), ("link", None, "br0")},
    ),
    *firewall_cases.IDENTITIES,
    *ovs_cases.IDENTITIES,
]


def title(value: object) -> str:
    return type(value).__name__ if isinstance(value, Resource) else ""


@pytest.mark.parametrize(("resource", "created", "deleted"), RENDERED, ids=title)
def test_renders(resource: Resource, created: list[str], deleted: list[str]) -> None:
    assert tuple(created) == resource.render()
    assert tuple(deleted) == resource.render_delete()


@pytest.mark.parametrize(("previous", "resource", "lines"), UPDATED, ids=title)
def test_renders_an_update(previous: Resource, resource: Resource, lines: list[str]) -> None:
    assert tuple(lines) == resource.render_update(previous)


@pytest.mark.parametrize(
    ("previous", "resource"),
    [(Bridge(name="br0", mtu=1400), Bridge(name="br0")), (attrs.evolve(VETH, mtu=1400), VETH)],
    ids=title,
)
def test_an_update_to_no_opinion_has_no_lines(previous: Resource, resource: Resource) -> None:
    assert resource.render_update(previous) == ()


@pytest.mark.parametrize(("resource", "key", "parents"), IDENTITIES, ids=title)
def test_is_identified(
    resource: Resource, key: tuple[str | None, ...], parents: set[tuple[str | None, ...]]
) -> None:
    assert key == resource.key
    assert parents == set(resource.parents)
    provided = {Veth: (PEER_KEY,), OvsBridge: (("ovs_port", "br-int"),)}
    assert resource.provides == provided.get(type(resource), ())


@pytest.mark.parametrize("cases", [RENDERED, IDENTITIES])
def test_every_kind_has_its_cases(cases: list[tuple[Resource, object, object]]) -> None:
    kinds = {case[0].kind for case in cases if not isinstance(case[0], Effect)}
    assert set(KINDS) == kinds


def test_every_kind_that_can_change_in_place_has_its_case() -> None:
    changed = {
        (after.kind, field.name)
        for before, after, _ in UPDATED
        for field in attrs.fields(type(after))
        if field.eq and getattr(before, field.name) != getattr(after, field.name)
    }
    assert {(kind, name) for kind, cls in KINDS.items() for name in cls.mutable} <= changed


def test_every_kind_is_known_by_its_name() -> None:
    defined = {
        cls
        for cls in vars(resources).values()
        if inspect.isclass(cls) and issubclass(cls, Resource) and not issubclass(cls, Effect)
    }
    assert defined - {Resource, Rules} == set(KINDS.values())
    assert all(kind == cls.kind for kind, cls in KINDS.items())


def test_what_is_on_something_comes_after_it() -> None:
    order: list[type[Resource]] = [
        Netns,
        StrictVni,
        Sysctl,
        Bridge,
        Vxlan,
        Veth,
        BridgePort,
        LinkSysctl,
        Address,
        LinkUp,
        Neighbour,
        FdbEntry,
        Route,
        Announce,
    ]
    assert order == sorted(order, key=lambda cls: cls.rank)


def test_equal_values_are_one_whoever_made_them() -> None:
    one, other = (Bridge(name="br0") for _ in range(2))
    another = Bridge(name="br0")
    assert len({one, other, another}) == 1
    assert "_site" not in repr(one)


def test_remembers_the_line_that_made_it() -> None:
    bridge = Bridge(name="br0")
    path, _, line = bridge.origin.rpartition(":")
    assert path == __file__
    source = Path(path).read_text(encoding="utf-8").splitlines()
    assert ast.unparse(ast.parse(source[int(line) - 1].strip())) == "bridge = Bridge(name='br0')"


def test_addresses_that_others_may_remember_are_announced() -> None:
    address = Address(netns=NS, dev="eth0", cidr="10.0.0.2/24", announce=True)
    assert attrs.evolve(address, announce=False).effects() == ()
    assert address.effects() == (Announce(netns=NS, dev="eth0", address="10.0.0.2"),)
    assert Address(dev="br0", cidr="10.0.0.2/24").effects() == ()
    assert Bridge(name="br0").effects() == ()


def test_only_what_was_adopted_may_stay() -> None:
    assert Bridge(name="br0", adopt=True).stays
    assert not Bridge(name="br0").stays
    assert not VETH.stays


def test_slots_catch_typos() -> None:
    with pytest.raises(TypeError):
        Bridge(nmae="br0")  # type: ignore[call-arg]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Bridge(name="br0").mtu = 9000  # type: ignore[misc]


def test_nothing_is_taken_for_granted_of_a_kind_that_is_not_ours() -> None:
    """And the kernel says so before it takes any step."""

    @attrs.frozen(kw_only=True)
    class Queue(Resource):
        kind = "queue"
        rank = 45

        @property
        def key(self) -> Key:
            return ("queue",)

        def render(self) -> tuple[str, ...]:
            return ("queue",)

        def render_delete(self) -> tuple[str, ...]:
            return ("no queue",)

    queue = Queue()
    assert (queue.provides, queue.parents, queue.effects()) == ((), (), ())
    assert queue.render_update(Queue()) == ("no queue", "queue")
    for verb in (Verb.CREATE, Verb.UPDATE):
        with pytest.raises(UnavailableError, match="no resources of kind 'queue'"):
            compile_step(Step(verb, queue), group=1)
