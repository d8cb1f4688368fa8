"""A private IPv6 prefix that differs from host to host, so that IPv6 subnets can be chosen like IPv4 ones."""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Network
from typing import Final

from pynetwork.errors import InvalidValueError

__all__ = ["ula_prefix"]

_LOCALLY_ASSIGNED: Final = 0xFD  # fc00::/7 with the L bit set, RFC 4193 3.1
_GLOBAL_ID_BYTES: Final = 5
_PREFIXLEN: Final = 48


def ula_prefix(seed: bytes) -> IPv6Network:
    """
    Return a unique local prefix ``fdXX:XXXX:XXXX::/48``: the same for the same seed, else another.

    Made as RFC 4193 3.2.2 proposes, from the 40 least significant bits of a hash. SHA-256 takes the
    place of SHA-1, and a seed that of the time of day, so that a host keeps its prefix.

    Args:
        seed: What is unique to the host, such as its machine id. The prefix does not reveal it.

    Raises:
        InvalidValueError: The seed is not bytes, or empty: every host would have the same prefix.
    """
    if not isinstance(seed, bytes) or not seed:
        msg = f"invalid seed {seed!r} of a ULA prefix: some bytes unique to the host are expected"
        raise InvalidValueError(msg)
    global_id = hashlib.sha256(seed).digest()[-_GLOBAL_ID_BYTES:]
    prefix = bytes([_LOCALLY_ASSIGNED]) + global_id
    return IPv6Network((prefix.ljust(16, b"\0"), _PREFIXLEN))
