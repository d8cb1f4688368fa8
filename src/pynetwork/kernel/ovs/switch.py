"""The Open vSwitch of a host: takes steps of bridges, ports and flows, and tells what of them is there."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from pynetwork.drivers.overlay_flows import NETWORKS
from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.kernel import fdb
from pynetwork.kernel.firewall import RulesRefusedError
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.observe import Snapshot
from pynetwork.kernel.ovs.channel import Channel, FlowRefusedError
from pynetwork.kernel.ovs.contents import Verified
from pynetwork.kernel.ovs.database import Database
from pynetwork.kernel.ovs.messages import Seen, add_flow, delete_all, delete_flow
from pynetwork.kernel.ovs.peers import OvsPeers
from pynetwork.kernel.ovs.place import Place
from pynetwork.kernel.ovs.rows import Rows
from pynetwork.kernel.ovs.watch import SwitchWatch
from pynetwork.plan import Plan, Step, Verb
from pynetwork.resources import Flow, OvsBridge, OvsPort
from pynetwork.resources.ovs import PLANNED, REMOTE
from pynetwork.resources.stray import StrayFlow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pynetwork.kernel.ovs.database import Edit
    from pynetwork.resources import Resource

__all__ = ["Switch"]

_ROWS: Final = OvsBridge | OvsPort


class Switch:
    """
    Takes steps as one that are together.

    Args:
        directory: Where the sockets of the Open vSwitch are.
        instance: Hexadecimal id of the owner.
        index: Returns the ifindex of a link of the host's, None when there is none.
        home: Calls a function in the host's network namespace, and returns what that does.
    """

    def __init__(
        self,
        directory: Path,
        instance: str,
        index: Callable[[str], int | None],
        home: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._home = home
        self.place = Place(directory)
        self._rows = Rows(instance, index)
        self._database = Database(self.place)
        self._channels: dict[str, Channel] = {}
        self._peers: dict[str, OvsPeers] = {}
        self._watches: tuple[SwitchWatch, ...] = ()
        self._verified: defaultdict[str, Verified] = defaultdict(Verified)

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """
        Take all of *steps*, or none.

        Args:
            steps: All together, see :func:`~.steps.together`.
            replay: Some may have been taken before.

        Raises:
            RulesRefusedError: One was refused; nothing has changed.
            UnavailableError: ovsdb-server or ovs-vswitchd does not answer.
        """
        if isinstance(steps[0].resource, _ROWS):
            self._configure(steps, replay=replay)
        else:
            self._program(steps, replay=replay)
            for watch in self._watches:
                watch.poke()

    def observe(self, expected: Plan) -> Plan:
        """
        Return what of *expected* is there, as it is, and beyond it all that is ours.

        Raises:
            UnavailableError: ovsdb-server or ovs-vswitchd does not answer.
        """
        rows = Plan(item for item in expected if isinstance(item, _ROWS))
        found = self._database.look(lambda edit: self._rows.observe(edit, rows))
        flows = [item for item in expected if isinstance(item, Flow)]
        return Plan((*found, *self._flows(found, flows)))

    def channel(self, bridge: str) -> Channel:
        """Return the connection to a bridge."""
        return self._channels.setdefault(bridge, Channel(self.place, bridge))

    def peers(self, bridge: str) -> OvsPeers:
        """Return what tells a bridge of endpoints on other hosts, on a connection of its own."""
        if bridge not in self._peers:
            self._peers[bridge] = OvsPeers(Channel(self.place, bridge), self._home)
        return self._peers[bridge]

    def watch(self, bridge: str, restore: Callable[[], bool], is_wanted: Callable[[], bool]) -> SwitchWatch:
        """Call *restore* whenever a bridge has lost its flows; the caller closes what this returns."""
        made = SwitchWatch(Channel(self.place, bridge), restore, is_wanted, lambda: not self.reason())
        self._watches += (made,)
        return made

    def foreign_tunnels(self, number: int) -> tuple[str, ...]:
        """
        Return in words what others have on the UDP port *number*, where VXLAN packets may go astray.

        Raises:
            UnavailableError: ovsdb-server does not answer.
        """
        ports = self._database.look(lambda edit: self._rows.foreign_tunnels(edit, number))
        devices: list[str] = []

        def look() -> None:
            with NetlinkSocket() as opened:
                links = Snapshot(opened).links.values()
                devices.extend(
                    link.name
                    for link in links
                    # The switch in the kernel has such a device, of this name, for its own tunnels.
                    if link.kind == "vxlan" and link.name != f"vxlan_sys_{number}"
                    if fdb.parse_vxlan(link.data).port == number
                )

        self._home(look)
        return (
            *(f"port {name} of Open vSwitch" for name in sorted(ports)),
            *(f"the VXLAN device {name}" for name in sorted(devices)),
        )

    def reason(self) -> str:
        """Return why it cannot be told of changes now, in words; nothing if it can."""
        try:
            self.check()
        except UnavailableError as error:
            return str(error)
        return ""

    def check(self, link: str | None = None) -> None:
        """
        Check that it can be told of changes.

        Args:
            link: The interface whose address tunnels end at, if it forwards in user space: it must be one
                of its own, or it would send into no tunnel, and say nothing.

        Raises:
            SwitchAwayError: ovsdb-server or ovs-vswitchd does not answer.
            UnavailableError: *link* is none of its own.
        """
        is_own = self._database.look(
            lambda edit: edit.root and (link is None or edit.find("Interface", link) is not None)
        )
        self.place.check_switch()
        if not is_own:
            msg = (
                "Open vSwitch sends into tunnels in user space only through a bridge of its own:"
                f" make one whose port is the network card, and give it the address of {link}; or load the "
                "kernel's module (modprobe openvswitch), and use datapath 'ovs-kernel'"
            )
            raise UnavailableError(msg)

    def close(self) -> None:
        """Close all connections; what was made stays. Idempotent."""
        self._database.close()
        for peers in self._peers.values():
            peers.close()
        for channel in self._channels.values():
            channel.close()

    # Rows

    def _configure(self, steps: Sequence[Step], *, replay: bool) -> None:
        made = [step for step in steps if step.verb is not Verb.DELETE]
        severed = self._database.look(lambda edit: self._rows.severed(edit, made))
        if severed:
            self._commit(severed, replay=True)
        # Rows that the switch can make nothing of would come to life some other day. Of what is replayed some
        # may have been alive before.
        made_now = () if replay else [step for step in made if step.verb is Verb.CREATE]
        new = [Step(Verb.DELETE, step.resource) for step in reversed(made_now)]
        try:
            self._commit(steps, replay=replay)
            for number, step in enumerate(steps):
                error = None if step.verb is Verb.DELETE else self._complaint(step.resource)
                if error is not None:
                    self._commit(new, replay=True)
                    raise RulesRefusedError(number) from error
        except UnavailableError:
            with contextlib.suppress(PynetworkError, RulesRefusedError):
                self._commit(new, replay=True, wait=False)
            raise

    def _complaint(self, resource: Resource) -> PynetworkError | None:
        self._database.until(lambda edit: self._rows.is_settled(edit, resource))
        return self._database.look(lambda edit: self._rows.check(edit, resource))

    def _commit(self, steps: Sequence[Step], *, replay: bool, wait: bool = True) -> None:
        refused = 0

        def edit_rows(edit: Edit) -> None:
            nonlocal refused
            for refused, step in enumerate(steps):  # noqa: B007 - which it was, is told when it fails
                self._rows.take(edit, step, replay=replay)

        try:
            self._database.change(edit_rows, wait=wait)
        except OSError as error:
            raise RulesRefusedError(refused) from error

    # Flows

    def _program(self, steps: Sequence[Step], *, replay: bool) -> None:
        bridge = str(getattr(steps[0].resource, "bridge", ""))
        try:
            changes = [
                (number, change) for number, step in enumerate(steps) for change in _changes(step, replay)
            ]
            self.channel(bridge).change([change for _, change in changes])
        except FlowRefusedError as error:
            raise RulesRefusedError(0 if error.number is None else changes[error.number][0]) from error
        except UnavailableError:
            # With their bridge flows are gone, too.
            is_gone = replay and all(step.verb is Verb.DELETE for step in steps)
            if not is_gone or self._database.look(lambda edit: edit.find("Bridge", bridge)) is not None:
                raise

    def _flows(self, found: Plan, expected: Sequence[Flow]) -> Iterator[Resource]:
        for bridge in found:
            if not isinstance(bridge, OvsBridge):
                continue
            seen = self.channel(bridge.name).contents(PLANNED)
            wanted = {Seen(item.table, item.cookie): item for item in expected if item.bridge == bridge.name}
            # Under their cookies there is something else: they are not there.
            stated = ((place, (item.priority, item.match, item.actions)) for place, item in wanted.items())
            wrong = self._verified[bridge.name].wrong(seen, stated)
            # Of a bridge that will lose all flows when it is repaired, none counts.
            if not bridge.controllers and bridge.fail_mode == "secure":
                yield from (item for place, item in wanted.items() if place in seen and place not in wrong)
            for table, cookie in sorted(seen):
                if (table, cookie) not in wanted:
                    yield StrayFlow(bridge=bridge.name, table=table, cookie=cookie)


def _changes(step: Step, replay: bool) -> Iterator[bytes]:  # noqa: FBT001 - of ours alone
    resource = step.resource
    if step.verb is not Verb.DELETE and isinstance(resource, Flow):
        if replay:  # somebody may have put something else under its cookie
            yield delete_flow(resource.table, resource.cookie)
        yield add_flow(resource.table, resource.priority, resource.match, resource.actions, resource.cookie)
    elif isinstance(resource, Flow | StrayFlow):
        yield delete_flow(resource.table, resource.cookie)
    if step.verb is Verb.DELETE and isinstance(resource, Flow) and resource.table == NETWORKS:
        # With a network goes what was told of it, as with a VXLAN device of the kernel's.
        yield delete_all(REMOTE, resource.match)
        yield delete_all(REMOTE, resource.match.replace("metadata", "tun_id"))
