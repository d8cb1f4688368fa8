"""An address space: subnets that must not overlap, and the larger ones new subnets are carved from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.errors import ExhaustedError, InvalidValueError
from pynetwork.ipam.index import SubnetIndex
from pynetwork.ipam.subnets import check_subnet
from pynetwork.types import parse_network

if TYPE_CHECKING:
    from pynetwork.ipam.base import PoolRequest
    from pynetwork.ipam.block import Block
    from pynetwork.types import IPNetwork

__all__ = ["AddressSpace", "DefaultPool"]


def _check_base(_instance: object, _attribute: object, base: IPNetwork) -> None:
    check_subnet(base)


def _check_prefixlen(pool: DefaultPool, _attribute: object, size: int) -> None:
    base = pool.base
    if type(size) is not int or not base.prefixlen <= size <= base.max_prefixlen:
        msg = f"invalid size {size!r} of the subnets of {base}: use {base.prefixlen} to {base.max_prefixlen}"
        raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class DefaultPool:
    """
    Where subnets come from that nobody asked for by value (a pair of Docker's ``default-address-pools``).

    Attributes:
        base: The range that subnets are carved from.
        size: Their prefix length.

    Raises:
        InvalidValueError: *size* is shorter than the base's or too long for the family, or the base
            reaches into loopback, multicast, or the like.
    """

    base: IPNetwork = attrs.field(converter=parse_network, validator=_check_base)
    size: int = attrs.field(validator=_check_prefixlen)

    def __str__(self) -> str:
        return f"{self.base} by /{self.size}"


def _check_defaults(_instance: object, _attribute: object, defaults: tuple[DefaultPool, ...]) -> None:
    for pool in defaults:
        if not isinstance(pool, DefaultPool):
            msg = f"invalid default pool {pool!r}: a DefaultPool is expected"
            raise InvalidValueError(msg)


@attrs.define(eq=False)
class AddressSpace:
    """
    The subnets in use in one address space, with their addresses. Not thread-safe by itself.

    Args:
        name: As in :attr:`PoolRequest.space <pynetwork.ipam.PoolRequest.space>`.
        defaults: Where to choose subnets from, in this order.
    """

    name: str
    defaults: tuple[DefaultPool, ...] = attrs.field(validator=_check_defaults)
    _index: SubnetIndex = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda space: SubnetIndex(space.name), takes_self=True)
    )
    _blocks: dict[IPNetwork, Block] = attrs.field(init=False, repr=False, factory=dict)

    def block(self, subnet: IPNetwork) -> Block | None:
        """Return the addresses of a subnet in use; None when it is not."""
        return self._blocks.get(subnet)

    def open(self, block: Block) -> None:
        """
        Put the subnet of *block* in use.

        Raises:
            ConflictError: It overlaps another in use.
        """
        self._index.add(block.subnet)
        self._blocks[block.subnet] = block

    def close(self, block: Block) -> None:
        """Put the subnet of *block* out of use; the state of its addresses goes with it."""
        self._index.remove(block.subnet)
        del self._blocks[block.subnet]

    def choose(self, request: PoolRequest) -> IPNetwork:
        """
        Return the lowest free subnet that answers a request for any.

        Raises:
            InvalidValueError: No default pool is of that family, or as large.
            ExhaustedError: Every such subnet overlaps one in use or an excluded range.
        """
        candidates = [pool for pool in self.defaults if _can_serve(pool, request)]
        if not candidates:
            raise InvalidValueError(self._explain_unservable(request))
        for pool in candidates:
            subnet = self._index.lowest_gap(pool.base, request.prefixlen or pool.size, request.exclude)
            if subnet is not None:
                return subnet
        raise ExhaustedError(self._explain_exhausted(request, candidates))

    def _explain_unservable(self, request: PoolRequest) -> str:
        family = f"IPv{request.family}"
        wanted = "subnet" if request.prefixlen is None else f"/{request.prefixlen}"
        remedy = " or ula=" if request.family == 6 else ""
        return (
            f"cannot choose an {family} {wanted} in address space {self.name!r}: no default pool of it is "
            f"{family} and large enough; ask for a concrete subnet, or give the IPAM driver spaces={remedy}"
        )

    def _explain_exhausted(self, request: PoolRequest, candidates: list[DefaultPool]) -> str:
        bases = ", ".join(str(pool) for pool in candidates)
        excluded = f", {len(request.exclude)} ranges excluded" if request.exclude else ""
        wanted = "subnet" if request.prefixlen is None else f"/{request.prefixlen}"
        return (
            f"all default address pools of space {self.name!r} are in use ({bases}{excluded}): "
            f"no free {wanted}; delete a network, ask for a concrete subnet, "
            "or give the IPAM driver more pools with spaces="
        )


def _can_serve(pool: DefaultPool, request: PoolRequest) -> bool:
    if pool.base.version != request.family:
        return False
    return request.prefixlen is None or pool.base.prefixlen <= request.prefixlen
