"""All that an instance holds, in numbers and as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.core import Core
    from pynetwork.network import Network
    from pynetwork.sandbox import Sandbox

__all__ = ["counts", "everything"]


def counts(core: Core) -> dict[str, int]:
    """Return how many objects there are, and how many requests are under way."""
    with core.reading() as records:
        return {
            "networks": len(records.networks),
            "endpoints": len(records.endpoints),
            "sandboxes": len(records.sandboxes),
            "requests": len(list(core.engine.world.under_way())),
            "revision": core.engine.mirror.revision,
        }


def everything(
    instance: str, networks: Mapping[str, Network], sandboxes: Mapping[str, Sandbox]
) -> dict[str, Any]:
    """Return all that is recorded as plain data, ready for JSON."""
    return {
        "instance": instance,
        "networks": {
            name: network.inspect()
            | {"endpoints": {n: endpoint.inspect() for n, endpoint in network.endpoints.items()}}
            for name, network in networks.items()
        },
        "sandboxes": {name: sandbox.inspect() for name, sandbox in sandboxes.items()},
    }
