"""The counters of a controller in the text format of Prometheus, without a library.

The format is version 0.0.4 of the exposition formats: ``# HELP``, ``# TYPE``, then one line per value.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.engine.counters import BOUNDS
from pynetwork.requests.common import pool_of
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pynetwork.core import Core
    from pynetwork.engine.counters import Durations

__all__ = ["render"]

_PREFIX: Final = "pynetwork"
#: Of the name server, what goes up and down.
_DNS_NOW: Final = frozenset({"sandboxes", "connections", "pending"})


def render(core: Core) -> str:
    """Return all there is to tell of an instance, as seen by this process."""
    return "".join((*_objects(core), *_pools(core), *_engine(core), *_readers(core), *_names(core)))


def _objects(core: Core) -> Iterator[str]:
    with core.reading() as records:
        sandboxes = [row.spec for row in records.sandboxes.values()]
        networks = [row.spec for row in records.networks.values() if not row.spec.system]
        endpoints = [row.spec for row in records.endpoints.values() if not row.spec.system]
        joined = sum(spec.sandbox is not None for spec in endpoints)
        ports = sum(len(records.ports_of(spec.id)) for spec in endpoints)
        found = {
            "networks": (len(networks), "Networks."),
            "endpoints": (len(endpoints), "Endpoints."),
            "endpoints_joined": (joined, "Endpoints that have joined a sandbox."),
            "sandboxes": (len(sandboxes), "Sandboxes."),
            "sandboxes_detached": (
                sum(not spec.attached for spec in sandboxes),
                "Sandboxes that wait for a network namespace.",
            ),
            "ports_published": (ports, "Ports and runs of ports that are to be published."),
            "requests_under_way": (
                len(list(core.engine.world.under_way())),
                "Requests of all processes that are not done, or whose process has died.",
            ),
            "revision": (core.engine.mirror.revision, "Revision of the records."),
        }
    yield _family("info", "gauge", "Which instance this is.", [({"instance": core.instance}, 1)])
    for name, (value, text) in found.items():
        yield _family(name, "gauge", text, [({}, value)])


def _pools(core: Core) -> Iterator[str]:
    samples: list[tuple[dict[str, str], int]] = []
    with core.reading() as records:
        for row in records.networks.values():
            if row.spec.space == CLUSTER_SPACE:
                continue  # handed out by all hosts together: network.usage() asks the store of the cluster
            for subnet in row.spec.subnets:
                usage = core.allocations.usage(row.spec.ipam, pool_of(row.spec, subnet))
                if usage is None:
                    continue
                # Others may be called as the host's gateway network, which has no name of its own.
                labels = {"network": "" if row.spec.system else row.spec.name, "subnet": str(subnet.network)}
                states = {"taken": usage.taken, "quarantined": usage.quarantined, "free": usage.free}
                samples += (({**labels, "state": state}, count) for state, count in states.items())
    yield _family("pool_addresses", "gauge", "Addresses of each subnet that can be assigned.", samples)


def _engine(core: Core) -> Iterator[str]:
    counters = core.engine.counters
    with counters.lock:
        requests = sorted(counters.requests.items())
        drift = list(counters.drift.items())
        reconciled = counters.reconciled
        whole = _histogram("request_seconds", "How long requests took.", counters.whole)
        applying = _histogram("apply_seconds", "How long the host took of that.", counters.applying)
    yield _family(
        "requests_total",
        "counter",
        "Requests of this process.",
        [({"request": kind, "outcome": outcome}, count) for (kind, outcome), count in requests],
    )
    yield whole
    yield applying
    yield _family("reconciles_total", "counter", "How often this process reconciled.", [({}, reconciled)])
    yield _family(
        "drift_steps_total",
        "counter",
        "Steps that reconciling found to be necessary, and what became of them.",
        [({"outcome": outcome}, count) for outcome, count in drift],
    )


def _readers(core: Core) -> Iterator[str]:
    lags = sorted(max(0, core.engine.mirror.revision - reader.fetched) for reader in list(core.readers))
    yield _family("event_readers", "gauge", "Readers of events in this process.", [({}, len(lags))])
    yield _family(
        "event_reader_lag_revisions",
        "gauge",
        "How far the slowest reader of events is behind.",
        [({}, lags[-1] if lags else 0)],
    )


def _names(core: Core) -> Iterator[str]:
    if core.dns is None:
        return
    found = core.dns.statistics()
    for name, value in attrs.asdict(found).items():
        is_now = name in _DNS_NOW
        text = f"Name server: {name.replace('_', ' ')}."
        yield _family(
            f"dns_{name}{'' if is_now else '_total'}", "gauge" if is_now else "counter", text, [({}, value)]
        )


def _histogram(name: str, text: str, durations: Durations) -> str:
    bounds = (*map(_number, BOUNDS), "+Inf")
    counts = list(accumulate(durations.buckets))
    lines = [
        *(_line(f"{name}_bucket", {"le": bound}, count) for bound, count in zip(bounds, counts, strict=True)),
        _line(f"{name}_sum", {}, durations.seconds),
        _line(f"{name}_count", {}, counts[-1]),
    ]
    return _header(name, "histogram", text) + "".join(lines)


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    return _header(name, kind, text) + "".join(_line(name, labels, value) for labels, value in samples)


def _header(name: str, kind: str, text: str) -> str:
    return f"# HELP {_PREFIX}_{name} {text}\n# TYPE {_PREFIX}_{name} {kind}\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{_PREFIX}_{name}{f'{{{inside}}}' if inside else ''} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))
