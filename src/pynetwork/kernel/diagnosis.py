"""What on a host may block networks: settings, and forward chains that drop what is left."""

from __future__ import annotations

import errno
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.kernel import nfnetlink, sysctl, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.kernel.netlink import NetlinkSocket
    from pynetwork.kernel.verdicts import Chains, Link, Rule

__all__ = ["DropChain", "HostFacts", "gather"]

_SAVE_SECONDS: Final = 10.0
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_DOCKER_USER: Final = "DOCKER-USER"
_NO_NFTABLES: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})
_NUMBERS: Final = {"inet": 1, "ip": 2, "ip6": 10}  # NFPROTO_*
_IPV6_SETTINGS: Final = Path("/proc/sys/net/ipv6/conf")
_NAMES: Final = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}
_PROGRAMS: Final = {4: "iptables-legacy", 6: "ip6tables-legacy"}


@attrs.frozen(kw_only=True)
class DropChain:
    """
    A chain at the forward hook that drops what it does not accept.

    Args:
        tool: What changes it: ``nft``, or the program for its family, such as ``iptables-legacy``.
        family: nftables family of its table: ``ip``, ``ip6`` or ``inet``.
        table: Its table.
        chain: Its name.
        has_docker_user: Whether it consults Docker's chain for rules of others.
        accepts: Interfaces whose packets it accepts nonetheless, by the way they go.
    """

    tool: str
    family: str
    table: str
    chain: str
    has_docker_user: bool = False
    accepts: frozenset[Link] = frozenset()


@attrs.frozen(kw_only=True)
class HostFacts:
    """
    What was found on a host.

    Args:
        forwards: Families, 4 and 6, in which it forwards packets.
        drops: Forward chains that drop.
        filters_frames: Families in which bridged frames pass the firewall like routed packets
            (br_netfilter).
        without_ipv6: Interfaces on which IPv6 is switched off.
        unseen: What could not be looked at, and why.
    """

    forwards: tuple[int, ...] = (4, 6)
    drops: tuple[DropChain, ...] = ()
    filters_frames: tuple[int, ...] = ()
    without_ipv6: frozenset[str] = frozenset()
    unseen: tuple[str, ...] = ()


def gather() -> HostFacts:
    """Look at the network namespace of the calling thread."""
    drops: list[DropChain] = []
    unseen: list[str] = []
    for what, chains in (("nftables", _nft_chains), ("iptables-legacy", _legacy_chains)):
        try:
            drops += chains()
        except (OSError, subprocess.SubprocessError) as error:  # such as a lock that somebody holds
            unseen.append(f"{what}: {error}")
    return HostFacts(
        forwards=_on({4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}),
        drops=tuple(drops),
        filters_frames=_on(
            {4: "net.bridge.bridge-nf-call-iptables", 6: "net.bridge.bridge-nf-call-ip6tables"}
        ),
        without_ipv6=frozenset(_without_ipv6()),
        unseen=tuple(unseen),
    )


def _on(names: dict[int, str]) -> tuple[int, ...]:
    return tuple(version for version, name in names.items() if _is_on(name))


def _without_ipv6() -> Iterator[str]:
    with suppress(FileNotFoundError):  # a kernel without IPv6
        for settings in _IPV6_SETTINGS.iterdir():
            if _is_on(f"net/ipv6/conf/{settings.name}/disable_ipv6"):
                yield settings.name


def _is_on(name: str) -> bool:
    with suppress(OSError):
        return sysctl.read(name) == "1"
    return False


def _nft_chains() -> Iterator[DropChain]:
    """Yield the chains of other tables than ours."""
    try:
        with nfnetlink.open_socket() as nft:
            yield from _nft_chains_by(nft)
    except OSError as error:
        if error.errno not in _NO_NFTABLES:
            raise


def _nft_chains_by(nft: NetlinkSocket) -> Iterator[DropChain]:
    for family, table, chain, policy in nfnetlink.dump_forward_chains(nft):
        if table.startswith("pynetwork"):
            continue
        chains = _rules(nft, family, table)
        verdict, accepts = verdicts.fate(chains, chain, policy)
        if verdict == "drop":
            is_iptables = table == "filter" and chain == "FORWARD" and family != "inet"
            yield DropChain(
                tool=_iptables(family) if is_iptables else "nft",
                family=family,
                table=table,
                chain=chain,
                has_docker_user=_calls_docker_user(chains, chain),
                accepts=accepts,
            )


def _rules(nft: NetlinkSocket, family: str, table: str) -> Chains:
    chains: dict[str, list[Rule]] = {}
    for payload in nfnetlink.dump_rules(nft, _NUMBERS[family], table):
        of, chain, rule = verdicts.parse_nft(payload)
        if of == table:
            chains.setdefault(chain, []).append(rule)
    return chains


def _calls_docker_user(chains: Chains, chain: str) -> bool:
    return any(rule.chain == _DOCKER_USER and not rule.has_conditions for rule in chains.get(chain, ()))


def _iptables(family: str) -> str:
    """Return the program that changes what nftables keeps for it, by the name that cannot be the other's."""
    name = "ip6tables" if family == "ip6" else "iptables"
    return next((tool for tool in (f"{name}-nft", name) if shutil.which(tool, path=_PATH)), "nft")


def _legacy_chains() -> Iterator[DropChain]:
    for version, names in _NAMES.items():
        chains, policies = verdicts.parse_saved(_saved(version, Path(names)).splitlines())
        verdict, accepts = verdicts.fate(chains, "FORWARD", policies.get("FORWARD", "accept"))
        if verdict == "drop":
            yield DropChain(
                tool=_PROGRAMS[version],
                family="ip6" if version == 6 else "ip",
                table="filter",
                chain="FORWARD",
                has_docker_user=_calls_docker_user(chains, "FORWARD"),
                accepts=accepts,
            )


def _saved(version: int, names: Path) -> str:
    """Return the table ``filter`` as text, nothing when there is none."""
    try:
        if "filter" not in names.read_text(encoding="ascii").split():
            return ""
    except FileNotFoundError:  # a kernel without it
        return ""
    name = f"{_PROGRAMS[version]}-save"
    program = shutil.which(name, path=_PATH)
    if program is None:
        msg = f"it has a table filter, and {name} is not installed"
        raise FileNotFoundError(msg)
    return subprocess.run(  # noqa: S603 - a program of the system
        [program, "-t", "filter"], capture_output=True, text=True, timeout=_SAVE_SECONDS, check=True
    ).stdout
