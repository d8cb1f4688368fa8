"""The resources of Open vSwitch as lines, for test_resources.py."""

from __future__ import annotations

from pynetwork.resources import Flow, OvsBridge, OvsPort, Resource, TxChecksum

BRIDGE = OvsBridge(name="br-int", datapath="netdev")
PORT = OvsPort(bridge="br-int", name="veth0", ofport=7, ids=[("pynetwork-endpoint", "e1")])
TUNNEL = OvsPort(
    bridge="br-int",
    name="vx0",
    type="vxlan",
    ofport=1,
    options=[("remote_ip", "flow"), ("key", "flow"), ("dst_port", 4789), ("local_ip", "192.0.2.1")],
)
FLOW = Flow(bridge="br-int", table=1, priority=100, match="tun_id=0x3e9", actions="goto_table:50")
REST = Flow(bridge="br-int", table=0, priority=0)
_COOKIE = f"cookie={REST.cookie:#x}"
NS = "/run/pynetwork/netns/a"
BRIDGE_KEY = ("link", None, "br-int")

RENDERED: list[tuple[Resource, list[str], list[str]]] = [
    (
        BRIDGE,
        [
            (
                "ovs-vsctl add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure "
                "protocols=OpenFlow13,OpenFlow14,OpenFlow15"
            )
        ],
        ["ovs-vsctl del-br br-int"],
    ),
    (
        PORT,
        [
            (
                "ovs-vsctl add-port br-int veth0 -- set interface veth0 ofport_request=7 "
                "external_ids:pynetwork-endpoint=e1"
            )
        ],
        ["ovs-vsctl del-port br-int veth0"],
    ),
    (
        TUNNEL,
        [
            (
                "ovs-vsctl add-port br-int vx0 -- set interface vx0 ofport_request=1 type=vxlan "
                "options:dst_port=4789 options:key=flow options:local_ip=192.0.2.1 options:remote_ip=flow"
            )
        ],
        ["ovs-vsctl del-port br-int vx0"],
    ),
    (
        FLOW,
        [
            (
                "ovs-ofctl -O OpenFlow14 add-flow br-int "
                f"'table=1,priority=100,cookie={FLOW.cookie:#x},tun_id=0x3e9 actions=goto_table:50'"
            )
        ],
        [f"ovs-ofctl -O OpenFlow14 del-flows br-int table=1,cookie={FLOW.cookie:#x}/-1"],
    ),
    (
        REST,
        [
            f"ovs-ofctl -O OpenFlow14 add-flow br-int 'table=0,priority=0,{_COOKIE} actions=drop'",
        ],
        [f"ovs-ofctl -O OpenFlow14 del-flows br-int table=0,cookie={REST.cookie:#x}/-1"],
    ),
    (TxChecksum(netns=NS, dev="eth0"), [f"nsenter --net={NS} ethtool -K eth0 tx off"], []),
    (TxChecksum(dev="veth0", on=True), ["ethtool -K veth0 tx on"], []),
]

_OTHER = Flow(bridge="br-int", table=1, priority=100, match="tun_id=0x3e9", actions="goto_table:45")
UPDATED: list[tuple[Resource, Resource, list[str]]] = [
    (
        OvsBridge(name="br-int", fail_mode="standalone", controllers=["tcp:192.0.2.9"]),
        OvsBridge(name="br-int"),
        ["ovs-vsctl del-controller br-int", "ovs-vsctl set-fail-mode br-int secure"],
    ),
    (
        OvsBridge(name="br-int"),
        OvsBridge(name="br-int", controllers=["tcp:192.0.2.9"]),
        ["ovs-vsctl set-controller br-int tcp:192.0.2.9"],
    ),
    (
        OvsPort(bridge="br-int", name="veth0", ofport=7, ids=[("a", "1"), ("b", "2"), ("d", "4")]),
        OvsPort(bridge="br-int", name="veth0", ofport=7, ids=[("b", "3"), ("c", "1"), ("d", "4")]),
        [
            "ovs-vsctl remove interface veth0 external_ids a",
            "ovs-vsctl set interface veth0 external_ids:b=3 external_ids:c=1",
        ],
    ),
    (
        OvsPort(bridge="br-int", name="veth0", ofport=0),
        OvsPort(bridge="br-int", name="veth0", ofport=7),
        [
            "ovs-vsctl del-port br-int veth0",
            "ovs-vsctl add-port br-int veth0 -- set interface veth0 ofport_request=7",
        ],
    ),
    (
        FLOW,
        _OTHER,
        [
            (
                "ovs-ofctl -O OpenFlow14 add-flow br-int "
                f"'table=1,priority=100,cookie={_OTHER.cookie:#x},tun_id=0x3e9 actions=goto_table:45'"
            )
        ],
    ),
    (TxChecksum(dev="veth0", on=True), TxChecksum(dev="veth0"), ["ethtool -K veth0 tx off"]),
]

IDENTITIES: list[tuple[Resource, tuple[str | None, ...], set[tuple[str | None, ...]]]] = [
    (BRIDGE, BRIDGE_KEY, set()),
    (PORT, ("ovs_port", "veth0"), {BRIDGE_KEY}),
    (FLOW, ("flow", "br-int", "1", "100", "tun_id=0x3e9"), {BRIDGE_KEY}),
    (
        TxChecksum(netns=NS, dev="eth0"),
        ("tx_checksum", NS, "eth0"),
        {("link", NS, "eth0"), ("netns", NS)},
    ),
]
