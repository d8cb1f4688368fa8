"""All that an instance holds, in numbers and as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetwork.network import Network
from pynetwork.sandbox import Sandbox
from pynetwork.views import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.cluster.span import Span
    from pynetwork.core import Core, Handle

__all__ = ["counts", "everything", "networks", "own"]


def networks(core: Core) -> View[Network]:
    """Return the networks of this host and, if it is in a cluster, all that span hosts."""
    here = core.view(Network, "network", core.records.networks)
    span = core.span
    if span is None:
        return here

    def read() -> dict[str, Network]:
        there = {name: Network.of(core, identity) for name, identity in span.names().items()}
        return {**there, **dict(here.items())}

    def find(name: str) -> Network | None:
        found = here.get(name)
        identity = None if found is not None else span.named(name)
        return found if identity is None else Network.of(core, identity)

    return View("network", read, find)


def own(core: Core) -> list[Handle]:
    """Return all that is this host's alone: not the networks that span hosts, but its endpoints in them."""
    here = list(core.view(Network, "network", core.records.networks).values())
    return [
        *(network for network in here if core.span is None or not core.span.is_global(network.id)),
        *(endpoint for network in here for endpoint in network.endpoints.values()),
        *core.view(Sandbox, "sandbox", core.records.sandboxes).values(),
    ]


def counts(core: Core) -> dict[str, int]:
    """Return how many objects there are, and how many requests are under way."""
    with core.reading() as records:
        return {
            "networks": sum(not row.spec.system for row in records.networks.values()),
            "endpoints": sum(not row.spec.system for row in records.endpoints.values()),
            "sandboxes": len(records.sandboxes),
            "requests": len(list(core.engine.world.under_way())),
            "revision": core.engine.mirror.revision,
        }


def everything(
    core: Core, networks: Mapping[str, Network], sandboxes: Mapping[str, Sandbox]
) -> dict[str, Any]:
    """Return all that is recorded as plain data, ready for JSON."""
    return {
        "instance": core.instance,
        **({} if core.span is None else {"cluster": _place(core.span)}),
        "networks": {
            name: network.inspect()
            | {"endpoints": {n: endpoint.inspect() for n, endpoint in network.endpoints.items()}}
            for name, network in networks.items()
        },
        "sandboxes": {name: sandbox.inspect() for name, sandbox in sandboxes.items()},
    }


def _place(span: Span) -> dict[str, Any]:
    """Return what a host is in its cluster."""
    return {"host": span.config.host, "vtep": str(span.underlay.vtep), "datapath": span.datapath}
