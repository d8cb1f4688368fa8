"""Bridges and ports as rows of the database of an Open vSwitch: made, changed, deleted and found."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.plan import Plan, Step, Verb
from pynetwork.resources import OvsBridge, OvsPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pynetwork.kernel.ovs.database import Edit
    from pynetwork.resources import Resource

__all__ = ["Rows"]

#: In ``external_ids`` of bridges and ports: whose they are.
OWNER: Final = "pynetwork"
#: In ``external_ids`` of interfaces: the ifindex of the link that became the port.
_IFINDEX: Final = "pynetwork-ifindex"
_VXLAN_PORT: Final = "4789"  # when none is given
_PROTOCOLS: Final = ("OpenFlow13", "OpenFlow14", "OpenFlow15")


@attrs.frozen
class Rows:
    """
    Rows that are an instance's.

    Args:
        instance: Hexadecimal id of the owner.
        index: Returns the ifindex of a link of the host's, None when there is none.
    """

    instance: str
    index: Callable[[str], int | None]

    def take(self, edit: Edit, step: Step, *, replay: bool) -> None:
        """
        Take a step, in a transaction.

        Args:
            edit: The transaction.
            step: Of an OvsBridge or an OvsPort.
            replay: To create what is there makes it as wanted, to delete what is gone is no error.

        Raises:
            OSError: What is to be made is there, or what is to be changed is not.
        """
        resource = step.resource
        table = "Bridge" if isinstance(resource, OvsBridge) else "Port"
        name = str(getattr(resource, "name", ""))
        row = edit.find(table, name)
        is_ours = row is not None and row.external_ids.get(OWNER) == self.instance
        if step.verb is Verb.DELETE:
            if is_ours:
                self._delete(edit, row, table)
            elif row is None and not (replay or edit.is_repeated):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            return
        if row is not None and not is_ours:
            raise OSError(
                errno.EEXIST, f"Open vSwitch has a {table.lower()} of that name that is not ours", name
            )
        if row is not None and step.verb is Verb.CREATE and not (replay or edit.is_repeated):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        if isinstance(resource, OvsBridge):
            self._put_bridge(edit, row, resource)
        elif isinstance(resource, OvsPort):
            self._put_port(edit, row, resource)

    def severed(self, edit: Edit, steps: Iterable[Step]) -> list[Step]:
        """
        Return deletions of the ports that steps would make or change, and that are of links gone by.

        What is a port again under a name passes nothing, and nothing says so, unless there was none of that
        name for the time of a transaction.
        """
        found = {item.key: item for item in self._all(edit)}
        ports = [found[step.resource.key] for step in steps if step.resource.key in found]
        return [Step(Verb.DELETE, port) for port in ports if self._as_seen(edit, port) != port]

    def check(self, edit: Edit, resource: Resource) -> PynetworkError | None:
        """Return why what the switch has made of *resource* is of no use, None when it is as wanted."""
        name = str(getattr(resource, "name", ""))
        interface = edit.find("Interface", name)
        reason = None if interface is None else next(iter(interface.error), None)
        if reason is not None:
            return PynetworkError(f"Open vSwitch cannot use {name}: {reason}")
        if isinstance(resource, OvsBridge):
            bridge = edit.find("Bridge", name)
            return None if bridge is not None and bridge.datapath_id else _no_datapath(resource)
        if isinstance(resource, OvsPort):
            number = next(iter(interface.ofport), None) if interface is not None else None
            if number != resource.ofport:
                got = "none" if number is None else number
                return PynetworkError(
                    f"port {name} of {resource.bridge} has OpenFlow number {got}, not {resource.ofport}: "
                    "another has that"
                )
        return None

    def is_settled(self, edit: Edit, resource: Resource) -> bool:
        """Whether the switch has said what it has made of *resource*."""
        if not isinstance(resource, OvsPort):
            return True  # of a bridge that it cannot make it says nothing
        interface = edit.find("Interface", resource.name)
        return interface is not None and bool(interface.ofport or interface.error)

    def observe(self, edit: Edit, expected: Plan) -> Plan:
        """Return bridges and ports: what of *expected* is there, as it is, and beyond it all of ours."""
        found = {item.key: item for item in self._all(edit)}
        wanted = {item.key: item for item in expected}
        seen = [self._as_seen(edit, item) for key, item in found.items() if key in wanted]
        return Plan((*seen, *(item for key, item in found.items() if key not in wanted)))

    def foreign_tunnels(self, edit: Edit, number: int) -> list[str]:
        """Return the names of others' VXLAN ports on the UDP port *number*."""
        return [
            interface.name
            for port in edit.rows("Port")
            if port.external_ids.get(OWNER) != self.instance
            for interface in port.interfaces
            if interface.type == "vxlan" and interface.options.get("dst_port", _VXLAN_PORT) == str(number)
        ]

    def _all(self, edit: Edit) -> Iterator[OvsBridge | OvsPort]:
        for bridge in edit.rows("Bridge"):
            if bridge.external_ids.get(OWNER) == self.instance:
                yield OvsBridge(
                    name=bridge.name,
                    datapath=bridge.datapath_type or "system",
                    fail_mode=next(iter(bridge.fail_mode), ""),
                    controllers=sorted(row.target for row in bridge.controller),
                )
            for port in bridge.ports:
                if port.external_ids.get(OWNER) == self.instance and port.name != bridge.name:
                    yield _port(bridge, port)

    def _as_seen(self, edit: Edit, item: OvsBridge | OvsPort) -> Resource:
        """Return *item*; without a number if it passes nothing, as it is not of the link of its name."""
        if not isinstance(item, OvsPort) or item.type:
            return item
        interface = edit.find("Interface", item.name)
        index = self.index(item.name)
        is_severed = index is None or interface is None or interface.external_ids.get(_IFINDEX) != str(index)
        return attrs.evolve(item, ofport=0) if is_severed else item

    def _put_bridge(self, edit: Edit, row: Any, bridge: OvsBridge) -> None:  # noqa: ANN401 - the package has no types
        if row is None:
            row, port, interface = map(edit.insert, ("Bridge", "Port", "Interface"))
            row.name = port.name = interface.name = bridge.name
            interface.type = "internal"
            port.interfaces = [interface]
            row.ports = [port]
            edit.root.addvalue("bridges", row)
            row.external_ids = {OWNER: self.instance}
        row.datapath_type = bridge.datapath
        row.fail_mode = bridge.fail_mode
        row.protocols = list(_PROTOCOLS)
        row.controller = []

    def _put_port(self, edit: Edit, row: Any, port: OvsPort) -> None:  # noqa: ANN401 - likewise
        bridge = edit.find("Bridge", port.bridge)
        if bridge is None:
            raise OSError(errno.ENODEV, f"Open vSwitch has no bridge {port.bridge}", port.name)
        if row is None:
            _check_tunnel(edit, port)
            row, interface = map(edit.insert, ("Port", "Interface"))
            row.name = interface.name = port.name
            row.interfaces = [interface]
            row.external_ids = {OWNER: self.instance}
            bridge.addvalue("ports", row)
        (interface,) = row.interfaces
        interface.type = port.type
        interface.options = dict(port.options)
        interface.ofport_request = [port.ofport]
        ids = dict(port.ids)
        if not port.type and (index := self.index(port.name)) is not None:
            ids[_IFINDEX] = str(index)
        interface.external_ids = ids

    def _delete(self, edit: Edit, row: Any, table: str) -> None:  # noqa: ANN401 - likewise
        if table == "Bridge":
            edit.root.delvalue("bridges", row)
            return
        for bridge in edit.rows("Bridge"):
            if row in bridge.ports:
                bridge.delvalue("ports", row)


def _check_tunnel(edit: Edit, port: OvsPort) -> None:
    """
    Check that nobody else has a tunnel on the same UDP port: packets go to the one that says more of them.

    Raises:
        OSError: Somebody has.
    """
    number = dict(port.options).get("dst_port", _VXLAN_PORT)
    for other in edit.rows("Interface") if port.type == "vxlan" else ():
        if other.type == port.type and other.options.get("dst_port", _VXLAN_PORT) == number:
            reason = f"port {other.name} of Open vSwitch has UDP port {number}, choose another (vxlan_port)"
            raise OSError(errno.EADDRINUSE, reason, port.name)


def _port(bridge: Any, port: Any) -> OvsPort:  # noqa: ANN401 - likewise
    interface = next(iter(port.interfaces))
    return OvsPort(
        bridge=bridge.name,
        name=port.name,
        type=interface.type,
        ofport=max(0, next(iter(interface.ofport), 0)),
        options=interface.options.items(),
        ids=((name, value) for name, value in interface.external_ids.items() if name != _IFINDEX),
    )


def _no_datapath(bridge: OvsBridge) -> PynetworkError:
    hint = ": the kernel lacks openvswitch (modprobe openvswitch)" if bridge.datapath == "system" else ""
    return UnavailableError(f"Open vSwitch cannot make a {bridge.datapath} datapath for {bridge.name}{hint}")
