"""A network driver of your own: links without a bridge, each endpoint routed by the host (IPv4).

Needs root. A driver is two pure functions; teardown, rollback and recovery are derived from them.
"""

from __future__ import annotations

import tempfile

import attrs

import pynetwork
from pynetwork import Capabilities, EndpointSpec, InvalidValueError, NetworkSpec, Plan, SandboxSpec
from pynetwork.resources import Address, LinkUp, Route, Veth


@attrs.frozen(kw_only=True)
class RoutedOptions:
    """Its options."""

    mtu: int = 1500  # of the links, bytes


class RoutedDriver:
    """Each endpoint is a veth pair; the host's end has no bridge but the gateway's address."""

    name, capabilities, options_type = "routed", Capabilities(), RoutedOptions

    def interface_prefix(self, network: NetworkSpec[RoutedOptions]) -> str:  # noqa: ARG002 - always the same
        """Name interfaces eth0, eth1 ..."""
        return "eth"

    def network_plan(self, network: NetworkSpec[RoutedOptions]) -> Plan:
        """Refuse what join_plan has no lines for; a network by itself is nothing on the host."""
        if any(subnet.version == 6 for subnet in network.subnets):
            raise InvalidValueError("routed networks are IPv4 only")  # noqa: EM101, TRY003 - short
        return Plan()

    def join_plan(
        self, network: NetworkSpec[RoutedOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Make a link, a route to the address on each side, and the default route if it is ours."""
        ns, dev, link = str(sandbox.netns), str(endpoint.interface), str(endpoint.link)
        inside, gateway = f"{endpoint.addresses[0].ip}/32", f"{network.subnets[0].gateway}/32"
        return Plan((
            Veth(name=link, netns=ns, peer=dev, mac=endpoint.mac, mtu=network.options.mtu),
            Address(dev=link, cidr=gateway), Route(dst=inside, dev=link), LinkUp(netns=ns, dev=dev),
            Address(netns=ns, dev=dev, cidr=inside), Route(netns=ns, dst=gateway, dev=dev),
            *(Route(netns=ns, dst="0.0.0.0/0", via=str(via), dev=dev) for via in endpoint.default_via),
        ))  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        controller = pynetwork.Controller(f"{place}/state", run_dir=f"{place}/run", drivers=[RoutedDriver()])
        network = controller.new_network("routed", "mine", subnets=["10.99.0.0/24"], options={"mtu": 1400})
        network.create_endpoint("one").join(box := controller.new_sandbox("box"))
        box.run(["ping", "-c1", "-W2", str(network.gateways[0])], check=True)
        controller.erase()
