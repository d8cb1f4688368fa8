"""The counters in Prometheus' text format: its own parser reads them, and they are right."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pynetwork import ApplyError, ConflictError, Controller, PynetworkError
from pynetwork.engine.counters import BOUNDS, Counters, Durations
from pynetwork.metrics import _histogram
from pynetwork.resources import Netns
from pynetwork.testing import Chaos, FakeKernel

if TYPE_CHECKING:
    from collections.abc import Mapping


def parsed(controller: Controller) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Name to labels to value, as the official parser reads them."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(controller.metrics()):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            assert sample.name.startswith("pynetwork_")
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


def value(controller: Controller, name: str, **labels: str) -> float:
    return parsed(controller)[f"pynetwork_{name}"][frozenset(labels.items())]


def test_a_new_instance_has_counted_nothing(controller: Controller) -> None:
    found = parsed(controller)
    assert found["pynetwork_info"] == {frozenset({("instance", controller.inspect()["instance"])}): 1.0}
    for name in ("networks", "endpoints", "sandboxes", "ports_published", "requests_under_way"):
        assert found[f"pynetwork_{name}"] == {frozenset(): 0.0}
    assert "pynetwork_requests_total" not in found  # the family is there, without values
    assert "# TYPE pynetwork_requests_total counter" in controller.metrics()


def test_objects_are_counted_as_they_are_now(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
    endpoint = network.create_endpoint("e", ports=["80", "81"])
    network.create_endpoint("free")
    endpoint.join(controller.new_sandbox("s"))
    controller.new_sandbox("t", netns="later")
    found = {
        name: labels[frozenset()] for name, labels in parsed(controller).items() if frozenset() in labels
    }
    wanted = {"networks": 1, "endpoints": 2, "endpoints_joined": 1, "sandboxes": 2, "sandboxes_detached": 1}
    wanted |= {"ports_published": 2, "requests_under_way": 0}
    assert {name: found[f"pynetwork_{name}"] for name in wanted} == wanted
    assert found["pynetwork_revision"] == controller.revision


def test_pools_tell_how_full_they_are(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/29"])
    gone = network.create_endpoint("gone")
    network.create_endpoint("here")
    gone.delete()
    (usage,) = network.usage().values()
    labels = {"network": "n", "subnet": "10.0.0.0/29"}
    for state in ("taken", "quarantined", "free"):
        assert value(controller, "pool_addresses", **labels, state=state) == getattr(usage, state)
    assert usage.quarantined == 1


def test_requests_are_counted_by_kind_and_outcome(controller: Controller, kernel: FakeKernel) -> None:
    network = controller.new_network("bridge", "n")
    endpoint = network.create_endpoint("e")
    sandbox = controller.new_sandbox("s")
    endpoint.join(sandbox)
    endpoint.leave()
    for _ in range(2):
        with pytest.raises(ConflictError):
            controller.new_sandbox("s")
    controller._core.engine.kernel = Chaos(kernel, fail_at=0)
    with pytest.raises(ApplyError):
        endpoint.join(sandbox)
    controller._core.engine.kernel = kernel
    kernel.plant(Netns(path="/run/netns/x"))
    sandbox.attach("/run/netns/x")
    endpoint.rename("f")
    network.create_endpoint("p").publish("80")
    found = {
        tuple(sorted(dict(labels).values())): count
        for labels, count in parsed(controller)["pynetwork_requests_total"].items()
    }
    assert found == {
        ("create_network", "done"): 1,
        ("create_endpoint", "done"): 2,
        ("create_sandbox", "done"): 1,
        ("create_sandbox", "refused"): 2,
        ("done", "join_endpoint"): 1,
        ("failed", "join_endpoint"): 1,
        ("done", "leave_endpoint"): 1,
        ("attach_sandbox", "done"): 1,
        ("done", "rename_endpoint"): 1,
        ("done", "publish"): 1,
    }
    assert value(controller, "request_seconds_count") == sum(found.values())
    # Those that only write are not applied; nor is what was refused, or failed.
    assert value(controller, "apply_seconds_count") == 5


def test_a_histogram_is_cumulative() -> None:
    durations = Durations()
    for seconds in (0.0, BOUNDS[0], 0.0006, 3.0, 60.0):
        durations.add(seconds)
    (family,) = text_string_to_metric_families(_histogram("x", "X.", durations))
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name == "pynetwork_x_bucket"}
    assert buckets["0.0005"] == 2
    assert buckets["0.001"] == buckets["2.5"] == 3
    assert buckets["5.0"] == buckets["10.0"] == 4
    assert buckets["+Inf"] == 5
    (total,) = (sample.value for sample in family.samples if sample.name == "pynetwork_x_sum")
    assert total == pytest.approx(63.0011)


def test_drift_is_counted(controller: Controller, kernel: FakeKernel) -> None:
    network = controller.new_network("bridge", "n", options={"bridge": "br0"})
    network.create_endpoint("e").join(controller.new_sandbox("s"))
    kernel.wreck(("link", None, "br0"))
    controller.reconcile(dry_run=True)
    assert value(controller, "reconciles_total") == 0
    report = controller.reconcile()
    steps = len(report.repaired)
    assert steps
    assert value(controller, "reconciles_total") == 1
    assert value(controller, "drift_steps_total", outcome="found") == steps
    assert value(controller, "drift_steps_total", outcome="repaired") == steps
    assert value(controller, "drift_steps_total", outcome="failed") == 0
    kernel.wreck(("link", None, "br0"))
    controller._core.engine.kernel = Chaos(kernel, fail_at=0)
    failed = controller.reconcile().failed
    assert failed
    assert value(controller, "drift_steps_total", outcome="failed") == len(failed)


def test_the_slowest_reader_of_events_is_told(controller: Controller) -> None:
    readers = [controller.events(timeout=0) for _ in range(2)]
    controller.new_sandbox("s")
    behind = value(controller, "event_reader_lag_revisions")
    assert behind > 0
    assert value(controller, "event_readers") == 2
    list(readers[0])
    assert value(controller, "event_reader_lag_revisions") == behind
    list(readers[1])
    assert value(controller, "event_reader_lag_revisions") == 0
    readers.clear()
    assert value(controller, "event_readers") == 0


def test_names_that_need_it_are_escaped(controller: Controller) -> None:
    from pynetwork.metrics import _line

    awkward = 'a\\b"c\nd'
    (family,) = text_string_to_metric_families(f"# TYPE pynetwork_x gauge\n{_line('x', {'l': awkward}, 1)}")
    assert family.samples[0].labels == {"l": awkward}


def test_counting_is_complete_when_many_threads_do_it() -> None:
    counters = Counters()

    def work() -> None:
        for number in range(500):
            with contextlib.suppress(ConflictError), counters.attempt() as attempt:
                attempt.what = "join endpoint 'e' to sandbox 's'"
                counters.applied(0.0)
                if number % 5 == 0:
                    raise ConflictError

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wanted: Mapping[Any, int] = {("join_endpoint", "done"): 3200, ("join_endpoint", "refused"): 800}
    assert counters.requests == wanted
    assert sum(counters.whole.buckets) == sum(counters.applying.buckets) == 4000


def test_a_closed_controller_says_so(controller: Controller) -> None:
    controller.close()
    with pytest.raises(PynetworkError, match="closed"):
        controller.metrics()
