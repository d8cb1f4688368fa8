"""The flows of an overlay network as text, and what holds for all of them."""

from __future__ import annotations

import re

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pynetwork.drivers.overlay_flows import (
    OFPORT_MAX,
    FlowText,
    LocalPort,
    answer_flows,
    base_flows,
    endpoint_flows,
    flood_flow,
    flows_of,
    member_flow,
    network_flows,
    reach_flows,
)
from pynetwork.plan import Plan, merge

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
PORT = LocalPort(vni=1001, ofport=7, mac=MAC, addresses=["10.0.0.2", "fd00::2"])
BRANCHES = [f"set_field:{digit:#x}->reg0,resubmit(,51)" for digit in range(16, 32)]


def lines(texts: tuple[FlowText, ...]) -> list[str]:
    return [f"{t.table} {t.priority} {t.match or '*'} -> {t.actions}" for t in texts]


def test_a_bridge_drops_what_nothing_is_stated_for() -> None:
    assert lines(base_flows()) == [
        "0 100 in_port=1 -> goto_table:1",
        "11 50 icmp6,icmpv6_type=136 -> drop",
        "20 50 arp,arp_op=1 -> drop",
        "20 50 icmp6,icmpv6_type=135 -> drop",
        "0 0 * -> drop",
        "1 0 * -> drop",
        "2 0 * -> drop",
        "10 0 * -> drop",
        "11 0 * -> goto_table:20",
        "20 0 * -> goto_table:40",
        "40 0 * -> goto_table:50",
        "45 0 * -> drop",
        "50 0 * -> drop",
    ]


def test_a_network() -> None:
    assert lines(network_flows(1001)) == ["2 100 metadata=0x3e9 -> goto_table:50"]
    assert lines(network_flows(1001, strict=True)) == ["2 100 metadata=0x3e9 -> goto_table:45"]
    assert lines(network_flows(1001, bum=True)) == [
        "2 100 metadata=0x3e9 -> goto_table:50",
        f"50 10 metadata=0x3e9,eth_dst=01:00:00:00:00:00/01:00:00:00:00:00 -> {','.join(BRANCHES)}",
    ]


def test_an_endpoint_sends_as_itself_gets_what_is_for_it_and_is_asked_for_in_its_network() -> None:
    local = "fe80::ff:fe00:1"
    mac = f"in_port=7,eth_src={MAC}"
    advertised = "icmp6,in_port=7,icmpv6_type=136,nd_target"
    assert lines(endpoint_flows(PORT)) == [
        "0 100 in_port=7 -> write_metadata:0x3e9,goto_table:10",
        f"10 100 ip,{mac},ip_src=10.0.0.2 -> goto_table:40",
        f"10 100 arp,{mac},arp_spa=10.0.0.2,arp_sha={MAC} -> goto_table:20",
        f"10 100 ipv6,{mac},ipv6_src=fd00::2 -> goto_table:11",
        f"11 100 {advertised}=fd00::2,nd_tll={MAC} -> goto_table:20",
        f"11 100 {advertised}=fd00::2,nd_tll=00:00:00:00:00:00 -> goto_table:20",
        f"10 100 ipv6,{mac},ipv6_src={local} -> goto_table:11",
        f"11 100 {advertised}={local},nd_tll={MAC} -> goto_table:20",
        f"11 100 {advertised}={local},nd_tll=00:00:00:00:00:00 -> goto_table:20",
        f"10 100 arp,{mac},arp_spa=0.0.0.0,arp_sha={MAC} -> goto_table:20",
        "20 110 arp,in_port=7,arp_op=1,arp_tpa=10.0.0.2 -> drop",
        "20 110 icmp6,in_port=7,icmpv6_type=135,nd_target=fd00::2 -> drop",
        *lines(answer_flows(1001, "10.0.0.2", MAC)),
        *lines(answer_flows(1001, "fd00::2", MAC)),
        f"50 100 metadata=0x3e9,eth_dst={MAC} -> output:7",
    ]


def test_an_endpoint_that_is_trusted_may_send_as_anybody() -> None:
    flows = lines(endpoint_flows(attrs.evolve(PORT, guard=False)))
    assert flows[0] == "0 100 in_port=7 -> write_metadata:0x3e9,goto_table:20"
    assert not any(line.startswith(("10 ", "11 ")) for line in flows)


def test_answers() -> None:
    assert lines(answer_flows(1001, "10.0.0.3", OTHER)) == [
        (
            "20 100 arp,metadata=0x3e9,arp_op=1,arp_tpa=10.0.0.3 -> "
            f"move:eth_src->eth_dst,set_field:{OTHER}->eth_src,set_field:2->arp_op,"
            f"move:arp_sha->arp_tha,set_field:{OTHER}->arp_sha,"
            "move:arp_spa->arp_tpa,set_field:10.0.0.3->arp_spa,in_port"
        )
    ]
    assert lines(answer_flows(1001, "fd00::3", OTHER)) == [
        (
            "20 100 icmp6,metadata=0x3e9,icmpv6_type=135,nd_target=fd00::3 -> "
            f"move:eth_src->eth_dst,set_field:{OTHER}->eth_src,move:ipv6_src->ipv6_dst,"
            "set_field:fd00::3->ipv6_src,set_field:136->icmpv6_type,resubmit(,21)"
        ),
        (
            "21 100 icmp6,metadata=0x3e9,icmpv6_type=136,nd_target=fd00::3 -> "
            f"set_field:2->nd_options_type,set_field:0x60000000->nd_reserved,set_field:{OTHER}->nd_tll,in_port"
        ),
    ]


def test_what_is_on_other_hosts() -> None:
    assert lines((member_flow(1001, "192.0.2.2"), member_flow(1001, "2001:db8::2"))) == [
        "1 100 tun_id=0x3e9,tun_src=192.0.2.2 -> write_metadata:0x3e9,goto_table:2",
        "1 100 tun_id=0x3e9,tun_ipv6_src=2001:db8::2 -> write_metadata:0x3e9,goto_table:2",
    ]
    to = f"40 100 metadata=0x3e9,eth_dst={OTHER} -> set_field:0x3e9->tun_id,set_field"
    assert lines(reach_flows(1001, OTHER, "192.0.2.2", strict=False)) == [f"{to}:192.0.2.2->tun_dst,output:1"]
    assert lines(reach_flows(1001, OTHER, "2001:db8::2", strict=True)) == [
        f"{to}:2001:db8::2->tun_ipv6_dst,output:1",
        f"45 100 tun_ipv6_src=2001:db8::2,metadata=0x3e9,eth_src={OTHER} -> goto_table:50",
    ]
    assert lines((flood_flow(1001, ["192.0.2.3", "192.0.2.2"]),)) == [
        (
            "40 10 metadata=0x3e9,eth_dst=01:00:00:00:00:00/01:00:00:00:00:00 -> set_field:0x3e9->tun_id,"
            "set_field:192.0.2.2->tun_dst,output:1,set_field:192.0.2.3->tun_dst,output:1,goto_table:50"
        )
    ]


macs = st.binary(min_size=5, max_size=5).map(lambda packed: f"02:{packed.hex(':')}")
v4, v6 = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
vteps = st.one_of(v4, v6)
vnis = st.integers(1, 2**24 - 1)
ports = st.builds(
    LocalPort,
    vni=vnis,
    ofport=st.integers(2, OFPORT_MAX),
    mac=macs,
    addresses=st.lists(st.one_of(v4, v6), max_size=3, unique=True),
    guard=st.booleans(),
    bum=st.booleans(),
)


@given(ports, macs, vteps, st.lists(vteps, min_size=1), st.booleans())
def test_flows_are_written_as_resources_write_them(
    port: LocalPort, mac: str, vtep: str, copied: list[str], strict: bool
) -> None:
    """Else the cookie that an endpoint's flow is looked for by would not be the one it has."""
    texts = (
        *base_flows(),
        *network_flows(port.vni, strict=strict, bum=port.bum),
        *endpoint_flows(port),
        member_flow(port.vni, vtep),
        *reach_flows(port.vni, mac, vtep, strict=strict),
        flood_flow(port.vni, copied),
    )
    for text, flow in zip(texts, flows_of("br", texts), strict=True):
        assert (text.match, text.actions) == (flow.match, flow.actions)
        assert (text.table, text.priority) == (flow.table, flow.priority)


@given(st.lists(ports, max_size=5, unique_by=(lambda p: p.ofport, lambda p: p.mac)))
def test_plans_of_endpoints_never_contradict_each_other(chosen: list[LocalPort]) -> None:
    """Any two state the same flow alike, so that it is theirs together; but for an address that two have."""
    addresses: set[tuple[int, str]] = set()
    plans = []
    for port in chosen:
        own = [address for address in port.addresses if (port.vni, address) not in addresses]
        addresses.update((port.vni, address) for address in own)
        plans.append(Plan(flows_of("br", endpoint_flows(attrs.evolve(port, addresses=own)))))
    merged = merge([Plan(flows_of("br", base_flows())), *plans])
    assert {flow for plan in plans for flow in plan} <= set(merged)


@given(ports)
def test_every_flow_is_of_one_network_or_one_port(port: LocalPort) -> None:
    """So networks with the same addresses do not hear of each other."""
    for text in endpoint_flows(port):
        words = text.match.split(",")
        assert f"metadata={port.vni:#x}" in words or f"in_port={port.ofport}" in words


def reached(flows: tuple[FlowText, ...], node: int, depth: int = 0) -> list[int]:
    """Return the ports that table 51 sends a copy to, beginning at a node of the tree."""
    assert depth <= 3
    found = [text for text in flows if text.table == 51 and text.match.endswith(f"reg0={node:#x}")]
    outputs = []
    for text in {(text.match, text.actions): text for text in found}.values():
        branches = re.findall(r"set_field:(0x[0-9a-f]+)->reg0,resubmit\(,51\)", text.actions)
        outputs += [port for branch in branches for port in reached(flows, int(branch, 16), depth + 1)]
        outputs += map(int, re.findall(r"output:(\d+)", text.actions))
    return outputs


@given(st.sets(st.integers(2, OFPORT_MAX), max_size=12))
def test_what_is_for_everybody_comes_to_every_port_once(numbers: set[int]) -> None:
    """Although no flow is stated by more than one endpoint can know."""
    flows = tuple(
        text
        for number in numbers
        for text in endpoint_flows(LocalPort(vni=5, ofport=number, mac=MAC, bum=True))
    )
    root = network_flows(5, bum=True)[1]
    branches = [int(node, 16) for node in re.findall(r"set_field:(0x[0-9a-f]+)->reg0", root.actions)]
    assert sorted(port for node in branches for port in reached(flows, node)) == sorted(numbers)


@given(st.sets(vteps, min_size=1), vnis, macs)
def test_what_comes_from_a_tunnel_never_goes_into_one(others: set[str], vni: int, mac: str) -> None:
    """There are no loops: no table behind the tunnel's leads to table 40, where it is sent into one."""
    texts = [
        *base_flows(),
        *network_flows(vni, strict=True, bum=True),
        *(member_flow(vni, vtep) for vtep in others),
        *(text for vtep in others for text in reach_flows(vni, mac, vtep, strict=True)),
    ]
    seen, pending = set(), {1}
    while pending:
        table = pending.pop()
        seen.add(table)
        for text in texts:
            if text.table == table:
                assert "output:1" not in text.actions.split(",")
                pending |= {
                    int(n) for n in re.findall(r"(?:goto_table:|resubmit\(,)(\d+)", text.actions)
                } - seen
    assert 40 not in seen
    assert {1, 2, 45, 50} <= seen
