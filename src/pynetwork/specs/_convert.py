"""What the fields of several specs are read with."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.types import check_labels, parse_address, parse_each, parse_interface

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.types import IPAddress, IPInterface

__all__ = ["made_of", "to_addresses", "to_interfaces", "to_labels", "to_names"]

_T = TypeVar("_T")


def to_interfaces(values: Iterable[object]) -> tuple[IPInterface, ...]:
    """Return addresses with their prefix lengths."""
    return parse_each("addresses", values, parse_interface) if values else ()


def to_addresses(values: Iterable[object]) -> tuple[IPAddress, ...]:
    """Return addresses."""
    return parse_each("addresses", values, parse_address) if values else ()


def to_names(values: Iterable[object]) -> tuple[str, ...]:
    """Return names that were checked when they were given."""
    return parse_each("names", values, str) if values else ()


def to_labels(value: Mapping[str, str]) -> Mapping[str, str]:
    """Return a caller's labels, or other text by name, that nobody can change."""
    # A proxy can only come from here: it is checked already.
    return value if isinstance(value, MappingProxyType) else MappingProxyType(check_labels(value))


def made_of(cls: type[_T], values: Iterable[object], fields: Mapping[str, object]) -> _T:
    """Return a *cls*, or say which fields it has."""
    try:
        return cls(*values, **fields)
    except TypeError:
        names = ", ".join(field.name for field in attrs.fields(cast("type[Any]", cls)))
        msg = f"invalid {cls.__name__} {fields or values!r}: its fields are {names}"
        raise InvalidValueError(msg) from None
