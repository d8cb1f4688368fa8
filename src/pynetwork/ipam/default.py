"""The IPAM driver used when none is named: subnets and addresses from memory, replayed by the controller."""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Network
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pynetwork.errors import ConflictError, ExhaustedError, InvalidValueError, NotFoundError
from pynetwork.ipam.base import Pool
from pynetwork.ipam.block import Block, Policy
from pynetwork.ipam.space import AddressSpace, DefaultPool
from pynetwork.ipam.subnets import check_sub_pool, check_subnet
from pynetwork.types import Scope, parse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pynetwork.ipam.base import PoolRequest, Usage
    from pynetwork.ipam.block import Window
    from pynetwork.types import IPAddress, IPInterface, IPNetwork

__all__ = ["DEFAULT_SPACES", "DefaultIpam"]

#: The address spaces of :class:`DefaultIpam`, and what it carves subnets from in each.
DEFAULT_SPACES: Final[Mapping[str, tuple[DefaultPool, ...]]] = MappingProxyType(
    {
        # A /22 has 1022 hosts: as many as a Linux bridge has ports (BR_MAX_PORTS is 1024). Docker's /16
        # spend 65 000 addresses on it, and are used up by 31 networks; these are enough for 1088.
        Scope.LOCAL.value: (
            DefaultPool(base=parse_network("172.16.0.0/12"), size=22),
            DefaultPool(base=parse_network("192.168.0.0/16"), size=22),
        ),
        Scope.GLOBAL.value: (DefaultPool(base=parse_network("10.0.0.0/8"), size=24),),
    }
)

_ULA_SIZE: Final = 64  # the one length that every IPv6 mechanism works with (RFC 7421)


class DefaultIpam:
    """
    Chooses subnets from default pools and addresses from bitmaps. Thread-safe.

    Within an address space no two subnets overlap. Several pools may have the same subnet, each with
    its own sub-pool: they share the addresses, so none is ever handed out twice.

    Args:
        spaces: The address spaces, each with the ranges its subnets are carved from when nobody asked
            for one by value. A space may have none.
        ula: The prefix IPv6 subnets of the space ``local`` are carved from, as /64; see
            :func:`~pynetwork.ipam.ula_prefix`. Other spaces reach beyond this host, whose own prefix
            would be wrong there: give them an IPv6 :class:`DefaultPool` that all hosts agree on.
        policy: Which of the free addresses is chosen.
        quarantine: For how many seconds a released address is not chosen again, while others are free.
            Caches of neighbours and switches still know who had it (moby#53141). 0 switches it off.
        clock: Seconds that only grow.

    Raises:
        InvalidValueError: An argument is malformed.
    """

    name: Final = "default"

    def __init__(
        self,
        *,
        spaces: Mapping[str, Iterable[DefaultPool]] = DEFAULT_SPACES,
        ula: IPv6Network | None = None,
        policy: Policy = Policy.LOWEST,
        quarantine: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spaces = {name: AddressSpace(name, tuple(defaults)) for name, defaults in spaces.items()}
        if ula is not None:
            self._space(Scope.LOCAL.value).defaults += (_ula_pool(ula),)
        self._policy = _parse_policy(policy)
        self._quarantine = _check_seconds(quarantine)
        self._clock = clock
        self._windows: dict[Pool, Window] = {}
        self._lock = Lock()

    @property
    def spaces(self) -> tuple[str, ...]:
        """The names of the address spaces."""
        return tuple(self._spaces)

    @property
    def quarantine(self) -> float:
        """For how many seconds a released address is not chosen again, while others are free."""
        return self._quarantine

    def request_pool(self, request: PoolRequest) -> Pool:
        """
        Reserve a subnet: the one asked for, or else the lowest free one of the default pools.

        Raises:
            InvalidValueError: An unknown address space; a subnet no network can use; a sub-pool that
                is not inside the subnet; no default pool to choose from.
            ConflictError: The pool is in use, or its subnet overlaps another one.
            ExhaustedError: No subnet is left to choose.
        """
        if request.concrete is not None:
            check_subnet(request.concrete)
        if request.sub_pool is not None:
            check_sub_pool(request.sub_pool, request.concrete)
        with self._lock:
            space = self._space(request.space)
            subnet = request.concrete or space.choose(request)
            pool = Pool(space=space.name, subnet=subnet, sub_pool=request.sub_pool)
            if pool in self._windows:
                msg = f"pool {pool} is already in use"
                raise ConflictError(msg)
            block = space.block(subnet)
            if block is None:
                block = Block(subnet, self._quarantine)
                space.open(block)
            block.pools.add(pool)
            self._windows[pool] = block.window(pool.sub_pool)
        return pool

    def release_pool(self, pool: Pool) -> None:
        """
        Give a pool back. With the last one of a subnet, what was taken of its addresses is forgotten.

        Raises:
            NotFoundError: The pool is not in use.
        """
        with self._lock:
            block = self._window(pool).block
            del self._windows[pool]
            block.pools.remove(pool)
            if not block.pools:
                self._spaces[pool.space].close(block)

    def request_address(
        self,
        pool: Pool,
        *,
        preferred: IPAddress | None = None,
        mac: str | None = None,  # noqa: ARG002 - for drivers that derive the address from it
    ) -> IPInterface:
        """
        Reserve an address: *preferred*, or else one of the (sub-)pool by the policy.

        Args:
            pool: From :meth:`request_pool`.
            preferred: This address and no other, also from outside the sub-pool or in quarantine.
            mac: Not used.

        Returns:
            The address with the prefix length of the subnet.

        Raises:
            NotFoundError: The pool is not in use.
            InvalidValueError: *preferred* is outside the subnet, or reserved.
            ConflictError: *preferred* is in use.
            ExhaustedError: No address of the (sub-)pool is free.
        """
        with self._lock:
            window = self._window(pool)
            block = window.block
            if preferred is not None:
                offset: int | None = block.take(preferred)
            else:
                offset = block.take_any(window, self._policy, self._clock())
        if offset is None:
            raise ExhaustedError(_explain_exhausted(pool, block.size(window)))
        return block.interface(offset)

    def release_address(self, pool: Pool, address: IPAddress) -> None:
        """
        Give an address back; nothing happens when it is free already.

        Raises:
            NotFoundError: The pool is not in use.
            InvalidValueError: The address is outside the subnet, or reserved.
        """
        with self._lock:
            self._window(pool).block.release(address, self._clock())

    def usage(self, pool: Pool) -> Usage:
        """
        Count the addresses of the (sub-)pool, whichever pool they were requested from.

        Raises:
            NotFoundError: The pool is not in use.
        """
        with self._lock:
            window = self._window(pool)
            return window.block.usage(window, self._clock())

    def _space(self, name: str) -> AddressSpace:
        try:
            return self._spaces[name]
        except KeyError:
            msg = f"unknown address space {name!r}: there is {', '.join(map(repr, self._spaces)) or 'none'}"
            raise InvalidValueError(msg) from None

    def _window(self, pool: Pool) -> Window:
        try:
            return self._windows[pool]
        except KeyError:
            msg = f"pool {pool} is not in use"
            raise NotFoundError(msg) from None


def _explain_exhausted(pool: Pool, size: int) -> str:
    part = f"sub-pool {pool.sub_pool} of subnet {pool.subnet}" if pool.sub_pool else f"subnet {pool.subnet}"
    return (
        f"no free address in {part} (address space {pool.space!r}): all {size} are taken; "
        "delete endpoints, or use a larger subnet" + (" or sub-pool" if pool.sub_pool else "")
    )


def _ula_pool(ula: IPv6Network) -> DefaultPool:
    prefix: IPNetwork = parse_network(ula, "ULA prefix")
    if not isinstance(prefix, IPv6Network):
        msg = f"invalid ULA prefix {prefix}: an IPv6 network such as fd12:3456:789a::/48 is expected"
        raise InvalidValueError(msg)
    return DefaultPool(base=prefix, size=_ULA_SIZE)


def _parse_policy(policy: str) -> Policy:
    try:
        return Policy(policy)
    except ValueError:
        msg = f"unknown address policy {policy!r}: use {', '.join(map(repr, map(str, Policy)))}"
        raise InvalidValueError(msg) from None


def _check_seconds(quarantine: float) -> float:
    valid = isinstance(quarantine, int | float) and not isinstance(quarantine, bool)
    if not valid or math.isnan(quarantine) or quarantine < 0:
        msg = f"invalid quarantine {quarantine!r}: use seconds, 0 for none"
        raise InvalidValueError(msg)
    return float(quarantine)
