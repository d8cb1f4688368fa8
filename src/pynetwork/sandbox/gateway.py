"""What a sandbox has of its host's gateway network, for who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.types import IPAddress, IPInterface

__all__ = ["Gateway", "gateway_of", "members_of"]


@attrs.frozen(kw_only=True)
class Gateway:
    """
    A sandbox's way out, and in, when its networks span hosts and no other network of it has one.

    Args:
        interface: Name of the interface in the sandbox.
        mac: Its MAC address.
        addresses: Its addresses with their prefix lengths, IPv4 first.
        next_hops: Of the default routes that it provides: addresses of the bridge on the host.
    """

    interface: str
    mac: str
    addresses: tuple[IPInterface, ...]
    next_hops: tuple[IPAddress, ...]


def gateway_of(core: Core, sandbox: str) -> Gateway | None:
    """Return what the sandbox of that id has of the host's gateway network; the caller holds the tables."""
    row = core.records.endpoints.get(sandbox)
    if row is None or row.spec.sandbox is None or row.spec.interface is None:
        return None
    spec = row.spec
    return Gateway(
        interface=row.spec.interface, mac=spec.mac, addresses=spec.addresses, next_hops=spec.default_via
    )


def members_of(core: Core, sandbox: str) -> list[str]:
    """Return the ids of the other endpoints of the sandbox of that id, the longest joined first."""
    return [row.spec.id for row in core.records.joined(sandbox) if not row.spec.system]
