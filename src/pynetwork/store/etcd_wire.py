"""Keys, compares and operations of the store's port in the words of etcd's JSON gateway, and back.

A key of the store is kept under ``PREFIX/data/``. UTF-8 sorts by code point, so keys sort alike on
both sides, and what starts with a text is one range of etcd's.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.errors import InvalidValueError, StoreError
from pynetwork.store.port import Absent, Entry, PrefixUnchanged, Put, Unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.store.port import Compare, Operation

__all__ = ["LARGEST", "Layout", "b64", "revision_of"]

#: The largest number that etcd has.
LARGEST: Final = (1 << 63) - 1


def b64(data: bytes) -> str:
    """Return *data* as JSON has it."""
    return base64.b64encode(data).decode("ascii")


def revision_of(answer: dict[str, Any]) -> int:
    """Return the revision of the store at which *answer* was given."""
    return int(answer.get("header", {}).get("revision", 0))


@attrs.frozen
class Layout:
    """
    Where things are in etcd.

    Args:
        prefix: Of all keys, without a ``/`` at the end.
    """

    prefix: str

    @classmethod
    def under(cls, prefix: str) -> Layout:
        """Return the layout of the store at *prefix*, or raise :class:`InvalidValueError`."""
        if not isinstance(prefix, str) or not prefix.strip("/"):
            msg = f"{prefix!r} is no prefix of a store: it says which of a cluster's keys are the store's"
            raise InvalidValueError(msg)
        _encode(prefix)
        return cls(prefix.rstrip("/"))

    def writer(self, name: str) -> str:
        """Return the key of a writer's mark."""
        return b64(_encode(f"{self.prefix}/writers/{name}"))

    def key(self, key: str) -> str:
        """Return *key* as etcd has it."""
        return b64(_encode(f"{self.prefix}/data/{key}"))

    def span(self, prefix: str) -> dict[str, Any]:
        """Return the range of the keys that start with *prefix*."""
        return _span(f"{self.prefix}/data/{prefix}")

    def everything(self) -> dict[str, Any]:
        """Return the range of the keys and of the marks of writers."""
        return _span(f"{self.prefix}/")

    def is_data(self, item: dict[str, Any]) -> bool:
        """Whether an item of an answer is a key of the store's, and no mark of a writer's."""
        return base64.b64decode(item["key"]).startswith(f"{self.prefix}/data/".encode())

    def name(self, item: dict[str, Any]) -> str:
        """Return the key of an item of an answer."""
        raw = base64.b64decode(item["key"])
        return self._text(raw, raw)[len(self.prefix) + len("/data/") :]

    def entry(self, item: dict[str, Any]) -> Entry:
        """Return an item of an answer as an entry."""
        value = base64.b64decode(item.get("value", ""))
        return Entry(self.name(item), self._text(value, item["key"]), int(item["mod_revision"]))

    def compares(self, compares: Sequence[Compare]) -> list[dict[str, Any]] | None:
        """Return *compares*, or None when one can never hold."""
        found = []
        for compare in compares:
            match compare:
                case Absent(key):
                    found.append({"key": self.key(key), "target": "CREATE", "create_revision": "0"})
                case Unchanged(key, revision):
                    if not 0 < revision <= LARGEST:
                        return None
                    found.append({"key": self.key(key), "target": "MOD", "mod_revision": str(revision)})
                case PrefixUnchanged(prefix, revision):
                    limit = str(max(0, min(revision, LARGEST - 1)) + 1)
                    each = {**self.span(prefix), "target": "MOD", "result": "LESS", "mod_revision": limit}
                    found.append(each)
        return found

    def operations(self, operations: Sequence[Operation]) -> list[dict[str, Any]]:
        """Return *operations*."""
        return [self._operation(each) for each in operations]

    def _operation(self, operation: Operation) -> dict[str, Any]:
        key = self.key(operation.key)
        if not isinstance(operation, Put):
            return {"request_delete_range": {"key": key}}
        put = {"key": key, "value": b64(operation.value.encode())}
        if operation.lease is not None:
            put["lease"] = str(operation.lease.id)
        return {"request_put": put}

    def _text(self, data: bytes, key: object) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            msg = f"what is at {key!r} in etcd is not text: {error}; somebody else uses {self.prefix}/data/"
            raise StoreError(msg) from error


def _span(text: str) -> dict[str, Any]:
    """Return the range of what starts with *text*."""
    start = _encode(text)
    # UTF-8 has no byte 0xff, so the last one can be counted up.
    return {"key": b64(start), "range_end": b64(start[:-1] + bytes([start[-1] + 1]))}


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"{text!r} cannot be encoded: {error.reason}"
        raise InvalidValueError(msg) from error
