"""Processes really killed while they publish: the next one has all of a request, or nothing."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
from typing import TYPE_CHECKING

import pytest
from tests.kernel.deaths import PLACES, doomed, is_killed
from tests.kernel.iptables_hosts import everything
from tests.kernel.lan import FIREWALLS
from tests.kernel.nft_hosts import elements, ruleset
from tests.kernel.test_crash import check

from pynetwork import ConflictError, Controller, NotFoundError
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

PORTS = ["8080:80", "127.0.0.1:53:53/udp", "9000-9003:9000-9003", "7000-7001:80-81"]
#: All host ports, whoever has them published, by protocol.
NUMBERS = [("tcp", n) for n in (8080, *range(9000, 9004), 7000, 7001, 8443, 8444)] + [("udp", 53)]


def perform(controller: Controller, request: str) -> None:
    """Take the one request that a process is killed at. Its source is what the process runs."""
    network = controller.networks["n"]
    match request:
        case "join":
            network.endpoints["free"].join(controller.sandboxes["empty"])
        case "publish":
            network.endpoints["web"].publish("8443-8444:443-444")
        case "unpublish":
            network.endpoints["web"].unpublish("9000-9003:9000-9003")
        case "leave":
            network.endpoints["web"].leave()


REQUESTS = ["join", "publish", "unpublish", "leave"]


def is_performed(controller: Controller, request: str) -> bool:
    """Tell what the records say of it."""
    endpoints = controller.networks["n"].endpoints
    match request:
        case "join":
            return endpoints["free"].sandbox is not None
        case "publish":
            return any(port.first == 443 for port in endpoints["web"].ports)
        case "unpublish":
            return all(port.first != 9000 for port in endpoints["web"].ports)
    return endpoints["web"].sandbox is None


def prepare(controller: Controller, request: str) -> None:
    """A network with an endpoint that has ports and is joined, or is to be joined."""
    network = controller.new_network("bridge", "n", subnets=["10.1.0.0/24", "fd01::/64"])
    name = "free" if request == "join" else "web"
    endpoint = network.create_endpoint(name, ports=PORTS)
    if request == "join":
        controller.new_sandbox("empty")
    else:
        endpoint.join(controller.new_sandbox("box"))


def picture(host: PrivateHost, firewall: str, instance: str) -> frozenset[str]:
    """Return all that is on the host about ports: elements and claims, or rules."""
    if firewall == "iptables":
        # The hash in a comment is also of the chain's name.
        named = (re.sub(f"{instance[:8]}|#[0-9a-f]{{8}}", "", line) for line in everything(host))
        return frozenset(line for line in named if line.startswith("nat -A PYNETWORK-PUB-"))
    return frozenset(
        f"{table.replace(instance[:8], 'INSTANCE')} {name} {text}"
        for _, table, name, text in elements(ruleset(host))
        if "port" in name
    )


def pictures(host: PrivateHost, request: str, firewall: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is there before and after a request that nobody disturbs."""
    with Controller(firewall=firewall) as controller:
        instance = controller._core.instance
        prepare(controller, request)
        before = picture(host, firewall, instance)
        perform(controller, request)
        after = picture(host, firewall, instance)
        controller.erase()
    assert before != after
    # What is not joined has nothing, and what is published no more has nothing left.
    assert (not before) == (request == "join")
    assert (not after) == (request == "leave")
    assert (before > after) == (request in {"unpublish", "leave"})
    return before, after


def recover_and_repeat(
    host: PrivateHost,
    oracle: Oracle,
    request: str,
    firewall: str,
    expected: tuple[frozenset[str], frozenset[str]],
) -> None:
    with Controller(firewall=firewall) as heir:
        instance = heir._core.instance
        check(heir, oracle)
        assert picture(host, firewall, instance) == expected[is_performed(heir, request)]
        with contextlib.suppress(ConflictError, NotFoundError):  # it was finished
            perform(heir, request)
        assert is_performed(heir, request)
        check(heir, oracle)
        assert picture(host, firewall, instance) == expected[True]
        heir.erase()
        assert ruleset(host) == []
        assert [line for line in everything(host) if "PYNETWORK" in line] == []
        assert [number for number in NUMBERS if is_kept(*number)] == []


def is_kept(proto: str, number: int) -> bool:
    """Whether a socket of anybody is bound to the port."""
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[proto]
    with socket.socket(socket.AF_INET6, kind) as probe:
        try:
            probe.bind(("::", number))
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    ("firewall", "where"),
    [*itertools.product(FIREWALLS, PLACES), ("iptables", "table")],
)
@pytest.mark.parametrize("request_", REQUESTS)
def test_of_a_request_about_ports_there_is_all_or_nothing_whenever_its_process_is_killed(
    request_: str, firewall: str, where: str, oracle: Oracle
) -> None:
    """No element, no rule, no claim and no socket is left, and to ask again completes it."""
    deaths = 0
    with private_host() as host:
        expected = pictures(host, request_, firewall)
        with doomed(perform, request_, where, firewall) as child:
            child.wait_for("0")
            for at in itertools.count():
                with Controller(firewall=firewall) as controller:
                    prepare(controller, request_)
                killed = is_killed(child, at)
                recover_and_repeat(host, oracle, request_, firewall, expected)
                if not killed:
                    break
                deaths += 1
    assert deaths >= 2
