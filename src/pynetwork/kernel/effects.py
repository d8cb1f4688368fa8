"""What happens once, after the commit: connections and neighbours forgotten, addresses announced."""

from __future__ import annotations

import errno
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from pynetwork.kernel import answers, nfnetlink, rtnl
from pynetwork.kernel.announce import announce
from pynetwork.kernel.conntrack import forget
from pynetwork.kernel.netlink import NetlinkError
from pynetwork.resources import Announce, Conntrack, ForgetNeighbour

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pynetwork.kernel.later import Later
    from pynetwork.kernel.netlink import NetlinkSocket
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.plan import Step

__all__ = ["Effects"]

# A new port of a bridge forwards some milliseconds after it is up, on a busy host up to a second. Twice:
# RFC 5227 section 2.3.
_ANNOUNCE_SECONDS: Final = (0.02, 2.0)
_FORGET_SECONDS: Final = 0.002


class Effects:
    """
    Brings effects about, a little later, in the thread of *later*.

    Args:
        namespaces: To enter them.
        later: Calls functions after a while.
        background: Socket of the host's own namespace, for what takes long.
    """

    def __init__(self, namespaces: Namespaces, later: Later, background: NetlinkSocket) -> None:
        self._namespaces = namespaces
        self._later = later
        self._background = background
        self._forgotten: deque[Conntrack | ForgetNeighbour] = deque()
        self._netfilter: NetlinkSocket | None = None

    def emit(self, effects: Iterable[Step]) -> None:
        """Bring *effects* about, best effort."""
        announced: dict[tuple[str, str], list[str]] = {}
        for step in effects:
            effect = step.resource
            if isinstance(effect, Conntrack | ForgetNeighbour):
                self._forgotten.append(effect)
                self._later.call("forget", _FORGET_SECONDS, self._forget)
            elif isinstance(effect, Announce):
                announced.setdefault((effect.netns, effect.dev), []).append(effect.address)
        for (path, dev), addresses in announced.items():
            act = partial(self._announce, path, dev, addresses)
            for seconds in _ANNOUNCE_SECONDS:
                self._later.call((path, dev, *addresses, seconds), seconds, act)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self._netfilter is not None:
            self._netfilter.close()

    def _forget(self) -> None:
        if self._netfilter is None:
            self._netfilter = self._namespaces.home(nfnetlink.open_socket)
        while self._forgotten:
            effect = self._forgotten.popleft()
            if isinstance(effect, Conntrack):
                forget(self._netfilter, effect)
            else:
                self._forget_neighbour(effect)

    def _forget_neighbour(self, effect: ForgetNeighbour) -> None:
        try:
            index = answers.ifindex_of(self._background.ask(rtnl.get_link(effect.dev)))
            self._background.request(rtnl.neighbour(effect.address, index, delete=True))
        except NetlinkError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV}:  # not known at all
                raise

    def _announce(self, path: str, dev: str, addresses: Sequence[str]) -> None:
        with suppress(OSError):  # it may have left again meanwhile
            self._namespaces.call(path, partial(announce, dev, addresses))
