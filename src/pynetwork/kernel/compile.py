"""From steps to operations: what is sent, written or mounted, and in which namespace.

Pure but for the functions that operations hold: those look things up when their turn comes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from pynetwork.errors import UnavailableError
from pynetwork.kernel import fdb, files, rtnl
from pynetwork.kernel.firewall import is_of_firewall
from pynetwork.kernel.operations import (
    Do,
    Filter,
    Make,
    Offload,
    Operation,
    Pin,
    Send,
    Steer,
    Treat,
    Unpin,
    Write,
)
from pynetwork.kernel.ovs.steps import is_of_switch
from pynetwork.plan import Step, Verb
from pynetwork.resources import (
    Address,
    Bridge,
    BridgePort,
    Cgroup,
    Directory,
    FdbEntry,
    File,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    Route,
    StrictVni,
    Sysctl,
    TxChecksum,
    Veth,
    Vxlan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.netlink import Message
    from pynetwork.kernel.operations import Lookup, Machine
    from pynetwork.resources import Resource

__all__ = ["compile_step", "create_bridge"]

_IPV6_MTU: Final = 1280  # a link of less has no IPv6 at all (RFC 8200 section 5)


def compile_step(step: Step, *, group: int) -> tuple[Operation, ...]:
    """
    Return what to do for *step*.

    Args:
        step: Any but an effect.
        group: Of links that we make.

    Raises:
        UnavailableError: A resource is of no kind that this kernel can make.
    """
    resource = step.resource
    if is_of_firewall(resource):
        return (Filter(None, step),)
    if is_of_switch(resource):
        return (Steer(None, step),)
    act = _of_machine(step)
    if act is not None:
        return (Do(None, act),)
    if step.verb is Verb.DELETE:
        return _delete(resource)
    if step.verb is Verb.UPDATE:
        return _update(resource, step.previous)
    return _create(resource, group)


def _of_machine(step: Step) -> Callable[[Machine], None] | None:
    """Return what to do for what is no link, address or rule of its own; None for all that is."""
    resource, is_end = step.resource, step.verb is Verb.DELETE
    match resource:
        case Directory(path=path):
            act = files.remove_directory if is_end else files.make_directory
            return lambda _: act(path)
        case File(path=path):
            return (lambda _: files.remove_file(path)) if is_end else (lambda _: files.write(resource))
        case Cgroup():
            return lambda machine: (machine.groups.remove if is_end else machine.groups.make)(resource)
        case StrictVni(vni=vni, port=port):
            if is_end:
                return lambda machine: machine.admission.release(vni)
            return lambda machine: machine.admission.hold(vni, port)
    return None


def _create(resource: Resource, group: int) -> tuple[Operation, ...]:  # noqa: C901, PLR0911 - a case for each kind
    match resource:
        case Netns(path=path, adopted=None):
            return (Make(path),)
        case Netns(path=path, adopted=str(source)):
            return (Pin(None, path, source),)
        case Bridge(adopt=True):
            return (Treat(None, lambda host: host.adopt_bridge(resource)),)
        case Bridge():
            return create_bridge(resource, group)
        case Veth():
            return _create_veth(resource, group)
        case Vxlan():
            return _create_vxlan(resource, group)
        case Address(adopt=True):
            return (Treat(None, lambda host: host.adopt_address(resource)),)
        case Address(netns=place, dev=dev, cidr=cidr):
            return (Send(place, lambda look: rtnl.address(cidr, look.index(dev))),)
        case Route():
            return _route(resource)
        case Neighbour(netns=place, dev=dev, address=address, mac=mac):
            return (Send(place, lambda look: rtnl.neighbour(address, look.index(dev), mac=mac)),)
    return _update(resource, None)


def _update(resource: Resource, previous: Resource | None) -> tuple[Operation, ...]:  # noqa: C901, PLR0911 - likewise
    match resource:
        case Sysctl(netns=place, name=name, value=value) | LinkSysctl(netns=place, name=name, value=value):
            return (Write(place, name, value),)
        case TxChecksum(netns=place, dev=dev, on=on):
            return (Offload(place, dev, on),)
        case Bridge():
            return (Treat(None, lambda host: host.change_bridge(resource)),)
        case Veth() if isinstance(previous, Veth):
            return _update_veth(resource, previous)
        case Vxlan(name=name, bridge=bridge, mtu=mtu):
            change = partial(rtnl.set_link, name, up=True, mtu=mtu)
            return (Send(None, lambda look: change(master=look.index(bridge) if bridge else 0)),)
        case FdbEntry(dev=dev, mac=mac):
            return (Send(None, lambda look: fdb.fdb(mac, look.index(dev))),)
        case BridgePort(dev=dev, learning=learning, flood=flood):
            return (Send(None, lambda _: fdb.port(dev, learning=learning, flood=flood)),)
        case LinkUp(netns=place, dev=dev):
            return (Send(place, lambda _: rtnl.set_link(dev, up=True)),)
        case Route():
            return _route(resource, replace=True)
        case Neighbour(netns=place, dev=dev, address=address, mac=mac):
            replace = partial(rtnl.neighbour, address, mac=mac, replace=True)
            return (Send(place, lambda look: replace(index=look.index(dev))),)
    # Of a driver that is not ours: before any step is taken, so the host is as before.
    msg = f"this kernel has no resources of kind {resource.kind!r}"
    raise UnavailableError(msg)


def _delete(resource: Resource) -> tuple[Operation, ...]:  # noqa: PLR0911 - likewise
    match resource:
        case Netns(path=path):
            return (Unpin(None, path),)
        case Bridge():
            return (Treat(None, lambda host: host.doom_bridge(resource)),)
        case Veth() | Vxlan():
            return (Treat(None, lambda host: host.doom_link(resource)),)
        case FdbEntry(dev=dev, mac=mac):
            return (Send(None, lambda look: fdb.fdb(mac, look.index(dev), delete=True)),)
        case Address(adopt=True):
            return (Treat(None, lambda host: host.drop_address(resource)),)
        case Address(netns=place, dev=dev, cidr=cidr):
            return (Send(place, lambda look: rtnl.address(cidr, look.index(dev), delete=True)),)
        case Route():
            return _route(resource, delete=True)
        case Neighbour(netns=place, dev=dev, address=address):
            return (Send(place, lambda look: rtnl.neighbour(address, look.index(dev), delete=True)),)
    return ()  # sysctls and being up have no delete


def create_bridge(bridge: Bridge, group: int) -> tuple[Operation, ...]:
    """Return what makes a bridge."""
    name, mtu = bridge.name, bridge.mtu
    make = partial(
        rtnl.bridge, name, group=group, mac=bridge.mac, multicast_snooping=bridge.multicast_snooping
    )
    # One that it is made with, a bridge forgets for 1500 or that of its ports when ports come and go.
    size = () if mtu is None else (Send(None, lambda _: rtnl.set_link(name, mtu=mtu)),)
    # First, lest the rest is done to a bridge of somebody else that has the name.
    return (
        Send(None, lambda _: make(), first=True),
        Send(None, lambda _: rtnl.no_autoconf(name)),
        Write(None, bridge.accept_ra, "0"),
        *size,
    )


def _create_veth(veth: Veth, group: int) -> tuple[Operation, ...]:
    def build(look: Lookup) -> Message:
        return rtnl.veth(
            veth.name,
            peer=veth.peer,
            mac=veth.mac,
            netns=look.descriptor(veth.netns),
            indexes=look.new_indexes(veth.netns, veth.peer),
            group=group,
            mtu=veth.mtu,
            master=None if veth.bridge is None else look.index(veth.bridge),
        )

    port = Send(None, lambda _: rtnl.bridge_port(veth.name, isolated=veth.isolated, hairpin=veth.hairpin))
    made = (Send(None, build), *((port,) if veth.isolated or veth.hairpin else ()))
    if veth.mtu is not None and veth.mtu < _IPV6_MTU:
        return made
    return (
        *made,
        Send(None, lambda _: rtnl.no_autoconf(veth.name)),
        Send(veth.netns, lambda _: rtnl.no_autoconf(veth.peer)),
    )


def _create_vxlan(link: Vxlan, group: int) -> tuple[Operation, ...]:
    def build(look: Lookup) -> Message:
        return fdb.vxlan(
            link.name,
            vni=link.vni,
            local=link.local,
            dstport=link.port,
            mtu=link.mtu,
            group=group,
            master=0 if link.bridge is None else look.index(link.bridge),
        )

    # Up at last: else it would have made itself an IPv6 address before it is told not to.
    return (
        Send(None, build, first=True),
        *(() if link.mtu < _IPV6_MTU else (Send(None, lambda _: rtnl.no_autoconf(link.name)),)),
        Send(None, lambda _: rtnl.set_link(link.name, up=True)),
    )


def _update_veth(veth: Veth, previous: Veth) -> tuple[Operation, ...]:
    operations: list[Operation] = []
    if veth.bridge != previous.bridge:

        def enslave(look: Lookup) -> Message:
            master = 0 if veth.bridge is None else look.index(veth.bridge)
            return rtnl.set_link(veth.name, master=master, up=True)

        operations.append(Send(None, enslave))
    flags = {"isolated": veth.isolated, "hairpin": veth.hairpin}
    if veth.bridge and (any(flags.values()) or previous.isolated or previous.hairpin):
        operations.append(Send(None, lambda _: rtnl.bridge_port(veth.name, **flags)))
    if veth.mtu != previous.mtu and veth.mtu is not None:
        change = partial(rtnl.set_link, mtu=veth.mtu)
        operations.append(Send(None, lambda _: change(veth.name)))
        operations.append(Send(veth.netns, lambda _: change(veth.peer)))
    return tuple(operations)


def _route(route: Route, *, replace: bool = False, delete: bool = False) -> tuple[Operation, ...]:
    def build(look: Lookup) -> Message:
        return rtnl.route(
            route.dst,
            look.index(route.dev),
            via=route.via,
            metric=route.metric,
            replace=replace,
            delete=delete,
        )

    return (Send(route.netns, build),)
