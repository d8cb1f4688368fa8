"""What happens is told: once, in order, the same to every reader, and only what came to be so."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.controller.test_chaos import REQUESTS, _open, _prepare

from pynetwork import (
    ApplyError,
    Controller,
    Event,
    EventKind,
    EventReader,
    HistoryLostError,
    InvalidValueError,
    MemoryStore,
    PynetworkError,
    StoreError,
    Surroundings,
    UnavailableError,
)
from pynetwork.plan import Verb
from pynetwork.store import Put
from pynetwork.testing import Chaos, ChaosStore, FakeKernel, Fate, Killed, fake_surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def told(controller: Controller, since: int | Event = 0) -> list[Event]:
    """All events so far."""
    return list(controller.events(since=since, timeout=0))


def kinds(events: list[Event]) -> list[str]:
    return [str(event.kind) for event in events]


class TestWhatIsTold:
    def test_a_life_from_its_beginning_to_its_end(self, controller: Controller) -> None:
        network = controller.new_network("bridge", "n")
        endpoint = network.create_endpoint("e", ports=["8080:80"])
        sandbox = controller.new_sandbox("s")
        endpoint.join(sandbox)
        endpoint.publish("8081:81/udp")
        endpoint.unpublish("80")
        endpoint.rename("f")
        endpoint.leave()
        sandbox.rename("t")
        sandbox.delete()
        endpoint.delete()
        network.rename("m")
        network.delete()
        found = told(controller)
        assert [(str(e.kind), e.network, e.endpoint, e.sandbox, e.port, e.old_name) for e in found] == [
            ("network.created", "n", None, None, None, None),
            ("endpoint.created", "n", "e", None, None, None),
            ("sandbox.created", None, None, "s", None, None),
            ("endpoint.joined", "n", "e", "s", None, None),
            ("port.published", "n", "e", "s", "8080:80/tcp", None),
            ("port.published", "n", "e", "s", "8081:81/udp", None),
            ("port.unpublished", "n", "e", "s", "8080:80/tcp", None),
            ("endpoint.renamed", "n", "f", "s", None, "e"),
            ("port.unpublished", "n", "f", "s", "8081:81/udp", None),
            ("endpoint.left", "n", "f", "s", None, None),
            ("sandbox.renamed", None, None, "t", None, "s"),
            ("sandbox.deleted", None, None, "t", None, None),
            ("endpoint.deleted", "n", "f", None, None, None),
            ("network.renamed", "m", None, None, None, "n"),
            ("network.deleted", "m", None, None, None, None),
        ]
        for event in found:
            assert {event.network_id, event.endpoint_id, event.sandbox_id} <= {
                None,
                network.id,
                endpoint.id,
                sandbox.id,
            }
            assert (event.network is None) == (event.network_id is None)
            assert (event.endpoint is None) == (event.endpoint_id is None)
            assert (event.sandbox is None) == (event.sandbox_id is None)

    def test_a_sandbox_that_is_deleted_lets_go_of_its_endpoints_first(self, controller: Controller) -> None:
        sandbox = controller.new_sandbox("s")
        for name in ("a", "b"):
            network = controller.new_network("bridge", name)
            network.create_endpoint("e", ports=["80"]).join(sandbox)
        since = controller.revision
        sandbox.delete()
        found = told(controller, since)
        assert kinds(found) == [*["port.unpublished"] * 2, *["endpoint.left"] * 2, "sandbox.deleted"]
        assert {event.sandbox for event in found} == {"s"}

    def test_an_endpoint_that_is_deleted_by_force_leaves_first(self, controller: Controller) -> None:
        endpoint = controller.new_network("bridge", "n").create_endpoint("e", ports=["80"])
        endpoint.join(controller.new_sandbox("s"))
        since = controller.revision
        endpoint.delete(force=True)
        assert kinds(told(controller, since)) == ["port.unpublished", "endpoint.left", "endpoint.deleted"]

    def test_what_is_published_counts_when_it_is_in_force(self, controller: Controller) -> None:
        endpoint = controller.new_network("bridge", "n").create_endpoint("e")
        since = controller.revision
        endpoint.publish("8080:80")
        endpoint.unpublish("80")
        assert told(controller, since) == []

    def test_drift_is_told_by_what_it_is_about(self, controller: Controller, kernel: FakeKernel) -> None:
        network = controller.new_network("bridge", "n", options={"bridge": "br0"})
        endpoint = network.create_endpoint("e")
        endpoint.join(controller.new_sandbox("s"))
        since = controller.revision
        assert controller.reconcile().is_clean
        kernel.wreck(("link", None, endpoint.inspect()["link"]))
        assert not controller.reconcile(dry_run=True).is_clean
        assert told(controller, since) == []
        report = controller.reconcile()
        found, repaired = told(controller, since)
        assert (found.kind, repaired.kind) == (EventKind.DRIFT_FOUND, EventKind.DRIFT_REPAIRED)
        assert (found.network, found.endpoint, found.sandbox) == ("n", "e", "s")
        assert found.details == repaired.details == tuple(str(step) for step in report.repaired)

    def test_what_no_record_knows_is_drift_of_nothing(self, kernel: FakeKernel) -> None:
        with _open(MemoryStore(), kernel) as lost:
            _prepare(lost)
            for number in range(20):
                lost.new_sandbox(f"s{number}")
        with _open(MemoryStore(), kernel, "q") as controller:
            controller.reconcile()
            found, repaired = told(controller)
            assert kinds([found, repaired]) == ["drift.found", "drift.repaired"]
            assert found.network is found.endpoint is found.sandbox is None
            assert len(found.details) == 21
            assert found.details[-1].startswith("and ")

    def test_what_cannot_be_repaired_is_told(self, store: MemoryStore, kernel: FakeKernel) -> None:
        with _open(store, kernel) as controller:
            controller.new_network("bridge", "n", options={"bridge": "br0"})
            since = controller.revision
            kernel.wreck(("link", None, "br0"))
            controller._core.engine.kernel = Chaos(kernel, fail_at=0)
            assert controller.reconcile().failed
            assert kinds(told(controller, since)) == ["drift.found", "drift.failed"]

    def test_events_print_in_one_line(self, controller: Controller) -> None:
        controller.new_network("bridge", "n")
        (event,) = told(controller)
        assert str(event).endswith(" network.created network=n")
        assert str(event)[:4].isdigit()

    def test_they_know_when_it_was(self, controller: Controller) -> None:
        before = time.time()
        controller.new_network("bridge", "n")
        (event,) = told(controller)
        assert before <= event.time <= time.time()

    def test_kinds_can_be_chosen(self, controller: Controller) -> None:
        endpoint = controller.new_network("bridge", "n").create_endpoint("e")
        endpoint.join(controller.new_sandbox("s"))
        chosen = controller.events(since=0, timeout=0, kinds=["endpoint.joined", EventKind.SANDBOX_CREATED])
        assert kinds(list(chosen)) == ["sandbox.created", "endpoint.joined"]

    def test_what_an_unknown_version_tells_is_passed_over(
        self, controller: Controller, store: MemoryStore
    ) -> None:
        store.transact([], [Put("event/x", '{"v":1,"events":[{"kind":"moon.rose","details":[]}]}')])
        controller.new_network("bridge", "n")
        assert kinds(told(controller)) == ["network.created"]

    def test_a_damaged_record_is_an_error_of_ours(self, controller: Controller, store: MemoryStore) -> None:
        store.transact([], [Put("port/x/y", '{"v":1}')])
        with pytest.raises(StoreError, match="a record is damaged"):
            told(controller)


def _scenario(store: MemoryStore, kernel: FakeKernel) -> Controller:
    """All kinds of requests, some of which fail, die and are recovered, by three processes."""
    with _open(store, kernel) as first:
        _prepare(first)
        for name, request in REQUESTS.items():
            if name == "delete_network":
                continue
            chaos = Chaos(kernel, fail_at=1)
            first._core.engine.kernel = chaos
            with contextlib.suppress(PynetworkError):
                request(first)
            first._core.engine.kernel = kernel
            with contextlib.suppress(PynetworkError):
                request(first)
    for at, name in enumerate(("join", "delete_sandbox", "new_network", "leave_with_gateway", "publish")):
        fate = Fate()
        victim = _open(ChaosStore(store, fate=fate), Chaos(kernel, die_at=at % 3, fate=fate), f"victim{at}")
        with contextlib.suppress(Killed, PynetworkError):
            for each in victim.networks.values():
                for endpoint in each.endpoints.values():
                    if endpoint.sandbox is None:
                        endpoint.join(victim.sandboxes["new"])
            REQUESTS[name](victim)
        _open(store, kernel, f"heir{at}", dead=tuple(f"victim{n}" for n in range(at + 1))).close()
    return _open(store, kernel, "last", dead=tuple(f"victim{n}" for n in range(9)))


class TestReaders:
    def test_from_any_revision_the_rest_is_the_same(self) -> None:
        """So nothing is lost between a reader that ends and the next, and nothing is told twice."""
        store, kernel = MemoryStore(), FakeKernel()
        with _scenario(store, kernel) as controller:
            everything = told(controller)
            assert len(everything) >= 30
            for since in range(controller.revision + 1):
                rest = [event for event in everything if event.revision > since]
                assert told(controller, since) == rest, since

    def test_events_add_up_to_what_there_is(self) -> None:
        """Whatever failed or was undone is not among them."""
        store, kernel = MemoryStore(), FakeKernel()
        with _scenario(store, kernel) as controller:
            objects: set[tuple[str, str | None]] = set()
            members: dict[str | None, str | None] = {}
            ports: set[tuple[str | None, str | None]] = set()
            for event in told(controller):
                word, _, verb = event.kind.partition(".")
                if verb == "created":
                    assert (word, getattr(event, f"{word}_id")) not in objects
                    objects.add((word, getattr(event, f"{word}_id")))
                elif verb == "deleted":
                    objects.remove((word, getattr(event, f"{word}_id")))
                elif event.kind is EventKind.ENDPOINT_JOINED:
                    assert event.endpoint_id not in members
                    members[event.endpoint_id] = event.sandbox_id
                elif event.kind is EventKind.ENDPOINT_LEFT:
                    assert members.pop(event.endpoint_id) == event.sandbox_id
                elif event.kind is EventKind.PORT_PUBLISHED:
                    assert (event.endpoint_id, event.port) not in ports
                    ports.add((event.endpoint_id, event.port))
                elif event.kind is EventKind.PORT_UNPUBLISHED:
                    ports.remove((event.endpoint_id, event.port))
            endpoints = [e for n in controller.networks.values() for e in n.endpoints.values()]
            assert objects == {
                *(("network", network.id) for network in controller.networks.values()),
                *(("endpoint", endpoint.id) for endpoint in endpoints),
                *(("sandbox", sandbox.id) for sandbox in controller.sandboxes.values()),
            }
            assert members == {e.id: e.sandbox.id for e in endpoints if e.sandbox}
            in_force = [e for e in endpoints if e.sandbox and e.sandbox.is_attached]
            assert ports == {(e.id, str(port)) for e in in_force for port in e.ports}

    @pytest.mark.parametrize("name", REQUESTS)
    def test_a_request_that_fails_at_any_step_tells_nothing(self, name: str) -> None:
        for n in itertools.count():
            store, kernel = MemoryStore(), FakeKernel()
            with _open(store, kernel) as controller:
                _prepare(controller)
                since = controller.revision
                chaos = Chaos(kernel, fail_at=n)
                controller._core.engine.kernel = chaos
                try:
                    REQUESTS[name](controller)
                except ApplyError:
                    if name != "delete_network":
                        assert told(controller, since) == []
                else:
                    assert not chaos.fired
                    break

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("name", ["join_with_ports", "delete_sandbox", "leave_with_gateway", "publish"])
    def test_a_process_that_dies_at_any_write_is_told_of_as_it_came_out(self, name: str, after: bool) -> None:
        for n in itertools.count():
            store, kernel = MemoryStore(), FakeKernel()
            with _open(store, kernel) as first:
                _prepare(first)
            fate = Fate()
            chaos = ChaosStore(store, die_at=n, after=after, fate=fate)
            with contextlib.suppress(Killed):
                REQUESTS[name](_open(chaos, Chaos(kernel, fate=fate), "victim"))
            with _open(store, kernel, "watcher") as watcher:  # opened before anybody recovers
                reader = watcher.events(since=0, timeout=0)
                early = list(reader)
                with _open(store, kernel, "heir", dead=("victim",)) as heir:
                    everything = told(heir)
                    assert [*early, *reader] == everything
            joined = {e.endpoint_id for e in everything if e.kind is EventKind.ENDPOINT_JOINED}
            left = [e.endpoint_id for e in everything if e.kind is EventKind.ENDPOINT_LEFT]
            endpoints = [row.spec for row in heir._core.records.endpoints.values()]
            assert joined.difference(left) == {spec.id for spec in endpoints if spec.sandbox}
            if not chaos.fired:
                break

    def test_what_is_recorded_as_done_a_little_later_is_told_all_the_same(self, kernel: FakeKernel) -> None:
        """A join, a leave and a join again, each before the last one is settled."""
        around = Surroundings(
            process_identity=lambda: "p", is_alive=lambda _: True, boot_id=lambda: "b", settle_seconds=60.0
        )
        store = MemoryStore()
        with Controller(store=store, kernel=kernel, surroundings=around) as controller:
            endpoint = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"]).create_endpoint("e")
            one, other = controller.new_sandbox("one"), controller.new_sandbox("other")
            for sandbox in (one, one, other):
                endpoint.join(sandbox)
                endpoint.leave()
            endpoint.join(other)
            wanted = ["endpoint.joined", "endpoint.left"]
            found = [e for e in told(controller) if e.kind in wanted]
            assert [e.sandbox for e in found] == ["one", "one", "one", "one", "other", "other"]
            assert kinds(found) == wanted * 3
            where = controller.revision  # settles
            last = told(controller)[-1]
            assert last.revision == where
            assert (last.kind, last.sandbox) == (EventKind.ENDPOINT_JOINED, "other")

    def test_another_process_is_followed_as_well(self, store: MemoryStore, kernel: FakeKernel) -> None:
        with _open(store, kernel) as mine, _open(store, kernel, "q") as other:
            events = mine.events(timeout=30)
            other.new_network("bridge", "n")
            assert next(events).network == "n"

    def test_an_event_is_where_to_go_on(self, controller: Controller) -> None:
        sandbox = controller.new_sandbox("s")
        for name in ("a", "b"):
            network = controller.new_network("bridge", name)
            network.create_endpoint("e", ports=["80", "81"]).join(sandbox)
        sandbox.delete()
        everything = told(controller)
        for number, event in enumerate(everything):
            assert told(controller, event) == everything[number + 1 :]

    def test_a_reader_says_where_to_go_on(self, controller: Controller) -> None:
        for number in range(20):
            controller.new_sandbox(f"s{number}")
        everything = told(controller)
        reader = controller.events(since=0, timeout=0)
        seen = list(itertools.islice(reader, 7))
        assert seen + told(controller, reader.revision) == everything
        assert [*seen, *reader] == everything
        assert reader.revision == controller.revision

    def test_readers_that_share_an_iterator_get_each_event_once(self, controller: Controller) -> None:
        reader = controller.events(timeout=30)
        found: list[Event] = []

        def read() -> None:
            found.extend(reader)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(50):
            controller.new_sandbox(f"s{number}")
        everything = told(controller)
        deadline = time.monotonic() + 30
        while len(found) < 50 and time.monotonic() < deadline:
            time.sleep(0.001)
        reader.close()
        for thread in threads:
            thread.join(30)
        assert sorted(found, key=lambda event: event.revision) == everything

    def test_whoever_begins_in_the_middle_of_a_request_hears_how_it_ends(
        self, store: MemoryStore, kernel: FakeKernel
    ) -> None:
        with _open(store, kernel) as controller:
            _prepare(controller)
            readers: list[EventReader] = []

            class Watched(FakeKernel):
                def apply(self, steps: Any, *, replay: bool = False) -> None:
                    if all(step.verb is not Verb.EMIT for step in steps):
                        readers.append(controller.events(timeout=0))
                    kernel.apply(steps, replay=replay)

            controller._core.engine.kernel = Watched()
            controller.sandboxes["box"].delete()
            assert readers
            for reader in readers:
                assert kinds(list(reader))[-3:] == ["endpoint.left", "endpoint.left", "sandbox.deleted"]


class TestWaiting:
    def test_a_timeout_ends_it_and_it_can_be_gone_on_with(self, controller: Controller) -> None:
        reader = controller.events(timeout=0.01)
        assert list(reader) == []
        controller.new_sandbox("s")
        assert kinds(list(reader)) == ["sandbox.created"]
        assert list(reader) == []

    @pytest.fixture
    def waiting(self, controller: Controller) -> Iterator[tuple[EventReader, Callable[[], bool]]]:
        """A reader that a thread waits for, and a function that says whether the thread has ended."""
        reader = controller.events()
        thread = threading.Thread(target=list, args=(reader,), daemon=True)
        thread.start()

        def has_ended() -> bool:
            thread.join(30)
            return not thread.is_alive()

        yield reader, has_ended
        reader.close()
        thread.join(30)

    def test_another_thread_may_close_it(self, waiting: tuple[EventReader, Callable[[], bool]]) -> None:
        reader, has_ended = waiting
        reader.close()
        assert has_ended()
        assert list(reader) == []
        reader.close()

    def test_it_ends_with_its_controller(
        self, controller: Controller, waiting: tuple[EventReader, Callable[[], bool]]
    ) -> None:
        controller.close()
        assert waiting[1]()
        with pytest.raises(PynetworkError, match="the controller is closed"):
            controller.events()

    def test_it_is_a_context_manager_and_says_where_it_is(self, controller: Controller) -> None:
        where = controller.revision
        with controller.events() as reader:
            assert repr(reader) == f"<EventReader at revision {where}>"
        assert repr(reader) == f"<EventReader at revision {where} (closed)>"
        assert list(reader) == []


class TestHistory:
    @pytest.fixture
    def small(self, kernel: FakeKernel) -> Iterator[Controller]:
        around = fake_surroundings()
        with Controller(store=MemoryStore(history=64), kernel=kernel, surroundings=around) as controller:
            yield controller

    def test_too_long_ago_is_said(self, small: Controller) -> None:
        first = small.events(since=0, timeout=0)
        for _ in range(40):
            small.new_sandbox("s").delete()
        for attempt in (lambda: next(first), lambda: small.events(since=1)):
            with pytest.raises(HistoryLostError, match="look at what there is now") as caught:
                attempt()
            assert caught.value.since in {0, 1}

    def test_what_is_left_is_complete(self, small: Controller) -> None:
        for _ in range(40):
            small.new_sandbox("s").delete()
        since = small.revision
        for _ in range(5):
            small.new_sandbox("s").delete()
        assert kinds(told(small, since)) == ["sandbox.created", "sandbox.deleted"] * 5

    def test_a_slow_reader_holds_a_bounded_number_of_events(self, controller: Controller) -> None:
        reader = controller.events(since=0, timeout=0)
        for number in range(600):
            controller.new_sandbox(f"s{number}")
        next(reader)
        assert 0 < len(reader._ready) <= 512


def test_a_store_without_a_history_is_said_to_have_none(kernel: FakeKernel) -> None:
    class Forgetful:
        """What somebody wrote for an earlier version."""

        def __init__(self) -> None:
            store = MemoryStore()
            for name in ("get", "list", "transact", "changes", "watch", "close"):
                setattr(self, name, getattr(store, name))

    store: Any = Forgetful()
    with Controller(store=store, kernel=kernel, surroundings=fake_surroundings()) as controller:
        with pytest.raises(UnavailableError, match="keeps no history"):
            controller.events()
        controller.new_sandbox("s")


@pytest.mark.parametrize(
    "arguments",
    [
        {"since": -1},
        {"since": 10**9},
        {"since": 1.5},
        {"since": True},
        {"since": "1"},
        {"timeout": -1},
        {"timeout": "1"},
        {"timeout": float("nan")},
        {"timeout": True},
        {"kinds": "network.created"},
        {"kinds": ["network.exploded"]},
        {"kinds": [1]},
        {"kinds": 1},
    ],
)
def test_junk_is_refused(controller: Controller, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="invalid"):
        controller.events(**arguments)
