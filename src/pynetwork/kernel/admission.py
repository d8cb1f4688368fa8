"""From whom a host takes VXLAN packets: VXLAN itself takes them from anybody who can send some.

A table of nftables of our own drops packets of our networks, known by their VNI, that come from a host
which has no endpoint there; and, of strict networks, those whose inner source MAC is not that of an endpoint
on the host they come from. Packets of other VNIs, of somebody else's on the same port, are left alone. It is
no protection from who can forge his address on the underlay.
"""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import attrs

from pynetwork.errors import UnavailableError
from pynetwork.kernel.elements import concatenated
from pynetwork.kernel.netlink import NetlinkError
from pynetwork.kernel.rtnl import pack_address
from pynetwork.kernel.vxlan_table import NETWORKS, PORTS, STRICT, VxlanTable, missing_ignored, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from pynetwork.kernel.vxlan_table import Key

__all__ = ["Admission", "Source"]

#: A MAC, and the address of the host that it is on.
Source: TypeAlias = "tuple[str, str]"

_T = TypeVar("_T")
_TRIES: Final = 5
_MEMBERS: Final = (NETWORKS, "members4", "members6")


@attrs.define
class _Seen:
    """The sources in the table, by VNI, as of a generation of the host's rules."""

    generation: int
    sources: dict[int, set[Key]]


class Admission:
    """
    Keeps the table up to date. For any thread.

    Args:
        instance: Whose it is.
        home: Calls a function in the host's own namespace, and returns what that does.
    """

    def __init__(self, instance: str, home: Callable[[Callable[[], Any]], Any]) -> None:
        self._table = VxlanTable(instance, home)
        self._lock = threading.RLock()
        self._wanted: set[Key] = set()  # of members, as told last
        self._told: set[Key] | None = None  # what the table has of it; None: to be looked at
        self._verified = -1  # generation of the host's rules in which it was
        self._seen: _Seen | None = None

    def is_possible(self) -> bool:
        """Whether the host has what it takes."""
        return self._table.is_possible()

    def close(self) -> None:
        """Close the socket; the table stays. Idempotent."""
        self._table.close()

    # Strict networks

    def hold(self, vni: int, port: int) -> None:
        """
        Take frames of a network only from where their source is told to be: from nowhere, at first.

        Args:
            vni: Of the network.
            port: UDP port of VXLAN.

        Raises:
            UnavailableError: There is no nftables.
            OSError: It refuses.
        """
        with self._lock:
            self._until_made(lambda: self._table.change([_port(port), _vni(STRICT, vni)]))

    def release(self, vni: int) -> None:
        """Take frames of a network wherever their source is; nothing if it is not strict."""
        with self._lock:
            if self.is_strict(vni):
                with missing_ignored():
                    self._table.change([], [_vni(STRICT, vni), *self._sources().get(vni, ())])
                self._table.remove_if_unused()

    def is_strict(self, vni: int) -> bool:
        """Whether a network is strict, as far as the table tells."""
        try:
            return self._table.has(_vni(STRICT, vni))
        except OSError:
            if self._table.is_there():
                raise
            return False

    def strict(self) -> tuple[set[int], set[int]]:
        """Return VNIs of strict networks, and the UDP ports; none if the table is not whole."""
        if not self._table.is_whole():
            return set(), set()
        vnis, ports = (set(map(number_of, self._table.keys(name))) for name in (STRICT, PORTS))
        return vnis, ports

    def put(self, vni: int, sources: Iterable[Source]) -> None:
        """Take frames of a strict network from more sources."""
        self._table.change([_source(vni, *source) for source in sources])

    def drop(self, vni: int, sources: Iterable[Source]) -> None:
        """Take frames of a strict network from some sources no more."""
        gone = [_source(vni, *source) for source in sources]
        try:
            self._table.change([], gone)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            for each in gone:  # some are gone already
                with missing_ignored():
                    self._table.change([], [each])

    def reconcile(self, vni: int, sources: Collection[Source] | None) -> int:
        """
        Make what the table says of a network right, whatever it is.

        Args:
            vni: Of the network.
            sources: Where its frames may come from, if it is strict; else None.

        Returns:
            How much was missing or too much.

        Raises:
            OSError: It cannot be done.
        """
        with self._lock:
            if sources is None:
                with suppress(UnavailableError):  # said when it was told of members
                    return self._put_members_right()
                return 0
            try:
                wrong = self._put_members_right(is_needed=True)
            except UnavailableError as error:
                raise OSError(errno.EOPNOTSUPP, str(error)) from error
            wanted = {_source(vni, *source) for source in sources}
            found = self._sources().get(vni, set())
            if wanted != found:
                self._table.change(wanted - found, found - wanted)
            return wrong + len(wanted ^ found)

    def _sources(self) -> dict[int, set[Key]]:
        """Return the sources of all networks: one look does for as long as nobody changes any rules."""
        now = self._table.generation()
        if self._seen is None or self._seen.generation != now:
            found: dict[int, set[Key]] = {}
            for name, at in (("sources4", 4), ("sources6", 16)):
                for key in self._table.keys(name):
                    found.setdefault(number_of(key[at : at + 3]), set()).add((name, key))
            self._seen = _Seen(now, found)
        return self._seen.sources

    # Members of networks

    def admit(self, port: int, members: Mapping[int, Collection[str]]) -> None:
        """
        Take packets of networks from their members only.

        Args:
            port: UDP port of VXLAN.
            members: VNI to the addresses of the hosts that have endpoints there; none at all for no
                network.

        Raises:
            UnavailableError: There is no nftables, or it refuses.
        """
        with self._lock:
            self._wanted = _members(port, members)
            try:
                if self._wanted:
                    self._until_made(self._change_members)
                elif self._table.is_there():
                    self._table.flush(_MEMBERS)
                    self._told = None
                    self._table.remove_if_unused()
            except OSError as error:
                msg = f"VXLAN packets of non-members cannot be dropped: {error}"
                raise UnavailableError(msg) from error

    def _put_members_right(self, *, is_needed: bool = False) -> int:
        """Look at what the table has of members, if anybody changed any rules; return how much was wrong."""
        if not (self._wanted or is_needed) or self._table.generation() == self._verified:
            return 0
        self._told = None
        wrong = self._until_made(self._change_members if self._wanted else lambda: 0)
        self._verified = self._table.generation()
        return wrong

    def _change_members(self) -> int:
        told, self._told = self._told, None
        if told is None:
            told = {(name, key) for name in (PORTS, *_MEMBERS) for key in self._table.keys(name)}
        self._table.change(self._wanted - told, told - self._wanted)
        self._told = self._wanted
        return len(self._wanted ^ told)

    def _until_made(self, act: Callable[[], _T]) -> _T:
        """Do *act* with the table there: another process may just be about to remove it."""
        for _ in range(_TRIES):
            if self._table.make():
                self._told = None
            try:
                return act()
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
                self._told = None
        msg = "its table of nftables is removed by somebody again and again"
        raise UnavailableError(msg)


def _port(port: int) -> Key:
    return PORTS, port.to_bytes(2, "big")


def _vni(name: str, vni: int) -> Key:
    return name, vni.to_bytes(3, "big")


def _source(vni: int, mac: str, vtep: str) -> Key:
    return _from("sources", vtep, vni, bytes.fromhex(mac.replace(":", "")))


def _from(name: str, vtep: str, vni: int, *more: bytes) -> Key:
    """Return an element of the set *name* of the address's family."""
    key = concatenated((pack_address(vtep)[1], vni.to_bytes(3, "big"), *more))
    return f"{name}{6 if ':' in vtep else 4}", key


def _members(port: int, members: Mapping[int, Collection[str]]) -> set[Key]:
    """Return what there is of members of networks; nothing at all when there is no network."""
    if not members:
        return set()
    found = {_from("members", vtep, vni) for vni, vteps in members.items() for vtep in vteps}
    return {_port(port), *(_vni(NETWORKS, vni) for vni in members), *found}
