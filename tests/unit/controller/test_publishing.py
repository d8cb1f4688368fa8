"""Publishing ports: what is chosen, what is refused, how long it is kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pynetwork import (
    ConflictError,
    Controller,
    Endpoint,
    ExhaustedError,
    InvalidValueError,
    MemoryStore,
    NotFoundError,
    PortTakenError,
    Sandbox,
    SqliteStore,
)
from pynetwork.plan import StepFailedError, Verb
from pynetwork.resources import PublishedPort
from pynetwork.testing import FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pynetwork import Network
    from pynetwork.plan import Step
    from pynetwork.store import Store

BOTH = ["10.0.0.0/24", "fd00::/64"]
#: What the fake host gives to who asks for any port.
LOW, HIGH = 32768, 60999


def _open(store: Store, kernel: FakeKernel, process: str = "p", **changes: Any) -> Controller:
    around = attrs.evolve(fake_surroundings(process=process), **changes)
    return Controller(store=store, kernel=kernel, surroundings=around)


def _ports(endpoint: Endpoint) -> list[str]:
    return [str(binding) for binding in endpoint.ports]


def _rules(kernel: FakeKernel) -> set[str]:
    return {
        line
        for rule in kernel.resources
        if isinstance(rule, PublishedPort)
        for line in _braces(rule.render())
    }


def _braces(lines: Sequence[str]) -> Iterator[str]:
    """Only the set's name and what is in the braces."""
    for line in lines:
        yield line.removeprefix("nft create element inet pynetwork ").replace("{ ", "").removesuffix(" }")


@pytest.fixture
def network(controller: Controller) -> Network:
    return controller.new_network("bridge", "n", subnets=BOTH)


@pytest.fixture
def sandbox(controller: Controller) -> Sandbox:
    return controller.new_sandbox("s")


class TestChoosing:
    """Which port of the host it is."""

    def test_the_one_that_is_asked_for(self, network: Network) -> None:
        endpoint = network.create_endpoint("e", ports=["8080:80", "53:53/udp", "9000-9002:80-82", 443])
        assert _ports(endpoint) == ["8080:80/tcp", "53:53/udp", "9000-9002:80-82/tcp", f"{LOW}:443/tcp"]

    def test_any_is_the_one_after_the_last(self, network: Network) -> None:
        chosen = [network.create_endpoint(f"e{n}", ports=["80"]).ports[0].host_port for n in range(4)]
        assert chosen == [LOW, LOW + 1, LOW + 2, LOW + 3]
        network.endpoints["e1"].delete()
        assert network.create_endpoint("f", ports=["80"]).ports[0].host_port == LOW + 4

    def test_protocols_are_counted_apart(self, network: Network) -> None:
        endpoint = network.create_endpoint("e", ports=["80/tcp", "80/udp", "80/sctp", "81/tcp"])
        assert [binding.host_port for binding in endpoint.ports] == [LOW, LOW, LOW, LOW + 1]

    def test_several_of_one_endpoint_differ(self, network: Network) -> None:
        endpoint = network.create_endpoint("e", ports=["80", "80", "81-83", "80"])
        assert [binding.host_port for binding in endpoint.ports] == [LOW, LOW + 1, LOW + 2, LOW + 5]

    def test_what_is_taken_or_reserved_is_skipped_and_the_end_leads_to_the_beginning(
        self, kernel: FakeKernel
    ) -> None:
        with _open(MemoryStore(), kernel, ephemeral_ports=lambda: (100, 110, ((103, 105),))) as controller:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            network.create_endpoint("fixed", ports=["101:1", "107:1/udp", "108-109:1-2"])
            chosen = []
            for number in range(5):
                chosen += [network.create_endpoint(f"e{number}", ports=["80"]).ports[0].host_port]
            assert chosen == [100, 102, 106, 107, 110]
            network.endpoints["e1"].delete()
            assert network.create_endpoint("f", ports=["80"]).ports[0].host_port == 102
            with pytest.raises(ExhaustedError, match="all ephemeral ports are taken"):
                network.create_endpoint("g", ports=["80"])
            assert "g" not in network.endpoints

    def test_a_run_of_ports_is_found_round_the_end_too(self, kernel: FakeKernel) -> None:
        with _open(MemoryStore(), kernel, ephemeral_ports=lambda: (100, 109, ())) as controller:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            first = network.create_endpoint("a", ports=["1-4"])
            network.create_endpoint("b", ports=["1-4"])
            first.delete()
            assert _ports(network.create_endpoint("c", ports=["1-3"])) == ["100-102:1-3/tcp"]
            with pytest.raises(ExhaustedError):
                network.create_endpoint("d", ports=["1-3"])
            # The two at the end and the one in front are not next to each other.
            assert _ports(network.create_endpoint("e", ports=["1-2"])) == ["108-109:1-2/tcp"]

    def test_the_first_free_one_of_a_range(self, network: Network) -> None:
        chosen = [network.create_endpoint(f"e{n}", ports=["8000-8002:80"]) for n in range(3)]
        assert [_ports(endpoint) for endpoint in chosen] == [[f"{n}:80/tcp"] for n in (8000, 8001, 8002)]
        with pytest.raises(ExhaustedError, match="all ports of the range are taken"):
            network.create_endpoint("x", ports=["8000-8002:80"])
        chosen[1].delete()
        assert _ports(network.create_endpoint("x", ports=["8000-8002:80"])) == ["8001:80/tcp"]

    def test_both_families_have_the_same(
        self, kernel: FakeKernel, network: Network, sandbox: Sandbox
    ) -> None:
        network.create_endpoint("six", ports=[f"[2001:db8::1]:{LOW}:80"])
        endpoint = network.create_endpoint("e", ports=["80"])
        assert endpoint.ports[0].host_port == LOW + 1
        endpoint.join(sandbox)
        assert _rules(kernel) == {
            f"ports4 tcp . {LOW + 1} : {endpoint.addresses[0].ip} . 80",
            f"ports6 tcp . {LOW + 1} : {endpoint.addresses[1].ip} . 80",
        }

    @pytest.mark.parametrize(
        ("host", "rules"),
        [
            ("0.0.0.0", {"ports4 tcp . 8080 : 10.0.0.2 . 80"}),
            ("[::]", {"ports6 tcp . 8080 : fd00::2 . 80"}),
            ("192.0.2.1", {"address_ports4 192.0.2.1 . tcp . 8080 : 10.0.0.2 . 80"}),
            ("127.0.0.1", {"address_ports4 127.0.0.1 . tcp . 8080 : 10.0.0.2 . 80"}),
            ("[2001:db8::1]", {"address_ports6 2001:db8::1 . tcp . 8080 : fd00::2 . 80"}),
            ("10.0.0.1", {"address_ports4 10.0.0.1 . tcp . 8080 : 10.0.0.2 . 80"}),
        ],
    )
    def test_an_address_of_the_host_is_of_one_family(
        self, kernel: FakeKernel, network: Network, sandbox: Sandbox, host: str, rules: set[str]
    ) -> None:
        endpoint = network.create_endpoint("e", ports=[f"{host}:8080:80"], addresses=["10.0.0.2", "fd00::2"])
        endpoint.join(sandbox)
        assert _rules(kernel) == rules

    def test_the_network_has_an_address_for_those_that_name_none(self, controller: Controller) -> None:
        network = controller.new_network(
            "bridge", "n", subnets=BOTH, options={"host_binding": "127.0.0.1", "bridge": "br0"}
        )
        endpoint = network.create_endpoint("e", ports=["8080:80", "0.0.0.0:8081:80", "[::]:8080:80"])
        assert _ports(endpoint) == ["127.0.0.1:8080:80/tcp", "0.0.0.0:8081:80/tcp", "[::]:8080:80/tcp"]


CONFLICTS = [
    ("8080:80", "8080:81", True),
    ("8080:80", "8080:80/udp", False),
    ("8080:80", "0.0.0.0:8080:80", True),
    ("8080:80", "[::]:8080:80", True),
    ("8080:80", "127.0.0.1:8080:80", True),
    ("127.0.0.1:8080:80", "8080:80", True),
    ("127.0.0.1:8080:80", "0.0.0.0:8080:80", True),
    ("127.0.0.1:8080:80", "127.0.0.1:8080:80", True),
    ("127.0.0.1:8080:80", "127.0.0.2:8080:80", False),
    ("0.0.0.0:8080:80", "[::]:8080:80", False),
    ("127.0.0.1:8080:80", "[2001:db8::1]:8080:80", False),
    ("[2001:db8::1]:8080:80", "[::]:8080:80", True),
    ("[::ffff:127.0.0.1]:8080:80", "127.0.0.1:8080:80", True),
    ("8080-8090:80-90", "8090:80", True),
    ("8080-8090:80-90", "8091:80", False),
    ("8085:80", "8080-8090:80-90", True),
]


class TestConflicts:
    """One port of the host is one endpoint's."""

    @pytest.mark.parametrize(("first", "second", "is_conflict"), CONFLICTS)
    def test_of_two_endpoints(
        self, controller: Controller, network: Network, first: str, second: str, is_conflict: bool
    ) -> None:
        network.create_endpoint("web", ports=[first])
        other = controller.new_network("bridge", "m", subnets=["10.1.0.0/24", "fd01::/64"])
        if not is_conflict:
            other.create_endpoint("e", ports=[second])
            return
        with pytest.raises(PortTakenError, match="is published by endpoint 'web' of network 'n'") as caught:
            other.create_endpoint("e", ports=[second])
        assert caught.value.proto == "tcp"
        assert caught.value.port in {8080, 8085, 8090}
        assert "e" not in other.endpoints
        endpoint = other.create_endpoint("e")
        with pytest.raises(PortTakenError, match="endpoint 'web' of network 'n'"):
            endpoint.publish(second)
        assert endpoint.ports == ()

    @pytest.mark.parametrize(("first", "second", "is_conflict"), CONFLICTS)
    def test_of_one_endpoint(self, network: Network, first: str, second: str, is_conflict: bool) -> None:
        if not is_conflict:
            assert len(network.create_endpoint("e", ports=[first, second]).ports) == 2
            return
        with pytest.raises(PortTakenError, match="is published by it already"):
            network.create_endpoint("e", ports=[first, second])
        endpoint = network.create_endpoint("e", ports=[first])
        with pytest.raises(PortTakenError, match="is published by it already"):
            endpoint.publish(second)
        assert len(endpoint.ports) == 1

    def test_no_port_is_taken_in_a_family_that_the_endpoint_is_not_of(self, controller: Controller) -> None:
        four = controller.new_network("bridge", "four", subnets=["10.4.0.0/24"])
        six = controller.new_network("bridge", "six", subnets=["fd06::/64"], ipv4=False)
        four.create_endpoint("e", ports=["8080:80"])
        six.create_endpoint("e", ports=["8080:80"])
        with pytest.raises(PortTakenError):
            six.create_endpoint("f", ports=["8080:80"])

    def test_opened_ports_are_nobody_elses(self, controller: Controller) -> None:
        """Where nothing is translated, each endpoint has all ports."""
        options = {"gateway_mode_ipv4": "routed", "gateway_mode_ipv6": "routed"}
        network = controller.new_network("bridge", "n", subnets=BOTH, options=options)
        endpoints = [network.create_endpoint(name, ports=["8080:80", "8080:80"]) for name in "ab"]
        for endpoint in endpoints:
            assert [binding.host_port for binding in endpoint.ports] == [None, None]
            endpoint.join(controller.new_sandbox(endpoint.name))

    @pytest.mark.parametrize(
        ("second", "is_refused"),
        [
            ("81-85", True),
            ("70-80", True),
            ("81-82", True),
            ("[::]:90-95:81-86", True),
            ("80-82", False),
            ("83-85", False),
            ("81", False),
            ("81-85/udp", False),
            ("0.0.0.0:90-94:81-85", False),
        ],
    )
    def test_ranges_that_are_opened_do_not_overlap_in_part(
        self, controller: Controller, second: str, is_refused: bool
    ) -> None:
        options = {"gateway_mode_ipv6": "routed"}
        network = controller.new_network("bridge", "n", subnets=BOTH, options=options)
        endpoint = network.create_endpoint("e", ports=["80-82", "8080:80"])
        endpoint.join(controller.new_sandbox("s"))
        before = endpoint.ports
        if is_refused:
            message = re.escape("of endpoint 'e': it overlaps ") + r"\S*80-82/tcp in part"
            with pytest.raises(ConflictError, match=message):
                endpoint.publish(second)
            with pytest.raises(ConflictError, match=message.replace("'e'", "'f'")):
                network.create_endpoint("f", ports=["80-82", second])
            assert endpoint.ports == before
            assert "f" not in network.endpoints
        else:
            endpoint.publish(second)
            assert len(endpoint.ports) == 3
        assert controller.reconcile(dry_run=True).is_clean


class TestRefused:
    """What cannot be published."""

    @pytest.mark.parametrize(
        ("subnets", "port", "message"),
        [
            (["10.0.0.0/24"], "[::]:80:80", "endpoint 'e' has no IPv6 address"),
            (["10.0.0.0/24"], "[2001:db8::1]::80", "endpoint 'e' has no IPv6 address"),
            (["fd00::/64"], "0.0.0.0:80:80", "endpoint 'e' has no IPv4 address"),
            (["fd00::/64"], "127.0.0.1:80:80", "endpoint 'e' has no IPv4 address"),
            (BOTH, "[::1]:80:80", "what is sent to ::1 does not reach an endpoint"),
            (BOTH, "224.0.0.1:80:80", "what is sent to 224.0.0.1 does not reach an endpoint"),
            (BOTH, "[ff02::1]:80:80", "what is sent to ff02::1 does not reach an endpoint"),
            (BOTH, "10.0.0.9:80:80", "10.0.0.9 is of network 'n', not the host's own"),
            (BOTH, "[fd00::9]:80:80", "fd00::9 is of network 'n', not the host's own"),
        ],
    )
    def test_where_it_would_not_be_reached(
        self, controller: Controller, subnets: list[str], port: str, message: str
    ) -> None:
        has_v4 = any("." in subnet for subnet in subnets)
        network = controller.new_network("bridge", "n", subnets=subnets, ipv4=None if has_v4 else False)
        taken = [usage.taken for usage in network.usage().values()]
        with pytest.raises(InvalidValueError, match=f"cannot publish .*: {message}"):
            network.create_endpoint("e", ports=[port])
        assert dict(network.endpoints) == {}
        assert [usage.taken for usage in network.usage().values()] == taken
        endpoint = network.create_endpoint("e")
        with pytest.raises(InvalidValueError, match=message):
            endpoint.publish(port)

    def test_in_an_internal_network(self, controller: Controller) -> None:
        network = controller.new_network("bridge", "n", internal=True)
        endpoint = network.create_endpoint("e")
        with pytest.raises(InvalidValueError, match="in network 'n': it is internal"):
            endpoint.publish("80")
        with pytest.raises(InvalidValueError, match="in network 'n': it is internal"):
            network.create_endpoint("f", ports=["80"])

    @pytest.mark.parametrize("driver", ["null", "host"])
    def test_in_a_network_without_an_interface(self, controller: Controller, driver: str) -> None:
        network = controller.new_network(driver, "n")
        with pytest.raises(InvalidValueError, match=f"is of type {driver!r}, which publishes no ports"):
            network.create_endpoint("e", ports=["80"])

    def test_in_a_network_without_addresses(self, controller: Controller) -> None:
        network = controller.new_network("bridge", "n", ipam="null")
        with pytest.raises(InvalidValueError, match="endpoint 'e' has no IPv4 address"):
            network.create_endpoint("e", ports=["80"])

    @pytest.mark.parametrize("ports", [["0"], ["80/icmp"], [None], "80", 80, [["80"]]])
    def test_junk(self, network: Network, ports: Any) -> None:
        with pytest.raises(InvalidValueError):
            network.create_endpoint("e", ports=ports)
        assert dict(network.endpoints) == {}


class TestLifetime:
    """A port is kept as long as its endpoint, joined or not."""

    def test_before_it_joins_nothing_leads_to_it(
        self, kernel: FakeKernel, network: Network, sandbox: Sandbox
    ) -> None:
        endpoint = network.create_endpoint("e", ports=["8080:80"], addresses=["10.0.0.2", "fd00::2"])
        published = endpoint.publish("53/udp")
        assert str(published) == f"{LOW}:53/udp"
        assert endpoint.ports[1] == published
        assert _rules(kernel) == set()
        endpoint.join(sandbox)
        rules = {
            "ports4 tcp . 8080 : 10.0.0.2 . 80",
            "ports6 tcp . 8080 : fd00::2 . 80",
            f"ports4 udp . {LOW} : 10.0.0.2 . 53",
            f"ports6 udp . {LOW} : fd00::2 . 53",
        }
        assert _rules(kernel) == rules
        kept = endpoint.ports
        endpoint.leave()
        assert _rules(kernel) == set()
        assert endpoint.ports == kept
        with pytest.raises(PortTakenError):
            network.create_endpoint("f", ports=["8080:80"])
        endpoint.join(sandbox)
        assert _rules(kernel) == rules

    def test_once_joined_it_is_published_at_once(
        self, controller: Controller, kernel: FakeKernel, network: Network, sandbox: Sandbox
    ) -> None:
        endpoint = network.create_endpoint("e", addresses=["10.0.0.2", "fd00::2"])
        endpoint.join(sandbox)
        endpoint.publish("127.0.0.1:8080:80")
        endpoint.publish("9000-9001:9000-9001/udp")
        assert _rules(kernel) == {
            "address_ports4 127.0.0.1 . tcp . 8080 : 10.0.0.2 . 80",
            "port_ranges4 udp . 9000-9001 : 10.0.0.2",
            "port_ranges6 udp . 9000-9001 : fd00::2",
        }
        assert controller.reconcile().is_clean
        endpoint.unpublish("9000-9001/udp")
        endpoint.unpublish("80")
        assert _rules(kernel) == set()
        assert endpoint.ports == ()
        assert controller.reconcile().is_clean

    @pytest.mark.parametrize("joined", [False, True])
    def test_unpublishing_says_as_much_as_it_needs_to(
        self, network: Network, sandbox: Sandbox, joined: bool
    ) -> None:
        asked = ["8080:80", "127.0.0.1:8081:80", "80", "80", "80/udp", "81"]
        endpoint = network.create_endpoint("e", ports=asked)
        if joined:
            endpoint.join(sandbox)
        for unknown in ("82", "8082:80", "127.0.0.2::80", "80/sctp", "80-81"):
            with pytest.raises(NotFoundError, match=r"endpoint 'e' does not publish"):
                endpoint.unpublish(unknown)
        assert len(endpoint.ports) == 6
        endpoint.unpublish(endpoint.ports[2])
        assert _ports(endpoint)[2:] == [f"{LOW + 1}:80/tcp", f"{LOW}:80/udp", f"{LOW + 2}:81/tcp"]
        endpoint.unpublish("127.0.0.1::80")
        assert _ports(endpoint)[:2] == ["8080:80/tcp", f"{LOW + 1}:80/tcp"]
        endpoint.unpublish("80")
        assert _ports(endpoint) == [f"{LOW}:80/udp", f"{LOW + 2}:81/tcp"]
        with pytest.raises(NotFoundError):
            endpoint.unpublish("80")
        network.create_endpoint("f", ports=["8080:80", "8081:80"])

    def test_one_of_two_ways_to_an_opened_port_goes_and_the_other_stays(
        self, controller: Controller, kernel: FakeKernel, sandbox: Sandbox
    ) -> None:
        options = {"gateway_mode_ipv6": "routed"}
        network = controller.new_network("bridge", "n", subnets=BOTH, options=options)
        endpoint = network.create_endpoint(
            "e", ports=["8080:80", "8081:80"], addresses=["10.0.0.2", "fd00::2"]
        )
        endpoint.join(sandbox)
        opened = "routed6 fd00::2 . tcp . 80"
        four = {f"ports4 tcp . {port} : 10.0.0.2 . 80" for port in (8080, 8081)}
        assert _rules(kernel) == {opened, *four}
        endpoint.unpublish("8080:80")
        assert _rules(kernel) == {opened, "ports4 tcp . 8081 : 10.0.0.2 . 80"}
        endpoint.unpublish("8081:80")
        assert _rules(kernel) == set()

    def test_its_sandbox_may_come_and_go(
        self, controller: Controller, kernel: FakeKernel, network: Network, sandbox: Sandbox
    ) -> None:
        endpoint = network.create_endpoint("e", ports=["80"])
        endpoint.join(sandbox)
        rules = _rules(kernel)
        sandbox.delete()
        assert _rules(kernel) == set()
        assert endpoint.ports[0].host_port == LOW
        endpoint.join(controller.new_sandbox("s"))
        assert _rules(kernel) == rules

    def test_the_controller_and_the_host_may_start_again(self) -> None:
        store, kernel = MemoryStore(), FakeKernel()
        with _open(store, kernel) as controller:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            endpoint = network.create_endpoint("e", ports=["80", "8080:80"])
            endpoint.join(controller.new_sandbox("s"))
            network.create_endpoint("free", ports=["80"])
            kept, rules = endpoint.ports, _rules(kernel)
        kernel.reboot()
        assert _rules(kernel) == set()
        with _open(store, kernel, "q", boot_id=lambda: "boot-2") as controller:
            endpoint = controller.networks["n"].endpoints["e"]
            assert endpoint.ports == kept
            assert _rules(kernel) == rules
            assert controller.networks["n"].endpoints["free"].ports[0].host_port == LOW + 1
            assert controller.networks["n"].create_endpoint("f", ports=["80"]).ports[0].host_port == LOW + 2

    def test_who_deletes_the_endpoint_frees_its_ports_for_all(self, tmp_path: Path) -> None:
        kernel = FakeKernel()
        with (
            SqliteStore(tmp_path) as one,
            SqliteStore(tmp_path) as other,
            _open(one, kernel, "a") as here,
            _open(other, kernel, "b") as there,
        ):
            network = here.new_network("bridge", "n", subnets=BOTH)
            network.create_endpoint("e", ports=["8080:80"]).join(here.new_sandbox("s"))
            with pytest.raises(PortTakenError, match="endpoint 'e'"):
                there.networks["n"].create_endpoint("f", ports=["8080:80"])
            there.networks["n"].endpoints["e"].delete(force=True)
            assert _rules(kernel) == set()
            network.create_endpoint("g", ports=["8080:80"])
            with pytest.raises(PortTakenError, match="endpoint 'g'"):
                there.networks["n"].create_endpoint("f", ports=["8080:80"])
            network.endpoints["g"].unpublish("80")
            there.networks["n"].create_endpoint("f", ports=["8080:80"])

    def test_a_port_is_free_when_the_host_has_let_go_of_it_and_not_before(self) -> None:
        errors: list[PortTakenError] = []

        class Watched(FakeKernel):
            def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
                if any(s.verb is Verb.DELETE and isinstance(s.resource, PublishedPort) for s in steps):
                    with pytest.raises(PortTakenError, match="published by endpoint 'e'") as caught:
                        witness.networks["n"].create_endpoint("f", ports=["8080:80"])
                    errors.append(caught.value)
                super().apply(steps, replay=replay)

        store, kernel = MemoryStore(), Watched()
        with _open(store, kernel) as controller, _open(store, kernel, "q") as witness:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            for undo in (Endpoint.unpublish, lambda endpoint, _: endpoint.delete(force=True)):
                endpoint = network.create_endpoint("e", ports=["8080:80"])
                sandbox = controller.new_sandbox("s")
                endpoint.join(sandbox)
                undo(endpoint, "80")
                witness.networks["n"].create_endpoint("f", ports=["8080:80"]).delete()
                endpoint.delete(force=True, missing_ok=True)
                sandbox.delete()
        assert len(errors) == 2


STALE: dict[str, Callable[[Endpoint, Sandbox], object]] = {
    "join": lambda endpoint, sandbox: endpoint.join(sandbox),
    "leave": lambda endpoint, _: endpoint.leave(),
    "delete": lambda endpoint, _: endpoint.delete(),
    "force_delete": lambda endpoint, _: endpoint.delete(force=True),
    "delete_sandbox": lambda _, sandbox: sandbox.delete(),
    "unpublish": lambda endpoint, _: endpoint.unpublish("80"),
}


class TestStale:
    """What another process published or not is no secret to one that has not looked for a while."""

    @pytest.mark.parametrize("change", ["publish", "unpublish"])
    @pytest.mark.parametrize("request_", STALE)
    def test_no_port_is_forgotten_or_brought_back(self, tmp_path: Path, request_: str, change: str) -> None:
        kernel = FakeKernel()
        with (
            SqliteStore(tmp_path) as one,
            SqliteStore(tmp_path) as other,
            _open(one, kernel, "a") as here,
            _open(other, kernel, "b") as there,
        ):
            network = here.new_network("bridge", "n", subnets=BOTH)
            theirs = network.create_endpoint("e", ports=["8080:80", "8081:80", "53:53/udp"])
            sandbox = here.new_sandbox("s")
            if request_ in {"leave", "force_delete", "delete_sandbox"}:
                theirs.join(sandbox)
            stale, box = there.networks["n"].endpoints["e"], there.sandboxes["s"]
            assert len(stale.ports) == 3
            if change == "publish":
                theirs.publish("8082:80")
            else:
                theirs.unpublish("8081:80")
            STALE[request_](stale, box)
            left = {"publish": ["8080:80/tcp", "8081:80/tcp", "53:53/udp", "8082:80/tcp"]}
            left |= {"unpublish": ["8080:80/tcp", "53:53/udp"]}
            ends: dict[str, list[str]] = {"delete": [], "force_delete": [], "unpublish": ["53:53/udp"]}
            ports = ends.get(request_, left[change])
            assert len(one.list("port/").entries) == len(ports)
            if request_ not in {"delete", "force_delete"}:
                assert _ports(theirs) == _ports(stale) == ports
            rules = {line.split(" ")[3] for line in _rules(kernel)}
            assert rules == ({port.partition(":")[0] for port in ports} if request_ == "join" else set())
            # What is free is free again.
            free = [f"{n}:1" for n in (8080, 8081, 8082) if f"{n}:80/tcp" not in ports]
            network.create_endpoint("f", ports=free)
            assert here.reconcile(dry_run=True).is_clean


class Refusing(FakeKernel):
    """A host on which somebody else has ports, which shows when they are claimed."""

    def __init__(self, *ports: int) -> None:
        super().__init__()
        self.taken = set(ports)
        self.tries: list[int] = []

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        for number, step in enumerate(steps):
            rule = step.resource
            if step.verb is Verb.CREATE and isinstance(rule, PublishedPort) and not replay:
                self.tries.append(rule.first)
                hit = [port for port in range(rule.first, rule.last + 1) if port in self.taken]
                if hit:
                    super().apply(steps[:number], replay=replay)
                    error = PortTakenError("somebody has it", proto=rule.proto, port=hit[0])
                    raise StepFailedError(step, steps[:number]) from error
        super().apply(steps, replay=replay)


class TestTakenBySomebodyElse:
    """The host refuses a port that no endpoint has."""

    def test_another_is_chosen_where_any_will_do(self) -> None:
        kernel = Refusing(LOW, LOW + 1, 8001)
        with _open(MemoryStore(), kernel) as controller:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            endpoint = network.create_endpoint("e", ports=["80", "8001-8003:81", "8080:80"])
            assert endpoint.ports[0].host_port == LOW
            endpoint.join(controller.new_sandbox("s"))
            assert sorted(_ports(endpoint)) == sorted([f"{LOW + 2}:80/tcp", "8002:81/tcp", "8080:80/tcp"])
            assert kernel.tries.count(LOW) == 1
            assert controller.reconcile().is_clean
            kernel.taken |= {LOW + 3, LOW + 4}
            assert endpoint.publish("82").host_port == LOW + 5
            assert endpoint.publish("83-84").host_port == LOW + 6
            assert controller.reconcile().is_clean

    def test_a_run_of_ports_moves_past_it(self) -> None:
        kernel = Refusing(LOW + 1)
        with _open(MemoryStore(), kernel) as controller:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            endpoint = network.create_endpoint("e", ports=["80-82"])
            endpoint.join(controller.new_sandbox("s"))
            assert _ports(endpoint) == [f"{LOW + 3}-{LOW + 5}:80-82/tcp"]

    @pytest.mark.parametrize("others", [[], ["80"], ["80/udp"]])
    def test_that_one_port_was_asked_for_is_an_error_and_all_is_as_before(self, others: list[str]) -> None:
        store, kernel = MemoryStore(), Refusing(8080)
        with _open(store, kernel) as controller:
            network = controller.new_network("bridge", "n", subnets=BOTH)
            endpoint = network.create_endpoint("e", ports=[*others, "8080:80"])
            sandbox = controller.new_sandbox("s")
            before, recorded = set(kernel.resources), _records(store)
            with pytest.raises(PortTakenError, match="somebody has it"):
                endpoint.join(sandbox)
            assert set(kernel.resources) == before
            assert _records(store) == recorded
            endpoint.unpublish("8080:80")
            endpoint.join(sandbox)
            before, recorded = set(kernel.resources), _records(store)
            with pytest.raises(PortTakenError, match="somebody has it"):
                endpoint.publish("8080:80")
            assert set(kernel.resources) == before
            assert _records(store) == recorded
            kernel.taken.clear()
            endpoint.publish("8080:80")

    def test_ten_tries_are_enough(self) -> None:
        store, kernel = MemoryStore(), Refusing(*range(LOW, HIGH))
        with _open(store, kernel) as controller:
            network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
            endpoint = network.create_endpoint("e", ports=["80"])
            sandbox = controller.new_sandbox("s")
            before, recorded = set(kernel.resources), _records(store)
            with pytest.raises(PortTakenError):
                endpoint.join(sandbox)
            assert kernel.tries == list(range(LOW, LOW + 10))
            assert set(kernel.resources) == before
            assert _records(store) == recorded

    def test_a_range_that_is_all_somebody_elses_is_exhausted(self) -> None:
        kernel = Refusing(8000, 8001)
        with _open(MemoryStore(), kernel) as controller:
            network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
            endpoint = network.create_endpoint("e", ports=["8000-8001:80"])
            with pytest.raises(ExhaustedError, match="all ports of the range are taken"):
                endpoint.join(controller.new_sandbox("s"))
            assert kernel.tries == [8000, 8001]
            assert _rules(kernel) == set()


def _records(store: MemoryStore) -> dict[str, str]:
    """What is recorded, less what only grows."""
    return {
        entry.key: entry.value
        for entry in store.list("").entries
        if not entry.key.startswith(("lock/", "meta/"))
    }
