"""Values to JSON records and back.

A record is an object of the value's fields, those that are empty by default and empty left out, and
``"v"``, the version of its schema. Reading keeps no opinion on unknown fields: whoever rewrites a record
passes them through (``extra``), so an older program does not lose what a newer one wrote.
"""

from __future__ import annotations

import functools
import json
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]  # not in typeshed
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs

from pynetwork.errors import PynetworkError, StoreError
from pynetwork.plan import Plan
from pynetwork.resources import KINDS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from pynetwork.resources import Resource

__all__ = ["VERSION", "changed", "decode_plan", "decode_value", "encode", "encode_plan", "loads"]

VERSION: Final = 1
_EMPTY: Final[tuple[object, ...]] = ((), [], {})
_T = TypeVar("_T")


def changed(value: _T, **fields: object) -> _T:
    """
    Return *value*, a slotted attrs instance, with other *fields*.

    As attrs.evolve, for fields that are valid as they are: nothing is converted or checked again.
    """
    copy = object.__new__(type(value))
    for name in _fields(cast("Hashable", type(value))):
        object.__setattr__(copy, name, fields[name] if name in fields else getattr(value, name))
    return copy


def encode(value: object, extra: Mapping[str, object] | None = None) -> str:
    """Return *value*, an attrs instance or plain data, as a JSON record with the fields of *extra*."""
    body = value if isinstance(value, dict) else _body(value)
    return _dumps({"v": VERSION, **body, **(extra or {})})


def loads(key: str, text: str) -> dict[str, Any]:
    """
    Return the fields of the record *text*.

    Raises:
        StoreError: It is no record, or of a schema this version does not know.
    """
    try:
        record = json.loads(text)
        version = record.pop("v", None)
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"record {key} cannot be read: {error}"
        raise StoreError(msg) from error
    if version != VERSION:
        msg = f"record {key} has schema {version}, this version of pynetwork knows {VERSION}: upgrade it"
        raise StoreError(msg)
    return cast("dict[str, Any]", record)


def decode_value(cls: type[_T], key: str, fields: Mapping[str, Any]) -> tuple[_T, dict[str, Any]]:
    """Return *fields* of the record *key* as a *cls*, and those that it does not have."""
    names = _fields(cast("Hashable", cls))
    known = {name: value for name, value in fields.items() if name in names}
    extra = {name: value for name, value in fields.items() if name not in names}
    try:
        return cls(**known), extra
    except (TypeError, ValueError, PynetworkError) as error:
        msg = f"record {key} does not describe a {cls.__name__}: {error}"
        raise StoreError(msg) from error


def encode_plan(plan: Iterable[Resource]) -> list[dict[str, object]]:
    """Return *plan* as plain data."""
    return [{"kind": resource.kind, **_body(resource)} for resource in plan]


def decode_plan(key: str, data: Iterable[Mapping[str, Any]]) -> Plan:
    """Return the plan that :func:`encode_plan` made *data* of."""
    return Plan(_resource(key, item) for item in data)


def _resource(key: str, item: Mapping[str, Any]) -> Resource:
    cls = KINDS.get(item["kind"])
    if cls is None:
        msg = f"record {key} holds a resource of kind {item['kind']!r}, which this version does not know"
        raise StoreError(msg)
    names = _fields(cast("Hashable", cls))
    resource = cls(**{name: value for name, value in item.items() if name in names})
    object.__setattr__(resource, "_site", None)  # this line did not ask for it
    return resource


@functools.cache  # attrs.fields costs more than the encoding
def _fields(cls: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cast("type[Any]", cls)) if field.init)


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON data
    if hasattr(value, "__attrs_attrs__"):
        return _body(value)
    if isinstance(value, MappingProxyType):
        return dict(value)
    return str(value)  # ipaddress values


def _body(value: object) -> dict[str, object]:
    """Return the fields of an attrs instance, without those that are empty as they are by default."""
    kind: Any = type(value)
    return {
        name: item
        for name, left_out in _shape(kind)
        if (item := getattr(value, name)) or item not in left_out
    }


@functools.cache
def _shape(cls: Hashable) -> tuple[tuple[str, tuple[object, ...]], ...]:
    """Return the names of the fields, each with the empty values that it is left out with."""
    fields = attrs.fields(cast("type[Any]", cls))
    return tuple((field.name, _left_out(field)) for field in fields if field.init)


def _left_out(field: attrs.Attribute[Any]) -> tuple[object, ...]:
    """Return None, or all empty collections, as the field's default is; False, 0 and "" say something."""
    default: Any = field.default
    if isinstance(default, attrs.Factory) and not default.takes_self:  # type: ignore[arg-type]  # a class
        default = default.factory()
    if default is None:
        return (None,)
    return _EMPTY if default in _EMPTY else ()


def _dumps(value: object) -> str:
    return "".join(_chunks(value, 0))


# What json.dumps calls with these arguments, made once: making it takes half as long as using it.
_chunks = c_make_encoder(None, _plain, encode_basestring_ascii, None, ":", ",", False, False, True)
