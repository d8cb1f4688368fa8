"""Consecutive operations in one namespace, carried out with one entry and one send."""

from __future__ import annotations

import errno
import os
import secrets
from functools import partial
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs

from pynetwork.errors import PynetworkError
from pynetwork.kernel import answers, ethtool, netns, rtnl, sysctl
from pynetwork.kernel.firewall import RulesRefusedError
from pynetwork.kernel.netlink import NLM_F_EXCL, NetlinkSocket
from pynetwork.kernel.operations import Do, Filter, Make, Offload, Pin, Send, Steer, Treat, Unpin, Write
from pynetwork.kernel.ovs.steps import together

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pynetwork.kernel.admission import Admission
    from pynetwork.kernel.firewall import Firewall
    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.host_links import HostLinks
    from pynetwork.kernel.netlink import Message, NetlinkError
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.kernel.operations import Operation
    from pynetwork.kernel.ovs.switch import Switch
    from pynetwork.kernel.spares import Opened

__all__ = ["Chunk", "Indexes", "Outcome", "prepare_namespace"]

#: Ifindexes by namespace (None is the host's) and name of the link.
Indexes: TypeAlias = dict[tuple[str | None, str], int]

# Sysctls that a namespace of ours has from the start.
_PREPARED: Final = {"net.ipv6.conf.default.accept_ra": "0"}
# Far from those that the kernel counts up to; a clash costs a second try.
_FIRST_OUTER: Final = 1 << 20
_OUTER_BITS: Final = 22
_FIRST_INNER: Final = 16
_INNER_BITS: Final = 11
# What is set from inside a namespace, all with one entry.
_SETTINGS: Final = (Write, Offload)


def prepare_namespace() -> NetlinkSocket:
    """Prepare the namespace of this thread, a new one, as all of ours are; returns a socket in it."""
    for name, value in _PREPARED.items():
        sysctl.write(name, value)
    socket = NetlinkSocket()
    try:
        socket.request(rtnl.set_link("lo", up=True))
    except BaseException:
        socket.close()
        raise
    return socket


class _Place(Protocol):
    """The kernel that a chunk is carried out for."""

    namespaces: Namespaces
    links: HostLinks
    groups: Groups
    admission: Admission

    @property
    def host(self) -> NetlinkSocket:
        """The socket of the host's own namespace."""
        ...

    def firewall(self) -> Firewall:
        """Return the host's firewall."""
        ...

    def switch(self) -> Switch:
        """Return the host's Open vSwitch."""
        ...

    def prepare_directory(self) -> None:
        """Make the directory that namespaces are pinned in."""
        ...

    def flush(self) -> None:
        """Wait until all that was deleted is gone."""
        ...


@attrs.define
class Outcome:
    """
    What became of a chunk.

    Attributes:
        done: Positions of the operations that took effect.
        failed: Position of the first that failed.
        error: Why; None when all went well.
    """

    done: set[int] = attrs.field(factory=set)
    failed: int = 0
    error: OSError | PynetworkError | None = None

    def fail(self, position: int, error: OSError | PynetworkError) -> Outcome:
        """Note a failure, unless there was one before it."""
        if self.error is None or position < self.failed:
            self.failed, self.error = position, error
        return self


class Chunk:
    """
    Operations in one namespace.

    Args:
        kernel: Whose they are.
        place: Path of the namespace; None is the host's own.
        operations: Sysctls first, as the ranks of resources have it.
        indexes: Ifindexes known so far; more are added.
        opened: Namespaces that are open anyway; those that are made are added, those used up removed.
    """

    def __init__(
        self,
        kernel: _Place,
        place: str | None,
        operations: Sequence[Operation],
        indexes: Indexes,
        opened: dict[str, Opened],
    ) -> None:
        self._kernel = kernel
        self._place = place
        self._operations = operations
        self._outcome = Outcome()
        self._indexes = indexes
        self._opened = opened
        self._chooses = True
        self._pending: list[tuple[int, Message]] = []
        self._descriptors: dict[str, int] = {}
        self._socket = kernel.host

    def run(self) -> Outcome:
        """Carry them out, up to the first that fails; messages behind it may have gone out with it."""
        if self._place is None:
            self._on_host()
        else:
            self._inside(self._place)
        return self._outcome

    def index(self, name: str) -> int:
        """Return the ifindex of a link in the namespace."""
        index = self._indexes.get((self._place, name))
        if index is None:
            self._deliver()  # it may be among what is made here
            index = answers.ifindex_of(self._socket.ask(rtnl.get_link(name)))
            self._indexes[self._place, name] = index
        return index

    def new_indexes(self, path: str, peer: str) -> tuple[int, int]:
        """Choose the ifindexes of a veth whose peer is elsewhere: nobody need ask for them then."""
        if not self._chooses:
            return 0, 0
        inner = self._indexes[path, peer] = _FIRST_INNER + secrets.randbits(_INNER_BITS)
        return _FIRST_OUTER + secrets.randbits(_OUTER_BITS), inner

    def descriptor(self, path: str) -> int:
        """Return an open descriptor of a namespace, closed when all is sent."""
        if path in self._opened:
            return self._opened[path].descriptor
        if path not in self._descriptors:
            self._descriptors[path] = netns.open_namespace(path)
        return self._descriptors[path]

    def _inside(self, place: str) -> None:
        """Make the namespace or not, enter it for all sysctls and a socket, then send from outside."""
        position = 0

        def prepare() -> NetlinkSocket | None:
            nonlocal position
            sends = False
            for position, operation in enumerate(self._operations):
                if isinstance(operation, _SETTINGS) and position not in self._outcome.done:
                    _set(operation)
                    self._outcome.done.add(position)
                sends = sends or isinstance(operation, Send)
            return NetlinkSocket() if sends else None

        try:
            if isinstance(self._operations[0], Make):
                self._make(place)
            if len(self._outcome.done) == len(self._operations):
                return
            if place in self._opened and not any(isinstance(o, _SETTINGS) for o in self._operations):
                self._send_through(self._opened.pop(place))
                return
            socket = self._kernel.namespaces.call(place, prepare)
        except (OSError, PynetworkError) as error:
            self._outcome.fail(position, error)
            return
        if socket is not None:
            with socket:
                self._socket = socket
                self._send(range(len(self._operations)))

    def _send_through(self, opened: Opened) -> None:
        try:
            self._socket = opened.socket
            self._send(range(len(self._operations)))
        finally:
            opened.close()

    def _make(self, place: str) -> None:
        self._kernel.prepare_directory()
        self._opened[place] = self._kernel.namespaces.create(place)
        self._outcome.done.update(
            position
            for position, operation in enumerate(self._operations)
            if isinstance(operation, Make)
            or (isinstance(operation, Write) and _PREPARED.get(operation.name) == operation.value)
        )

    def _on_host(self) -> None:
        """Send messages together, likewise what is for the firewall or a switch; do all else one by one."""
        position = 0
        for kind, run in groupby(self._operations, key=_kind):
            operations = list(run)
            positions = range(position, position + len(operations))
            position = positions.stop
            if kind is Send:
                goes_on = self._send(positions)
            elif kind is Filter:
                goes_on = self._together(positions, self._kernel.firewall)
            elif isinstance(kind, tuple):
                goes_on = self._together(positions, self._kernel.switch)
            else:
                goes_on = all(map(self._single, positions, operations))
            if not goes_on:
                return

    def _together(self, positions: range, find_taker: Callable[[], Firewall | Switch]) -> bool:
        operations = self._operations[positions.start : positions.stop]
        steps = [o.step for o in operations if isinstance(o, Filter | Steer)]
        try:
            find_taker().apply(steps)
        except RulesRefusedError as error:
            cause = error.__cause__
            reason = cause if isinstance(cause, OSError | PynetworkError) else PynetworkError(str(cause))
            self._outcome.fail(positions[error.number], reason)
            return False
        except (OSError, PynetworkError) as error:
            self._outcome.fail(positions.start, error)
            return False
        self._outcome.done.update(positions)
        return True

    def _single(self, position: int, operation: Operation) -> bool:
        try:
            match operation:
                case Write() | Offload():
                    self._kernel.namespaces.home(partial(_set, operation))
                case Pin(path=path, source=source):
                    self._kernel.prepare_directory()
                    self._kernel.namespaces.pin(source, path)
                case Unpin(path=path):
                    netns.unpin(path)
                case Treat(act=act):
                    act(self._kernel.links)
                case Do(act=act):
                    act(self._kernel)
        except (OSError, PynetworkError) as error:
            self._outcome.fail(position, error)
            return False
        self._outcome.done.add(position)
        return True

    def _send(self, positions: Iterable[int]) -> bool:
        """Send the messages among *positions*; returns whether all went well."""
        try:
            for position in positions:
                operation = self._operations[position]
                if not isinstance(operation, Send):
                    continue
                try:
                    message = operation.build(self)
                except (OSError, PynetworkError) as error:
                    self._outcome.fail(position, error)
                    return False
                self._pending.append((position, message))
                if operation.first:
                    self._deliver()
                    if self._outcome.error is not None:
                        return False
            self._deliver()
        finally:
            self._pending.clear()
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])
        return self._outcome.error is None

    def _deliver(self) -> None:
        """Send what was built so far."""
        if not self._pending:
            return
        sent = list(self._pending)
        self._pending.clear()
        errors = self._batch(sent)
        if any(_may_succeed_later(sent[number][1], error) for number, error in errors.items()):
            again = _to_repeat([message for _, message in sent], errors)
            self._outcome.done.update(p for n, (p, _) in enumerate(sent) if n not in again)
            sent = self._rebuild([sent[number][0] for number in again])
            errors = self._batch(sent)
        self._outcome.done.update(p for n, (p, _) in enumerate(sent) if n not in errors)
        for number, error in errors.items():
            self._outcome.fail(sent[number][0], error)

    def _batch(self, sent: Sequence[tuple[int, Message]]) -> dict[int, NetlinkError]:
        """Send messages; return which of them were refused, unless there was nothing to do for them."""
        errors = self._socket.batch([message for _, message in sent])
        return {number: error for number, error in errors.items() if not _is_idle(sent[number][1], error)}

    def _rebuild(self, positions: Sequence[int]) -> list[tuple[int, Message]]:
        """
        Build messages again, about what could not be made, without what was assumed before.

        A link's name, or a route, may be that of a link which was deleted a moment ago and is about to
        go; the ifindex chosen for its peer may be in use, and that of its bridge may have changed.
        """
        self._kernel.flush()
        self._indexes.clear()
        self._chooses = False
        sends = [(p, o) for p in positions if isinstance(o := self._operations[p], Send)]
        return [(position, send.build(self)) for position, send in sends]


def _kind(operation: Operation) -> object:
    """Return what operations have in common that are carried out as one."""
    return together(operation.step) if isinstance(operation, Steer) else type(operation)


def _set(setting: Write | Offload) -> None:
    if isinstance(setting, Write):
        sysctl.write(setting.name, setting.value)
    else:
        ethtool.let_leave_checksums(setting.dev, on=setting.on)


def _to_repeat(messages: Sequence[Message], errors: Collection[int]) -> list[int]:
    """Return which to send again: those refused, and what went to another link than the one refused."""
    again = set(errors)
    for number in errors:
        if messages[number].kind == rtnl.RTM_NEWLINK and messages[number].flags & NLM_F_EXCL:
            rest = range(number + 1, len(messages))
            again.update(takewhile(lambda each: not messages[each].flags & NLM_F_EXCL, rest))
    return sorted(again)


def _is_idle(message: Message, error: NetlinkError) -> bool:
    """Whether a link was told to make no IPv6 addresses of itself where there is no IPv6."""
    return error.errno == errno.EAFNOSUPPORT and message.kind == rtnl.RTM_SETLINK


def _may_succeed_later(message: Message, error: NetlinkError) -> bool:
    """Whether a link that is on its way out may be why a message was refused."""
    if message.kind == rtnl.RTM_NEWLINK:
        return True
    return error.errno == errno.EEXIST and message.kind in {rtnl.RTM_NEWROUTE, rtnl.RTM_NEWADDR}
