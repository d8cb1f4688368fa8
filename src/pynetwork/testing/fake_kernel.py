"""A host in memory that keeps the kernel's rules, so orchestration is tested without root."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import NotFoundError
from pynetwork.peers import Underlay
from pynetwork.plan import Plan, StepFailedError, Verb
from pynetwork.resources import (
    Address,
    Bridge,
    FdbEntry,
    Flow,
    LinkSysctl,
    Neighbour,
    Netns,
    OvsBridge,
    OvsPort,
    PublishedPort,
    Route,
    StrictVni,
    Sysctl,
    Veth,
    Vxlan,
    vxlan_name,
)
from pynetwork.resources.base import link_key
from pynetwork.testing._model import SETTINGS, Device, HostModel, os_error
from pynetwork.testing.fake_peers import FakePeers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pynetwork.plan import Step
    from pynetwork.resources import Key, Resource
    from pynetwork.types import IPAddress

__all__ = ["FakeKernel"]

# Fields in which None asks for nothing in particular.
_INDIFFERENT: Final[dict[type[Resource], tuple[str, ...]]] = {Bridge: ("mac", "mtu"), Veth: ("mtu",)}

# What carries a tag of its own, and so is never taken for ours when it is not.
_TAGGED: Final = (Netns, Bridge, Veth, StrictVni, Vxlan, OvsBridge, OvsPort, Flow, Device)

# What is changed by "replace", which creates what is missing.
_REPLACED: Final = (FdbEntry, Neighbour, Route)


class FakeKernel:
    """
    A :class:`~pynetwork.kernel.port.Kernel` whose host is a dict.

    It refuses what Linux refuses, with the same errno: an address on a missing interface, a route over
    one that is down or to a gateway that is not on the link, a veth into a missing bridge or
    namespace, anything that exists. And it removes what Linux removes along: the peer, addresses and
    routes of a veth, the contents of a namespace, routes with an interface's last IPv4 address.

    Args:
        existing: Objects of somebody else: they carry no tag, are observed only when asked for, and
            never deleted.
        mtu: Of its way to other hosts, bytes.

    Every method may be called from any thread. Closing does nothing: several controllers may use one
    host, one after the other or together.
    """

    def __init__(self, existing: Iterable[Resource] = (), *, mtu: int = 1500) -> None:
        self._mtu = mtu
        self._lock = threading.RLock()
        self._host = HostModel()
        self._ours: set[Key] = set()
        self._log: list[Step] = []
        self._peers = FakePeers(self._has_vxlan, self._lock)
        self.plant(*existing)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({len(self.resources)} resources)>"

    @property
    def resources(self) -> Plan:
        """What the library made and has not let go of, in order of creation."""
        with self._lock:
            ours = [resource for resource in self._host if resource.key in self._ours]
        return Plan(sorted(ours, key=lambda resource: resource.rank))

    @property
    def log(self) -> tuple[Step, ...]:
        """The steps that took effect, oldest first."""
        with self._lock:
            return tuple(self._log)

    def render(self) -> str:
        """Return :attr:`resources` as lines a user could type."""
        return self.resources.render()

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Take *steps* in order, see :meth:`pynetwork.kernel.port.Kernel.apply`."""
        with self._lock:
            for number, step in enumerate(steps):
                try:
                    self._take(step, replay=replay)
                except OSError as error:
                    raise StepFailedError(step, steps[:number]) from error
                self._log.append(step)

    def observe(self, expected: Plan) -> Plan:
        """Return what of *expected* exists, as it is, and all that is ours beyond it."""
        with self._lock:
            seen: dict[Key, Resource] = {}
            for wanted in expected:
                found = self._host.find(wanted.key)
                if found is not None:
                    foreign = found.key not in self._ours and isinstance(wanted, Bridge) and wanted.adopt
                    seen[wanted.key] = wanted if foreign else _as_seen(found, wanted)
            for resource in self.resources:
                if not isinstance(resource, SETTINGS):  # A setting carries no tag.
                    seen.setdefault(resource.key, resource)
            return Plan(seen.values())

    def namespace_id(self, path: str | None) -> object:
        """
        Return what identifies a network namespace: the path where it was made.

        One of somebody else's exists when it was planted, as ``Netns(path=...)``.
        """
        with self._lock:
            found = None if path is None else self._host.find(("netns", path))
        if isinstance(found, Netns):
            return found.adopted or found.path
        return "host" if path is None else None

    def close(self) -> None:
        """Do nothing: there is nothing to release, and what was created stays."""

    def peers(self, bridge: str | None = None) -> FakePeers:  # noqa: ARG002 - all datapaths are one here
        """Return what tells the host of endpoints on others."""
        return self._peers

    def has_switch_module(self) -> bool:
        """Whether it can forward for an Open vSwitch: it cannot."""
        return False

    def check_switch(self, link: str | None = None) -> None:
        """Check that its Open vSwitch can be told of changes: it always can."""

    def underlay(self, vtep: IPAddress | None) -> Underlay:
        """Return how the host reaches others: 192.0.2.1 is its address when none is given."""
        return Underlay(vtep=vtep or "192.0.2.1", mtu=self._mtu)

    def plant(self, *resources: Resource) -> None:
        """Put objects on the host behind the library's back; what has the key of one of ours changes it."""
        with self._lock:
            for resource in resources:
                self._host.put(resource)

    def wreck(self, key: Key) -> None:
        """
        Remove an object, ours or not, behind the library's back, and what the kernel removes with it.

        Args:
            key: Its key, or that of something that comes with it, such as a veth's peer.

        Raises:
            NotFoundError: There is no such object.
        """
        with self._lock:
            found = self._host.find(key)
            if found is None:
                msg = f"cannot wreck {key}: there is no such object on this host"
                raise NotFoundError(msg)
            self._remove(found.key)

    def reboot(self) -> None:
        """Lose every object, somebody else's too, as a host does that restarts."""
        with self._lock:
            self._host = HostModel()
            self._ours.clear()
            self._peers.forget_lost()

    def _take(self, step: Step, *, replay: bool) -> None:
        resource, found = step.resource, self._host.find(step.resource.key)
        if step.verb is Verb.EMIT:
            return  # Effects leave no state; they are in the log.
        if step.verb is Verb.DELETE:
            self._delete(resource, found, replay=replay)
        elif found is None:
            if step.verb is Verb.UPDATE and not (replay or isinstance(resource, _REPLACED)):
                raise os_error(errno.ENOENT, resource)
            self._host.add(resource)
            self._ours.add(resource.key)
        elif step.verb is Verb.UPDATE and step.previous is not None:
            self._change(found, resource, step.previous)
        else:
            self._create_again(resource, found, replay=replay)

    def _delete(self, resource: Resource, found: Resource | None, *, replay: bool) -> None:
        if isinstance(resource, SETTINGS):  # They have no delete: the state stays.
            self._ours.discard(resource.key)
        elif found is None or (isinstance(found, FdbEntry) and found != resource):
            if not replay:
                raise os_error(errno.ENOENT, resource)
        elif found.key in self._ours:
            self._remove(found.key)

    def _create_again(self, wanted: Resource, found: Resource, *, replay: bool) -> None:
        """Create what has an object under its key already."""
        if isinstance(wanted, (*SETTINGS, FdbEntry)):  # which moves
            self._host.check(wanted)
            self._host.put(wanted)
            self._ours.add(wanted.key)
        elif isinstance(wanted, Bridge) and wanted.adopt and isinstance(found, Bridge):
            pass  # Taken as it is.
        elif isinstance(wanted, Address) and wanted.adopt:
            pass
        elif not replay or (isinstance(found, _TAGGED) and found.key not in self._ours):
            raise os_error(errno.EEXIST, f"{wanted}: {found}")
        elif _as_seen(found, wanted) != wanted:
            self._make_as(wanted, found)

    def _make_as(self, wanted: Resource, found: Resource) -> None:
        """Turn *found* into *wanted*, in place where that can be done."""
        if type(found) is type(wanted) and _changed(_as_seen(found, wanted), wanted) <= wanted.mutable:
            self._change(found, wanted, found)
        elif found.key in self._ours and not isinstance(found, PublishedPort):  # where a port leads stands
            self._remove(found.key)
            self._host.add(wanted)
            self._ours.add(wanted.key)
        else:
            raise os_error(errno.EEXIST, f"{wanted}: {found}")

    def _change(self, found: Resource, wanted: Resource, previous: Resource) -> None:
        """Change in *found* what differs between *previous* and *wanted*, and nothing else."""
        self._host.check(wanted)
        if type(found) is not type(wanted):
            raise os_error(errno.EOPNOTSUPP, f"{wanted}: {found}")
        changes = {name: getattr(wanted, name) for name in _changed(previous, wanted)}
        self._host.put(attrs.evolve(found, **changes))

    def _has_vxlan(self, vni: int) -> bool:
        from pynetwork.drivers.overlay_flows import network_flows

        with self._lock:
            if isinstance(self._host.find(link_key(None, vxlan_name(vni))), Vxlan):
                return True
            from pynetwork.drivers.overlay_flows import network_flows

            here = network_flows(vni)[0]
            bridges = [each.name for each in self._host if isinstance(each, OvsBridge)]
            flows = (("flow", name, str(here.table), str(here.priority), here.match) for name in bridges)
            return any(self._host.find(key) is not None for key in flows)

    def _remove(self, key: Key) -> None:
        self._host.remove(key)
        self._peers.forget_lost()
        self._ours.intersection_update([resource.key for resource in self._host])


def _changed(was: Resource, wanted: Resource) -> set[str]:
    fields = attrs.fields(type(wanted))
    return {
        field.name for field in fields if field.eq and getattr(was, field.name) != getattr(wanted, field.name)
    }


def _as_seen(found: Resource, wanted: Resource) -> Resource:
    """Return *found* without what *wanted* does not ask about, so that equal means "as wanted"."""
    if isinstance(wanted, Sysctl | LinkSysctl) and isinstance(found, Sysctl | LinkSysctl):
        return attrs.evolve(wanted, value=found.value)
    if type(found) is not type(wanted):
        return found
    seen = found
    if isinstance(wanted, Address | Bridge) and isinstance(found, Address | Bridge):
        seen = attrs.evolve(found, adopt=wanted.adopt)
    indifferent = [name for name in _INDIFFERENT.get(type(wanted), ()) if getattr(wanted, name) is None]
    return attrs.evolve(seen, **dict.fromkeys(indifferent))
