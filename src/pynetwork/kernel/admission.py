"""From whom a host takes VXLAN packets: VXLAN itself takes them from anybody who can send some.

A table of nftables of our own drops packets of our networks, known by their VNI, that come from a host
which has no endpoint there. Packets of other VNIs, of somebody else's on the same port, are left alone. It
is no protection from who can forge his address on the underlay, nor from a host that is a member.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final

from pynetwork.errors import UnavailableError
from pynetwork.kernel import nfnetlink
from pynetwork.kernel.nfnetlink import FAMILIES
from pynetwork.kernel.nftables import find_nft

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["Admission", "table_text"]

_SECONDS: Final = 30.0
_HEADERS: Final = {4: "ip", 6: "ip6"}
# Before connections are tracked for good and filters of others; bits of the packet behind those of UDP.
_PRIORITY: Final = -150
_VNI: Final = "@th,96,24"


class Admission:
    """
    Keeps the table up to date.

    Args:
        instance: Whose it is.
        home: Calls a function in the host's own namespace, and returns what that does.
    """

    def __init__(self, instance: str, home: Callable[[Callable[[], Any]], Any]) -> None:
        self._table = f"pynetwork-vxlan-{instance[:8]}"
        self._home = home
        self._loaded: str | None = None

    def admit(self, port: int, members: Mapping[int, Collection[str]]) -> None:
        """
        Take packets of networks from their members only.

        Args:
            port: UDP port of VXLAN.
            members: VNI to the addresses of the hosts that have endpoints there; no network at all
                removes the table.

        Raises:
            UnavailableError: There is no nftables, or it refuses.
        """
        text = table_text(self._table, port, members)
        if text == self._loaded or (self._loaded is None and not members and not self._is_there()):
            return
        program = find_nft()
        if program is None:
            msg = "VXLAN packets of non-members cannot be dropped without nft (apt-get install nftables)"
            raise UnavailableError(msg)
        done: subprocess.CompletedProcess[str] = self._home(lambda: _run(program, text))
        if done.returncode:
            msg = f"VXLAN packets of non-members cannot be dropped: nft: {done.stderr.strip()}"
            raise UnavailableError(msg)
        self._loaded = text

    def _is_there(self) -> bool:
        """Whether a process before this one has left the table."""
        with self._home(nfnetlink.open_socket) as socket:
            try:
                return nfnetlink.has_table(socket, FAMILIES["inet"], self._table)
            except OSError:
                return False  # no nftables at all


def _run(program: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own text on its standard input
        [program, "-f", "-"], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def table_text(table: str, port: int, members: Mapping[int, Collection[str]]) -> str:
    """Return what makes the table as it shall be, or removes it, as ``nft -f`` reads it; one transaction."""
    gone = f"add table inet {table}\ndelete table inet {table}\n"
    if not members:
        return gone
    lines = [f"table inet {table} {{"]
    for vni, vteps in sorted(members.items()):
        lines.append(f"\tchain vni-{vni} {{")
        for version, header in _HEADERS.items():
            known = sorted(vtep for vtep in vteps if (":" in vtep) == (version == 6))
            lines += [f"\t\t{header} saddr {{ {', '.join(known)} }} return"] if known else []
        lines += ["\t\tcounter drop", "\t}"]
    jumps = ", ".join(f"{vni} : jump vni-{vni}" for vni in sorted(members))
    lines += (
        "\tchain input {",
        f"\t\ttype filter hook input priority {_PRIORITY}; policy accept;",
        f"\t\tudp dport {port} {_VNI} vmap {{ {jumps} }}",
        "\t}",
        "}",
        "",
    )
    return gone + "\n".join(lines)
