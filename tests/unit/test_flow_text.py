"""The language of flows: read strictly, written in one way, so that equal texts are equal flows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from tests.unit.flow_strategies import flows, matches

from pynetwork.errors import InvalidValueError
from pynetwork.resources.flow_text import FIELDS, parse_actions, parse_match
from pynetwork.resources.ovs import Flow

MAC = "02:00:00:00:00:01"


@given(matches())
def test_a_match_is_written_in_one_way(text: str) -> None:
    conditions = parse_match(text)
    written = ",".join(map(str, conditions))
    assert parse_match(written) == conditions
    assert sorted(word.partition("=")[0] for word in written.split(",")) == sorted(
        word.partition("=")[0] for word in text.split(",")
    )
    reordered = ",".join(reversed(text.split(",")))
    assert parse_match(reordered) == conditions


@given(flows())
def test_a_flow_says_the_same_when_it_is_read_again(flow: Flow) -> None:
    again = Flow(
        bridge=flow.bridge, table=flow.table, priority=flow.priority, match=flow.match, actions=flow.actions
    )
    assert again == flow
    assert again.cookie == flow.cookie
    assert flow.cookie >> 48 == 0x504E
    assert ",".join(map(str, parse_actions(flow.actions))) in {flow.actions, ""}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("metadata=1001", "metadata=0x3e9"),
        ("arp,arp_op=1", "arp_op=1,arp"),
        ("ipv6,ipv6_src=FD00:0::1", "ipv6_src=fd00::1,ipv6"),
        ("ip,ip_src=10.0.0.1/32", "ip,ip_src=10.0.0.1"),
        (f"eth_src={MAC}/ff:ff:ff:ff:ff:ff", f"eth_src={MAC}"),
    ],
)
def test_texts_of_one_match_are_one(one: str, other: str) -> None:
    first, second = (Flow(bridge="b", table=0, priority=0, match=text) for text in (one, other))
    assert first == second
    assert first.key == second.key


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("colour=1", "unknown field 'colour'"),
        ("metadata", "no number"),
        ("metadata=", "no number"),
        ("metadata=-1", "no number"),
        ("metadata=01", "no number"),
        ("metadata=0x10000000000000000", "no number"),
        ("metadata=1,metadata=1", "twice"),
        ("ip,arp", "twice"),
        ("arp,arp", "twice"),
        ("ip,,in_port=1", "unknown field ''"),
        ("eth_src=2:0:0:0:0:1", "no MAC address"),
        ("eth_src=02:00:00:00:00:0A", "lower case"),
        ("ip,ip_src=10.0.0.256", "10.0.0.256"),
        ("ip,ip_src=10.0.0.1/8", "masked like that"),
        ("ip,ip_src=10.0.0.0/33", "no number up to 32"),
        ("tun_src=10.0.0.0/8", "masked like that"),
        ("ip_src=10.0.0.1", "field of ip or"),
        ("ipv6,ip_src=10.0.0.1", "field of ip or"),
        ("ip,arp_op=1", "field of arp"),
        ("icmp6,nd_target=fd00::1", "needs icmpv6_type=135 or icmpv6_type=136"),
        ("icmp6,icmpv6_type=136,nd_sll=02:00:00:00:00:01", "needs icmpv6_type=135"),
        ("in_port=1 actions=drop", "no number"),
    ],
)
def test_a_bad_match_is_refused(match: str, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        Flow(bridge="b", table=0, priority=0, match=match)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ("", "unknown"),
        ("normal", "unknown"),
        ("output:65280", "no number up to 65279"),
        ("output", "no number"),
        ("drop,output:1", "unknown"),
        ("goto_table:254", "no number up to 253"),
        ("resubmit(,254)", "no number up to 253"),
        ("resubmit(1,2)", "unknown"),
        ("goto_table:1,output:1", "come last"),
        ("goto_table:1,write_metadata:0x1", "come last"),
        ("goto_table:1,goto_table:2", "come last"),
        ("set_field:1->colour", "unknown field 'colour'"),
        ("set_field:10.0.0.1->eth_src", "no MAC"),
        ("set_field:1", "unknown field"),
        ("move:eth_src->arp_spa", "no field of the size"),
        ("move:colour->arp_spa", "no field of the size"),
    ],
)
def test_bad_actions_are_refused(actions: str, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        Flow(bridge="b", table=0, priority=0, actions=actions)


@pytest.mark.parametrize(("table", "priority"), [(-1, 0), (254, 0), (0, -1), (0, 65536)])
def test_tables_and_priorities_that_are_none_are_refused(table: int, priority: int) -> None:
    with pytest.raises(InvalidValueError, match="invalid flow"):
        Flow(bridge="b", table=table, priority=priority)


def test_whatever_a_flow_is_its_cookie_tells() -> None:
    flow: dict[str, Any] = {
        "bridge": "b",
        "table": 1,
        "priority": 2,
        "match": "in_port=1",
        "actions": "output:1",
    }
    others: list[dict[str, Any]] = [
        {"table": 2},
        {"priority": 1},
        {"match": "in_port=2"},
        {"actions": "output:2"},
    ]
    cookies = {Flow(**{**flow, **other}).cookie for other in ({}, *others)}
    assert len(cookies) == 5
    assert Flow(**{**flow, "bridge": "c"}).cookie in cookies  # each bridge has its own


def test_sizes_of_fields_are_whole_bytes() -> None:
    assert all(field.bits % 8 == 0 for field in FIELDS.values())
