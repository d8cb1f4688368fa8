"""Ports as an endpoint publishes them: read from Docker's notation, chosen, and written back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.types import IPAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROTOCOLS", "PortBinding"]

#: Protocols that have ports which can be published.
PROTOCOLS: Final = ("tcp", "udp", "sctp")
_MAX: Final = 65535
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z")
_IN_BRACKETS: Final = re.compile(r"\[([^\[\]]*:[^\[\]]*)\]\Z")


def _address(value: object) -> IPAddress | None:
    if value is None or value == "":
        return None
    address = parse_address(value, "host address")
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else parse_address(mapped)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _check_proto(_instance: object, _attribute: object, value: object) -> None:
    if value not in PROTOCOLS:
        msg = f"invalid protocol {value!r}: {', '.join(PROTOCOLS)} can be published"
        raise InvalidValueError(msg)


def _check_port(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None and attribute.name.startswith("host_"):
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX:
        msg = f"invalid port {value!r}: a number from 1 to {_MAX} is expected"
        raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class PortBinding:
    """
    Ports of an endpoint, and the ports of the host through which they are reached.

    Args:
        proto: ``tcp``, ``udp`` or ``sctp``, in either case, as Docker takes it (``nat.ParsePortSpec``).
        first: First port of the endpoint.
        last: Last port of the endpoint.
        host_address: Address of the host; None for all of its addresses, and ``0.0.0.0`` or ``::`` for
            those of a family.
        host_first: First port of the host that is asked for; None for any that is free.
        host_last: Last one. A single port of the endpoint may be given more than one of the host: the
            first free one is taken.
        host_port: The host's port that *first* is published at; None until one is chosen.
    """

    proto: str = attrs.field(default="tcp", converter=_lower, validator=_check_proto)
    first: int = attrs.field(validator=_check_port)
    last: int = attrs.field(validator=_check_port)
    host_address: IPAddress | None = attrs.field(default=None, converter=_address)
    host_first: int | None = attrs.field(default=None, validator=_check_port)
    host_last: int | None = attrs.field(default=None, validator=_check_port)
    host_port: int | None = attrs.field(default=None, validator=_check_port)

    def __attrs_post_init__(self) -> None:
        """Check what the ports say of each other."""
        if self.last < self.first:
            msg = f"invalid port range {self.first}-{self.last}: it ends before it begins"
            raise InvalidValueError(msg)
        if self.host_first is None or self.host_last is None:
            if self.host_first is not self.host_last:
                msg = "invalid host ports: both ends of the range are needed"
                raise InvalidValueError(msg)
            return
        if self.host_last < self.host_first:
            msg = f"invalid port range {self.host_first}-{self.host_last}: it ends before it begins"
            raise InvalidValueError(msg)
        if self.size > 1 and self.host_last - self.host_first + 1 != self.size:
            msg = (
                f"invalid port ranges {self.host_first}-{self.host_last}:{self.first}-{self.last}: "
                "they differ in size"
            )
            raise InvalidValueError(msg)

    @classmethod
    def parse(cls, value: object) -> PortBinding:
        """
        Return *value* as a binding that is still to be chosen.

        Args:
            value: A PortBinding, a mapping of its fields, the number of a TCP port, or Docker's text
                ``[[ADDRESS:][HOSTPORT[-END]]:]PORT[-END][/PROTO]``, IPv6 addresses in brackets.

        Raises:
            InvalidValueError: It is none of them, or a port is out of range.
        """
        if isinstance(value, cls):
            return value if value.host_port is None else attrs.evolve(value, host_port=None)
        if isinstance(value, dict):
            try:
                return cls(**value | {"host_port": None})
            except TypeError as error:
                msg = f"invalid port {value!r}: {error}"
                raise InvalidValueError(msg) from None
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(first=value, last=value)
        if not isinstance(value, str):
            msg = f"invalid port {value!r}: text such as '8080:80/tcp' is expected"
            raise InvalidValueError(msg)
        return cls._parse(value)

    @classmethod
    def _parse(cls, text: str) -> PortBinding:
        rest, slash, proto = text.partition("/")
        rest, _, ports = rest.rpartition(":")
        host_ports = ""
        address = None
        if rest:
            address, _, host_ports = rest.rpartition(":")
            if rest.endswith("]"):
                address, host_ports = rest, ""
        if address and ":" in address and not address.startswith("["):
            msg = f"invalid port {text!r}: an IPv6 address is written in brackets"
            raise InvalidValueError(msg)
        if address and "[" in address:
            match = _IN_BRACKETS.match(address)
            if match is None:
                raise _malformed(text)
            address = match[1]
        first, last = _range(ports, text)
        wanted: tuple[int | None, int | None] = _range(host_ports, text) if host_ports else (None, None)
        return cls(
            proto=proto if slash else "tcp",
            first=first,
            last=last,
            host_address=address,
            host_first=wanted[0],
            host_last=wanted[1],
        )

    @property
    def size(self) -> int:
        """How many ports."""
        return self.last - self.first + 1

    @property
    def is_flexible(self) -> bool:
        """Whether the host's ports are ours to choose."""
        return self.host_first is None or self.host_last != self.host_first + self.size - 1

    @property
    def host_end(self) -> int | None:
        """The last port of the host, None until one is chosen."""
        return None if self.host_port is None else self.host_port + self.size - 1

    @property
    def versions(self) -> tuple[int, ...]:
        """Families of the host's addresses: 4, 6 or both."""
        return (4, 6) if self.host_address is None else (self.host_address.version,)

    def matches(self, other: PortBinding) -> bool:
        """Whether *other*, which leaves open what it does not care about, asks for this."""
        return (
            (self.proto, self.first, self.last) == (other.proto, other.first, other.last)
            and other.host_address in {None, self.host_address}
            and other.host_port in {None, self.host_port}
            and (other.host_first, other.host_last)
            in {(None, None), (self.host_first, self.host_last), (self.host_port, self.host_end)}
        )

    def at(self, host_port: int) -> PortBinding:
        """Return it with its host port chosen: a number that was checked already."""
        chosen: PortBinding = object.__new__(PortBinding)
        for name in _FIELDS:
            object.__setattr__(chosen, name, getattr(self, name))
        object.__setattr__(chosen, "host_port", host_port)
        return chosen

    def numbers(self) -> Iterator[int]:
        """Yield the host's ports."""
        if self.host_port is not None:
            yield from range(self.host_port, self.host_port + self.size)

    def __str__(self) -> str:
        parts = []
        if self.host_address is not None:
            is_v6 = self.host_address.version == 6
            parts.append(f"[{self.host_address}]" if is_v6 else str(self.host_address))
        if self.host_port is not None:
            parts.append(_text(self.host_port, self.host_port + self.size - 1))
        elif self.host_first is not None and self.host_last is not None:
            parts.append(_text(self.host_first, self.host_last))
        elif parts:
            parts.append("")
        return f"{':'.join([*parts, _text(self.first, self.last)])}/{self.proto}"


_FIELDS: Final = tuple(field.name for field in attrs.fields(PortBinding))


def _text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _range(text: str, whole: str) -> tuple[int, int]:
    match = _RANGE.match(text)
    if match is None:
        raise _malformed(whole)
    first = int(match[1])
    return first, int(match[2]) if match[2] else first


def _malformed(text: str) -> InvalidValueError:
    msg = f"invalid port {text!r}: [[ADDRESS:][HOSTPORT[-END]]:]PORT[-END][/PROTO] is expected"
    return InvalidValueError(msg)
