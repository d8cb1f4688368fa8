"""What a server has done so far."""

from __future__ import annotations

import attrs

__all__ = ["DnsStatistics"]


@attrs.frozen(kw_only=True)
class DnsStatistics:
    """
    Counters of a name server since it started, all of them whole numbers.

    Args:
        sandboxes: How many have the server just now.
        connections: TCP connections of askers just now.
        pending: Questions that wait for other servers just now.
        queries: Questions received, whatever became of them.
        local: Answered from our own names.
        forwarded: Passed on to other servers.
        refused: Answered REFUSED: too many at once.
        malformed: Answered FORMERR, NOTIMP or BADVERS.
        dropped: Not answered: no question at all, or the answer could not be sent.
        failed: Answered SERVFAIL for want of an answer.
        upstream_queries: Sent to other servers, repetitions included.
        upstream_timeouts: Of these, not answered in time.
        upstream_rejected: Answers thrown away: of another id or to another question, forged perhaps.
        upstream_tcp: Of the queries, asked again with TCP.
    """

    sandboxes: int = 0
    connections: int = 0
    pending: int = 0
    queries: int = 0
    local: int = 0
    forwarded: int = 0
    refused: int = 0
    malformed: int = 0
    dropped: int = 0
    failed: int = 0
    upstream_queries: int = 0
    upstream_timeouts: int = 0
    upstream_rejected: int = 0
    upstream_tcp: int = 0


@attrs.define
class Counters:
    """The same while they are counted; only the server's thread writes."""

    queries: int = 0
    local: int = 0
    forwarded: int = 0
    refused: int = 0
    malformed: int = 0
    dropped: int = 0
    failed: int = 0
    upstream_queries: int = 0
    upstream_timeouts: int = 0
    upstream_rejected: int = 0
    upstream_tcp: int = 0

    def frozen(self, *, sandboxes: int, connections: int, pending: int) -> DnsStatistics:
        """Return them as a value."""
        counted = attrs.asdict(self)
        return DnsStatistics(sandboxes=sandboxes, connections=connections, pending=pending, **counted)
