"""Ports published on the real kernel by many at once, and ten thousand times: no rule too many or too few."""

from __future__ import annotations

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.kernel.iptables_hosts import everything
from tests.kernel.lan import FIREWALLS, erased
from tests.kernel.nft_hosts import elements, ruleset
from tests.kernel.test_two_processes import at_once

from pynetwork import Controller, NotFoundError, PortTakenError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Network
    from pynetwork.testing import PrivateHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

#: Protocol and port of the host, address and port of the endpoint.
Rule = tuple[str, int, str, int]
_DNAT = re.compile(r"-PUB-\S+ -p (\w+) .*--dport (\d+) .*--to-destination ([\d.]+):(\d+)")


@pytest.fixture(params=FIREWALLS)
def controller(request: pytest.FixtureRequest, host: PrivateHost) -> Iterator[Controller]:
    assert host
    controller = Controller(firewall=request.param)
    with erased(controller):
        yield controller


def network_of(controller: Controller, number: int) -> Network:
    """Return a network with endpoints that are joined, and have no ports."""
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    for each in range(number):
        network.create_endpoint(f"e{each}").join(controller.new_sandbox(f"s{each}"))
    return network


def recorded(network: Network) -> set[Rule]:
    return {
        (port.proto, port.host_port or 0, str(endpoint.addresses[0].ip), port.first)
        for endpoint in network.endpoints.values()
        for port in endpoint.ports
    }


def there(host: PrivateHost) -> set[Rule]:
    """Return what the kernel has, of either firewall."""
    found = {
        (proto, int(port), address, int(to))
        for _, _, name, text in elements(ruleset(host))
        if name == "ports4"
        for proto, port, address, to in [re.split(r" [.:] ", text)]
    }
    lines = (_DNAT.search(line) for line in everything(host))
    return found | {(m[1], int(m[2]), m[3], int(m[4])) for m in lines if m is not None}


def claimed(host: PrivateHost) -> set[str]:
    """Return the first two parts of what claims ports: version and protocol, port."""
    return {
        ":".join(text.split(":")[:2])
        for _, table, _, text in elements(ruleset(host))
        if table == "pynetwork-ports"
    }


def test_random_publishing_leaves_the_rules_that_a_dict_says(
    controller: Controller, host: PrivateHost
) -> None:
    network = network_of(controller, 4)
    endpoints = list(network.endpoints.values())
    chance, taken = random.Random(11), dict[tuple[str, int], tuple[int, int]]()
    is_nft = not any("PYNETWORK" in line for line in everything(host))
    for _ in range(10_000 if is_nft else 500):
        number, at = chance.randrange(4), (chance.choice(("tcp", "udp")), chance.randrange(8000, 8064))
        text = f"{at[1]}:{80 + at[1] % 3}/{at[0]}"
        if chance.random() < 0.5:
            try:
                endpoints[number].publish(text)
            except PortTakenError:
                assert at in taken
            else:
                assert at not in taken
                taken[at] = (number, 80 + at[1] % 3)
        else:
            try:
                endpoints[number].unpublish(text)
            except NotFoundError:
                assert taken.get(at, (None,))[0] != number
            else:
                assert taken.pop(at)[0] == number
    addresses = [str(endpoint.addresses[0].ip) for endpoint in endpoints]
    expected = {(*at, addresses[number], port) for at, (number, port) in taken.items()}
    assert len(expected) > 20
    assert there(host) == recorded(network) == expected
    if is_nft:
        numbers = {"tcp": "406", "udp": "411"}
        assert claimed(host) == {f"{numbers[proto]}:{port:x}" for proto, port in taken}
    assert controller.reconcile(dry_run=True).is_clean


def test_of_eight_threads_that_publish_the_same_ports_each_port_has_one(
    controller: Controller, host: PrivateHost
) -> None:
    network = network_of(controller, 8)
    start = threading.Barrier(8)

    def publish(number: int) -> set[int]:
        endpoint, mine = network.endpoints[f"e{number}"], set[int]()
        start.wait(10)
        for port in range(8000, 8030):
            try:
                endpoint.publish(f"{port}:80")
            except PortTakenError:
                continue
            mine.add(port)
        for port in sorted(mine)[::3]:
            endpoint.unpublish(f"{port}:80")
            mine.discard(port)
        return mine

    with ThreadPoolExecutor(8) as pool:
        owned = list(pool.map(publish, range(8)))
    ports = [port for mine in owned for port in mine]
    assert len(ports) == len(set(ports)) > 10
    assert there(host) == recorded(network)
    assert {port for _, port, _, _ in there(host)} == set(ports)
    assert controller.reconcile(dry_run=True).is_clean


def publish_all(name: str, firewall: str) -> None:
    from pynetwork import Controller, PortTakenError
    from pynetwork.testing import reach

    with Controller(firewall=firewall) as controller:
        endpoint = controller.networks["n"].endpoints[name]
        reach("start")
        for port in range(8000, 8025):
            try:
                endpoint.publish(f"{port}:80")
            except PortTakenError as error:
                assert "endpoint 'e" in str(error)  # noqa: PT017 - in another process
            else:
                print(port)  # noqa: T201 - to the test


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_of_two_processes_that_ask_for_one_port_exactly_one_gets_it(firewall: str, host: PrivateHost) -> None:
    controller = Controller(firewall=firewall)
    with erased(controller):
        network = network_of(controller, 2)
        outputs = at_once(publish_all, *((name, firewall) for name in ("e0", "e1")))
        assert sorted(int(line) for output in outputs for line in output) == list(range(8000, 8025))
        assert there(host) == recorded(network)
        assert len(there(host)) == 25
        assert controller.reconcile(dry_run=True).is_clean
