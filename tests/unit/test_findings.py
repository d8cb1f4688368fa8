"""What is in the way of which network, and what would allow it: pure, from facts."""

from __future__ import annotations

from typing import Any

import pytest

from pynetwork.doctor import Finding, Wanted, diagnose
from pynetwork.kernel.diagnosis import DropChain, HostFacts

FOUR, SIX = Wanted(bridge="br4", versions=(4,)), Wanted(bridge="br6", versions=(6,))
BOTH = Wanted(bridge="br", versions=(4, 6))
INSIDE = Wanted(bridge="in", versions=(4,), internal=True)


def chain(**changes: Any) -> DropChain:
    fields: dict[str, Any] = {"tool": "nft", "family": "inet", "table": "t", "chain": "c"}
    return DropChain(**(fields | changes))


def commands(facts: HostFacts, *networks: Wanted) -> list[str]:
    return [line for finding in diagnose(facts, networks) for line in finding.commands]


def test_a_host_that_forwards_and_drops_nothing_is_fine() -> None:
    assert diagnose(HostFacts(), [FOUR, SIX, BOTH, INSIDE]) == ()


@pytest.mark.parametrize(
    ("forwards", "networks", "missing"),
    [
        ((), [FOUR], ["net.ipv4.ip_forward"]),
        ((), [BOTH], ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]),
        ((4,), [FOUR], []),
        ((4,), [SIX], ["net.ipv6.conf.all.forwarding"]),
        ((), [INSIDE], []),
        ((), [], []),
    ],
)
def test_forwarding_matters_to_networks_that_are_routed(
    forwards: tuple[int, ...], networks: list[Wanted], missing: list[str]
) -> None:
    assert commands(HostFacts(forwards=forwards), *networks) == [f"sysctl -w {name}=1" for name in missing]


@pytest.mark.parametrize(
    ("family", "blocked"), [("ip", ["br4", "br"]), ("ip6", ["br6", "br"]), ("inet", ["br4", "br6", "br"])]
)
def test_a_chain_blocks_networks_of_its_family(family: str, blocked: list[str]) -> None:
    (finding,) = diagnose(HostFacts(drops=(chain(family=family),)), [FOUR, SIX, BOTH])
    assert finding.effect == f"nothing passes to or from {', '.join(blocked)}"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {},
            [
                'nft insert rule inet t c iifname "br4" accept',
                'nft insert rule inet t c oifname "br4" accept',
            ],
        ),
        (
            {"tool": "iptables-legacy", "chain": "FORWARD"},
            ["iptables-legacy -I FORWARD -i br4 -j ACCEPT", "iptables-legacy -I FORWARD -o br4 -j ACCEPT"],
        ),
        (
            {"tool": "iptables-nft", "chain": "FORWARD", "has_docker_user": True},
            ["iptables-nft -I DOCKER-USER -i br4 -j ACCEPT", "iptables-nft -I DOCKER-USER -o br4 -j ACCEPT"],
        ),
        ({"accepts": frozenset({("in", "br4")})}, ['nft insert rule inet t c oifname "br4" accept']),
        ({"accepts": frozenset({("in", "br4"), ("out", "br4")})}, []),
        ({"accepts": frozenset({("in", "br5"), ("out", "br5")}), "family": "ip6"}, []),
        ({"table": "firewalld", "accepts": frozenset({("in", "br4")})}, []),
    ],
)
def test_the_commands_are_those_that_are_missing(changes: dict[str, Any], lines: list[str]) -> None:
    assert commands(HostFacts(drops=(chain(**changes),)), FOUR) == lines


def test_firewalld_reads_its_zones_when_all_bridges_are_in_one() -> None:
    add = "firewall-cmd --permanent --zone=trusted --add-interface="
    facts = HostFacts(drops=(chain(table="firewalld"),))
    assert commands(facts, FOUR, BOTH) == [f"{add}br4", f"{add}br", "firewall-cmd --reload"]


@pytest.mark.parametrize(("frames", "is_blocked"), [((), False), ((6,), False), ((4,), True), ((4, 6), True)])
def test_frames_that_pass_the_firewall_are_blocked_on_internal_networks_too(
    frames: tuple[int, ...], is_blocked: bool
) -> None:
    found = diagnose(HostFacts(drops=(chain(),), filters_frames=frames), [INSIDE])
    assert bool(found) == is_blocked
    assert all("nor between their own endpoints" in each.effect for each in found)


def test_one_way_is_enough_for_frames_of_an_internal_network() -> None:
    facts = HostFacts(drops=(chain(accepts=frozenset({("out", "in")})),), filters_frames=(4,))
    assert diagnose(facts, [INSIDE]) == ()


def test_ipv6_that_is_off_matters_to_networks_that_have_it() -> None:
    off = HostFacts(without_ipv6=frozenset({"br4", "br6"}))
    assert commands(off, FOUR, SIX, BOTH) == ["sysctl -w net/ipv6/conf/br6/disable_ipv6=0"]


def test_what_is_missing_comes_first() -> None:
    found = diagnose(HostFacts(forwards=()), [FOUR], ["table t is gone"])
    assert [each.problem for each in found] == ["table t is gone", "the host does not forward IPv4 packets"]


def test_a_finding_is_for_people() -> None:
    finding = Finding(problem="it rains", effect="we get wet", commands=("open umbrella", "wait"))
    assert str(finding) == "it rains: we get wet\n    open umbrella\n    wait"


def test_what_could_not_be_looked_at_is_no_clean_bill() -> None:
    (finding,) = diagnose(HostFacts(unseen=("iptables-legacy: busy",)), [FOUR])
    assert finding.problem == "this host's rules cannot be read: iptables-legacy: busy"
    assert finding.commands == ()
