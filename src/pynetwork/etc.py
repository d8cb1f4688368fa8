"""What ``hosts``, ``hostname`` and ``resolv.conf`` of a sandbox say: pure functions of specs and host files.

The rules are libnetwork's (``sandbox_dns_unix.go``, ``internal/resolvconf``, ``etchosts``) where nothing else
is said.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pynetwork.specs import SandboxSpec
    from pynetwork.types import IPAddress

__all__ = ["HostFiles", "ResolvConf", "hostname_text", "hosts_text", "own_hosts_text", "resolv_conf_text"]

_LOCALHOST: Final = {
    4: "127.0.0.1\tlocalhost\n",
    6: (
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
    ),
}
#: Asked when the host has none but its own loopback's, which a sandbox cannot reach.
_PUBLIC_SERVERS: Final = {4: ("8.8.8.8", "8.8.4.4"), 6: ("2001:4860:4860::8888", "2001:4860:4860::8844")}
_NDOTS: Final = re.compile(r"ndots:[0-9]+\Z")


@attrs.frozen(kw_only=True)
class HostFiles:
    """
    What the host's own files say, and what matters with them.

    Args:
        resolv_conf: Text of its ``resolv.conf``; of the one behind systemd's stub, if it names only that.
        hosts: Text of its ``hosts``.
        name: Its name.
        ipv6: Whether it has IPv6 at all.
    """

    resolv_conf: str = ""
    hosts: str = ""
    name: str = "localhost"
    ipv6: bool = True


@attrs.frozen(kw_only=True)
class ResolvConf:
    """
    A resolv.conf(5), taken apart.

    Args:
        servers: As they are written, an interface behind ``%`` included.
        search: Search domains.
        options: Options, the last of each name.
        rest: Lines that say anything else, such as ``sortlist``.
    """

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ResolvConf:
        """Return what *text* says, less servers that are no addresses."""
        servers: list[str] = []
        search: tuple[str, ...] = ()
        options: list[str] = []
        rest: list[str] = []
        for line in text.splitlines():
            words = line.split()
            if not words or words[0][0] in "#;":
                continue
            match words[0]:
                case "nameserver":
                    servers += (word for word in words[1:2] if _address(word) is not None)
                case "search" | "domain":  # the last one wins, of both
                    search = tuple(words[1:] if words[0] == "search" else words[1:2])
                case "options":
                    options += words[1:]
                case _:
                    rest.append(" ".join(words))
        return cls(
            servers=tuple(dict.fromkeys(servers)),
            search=_searched(search),
            options=_last_of_each(options),
            rest=tuple(rest),
        )


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _searched(domains: Iterable[str]) -> tuple[str, ...]:
    """Return search domains without repetitions; ``.``, which stands for none, is dropped."""
    return tuple(dict.fromkeys(domain for domain in domains if domain != "."))


def _last_of_each(options: Iterable[str]) -> tuple[str, ...]:
    """Return the last option of each name; an ``ndots`` that says no number is dropped."""
    found: dict[str, str] = {}
    for option in options:
        name = option.partition(":")[0]
        if name != "ndots" or _NDOTS.match(option):
            found.pop(name, None)
            found[name] = option
    return tuple(found.values())


_parsed = functools.lru_cache(maxsize=1)(ResolvConf.parse)  # the host's, again and again


def resolv_conf_text(  # the parameters are all that it depends on
    sandbox: SandboxSpec,
    host: HostFiles,
    *,
    servers: Sequence[IPAddress] = (),
    resolver: Sequence[object] = (),
    ipv6: bool = False,
) -> str:
    """
    Return the text of a sandbox's resolv.conf(5).

    Args:
        sandbox: Its own servers, domains and options take the place of the host's.
        host: The host's files.
        servers: Those of the networks it is in, for when it has none of its own.
        resolver: Addresses of the name server inside of it, if there is one: then only that is named, with
            ``ndots:0`` unless somebody says otherwise, and the servers are those that it asks. Else the
            servers themselves, the host's loopback ones left out, and IPv6 ones without *ipv6*; well-known
            public ones when none is left.
        ipv6: Whether it has an IPv6 address.
    """
    theirs = _parsed(host.resolv_conf)
    own = tuple(dict.fromkeys(str(address) for address in sandbox.dns or servers))
    search = _searched(sandbox.dns_search) if sandbox.dns_search else theirs.search
    options = _last_of_each(sandbox.dns_options or theirs.options)
    lines: list[str] = []
    if resolver:
        named = tuple(str(address) for address in resolver)
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
        lines.append(f"# asked by it: {', '.join(own or theirs.servers) or 'nobody'}")
    else:
        named = own or _reachable(theirs.servers, ipv6=ipv6)
    lines += (f"nameserver {address}" for address in named)
    lines += (
        f"{word} {' '.join(words)}" for word, words in (("search", search), ("options", options)) if words
    )
    return "".join(f"{line}\n" for line in (*lines, *theirs.rest))


def _reachable(servers: Iterable[str], *, ipv6: bool) -> tuple[str, ...]:
    """Return the host's servers that a sandbox can ask, or public ones."""
    versions = (4, 6) if ipv6 else (4,)
    found = tuple(text for text in servers if _is_reachable(text, versions))
    return found or tuple(server for version in versions for server in _PUBLIC_SERVERS[version])


def _is_reachable(text: str, versions: Iterable[int]) -> bool:
    address = _address(text)
    # A link-local one is on a link of the host's.
    return (
        address is not None
        and address.version in versions
        and not (address.is_loopback or address.is_link_local)
    )


def hostname_text(sandbox: SandboxSpec, host: HostFiles) -> str:
    """Return the text of a sandbox's ``hostname``: one line. In the host's namespace it is the host's."""
    if sandbox.netns is None and sandbox.hostname is None:
        return f"{host.name}\n"
    return f"{sandbox.uts_name}\n"


def hosts_text(
    sandbox: SandboxSpec,
    addresses: Iterable[IPAddress] = (),
    gateways: Mapping[int, IPAddress] | None = None,
    *,
    ipv6: bool = True,
) -> str:
    """
    Return the text of a sandbox's hosts(5): loopback, extra hosts, and itself under each of its addresses.

    Args:
        sandbox: It.
        addresses: Of all endpoints it has.
        gateways: Address family to the address under which it reaches the host, for ``host-gateway``; a
            family it does not reach the host with is left out, and so is the name with none.
        ipv6: Whether there is IPv6 at all.
    """
    names = _own_names(sandbox)
    lines = [_LOCALHOST[4], *([_LOCALHOST[6]] if ipv6 else [])]
    lines += (f"{address}\t{name}\n" for name, address in _extra(sandbox, gateways or {}))
    lines += (f"{address}\t{names}\n" for address in dict.fromkeys(addresses))
    return "".join(lines)


def own_hosts_text(sandbox: SandboxSpec, host: HostFiles, gateways: Mapping[int, IPAddress]) -> str:
    """Return the text of hosts(5) for a sandbox in the host's namespace: the host's, and extra hosts."""
    extra = "".join(f"{address}\t{name}\n" for name, address in _extra(sandbox, gateways))
    text = host.hosts if not host.hosts or host.hosts.endswith("\n") else f"{host.hosts}\n"
    return f"{text}{extra}"


def _own_names(sandbox: SandboxSpec) -> str:
    """Return its names, the full one first (hosts(5)); a hostname with dots is a full one."""
    full = f"{sandbox.uts_name}.{sandbox.domainname}" if sandbox.domainname else sandbox.uts_name
    return " ".join(dict.fromkeys((full, sandbox.uts_name.partition(".")[0])))


def _extra(sandbox: SandboxSpec, gateways: Mapping[int, IPAddress]) -> Iterator[tuple[str, IPAddress]]:
    for name, address in sandbox.extra_hosts.items():
        if isinstance(address, str):  # host-gateway
            yield from ((name, gateways[version]) for version in sorted(gateways))
        else:
            yield name, address
