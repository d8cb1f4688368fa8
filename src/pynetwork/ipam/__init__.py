"""Subnets and addresses: the interface of an IPAM driver, and the drivers that come with the library.

Works on its own, for tools that want an allocator and no containers:

>>> from pynetwork.ipam import DefaultIpam, PoolRequest
>>> ipam = DefaultIpam()
>>> pool = ipam.request_pool(PoolRequest(subnet="10.0.0.0/24", sub_pool="10.0.0.128/25"))
>>> print(pool)
local/10.0.0.0/24/10.0.0.128/25
>>> ipam.request_address(pool)
IPv4Interface('10.0.0.128/24')
>>> ipam.usage(pool).free
126
>>> print(ipam.request_pool(PoolRequest()))
local/172.16.0.0/22
"""

from pynetwork.ipam.base import IpamDriver, Metered, Pool, PoolRequest, Quarantining, Usage
from pynetwork.ipam.bitmap import Bitmap
from pynetwork.ipam.block import Policy
from pynetwork.ipam.default import DEFAULT_SPACES, DefaultIpam
from pynetwork.ipam.index import SubnetIndex
from pynetwork.ipam.null import NullIpam
from pynetwork.ipam.space import DefaultPool
from pynetwork.ipam.ula import ula_prefix

__all__ = [
    "DEFAULT_SPACES",
    "Bitmap",
    "DefaultIpam",
    "DefaultPool",
    "IpamDriver",
    "Metered",
    "NullIpam",
    "Policy",
    "Pool",
    "PoolRequest",
    "Quarantining",
    "SubnetIndex",
    "Usage",
    "ula_prefix",
]
