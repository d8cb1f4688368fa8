"""The kernel's own VXLAN: for each network a bridge, a VXLAN device in it, and a veth pair per endpoint.

Nothing is learned and nothing is flooded. What goes to endpoints of this host is forwarded by static
entries made when they join; what goes to others by entries that follow their records (see
:mod:`pynetwork.peers`). ARP and neighbour solicitations for endpoints elsewhere are answered by the VXLAN
device, all others end there. The host itself is not in the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.drivers.overlay import vni_of
from pynetwork.drivers.veth import chosen_names, for_interface, stable_mac, within
from pynetwork.plan import Plan
from pynetwork.resources import (
    Bridge,
    BridgePort,
    EndpointRules,
    FdbEntry,
    LinkSysctl,
    LinkUp,
    NetworkRules,
    Ruleset,
    StrictVni,
    Veth,
    Vxlan,
    vxlan_name,
)

if TYPE_CHECKING:
    from pynetwork.drivers.overlay_options import OverlayOptions
    from pynetwork.peers import Underlay
    from pynetwork.specs import EndpointSpec, NetworkSpec, SandboxSpec

__all__ = ["LinuxDatapath"]

# The host has no address in the network, and does not answer there for those that it has elsewhere.
_DEAF = {"net.ipv4.conf.IFNAME.arp_ignore": "8", "net.ipv6.conf.IFNAME.disable_ipv6": "1"}


class LinuxDatapath:
    """
    See :class:`~pynetwork.drivers.overlay.Datapath`.

    Args:
        firewall_priority: Added to the standard priorities of the firewall's base chains, as for the bridge
            driver, and the same as there.
        is_strict: Whether the host can tell which other one a packet comes from: it has nftables.
    """

    name = "linux"

    def __init__(self, *, firewall_priority: int = 0, is_strict: bool = True) -> None:
        self.firewall_priority = firewall_priority
        self.is_strict = is_strict

    def network_plan(self, network: NetworkSpec[OverlayOptions], underlay: Underlay) -> Plan:
        """Return the bridge and its VXLAN device, and that packets pass between its ports only."""
        vni, mtu = vni_of(network), network.options.mtu or underlay.room
        bridge, vxlan = _bridge_name(vni), vxlan_name(vni)
        return Plan(
            (
                Bridge(name=bridge, mac=stable_mac(network.id), mtu=mtu),
                *(
                    LinkSysctl(dev=bridge, name=for_interface(name, bridge), value=value)
                    for name, value in _DEAF.items()
                ),
                *((StrictVni(vni=vni, port=underlay.port),) if network.options.strict else ()),
                Vxlan(name=vxlan, vni=vni, local=underlay.vtep, port=underlay.port, bridge=bridge, mtu=mtu),
                BridgePort(dev=vxlan, bridge=bridge),
                Ruleset(priority=self.firewall_priority),
                NetworkRules(bridge=bridge, internal=True),
                LinkUp(dev=bridge),
            )
        )

    def join_plan(
        self, network: NetworkSpec[OverlayOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Return the veth pair, where frames for it go, and what is configured on its end in the sandbox."""
        netns, dev, link = chosen_names(endpoint, sandbox)
        bridge = _bridge_name(vni_of(network))
        addresses = (*endpoint.addresses, *endpoint.link_local)
        return Plan(
            (
                EndpointRules(
                    link=link,
                    mac=endpoint.mac,
                    addresses=[address.ip for address in addresses],
                    guard=network.options.spoof_protection,
                    bridge=bridge,
                ),
                Veth(
                    name=link,
                    bridge=bridge,
                    netns=netns,
                    peer=dev,
                    mac=endpoint.mac,
                    mtu=network.options.mtu,
                ),
                BridgePort(dev=link, bridge=bridge),
                FdbEntry(dev=link, bridge=bridge, mac=endpoint.mac),
                *within(endpoint, netns, dev),
            )
        )


def _bridge_name(vni: int) -> str:
    return f"ov-{vni}"
