"""The interface of an IPAM driver: requests, pools, and what a driver must and may offer.

An IPAM driver chooses subnets and addresses. It keeps state but no storage: the controller records
what a driver answered and asks for the same again after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs
from attrs.converters import optional

from pynetwork.errors import InvalidValueError
from pynetwork.types import parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.types import AnyNetwork, IPAddress, IPInterface, IPNetwork

__all__ = ["IpamDriver", "Metered", "Pool", "PoolRequest", "Quarantining", "Usage"]


def _check_space(_instance: object, _attribute: object, space: str) -> None:
    # A slash would make two pools look alike: Pool.id joins its parts with slashes.
    if not isinstance(space, str) or not space or "/" in space:
        msg = f"invalid address space {space!r}: a name such as 'local' is expected"
        raise InvalidValueError(msg)


def _check_version(_instance: object, _attribute: object, version: int) -> None:
    if type(version) is not int or version not in {4, 6}:
        msg = f"invalid IP version {version!r}: use 4 or 6"
        raise InvalidValueError(msg)


def _networks(values: Iterable[AnyNetwork]) -> tuple[IPNetwork, ...]:
    return tuple(parse_network(value) for value in values)


@attrs.frozen(kw_only=True)
class PoolRequest:
    """
    What is asked of an IPAM driver for one subnet of a network.

    Subnets may be given as text, ``ipaddress`` or ``netaddr`` values.

    Attributes:
        space: The address space; subnets overlap only within one.
        subnet: The subnet wanted. None leaves the choice to the driver, and a zero network address
            (``0.0.0.0/26``, ``::/64``) means "any free subnet of that size".
        sub_pool: The part of *subnet* that addresses are chosen from; None is all of it.
        version: 4 or 6, the family when *subnet* is None; otherwise the subnet says it.
        exclude: What a subnet chosen by the driver must not overlap: the routes of the host, its name
            servers. Leave out the default route, which overlaps everything. A subnet asked for
            explicitly is not compared with it.
    """

    space: str = attrs.field(default="local", validator=_check_space)
    subnet: IPNetwork | None = attrs.field(default=None, converter=optional(parse_network))
    sub_pool: IPNetwork | None = attrs.field(default=None, converter=optional(parse_network))
    version: int = attrs.field(default=4, validator=_check_version)
    exclude: tuple[IPNetwork, ...] = attrs.field(default=(), converter=_networks)

    @property
    def concrete(self) -> IPNetwork | None:
        """The subnet asked for, or None when the driver is to choose one."""
        return None if self.prefixlen is not None else self.subnet

    @property
    def prefixlen(self) -> int | None:
        """The size asked for when nothing but the size was, as a prefix length; else None."""
        if self.subnet is None or self.subnet.prefixlen == 0 or int(self.subnet.network_address):
            return None
        return self.subnet.prefixlen

    @property
    def family(self) -> int:
        """4 or 6: the family of *subnet*, or *version* where there is none."""
        return self.version if self.subnet is None else self.subnet.version


@attrs.frozen(kw_only=True, cache_hash=True)  # looked up at every address request
class Pool:
    """
    A subnet, or a part of one, that an IPAM driver hands addresses out from.

    A value: the controller may rebuild it from its records and use it in place of the original.
    """

    space: str = attrs.field(validator=_check_space)
    subnet: IPNetwork = attrs.field(converter=parse_network)
    sub_pool: IPNetwork | None = attrs.field(default=None, converter=optional(parse_network))

    @property
    def id(self) -> str:
        """``space/subnet`` or ``space/subnet/sub_pool`` (libnetwork's PoolID)."""
        part = "" if self.sub_pool is None else f"/{self.sub_pool}"
        return f"{self.space}/{self.subnet}{part}"

    def __str__(self) -> str:
        return self.id


class IpamDriver(Protocol):
    """
    Hands out subnets and addresses. Four methods and a name are all a driver needs.

    The contract:

    - *Replay.* A driver needs no storage of its own. After a restart the controller calls
      :meth:`request_pool` with each subnet it has on record and :meth:`request_address` with each
      address as *preferred*, before any new request. Both must then answer just that.
    - *Order.* A pool is released only after every address requested from it was. One request is
      balanced by one release; whether the same pool may be requested twice is the driver's choice
      (the default one refuses).
    - *Rollback.* When a later step of a request fails, the controller releases what it got. So
      :meth:`release_address` of an address that is already free must succeed.
    - *Threads.* Calls come from any thread, several at once. They run while the controller holds a
      lock: be quick, and do not call the controller back.
    - *Errors* are those of :mod:`pynetwork.errors`; any other exception is taken for a bug in the driver.
    """

    @property
    def name(self) -> str:
        """The name users pick the driver by: ``new_network(..., ipam="default")``."""

    def request_pool(self, request: PoolRequest) -> Pool:
        """
        Reserve a subnet.

        Raises:
            InvalidValueError: The driver cannot serve such a request at all.
            ConflictError: The subnet is in use, or overlaps one that is.
            ExhaustedError: The driver was to choose, and no subnet is free.
        """

    def release_pool(self, pool: Pool) -> None:
        """
        Give a subnet back.

        Raises:
            NotFoundError: The pool is not in use.
        """

    def request_address(
        self, pool: Pool, *, preferred: IPAddress | None = None, mac: str | None = None
    ) -> IPInterface:
        """
        Reserve an address of a pool.

        Args:
            pool: From :meth:`request_pool`.
            preferred: This address and no other. It may lie outside the sub-pool, not outside the subnet.
            mac: MAC address of the interface, for drivers that derive or look up the address from it.
                None for addresses without an interface of a sandbox, such as a gateway.

        Returns:
            The address with the prefix length of the *subnet*, whatever the sub-pool.

        Raises:
            NotFoundError: The pool is not in use.
            InvalidValueError: *preferred* is not an assignable address of the subnet.
            ConflictError: *preferred* is in use.
            ExhaustedError: No address is free.
        """

    def release_address(self, pool: Pool, address: IPAddress) -> None:
        """
        Give an address back; nothing happens when it is free already.

        Raises:
            NotFoundError: The pool is not in use.
            InvalidValueError: The address is not one of the subnet.
        """


@attrs.frozen(kw_only=True)
class Usage:
    """
    How full a pool is, in addresses that can be assigned (reserved ones are not counted).

    Attributes:
        size: All of them.
        taken: Handed out and not released.
        quarantined: Released a moment ago, kept back from reuse for now.
    """

    size: int
    taken: int
    quarantined: int = 0

    @property
    def free(self) -> int:
        """What remains, those in quarantine left out."""
        return self.size - self.taken - self.quarantined


@runtime_checkable
class Metered(Protocol):
    """An IPAM driver that can tell how full a pool is. Optional."""

    def usage(self, pool: Pool) -> Usage:
        """
        Count the addresses of *pool*.

        Raises:
            NotFoundError: The pool is not in use.
        """


@runtime_checkable
class Quarantining(Protocol):
    """An IPAM driver that keeps released addresses back for a while. Optional."""

    @property
    def quarantine(self) -> float:
        """For how many seconds an address is not handed out again after its release; 0 is not at all."""
