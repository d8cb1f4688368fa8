"""The bridge driver: a network is a Linux bridge, an endpoint joined to a sandbox is a veth pair."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from pynetwork.drivers.base import Publishing
from pynetwork.drivers.bridge_options import MTU_MIN, BridgeOptions
from pynetwork.drivers.veth import chosen_names, for_interface, stable_mac, within
from pynetwork.errors import InvalidValueError
from pynetwork.plan import Plan
from pynetwork.resources import (
    Address,
    Bridge,
    EndpointRules,
    LinkSysctl,
    LinkUp,
    NetworkRules,
    PublishedPort,
    Ruleset,
    SubnetRules,
    Sysctl,
    Veth,
)
from pynetwork.specs import Capabilities, EndpointSpec, NetworkSpec, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.ports import PortBinding
    from pynetwork.resources import Resource
    from pynetwork.types import IPInterface

__all__ = ["BridgeDriver", "BridgeOptions"]

_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


class BridgeDriver:
    """
    Makes networks of type ``bridge``.

    Args:
        firewall_priority: Added to the standard priorities of the firewall's base chains: negative to
            come before other tools, positive to come behind them. The same for all networks of a
            controller.
    """

    name = "bridge"
    capabilities = Capabilities()
    options_type = BridgeOptions

    def __init__(self, *, firewall_priority: int = 0) -> None:
        self.firewall_priority = firewall_priority

    def interface_prefix(self, network: NetworkSpec[BridgeOptions]) -> str:
        """Return the prefix of interface names in a sandbox."""
        return network.options.interface_prefix

    def publishing(self, network: NetworkSpec[BridgeOptions]) -> Publishing:
        """Return how ports are published: not at all where the network is internal."""
        modes = {
            subnet.version: network.options.gateway_mode(subnet.version)
            for subnet in network.subnets
            if not network.internal
        }
        return Publishing(
            translated=tuple(version for version, mode in modes.items() if mode.startswith("nat")),
            opened=tuple(version for version, mode in modes.items() if mode == "routed"),
            address=network.options.host_binding,
        )

    def network_plan(self, network: NetworkSpec[BridgeOptions]) -> Plan:
        """Return the bridge, its gateway addresses, that it is up, and who may pass."""
        _check_mtu_for(network)
        _check_modes(network)
        device = bridge_name(network)
        return Plan(
            (
                *_bridge(network, device),
                *_forwarding(network, device),
                Ruleset(priority=self.firewall_priority),
                network_rules(network),
                LinkUp(dev=device),
            )
        )

    def join_plan(
        self, network: NetworkSpec[BridgeOptions], endpoint: EndpointSpec, sandbox: SandboxSpec
    ) -> Plan:
        """Return the veth pair and what is configured on its end in the sandbox."""
        netns, dev, link = chosen_names(endpoint, sandbox)
        veth = Veth(
            name=link,
            bridge=bridge_name(network),
            netns=netns,
            peer=dev,
            mac=endpoint.mac,
            mtu=network.options.mtu,
            isolated=not network.options.icc,
            hairpin=bool(self.publishing(network).translated),
        )
        addresses = (*endpoint.addresses, *endpoint.link_local)
        return Plan(
            (
                EndpointRules(
                    link=link,
                    mac=endpoint.mac,
                    addresses=[address.ip for address in addresses],
                    guard=network.options.spoof_protection,
                    bridge=bridge_name(network),
                ),
                veth,
                *within(endpoint, netns, dev),
            )
        )

    def port_plan(
        self, network: NetworkSpec[BridgeOptions], endpoint: EndpointSpec, binding: PortBinding
    ) -> Plan:
        """Return the rules that publish a port, for each address family."""
        how = self.publishing(network)
        owner = f"endpoint {endpoint.name!r} of network {network.name!r}"
        rules = []
        for address in endpoint.addresses:
            if address.version not in binding.versions:
                continue
            if address.version in how.translated and binding.host_port is not None:
                rules.append(_translated(binding, binding.host_port, address, owner))
            elif address.version in how.opened:
                rules.append(_opened(binding, address, owner))
        return Plan(rules)


def _translated(binding: PortBinding, port: int, address: IPInterface, owner: str) -> PublishedPort:
    host = binding.host_address
    return PublishedPort(
        proto=binding.proto,
        host=None if host is None or host.is_unspecified else str(host),
        first=port,
        last=port + binding.size - 1,
        target=address.ip,
        target_first=binding.first,
        owner=owner,
    )


def _opened(binding: PortBinding, address: IPInterface, owner: str) -> PublishedPort:
    return PublishedPort(
        proto=binding.proto,
        first=binding.first,
        last=binding.last,
        target=address.ip,
        target_first=binding.first,
        nat=False,
        owner=owner,
    )


def _bridge(network: NetworkSpec[BridgeOptions], device: str) -> Iterator[Resource]:
    options = network.options
    adopt = options.bridge is not None
    yield Bridge(
        name=device,
        mac=bridge_mac(network),
        mtu=options.mtu,
        multicast_snooping=options.multicast_snooping,
        adopt=adopt,
    )
    versions = set()
    for subnet in network.subnets:
        is_host_in = not options.inhibit_gateway and options.gateway_mode(subnet.version) != "isolated"
        if subnet.gateway is not None and is_host_in:
            versions.add(subnet.version)
            yield Address(dev=device, cidr=f"{subnet.gateway}/{subnet.network.prefixlen}", adopt=adopt)
    if 6 in versions:
        yield Address(dev=device, cidr=f"{_link_local(bridge_mac(network))}/64", adopt=adopt)


def _link_local(mac: str) -> IPv6Address:
    """
    Return the link-local address of an interface with that MAC (RFC 4291 appendix A).

    A router needs one: it is what the kernel asks neighbours from, on behalf of those beyond. Its own
    come too late, after duplicate address detection.
    """
    digits = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([digits[0] ^ 2, *digits[1:3], 0xFF, 0xFE, *digits[3:]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def _forwarding(network: NetworkSpec[BridgeOptions], device: str) -> Iterator[Resource]:
    """Yield the settings without which the host would be no router for the network."""
    if network.internal:
        return
    versions = {subnet.version for subnet in network.subnets}
    yield from (Sysctl(name=_FORWARDING[version], value="1") for version in sorted(versions))
    if 4 in versions and network.options.gateway_mode(4).startswith("nat"):
        # For the host's own connections to ports published on 127.0.0.1; the firewall sees to it that
        # nobody else's come that way.
        name = for_interface("net.ipv4.conf.IFNAME.route_localnet", device)
        yield LinkSysctl(dev=device, name=name, value="1")


def network_rules(network: NetworkSpec[BridgeOptions]) -> NetworkRules:
    """Return who may pass to and from a network, and as whom."""
    options = network.options
    outbound: dict[int, str] = {address.version: str(address) for address in options.outbound_addresses}
    masquerade = {4: options.masquerade_ipv4, 6: options.masquerade_ipv6}
    return NetworkRules(
        bridge=bridge_name(network),
        internal=network.internal,
        icc=options.icc,
        is_open=options.isolation == "open",
        trusted=options.trusted_interfaces,
        subnets=[
            SubnetRules(
                subnet=subnet.network,
                mode=(mode := options.gateway_mode(subnet.version)),
                source=outbound.get(subnet.version, "masquerade")
                if masquerade[subnet.version] and mode.startswith("nat") and not network.internal
                else None,
            )
            for subnet in network.subnets
        ],
    )


def _check_modes(network: NetworkSpec[BridgeOptions]) -> None:
    for subnet in network.subnets:
        if network.options.gateway_mode(subnet.version) == "isolated" and not network.internal:
            msg = "gateway mode 'isolated' is for internal networks: the host is no way out of this one"
            raise InvalidValueError(msg)


def bridge_name(network: NetworkSpec[BridgeOptions]) -> str:
    """Return the interface name of the network's bridge."""
    return network.options.bridge or f"br-{network.id[:12]}"


def bridge_mac(network: NetworkSpec[BridgeOptions]) -> str:
    """Return the bridge's MAC: locally administered, and the same whenever the bridge is made again."""
    return stable_mac(network.id)


def _check_mtu_for(network: NetworkSpec[BridgeOptions]) -> None:
    mtu = network.options.mtu
    for subnet in network.subnets:
        if mtu is not None and mtu < MTU_MIN[subnet.version]:
            msg = f"invalid MTU {mtu} for subnet {subnet.network}: IPv6 needs {MTU_MIN[6]} bytes (RFC 8200)"
            raise InvalidValueError(msg)
