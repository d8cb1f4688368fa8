"""Hypothesis strategies for flows: every field, every action, in the language of resources/flow_text.py."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from pynetwork.resources.flow_text import FIELDS, PROTOCOLS, Field
from pynetwork.resources.ovs import Flow

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

PORTS = st.integers(1, 0xFEFF)


def values(name: str) -> SearchStrategy[str]:
    """Return texts of values of a field."""
    field = FIELDS[name]
    if name == "in_port":
        return PORTS.map(str)
    if field.kind == "mac":
        return st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":"))
    if field.kind == "ipv4":
        return st.integers(1, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
    if field.kind == "ipv6":
        return st.integers(1, 2**128 - 1).map(lambda number: str(IPv6Address(number)))
    return st.integers(0, field.last or 2**field.bits - 1).map(hex if field.kind == "hex" else str)


@st.composite
def conditions(draw: DrawFn, name: str) -> str:
    """Return a condition on a field, masked now and then."""
    value = draw(values(name))
    field = FIELDS[name]
    if not field.masked or draw(st.booleans()):
        return f"{name}={value}"
    return f"{name}={_masked(draw, field, value)}"


def _masked(draw: DrawFn, field: Field, value: str) -> str:
    if field.kind == "mac":
        return draw(
            st.sampled_from(["01:00:00:00:00:00/01:00:00:00:00:00", "02:00:00:00:00:00/ff:00:00:00:00:00"])
        )
    length = draw(st.integers(1, field.bits - 1))
    cls: Any = IPv4Address if field.kind == "ipv4" else IPv6Address
    kept = int(cls(value)) >> (field.bits - length) << (field.bits - length)
    return f"{cls(kept)}/{length}"


@st.composite
def matches(draw: DrawFn) -> str:
    """Return a match, its conditions in any order."""
    protocol = draw(st.sampled_from([None, *PROTOCOLS]))
    parts = [] if protocol is None else [protocol]
    kind = None
    if protocol == "icmp6":
        kind = draw(st.sampled_from([None, 135, 136]))
        parts += [] if kind is None else [f"icmpv6_type={kind}"]
    names = [
        name
        for name, field in FIELDS.items()
        if name != "icmpv6_type"
        and (not field.of or protocol in field.of)
        and (not field.types or kind in field.types)
        # the switch takes messages of neighbour discovery only of code 0
        and not (name == "icmpv6_code" and kind)
    ]
    chosen = draw(st.lists(st.sampled_from(names), max_size=5, unique=True))
    if not {"tun_src", "tun_dst"}.isdisjoint(chosen):  # outer addresses are of one family
        chosen = [name for name in chosen if not name.startswith("tun_ipv6")]
    parts += [draw(conditions(name)) for name in chosen]
    return ",".join(draw(st.permutations(parts)))


_SETTABLE = [name for name in FIELDS if name not in {"in_port", "nd_sll", "icmpv6_code"}]


@st.composite
def action_lists(draw: DrawFn, table: int, protocol: str | None = None) -> str:
    """Return actions on packets of a protocol, in a table."""
    settable = [
        name
        for name in _SETTABLE
        if (not FIELDS[name].of or protocol in FIELDS[name].of) and not FIELDS[name].types
    ]
    one = st.one_of(
        PORTS.map(lambda port: f"output:{port}"),
        st.just("in_port"),
        st.sampled_from(settable).flatmap(
            lambda name: values(name).map(lambda text: f"set_field:{text}->{name}")
        ),
        st.just("move:eth_src->eth_dst"),
        st.integers(0, 253).map(lambda number: f"resubmit(,{number})"),
    )
    parts = draw(st.lists(one, max_size=5))
    if draw(st.booleans()):
        parts.append(f"write_metadata:{draw(st.integers(1, 2**64 - 1)):#x}")
    if draw(st.booleans()) and table < 253:
        parts.append(f"goto_table:{draw(st.integers(table + 1, 253))}")
    return ",".join(parts) or "drop"


@st.composite
def flows(draw: DrawFn, bridge: str = "br0") -> Flow:
    """Return a flow that a switch accepts."""
    match = draw(matches())
    protocol = next((word for word in match.split(",") if word in PROTOCOLS), None)
    table = draw(st.integers(0, 253))
    return Flow(
        bridge=bridge,
        table=table,
        priority=draw(st.integers(0, 0xFFFF)),
        match=match,
        actions=draw(action_lists(table, protocol)),
    )
