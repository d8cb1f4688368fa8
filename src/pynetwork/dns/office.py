"""Being the name server of an instance, or standing by for who is; and passing that on.

The office is the Unix socket that :mod:`pynetwork.dns.place` describes. All this runs in the loop's thread.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from pynetwork.dns.place import is_ours, receive, send
from pynetwork.dns.sockets import Sockets
from pynetwork.log import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.dns.loop import Loop
    from pynetwork.dns.place import Place
    from pynetwork.dns.statistics import DnsStatistics

__all__ = ["Holder", "Office"]

_SECONDS: Final = 1.0  # that another process may take to read what it is given
_RETRY_SECONDS: Final = 0.05


class Holder(Protocol):
    """What the office is held for: the sockets in the sandboxes."""

    def elected(self, given: Mapping[str, Sockets]) -> None:
        """Serve from now on; in some sandboxes with the sockets that are *given*."""
        ...

    def release(self) -> Mapping[str, Sockets]:
        """Serve no more, and return the sockets of each sandbox, still open."""
        ...

    def gave(self, given: Mapping[str, Sockets]) -> None:
        """Close the sockets, which another process has by now, once what is under way is answered."""
        ...

    def ready(self, sandbox: str) -> bool:
        """Serve a sandbox at once, if it is to be served; returns False when that is to be tried again."""
        ...

    def check(self) -> None:
        """Serve in the namespaces that the sandboxes have now: a lost one may have been made anew."""
        ...

    def statistics(self) -> DnsStatistics:
        """Return what has been done so far."""
        ...

    def quit(self, *, at_once: bool) -> None:
        """End the process's service; *at_once*, or when what is under way is answered."""
        ...


class Office:
    """
    The office of an instance's name server.

    Args:
        loop: The server's.
        place: Where it is.
        holder: Whose it may be.
        is_companion: Whether it is wanted even if another process has it, for good.
    """

    def __init__(self, loop: Loop, place: Place, holder: Holder, *, is_companion: bool) -> None:
        self.is_held = False
        self._loop = loop
        self._place = place
        self._holder = holder
        self._is_companion = is_companion
        self._listening: socket.socket | None = None
        self._visitors: dict[socket.socket, bool] = {}  # to whether it stands by
        self._above: socket.socket | None = None  # the connection to whoever holds it
        self._given: dict[str, Sockets] = {}  # so far

    def run_for(self) -> None:
        """Hold it, or stand by for whoever does."""
        if self.is_held or self._above is not None:
            return
        above = self._place.connect(_SECONDS)
        if above is None:
            try:
                listening = self._place.listen()
            except OSError as error:
                logger().warning("dns: no other process can stand by, or ask us: %s", error)
                self.is_held = True
                self._holder.elected({})
                return
            if listening is None:
                self._loop.later(_RETRY_SECONDS, self.run_for)  # another one was faster
            else:
                self._hold(listening, {})
            return
        try:
            send(above, {"op": "take" if self._is_companion else "stand by"})
        except OSError:
            above.close()
            self._loop.later(_RETRY_SECONDS, self.run_for)
            return
        above.setblocking(False)
        self._above = above
        self._loop.add(above.fileno(), self._hear_above)

    def close(self) -> None:
        """Leave it, to one who stands by if there is one. After the loop has ended."""
        if self._above is not None:
            self._part(self._above)
        if self.is_held:
            heir = next((each for each, stands_by in self._visitors.items() if stands_by), None)
            if heir is None or not self._pass_on(heir):
                self._place.leave()
        if self._listening is not None:
            self._listening.close()
        for visitor in self._visitors:
            visitor.close()
        self._visitors.clear()
        self.is_held = False

    def _hold(self, listening: socket.socket, given: Mapping[str, Sockets]) -> None:
        self.is_held = True
        self._listening = listening
        self._loop.add(listening.fileno(), self._accept)
        self._holder.elected(given)

    # Whoever holds it

    def _hear_above(self, _happened: int) -> None:
        above = self._above
        if above is None:
            return
        try:
            found = receive(above)
        except BlockingIOError:
            return
        except OSError:
            found = None
        if found is None:
            self._part(above)
            self.run_for()
            return
        message, descriptors = found
        opened = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if "sandbox" in message and len(opened) == message["udp"] + message["tcp"]:
            count = message["udp"]
            self._given[message["sandbox"]] = Sockets(tuple(opened[:count]), tuple(opened[count:]))
        elif message.get("done") and len(opened) == 1:
            given, self._given = self._given, {}
            self._part(above)
            self._hold(opened[0], given)
        else:
            for each in opened:
                each.close()

    def _part(self, above: socket.socket) -> None:
        self._loop.remove(above.fileno())
        above.close()
        self._above = None
        for sockets in self._given.values():  # it changed its mind, or died: it serves them on, or nobody
            sockets.close()
        self._given.clear()

    # Visitors

    def _accept(self, _happened: int) -> None:
        if self._listening is None:
            return
        try:
            visitor, _ = self._listening.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor left, say: it waits
            self._loop.pause(self._listening.fileno(), _RETRY_SECONDS)
            return
        if not is_ours(visitor):
            visitor.close()
            return
        visitor.setblocking(False)
        self._visitors[visitor] = False
        self._loop.add(visitor.fileno(), partial(self._hear, visitor))

    def _hear(self, visitor: socket.socket, _happened: int) -> None:
        try:
            found = receive(visitor)
        except BlockingIOError:
            return
        except OSError:
            found = None
        if found is None:
            self._dismiss(visitor)
            return
        message, descriptors = found
        for descriptor in descriptors:  # nobody gives what was not asked for
            os.close(descriptor)
        try:
            reply = self._answer(visitor, message)
            if reply is not None:
                send(visitor, reply)
        except OSError:
            self._dismiss(visitor)
            return
        if message.get("op") == "quit":
            self._holder.quit(at_once=True)

    def _answer(self, visitor: socket.socket, message: Mapping[str, Any]) -> dict[str, Any] | None:
        match message.get("op"):
            case "who":
                return {"companion": self._is_companion, "pid": os.getpid()}
            case "ready":
                is_settled = self._holder.ready(str(message.get("sandbox")))
                return {"companion": self._is_companion, "settled": is_settled}
            case "check":
                self._holder.check()
                return {"ok": True}
            case "statistics":
                return attrs.asdict(self._holder.statistics())
            case "stand by":
                self._visitors[visitor] = True
            case "take":
                self._hand_over(visitor)
            case "quit":
                return {"ok": True}
        return None

    def _dismiss(self, visitor: socket.socket) -> None:
        if self._visitors.pop(visitor, None) is not None:
            self._loop.remove(visitor.fileno())
            visitor.close()

    def _hand_over(self, visitor: socket.socket) -> None:
        """Pass the office on; if that fails, keep it."""
        if not self._pass_on(visitor):
            return
        self.is_held = False
        if self._listening is not None:
            self._loop.remove(self._listening.fileno())
            self._listening.close()
            self._listening = None
        for each in list(self._visitors):
            self._dismiss(each)
        if self._is_companion:
            self._holder.quit(at_once=False)
        else:
            self.run_for()  # stand by for the heir

    def _pass_on(self, heir: socket.socket) -> bool:
        """Give *heir* all sockets; returns whether it has got them."""
        if self._listening is None:
            return False
        heir.settimeout(_SECONDS)
        given = self._holder.release()
        try:
            for sandbox, sockets in given.items():
                opened = [each.fileno() for each in (*sockets.udp, *sockets.tcp)]
                send(heir, {"sandbox": sandbox, "udp": len(sockets.udp), "tcp": len(sockets.tcp)}, opened)
            send(heir, {"done": True}, [self._listening.fileno()])
        except OSError as error:
            logger().warning("dns: another process did not take over: %s", error)
            self._dismiss(heir)
            self._holder.elected(given)
            return False
        self._holder.gave(given)
        return True
