"""The flows of an Open vSwitch that forwards overlay networks: from plain values to text, nothing else.

A packet's network is in its ``metadata``, the VNI, from the first table on, and in every match behind that.
Nothing is learned and nothing unknown is flooded: what is not stated is dropped. Packets from tunnels never
enter the tables that send into tunnels, so there are no loops.

===== ========== ====================================================================================
table             what it does
===== ========== ====================================================================================
0     classify    from a tunnel: 1; from an endpoint: its network, 10
1     members     from a tunnel: only what hosts of that very network send: 2
2     networks    the networks that this host is in: 50, or 45 where hosts are held to their endpoints
10    sources     an endpoint sends from its own addresses: ARP and IPv6 to 11 and 20, IPv4 to 40
11    targets     a neighbour advertisement speaks of its sender's own addresses: 20
20    answers     ARP requests and neighbour solicitations are answered here, or dropped
21                the second half of the answer to a neighbour solicitation
40    remote      to the host that the destination is on, else: 50
45    strict      a source address comes from the host that it is on: 50
50    local       to the port that the destination is on
51                to every port of a network, for what is for everybody
===== ========== ====================================================================================

Flows of the host, of networks and of its own endpoints are resources of plans; those for what is on
other hosts follow :class:`pynetwork.peers.Peers`.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pynetwork.resources import Flow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "NETWORKS",
    "OFPORT_MAX",
    "TUNNEL",
    "FlowText",
    "LocalPort",
    "answer_flows",
    "base_flows",
    "endpoint_flows",
    "flood_flow",
    "flows_of",
    "member_flow",
    "network_flows",
    "reach_flows",
]

#: OpenFlow number of the tunnel's port.
TUNNEL: Final = 1
#: The table whose flows say which networks the host is in.
NETWORKS: Final = 2
#: The highest OpenFlow number that a port of an endpoint may have: three digits of the tree of table 51.
OFPORT_MAX: Final = 0xFFF
_MULTICAST: Final = "01:00:00:00:00:00/01:00:00:00:00:00"
_SOLICITED_OVERRIDE: Final = 0x60000000  # flags of a neighbour advertisement (RFC 4861 section 4.4)
_TARGET_OPTION: Final = 2  # of neighbour discovery: target link-layer address (RFC 4861 section 4.6.1)
_NO_MAC: Final = "00:00:00:00:00:00"
_ROOT: Final = 1
_DIGITS: Final = 16


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, values))


class FlowText(NamedTuple):
    """A flow of any bridge; match and actions are written as :class:`~pynetwork.resources.Flow` has them."""

    table: int
    priority: int
    match: str
    actions: str


@attrs.frozen(kw_only=True)
class LocalPort:
    """
    An endpoint of this host.

    Args:
        vni: Of its network.
        ofport: OpenFlow number of its port, 2 to OFPORT_MAX.
        mac: Its MAC address.
        addresses: Its addresses, canonical text without prefix length.
        guard: Whether it can send from its own addresses only.
        bum: Whether it gets what is for everybody.
    """

    vni: int
    ofport: int
    mac: str
    addresses: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    guard: bool = True
    bum: bool = False


def flows_of(bridge: str, texts: Iterable[FlowText]) -> tuple[Flow, ...]:
    """Return *texts* as resources."""
    return tuple(
        Flow(bridge=bridge, table=text.table, priority=text.priority, match=text.match, actions=text.actions)
        for text in texts
    )


def base_flows() -> tuple[FlowText, ...]:
    """Return what a bridge has whatever networks there are: where packets go that nothing is stated for."""
    onward = {0: None, 1: None, NETWORKS: None, 10: None, 11: 20, 20: 40, 40: 50, 45: None, 50: None}
    return (
        FlowText(0, 100, f"in_port={TUNNEL}", "goto_table:1"),
        FlowText(11, 50, "icmp6,icmpv6_type=136", "drop"),
        # An address that nobody has is asked for in vain, and nobody else hears it.
        FlowText(20, 50, "arp,arp_op=1", "drop"),
        FlowText(20, 50, "icmp6,icmpv6_type=135", "drop"),
        *(
            FlowText(table, 0, "", "drop" if target is None else f"goto_table:{target}")
            for table, target in onward.items()
        ),
    )


def network_flows(vni: int, *, strict: bool = False, bum: bool = False) -> tuple[FlowText, ...]:
    """
    Return what a bridge has as long as its host is in a network.

    Args:
        vni: Of the network.
        strict: Whether what comes from a host must have a source address that is on that host.
        bum: Whether what is for everybody goes to everybody.
    """
    here = FlowText(NETWORKS, 100, f"metadata={vni:#x}", f"goto_table:{45 if strict else 50}")
    if not bum:
        return (here,)
    return (here, FlowText(50, 10, f"metadata={vni:#x},eth_dst={_MULTICAST}", _to_digits(_ROOT)))


def endpoint_flows(port: LocalPort) -> tuple[FlowText, ...]:
    """Return what a bridge has as long as an endpoint of its host is joined."""
    number, vni = port.ofport, port.vni
    return (
        FlowText(
            0, 100, f"in_port={number}", f"write_metadata:{vni:#x},goto_table:{10 if port.guard else 20}"
        ),
        *(_sources(port) if port.guard else ()),
        # Its own addresses it asks for when it wants to know whether another has them (RFC 5227, RFC 4862).
        *(FlowText(20, 110, _asking(f"in_port={number}", address), "drop") for address in port.addresses),
        *(text for address in port.addresses for text in answer_flows(vni, address, port.mac)),
        FlowText(50, 100, f"metadata={vni:#x},eth_dst={port.mac}", f"output:{number}"),
        *(_tree(port) if port.bum else ()),
    )


def answer_flows(vni: int, address: str, mac: str) -> tuple[FlowText, ...]:
    """Return what answers whoever in a network asks for *address*: it is at *mac*."""
    network = f"metadata={vni:#x}"
    if ":" not in address:
        return (
            FlowText(
                20,
                100,
                _asking(network, address),
                f"move:eth_src->eth_dst,set_field:{mac}->eth_src,set_field:2->arp_op,"
                f"move:arp_sha->arp_tha,set_field:{mac}->arp_sha,"
                f"move:arp_spa->arp_tpa,set_field:{address}->arp_spa,in_port",
            ),
        )
    return (
        FlowText(
            20,
            100,
            _asking(network, address),
            f"move:eth_src->eth_dst,set_field:{mac}->eth_src,move:ipv6_src->ipv6_dst,"
            f"set_field:{address}->ipv6_src,set_field:136->icmpv6_type,resubmit(,21)",
        ),
        FlowText(
            21,
            100,
            f"icmp6,{network},icmpv6_type=136,nd_target={address}",
            f"set_field:{_TARGET_OPTION}->nd_options_type,set_field:{_SOLICITED_OVERRIDE:#x}->nd_reserved,"
            f"set_field:{mac}->nd_tll,in_port",
        ),
    )


def member_flow(vni: int, vtep: str) -> FlowText:
    """Return what lets a host send into a network: it has endpoints there."""
    source = "tun_ipv6_src" if ":" in vtep else "tun_src"
    match = f"tun_id={vni:#x},{source}={vtep}"
    return FlowText(1, 100, match, f"write_metadata:{vni:#x},goto_table:{NETWORKS}")


def reach_flows(vni: int, mac: str, vtep: str, *, strict: bool) -> tuple[FlowText, ...]:
    """
    Return what sends to an endpoint on another host.

    Args:
        vni: Of its network.
        mac: Its MAC address.
        vtep: Address of its host.
        strict: Whether only that host may send from *mac*.
    """
    to = FlowText(40, 100, f"metadata={vni:#x},eth_dst={mac}", f"set_field:{vni:#x}->tun_id,{_tunnel(vtep)}")
    if not strict:
        return (to,)
    source = "tun_ipv6_src" if ":" in vtep else "tun_src"
    return (to, FlowText(45, 100, f"{source}={vtep},metadata={vni:#x},eth_src={mac}", "goto_table:50"))


def flood_flow(vni: int, vteps: Iterable[str]) -> FlowText:
    """Return what sends a copy of what is for everybody to each host (head-end replication)."""
    copies = ",".join(map(_tunnel, sorted(vteps)))
    match = f"metadata={vni:#x},eth_dst={_MULTICAST}"
    return FlowText(40, 10, match, f"set_field:{vni:#x}->tun_id,{copies},goto_table:50")


def _tunnel(vtep: str) -> str:
    return f"set_field:{vtep}->{'tun_ipv6_dst' if ':' in vtep else 'tun_dst'},output:{TUNNEL}"


def _asking(where: str, address: str) -> str:
    if ":" in address:
        return f"icmp6,{where},icmpv6_type=135,nd_target={address}"
    return f"arp,{where},arp_op=1,arp_tpa={address}"


def _sources(port: LocalPort) -> Iterator[FlowText]:
    """Yield what lets an endpoint send from its own addresses. ``::`` is not among them: none answers it."""
    sender = f"in_port={port.ofport},eth_src={port.mac}"
    for address in (*port.addresses, _link_local(port.mac)):
        if ":" in address:
            yield FlowText(10, 100, f"ipv6,{sender},ipv6_src={address}", "goto_table:11")
            advertised = f"icmp6,in_port={port.ofport},icmpv6_type=136,nd_target={address}"
            # Of an advertisement without the option the field is zero (RFC 4861 section 4.4).
            for mac in (port.mac, _NO_MAC):
                yield FlowText(11, 100, f"{advertised},nd_tll={mac}", "goto_table:20")
        else:
            yield FlowText(10, 100, f"ip,{sender},ip_src={address}", "goto_table:40")
            yield FlowText(10, 100, f"arp,{sender},arp_spa={address},arp_sha={port.mac}", "goto_table:20")
    yield FlowText(10, 100, f"arp,{sender},arp_spa=0.0.0.0,arp_sha={port.mac}", "goto_table:20")  # RFC 5227


def _link_local(mac: str) -> str:
    """Return the link-local address that an interface makes of its MAC (RFC 4291 appendix A), canonical."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:]))


def _tree(port: LocalPort) -> Iterator[FlowText]:
    """
    Yield what a copy for everybody takes to come to a port.

    A flow that lists all ports could not be stated by one endpoint alone. So they are the leaves of a tree,
    by the digits of their numbers: a flow looks into all sixteen branches, whether they are there or not.
    Those above several leaves are the same whichever endpoint states them.
    """
    for digits in (2, 1, 0):
        node = _ROOT << 4 * (3 - digits) | port.ofport >> 4 * digits
        action = _to_digits(node) if digits else f"output:{port.ofport}"
        yield FlowText(51, 100, f"metadata={port.vni:#x},reg0={node:#x}", action)


def _to_digits(node: int) -> str:
    branches = (f"set_field:{node << 4 | digit:#x}->reg0,resubmit(,51)" for digit in range(_DIGITS))
    return ",".join(branches)
