"""The overlay driver: a network that spans hosts, its frames between them in VXLAN (RFC 7348).

What a host has of such a network depends on what forwards there, its datapath: the driver leaves it to
one. All datapaths follow the same records and speak the same VXLAN, so a network may span hosts of
different ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from pynetwork.drivers.bridge_options import MTU_MIN
from pynetwork.drivers.overlay_options import OverlayOptions
from pynetwork.errors import InvalidValueError, UnavailableError
from pynetwork.specs import Capabilities
from pynetwork.types import Scope

if TYPE_CHECKING:
    from pynetwork.peers import Underlay
    from pynetwork.plan import Plan
    from pynetwork.specs import EndpointSpec, NetworkSpec, SandboxSpec

__all__ = ["Datapath", "OverlayDriver", "vni_of"]


class Datapath(Protocol):
    """What forwards on a host, as far as plans are concerned. Pure, as drivers are."""

    @property
    def name(self) -> str:
        """Of the datapath, such as ``linux``."""
        ...

    @property
    def is_strict(self) -> bool:
        """Whether it can drop frames that come from another host than their source is on."""
        ...

    def network_plan(self, network: NetworkSpec[OverlayOptions], underlay: Underlay) -> Plan:
        """Return what exists on this host as long as it has endpoints of the network."""
        ...

    def join_plan(
        self, network: NetworkSpec[OverlayOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Return what exists as long as *endpoint* is joined to *sandbox*."""
        ...


@attrs.frozen
class OverlayDriver:
    """
    Makes networks of type ``overlay``.

    Args:
        underlay: How this host reaches the others.
        datapath: What forwards on this host.
    """

    name = "overlay"
    capabilities = Capabilities(scope=Scope.GLOBAL, max_subnets=16, host_gateway=True)
    options_type = OverlayOptions

    underlay: Underlay
    datapath: Datapath

    def interface_prefix(self, network: NetworkSpec[OverlayOptions]) -> str:
        """Return the prefix of interface names in a sandbox."""
        return network.options.interface_prefix

    def port_number(self, link: str) -> int | None:
        """Return the number that a port gets on the datapath, see :class:`~.base.Numbering`."""
        number_of = getattr(self.datapath, "port_number", None)
        return None if number_of is None else number_of(link)

    def check(self, network: NetworkSpec[OverlayOptions]) -> None:
        """
        Check that this host can have a part in *network*.

        Raises:
            InvalidValueError: Its options contradict each other, or it is not complete.
            UnavailableError: This host cannot do what it asks for.
        """
        vni_of(network)
        mtu = network.options.mtu
        versions = {subnet.version for subnet in network.subnets}
        least = max((MTU_MIN[version] for version in versions), default=MTU_MIN[4])
        if mtu is None or mtu < least:
            msg = f"invalid MTU {mtu} of network {network.name!r}: {least} bytes are needed at least"
            raise InvalidValueError(msg)
        room = self.underlay.room
        if mtu > room:
            msg = (
                f"network {network.name!r} has an MTU of {mtu} bytes, and this host's way to others has room "
                f"for {room}: raise the MTU of the interface that has {self.underlay.vtep} to "
                f"{mtu + self.underlay.overhead}"
            )
            raise UnavailableError(msg)
        if network.options.strict and not self.datapath.is_strict:
            msg = (
                f"network {network.name!r} is strict, and datapath {self.datapath.name!r} of this host "
                "cannot tell which host a frame comes from: install nftables (apt-get install nftables) and "
                "open the controller again"
            )
            raise UnavailableError(msg)

    def network_plan(self, network: NetworkSpec[OverlayOptions]) -> Plan:
        """Return what exists on this host as long as it has endpoints of the network."""
        self.check(network)
        return self.datapath.network_plan(network, self.underlay)

    def join_plan(
        self, network: NetworkSpec[OverlayOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Return what exists as long as *endpoint* is joined to *sandbox*."""
        return self.datapath.join_plan(network, endpoint, sandbox)


def vni_of(network: NetworkSpec[OverlayOptions]) -> int:
    """Return the VNI of a network, which was chosen when it was made."""
    if network.options.vni is None:
        msg = f"the VNI of network {network.name!r} is not chosen yet"
        raise InvalidValueError(msg)
    return network.options.vni
