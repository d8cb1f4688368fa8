"""What blocks networks is found, and the commands that are printed do allow them."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from pynetwork.kernel import diagnosis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork import Controller, Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

NFT = "table inet other {\n chain f {\n type filter hook forward priority 10; policy drop;\n }\n}\n"


def block_with_nft(host: PrivateHost) -> list[str]:
    subprocess.run(["nft", "-f", "-"], input=NFT, text=True, check=True)
    return ["nft", "delete", "table", "inet", "other"]


def block_with_iptables(host: PrivateHost) -> list[str]:
    host.run(["iptables-legacy", "-P", "FORWARD", "DROP"])
    return ["iptables-legacy", "-P", "FORWARD", "ACCEPT"]


def block_like_docker(host: PrivateHost) -> list[str]:
    host.run(["iptables-legacy", "-N", "DOCKER-USER"])
    host.run(["iptables-legacy", "-I", "FORWARD", "-j", "DOCKER-USER"])
    return block_with_iptables(host)


def block_with_a_last_rule(host: PrivateHost) -> list[str]:
    """Most hosts that reject what is left have a policy of accepting: firewalld, the services of RHEL."""
    rules = NFT.replace("policy drop", "policy accept; ct state established accept; jump rest")
    rest = " chain rest {\n counter reject with icmpx admin-prohibited\n }\n chain f"
    subprocess.run(["nft", "-f", "-"], input=rules.replace(" chain f", rest, 1), text=True, check=True)
    return ["nft", "delete", "table", "inet", "other"]


def block_with_a_last_rule_of_iptables(host: PrivateHost) -> list[str]:
    for program in ("iptables", "iptables-legacy"):
        comment = ["-m", "comment", "--comment", "the rest"]
        host.run([program, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"])
        host.run(
            [program, "-A", "FORWARD", *comment, "-j", "REJECT", "--reject-with", "icmp-host-prohibited"]
        )
    return ["iptables-legacy", "-F"]


BLOCKS = {
    "nft": (block_with_nft, 1),
    "iptables": (block_with_iptables, 1),
    "docker": (block_like_docker, 1),
    "last rule": (block_with_a_last_rule, 1),
    "last rule of both iptables": (block_with_a_last_rule_of_iptables, 2),
}


def carry_out(host: PrivateHost, commands: Sequence[str]) -> None:
    for line in commands:
        host.run(shlex.split(line) if "nft insert" not in line else line.split(" ", 1))


@pytest.fixture
def networks(controller: Controller) -> tuple[Sandbox, Sandbox]:
    boxes = []
    for number in (1, 2):
        network = controller.new_network(
            "bridge", f"n{number}", subnets=[f"10.88.{number}.0/24"], options={"isolation": "open"}
        )
        boxes.append(controller.new_sandbox(f"s{number}"))
        network.create_endpoint("e").join(boxes[-1])
    return boxes[0], boxes[1]


def passes(source: Sandbox, address: str) -> bool:
    return source.run(["ping", "-c1", "-W1", address], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", BLOCKS)
def test_a_chain_that_drops_is_found_and_the_commands_allow_us(
    controller: Controller, host: PrivateHost, networks: tuple[Sandbox, Sandbox], name: str
) -> None:
    block, number = BLOCKS[name]
    assert passes(networks[0], "10.88.2.2")
    assert controller.doctor() == ()
    undo = block(host)
    assert not passes(networks[0], "10.88.2.2")
    findings = controller.doctor()
    assert len(findings) == number
    for finding in findings:
        assert "drops" in str(finding)
        assert all(("DOCKER-USER" in line) == (name == "docker") for line in finding.commands)
        carry_out(host, finding.commands)
    assert passes(networks[0], "10.88.2.2")
    assert controller.doctor() == ()
    host.run(undo)


def test_a_chain_of_docker_that_nothing_calls_is_no_help(
    controller: Controller, host: PrivateHost, networks: tuple[Sandbox, Sandbox]
) -> None:
    host.run(["iptables-legacy", "-N", "DOCKER-USER"])
    block_with_iptables(host)
    (finding,) = controller.doctor()
    carry_out(host, finding.commands)
    assert passes(networks[0], "10.88.2.2")


def test_a_chain_that_accepts_all_before_it_drops_is_none(
    controller: Controller, host: PrivateHost, networks: tuple[Sandbox, Sandbox]
) -> None:
    block_with_nft(host)
    host.run(["nft", "add rule inet other f counter accept"])
    host.run(["iptables", "-A", "FORWARD", "-i", "other0", "-j", "DROP"])
    host.run(["iptables", "-A", "FORWARD", "-p", "udp", "-j", "REJECT"])
    assert passes(networks[0], "10.88.2.2")
    assert controller.doctor() == ()


def test_forwarding_that_somebody_switched_off_is_found(controller: Controller, host: PrivateHost) -> None:
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    host.run(["sysctl", "-w", "net.ipv4.ip_forward=0"])
    (finding,) = controller.doctor()
    assert finding.commands == ("sysctl -w net.ipv4.ip_forward=1",)


def filter_frames(host: PrivateHost, value: int) -> None:
    for program in ("iptables", "ip6tables"):
        host.run(["sysctl", "-qw", f"net.bridge.bridge-nf-call-{program}={value}"])


def test_an_internal_network_is_blocked_where_frames_pass_the_firewall(
    controller: Controller, host: PrivateHost
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], internal=True)
    boxes = [controller.new_sandbox(name) for name in "ab"]
    for box in boxes:
        network.create_endpoint(box.name).join(box)
    block_with_nft(host)
    filter_frames(host, 0)
    assert passes(boxes[0], "10.88.0.3")
    assert controller.doctor() == ()
    filter_frames(host, 1)
    assert not passes(boxes[0], "10.88.0.3")
    (finding,) = controller.doctor()
    assert "nor between their own endpoints" in finding.effect
    carry_out(host, finding.commands)
    assert passes(boxes[0], "10.88.0.3")
    assert controller.doctor() == ()


def test_ipv6_that_somebody_switched_off_is_found(controller: Controller, host: PrivateHost) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    controller.new_network("bridge", "four", subnets=["10.89.0.0/24"])
    assert controller.doctor() == ()
    host.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
    found = [each for each in controller.doctor() if "switched off" in each.problem]
    assert len(found) == 1
    carry_out(host, found[0].commands)
    controller.reconcile()
    assert not [each for each in controller.doctor() if "switched off" in each.problem]
    box = controller.new_sandbox("box")
    network.create_endpoint("e").join(box)
    assert passes(box, "fd88::1")


def test_rules_of_ours_that_are_gone_are_found(controller: Controller, host: PrivateHost) -> None:
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], internal=True)
    host.run(["nft", "flush", "ruleset"])
    assert "is gone" in str(controller.doctor()[0])


def test_rules_that_cannot_be_read_are_a_finding(
    controller: Controller, host: PrivateHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.new_network("bridge", "n")
    host.run(["iptables-legacy", "-P", "FORWARD", "DROP"])
    monkeypatch.setattr(diagnosis, "_PROGRAMS", {4: "not-there", 6: "not-there"})
    (finding,) = controller.doctor()
    assert "not-there-save is not installed" in finding.problem
    assert finding.effect == "they may block networks"
    host.run(["iptables-legacy", "-P", "FORWARD", "ACCEPT"])
