"""What every backend refuses before it touches anything, so that a test on one is true of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.errors import InvalidValueError
from pynetwork.store.port import Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.store.port import Operation

__all__ = ["check_operations"]


def check_operations(operations: Sequence[Operation]) -> None:
    """
    Refuse what some backend could not write.

    Raises:
        InvalidValueError: A key is empty or appears twice (as in etcd, the order of operations within
            a transaction means nothing), or a text has no UTF-8 form.
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
    except UnicodeEncodeError as error:
        msg = f"{operation!r} cannot be encoded: {error.reason}"
        raise InvalidValueError(msg) from error


def _repeated(operations: Sequence[Operation]) -> list[str]:
    keys = [operation.key for operation in operations]
    return sorted({key for key in keys if keys.count(key) > 1})
