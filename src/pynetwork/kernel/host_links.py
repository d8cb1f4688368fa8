"""Links and addresses of the host that need a look first: adopted ones, and what is to be deleted."""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING, Protocol

from pynetwork.kernel import answers, rtnl
from pynetwork.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from pynetwork.kernel.doomed import Doomed
    from pynetwork.kernel.netlink import NetlinkSocket
    from pynetwork.resources import Address, Bridge, Veth, Vxlan

__all__ = ["HostLinks", "Owner"]


class Owner(Protocol):
    """Whose links they are."""

    group: int
    doomed: Doomed

    @property
    def host(self) -> NetlinkSocket:
        """The socket of the host's own namespace."""
        ...

    def make_bridge(self, bridge: Bridge) -> None:
        """Make a bridge; raise why it cannot be."""
        ...

    def reap(self, bridge: str | None = None) -> None:
        """Have the doomed links deleted soon; the ifindex of *bridge* is known no more."""
        ...


class HostLinks:
    """
    Does the rare things, see :class:`~pynetwork.kernel.compile.Host`.

    Args:
        owner: Whose links they are.

    Attributes:
        made: Names of the veth pairs that this process made; they are random, and not made twice.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.made: set[str] = set()

    def index(self, name: str) -> int | None:
        """Return the ifindex of a link, None when there is none of that name."""
        link = self._link(name)
        return None if link is None else link.ifindex

    def _link(self, name: str) -> answers.LinkInfo | None:
        try:
            return answers.parse_link(self._owner.host.ask(rtnl.get_link(name)))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return None

    def adopt_bridge(self, bridge: Bridge) -> None:
        """Take an existing bridge as it is, or make it."""
        link = self._link(bridge.name)
        if link is None:
            self._owner.make_bridge(bridge)
        elif link.kind != "bridge":
            msg = f"there is a link of that name, of type {link.kind or 'device'}"
            raise NetlinkError(errno.EEXIST, msg)

    def change_bridge(self, bridge: Bridge) -> None:
        """Change a bridge that is ours, leave another alone."""
        link = self._link(bridge.name)
        if link is None:
            raise NetlinkError(errno.ENODEV, os.strerror(errno.ENODEV))
        if link.group == self._owner.group:
            self._owner.host.request(
                rtnl.bridge(
                    bridge.name,
                    mac=bridge.mac,
                    mtu=bridge.mtu,
                    multicast_snooping=bridge.multicast_snooping,
                    change=True,
                )
            )

    def doom_bridge(self, bridge: Bridge) -> None:
        """Delete a bridge that is ours: its name is free at once, the rest goes soon."""
        link = self._link(bridge.name)
        if link is None:
            raise NetlinkError(errno.ENODEV, os.strerror(errno.ENODEV))
        if link.group != self._owner.group:
            return
        # Down, or it cannot be renamed; doomed at the end, because from then on it may be gone.
        for change in (
            rtnl.set_link(bridge.name, up=False),
            rtnl.set_link(index=link.ifindex, rename=f"gone{secrets.token_hex(5)}"),
            rtnl.set_link(index=link.ifindex, group=self._owner.doomed.group),
        ):
            self._owner.host.request(change)
        self._owner.reap(bridge.name)

    def doom_link(self, doomed: Veth | Vxlan) -> None:
        """Delete a veth pair or VXLAN device that is ours: nothing passes from now on, the rest goes soon."""
        if doomed.name in self.made:  # by this process, so no look is needed
            self.made.discard(doomed.name)
            self._owner.host.request(rtnl.set_link(doomed.name, up=False, group=self._owner.doomed.group))
            self._owner.reap()
            return
        link = self._link(doomed.name)
        if link is None or self._owner.doomed.has(link.group):
            raise NetlinkError(errno.ENODEV, os.strerror(errno.ENODEV))
        if link.group == self._owner.group:
            group = self._owner.doomed.group
            self._owner.host.request(rtnl.set_link(index=link.ifindex, up=False, group=group))
            self._owner.reap()

    def adopt_address(self, address: Address) -> None:
        """Take an existing address as it is, or make it."""
        try:
            self._address(address)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise

    def drop_address(self, address: Address) -> None:
        """Delete an address that is ours; on a kernel that keeps no tag of it (before 5.18) it stays."""
        index = self._index(address.dev)
        for payload in self._owner.host.dump(answers.dump_addresses):
            found = answers.parse_address(payload)
            if (found.ifindex, found.cidr, found.protocol) == (index, address.cidr, rtnl.PROTOCOL):
                self._address(address, delete=True)

    def _address(self, address: Address, *, delete: bool = False) -> None:
        self._owner.host.request(rtnl.address(address.cidr, self._index(address.dev), delete=delete))

    def _index(self, name: str) -> int:
        return answers.parse_link(self._owner.host.ask(rtnl.get_link(name))).ifindex
