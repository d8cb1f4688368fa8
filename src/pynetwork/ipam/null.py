"""The IPAM driver of networks without addresses, such as ``null`` and ``host``."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from pynetwork.errors import InvalidValueError, NotFoundError, RequestError
from pynetwork.ipam.base import Pool

if TYPE_CHECKING:
    from pynetwork.ipam.base import PoolRequest
    from pynetwork.types import IPAddress, IPInterface, IPNetwork

__all__ = ["NullIpam"]

_SPACE: Final = "null"
_EVERYTHING: Final[dict[int, IPNetwork]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


class NullIpam:
    """
    Answers every request with the pool ``null/0.0.0.0/0`` or ``null/::/0``, and has no addresses.

    It keeps nothing: the pools may be requested and released any number of times. Which address
    space is asked for does not matter; there is nothing in it.
    """

    name: Final = "null"

    def request_pool(self, request: PoolRequest) -> Pool:
        """
        Return the pool of the family asked for.

        Raises:
            InvalidValueError: The request wants a subnet or sub-pool.
        """
        subnet = _EVERYTHING[request.family]
        if request.subnet not in {None, subnet} or request.sub_pool is not None:
            wanted = request.sub_pool or request.subnet
            msg = f"cannot reserve {wanted}: networks of the IPAM driver 'null' have no subnets"
            raise InvalidValueError(msg)
        return Pool(space=_SPACE, subnet=subnet)

    def release_pool(self, pool: Pool) -> None:
        """
        Do nothing.

        Raises:
            NotFoundError: The pool is not one of this driver.
        """
        if pool not in {Pool(space=_SPACE, subnet=subnet) for subnet in _EVERYTHING.values()}:
            msg = f"pool {pool} is not in use"
            raise NotFoundError(msg)

    def request_address(
        self,
        pool: Pool,
        *,
        preferred: IPAddress | None = None,
        mac: str | None = None,  # noqa: ARG002 - part of the interface
    ) -> IPInterface:
        """
        Refuse.

        Raises:
            RequestError: Always.
        """
        wanted = "an address" if preferred is None else f"address {preferred}"
        msg = f"cannot reserve {wanted} in pool {pool}: networks of the IPAM driver 'null' have no addresses"
        raise RequestError(msg)

    def release_address(self, pool: Pool, address: IPAddress) -> None:
        """
        Refuse.

        Raises:
            RequestError: Always; no address can have come from here.
        """
        msg = f"cannot release address {address} of pool {pool}: the IPAM driver 'null' has no addresses"
        raise RequestError(msg)
