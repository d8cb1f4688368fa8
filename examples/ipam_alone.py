"""The default IPAM driver without a controller: subnets and addresses for any tool. Needs no root."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from pynetwork.errors import ConflictError
from pynetwork.ipam import DefaultIpam, PoolRequest, ula_prefix


def main() -> None:
    """Choose subnets, hand out addresses, run into a conflict."""
    ipam = DefaultIpam(ula=ula_prefix(b"the machine id of this host"))

    host_routes = (ip_network("172.16.0.0/16"), ip_network("10.8.0.0/24"))
    print("a subnet clear of the host's routes:", ipam.request_pool(PoolRequest(exclude=host_routes)))
    print("any free /28:                       ", ipam.request_pool(PoolRequest(subnet="0.0.0.0/28")))
    print("an IPv6 one:                        ", ipam.request_pool(PoolRequest(version=6)))

    # Addresses for containers come from the upper half; the lower is for what the admin sets by hand.
    pool = ipam.request_pool(PoolRequest(subnet="10.1.0.0/24", sub_pool="10.1.0.128/25"))
    gateway = ipam.request_address(pool, preferred=ip_address("10.1.0.1"))
    print("gateway:                            ", gateway)
    print("containers:                         ", *(ipam.request_address(pool) for _ in range(3)))
    print("usage of the sub-pool:              ", ipam.usage(pool))

    try:
        ipam.request_pool(PoolRequest(subnet="10.1.0.0/16"))
    except ConflictError as error:
        print("refused:                            ", error)


if __name__ == "__main__":
    main()
