"""Sandboxes whose namespaces others make: later, another one, none any more, gone and there again."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    ApplyError,
    ConflictError,
    Controller,
    InvalidValueError,
    MemoryStore,
    NotFoundError,
    PynetworkError,
)
from pynetwork.plan import Verb
from pynetwork.resources import Netns, PublishedPort, Veth
from pynetwork.testing import Chaos, FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork import Endpoint, Report, Sandbox

NAMED, PROCESS = "/run/netns/x", "/proc/4711/ns/net"


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel([Netns(path=NAMED), Netns(path=PROCESS)])


@pytest.fixture
def waiting(controller: Controller) -> tuple[Sandbox, Endpoint]:
    """A sandbox without a namespace, and an endpoint that has joined it and publishes a port."""
    sandbox = controller.new_sandbox("s", netns="later")
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
    endpoint = network.create_endpoint("e", ports=["8080:80"])
    endpoint.join(sandbox)
    return sandbox, endpoint


def of_kind(kernel: FakeKernel, kind: type[Any]) -> list[Any]:
    return [item for item in kernel.resources if isinstance(item, kind)]


def inspected(endpoint: Endpoint) -> dict[str, Any]:
    """All that is recorded of it, but the name of the host's end of its link."""
    return endpoint.inspect() | {"link": None}


class TestLater:
    def test_all_is_chosen_and_nothing_is_on_the_host(
        self, waiting: tuple[Sandbox, Endpoint], kernel: FakeKernel
    ) -> None:
        sandbox, endpoint = waiting
        assert (endpoint.interface, str(endpoint.addresses[0])) == ("eth0", "10.0.0.2/24")
        assert [str(via) for via in endpoint.gateways] == ["10.0.0.1"]
        assert endpoint.sandbox == sandbox
        assert sandbox.endpoints == (endpoint,)
        assert not sandbox.is_attached
        assert sandbox.netns_path is None
        for kind in (Netns, Veth, PublishedPort):
            assert of_kind(kernel, kind) == []

    def test_it_comes_into_force_as_it_was_chosen(
        self, controller: Controller, waiting: tuple[Sandbox, Endpoint], kernel: FakeKernel
    ) -> None:
        sandbox, endpoint = waiting
        chosen = inspected(endpoint)
        steps = len(kernel.log)
        sandbox.attach(NAMED)
        assert inspected(endpoint) == chosen
        assert sandbox.is_attached
        (pin,) = of_kind(kernel, Netns)
        assert pin == Netns(path=str(sandbox.netns_path), adopted=NAMED)
        (veth,) = of_kind(kernel, Veth)
        assert (veth.netns, veth.peer, veth.mac) == (pin.path, "eth0", endpoint.mac)
        assert len(of_kind(kernel, PublishedPort)) == 1
        assert controller.reconcile().is_clean
        assert len(kernel.log) > steps

    def test_it_makes_no_difference_whether_endpoints_join_before_or_after(self) -> None:
        states = []
        for before in (True, False):
            kernel = FakeKernel([Netns(path=NAMED)])
            with Controller(
                store=MemoryStore(), kernel=kernel, surroundings=fake_surroundings()
            ) as controller:
                networks = [
                    controller.new_network("bridge", name, subnets=[f"10.{number}.0.0/24"])
                    for number, name in enumerate("ab")
                ]
                endpoints = [network.create_endpoint("e", ports=["80/udp"]) for network in networks]
                sandbox = controller.new_sandbox("s", netns="later")
                if not before:
                    sandbox.attach(NAMED)
                for endpoint in endpoints:
                    endpoint.join(sandbox)
                if before:
                    sandbox.attach(NAMED)
                # The host's ends of the links have names at random.
                states.append(sorted(re.sub(r"veth\w{10}", "veth", str(item)) for item in kernel.resources))
        assert states[0] == states[1]

    def test_endpoints_come_and_go_while_it_waits(
        self, controller: Controller, waiting: tuple[Sandbox, Endpoint], kernel: FakeKernel
    ) -> None:
        sandbox, endpoint = waiting
        other = controller.new_network("bridge", "m").create_endpoint("e", priority=1)
        other.join(sandbox)
        assert (endpoint.gateways, len(other.gateways)) == ((), 1)
        endpoint.publish("8081:81")
        endpoint.unpublish("80")
        other.leave()
        assert len(endpoint.gateways) == 1
        with pytest.raises(ConflictError, match="has already joined"):
            endpoint.join(sandbox)
        with pytest.raises(ConflictError, match="is active"):
            endpoint.delete()
        sandbox.attach(NAMED)
        assert [port.first for port in of_kind(kernel, PublishedPort)] == [8081]

    def test_nothing_runs_in_it(self, waiting: tuple[Sandbox, Endpoint]) -> None:
        sandbox, _ = waiting
        uses: list[Callable[[], object]] = [
            lambda: sandbox.run(["true"]),
            lambda: sandbox.popen(["true"]),
            sandbox.entered,
        ]
        for use in uses:
            with pytest.raises(ConflictError, match="has no namespace yet: attach it"):
                use()

    def test_it_is_as_before_when_it_is_deleted(
        self, controller: Controller, waiting: tuple[Sandbox, Endpoint], kernel: FakeKernel
    ) -> None:
        sandbox, endpoint = waiting
        sandbox.delete()
        assert endpoint.sandbox is None
        again = controller.new_sandbox("s", netns=NAMED)
        endpoint.join(again)
        assert endpoint.interface == "eth0"

    def test_what_a_driver_refuses_is_refused_at_the_join(self, controller: Controller) -> None:
        controller.new_network("host", "host")
        sandbox = controller.new_sandbox("s", netns="later")
        with pytest.raises(ConflictError, match="shares the host's namespace"):
            controller.networks["host"].create_endpoint("e").join(sandbox)


class TestMoving:
    def test_a_rebuilt_container_keeps_what_its_endpoints_have(
        self, controller: Controller, kernel: FakeKernel
    ) -> None:
        network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        endpoint = network.create_endpoint("e", ports=["80"])
        sandbox = controller.new_sandbox("s")
        endpoint.join(sandbox)
        chosen = inspected(endpoint)
        for source in (PROCESS, NAMED):
            sandbox.attach(source)
            assert inspected(endpoint) == chosen
            assert [pin.adopted for pin in of_kind(kernel, Netns)] == [source]
            (veth,) = of_kind(kernel, Veth)
            assert veth.netns == str(sandbox.netns_path)
            assert controller.reconcile().is_clean

    @pytest.mark.parametrize("netns", [4711, PROCESS, Path(PROCESS)])
    def test_to_attach_it_to_where_it_is_changes_nothing(
        self, controller: Controller, kernel: FakeKernel, netns: object
    ) -> None:
        sandbox = controller.new_sandbox("s", netns="later")
        sandbox.attach(PROCESS)
        revision, log = controller.revision, kernel.log
        sandbox.attach(netns)
        assert (controller.revision, kernel.log) == (revision, log)

    def test_where_it_was_it_can_be_again(self, controller: Controller, kernel: FakeKernel) -> None:
        sandbox = controller.new_sandbox("s", netns=NAMED)
        for source in (PROCESS, NAMED, PROCESS, NAMED):
            sandbox.attach(source)
        assert len({pin.path for pin in of_kind(kernel, Netns)}) == 1

    def test_a_failure_leaves_it_where_it_was(self, kernel: FakeKernel) -> None:
        chaos = Chaos(kernel, fail_at=20)
        with Controller(store=MemoryStore(), kernel=chaos, surroundings=fake_surroundings()) as controller:
            network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
            sandbox = controller.new_sandbox("s")
            network.create_endpoint("e", ports=["80"]).join(sandbox)
            before, path = set(kernel.resources), sandbox.netns_path
            chaos._fail_at = chaos.count + 5
            with pytest.raises(ApplyError, match="cannot attach sandbox 's'") as caught:
                sandbox.attach(NAMED)
            assert caught.value.rolled_back
            assert (set(kernel.resources), sandbox.netns_path) == (before, path)

    def test_two_at_once_are_one_after_the_other(self, controller: Controller, kernel: FakeKernel) -> None:
        sandbox = controller.new_sandbox("s", netns="later")
        network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        endpoints = [network.create_endpoint(f"e{number}") for number in range(1)]
        endpoints[0].join(sandbox)
        errors: list[BaseException] = []

        def attach(source: str) -> None:
            try:
                for _ in range(20):
                    sandbox.attach(source)
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=attach, args=(source,)) for source in (NAMED, PROCESS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert len(of_kind(kernel, Netns)) == len(of_kind(kernel, Veth)) == 1
        assert controller.reconcile().is_clean


class TestDetaching:
    def test_it_waits_for_another_one(self, controller: Controller, kernel: FakeKernel) -> None:
        network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        endpoint = network.create_endpoint("e", ports=["80"])
        sandbox = controller.new_sandbox("s")
        endpoint.join(sandbox)
        chosen = inspected(endpoint)
        sandbox.detach()
        for kind in (Netns, Veth, PublishedPort):
            assert of_kind(kernel, kind) == []
        assert inspected(endpoint) == chosen
        assert not sandbox.is_attached
        assert controller.reconcile().is_clean
        with pytest.raises(ConflictError, match="cannot be detached"):
            sandbox.detach()
        sandbox.attach(NAMED)
        assert inspected(endpoint) == chosen
        assert len(of_kind(kernel, Veth)) == 1

    def test_what_was_detached_by_hand_is_not_attached_by_reconcile(self, controller: Controller) -> None:
        sandbox = controller.new_sandbox("s", netns=NAMED)
        sandbox.detach()
        assert controller.reconcile().is_clean
        assert not sandbox.is_attached

    def test_the_hosts_namespace_cannot_be_left(self, controller: Controller) -> None:
        sandbox = controller.new_sandbox("s", netns="host")
        for attempt in (sandbox.detach, lambda: sandbox.attach(NAMED)):
            with pytest.raises(ConflictError, match=r"host's own|of its own"):
                attempt()


class TestGoneAndBack:
    """What is adopted may go by others' hands, at a reboot for instance."""

    @pytest.fixture
    def reopen(self, kernel: FakeKernel, store: MemoryStore) -> Callable[[], Controller]:
        boots = iter(range(2, 9))

        def reboot() -> Controller:
            around = fake_surroundings(process=f"p{(boot := next(boots))}", boot=f"boot-{boot}")
            return Controller(store=store, kernel=kernel, surroundings=around)

        return reboot

    @pytest.fixture
    def adopted(self, controller: Controller) -> Controller:
        network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        for name, netns in (("named", NAMED), ("process", PROCESS), ("own", None)):
            network.create_endpoint(name, ports=["80"]).join(controller.new_sandbox(name, netns=netns))
        controller.close()
        return controller

    def test_what_is_gone_is_detached_and_said_once(
        self, adopted: Controller, kernel: FakeKernel, reopen: Callable[[], Controller]
    ) -> None:
        kernel.reboot()
        with reopen() as controller:  # which reconciles
            assert [name for name, box in controller.sandboxes.items() if box.is_attached] == ["own"]
            found = [event for event in controller.events(since=0, timeout=0) if "detached" in event.kind]
            assert [event.sandbox for event in found] == ["named", "process"]
            assert len(of_kind(kernel, Veth)) == 1
            assert controller.reconcile().is_clean
            assert controller.networks["n"].endpoints["named"].sandbox is not None

    def test_a_path_that_is_there_again_is_adopted_again(
        self, adopted: Controller, kernel: FakeKernel, reopen: Callable[[], Controller]
    ) -> None:
        kernel.reboot()
        with reopen() as controller:
            chosen = inspected(controller.networks["n"].endpoints["named"])
            kernel.plant(Netns(path=NAMED), Netns(path=PROCESS))
            planned = controller.reconcile(dry_run=True)
            assert planned.attached == ("named",)
            assert "would attach: sandbox 'named'" in str(planned)
            report = controller.reconcile()
            assert (report.attached, report.failed) == (("named",), ())
            assert controller.sandboxes["named"].is_attached
            assert inspected(controller.networks["n"].endpoints["named"]) == chosen
            assert controller.reconcile().is_clean
            # A process of that id is another one by now.
            assert not controller.sandboxes["process"].is_attached

    def test_one_that_is_back_before_anybody_looks_is_adopted_at_once(
        self, adopted: Controller, kernel: FakeKernel, reopen: Callable[[], Controller]
    ) -> None:
        kernel.reboot()
        kernel.plant(Netns(path=NAMED), Netns(path=PROCESS))
        with reopen() as controller:
            attached = [name for name, box in controller.sandboxes.items() if box.is_attached]
            assert attached == ["named", "own"]
            assert {veth.netns for veth in of_kind(kernel, Veth)} == {
                str(controller.sandboxes[name].netns_path) for name in attached
            }
            assert controller.reconcile().is_clean

    def test_a_pin_that_somebody_took_away_is_made_again_or_given_up(
        self, controller: Controller, kernel: FakeKernel
    ) -> None:
        boxes = {path: controller.new_sandbox(f"b{len(path)}", netns=path) for path in (NAMED, PROCESS)}
        for box in boxes.values():
            kernel.wreck(("netns", str(box.netns_path)))
        planned = controller.reconcile(dry_run=True)
        assert planned.detached == (boxes[PROCESS].name,)
        assert all(str(boxes[PROCESS].netns_path) not in str(step) for step in planned.repaired)
        report = controller.reconcile()
        assert report.detached == planned.detached
        assert "detach: sandbox" in str(report)
        assert boxes[NAMED].is_attached
        assert not boxes[PROCESS].is_attached
        assert report.failed == ()
        assert controller.reconcile().is_clean

    def test_two_that_reconcile_at_once_do_it_once(
        self, adopted: Controller, kernel: FakeKernel, store: MemoryStore
    ) -> None:
        kernel.reboot()
        around = [fake_surroundings(process=f"p{number}") for number in range(2)]
        with (
            Controller(store=store, kernel=kernel, surroundings=around[0]) as one,
            Controller(store=store, kernel=kernel, surroundings=around[1]) as other,
        ):
            reports: list[Report] = []

            def work(controller: Controller) -> None:
                reports.append(controller.reconcile())

            for step in range(2):
                threads = [threading.Thread(target=work, args=(each,)) for each in (one, other)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(60)
                assert [report.failed for report in reports] == [(), ()]
                changed = [name for report in reports for name in (*report.detached, *report.attached)]
                assert sorted(changed) == (["named"] if step else ["named", "process"])
                reports.clear()
                kernel.plant(Netns(path=NAMED))
            assert one.reconcile().is_clean

    @pytest.mark.parametrize("die_at", range(6))
    def test_a_move_that_a_crash_and_a_reboot_interrupt_ends_detached(
        self, kernel: FakeKernel, store: MemoryStore, reopen: Callable[[], Controller], die_at: int
    ) -> None:
        """Neither namespace is there any more; whatever was done, nothing fails for ever."""
        with Controller(store=store, kernel=kernel, surroundings=fake_surroundings()) as first:
            network = first.new_network("bridge", "n", subnets=["10.0.0.0/24"])
            for number in range(2):
                other = first.new_network("bridge", f"o{number}", subnets=[f"10.{number + 1}.0.0/24"])
                other.create_endpoint("e")
            network.create_endpoint("e", ports=["80"]).join(first.new_sandbox("s", netns=PROCESS))
        chaos = Chaos(kernel, die_at=die_at)
        victim = Controller(store=store, kernel=chaos, surroundings=fake_surroundings(process="victim"))
        with pytest.raises(BaseException, match="killed"):
            victim.sandboxes["s"].attach(NAMED)
        kernel.reboot()
        around = fake_surroundings(process="heir", dead=("victim",), boot="boot-2")
        with Controller(store=store, kernel=kernel, surroundings=around) as heir:
            report = heir.reconcile()
            assert report.failed == ()
            assert heir.reconcile().is_clean
            assert not heir.sandboxes["s"].is_attached
            kernel.plant(Netns(path=NAMED))
            heir.sandboxes["s"].attach(NAMED)
            assert len(of_kind(kernel, Veth)) == 1
            assert heir.reconcile().is_clean


class TestJunk:
    @pytest.mark.parametrize("netns", ["/no/such/file", 4712, "/run/netns/y", Path("/etc/passwd")])
    def test_what_is_not_there_is_not_found(
        self, controller: Controller, waiting: tuple[Sandbox, Endpoint], kernel: FakeKernel, netns: object
    ) -> None:
        sandbox, _ = waiting
        revision, log = controller.revision, kernel.log
        with pytest.raises(NotFoundError, match="is no network namespace, or no longer"):
            sandbox.attach(netns)
        assert (controller.revision, kernel.log) == (revision, log)

    @pytest.mark.parametrize(
        "netns", [None, "", "relative", "later", "host", 0, -1, True, 1.5, b"/x", "/a\0b", "/\ud800", [], {}]
    )
    def test_what_is_malformed_is_refused(self, waiting: tuple[Sandbox, Endpoint], netns: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid"):
            waiting[0].attach(netns)

    def test_a_deleted_one_is_gone(self, waiting: tuple[Sandbox, Endpoint]) -> None:
        sandbox, _ = waiting
        sandbox.delete()
        for attempt in (lambda: sandbox.attach(NAMED), sandbox.detach, lambda: sandbox.is_attached):
            with pytest.raises(NotFoundError, match="was deleted"):
                attempt()

    def test_a_closed_file_is_refused(self, waiting: tuple[Sandbox, Endpoint]) -> None:
        with Path("/proc/self/ns/net").open() as file:
            pass
        with pytest.raises(PynetworkError, match="closed file"):
            waiting[0].attach(file)


class TestRehearsals:
    def test_steps_are_told_and_not_taken(
        self, controller: Controller, waiting: tuple[Sandbox, Endpoint], kernel: FakeKernel
    ) -> None:
        sandbox, _ = waiting
        revision, log = controller.revision, kernel.log
        planned = sandbox.plan_attach(NAMED)
        assert "mount --bind /run/netns/x" in planned.render()
        assert "ip link add" in planned.render()
        assert (controller.revision, kernel.log) == (revision, log)
        sandbox.attach(NAMED)
        taken = [step for step in kernel.log[len(log) :] if step.verb is not Verb.EMIT]
        assert [step.resource.kind for step in taken] == [step.resource.kind for step in planned]
        assert sandbox.plan_attach(NAMED) == ()
        log = kernel.log
        planned = sandbox.plan_detach()
        assert kernel.log == log
        sandbox.detach()
        taken = [step for step in kernel.log[len(log) :] if step.verb is not Verb.EMIT]
        assert tuple(taken) == planned

    def test_what_is_refused_is_refused(self, waiting: tuple[Sandbox, Endpoint]) -> None:
        sandbox, _ = waiting
        with pytest.raises(NotFoundError, match="no longer"):
            sandbox.plan_attach("/run/netns/y")
        with pytest.raises(ConflictError, match="cannot be detached"):
            sandbox.plan_detach()
