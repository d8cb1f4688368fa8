"""Naming another firewall moves all rules of an instance to it, and none is left with the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller, InvalidValueError

if TYPE_CHECKING:
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def has_nftables(host: PrivateHost) -> bool:
    return "pynetwork-" in host.run(["nft", "list", "tables"]).stdout


def has_iptables(host: PrivateHost) -> bool:
    return "PYNETWORK-" in host.run(["iptables-legacy-save"]).stdout


def test_rules_move_with_the_name_of_the_firewall_and_back(host: PrivateHost) -> None:
    with Controller(firewall="nftables") as controller:
        network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
        network.create_endpoint("e", ports=["8080:80"]).join(controller.new_sandbox("s"))
    assert (has_nftables(host), has_iptables(host)) == (True, False)
    for name, expected in (("iptables", (False, True)), ("auto", (False, True)), ("nftables", (True, False))):
        with Controller(firewall=name) as controller:
            assert (has_nftables(host), has_iptables(host)) == expected
            assert controller.check() == ()
            assert controller.reconcile(dry_run=True).is_clean
    with Controller() as controller:
        controller.erase()
    assert (has_nftables(host), has_iptables(host)) == (False, False)


def test_a_firewall_of_another_name_is_refused(host: PrivateHost) -> None:
    with pytest.raises(InvalidValueError, match="unknown firewall 'ufw'"):
        Controller(firewall="ufw")
