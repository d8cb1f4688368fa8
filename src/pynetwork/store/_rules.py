"""What every backend refuses before it touches anything, so that a test on one is true of all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from pynetwork.errors import InvalidValueError
from pynetwork.store.port import Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.store.port import Operation

__all__ = ["check_operations", "check_ttl"]

_LONGEST_TTL: Final = 9_000_000_000  # seconds; etcd's limit (lease/lessor.go, MaxLeaseTTL)


def check_operations(operations: Sequence[Operation], *, leases: bool = True) -> None:
    """
    Refuse what some backend could not write.

    Args:
        operations: Of one transaction.
        leases: Whether the store has any.

    Raises:
        InvalidValueError: A key is empty or appears twice (as in etcd, the order of operations within
            a transaction means nothing), a text has no UTF-8 form, or a put has a lease that the store
            would have to ignore.
    """
    keys = {operation.key for operation in operations}
    if len(keys) < len(operations):
        msg = f"a transaction may touch a key once only: {_repeated(operations)!r}"
        raise InvalidValueError(msg)
    if "" in keys:
        msg = "a key of a transaction is empty"
        raise InvalidValueError(msg)
    try:
        for operation in operations:
            operation.key.encode()
            if isinstance(operation, Put):
                operation.value.encode()
                if operation.lease is not None and not leases:
                    msg = f"{operation.key!r} is put with a lease, which this store does not have"
                    raise InvalidValueError(msg)
    except UnicodeEncodeError as error:
        msg = f"{operation!r} cannot be encoded: {error.reason}"
        raise InvalidValueError(msg) from error


def check_ttl(ttl: float) -> None:
    """
    Refuse a time to live that no store could grant.

    Raises:
        InvalidValueError: *ttl* is not a positive number of seconds, or beyond etcd's limit.
    """
    if not (isinstance(ttl, (int, float)) and math.isfinite(ttl) and 0 < ttl <= _LONGEST_TTL):
        msg = f"{ttl!r} is no time to live of a lease: a number of seconds above 0, {_LONGEST_TTL} at most"
        raise InvalidValueError(msg)


def _repeated(operations: Sequence[Operation]) -> list[str]:
    keys = [operation.key for operation in operations]
    return sorted({key for key in keys if keys.count(key) > 1})
