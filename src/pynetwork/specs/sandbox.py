"""Sandboxes: what they are called, whom they ask for names, what their processes may use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.specs._convert import made_of, to_labels
from pynetwork.types import HOST_GATEWAY, check_domain, parse_address, parse_each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.types import IPAddress

__all__ = ["HOSTNAME_MAX", "Limits", "SandboxSpec", "parse_signal"]

HostAddress: TypeAlias = "IPAddress | Literal['host-gateway']"

#: Bytes of a host's name (linux/utsname.h).
HOSTNAME_MAX: Final = 64

_OPTION: Final = re.compile(r"[a-z0-9][a-z0-9-]*(:[0-9]+)?\Z")
_SIGNAL: Final = re.compile(r"(?:SIG)?(RTMIN|RTMAX)([+-])([0-9]{1,2})\Z")
_LAST_SIGNAL: Final = 64  # _NSIG, asm-generic/signal.h
_SIGTERM: Final = 15
_LEAST_MEMORY: Final = 1 << 20  # bytes; no program starts with less
_LEAST_CPUS: Final = 0.01  # a millisecond in each period of 100 (sched-bwc: a quota is at least that)


def _servers(values: Iterable[object]) -> tuple[IPAddress, ...]:
    return () if values == () else parse_each("name servers", values, _server)


def _server(value: object) -> IPAddress:
    return parse_address(value, "address of a name server")


def _domain(value: object) -> str | None:
    return None if value is None else check_domain("domain name", value)


def _search(values: Iterable[object]) -> tuple[str, ...]:
    """Return search domains; ``.`` is the one that stands for none at all (Docker)."""
    if values == ():
        return ()
    found = parse_each(
        "search domains", values, lambda v: "." if v == "." else check_domain("search domain", v)
    )
    if "." in found and len(found) > 1:
        msg = f"invalid search domains {', '.join(found)}: '.' stands for none at all"
        raise InvalidValueError(msg)
    return tuple(dict.fromkeys(found))


def _options(values: Iterable[object]) -> tuple[str, ...]:
    return () if values == () else parse_each("resolver options", values, _option)


def _option(value: object) -> str:
    if not isinstance(value, str) or not _OPTION.match(value):
        msg = f"invalid resolver option {value!r}: a word of resolv.conf(5) is expected, such as 'ndots:2'"
        raise InvalidValueError(msg)
    if value.partition(":")[0] == "ndots" and ":" not in value:
        msg = "invalid resolver option 'ndots': how many is not said; 'ndots:2', say"
        raise InvalidValueError(msg)
    return value


def _hosts(value: Mapping[str, object] | None) -> Mapping[str, HostAddress]:
    if value is None:
        return MappingProxyType({})
    if not isinstance(value, Mapping):
        msg = f"invalid extra hosts {value!r}: a dict of name to address is expected"
        raise InvalidValueError(msg)
    return MappingProxyType(
        {check_domain("host name", name): _host_address(name, address) for name, address in value.items()}
    )


def _host_address(name: str, value: object) -> HostAddress:
    if isinstance(value, str) and value == HOST_GATEWAY:
        return HOST_GATEWAY
    return parse_address(value, f"address of {name}")


def parse_signal(value: object) -> int:
    """Return the number of a signal given as ``15``, ``"SIGTERM"``, ``"term"`` or ``"RTMIN+3"``."""
    import signal

    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str):
        name = value.upper()
        match = _SIGNAL.match(name)
        if match is not None:
            offset = int(match[3]) if match[2] == "+" else -int(match[3])
            number = signal.Signals[f"SIG{match[1]}"] + offset
        elif name.isdecimal():
            number = int(name)
        else:
            known = signal.Signals.__members__
            number = known.get(name, known.get(f"SIG{name}"))
    if number is None or not 1 <= number <= _LAST_SIGNAL:
        msg = f"invalid signal {value!r}: a name such as 'SIGINT', or 1 to {_LAST_SIGNAL}, is expected"
        raise InvalidValueError(msg)
    return int(number)


def _stop_signal(value: object) -> int:
    return _SIGTERM if value in (_SIGTERM, "SIGTERM") and value is not True else parse_signal(value)


def _group(value: object) -> str | None:
    """Return the path of a control group below the root of the hierarchy, without slashes at its ends."""
    if value is None:
        return None
    path = value.strip("/") if isinstance(value, str) else ""
    parts = path.split("/")
    if not path.isprintable() or any(part in {"", ".", ".."} or len(part.encode()) > 255 for part in parts):
        msg = f"invalid control group {value!r}: a path such as 'machine.slice/jobs' is expected"
        raise InvalidValueError(msg)
    return path


def _amount(what: str, value: object, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"invalid limit {what}={value!r}: a whole number, at least {least}, is expected"
        raise InvalidValueError(msg)
    return value


def _memory(value: object) -> int | None:
    return _amount("memory", value, _LEAST_MEMORY)


def _pids(value: object) -> int | None:
    return _amount("pids", value, 1)


def _cpus(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"invalid limit cpus={value!r}: a number is expected"
        raise InvalidValueError(msg)
    if value < _LEAST_CPUS:
        msg = f"invalid limit cpus={value!r}: it is at least {_LEAST_CPUS}"
        raise InvalidValueError(msg)
    return float(value)


@attrs.frozen(kw_only=True)
class Limits:
    """
    What the processes of a sandbox may use together; None is no limit.

    Args:
        memory: Bytes, at least a mebibyte; the kernel ends processes that need more.
        cpus: Processors' worth of time: 1.5 is one and a half of them; at least 0.01.
        pids: Processes and threads.
    """

    memory: int | None = attrs.field(default=None, converter=_memory)
    cpus: float | None = attrs.field(default=None, converter=_cpus)
    pids: int | None = attrs.field(default=None, converter=_pids)

    @classmethod
    def parse(cls, value: object) -> Limits | None:
        """Return *value*, Limits or a mapping of its fields, as Limits; None when nothing is limited."""
        if value is None or isinstance(value, cls):
            return None if value == cls() else value
        if isinstance(value, Mapping):
            return cls.parse(made_of(cls, (), value))
        msg = f"invalid limits {value!r}: Limits, or a dict of its fields, is expected"
        raise InvalidValueError(msg)


def _limits(value: object) -> Limits | None:
    return Limits.parse(value)


@attrs.frozen(kw_only=True)
class SandboxSpec:
    """
    A sandbox: the network stack of one container.

    Args:
        id: 32 hexadecimal digits.
        name: Unique in its controller.
        netns: Path of the file that pins its namespace; None is the host's own namespace.
        adopted: Path of the namespace it was made over, when that was someone else's.
        attached: Whether it has a namespace; else its endpoints wait for one.
        hostname: The container's own name.
        domainname: The domain it is in.
        dns: Its own name servers; those of its networks or of the host stand in for none.
        dns_search: Its own search domains; ``.`` alone is none at all, () is the host's.
        dns_options: Its own options of the resolver, see resolv.conf(5); () is the host's.
        extra_hosts: Further names to the address of each, or to ``host-gateway``.
        stop_signal: Number of the signal that asks its processes to end.
        limits: What its processes may use together.
        cgroup_parent: The control group that its own is in, below the root of the hierarchy.
        labels: The caller's.
        created: Seconds since the epoch.
    """

    id: str
    name: str
    netns: str | None = None
    adopted: str | None = None
    attached: bool = True
    hostname: str | None = None
    domainname: str | None = attrs.field(default=None, converter=_domain)
    dns: tuple[IPAddress, ...] = attrs.field(default=(), converter=_servers)
    dns_search: tuple[str, ...] = attrs.field(default=(), converter=_search)
    dns_options: tuple[str, ...] = attrs.field(default=(), converter=_options)
    extra_hosts: Mapping[str, HostAddress] = attrs.field(factory=dict, converter=_hosts, hash=False)
    stop_signal: int = attrs.field(default=_SIGTERM, converter=_stop_signal)
    limits: Limits | None = attrs.field(default=None, converter=_limits)
    cgroup_parent: str | None = attrs.field(default=None, converter=_group)
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=to_labels, hash=False)
    created: float = 0.0

    @property
    def uts_name(self) -> str:
        """The name its processes see: its own, or Docker's default, the first twelve digits of its id."""
        return self.hostname or self.id[:12]
