"""What a host in memory is told of endpoints on other hosts."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pynetwork.peers import Reached
from pynetwork.testing._model import os_error

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Mapping

    from pynetwork.peers import Change, Entry, Slot

__all__ = ["FakePeers"]


class FakePeers:
    """
    A datapath in a dict, see :class:`~pynetwork.peers.Peers`.

    Args:
        has_vxlan: Whether the host has a VXLAN device for a VNI; what is told of a network goes with it.
        lock: Of the host, which has its own lock when it asks for what is here, and is asked from here.

    Attributes:
        members: VNI to the VTEPs that packets of a network are taken from.
        reached: What is found out of the way to hosts, by address; packets of the full size reach all others.
    """

    def __init__(self, has_vxlan: Callable[[int], bool], lock: threading.RLock) -> None:
        self._has_vxlan = has_vxlan
        self._lock = lock
        self._entries: dict[int, dict[Slot, Entry]] = {}
        self.reached: dict[str, Reached] = {}
        self.members: dict[int, frozenset[str]] = {}

    def entries(self, vni: int) -> set[Entry]:
        """Return the entries of a network."""
        with self._lock:
            return set(self._entries.get(vni, {}).values())

    def apply(self, vni: int, change: Change) -> None:
        """Put what is new in place, then drop what is gone; see :meth:`Peers.apply`."""
        with self._lock:
            held = self._of(vni)
            held.update((entry.slot, entry) for entry in change.put)
            for entry in change.drop:
                held.pop(entry.slot, None)

    def reconcile(self, vni: int, wanted: Collection[Entry]) -> int:
        """Make the entries of a network *wanted*; see :meth:`Peers.reconcile`."""
        with self._lock:
            held, target = self._of(vni), {entry.slot: entry for entry in wanted}
            wrong = [slot for slot in {**held, **target} if held.get(slot) != target.get(slot)]
            self._entries[vni] = target
            return len(wrong)

    def probe(self, targets: Iterable[str], size: int) -> dict[str, Reached]:  # noqa: ARG002 - as told
        """Return whether packets reach other hosts: all do, but for those in :attr:`reached`."""
        return {target: self.reached.get(target, Reached.FULL) for target in targets}

    def admit(self, port: int, members: Mapping[int, Collection[str]]) -> None:  # noqa: ARG002 - as told
        """Take packets of networks from the hosts that are in them only; see :meth:`Admitting.admit`."""
        self.members = {vni: frozenset(vteps) for vni, vteps in members.items()}

    def forget_lost(self) -> None:
        """Drop the entries of devices that are gone."""
        with self._lock:
            for vni in [vni for vni in self._entries if not self._has_vxlan(vni)]:
                del self._entries[vni]

    def _of(self, vni: int) -> dict[Slot, Entry]:
        if not self._has_vxlan(vni):
            raise os_error(errno.ENODEV, f"the VXLAN device of VNI {vni}")
        return self._entries.setdefault(vni, {})
