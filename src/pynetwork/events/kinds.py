"""The event and its kinds."""

from __future__ import annotations

from enum import StrEnum

import attrs

__all__ = ["Event", "EventKind"]


class EventKind(StrEnum):
    """What happened. Ordered as events of one request come."""

    PORT_UNPUBLISHED = "port.unpublished"
    ENDPOINT_LEFT = "endpoint.left"
    ENDPOINT_DELETED = "endpoint.deleted"
    SANDBOX_DETACHED = "sandbox.detached"
    SANDBOX_DELETED = "sandbox.deleted"
    NETWORK_DELETED = "network.deleted"
    NETWORK_CREATED = "network.created"
    NETWORK_RENAMED = "network.renamed"
    SANDBOX_CREATED = "sandbox.created"
    SANDBOX_RENAMED = "sandbox.renamed"
    SANDBOX_ATTACHED = "sandbox.attached"
    ENDPOINT_CREATED = "endpoint.created"
    ENDPOINT_RENAMED = "endpoint.renamed"
    ENDPOINT_JOINED = "endpoint.joined"
    PORT_PUBLISHED = "port.published"
    DRIFT_FOUND = "drift.found"
    DRIFT_REPAIRED = "drift.repaired"
    DRIFT_FAILED = "drift.failed"
    DNS_FAILED = "dns.failed"


@attrs.frozen(kw_only=True)
class Event:
    """
    Something that happened. What it is not about is None.

    Args:
        revision: Of the store, when it was recorded; it never goes down from one event to the next.
        index: Its place among the events of that revision, from 0.
        time: When it was recorded, in seconds since the epoch: up to some hundredths after the host was
            changed.
        kind: What happened.
        network: Name of the network.
        network_id: Its id.
        endpoint: Name of the endpoint.
        endpoint_id: Its id.
        sandbox: Name of the sandbox.
        sandbox_id: Its id.
        port: What is published, as :class:`~pynetwork.PortBinding` prints.
        old_name: The name before a renaming.
        details: In words: what was found or repaired.
    """

    revision: int
    index: int
    time: float
    kind: EventKind
    network: str | None = None
    network_id: str | None = None
    endpoint: str | None = None
    endpoint_id: str | None = None
    sandbox: str | None = None
    sandbox_id: str | None = None
    port: str | None = None
    old_name: str | None = None
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(self.time, tz=UTC).isoformat(timespec="milliseconds")
        words = [
            f"{name}={value}"
            for name in ("network", "endpoint", "sandbox", "port", "old_name")
            if (value := getattr(self, name)) is not None
        ]
        return " ".join([at, self.kind, *words, *(["; ".join(self.details)] if self.details else [])])
