"""iptables in the kernel has the rules that it should, whoever else writes to it and whoever dies."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.kernel.iptables_hosts import (
    ID,
    NETWORK,
    OTHER,
    PLAN,
    create,
    delete,
    everything,
    firewall,
    port,
    restore_text,
    saved,
    variety,
)

from pynetwork.errors import InvalidValueError, PortTakenError
from pynetwork.kernel.firewall import RulesRefusedError
from pynetwork.kernel.iptables.layout import chain_names, jumps, static_rules, user_chain
from pynetwork.kernel.iptables.rules import rules_of
from pynetwork.plan import Plan, Step, Verb, diff
from pynetwork.resources import (
    NetworkRules,
    PublishedPort,
    Ruleset,
)
from pynetwork.resources.stray import StrayRules
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_has_what_iptables_makes_of_the_lines(version: int) -> None:
    resources = variety()
    chains = chain_names(ID)
    built_in = {"raw": 0, "mangle": 0, "filter": 0, "nat": 0}
    text = restore_text(
        [
            [*static_rules(ID, version), *jumps(ID, version)],
            *(rules_of(resource, ID, version) for resource in resources),
        ],
        {table: chains[table] for table in built_in},
    )
    program = f"{'ip6' if version == 6 else 'ip'}tables-legacy-restore"
    with private_host() as host:
        subprocess.run([program], input=text, text=True, check=True)
        expected = saved(host, version)
    with private_host() as host, firewall() as made:
        create(made, Ruleset(), *resources)
        assert sorted(saved(host, version)) == sorted(expected)
        assert [line for line in text.splitlines() if line.startswith("-A")] != []
        assert {line for line in text.splitlines() if line.startswith("-A")} == {
            line.partition(" ")[2] for line in expected if " -A " in line
        }
        for table, names in chains.items():
            for chain in names:
                start = f"{table} -A {chain} "
                assert [x for x in saved(host, version) if x.startswith(start)] == [
                    x for x in expected if x.startswith(start)
                ]
        assert made.observe(Plan((Ruleset(), *resources))) == Plan((Ruleset(), *resources))


def test_what_was_made_is_observed_and_when_deleted_is_gone() -> None:
    with private_host() as host, firewall() as made:
        before = everything(host)
        assert made.observe(PLAN) == Plan()
        made.apply(diff(Plan(), PLAN))
        assert made.observe(PLAN) == PLAN
        assert made.missing() == ()
        assert made.observe(Plan()) == Plan((Ruleset(),))
        made.apply(diff(PLAN, Plan()))
        assert everything(host) == before == []
        assert made.observe(Plan()) == Plan()


def test_each_resource_goes_alone_and_leaves_what_was_there_before() -> None:
    with private_host() as host, firewall() as made:
        create(made, Ruleset())
        for resource in PLAN[1:]:
            before = everything(host)
            create(made, resource)
            assert everything(host) != before
            delete(made, resource)
            assert everything(host) == before


def test_a_change_is_what_making_it_anew_would_be() -> None:
    changed = NetworkRules(bridge="br0", internal=True, subnets=NETWORK.subnets[:1])
    with private_host() as host, firewall() as made:
        create(made, Ruleset(), changed)
        expected = everything(host)
        made.apply(diff(Plan((changed,)), Plan((NETWORK,))))
        assert made.observe(Plan((Ruleset(), NETWORK))) == Plan((Ruleset(), NETWORK))
        made.apply(diff(Plan((NETWORK,)), Plan((changed,))))
        assert everything(host) == expected


def test_steps_may_be_taken_again() -> None:
    with private_host() as host, firewall() as made:
        for replay in (False, True, True):
            create(made, *PLAN, replay=replay)
            assert made.observe(PLAN) == PLAN
        for _ in range(2):
            delete(made, *reversed(PLAN), replay=True)
            assert everything(host) == []


def test_another_process_sees_the_same() -> None:
    with private_host(), firewall() as made:
        create(made, *PLAN)
        with firewall() as again:
            assert again.observe(PLAN) == PLAN


def rule_in(host: PrivateHost, table: str, text: str) -> list[str]:
    """Return the words after ``-D`` that delete the first rule of a table with *text* in it."""
    lines = host.run(["iptables-legacy", "-t", table, "-S"]).stdout.splitlines()
    chain = next(line for line in lines if line.startswith("-A") and text in line).split()[1]
    listed = [line for line in lines if line.startswith(f"-A {chain} ")]
    return [chain, str(1 + next(n for n, line in enumerate(listed) if text in line))]


@pytest.mark.parametrize(
    ("table", "text", "lost"),
    [
        ("nat", "port 4 tcp", {3}),
        ("raw", "--mac-source", {2}),
        ("nat", "network_rules br0", {1}),
        ("filter", "-A FORWARD", {0}),
    ],
)
def test_what_lacks_a_rule_is_not_there_and_is_made_again(table: str, text: str, lost: set[int]) -> None:
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        whole = everything(host)
        host.run(["iptables-legacy", "-t", table, "-D", *rule_in(host, table, text)])
        found = made.observe(PLAN)
        assert found == Plan(item for number, item in enumerate(PLAN) if number not in lost)
        made.apply(diff(found, PLAN))
        assert made.observe(PLAN) == PLAN
        assert sorted(everything(host)) == sorted(whole)


def test_when_the_skeleton_is_broken_nothing_counts_and_all_is_made_again() -> None:
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        whole = everything(host)
        host.run(["iptables-legacy", "-F"])
        assert any("PYNETWORK-TO" in text for text in made.missing())
        assert any("jump from FORWARD" in text for text in made.missing())
        assert made.observe(PLAN) == Plan()
        made.apply(diff(Plan(), PLAN))
        assert everything(host) == whole


def test_what_no_record_knows_is_found_and_deleted() -> None:
    with private_host() as host, firewall() as made:
        create(made, Ruleset(), NETWORK)
        before = everything(host)
        create(made, port(80), port(53, proto="udp", target="fd88::2"))
        known = Plan((Ruleset(), NETWORK))
        found = made.observe(known)
        assert [item.key for item in found if isinstance(item, StrayRules)] == [
            ("stray_rules", "4", "pynetwork-0123abcd port 4 tcp * 80-80"),
            ("stray_rules", "6", "pynetwork-0123abcd port 6 udp * 53-53"),
        ]
        stray = found[-2]
        host.run(["sh", "-c", *stray.render_delete()])
        assert made.observe(known) == Plan(item for item in found if item != stray)
        made.apply(diff(made.observe(known), known))
        assert everything(host) == before


def test_rules_of_others_are_left_alone() -> None:
    with private_host() as host, firewall() as made, firewall(OTHER) as other:
        for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING"), ("raw", "PREROUTING")):
            host.run(["iptables-legacy", "-t", table, "-A", chain, "-s", "192.0.2.7", "-j", "ACCEPT"])
        host.run(["iptables-legacy", "-P", "FORWARD", "DROP"])
        create(other, Ruleset(), NETWORK)
        before = everything(host)
        create(made, *PLAN)
        made.remove()
        assert everything(host) == before
        assert other.observe(Plan((Ruleset(), NETWORK))) == Plan((Ruleset(), NETWORK))
        assert "-P FORWARD DROP" in host.run(["iptables-legacy", "-S", "FORWARD"]).stdout


def test_the_users_chain_is_never_flushed_and_stays_as_long_as_it_has_rules() -> None:
    chain = user_chain(ID)
    rule = f"filter -A {chain} -s 192.0.2.7/32 -j DROP"
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        host.run(["iptables-legacy", "-A", chain, "-s", "192.0.2.7", "-j", "DROP"])
        assert made.observe(PLAN) == PLAN
        made.apply(diff(PLAN, Plan()))
        assert everything(host) == [f"filter :{chain} -", rule]
        assert made.observe(Plan()) == Plan()
        create(made, *PLAN)
        assert rule in everything(host)
        assert made.observe(PLAN) == PLAN
        host.run(["iptables-legacy", "-F", chain])
        made.remove()
        assert everything(host) == []


# Conflicts


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (port(80), port(80, target="10.88.0.9"), 80),
        (port(80), port(70, 90, target_first=1), 80),
        (port(70, 90), port(85, 99), 85),
        (port(80, host="192.0.2.1"), port(80), 80),
        (port(80), port(80, host="192.0.2.1"), 80),
        (port(80, target="fd88::2"), port(80, target="fd88::3"), 80),
    ],
)
def test_a_port_that_any_instance_has_published_is_taken(
    first: PublishedPort, second: PublishedPort, taken: int
) -> None:
    with private_host() as host, firewall() as made, firewall(OTHER) as other:
        create(made, Ruleset(), first)
        create(other, Ruleset())
        for who, replay in ((made, False), (other, False), (other, True)):
            before = everything(host)
            with pytest.raises(RulesRefusedError) as refused:
                create(who, NETWORK, second, replay=replay)
            assert refused.value.number == 1
            error = refused.value.__cause__
            assert isinstance(error, PortTakenError)
            assert (error.proto, error.port) == ("tcp", taken)
            assert "by endpoint 'web' of network 'n'" in str(error)
            assert everything(host) == before
        delete(made, first)
        create(other, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (port(80), port(80, proto="udp")),
        (port(80), port(80, target="fd88::2")),
        (port(80, host="192.0.2.1"), port(80, host="192.0.2.2")),
        (port(70, 79), port(80, 89)),
        (port(80, nat=False), port(80)),
    ],
)
def test_ports_that_do_not_meet_are_free(first: PublishedPort, second: PublishedPort) -> None:
    with private_host(), firewall() as made, firewall(OTHER) as other:
        create(made, Ruleset(), first)
        create(other, Ruleset(), second)


def test_what_is_refused_for_ipv6_is_undone_for_ipv4() -> None:
    with private_host() as host, firewall() as made, firewall(OTHER) as other:
        create(other, Ruleset(), port(80, target="fd88::2"))
        before = everything(host)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, Ruleset(), NETWORK, port(80), port(80, target="fd88::2"))
        assert refused.value.number == 3
        assert everything(host) == before
        create(made, Ruleset(), NETWORK)
        before = everything(host)
        changed = NetworkRules(bridge="br0", internal=True)
        steps = [Step(Verb.UPDATE, changed, NETWORK), Step(Verb.CREATE, port(80, target="fd88::2"))]
        with pytest.raises(RulesRefusedError):
            made.apply(steps)
        assert everything(host) == before


def test_what_the_kernel_refuses_changes_nothing_and_names_the_step() -> None:
    with private_host() as host, firewall() as made:
        create(made, Ruleset())
        before = everything(host)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, NETWORK, NetworkRules(bridge="br+"))
        assert refused.value.number == 1
        assert isinstance(refused.value.__cause__, InvalidValueError)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, NETWORK, port(80, proto="nonsense"))
        assert refused.value.number == 1
        assert "python-iptables cannot make a rule" in str(refused.value.__cause__)
        assert everything(host) == before


def test_without_its_chain_a_rule_is_refused() -> None:
    with private_host(), firewall() as made:
        with pytest.raises(RulesRefusedError) as refused:
            create(made, port(80))
        assert "is gone" in str(refused.value.__cause__)
        delete(made, port(80))
