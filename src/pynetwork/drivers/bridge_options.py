"""What can be said of a bridge network: its interface, its firewall, how it is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import InvalidValueError
from pynetwork.types import (
    IPAddress,
    check_flag,
    check_interface_name,
    check_interface_prefix,
    parse_address,
    parse_each,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GATEWAY_MODES", "ISOLATIONS", "MTU_MIN", "BridgeOptions", "check_mtu", "check_option_flag"]

#: Smallest MTU by address family: RFC 791 section 3.2, RFC 8200 section 5.
MTU_MIN = {4: 68, 6: 1280}
#: libnetwork's gateway modes.
GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
#: Whether other networks of this host may be reached.
ISOLATIONS = ("isolated", "open")
_MTU_MAX = 65535


def check_mtu(_instance: object, _attribute: object, value: int | None) -> None:
    """Validate an MTU in bytes, or None, as a field of options."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not MTU_MIN[4] <= value <= _MTU_MAX:
        msg = f"invalid MTU {value!r}: a number of bytes from {MTU_MIN[4]} to {_MTU_MAX} is expected"
        raise InvalidValueError(msg)


def _optional_name(value: object) -> str | None:
    return None if value is None else check_interface_name(value)


def check_option_flag(_instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    """Validate True or False, as a field of options."""
    check_flag(f"option {attribute.name}", value)


def _check_word(_instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    known = ISOLATIONS if attribute.name == "isolation" else GATEWAY_MODES
    if value not in known:
        msg = f"invalid option {attribute.name}={value!r}: {', '.join(known)} are known"
        raise InvalidValueError(msg)


def _host_address(value: object) -> IPAddress | None:
    return None if value is None else parse_address(value, "host binding")


def _outbound(values: Iterable[object]) -> tuple[IPAddress, ...]:
    found = parse_each("outbound addresses", values, lambda value: parse_address(value, "outbound address"))
    if len({address.version for address in found}) < len(found):
        msg = f"invalid outbound addresses {', '.join(map(str, found))}: one of a family is expected"
        raise InvalidValueError(msg)
    return found


def _links(values: Iterable[object]) -> tuple[str, ...]:
    return parse_each("trusted interfaces", values, check_interface_name)


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
        masquerade_ipv4: Packets to other networks come from the host's address
            (``com.docker.network.bridge.enable_ip_masquerade``).
        masquerade_ipv6: Likewise.
        outbound_addresses: They come from these instead, one of a family (``com.docker.network.host_ipv4``).
        icc: Whether endpoints of the network may talk to each other
            (``com.docker.network.bridge.enable_icc``).
        isolation: ``isolated``: other networks are out of reach but for published ports, as in Docker;
            ``open``: other open networks are not.
        gateway_mode_ipv4: How endpoints are reached from outside. ``nat``: by published ports of the
            host; ``nat-unprotected``: by all of their own ports as well, for who has a route to them;
            ``routed``: by published ports of their own, no address is translated; ``isolated``: the host
            itself is not in the network (``com.docker.network.bridge.gateway_mode_ipv4``). Only internal
            networks can be ``isolated``.
        gateway_mode_ipv6: Likewise.
        host_binding: Address of the host for published ports that name none
            (``com.docker.network.bridge.host_binding_ipv4``); all of its addresses when not given.
        trusted_interfaces: Interfaces of the host from which all ports of all endpoints may be reached
            directly (``com.docker.network.bridge.trusted_host_interfaces``).
        spoof_protection: Drop what an endpoint sends from a MAC or IP address that is not its own.
    """

    bridge: str | None = attrs.field(default=None, converter=_optional_name)
    mtu: int | None = attrs.field(default=None, validator=check_mtu)
    inhibit_gateway: bool = attrs.field(default=False, validator=check_option_flag)
    multicast_snooping: bool = attrs.field(default=False, validator=check_option_flag)
    interface_prefix: str = attrs.field(default="eth", converter=check_interface_prefix)
    masquerade_ipv4: bool = attrs.field(default=True, validator=check_option_flag)
    masquerade_ipv6: bool = attrs.field(default=True, validator=check_option_flag)
    outbound_addresses: tuple[IPAddress, ...] = attrs.field(default=(), converter=_outbound)
    icc: bool = attrs.field(default=True, validator=check_option_flag)
    isolation: str = attrs.field(default="isolated", validator=_check_word)
    gateway_mode_ipv4: str = attrs.field(default="nat", validator=_check_word)
    gateway_mode_ipv6: str = attrs.field(default="nat", validator=_check_word)
    host_binding: IPAddress | None = attrs.field(default=None, converter=_host_address)
    trusted_interfaces: tuple[str, ...] = attrs.field(default=(), converter=_links)
    spoof_protection: bool = attrs.field(default=True, validator=check_option_flag)

    def gateway_mode(self, version: int) -> str:
        """Return the gateway mode of family *version*, 4 or 6."""
        return self.gateway_mode_ipv4 if version == 4 else self.gateway_mode_ipv6
