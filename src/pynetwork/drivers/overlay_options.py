"""What can be said of a network that spans hosts."""

from __future__ import annotations

from typing import Final

import attrs

from pynetwork.drivers.bridge_options import check_mtu, check_option_flag
from pynetwork.errors import InvalidValueError
from pynetwork.types import check_interface_prefix

__all__ = ["VNI_MAX", "OverlayOptions"]

#: The largest VXLAN network identifier (RFC 7348 section 5: 24 bits).
VNI_MAX: Final = (1 << 24) - 1


def _check_vni(_instance: object, _attribute: object, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= VNI_MAX:
        msg = f"invalid VNI {value!r}: a number from 1 to {VNI_MAX} is expected"
        raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class OverlayOptions:
    """
    Options of a network that spans hosts. They are the same on all of them.

    Args:
        vni: VXLAN network identifier, 1 to 16777215, of one network of the cluster; chosen when not given.
        mtu: Bytes, of every interface in the network; what the hosts' underlay leaves of its own when not
            given: 50 bytes less over IPv4, 70 over IPv6.
        bum: Whether broadcast and multicast go to all hosts of the network, one copy to each (BUM: broadcast,
            unknown unicast, multicast). ARP and neighbour discovery work without: they are answered on the
            asker's own host. Frames to unknown addresses are never sent anywhere.
        strict: Whether a host drops frames of another that has no endpoint with their source address. Only
            Open vSwitch can tell: on others such a network is refused.
        interface_prefix: Of interface names in sandboxes.
        spoof_protection: Drop what an endpoint sends from a MAC or IP address that is not its own.
    """

    vni: int | None = attrs.field(default=None, validator=_check_vni)
    mtu: int | None = attrs.field(default=None, validator=check_mtu)
    bum: bool = attrs.field(default=False, validator=check_option_flag)
    strict: bool = attrs.field(default=False, validator=check_option_flag)
    interface_prefix: str = attrs.field(default="eth", converter=check_interface_prefix)
    spoof_protection: bool = attrs.field(default=True, validator=check_option_flag)
