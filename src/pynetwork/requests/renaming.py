"""Requests that give a network or an endpoint another name, on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.requests.common import join_scope, network_scope, rename

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.engine import Draft

__all__ = ["rename_endpoint", "rename_network"]


def rename_network(core: Core, draft: Draft, identity: str, name: str) -> None:
    """Draft another name of a network."""
    row = core.network(identity)
    draft.what = f"rename network {row.spec.name!r} to {name!r}"
    rename(draft, row, core.records.named("network", name), "network", name)
    draft.undisturbed.add(network_scope(identity))


def rename_endpoint(core: Core, draft: Draft, identity: str, name: str) -> None:
    """Draft another name of an endpoint."""
    row = core.endpoint(identity)
    owner = f"endpoint/{row.spec.network}"
    draft.what = f"rename endpoint {row.spec.name!r} to {name!r}"
    rename(draft, row, core.records.named(owner, name), owner, name)
    draft.undisturbed.add(join_scope(identity))
