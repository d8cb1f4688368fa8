"""Value types that cross every boundary: identifiers, names, MAC addresses, port bindings.

Each parser takes what a caller may hold (text, ``ipaddress`` or ``netaddr`` values) and returns
one canonical form, or raises :class:`~pynetwork.errors.InvalidValueError` naming the bad value.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from pynetwork.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = [
    "CLUSTER_SPACE",
    "HOST_GATEWAY",
    "HOST_NETNS",
    "LATER_NETNS",
    "AnyAddress",
    "AnyInterface",
    "AnyNetwork",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "Scope",
    "check_domain",
    "check_flag",
    "check_interface_name",
    "check_interface_prefix",
    "check_labels",
    "check_name",
    "check_seconds",
    "new_id",
    "parse_address",
    "parse_each",
    "parse_interface",
    "parse_mac",
    "parse_network",
    "random_mac",
]

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
# netaddr values are accepted by their text, so netaddr need not be imported to be understood.
AnyAddress: TypeAlias = str | IPAddress | object
AnyNetwork: TypeAlias = str | IPNetwork | object
AnyInterface: TypeAlias = str | IPInterface | object

#: The address space of networks that span hosts: what is taken is in the store of their cluster.
CLUSTER_SPACE: Final = "cluster"

#: Given as ``netns=`` of a sandbox: the network namespace of the host itself.
HOST_NETNS: Final = "host"

#: Given as ``netns=`` of a sandbox: none yet, it is attached to one later.
LATER_NETNS: Final = "later"

#: Given as an address in ``extra_hosts=`` of a sandbox: that under which it reaches the host (Docker).
HOST_GATEWAY: Final = "host-gateway"

_T = TypeVar("_T")

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_NAME_LENGTH: Final = 255
_LABEL = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?\Z")
_LABEL_LENGTH: Final = 63  # octets, RFC 1035 section 2.3.4, as is the next
_DOMAIN_LENGTH: Final = 253
_IFNAMSIZ: Final = 16  # linux/if.h, with the terminating NUL
_SIX_BYTES = re.compile(
    r"([0-9a-fA-F]{1,2}([-:])([0-9a-fA-F]{1,2}\2){4}[0-9a-fA-F]{1,2}|([0-9a-fA-F][-:.]?){12})\Z"
)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class Scope(StrEnum):
    """How far a driver's networks reach (libnetwork's DataScope)."""

    LOCAL = "local"
    GLOBAL = "global"


def new_id(random: Random) -> str:
    """Return a random identifier: 32 hexadecimal digits, 128 bits."""
    return f"{random.getrandbits(128):032x}"


def check_name(kind: str, name: object) -> str:
    """
    Validate the name of a network, endpoint or sandbox.

    Args:
        kind: What is being named; appears in the error.
        name: 1 to 255 characters of ``[a-zA-Z0-9_.-]``, the first a letter or digit
            (Docker's rule for object names).

    Raises:
        InvalidValueError: The name breaks the rule.
    """
    if not isinstance(name, str) or len(name) > _NAME_LENGTH or not _NAME.match(name):
        msg = (
            f"invalid {kind} name {name!r}: use 1 to {_NAME_LENGTH} characters of [a-zA-Z0-9_.-], "
            "the first a letter or digit"
        )
        raise InvalidValueError(msg)
    return name


def check_domain(what: str, name: object) -> str:
    """
    Validate a domain name; returns it without the dot that may end it.

    Args:
        what: What is being named; appears in the error.
        name: Labels of 1 to 63 characters of ``[a-zA-Z0-9_-]`` that neither begin nor end with a hyphen,
            with dots between them, 253 in all (RFC 1123 section 2.1, and underscores as in RFC 2782).

    Raises:
        InvalidValueError: It is none.
    """
    text = name.removesuffix(".") if isinstance(name, str) else ""
    if not 1 <= len(text) <= _DOMAIN_LENGTH or not all(
        len(label) <= _LABEL_LENGTH and _LABEL.match(label) for label in text.split(".")
    ):
        msg = (
            f"invalid {what} {name!r}: labels of 1 to {_LABEL_LENGTH} characters of [a-zA-Z0-9_-] "
            f"with dots between them are expected, {_DOMAIN_LENGTH} characters at most"
        )
        raise InvalidValueError(msg)
    return text


def check_interface_name(name: object) -> str:
    """
    Validate the name of a network interface.

    Args:
        name: 1 to 15 bytes, not ``.`` or ``..``, without ``/``, ``:``, ``%``, blanks or control
            characters (the kernel's ``dev_valid_name``; ``%`` would make it a template), and not
            ``all`` or ``default``, the names of its settings for all interfaces.

    Raises:
        InvalidValueError: The kernel would refuse the name, or read it as something else.
    """
    if not isinstance(name, str) or not _is_interface_name(name):
        msg = (
            f"invalid interface name {name!r}: use 1 to {_IFNAMSIZ - 1} bytes, "
            "without '/', ':', '%' or blanks, and not '.', '..', 'all' or 'default'"
        )
        raise InvalidValueError(msg)
    return name


def check_interface_prefix(prefix: object) -> str:
    """Validate an interface name prefix such as ``eth``: a name that leaves room for a number."""
    name = check_interface_name(prefix)
    if len(name.encode()) > _IFNAMSIZ - 5 or name[-1].isdigit():
        msg = f"invalid interface prefix {prefix!r}: use at most {_IFNAMSIZ - 5} bytes, not ending in a digit"
        raise InvalidValueError(msg)
    return name


def _is_interface_name(name: str) -> bool:
    if name in {"", ".", "..", "all", "default"} or not name.isprintable():
        return False
    return len(name.encode()) < _IFNAMSIZ and not any(c in "/:%" or c.isspace() for c in name)


def check_labels(labels: object) -> dict[str, str]:
    """Validate labels: a mapping of non-empty text to text, copied so later changes are not seen."""
    if not isinstance(labels, Mapping) or not all(
        isinstance(key, str) and key and isinstance(value, str) for key, value in labels.items()
    ):
        msg = f"invalid labels {labels!r}: a dict of str to str with non-empty keys is expected"
        raise InvalidValueError(msg)
    return dict(labels)


def check_flag(what: str, value: object) -> bool:
    """Validate True or False; what merely counts as one of them is likelier a mistake."""
    if not isinstance(value, bool):
        msg = f"invalid {what}={value!r}: True or False is expected"
        raise InvalidValueError(msg)
    return value


def check_seconds(what: str, value: object) -> float:
    """Validate a time: a finite number of seconds, not below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        msg = f"invalid {what}={value!r}: a number of seconds is expected"
        raise InvalidValueError(msg)
    return float(value)


def parse_each(what: str, values: object, parse: Callable[[object], _T]) -> tuple[_T, ...]:
    """Return each of *values* parsed; a single one in place of a list, text say, is an error."""
    # Abstract classes last: to ask them takes ten times as long, and nearly everybody gives a list.
    if not isinstance(values, (list, tuple)) and (
        isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable)
    ):
        msg = f"invalid {what} {values!r}: a list is expected"
        raise InvalidValueError(msg)
    return tuple(parse(value) for value in values)


def parse_address(value: AnyAddress, what: str = "address") -> IPAddress:
    """Return *value* as an ``ipaddress`` address; *what* names it in the error."""
    if isinstance(value, IPv4Address | IPv6Address) and not isinstance(value, IPv4Interface | IPv6Interface):
        return (
            value if getattr(value, "scope_id", None) is None else _parse(ipaddress.ip_address, value, what)
        )
    return _parse(ipaddress.ip_address, value, what)


def parse_network(value: AnyNetwork, what: str = "subnet") -> IPNetwork:
    """Return *value* as an ``ipaddress`` network; bits set below the mask are an error."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    return _parse(ipaddress.ip_network, value, what)


def parse_interface(value: AnyInterface, what: str = "address") -> IPInterface:
    """Return *value*, an address with its prefix length, as an ``ipaddress`` interface."""
    if isinstance(value, IPv4Interface | IPv6Interface) and getattr(value, "scope_id", None) is None:
        return value
    return _parse(ipaddress.ip_interface, value, what)


def _parse(parser: Callable[[str], _T], value: object, what: str) -> _T:
    # bool and int are numbers to ipaddress (0.0.0.1); nobody who passes one means that.
    if isinstance(value, bytes | int | float | tuple | list | None):
        msg = f"invalid {what} {value!r}: text, an ipaddress or a netaddr value is expected"
        raise InvalidValueError(msg)
    try:
        if "%" in str(value):  # fe80::1%eth0 would be another value than fe80::1, and never equal to it
            msg = "an interface is not part of it"
            raise ValueError(msg)  # noqa: TRY301 - as the parser does
        return parser(str(value))
    except ValueError as error:
        msg = f"invalid {what} {str(value)!r}: {error}"
        raise InvalidValueError(msg) from None


def parse_mac(value: object) -> str:
    """
    Return *value* as ``02:42:ac:11:00:02``.

    Args:
        value: Text in any usual notation, or a ``netaddr.EUI``: a unicast address, not all zero.

    Raises:
        InvalidValueError: Not a MAC address, or a multicast or zero one, which no interface can have.
    """
    text = str(value).lower()
    if not _MAC.match(text):
        text = _exotic_mac(value)
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        msg = f"invalid MAC address {str(value)!r}: multicast and zero addresses cannot be assigned"
        raise InvalidValueError(msg)
    return text


def _exotic_mac(value: object) -> str:
    # Cisco's, Windows' and bare notations are rare enough to pay netaddr's import for.
    import netaddr

    try:
        # netaddr fills up what is short of six bytes; nobody who writes that means it.
        text = str(value) if _SIX_BYTES.match(str(value)) else "junk"
        return str(netaddr.EUI(text, version=48, dialect=netaddr.mac_unix_expanded))
    except (netaddr.AddrFormatError, ValueError, TypeError):
        msg = f"invalid MAC address {str(value)!r}: six bytes such as 02:42:ac:11:00:02 are expected"
        raise InvalidValueError(msg) from None


def random_mac(random: Random, taken: Iterable[str] = ()) -> str:
    """Return a random unicast, locally administered MAC (IEEE 802, second-lowest bit) not in *taken*."""
    used = set(taken)
    while True:
        octets = random.getrandbits(48).to_bytes(6, "big")
        mac = bytes([octets[0] & 0xFC | 0x02, *octets[1:]]).hex(":")
        if mac not in used:
            return mac
