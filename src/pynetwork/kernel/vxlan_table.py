"""The table of nftables that VXLAN packets pass: loaded by ``nft`` once, elements of sets ever after."""

from __future__ import annotations

import errno
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pynetwork.errors import UnavailableError
from pynetwork.kernel import nfnetlink
from pynetwork.kernel.netlink import NetlinkError
from pynetwork.kernel.nfnetlink import FAMILIES, Item
from pynetwork.kernel.nftables import find_nft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pynetwork.kernel.netlink import Message, NetlinkSocket

__all__ = [
    "NETWORKS",
    "PORTS",
    "STRICT",
    "Key",
    "VxlanTable",
    "missing_ignored",
    "number_of",
    "table_text",
]

#: An element: the name of its set, and its key.
Key: TypeAlias = "tuple[str, bytes]"

_SECONDS: Final = 30.0
_TRIES: Final = 10
_INET: Final = FAMILIES["inet"]
# Behind the putting together of fragments, and before filters of others.
_PRIORITY: Final = -150
# Bits behind the beginning of the UDP header (RFC 7348 section 5): VNI, source of the inner frame.
_VNI: Final = "@th,96,24"
_SENDER: Final = "@th,176,48"
#: Names of sets: UDP ports of VXLAN; VNIs of networks, which have members; those of strict ones.
PORTS, NETWORKS, STRICT = "ports", "networks", "strict"
_SETS: Final = {
    PORTS: "udp dport",
    NETWORKS: _VNI,
    STRICT: _VNI,
    "members4": f"ip saddr . {_VNI}",
    "members6": f"ip6 saddr . {_VNI}",
    "sources4": f"ip saddr . {_VNI} . {_SENDER}",
    "sources6": f"ip6 saddr . {_VNI} . {_SENDER}",
}


def _only(*names: str) -> tuple[str, ...]:
    """Return rules that drop what is in none of the sets *names*."""
    # To speak of connections has fragments of IPv6 put together before the hook: in pieces that are small
    # enough a packet shows no VNI.
    invalid = "ct state invalid counter drop"
    return (invalid, *(f"{_SETS[name]} @{name} return" for name in names), "counter drop")


_CHAINS: Final = {
    "members": _only("members4", "members6"),
    "sources": _only("sources4", "sources6"),
    "input": (
        f"type filter hook input priority {_PRIORITY}; policy accept;",
        f"udp dport @{PORTS} {_VNI} @{NETWORKS} jump members",
        f"udp dport @{PORTS} {_VNI} @{STRICT} jump sources",
    ),
}
_RULES: Final = {name: sum(not rule.startswith("type") for rule in rules) for name, rules in _CHAINS.items()}


def table_text(table: str, ports: Iterable[int] = (), strict: Iterable[int] = ()) -> str:
    """
    Return what makes the table, unless there is one, as ``nft -f`` reads it; one transaction.

    Args:
        table: Its name.
        ports: UDP ports of VXLAN.
        strict: VNIs of strict networks, which take nothing until their sources are told.
    """
    lines = [f"create table inet {table}", f"table inet {table} {{"]
    lines += (f"\tset {name} {{ typeof {key}; }}" for name, key in _SETS.items())
    for name, rules in _CHAINS.items():
        lines += (f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}")
    lines.append("}")
    for name, numbers in ((PORTS, sorted(ports)), (STRICT, sorted(strict))):
        if numbers:
            lines.append(f"add element inet {table} {name} {{ {', '.join(map(str, numbers))} }}")
    return "\n".join([*lines, ""])


class VxlanTable:
    """
    The table of an instance, there or not. For any thread.

    Args:
        instance: Whose it is.
        home: Calls a function in the host's own namespace, and returns what that does.
    """

    def __init__(self, instance: str, home: Callable[[Callable[[], Any]], Any]) -> None:
        self._name = f"pynetwork-vxlan-{instance[:8]}"
        self._home = home
        self._lock = threading.Lock()
        self._opened: NetlinkSocket | None = None

    def is_possible(self) -> bool:
        """Whether the host has what it takes."""
        try:
            self.generation()
        except OSError:  # no nftables in this kernel
            return False
        return find_nft() is not None

    def is_there(self) -> bool:
        """Whether there is such a table."""
        try:
            return nfnetlink.has_table(self._nft, _INET, self._name)
        except OSError:
            return False  # no nftables at all

    def is_whole(self) -> bool:
        """Whether it is there with all its rules."""
        if not self.is_there():
            return False
        found = nfnetlink.dump_chains(self._nft, _INET, self._name)
        return all(found.get(name) == count for name, count in _RULES.items())

    def make(self) -> bool:
        """
        Load it, unless it is whole; networks that are strict stay so, and take nothing.

        Returns:
            Whether that was to be done.

        Raises:
            UnavailableError: There is no nft, or it refuses.
        """
        if self.is_whole():
            return False
        program = find_nft()
        if program is None:
            msg = "VXLAN packets cannot be told by who sends them without nft (apt-get install nftables)"
            raise UnavailableError(msg)
        reason = "others change it all the time"
        for _ in range(_TRIES):
            now = self.generation()
            kept = [(name, key) for name in (PORTS, STRICT) for key in self.keys(name)]
            if not self._is_removed(now):
                continue  # somebody has added something, or repaired it
            done: subprocess.CompletedProcess[str] = self._home(partial(_run, program, self._text(kept)))
            if not done.returncode:
                return True
            if self.is_whole():  # somebody was faster
                self.change(kept)
                return True
            reason = f"nft: {done.stderr.strip()}"
        msg = f"VXLAN packets cannot be told by who sends them: {reason}"
        raise UnavailableError(msg)

    def _text(self, kept: Sequence[Key]) -> str:
        ports, strict = ([number_of(key) for name, key in kept if name == each] for each in (PORTS, STRICT))
        return table_text(self._name, ports, strict)

    def _is_removed(self, now: int) -> bool:
        """Remove it if nobody has changed any rules since generation *now*; returns whether it is gone."""
        if not self.is_there():
            return True
        try:
            nfnetlink.transact(self._nft, [nfnetlink.delete_table(_INET, self._name)], generation=now)
        except NetlinkError as error:
            if error.errno not in {errno.ERESTART, errno.ENOENT}:
                raise
            return False
        return True

    def remove_if_unused(self) -> None:
        """Remove it if no network needs it; one that comes meanwhile keeps it."""
        now = self.generation()
        if not any(self.keys(name) for name in (NETWORKS, STRICT)):
            self._is_removed(now)

    def generation(self) -> int:
        """Return a number that grows whenever anybody changes any rules of the host."""
        return nfnetlink.generation(self._nft)

    def has(self, key: Key) -> bool:
        """Whether there is such an element."""
        name, packed = key
        return nfnetlink.has_element(self._nft, _INET, self._name, name, packed)

    def keys(self, name: str) -> set[bytes]:
        """Return the elements of a set."""
        keys: set[bytes] = set()
        with missing_ignored():
            keys.update(item.key for item in nfnetlink.dump_elements(self._nft, _INET, self._name, name))
        return keys

    def change(self, added: Iterable[Key], gone: Iterable[Key] = ()) -> None:
        """
        Add elements, which may be there, and delete others, which must be: all or none.

        Raises:
            OSError: ENOENT when there is no table, or one of *gone* is not in it.
        """
        messages: list[Message] = []
        for name, items in _by_set(added):
            messages += nfnetlink.add_elements(_INET, self._name, name, items)
        for name, items in _by_set(gone):
            messages += nfnetlink.delete_elements(_INET, self._name, name, items)
        nfnetlink.transact(self._nft, messages)

    def flush(self, names: Sequence[str]) -> None:
        """Delete all elements of some sets."""
        nfnetlink.transact(self._nft, [nfnetlink.flush_set(_INET, self._name, name) for name in names])

    def close(self) -> None:
        """Close the socket; the table stays. Idempotent."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @property
    def _nft(self) -> NetlinkSocket:
        with self._lock:
            if self._opened is None:
                self._opened = self._home(nfnetlink.open_socket)
            return self._opened


def number_of(key: bytes) -> int:
    """Return the number that a key of one field is."""
    return int.from_bytes(key, "big")


@contextmanager
def missing_ignored() -> Iterator[None]:
    """Ignore that what a ``with`` block deletes, or looks at, is not there."""
    try:
        yield
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise


def _run(program: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own text on its standard input
        [program, "-f", "-"], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def _by_set(elements: Iterable[Key]) -> Iterator[tuple[str, list[Item]]]:
    found: dict[str, list[Item]] = {}
    for name, key in elements:
        found.setdefault(name, []).append(Item(key))
    yield from found.items()
