"""Open vSwitch as a datapath: one bridge and one tunnel for all networks of a host, and flows.

What a host has of a network is flows, so is what it is told of endpoints elsewhere; see
:mod:`pynetwork.drivers.overlay_flows`. The host itself is not in the network.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from pynetwork.drivers.overlay import vni_of
from pynetwork.drivers.overlay_flows import (
    OFPORT_MAX,
    TUNNEL,
    LocalPort,
    base_flows,
    endpoint_flows,
    flows_of,
    network_flows,
)
from pynetwork.drivers.veth import chosen_names, within
from pynetwork.plan import Plan
from pynetwork.resources import OvsBridge, OvsPort, TxChecksum, Veth

if TYPE_CHECKING:
    from pynetwork.drivers.overlay_options import OverlayOptions
    from pynetwork.peers import Underlay
    from pynetwork.resources import Resource
    from pynetwork.specs import EndpointSpec, NetworkSpec, SandboxSpec

__all__ = ["OvsDatapath"]

_BRIDGE: Final = "br-pynetwork"
_TUNNEL: Final = "vx-pynetwork"


class OvsDatapath:
    """
    See :class:`~pynetwork.drivers.overlay.Datapath`.

    Args:
        name: ``ovs-kernel`` when the kernel forwards for Open vSwitch, ``ovs-userspace`` when it does so
            itself.
        bridge: Name of the bridge.

    Attributes:
        kind: The same in the words of Open vSwitch, its ``datapath_type``.
    """

    of_kernel: Final = "ovs-kernel"
    of_user_space: Final = "ovs-userspace"
    is_strict = True

    def __init__(self, name: str = of_kernel, bridge: str = _BRIDGE) -> None:
        self.name = name
        self.kind = {self.of_kernel: "system", self.of_user_space: "netdev"}[name]
        self.bridge = bridge

    def port_number(self, link: str) -> int:
        """Return the OpenFlow number of a port: no two endpoints of a host may have the same."""
        return 2 + zlib.crc32(link.encode()) % (OFPORT_MAX - 1)

    def network_plan(self, network: NetworkSpec[OverlayOptions], underlay: Underlay) -> Plan:
        """Return the bridge and the tunnel, which all networks share, and the flows of this one."""
        options = network.options
        tunnel = {
            "remote_ip": "flow",
            "key": "flow",
            "local_ip": str(underlay.vtep),
            "dst_port": str(underlay.port),
        }
        flows = (*base_flows(), *network_flows(vni_of(network), strict=options.strict, bum=options.bum))
        return Plan(
            (
                OvsBridge(name=self.bridge, datapath=self.kind),
                OvsPort(
                    bridge=self.bridge, name=_TUNNEL, type="vxlan", ofport=TUNNEL, options=tunnel.items()
                ),
                *flows_of(self.bridge, flows),
            )
        )

    def join_plan(
        self, network: NetworkSpec[OverlayOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Return the veth pair, its port and flows, and what is configured on its end in the sandbox."""
        netns, dev, link = chosen_names(endpoint, sandbox)
        options = network.options
        port = LocalPort(
            vni=vni_of(network),
            ofport=self.port_number(link),
            mac=endpoint.mac,
            addresses=[address.ip for address in (*endpoint.addresses, *endpoint.link_local)],
            guard=options.spoof_protection,
            bum=options.bum,
        )
        ids = {
            "pynetwork-endpoint": endpoint.id,
            "pynetwork-network": network.id,
            "attached-mac": endpoint.mac,
        }
        return Plan(
            (
                Veth(name=link, netns=netns, peer=dev, mac=endpoint.mac, mtu=options.mtu),
                *self._checksums(netns, dev, link),
                OvsPort(bridge=self.bridge, name=link, ofport=port.ofport, ids=ids.items()),
                *flows_of(self.bridge, endpoint_flows(port)),
                *within(endpoint, netns, dev),
            )
        )

    def _checksums(self, netns: str, dev: str, link: str) -> tuple[Resource, ...]:
        if self.kind == "system":
            return ()
        return (TxChecksum(dev=link), TxChecksum(netns=netns, dev=dev))
