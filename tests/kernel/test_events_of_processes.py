"""Events of several processes on the real host: complete, in one order, whoever looks and from when on."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pynetwork import Controller, EventKind
from pynetwork.testing import Child

if TYPE_CHECKING:
    from pynetwork import Event

pytestmark = pytest.mark.root

LIVES = 60
PER_LIFE = [
    EventKind.SANDBOX_CREATED,
    EventKind.ENDPOINT_CREATED,
    EventKind.ENDPOINT_JOINED,
    EventKind.PORT_PUBLISHED,
    EventKind.PORT_UNPUBLISHED,
    EventKind.ENDPOINT_LEFT,
    EventKind.SANDBOX_DELETED,
    EventKind.ENDPOINT_DELETED,
]


def live(name: str, count: str) -> None:
    from pynetwork import Controller
    from pynetwork.testing import reach

    with Controller() as controller:
        network = controller.networks["n"]
        reach("start")
        for number in range(int(count)):
            box = controller.new_sandbox(f"{name}{number}")
            endpoint = network.create_endpoint(f"{name}{number}", ports=["80"])
            endpoint.join(box)
            box.delete()
            endpoint.delete()


def test_hundreds_of_changes_by_two_processes_are_told_completely(controller: Controller) -> None:
    """One reader from the start, others that begin in the middle: they agree on what each of them saw."""
    controller.new_network("bridge", "n", subnets=["10.64.0.0/16"])
    since = controller.revision
    with ExitStack() as stack:
        children = [stack.enter_context(Child(live, name, str(LIVES), timeout=60)) for name in "ab"]
        for child in children:
            child.wait_for("start")
        reader = controller.events(since=since, timeout=30)
        for child in children:
            child.proceed()
        everything: list[Event] = []
        later = []
        while len(everything) < 2 * LIVES * len(PER_LIFE):
            everything.append(next(reader))
            if len(everything) % 97 == 0:
                later.append(controller.events(since=everything[-1].revision, timeout=0))
                later.append(controller.events(timeout=0))  # from now on, which is a little later
        assert [child.wait() for child in children] == [0, 0]
    assert list(controller.events(since=everything[-1], timeout=0)) == []
    by_name: dict[str | None, list[EventKind]] = {}
    for event in everything:
        by_name.setdefault(event.endpoint or event.sandbox, []).append(event.kind)
    assert len(by_name) == 2 * LIVES
    for name, found in by_name.items():
        assert found == PER_LIFE, name
    assert len({(event.revision, event.index) for event in everything}) == len(everything)
    assert everything == sorted(everything, key=lambda event: (event.revision, event.index))
    for other in later:
        rest = list(other)
        assert rest == everything[len(everything) - len(rest) :]
        assert len(rest) < len(everything)


def die_in_a_join(at: str) -> None:
    from pynetwork import Controller
    from pynetwork.testing import SuicidalKernel

    controller = Controller()
    controller._core.engine.kernel = SuicidalKernel(controller._core.engine.kernel, int(at))
    controller.networks["n"].endpoints["e"].join(controller.sandboxes["s"])


def test_a_process_that_is_killed_is_told_of_as_it_came_out(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.64.0.0/16"])
    network.create_endpoint("e")
    controller.new_sandbox("s")
    reader = controller.events(timeout=0)
    outcomes: Counter[bool] = Counter()
    for at in range(8):
        with Child(die_in_a_join, str(at), timeout=60) as child:
            killed = child.wait() == -signal.SIGKILL
        controller.reconcile()
        endpoint = network.endpoints["e"]
        is_joined = endpoint.sandbox is not None
        found = [event.kind for event in reader if not event.kind.startswith("drift.")]
        assert found == ([EventKind.ENDPOINT_JOINED] if is_joined else [])
        outcomes[is_joined] += 1
        if is_joined:
            endpoint.leave()
            assert [event.kind for event in controller.events(since=reader.revision, timeout=1)]
            assert [event.kind for event in reader] == [EventKind.ENDPOINT_LEFT]
        if not killed:
            break
    assert outcomes[False]
    assert outcomes[True]


def test_the_name_servers_figures_are_among_the_counters(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.64.0.0/16"])
    box = controller.new_sandbox("s")
    network.create_endpoint("e").join(box)
    box.run(["dig", "+short", "@127.0.0.11", "e"], check=True, capture_output=True)
    deadline = time.monotonic() + 10
    while not controller.dns_statistics().queries and time.monotonic() < deadline:
        time.sleep(0.001)  # it counts when it has answered
    families = {family.name: family for family in text_string_to_metric_families(controller.metrics())}
    (queries,) = families["pynetwork_dns_queries"].samples
    assert (queries.name, queries.value) == ("pynetwork_dns_queries_total", 1)
    assert families["pynetwork_dns_sandboxes"].samples[0].value == 1
    assert families["pynetwork_apply_seconds"].samples[-1].value > 0
