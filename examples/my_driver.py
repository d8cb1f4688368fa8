"""A network driver of your own: point-to-point links without a bridge, each endpoint routed by the host.

Needs root. A driver is two pure functions; teardown, rollback and recovery are derived from them.
"""

from __future__ import annotations

import tempfile

import attrs

import pynetwork
from pynetwork import Capabilities, EndpointSpec, NetworkSpec, Plan, SandboxSpec
from pynetwork.resources import Address, LinkUp, Route, Veth


@attrs.frozen(kw_only=True)
class RoutedOptions:
    """Its options."""

    mtu: int = 1500  # of the links, bytes


class RoutedDriver:
    """Each endpoint is a veth pair; the host's end has no bridge but the gateway's address."""

    name = "routed"
    capabilities = Capabilities()
    options_type = RoutedOptions

    def interface_prefix(self, network: NetworkSpec[RoutedOptions]) -> str:  # noqa: ARG002 - always the same
        """Name interfaces eth0, eth1 ..."""
        return "eth"

    def network_plan(self, network: NetworkSpec[RoutedOptions]) -> Plan:  # noqa: ARG002 - nothing by itself
        """Make nothing for a network."""
        return Plan()

    def join_plan(
        self, network: NetworkSpec[RoutedOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Make a link, and a route to the address on each side."""
        ns, dev, link = str(sandbox.netns), str(endpoint.interface), str(endpoint.link)
        address, gateway = endpoint.addresses[0], network.subnets[0].gateway
        return Plan((
            Veth(name=link, netns=ns, peer=dev, mac=endpoint.mac, mtu=network.options.mtu),
            Address(dev=link, cidr=f"{gateway}/32"),
            Route(dst=f"{address.ip}/32", dev=link),
            Address(netns=ns, dev=dev, cidr=f"{address.ip}/32"),
            LinkUp(netns=ns, dev=dev),
            Route(netns=ns, dst=f"{gateway}/32", dev=dev),
        ))  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        controller = pynetwork.Controller(f"{place}/state", run_dir=f"{place}/run", drivers=[RoutedDriver()])
        network = controller.new_network("routed", "mine", subnets=["10.99.0.0/24"], options={"mtu": 1400})
        sandbox = controller.new_sandbox("box")
        network.create_endpoint("one").join(sandbox)
        sandbox.run(["ping", "-c1", "-W2", str(network.gateways[0])], check=True)
        controller.erase()
