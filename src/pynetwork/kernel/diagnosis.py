"""What on a host may block networks: settings, and forward chains whose policy is to drop."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.kernel import nfnetlink, sysctl
from pynetwork.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DropChain", "HostFacts", "gather"]

_SAVE_SECONDS: Final = 10.0
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
        has_docker_user: Whether Docker's chain for rules of others is beside it.
    """

    tool: str
    family: str
    table: str
    chain: str
    has_docker_user: bool = False


@attrs.frozen(kw_only=True)
class HostFacts:
    """
    What was found on a host.

    Args:
        forwards: Families, 4 and 6, in which it forwards packets.
        drops: Forward chains that drop.
        filters_frames: Whether bridged frames pass iptables (br_netfilter).
    """

    forwards: tuple[int, ...] = (4, 6)
    drops: tuple[DropChain, ...] = ()
    filters_frames: bool = False


def gather() -> HostFacts:
    """Look at the network namespace of the calling thread."""
    return HostFacts(
        forwards=tuple(
            version
            for version, name in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding"))
            if _is_on(name)
        ),
        drops=(*_nft_chains(), *_legacy_chains()),
        filters_frames=_is_on("net.bridge.bridge-nf-call-iptables"),
    )


def _is_on(name: str) -> bool:
    with suppress(OSError):
        return sysctl.read(name) == "1"
    return False


def _nft_chains() -> Iterator[DropChain]:
    """Yield the chains of other tables than ours."""
    with suppress(NetlinkError), nfnetlink.open_socket() as nft:
        chains = nfnetlink.dump_forward_chains(nft)
        docker = {(family, table) for family, table, chain, _ in chains if chain == "DOCKER-USER"}
        for family, table, chain, drops in chains:
            if drops and not table.startswith("pynetwork"):
                is_iptables = table == "filter" and chain == "FORWARD" and family != "inet"
                tool = ("ip6tables" if family == "ip6" else "iptables") if is_iptables else "nft"
                yield DropChain(
                    tool=tool,
                    family=family,
                    table=table,
                    chain=chain,
                    has_docker_user=(family, table) in docker,
                )


def _legacy_chains() -> Iterator[DropChain]:
    for version, names in _NAMES.items():
        program = shutil.which(f"{_PROGRAMS[version]}-save", path="/usr/sbin:/sbin:/usr/bin")
        with suppress(OSError):
            if program is None or "filter" not in Path(names).read_text(encoding="ascii").split():
                continue
            text = subprocess.run(  # noqa: S603 - a program of the system
                [program, "-t", "filter"], capture_output=True, text=True, timeout=_SAVE_SECONDS, check=False
            ).stdout
            if "\n:FORWARD DROP " in text:
                yield DropChain(
                    tool=_PROGRAMS[version],
                    family="ip6" if version == 6 else "ip",
                    table="filter",
                    chain="FORWARD",
                    has_docker_user="\n:DOCKER-USER " in text,
                )
