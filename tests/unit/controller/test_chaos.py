"""Fail at every step, die at every step: the host is as before, or the next process makes it right."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from pynetwork import ApplyError, ConflictError, Controller, MemoryStore, NotFoundError, PynetworkError
from pynetwork.resources import Netns, PublishedPort
from pynetwork.testing import Chaos, ChaosStore, FakeKernel, Fate, Killed, fake_surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork import Network
    from pynetwork.kernel.port import Kernel
    from pynetwork.store import Store


def _open(store: Store, kernel: Kernel, process: str = "p", dead: tuple[str, ...] = ()) -> Controller:
    return Controller(store=store, kernel=kernel, surroundings=fake_surroundings(process=process, dead=dead))


#: Namespaces of somebody else's.
_ELSEWHERE = ("/run/netns/x", "/proc/4711/ns/net")
#: Published by the joined endpoint of each network: one to one, any, a run, a run that is shifted.
_PORTS = (["8080:80", "81", "9000-9001:9000-9001"], ["[::]:90-92:80-82/udp"])


def _prepare(controller: Controller) -> None:
    """Two networks, a sandbox in both, another in none, endpoints joined and not, all with ports."""
    for number, options in enumerate(({"bridge": "br0"}, {"mtu": 1400})):
        network = controller.new_network(
            "bridge", f"n{number}", subnets=[f"10.{number}.0.0/24", f"fd0{number}::/64"], options=options
        )
        network.create_endpoint("joined", routes=["192.0.2.0/24"] if number else [], ports=_PORTS[number])
        network.create_endpoint("free", priority=number, ports=["127.0.0.1:7000:80", "53/udp"][number:])
    box = controller.new_sandbox("box", extra_hosts={"host": "host-gateway"}, limits={"pids": 100})
    controller.new_sandbox("empty")
    for sandbox in (box, controller.new_sandbox("filed")):
        assert sandbox.hosts_path.name == "hosts"  # from now on it has files
    for network in controller.networks.values():
        network.endpoints["joined"].join(box)
    kernel = controller._core.engine.kernel
    assert isinstance(kernel, FakeKernel)
    kernel.plant(*(Netns(path=path) for path in _ELSEWHERE))
    later = controller.new_sandbox("later", netns="later")
    adopted = controller.new_sandbox("adopted", netns=_ELSEWHERE[0])
    for port, network in zip(("9100", "9200"), controller.networks.values(), strict=True):
        waiting = network.create_endpoint("waiting", ports=[f"{port}:80"])
        network.create_endpoint("adopted", ports=[f"1{port}:80/udp"]).join(adopted)
    waiting.join(later)


def _delete_network(network: Network) -> None:
    for endpoint in network.endpoints.values():
        endpoint.delete(force=True)
    network.delete()


REQUESTS: dict[str, Callable[[Controller], object]] = {
    "new_network": lambda c: c.new_network("bridge", "new", ipv4=True, ipv6=True),
    "delete_network": lambda c: _delete_network(c.networks["n0"]),
    "new_sandbox": lambda c: c.new_sandbox("new"),
    "new_limited_sandbox": lambda c: c.new_sandbox("new", limits={"memory": 1 << 26, "cpus": 0.5, "pids": 9}),
    "make_files": lambda c: c.sandboxes["empty"].resolv_conf_path,
    "delete_sandbox": lambda c: c.sandboxes["box"].delete(),
    "create_endpoint": lambda c: c.networks["n0"].create_endpoint("new"),
    "delete_endpoint": lambda c: c.networks["n0"].endpoints["free"].delete(),
    "force_delete_endpoint": lambda c: c.networks["n0"].endpoints["joined"].delete(force=True),
    "join_with_files": lambda c: c.networks["n1"].endpoints["free"].join(c.sandboxes["filed"]),
    "join": lambda c: c.networks["n1"].endpoints["free"].join(c.sandboxes["empty"]),
    "leave_with_gateway": lambda c: c.networks["n0"].endpoints["joined"].leave(),
    "create_endpoint_with_ports": lambda c: c.networks["n0"].create_endpoint("new", ports=["80", "8081:80"]),
    "join_with_ports": lambda c: c.networks["n0"].endpoints["free"].join(c.sandboxes["empty"]),
    "leave_with_ports": lambda c: c.networks["n1"].endpoints["joined"].leave(),
    "publish": lambda c: c.networks["n1"].endpoints["joined"].publish("127.0.0.1:1-3:1-3"),
    "publish_before_join": lambda c: c.networks["n1"].endpoints["free"].publish("5000:80"),
    "unpublish": lambda c: c.networks["n0"].endpoints["joined"].unpublish("80"),
    "unpublish_many": lambda c: c.networks["n1"].endpoints["joined"].unpublish("80-82/udp"),
    "unpublish_before_join": lambda c: c.networks["n0"].endpoints["free"].unpublish("80"),
    "new_sandbox_for_later": lambda c: c.new_sandbox("new", netns="later"),
    "join_later": lambda c: c.networks["n0"].endpoints["free"].join(c.sandboxes["later"]),
    "attach": lambda c: c.sandboxes["later"].attach(_ELSEWHERE[0]),
    "attach_elsewhere": lambda c: c.sandboxes["box"].attach(_ELSEWHERE[1]),
    "attach_what_was_adopted": lambda c: c.sandboxes["adopted"].attach(4711),
    "detach": lambda c: c.sandboxes["box"].detach(),
    "detach_what_was_adopted": lambda c: c.sandboxes["adopted"].detach(),
    "delete_later": lambda c: c.sandboxes["later"].delete(),
    "publish_later": lambda c: c.networks["n1"].endpoints["waiting"].publish("5000:80"),
    "rename": lambda c: c.networks["n0"].rename("other"),
}


#: They touch nothing on the host.
_RECORDS_ONLY = {
    "create_endpoint",
    "create_endpoint_with_ports",
    "delete_endpoint",
    "delete_later",
    "join_later",
    "new_sandbox_for_later",
    "publish_before_join",
    "publish_later",
    "rename",
    "unpublish_before_join",
}


def _records(store: Store) -> dict[str, str]:
    """What is recorded, less what only grows: locks, and addresses at rest."""
    return {
        entry.key: entry.value
        for entry in store.list("").entries
        if not entry.key.startswith(("lock/", "meta/")) and '"freed"' not in entry.value
    }


def _state(kernel: FakeKernel) -> set[object]:
    return set(kernel.resources)


def _failure_of(request: Callable[[], object]) -> ApplyError | None:
    try:
        request()
    except ApplyError as error:
        return error
    return None


def _check_consistent(controller: Controller, kernel: FakeKernel) -> None:
    """The host is what the plans say, the plans are what the records say, nothing is left to do."""
    world = controller._core.engine.world
    assert not world.intents
    expected = {resource for scoped in world.scopes.values() for resource in scoped.plan}
    assert {r for r in kernel.resources if r.kind not in {"sysctl", "link_sysctl"}} == {
        r for r in expected if r.kind not in {"sysctl", "link_sysctl"}
    }
    assert _published(kernel) == _recorded_ports(controller)
    assert controller.reconcile().is_clean


def _published(kernel: FakeKernel) -> set[tuple[object, ...]]:
    """The host's rules for ports: protocol, address and ports of the host, where they lead."""
    return {
        (rule.proto, rule.host, rule.first, rule.last, rule.target, rule.target_first)
        for rule in kernel.resources
        if isinstance(rule, PublishedPort)
    }


def _recorded_ports(controller: Controller) -> set[tuple[object, ...]]:
    """What :func:`_published` should say."""
    found: set[tuple[object, ...]] = set()
    for network in controller.networks.values():
        for endpoint in network.endpoints.values():
            is_in_force = endpoint.sandbox is not None and endpoint.sandbox.is_attached
            for binding in endpoint.ports if is_in_force else ():
                host = binding.host_address
                is_any = host is None or host.is_unspecified
                for address in endpoint.addresses:
                    if host is None or host.version == address.version:
                        ports = (binding.host_port, binding.host_end)
                        where = None if is_any else str(host)
                        found.add((binding.proto, where, *ports, str(address.ip), binding.first))
    return found


@pytest.mark.parametrize("half_done", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_fails_at_any_step_leaves_the_host_and_the_records_as_before(
    name: str, half_done: bool
) -> None:
    fired = 0
    for n in itertools.count():
        store, kernel = MemoryStore(), FakeKernel()
        with _open(store, kernel) as controller:
            _prepare(controller)
            before, recorded = _state(kernel), _records(store)
            chaos = Chaos(kernel, fail_at=n, half_done=half_done)
            controller._core.engine.kernel = chaos
            error = _failure_of(lambda: REQUESTS[name](controller))
            if error is not None:
                fired += 1
                assert error.rolled_back
                assert not error.leftovers
                assert error.step
                assert error.origin.partition(":")[0].endswith(".py")
                assert isinstance(error.__cause__, OSError)
                if name != "delete_network":  # that is several requests
                    assert _state(kernel) == before
                    assert _records(store) == recorded
                _check_consistent(controller, kernel)
                REQUESTS[name](controller)
            assert chaos.fired == (fired > n)
            if not chaos.fired:
                break
    assert fired or name in _RECORDS_ONLY


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_whose_undo_fails_too_says_what_is_left_and_reconcile_clears_it(name: str) -> None:
    for n in itertools.count():
        store, kernel = MemoryStore(), FakeKernel()
        with _open(store, kernel) as controller:
            _prepare(controller)
            chaos = Chaos(kernel, fail_at=n, half_done=True, fail_undo=True)
            controller._core.engine.kernel = chaos
            error = _failure_of(lambda: REQUESTS[name](controller))
            if error is not None:
                assert error.leftovers or error.rolled_back
                assert all(line in str(error) for line in error.leftovers)
            controller._core.engine.kernel = kernel
            report = controller.reconcile()
            assert not report.failed, str(report)
            _check_consistent(controller, kernel)
            if not chaos.fired:
                break


@pytest.mark.parametrize("name", REQUESTS)
def test_a_process_that_dies_at_any_step_is_finished_or_undone_by_the_next(name: str) -> None:
    for n in itertools.count():
        store, kernel = MemoryStore(), FakeKernel()
        with _open(store, kernel) as first:
            _prepare(first)
        fate = Fate()
        chaos = Chaos(kernel, die_at=n, fate=fate)
        victim = _open(ChaosStore(store, fate=fate), chaos, "victim")
        with contextlib.suppress(Killed):
            REQUESTS[name](victim)
        with _open(store, kernel, "heir", dead=("victim",)) as heir:
            _check_consistent(heir, kernel)
            if chaos.fired and name != "delete_network":
                _again(name, heir)
                _check_consistent(heir, kernel)
        if not chaos.fired:
            break


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_process_that_dies_at_any_write_is_finished_or_undone_by_the_next(name: str, after: bool) -> None:
    for n in itertools.count():
        store, kernel = MemoryStore(), FakeKernel()
        with _open(store, kernel) as first:
            _prepare(first)
        fate = Fate()
        chaos = ChaosStore(store, die_at=n, after=after, fate=fate)
        with contextlib.suppress(Killed):
            victim = _open(chaos, Chaos(kernel, fate=fate), "victim")
            REQUESTS[name](victim)
        with _open(store, kernel, "heir", dead=("victim",)) as heir:
            _check_consistent(heir, kernel)
            if chaos.fired and name != "delete_network":
                _again(name, heir)
                _check_consistent(heir, kernel)
        if not chaos.fired:
            break


def _again(name: str, controller: Controller) -> None:
    """Ask again for what a dead process may or may not have got done: nothing else is in the way."""
    with contextlib.suppress(ConflictError, NotFoundError):
        REQUESTS[name](controller)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_store_that_fails_at_any_write_leaves_the_host_as_before(name: str) -> None:
    for n in itertools.count():
        store, kernel = MemoryStore(), FakeKernel()
        with _open(store, kernel) as controller:
            _prepare(controller)
            before, recorded = _state(kernel), _records(store)
            chaos = ChaosStore(store, fail_at=n)
            controller._core.engine.mirror.store = chaos
            failed = False
            try:
                REQUESTS[name](controller)
            except PynetworkError:
                failed = True
                if name != "delete_network":
                    assert _state(kernel) == before
            controller.reconcile()
            # Where the write fails that says that all is done, all is done nevertheless.
            if failed and name != "delete_network":
                assert _records(store) == recorded
            _check_consistent(controller, kernel)
            if not chaos.fired:
                break


def test_a_host_that_was_rebooted_is_made_again() -> None:
    store, kernel = MemoryStore(), FakeKernel()
    with _open(store, kernel) as controller:
        _prepare(controller)
        before = _state(kernel)
    kernel.reboot()
    kernel.plant(Netns(path=_ELSEWHERE[0]))  # whoever made it has made it again
    around = fake_surroundings(process="q", boot="boot-2")
    with Controller(store=store, kernel=kernel, surroundings=around) as controller:
        assert _state(kernel) == before
        _check_consistent(controller, kernel)


def test_whatever_is_wrecked_is_repaired_and_what_no_record_knows_is_pruned() -> None:
    store, kernel = MemoryStore(), FakeKernel()
    with _open(store, kernel) as controller:
        _prepare(controller)
        before = _state(kernel)
        for resource in kernel.resources:
            if resource.kind in {"sysctl", "link_sysctl", "up"}:
                continue
            kernel.wreck(resource.key)
            planned = controller.reconcile(dry_run=True)
            assert planned.dry_run
            assert "would repair" in str(planned)
            assert _state(kernel) != before
            report = controller.reconcile()
            assert report.repaired == planned.repaired
            assert not report.failed, str(report)
            assert _state(kernel) == before, resource
            assert controller.reconcile().is_clean


def test_an_interrupted_request_is_undone() -> None:
    """Ctrl-C comes as KeyboardInterrupt out of the kernel, at any step."""

    class Interrupting(FakeKernel):
        armed = False

        def apply(self, steps, *, replay=False):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if self.armed and not replay:
                super().apply(steps[:2], replay=replay)
                raise KeyboardInterrupt
            super().apply(steps, replay=replay)

    store, kernel = MemoryStore(), Interrupting()
    with _open(store, kernel) as controller:
        _prepare(controller)
        before = _state(kernel)
        kernel.armed = True
        with pytest.raises(KeyboardInterrupt):
            controller.networks["n1"].endpoints["free"].join(controller.sandboxes["empty"])
        kernel.armed = False
        assert _state(kernel) == before
        _check_consistent(controller, kernel)


def test_prune_deletes_what_carries_our_tag_and_is_in_no_record() -> None:
    kernel = FakeKernel()
    with _open(MemoryStore(), kernel) as lost:
        _prepare(lost)
    with _open(MemoryStore(), kernel, "q") as controller:
        report = controller.reconcile()
        assert report.pruned
        assert "prune: ip link delete br0" in str(report)
        assert {resource.kind for resource in kernel.resources} == {"sysctl"}  # kept, whoever needs them
        assert controller.reconcile().is_clean
