"""What is written to the kernel is what the lines say, typed on another host; of both firewalls."""

from __future__ import annotations

import itertools
import subprocess
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from tests.kernel.iptables_hosts import GUARD, ID, NETWORK, PLAN, everything, port, variety
from tests.kernel.lan import FIREWALLS, erased
from tests.kernel.nft_hosts import normal, ruleset

from pynetwork import Controller
from pynetwork.kernel.firewall import open_firewall
from pynetwork.kernel.netns import Namespaces
from pynetwork.plan import Plan, Verb, diff
from pynetwork.resources import PublishedPort, Ruleset, SubnetRules
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.plan import Step
    from pynetwork.resources import Resource
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

NFT_STARTS = "nft -f - <<END"
CHANGED: dict[Resource, Resource] = {
    NETWORK: attrs.evolve(
        NETWORK,
        icc=False,
        is_open=True,
        trusted=("eth1",),
        subnets=(SubnetRules(subnet="10.88.0.0/24", mode="nat-unprotected"),),
    ),
    GUARD: attrs.evolve(GUARD, addresses=("10.88.0.2", "10.88.0.3")),
}


def written(name: str, *changes: Sequence[Step]) -> tuple[list[str], list[str]]:
    """Take the steps of *changes* on a host; return what is then there, and their lines."""
    with private_host() as host:
        namespaces = Namespaces()
        made = open_firewall(name, ID, namespaces.home)
        try:
            for steps in changes:
                made.apply(steps)
            return found(host, name), [line for steps in changes for s in steps for line in made.lines(s)]
        finally:
            made.close()
            namespaces.close()


def found(host: PrivateHost, name: str) -> list[str]:
    if name == "iptables":
        return everything(host)
    return normal(without_comments(ruleset(host)))


def without_comments(value: Any) -> Any:
    """Return what ``nft -j`` says without the comments of claims."""
    match value:
        case {"elem": {"val": inner, "comment": str()}}:
            return inner
        case dict():
            return {name: without_comments(each) for name, each in value.items()}
        case list():
            return [without_comments(each) for each in value]
    return value


def typed(name: str, lines: Sequence[str]) -> list[str]:
    """Have a shell read *lines* on a host; return what is then there."""
    return read(name, ["sh", "-e"], lines)


def loaded(lines: Sequence[str]) -> list[str]:
    """Have nft read *lines* in one transaction, without what is for a shell."""
    plain = (line.removeprefix("nft ").replace("'", "") for line in lines if line not in {NFT_STARTS, "END"})
    return read("nftables", ["nft", "-f", "-"], list(plain))


def read(name: str, program: Sequence[str], lines: Sequence[str]) -> list[str]:
    with private_host() as host:
        subprocess.run(program, input="".join(f"{line}\n" for line in lines), text=True, check=True)
        return found(host, name)


def chain_order(lines: list[str]) -> list[str]:
    """Return what iptables has, the chains of a table in one order: the lines make them in another."""
    return sorted(line for line in lines if " :" in line) + sorted(
        (line for line in lines if " :" not in line), key=lambda line: " ".join(line.split()[:3])
    )


def test_nftables_has_what_nft_makes_of_the_text() -> None:
    """Of each option of a network, an endpoint and a port, all in one transaction."""
    steps = diff(Plan(), Plan((Ruleset(priority=-3), *variety())))
    there, lines = written("nftables", steps)
    assert len(there) > 50
    assert there == loaded(lines)


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_what_goes_with_the_ruleset_leaves_no_claims(firewall: str) -> None:
    steps = diff(PLAN, Plan())
    assert not any(isinstance(step.resource, PublishedPort) for step in steps)
    assert written(firewall, diff(Plan(), PLAN), steps)[0] == []


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_what_is_printed_does_the_same_when_it_is_typed(firewall: str) -> None:
    """To make, to change, to delete in part, and to delete the rest."""
    plan = Plan((*PLAN, port(9000, 9009), port(7000, 7001, target_first=80), port(80, nat=False)))
    fewer = Plan(item for item in plan if not isinstance(item, PublishedPort) or item.proto == "udp")
    changed = Plan(CHANGED.get(item, item) for item in fewer)
    portless = Plan(item for item in changed if not isinstance(item, PublishedPort))
    stages = [Plan(), plan, fewer, changed, portless, Plan()]
    changes = [diff(before, after) for before, after in itertools.pairwise(stages)]
    assert {step.verb for steps in changes for step in steps} == {Verb.CREATE, Verb.UPDATE, Verb.DELETE}
    for number in range(1, len(changes) + 1):
        there, lines = written(firewall, *changes[:number])
        typed_there = typed(firewall, lines)
        if number == len(changes):
            assert [line for line in typed_there if "elem" in line or "pynetwork-ports" not in line] == []
            assert there == []
        else:
            assert chain_order(there) == chain_order(typed_there)
            assert len(there) > 50


@pytest.mark.parametrize(
    ("firewall", "damage", "lines"),
    [
        (
            "nftables",
            "nft flush map inet pynetwork-ID ports4",
            ["nft create element inet pynetwork-ID ports4 { tcp . 8080 : 10.88.0.2 . 80 }"],
        ),
        (
            "iptables",
            "iptables-legacy -t nat -F PYNETWORK-PUB-ID",
            ["iptables-legacy -w -t nat -A PYNETWORK-PUB-ID -p tcp -m tcp --dport 8080 "],
        ),
    ],
)
def test_rehearsals_and_reports_print_what_is_done_on_this_host(
    firewall: str, damage: str, lines: list[str], host: PrivateHost
) -> None:
    """With its firewall, and the names of the instance."""
    with Controller(firewall=firewall) as controller, erased(controller):
        network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
        endpoint, sandbox = network.create_endpoint("web", ports=["8080:80"]), controller.new_sandbox("box")
        instance = controller._core.instance[:8]
        texts = [endpoint.plan_join(sandbox).render()]
        endpoint.join(sandbox)
        texts.append(endpoint.plan_leave().render().replace("delete", "create").replace(" -D ", " -A "))
        host.run(damage.replace("ID", instance).split())
        texts.append(str(controller.reconcile(dry_run=True)))
        assert not controller.reconcile().failed
    for text in texts:
        for line in lines:
            assert line.replace("ID", instance).partition(" : ")[0] in text
        words = {word for line in text.splitlines() for word in line.split() if "ynetwork" in word.lower()}
        names = {word.strip('";') for word in words if not word.startswith(("/", "nsenter"))}
        assert {name for name in names if instance not in name} <= {"pynetwork-ports"}


@pytest.mark.usefixtures("host")
def test_without_a_firewall_nothing_is_printed_of_rules() -> None:
    with Controller(firewall="none") as controller, erased(controller):
        text = controller.plan_network("bridge", "n", subnets=["10.88.0.0/24"]).render()
    assert "ip link add" in text
    assert "nft" not in text
    assert "tables" not in text
