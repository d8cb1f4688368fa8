"""Leases in etcd, which counts the time: nothing here depends on a clock of ours."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final

from pynetwork.store._rules import check_ttl
from pynetwork.store.etcd_answers import FAILED_PRECONDITION, NOT_FOUND, RefusedError
from pynetwork.store.etcd_client import Deadline
from pynetwork.store.port import Lease

if TYPE_CHECKING:
    from pynetwork.store.etcd_client import Client
    from pynetwork.store.etcd_wire import Layout

__all__ = ["Leases"]

_GRANT: Final = "/lease/grant"
_KEEP_ALIVE: Final = "/lease/keepalive"
_TIME_TO_LIVE: Final = "/lease/timetolive"
_REVOKE: Final = "/lease/revoke"


class Leases:
    """Grants, renews and ends leases of *client*'s cluster."""

    def __init__(self, client: Client, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    def grant(self, ttl: float, *, deadline: Deadline | None = None) -> Lease:
        """Return a new lease; etcd counts in seconds, and grants two of its election time-outs at least."""
        check_ttl(ttl)
        number = secrets.randbelow((1 << 63) - 1) + 1  # chosen here: to be granted twice is no harm
        body = {"ID": str(number), "TTL": str(math.ceil(ttl))}
        try:
            answer = self._client.call("grant a lease", _GRANT, body, deadline=deadline)
        except RefusedError as error:
            if error.code != FAILED_PRECONDITION:
                raise
            # It exists: granted by a first try whose answer was lost. 63 random bits are nobody else's.
            body = {"ID": str(number)}
            answer = self._client.call("grant a lease", _TIME_TO_LIVE, body, deadline=deadline)
            return Lease(number, float(answer["grantedTTL"]))
        return Lease(number, float(answer["TTL"]))

    def keep_alive(self, lease: Lease, *, deadline: Deadline | None = None) -> float | None:
        """Renew *lease*; return the seconds it now lasts, None when it has ended."""
        what = f"renew {lease}"
        left = self._renew(what, lease, deadline)
        if left is not None:
            return left
        # A member that became the leader just now may not have heard of the lease yet. A consistent read
        # makes it catch up.
        self._client.call(
            what, "/kv/range", {"key": self._layout.key("x"), "count_only": True}, deadline=deadline
        )
        return self._renew(what, lease, deadline)

    def remaining(self, lease: Lease) -> float | None:
        """Return the seconds that *lease* lasts unless it is renewed, None when it has ended."""
        answer = self._client.call(f"look at {lease}", _TIME_TO_LIVE, {"ID": str(lease.id)})
        left = float(answer.get("TTL", 0))
        return None if left < 0 else left

    def revoke(self, lease: Lease, *, patience: float | None = None) -> None:
        """End *lease* and delete its keys; try for *patience* seconds, by default as long as any call."""
        deadline = None if patience is None else Deadline.after(patience)
        try:
            self._client.call(f"revoke {lease}", _REVOKE, {"ID": str(lease.id)}, deadline=deadline)
        except RefusedError as error:
            if error.code != NOT_FOUND:
                raise

    def _renew(self, what: str, lease: Lease, deadline: Deadline | None) -> float | None:
        answer = self._client.call(what, _KEEP_ALIVE, {"ID": str(lease.id)}, deadline=deadline)
        left = float(answer.get("result", {}).get("TTL", 0))
        return left or None
