"""The name server of sandboxes: names of endpoints, and everything else from other servers."""

from __future__ import annotations

from typing import Final, Protocol

from pynetwork.dns.statistics import DnsStatistics

__all__ = ["RESOLVER", "DnsStatistics", "NamesPort"]

#: Address of the name server inside of each sandbox, as in Docker; it listens at ``::1`` as well.
RESOLVER: Final = "127.0.0.11"


class NamesPort(Protocol):
    """What an instance has of its name server, whichever process that is in."""

    def ensure(self, sandbox: str) -> None:
        """Return once the names of the sandbox of that id can be asked in it, as far as it is to have any."""
        ...

    def statistics(self) -> DnsStatistics:
        """Return what the server has done so far."""
        ...

    def revive(self) -> None:
        """See to it that somebody serves, if there is anything to serve."""
        ...

    def close(self) -> None:
        """Stop serving from this process. Idempotent."""
        ...
