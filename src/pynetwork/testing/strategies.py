"""Hypothesis strategies: plans that a host accepts, to test a kernel, a store or an engine with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from hypothesis import strategies as st

from pynetwork.plan import Plan
from pynetwork.resources import (
    Address,
    Bridge,
    Flow,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    OvsBridge,
    OvsPort,
    Resource,
    Route,
    Sysctl,
    TxChecksum,
    Veth,
)

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

__all__ = ["plans"]

_NAMESPACES: Final = ("/run/pynetwork/netns/a", "/run/pynetwork/netns/b")
_BRIDGES: Final = ("br-a", "br-b")
_MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_CABLES: Final = (
    ("veth0", _NAMESPACES[0], "eth0"),
    ("veth1", _NAMESPACES[0], "eth1"),
    ("veth2", _NAMESPACES[1], "eth0"),
)
_flag = st.booleans()
_mtus = st.sampled_from((None, 1400, 1500))


@attrs.frozen
class _Port:
    """An interface, and a number that its addresses are made of."""

    netns: str | None
    dev: str
    number: int


@st.composite
def plans(draw: DrawFn) -> Plan:
    """
    Return a plan of a small host, in any order: bridges, namespaces, veths, what is configured on them,
    and an Open vSwitch.

    Any two of these plans differ in ways that a request may bring about: objects come and go, MTUs,
    MACs, gateways, settings change, cables move from bridge to bridge. An interface is configured
    (addresses, up) as a whole or not at all.
    """
    namespaces = [path for path in _NAMESPACES if draw(_flag)]
    bridges = [name for name in _BRIDGES if draw(_flag)]
    cables = [cable for cable in _CABLES if cable[1] in namespaces and draw(_flag)]
    ports = [_Port(None, name, 1 + _BRIDGES.index(name)) for name in bridges]
    ports += (_Port(netns, peer, 10 + _CABLES.index((name, netns, peer))) for name, netns, peer in cables)
    resources: list[Resource] = [
        *(Netns(path=path) for path in namespaces),
        *(Bridge(name=name, mac=draw(st.sampled_from(_MACS)), mtu=draw(_mtus)) for name in bridges),
        *(_veth(draw, cable, bridges) for cable in cables),
        *(_sysctl(draw, netns) for netns in (None, *namespaces) if draw(_flag)),
        *(item for port in ports for item in _configuration(draw, port)),
        *(_switched(draw, cables) if draw(_flag) else ()),
    ]
    by_key = {item.key: item for item in draw(st.permutations(resources))}
    return Plan(by_key.values())


def _veth(draw: DrawFn, cable: tuple[str, str, str], bridges: list[str]) -> Veth:
    name, netns, peer = cable
    bridge = draw(st.sampled_from((None, *bridges)))
    return Veth(
        name=name, bridge=bridge, netns=netns, peer=peer, mac=draw(st.sampled_from(_MACS)), mtu=draw(_mtus)
    )


def _switched(draw: DrawFn, cables: list[tuple[str, str, str]]) -> list[Resource]:
    """Return a bridge of Open vSwitch, with some of the cables for ports, and flows."""
    ofports = {name: number for number, (name, _, _) in enumerate(_CABLES, 1)}
    plugged = [name for name, _, _ in cables if draw(_flag)]
    actions = st.sampled_from(("drop", "goto_table:1", "output:1"))
    return [
        OvsBridge(name="br-int", datapath="netdev"),
        *(OvsPort(bridge="br-int", name=name, ofport=ofports[name]) for name in plugged),
        *(TxChecksum(dev=name) for name in plugged),
        *(
            Flow(bridge="br-int", table=0, priority=1, match=f"in_port={number}", actions=draw(actions))
            for number in ofports.values()
            if draw(_flag)
        ),
    ]


def _sysctl(draw: DrawFn, netns: str | None) -> Sysctl:
    return Sysctl(netns=netns, name="net.ipv4.ip_forward", value=draw(st.sampled_from("01")))


def _configuration(draw: DrawFn, port: _Port) -> list[Resource]:
    netns, dev, number = port.netns, port.dev, port.number
    resources: list[Resource] = []
    if draw(_flag):
        name = f"net.ipv4.conf.{dev}.rp_filter"
        resources.append(LinkSysctl(netns=netns, dev=dev, name=name, value=draw(st.sampled_from("012"))))
    if not draw(_flag):
        return resources
    resources += (
        Address(netns=netns, dev=dev, cidr=f"10.{number}.0.1/24"),
        Address(netns=netns, dev=dev, cidr=f"fd00:0:0:{number}::1/64"),
        LinkUp(netns=netns, dev=dev),
    )
    for version, hosts in ((4, f"10.{number}.0."), (6, f"fd00:0:0:{number}::")):
        resources += _reached(draw, port, version, hosts)
    return resources


def _reached(draw: DrawFn, port: _Port, version: int, hosts: str) -> list[Resource]:
    """Return routes and neighbours of a configured port; default routes of two ports are the same object."""
    netns, dev = port.netns, port.dev
    default, other = ("0.0.0.0/0", "192.0.2.0/24") if version == 4 else ("::/0", "2001:db8::/64")
    vias = st.sampled_from((None, f"{hosts}2", f"{hosts}3"))
    resources: list[Resource] = [
        Route(netns=netns, dst=dst, via=draw(vias), dev=dev) for dst in (default, other) if draw(_flag)
    ]
    if draw(_flag):
        mac = draw(st.sampled_from(_MACS))
        resources.append(Neighbour(netns=netns, dev=dev, address=f"{hosts}9", mac=mac))
    return resources
