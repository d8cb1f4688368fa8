"""What an endpoint has in a sandbox, for every driver whose endpoints are veth pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.errors import InvalidValueError
from pynetwork.resources import Address, LinkSysctl, LinkUp, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.resources import Resource
    from pynetwork.specs import EndpointSpec, SandboxSpec

__all__ = ["DEFAULT", "chosen_names", "for_interface", "stable_mac", "within"]

#: The destination of default routes, by address family.
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


def for_interface(sysctl: str, dev: str) -> str:
    """Return the name of a setting with *dev* in the place of ``IFNAME``."""
    # In the dotted form of a name a slash stands for a dot (sysctl.conf(5)).
    return sysctl.replace("IFNAME", dev.replace(".", "/"))


def stable_mac(identity: str) -> str:
    """Return the MAC of a network's bridge: locally administered, the same whenever it is made again."""
    digits = identity[:10]
    return ":".join(("02", *(digits[i : i + 2] for i in range(0, 10, 2))))


def chosen_names(endpoint: EndpointSpec, sandbox: SandboxSpec) -> tuple[str, str, str]:
    """
    Return the namespace of a sandbox, and the names of the interface in it and of the host's end.

    Raises:
        InvalidValueError: There is no such namespace, or the names are not chosen yet.
    """
    if sandbox.netns is None or endpoint.interface is None or endpoint.link is None:
        msg = f"endpoint {endpoint.name!r} has no namespace to be in, or its names are not chosen yet"
        raise InvalidValueError(msg)
    return sandbox.netns, endpoint.interface, endpoint.link


def within(endpoint: EndpointSpec, netns: str, dev: str) -> Iterator[Resource]:
    """Yield what is configured on the interface *dev* of an endpoint, in its sandbox."""
    for name, value in endpoint.sysctls.items():
        yield LinkSysctl(netns=netns, dev=dev, name=for_interface(name, dev), value=value)
    for address in (*endpoint.addresses, *endpoint.link_local):
        yield Address(netns=netns, dev=dev, cidr=str(address), announce=endpoint.announce)
    yield LinkUp(netns=netns, dev=dev)
    for route in endpoint.routes:
        yield Route(netns=netns, dst=str(route.dst), via=route.via, dev=dev)
    for via in endpoint.default_via:
        yield Route(netns=netns, dst=DEFAULT[via.version], via=str(via), dev=dev)
