"""The bridge driver: a network is a Linux bridge, an endpoint joined to a sandbox is a veth pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.plan import Plan
from pynetwork.resources import Address, Bridge, LinkSysctl, LinkUp, Route, Veth
from pynetwork.specs import Capabilities, EndpointSpec, NetworkSpec, SandboxSpec
from pynetwork.types import check_flag, check_interface_name, check_interface_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.resources import Resource

__all__ = ["BridgeDriver", "BridgeOptions"]

_MTU_MIN = {4: 68, 6: 1280}  # RFC 791 section 3.2, RFC 8200 section 5
_MTU_MAX = 65535
_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


def _check_mtu(_instance: object, _attribute: object, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not _MTU_MIN[4] <= value <= _MTU_MAX:
        msg = f"invalid MTU {value!r}: a number of bytes from {_MTU_MIN[4]} to {_MTU_MAX} is expected"
        raise InvalidValueError(msg)


def _optional_name(value: object) -> str | None:
    return None if value is None else check_interface_name(value)


def _check_flag(_instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    check_flag(f"option {attribute.name}", value)


@attrs.frozen(kw_only=True)
class BridgeOptions:
    """
    Options of a bridge network.

    Args:
        bridge: Interface name of the bridge; ``br-`` and the first 12 digits of the network's id when
            not given. An existing bridge of that name is used as it is and never deleted
            (libnetwork's ``com.docker.network.bridge.name``).
        mtu: Bytes, of the bridge and of both ends of each veth; the kernel's 1500 when not given.
        inhibit_gateway: Do not put the gateway addresses on the bridge (libnetwork's
            ``inhibit_ipv4``, for both families); they are still the default route of endpoints.
        multicast_snooping: Let the bridge forward multicast only to ports that asked for it. Off by
            default: without a querier on the network it serves nothing, and it slows down each join to
            a network of many endpoints.
        interface_prefix: Of interface names in sandboxes (``com.docker.network.container_iface_prefix``).
    """

    bridge: str | None = attrs.field(default=None, converter=_optional_name)
    mtu: int | None = attrs.field(default=None, validator=_check_mtu)
    inhibit_gateway: bool = attrs.field(default=False, validator=_check_flag)
    multicast_snooping: bool = attrs.field(default=False, validator=_check_flag)
    interface_prefix: str = attrs.field(default="eth", converter=check_interface_prefix)


class BridgeDriver:
    """Makes networks of type ``bridge``."""

    name = "bridge"
    capabilities = Capabilities()
    options_type = BridgeOptions

    def interface_prefix(self, network: NetworkSpec[BridgeOptions]) -> str:
        """Return the prefix of interface names in a sandbox."""
        return network.options.interface_prefix

    def network_plan(self, network: NetworkSpec[BridgeOptions]) -> Plan:
        """Return the bridge, its gateway addresses, and that it is up."""
        options = network.options
        _check_mtu_for(network)
        device = bridge_name(network)
        adopt = options.bridge is not None
        gateways: Iterator[Resource] = (
            Address(dev=device, cidr=f"{subnet.gateway}/{subnet.network.prefixlen}", adopt=adopt)
            for subnet in network.subnets
            if subnet.gateway is not None and not options.inhibit_gateway
        )
        bridge = Bridge(
            name=device,
            mac=bridge_mac(network),
            mtu=options.mtu,
            multicast_snooping=options.multicast_snooping,
            adopt=adopt,
        )
        return Plan((bridge, *gateways, LinkUp(dev=device)))

    def join_plan(
        self, network: NetworkSpec[BridgeOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Return the veth pair and what is configured on its end in the sandbox."""
        netns, dev = sandbox.netns, endpoint.interface
        if netns is None or dev is None or endpoint.link is None:
            msg = f"endpoint {endpoint.name!r} has no namespace to be in, or its names are not chosen yet"
            raise InvalidValueError(msg)
        veth = Veth(
            name=endpoint.link,
            bridge=bridge_name(network),
            netns=netns,
            peer=dev,
            mac=endpoint.mac,
            mtu=network.options.mtu,
        )
        addresses = (*endpoint.addresses, *endpoint.link_local)
        return Plan(
            (
                veth,
                *(
                    LinkSysctl(netns=netns, dev=dev, name=_for_interface(name, dev), value=value)
                    for name, value in endpoint.sysctls.items()
                ),
                *(
                    Address(netns=netns, dev=dev, cidr=str(address), announce=endpoint.announce)
                    for address in addresses
                ),
                LinkUp(netns=netns, dev=dev),
                *(Route(netns=netns, dst=str(r.dst), via=r.via, dev=dev) for r in endpoint.routes),
                *(
                    Route(netns=netns, dst=_DEFAULT[via.version], via=str(via), dev=dev)
                    for via in endpoint.default_via
                ),
            )
        )


def _for_interface(sysctl: str, dev: str) -> str:
    # In the dotted form of a name a slash stands for a dot (sysctl.conf(5)).
    return sysctl.replace("IFNAME", dev.replace(".", "/"))


def bridge_name(network: NetworkSpec[BridgeOptions]) -> str:
    """Return the interface name of the network's bridge."""
    return network.options.bridge or f"br-{network.id[:12]}"


def bridge_mac(network: NetworkSpec[BridgeOptions]) -> str:
    """Return the bridge's MAC: locally administered, and the same whenever the bridge is made again."""
    digits = network.id[:10]
    return ":".join(("02", *(digits[i : i + 2] for i in range(0, 10, 2))))


def _check_mtu_for(network: NetworkSpec[BridgeOptions]) -> None:
    mtu = network.options.mtu
    for subnet in network.subnets:
        if mtu is not None and mtu < _MTU_MIN[subnet.version]:
            msg = f"invalid MTU {mtu} for subnet {subnet.network}: IPv6 needs {_MTU_MIN[6]} bytes (RFC 8200)"
            raise InvalidValueError(msg)
