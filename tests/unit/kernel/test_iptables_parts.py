"""The parts of the iptables firewall that need no iptables: claims of ports, messages, what was seen."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pynetwork.kernel.iptables import wire
from pynetwork.kernel.iptables.claims import Claims
from pynetwork.kernel.iptables.layout import chain_names, jumps, static_rules
from pynetwork.kernel.iptables.rules import rules_of
from pynetwork.kernel.iptables.view import View
from pynetwork.resources import PublishedPort
from pynetwork.resources.stray import StrayRules

ID = "0123abcd"


def comment(
    host: str, first: int, last: int, *, proto: str = "tcp", by: str = "", tag: str = "00000000"
) -> str:
    return f"pynetwork-{ID} port 4 {proto} {host} {first}-{last} #{tag}" + (f" by {by}" if by else "")


def claim(host: str, first: int, last: int, **fields: Any) -> dict[str, Any]:
    return {"proto": "tcp", "host": host, "first": first, "last": last, "replay": False, "tags": [], **fields}


@pytest.mark.parametrize(
    ("held", "wanted", "taken"),
    [
        (("*", 80, 80), ("*", 80, 80), 80),
        (("*", 80, 80), ("*", 81, 81), None),
        (("*", 1, 65535), ("192.0.2.1", 4711, 4711), 4711),
        (("192.0.2.1", 4711, 4711), ("*", 1, 65535), 4711),
        (("192.0.2.1", 80, 80), ("192.0.2.2", 80, 80), None),
        (("*", 200, 300), ("*", 256, 256), 256),
        (("*", 255, 255), ("*", 256, 511), None),
        (("*", 250, 600), ("*", 512, 700), 512),
    ],
)
def test_claims_that_overlap_are_found(
    held: tuple[str, int, int], wanted: tuple[str, int, int], taken: int | None
) -> None:
    claims = Claims()
    claims.add(comment(*held, by='endpoint "web"'))
    found = claims.find(claim(*wanted), "another key")
    assert found == (None if taken is None else (taken, "endpoint 'web'"))
    assert claims.find(claim(*wanted, proto="udp"), "another key") is None
    claims.discard(comment(*held, by='endpoint "web"'))
    assert claims.find(claim(*wanted), "another key") is None


def test_the_same_rule_is_no_obstacle_nor_is_its_key_when_done_again() -> None:
    claims = Claims()
    claims.add(comment("*", 80, 80))
    key = f"pynetwork-{ID} port 4 tcp * 80-80"
    assert claims.find(claim("*", 80, 80), key) == (80, "another instance")
    assert claims.find(claim("*", 80, 80, replay=True), key) is None
    assert claims.find(claim("*", 80, 80, tags=[f"{key} #00000000"]), key) is None


def test_a_port_of_several_rules_is_taken_as_long_as_one_is_there() -> None:
    claims = Claims()
    rules = [comment("*", 250, 260, tag=f"0000000{number}") for number in range(3)]
    key = f"pynetwork-{ID} port 4 tcp * 250-260"
    tags = [f"{key} #0000000{number}" for number in range(3)]
    for rule in rules:
        claims.add(rule)
    assert claims.find(claim("*", 250, 260, tags=tags), key) is None
    assert claims.find(claim("*", 250, 260, tags=tags[:2]), key) == (250, "another instance")
    for rule in rules[:2]:
        claims.discard(rule)
    assert claims.find(claim("*", 256, 300), "another key") == (256, "another instance")
    claims.discard(rules[2])
    claims.discard(rules[2])
    assert claims.find(claim("*", 1, 65535), "another key") is None


@pytest.mark.parametrize(
    "text", ["", "port", "pynetwork-0123abcd port 4 tcp * x-y #1", "a port b tcp * 80 #1"]
)
def test_comments_of_others_claim_nothing(text: str) -> None:
    claims = Claims()
    claims.add(text)
    claims.discard(text)
    assert claims.find(claim("*", 1, 65535), "") is None


def test_messages_arrive_as_they_were_sent() -> None:
    source, sink = os.pipe()
    try:
        for message in ({}, {"a": [1, None, "ä"]}):
            wire.send(sink, message)
            assert wire.receive(source, 5.0) == message
        with pytest.raises(TimeoutError):
            wire.receive(source, 0.0)
        os.write(sink, b"\0\0")
    finally:
        os.close(sink)
    assert wire.receive(source, 5.0) is None
    os.close(source)


@pytest.mark.parametrize("junk", [b"\0\0\0\2[]", b"\0\0\0\3{a}", b"\0\0\0\1\xff", b"\0\0\0\0"])
def test_junk_is_no_message(junk: bytes) -> None:
    source, sink = os.pipe()
    os.write(sink, junk)
    os.close(sink)
    assert wire.receive(source) is None
    os.close(source)


def seen(version: int) -> dict[str, dict[str, list[str]]]:
    """Return the comments of a host with the skeleton on it."""
    found: dict[str, dict[str, list[str]]] = {
        table: {chain: [] for chain in names} for table, names in chain_names(ID).items()
    }
    for rule in (*static_rules(ID, version), *jumps(ID, version)):
        found[rule.table].setdefault(rule.chain, []).append(rule.comment)
    return found


@pytest.mark.parametrize("version", [4, 6])
def test_a_view_tells_what_of_the_skeleton_is_missing(version: int) -> None:
    view = View(ID, version, seen(version))
    assert list(view.missing()) == []
    for table, chains in seen(version).items():
        for chain, comments in chains.items():
            for number in range(len(comments)):
                less = seen(version)
                del less[table][chain][number]
                (text,) = View(ID, version, less).missing()
                assert f"{chain} of table {table}" in text
        for chain in chain_names(ID)[table]:
            less = seen(version)
            del less[table][chain]
            assert list(View(ID, version, less).missing()) == [f"chain {chain} of table {table} is gone"]


def test_a_view_without_chains_but_the_users_has_none() -> None:
    user: dict[str, dict[str, list[str]]] = {
        "raw": {},
        "mangle": {},
        "filter": {f"PYNETWORK-USER-{ID}": [], "PYNETWORK-TO-89abcdef": []},
        "nat": {},
    }
    assert not View(ID, 4, user).has_chains()
    assert View(ID, 4, seen(4)).has_chains()


def test_a_rule_too_many_or_another_one_is_not_what_is_wanted() -> None:
    port = PublishedPort(proto="tcp", first=80, last=80, target="10.88.0.2", target_first=80)
    (rule,) = rules_of(port, ID, 4)
    for comments, is_there in (
        ([], False),
        ([rule.comment], True),
        ([rule.comment] * 2, False),
        ([rule.comment.replace("#", "#0")], False),
    ):
        found = seen(4)
        found["nat"][rule.chain] = comments
        assert View(ID, 4, found).has(rule.key, (rule,)) == is_there


def test_strays_are_deleted_by_a_line_that_can_be_typed() -> None:
    stray = StrayRules(version=6, comment=f"pynetwork-{ID} port 6 udp * 53-53")
    assert stray.render() == ()
    assert stray.render_delete() == (
        f"ip6tables-legacy-save | grep -vF '\"{stray.comment} #' | ip6tables-legacy-restore",
    )
