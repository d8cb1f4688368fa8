"""An IPAM driver of your own: known interfaces get the address of a plan, all others any free one.

Four methods and a name. This one leaves the bookkeeping to the default driver; one that asks a DHCP
server or a database has the same face. Needs no root.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from pynetwork.ipam import DefaultIpam, IpamDriver, Pool, PoolRequest

if TYPE_CHECKING:
    from pynetwork.types import IPAddress, IPInterface


class PlannedIpam:
    """Gives the MAC addresses of a plan the addresses it says."""

    name = "planned"

    def __init__(self, plan: dict[str, str]) -> None:
        self._plan = {mac: ip_address(address) for mac, address in plan.items()}
        self._free = DefaultIpam()

    def request_pool(self, request: PoolRequest) -> Pool:
        """Reserve a subnet."""
        return self._free.request_pool(request)

    def release_pool(self, pool: Pool) -> None:
        """Give it back."""
        self._free.release_pool(pool)

    def request_address(
        self, pool: Pool, *, preferred: IPAddress | None = None, mac: str | None = None
    ) -> IPInterface:
        """Reserve the address asked for, else the planned one, else any."""
        if preferred is None and mac is not None:
            preferred = self._plan.get(mac)
        return self._free.request_address(pool, preferred=preferred)

    def release_address(self, pool: Pool, address: IPAddress) -> None:
        """Give it back."""
        self._free.release_address(pool, address)


if __name__ == "__main__":
    ipam: IpamDriver = PlannedIpam({"02:00:00:00:00:53": "10.7.0.53"})
    lab = ipam.request_pool(PoolRequest(subnet="10.7.0.0/24"))
    print(ipam.request_address(lab), "for the gateway")
    print(ipam.request_address(lab, mac="02:00:00:00:00:53"), "for the name server, which is in the plan")
    print(ipam.request_address(lab, mac="02:00:00:00:00:99"), "for an interface that is not")
