"""What blocks networks is found, and the commands that are printed do allow them."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pynetwork import Controller
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


@pytest.mark.parametrize("block", [block_with_nft, block_with_iptables, block_like_docker])
def test_a_policy_of_dropping_is_found_and_the_commands_allow_us(
    controller: Controller, host: PrivateHost, block: object
) -> None:
    boxes = []
    for number in (1, 2):
        subnet = f"10.88.{number}.0/24"
        network = controller.new_network(
            "bridge", f"n{number}", subnets=[subnet], options={"isolation": "open"}
        )
        boxes.append(controller.new_sandbox(f"s{number}"))
        network.create_endpoint("e").join(boxes[-1])

    def passes() -> bool:
        return boxes[0].run(["ping", "-c1", "-W1", "10.88.2.2"], capture_output=True).returncode == 0

    assert passes()
    assert controller.doctor() == ()
    assert callable(block)
    undo = block(host)
    assert not passes()
    (finding,) = controller.doctor()
    assert "drops" in str(finding)
    is_docker = block is block_like_docker
    assert all(("DOCKER-USER" in line) == is_docker for line in finding.commands)
    for line in finding.commands:
        host.run(shlex.split(line) if "nft" not in line else line.split(" ", 1))
    assert passes()
    host.run(undo)


def test_forwarding_that_somebody_switched_off_is_found(controller: Controller, host: PrivateHost) -> None:
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    host.run(["sysctl", "-w", "net.ipv4.ip_forward=0"])
    (finding,) = controller.doctor()
    assert finding.commands == ("sysctl -w net.ipv4.ip_forward=1",)


def test_an_internal_network_needs_nothing_of_the_host(controller: Controller, host: PrivateHost) -> None:
    controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], internal=True)
    block_with_nft(host)
    assert controller.doctor() == ()
    host.run(["nft", "flush", "ruleset"])
    assert "is gone" in str(controller.doctor()[0])
