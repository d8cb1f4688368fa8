"""The firewall next to others and in the course of time: what users add, what others delete, who claims."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.kernel.lan import FIREWALLS, HOST, Question, bridge_of, check, erased, everywhere, laboratory
from tests.kernel.nft_hosts import elements, normal, ruleset

from pynetwork import BridgeDriver, Controller, PortTakenError
from pynetwork.resources.ruleset import table_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.lan import Box, Lab

    from pynetwork import Network

pytestmark = pytest.mark.root


@pytest.fixture
def nft_lab() -> Iterator[Lab]:
    """For what is about nftables and nothing else."""
    with laboratory("nftables") as lab:
        yield lab


def table(controller: Controller) -> str:
    return table_name(controller._core.instance)


def nft(lab: Lab, *arguments: str) -> str:
    return lab.host.run(["nft", *arguments]).stdout


def web_of(lab: Lab, number: int = 1, name: str = "web") -> Box:
    ports = [f"900{number}:80", f"900{number}:80/udp", f"{HOST[4]}:7000-7001:80-81", "80-81:80-81/udp"]
    return lab.box(lab.network(f"n{number}", number), name, ports)


def reached(lab: Lab, number: int = 1) -> list[Question]:
    return everywhere(lab.lan, HOST, 9000 + number)


def remove(network: Network) -> None:
    for endpoint in network.endpoints.values():
        endpoint.delete(force=True)
    network.delete()


# What users add


def test_rules_of_the_user_are_asked_first_and_outlive_what_comes_and_goes(nft_lab: Lab) -> None:
    lab, controller = nft_lab, nft_lab.controller
    web = web_of(lab)
    udp = [question for question in reached(lab) if question.proto == "udp"]
    tcp = [question for question in reached(lab) if question.proto == "tcp"]
    check({"web": [*udp, *tcp]})
    place = ("inet", table(controller), "user")
    nft(
        lab,
        "add",
        "rule",
        *place,
        "oifname",
        bridge_of(web.endpoint.network),
        "meta l4proto udp counter drop",
    )
    check({"web": tcp}, udp)
    web.endpoint.publish("9500:81")
    other = lab.box(lab.network("other", 2), "other")
    remove(other.endpoint.network)
    web.endpoint.unpublish("81/tcp")
    assert controller.reconcile(dry_run=True).is_clean
    check({"web": tcp}, udp)
    remove(web.endpoint.network)
    assert "drop" in nft(lab, "list", "chain", *place)
    web.sandbox.delete()
    web = web_of(lab, 3)
    check({"web": reached(lab, 3)})
    nft(lab, "add", "rule", *place, "oifname", bridge_of(web.endpoint.network), "drop")
    check({}, reached(lab, 3))
    for name in list(controller.networks):
        remove(controller.networks[name])
    assert [each["table"]["name"] for each in ruleset(lab.host) if "table" in each] == [table(controller)]
    nft(lab, "flush", "chain", *place)
    controller.new_network("bridge", "last").delete()
    assert ruleset(lab.host) == []


def test_what_the_user_accepts_is_settled(nft_lab: Lab) -> None:
    lab = nft_lab
    web, other = web_of(lab), lab.box(lab.network("other", 2), "other")
    questions = everywhere(other, web.addresses)
    check({"web": reached(lab)}, questions)
    nft(lab, "add", "rule", "inet", table(lab.controller), "user", "accept")
    check({"web": questions})


@pytest.mark.parametrize("priority", [-10, 0, 5])
def test_the_priority_of_base_chains_is_the_caller_s(priority: int, tmp_path: Path) -> None:
    with laboratory("nftables", drivers=[BridgeDriver(firewall_priority=priority)]) as lab:
        web_of(lab)
        check({"web": reached(lab)})
        chains = [each["chain"] for each in ruleset(lab.host) if "chain" in each]
        found = {
            (chain["family"], chain["hook"], chain["type"], chain["prio"] - priority)
            for chain in chains
            if "hook" in chain
        }
        assert found == {
            ("inet", "prerouting", "filter", -300),
            ("inet", "prerouting", "filter", -150),
            ("inet", "forward", "filter", 0),
            ("inet", "prerouting", "nat", -100),
            ("inet", "output", "nat", -100),
            ("inet", "postrouting", "nat", 100),
            ("bridge", "prerouting", "filter", -300),
        }
        assert lab.controller.reconcile(dry_run=True).is_clean


# What others delete and add


def repaired(lab: Lab, before: Any) -> None:
    """Something was changed behind our back: it is reported, repaired, and then as it was."""
    report = lab.controller.reconcile(dry_run=True)
    assert not report.is_clean
    assert not report.failed
    assert ruleset(lab.host) != before
    done = lab.controller.reconcile()
    assert not done.failed, str(done)
    assert lab.controller.reconcile(dry_run=True).is_clean
    assert normal(ruleset(lab.host)) == normal(before)


@pytest.mark.parametrize(
    "flush",
    [
        "flush ruleset",
        "delete table inet OURS",
        "delete table bridge OURS",
        "flush table inet OURS",
        "flush chain inet OURS forward",
        "delete table inet pynetwork-ports",
    ],
)
def test_a_flushed_ruleset_is_reported_and_repaired(nft_lab: Lab, flush: str) -> None:
    lab = nft_lab
    web, other = web_of(lab), lab.box(lab.network("other", 2), "other")
    denied = [*everywhere(other, web.addresses), *everywhere(lab.lan, HOST, 81)[:1]]
    check({"web": reached(lab)}, denied)
    before = ruleset(lab.host)
    nft(lab, *flush.replace("OURS", table(lab.controller)).split())
    repaired(lab, before)
    check({"web": reached(lab)}, denied)
    with pytest.raises(PortTakenError):
        other.endpoint.publish("9001:80")


@pytest.mark.parametrize(
    "damage", ["delete table bridge OURS", "flush chain inet OURS forward", "flush chain inet OURS published"]
)
def test_a_repair_leaves_the_rules_of_the_user(nft_lab: Lab, damage: str) -> None:
    """Also one that looks into a set of ours, which bars its deletion."""
    lab = nft_lab
    web = web_of(lab)
    udp = [question for question in reached(lab) if question.proto == "udp"]
    tcp = [question for question in reached(lab) if question.proto == "tcp"]
    rule = "oifname @bridges meta l4proto udp drop"
    nft(lab, "add", "rule", "inet", table(lab.controller), "user", rule)
    before = ruleset(lab.host)
    nft(lab, *damage.replace("OURS", table(lab.controller)).split())
    repaired(lab, before)
    check({"web": tcp}, udp)
    web.sandbox.delete()


def test_each_element_that_is_deleted_by_hand_is_put_back(nft_lab: Lab) -> None:
    lab = nft_lab
    web_of(lab)
    options = {"gateway_mode_ipv4": "routed", "outbound_addresses": ["2001:db8::1"], "icc": False}
    lab.box(lab.network("routed", 2, options=options), "routed", ["80-81:80-81", "99/udp"])
    lab.network("internal", 3, internal=True, options={"trusted_interfaces": ["lan"], "isolation": "open"})
    before = ruleset(lab.host)
    everything = elements(ruleset(lab.host))
    assert len(everything) > 50
    assert len({name for _, _, name, _ in everything}) > 20
    for family, owner, name, text in everything:
        nft(lab, "delete", "element", family, owner, name, "{", text, "}")
        repaired(lab, before)


@pytest.mark.parametrize(
    "stray",
    [
        'inet bridges { "lan" }',
        'inet linked { "lan" . "lan" }',
        "inet direct4 { 198.51.100.0/24 }",
        "inet masquerade6 { 2001:db8:1::/64 }",
        "inet snat4 { 198.51.100.0/24 : 192.0.2.9 }",
        "inet ports4 { tcp . 4444 : 198.51.100.1 . 80 }",
        "inet port_ranges6 { udp . 4444-4446 : 2001:db8:1::1 }",
        "inet address_port_ranges4 { 192.0.2.1 . udp . 4444-4446 : 198.51.100.1 }",
        'inet own4 { 198.51.100.0/24 . "lan" }',
        'bridge guarded { "lan" }',
        'bridge sources4 { "lan" . 02:00:00:00:00:01 . 192.0.2.1 }',
        'bridge targets6 { "lan" . 0x20010db8000000000000000000000001 }',
    ],
)
def test_elements_that_no_record_knows_are_pruned(nft_lab: Lab, stray: str) -> None:
    lab = nft_lab
    web_of(lab)
    before = ruleset(lab.host)
    family, rest = stray.split(" ", 1)
    nft(lab, "add", "element", family, table(lab.controller), rest)
    repaired(lab, before)
    check({"web": reached(lab)})


def test_tables_of_others_are_none_of_our_business(nft_lab: Lab) -> None:
    lab = nft_lab
    nft(lab, "add", "table", "inet", "theirs")
    nft(lab, "add", "chain", "inet", "theirs", "input", "{ type filter hook input priority 0; }")
    theirs = ruleset(lab.host)
    web_of(lab)
    assert lab.controller.reconcile(dry_run=True).is_clean
    remove(lab.controller.networks["n1"])
    assert ruleset(lab.host) == theirs
    nft(lab, "delete", "table", "inet", "theirs")


# Who claims


@pytest.fixture(params=FIREWALLS)
def second(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Controller]:
    """Another instance on the same host."""
    controller = Controller(tmp_path / "other", run_dir="/run/pynetwork/other", firewall=request.param)
    with erased(controller):
        yield controller


@pytest.mark.parametrize("how", ["unpublish", "leave", "delete", "erase"])
def test_two_instances_do_not_publish_the_same_port(lab: Lab, second: Controller, how: str) -> None:
    network = second.new_network("bridge", "theirs", subnets=["10.99.0.0/24", "fd99::/64"])
    holder = network.create_endpoint("holder", ports=["9001:80", f"{HOST[4]}:53:53/udp"])
    holder.join(second.new_sandbox("box"))
    web = lab.box(lab.network("n1", 1), "web")
    # Each firewall knows its own claims; of the other's there is a socket, as long as its process lives.
    who = r"endpoint 'holder' of network 'theirs'|another instance of pynetwork, .*\(pid \d+\)"
    for port in ("9001:80", f"{HOST[4]}:9001:80", "9000-9003:9000-9003", "53:53/udp"):
        with pytest.raises(PortTakenError, match=who):
            web.endpoint.publish(port)
    assert web.endpoint.ports == ()
    assert web.endpoint.publish("9001-9002:80").host_port == 9002
    web.endpoint.publish("9001:80/udp")
    web.endpoint.publish("127.0.0.1:53:53/udp")
    match how:
        case "unpublish":
            holder.unpublish("80/tcp")
        case "leave":
            holder.leave()
        case "delete":
            holder.delete(force=True)
        case "erase":
            second.erase()
    assert web.endpoint.publish("9001:80").host_port == 9001
    check({"web": everywhere(lab.lan, HOST, 9001)})
    assert lab.controller.reconcile(dry_run=True).is_clean


def test_two_instances_neither_repair_nor_prune_each_other_s_rules(lab: Lab, second: Controller) -> None:
    web_of(lab)
    second.new_network("bridge", "theirs").create_endpoint("e", ports=["9002:80"]).join(
        second.new_sandbox("box")
    )
    for controller in (lab.controller, second):
        assert controller.reconcile().is_clean
    second.erase()
    assert lab.controller.reconcile(dry_run=True).is_clean
    check({"web": reached(lab)})


def test_nothing_is_left_of_the_firewall_after_erase(nft_lab: Lab) -> None:
    web_of(nft_lab)
    nft_lab.controller.erase()
    assert ruleset(nft_lab.host) == []


def test_a_table_that_somebody_else_made_under_our_name_is_replaced(nft_lab: Lab) -> None:
    """It is ours by its name; a half of it would let everything through."""
    lab = nft_lab
    name = table(lab.controller)
    text = f"table inet {name} {{\n chain forward {{ type filter hook forward priority 0; }}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    web, other = web_of(lab), lab.box(lab.network("other", 2), "other")
    check({"web": reached(lab)}, everywhere(other, web.addresses))
