"""What a host says of itself: its routes and name servers, its identity, which processes live."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.errors import UnavailableError
from pynetwork.etc import HostFiles
from pynetwork.kernel import answers, rtnl
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.peers import Underlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.types import IPAddress, IPNetwork

__all__ = [
    "RESOLVED_CONF",
    "RESOLV_CONF",
    "boot_id",
    "ephemeral_ports",
    "host_files",
    "host_networks",
    "is_alive",
    "machine_seed",
    "nameservers",
    "process_identity",
    "underlay",
]

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLVED_CONF: Final = Path("/run/systemd/resolve/resolv.conf")  # what systemd's stub asks
_HOSTS: Final = Path("/etc/hosts")
_STUB: Final = ipaddress.ip_address("127.0.0.53")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_START_TIME: Final = 19  # field 22 of proc_pid_stat(5), counted after the command


def host_networks() -> tuple[IPNetwork, ...]:
    """
    Return what a subnet chosen for a network must not overlap.

    Destinations of the host's routes in all tables, default routes, loopback, link-local and multicast
    aside, and its name servers. What libnetwork looks at, for both families.
    """
    with NetlinkSocket() as netlink:
        routes = [answers.parse_route(payload) for payload in netlink.dump(answers.dump_routes)]
    found = [
        ipaddress.ip_network(route.dst)
        for route in routes
        if route is not None and route.table != rtnl.RT_TABLE_LOCAL
    ]
    servers = [ipaddress.ip_network(address) for address in nameservers()]
    return tuple(dict.fromkeys(network for network in (*found, *servers) if _matters(network)))


def _matters(network: IPNetwork) -> bool:
    return bool(network.prefixlen) and not (
        network.is_loopback or network.is_link_local or network.is_multicast
    )


def nameservers(
    path: Path = RESOLV_CONF, behind_stub: Path = RESOLVED_CONF
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """Return the addresses of the host's name servers, those behind systemd's stub if it is the only one."""
    found = tuple(_nameservers(path))
    return tuple(_nameservers(behind_stub)) if found == (_STUB,) else found


def _nameservers(path: Path) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] == ["nameserver"] and len(words) > 1:
                with suppress(ValueError):
                    yield ipaddress.ip_address(words[1].partition("%")[0])


def host_files() -> HostFiles:
    """Return what the host's ``resolv.conf``, or the one behind systemd's stub, and ``hosts`` say."""
    return _host_files(*(_mark(path) for path in (RESOLV_CONF, RESOLVED_CONF, _HOSTS)), os.uname().nodename)


@functools.lru_cache(maxsize=1)  # they change once in a while, and are asked for by every join
def _host_files(resolv_conf: object, behind_stub: object, hosts: object, name: str) -> HostFiles:  # noqa: ARG001 - the files' marks
    is_stub = tuple(_nameservers(RESOLV_CONF)) == (_STUB,) and RESOLVED_CONF.exists()
    return HostFiles(
        resolv_conf=_text_of(RESOLVED_CONF if is_stub else RESOLV_CONF),
        hosts=_text_of(_HOSTS),
        name=name,
        ipv6=Path("/proc/net/if_inet6").exists(),
    )


def _mark(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _text_of(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def ephemeral_ports() -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """
    Return first and last of the ports that the kernel gives to who asks for any, and what is reserved.

    From ``ip_local_port_range`` and ``ip_local_reserved_ports`` (ip-sysctl), as libnetwork does.
    """
    first, last = 49153, 65535  # libnetwork's, where the kernel does not say
    reserved: list[tuple[int, int]] = []
    with suppress(OSError, ValueError):
        words = _read_whole("/proc/sys/net/ipv4/ip_local_port_range").split()
        first, last = int(words[0]), int(words[1])
        for part in _read_whole("/proc/sys/net/ipv4/ip_local_reserved_ports").strip().split(b","):
            low, _, high = part.partition(b"-")
            if low:
                reserved.append((int(low), int(high or low)))
    return first, last, tuple(reserved)


def _read_whole(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - in half the time, for each port
        return file.read()


def machine_seed() -> bytes:
    """Return bytes that are this machine's own and stay so (machine-id(5)), else those of its name."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with suppress(OSError):
            seed = path.read_bytes().strip()
            if seed:
                return seed
    return socket.gethostname().encode()


def boot_id() -> str:
    """Return what tells this boot of the kernel from all others (random(4))."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def process_identity() -> str:
    """Return what tells this process from all others, past and future, on this host."""
    pid = os.getpid()
    return f"{boot_id()}:{_pid_namespace()}:{pid}:{_start_time(pid)}"


def is_alive(identity: str) -> bool:
    """
    Return whether the process of an identity still runs.

    One of another pid namespace cannot be seen, and counts as alive.
    """
    boot, namespace, pid, start = identity.split(":")
    if boot != boot_id():
        return False
    if namespace != _pid_namespace():
        return True
    with suppress(OSError):
        return _start_time(int(pid)) == start
    return False


def _pid_namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116 - a magic link, followed


def _start_time(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # The command, field 2, is in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        raise ProcessLookupError(pid)  # dead, but not buried
    return fields[_START_TIME]


def underlay(vtep: IPAddress | None) -> Underlay:
    """
    Return how this host reaches others.

    Args:
        vtep: Its address that they send to; None for the one that it sends from to the world.

    Raises:
        UnavailableError: It has no such address, or, when none is given, no default route.
    """
    with NetlinkSocket() as netlink:
        links = {link.ifindex: link for link in map(answers.parse_link, netlink.dump(answers.dump_links))}
        addresses = [answers.parse_address(payload) for payload in netlink.dump(answers.dump_addresses)]
    if vtep is None:
        vtep = _source()
    for address in addresses:
        if ipaddress.ip_interface(address.cidr).ip == vtep:
            link = links[address.ifindex]
            return Underlay(vtep=vtep, mtu=link.mtu, link=link.name)
    msg = f"no interface of this host has the address {vtep}, which other hosts are to send to (vtep=)"
    raise UnavailableError(msg)


def _source() -> IPAddress:
    """Return the address that this host sends from to the world. Nothing is sent."""
    for family, anywhere in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((anywhere, 9))
            return ipaddress.ip_address(probe.getsockname()[0])
    msg = "this host has no default route: give the address that other hosts are to send to (vtep=)"
    raise UnavailableError(msg)
