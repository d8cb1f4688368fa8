"""What IPAM drivers have handed out, recorded in the store so that every process agrees.

An IPAM driver keeps its state in memory. This table holds the records of pools and addresses and
repeats in the driver what other processes, or earlier ones, requested and released. That nobody
gets an address twice is decided by the store: a record is created only if it is absent.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from pynetwork.engine.codec import encode, loads
from pynetwork.engine.mirror import Known
from pynetwork.errors import PynetworkError, UnknownDriverError
from pynetwork.ipam import Metered, Pool
from pynetwork.log import logger
from pynetwork.store import Delete
from pynetwork.types import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.drivers import Registry
    from pynetwork.engine import Draft
    from pynetwork.ipam import IpamDriver, PoolRequest, Usage
    from pynetwork.store import Put
    from pynetwork.types import IPAddress, IPInterface

__all__ = ["Allocations"]

_PURGE: Final = 4  # old releases dropped along with a new one, so that they never pile up
_NEIGHBOUR_SECONDS: Final = 60.0  # how long a neighbour is remembered (sysctl gc_stale_time)
_Ipams: TypeAlias = "Registry[IpamDriver]"


@attrs.frozen
class _Lease:
    """A recorded address; *freed* is when it was released (seconds since the epoch), None while in use."""

    pool: str
    freed: float | None
    revision: int


@attrs.define
class _Held:
    """A recorded pool and the recorded addresses in it."""

    ipam: str
    pool: Pool | None = None
    leases: dict[str, _Lease] = attrs.field(factory=dict)


class Allocations:
    """
    Tables ``pool`` and ``address``.

    Not locked itself: the mirror's lock is held by whoever calls.

    Args:
        ipams: The IPAM drivers.
        clock: Seconds since the epoch.
    """

    words = ("pool", "address")

    def __init__(self, ipams: _Ipams, clock: Callable[[], float]) -> None:
        self._ipams = ipams
        self._clock = clock
        self._pools: dict[str, _Held] = {}
        self._leases: dict[str, _Lease] = {}
        self._freed: dict[str, float] = {}
        self._ours: set[str] = set()  # requested here, not recorded yet

    # Requests of this process

    def request_pool(self, draft: Draft, ipam: str, request: PoolRequest) -> Pool:
        """Request a pool and have *draft* record it; one lock of all processes guards its space."""
        driver = self._ipams[ipam]
        pool = driver.request_pool(request)
        if not pool.subnet.prefixlen:  # the null driver's: there is nothing in it to agree on
            return pool
        key = _pool_key(ipam, pool)
        self._ours.add(key)
        draft.give_back.append(lambda: self._give_back(key, lambda: driver.release_pool(pool)))
        draft.locks.add(f"pools/{ipam}/{pool.space}")
        draft.reserve(_record(key, {"ipam": ipam, "pool": attrs.asdict(pool, filter=_init_only)}))
        return pool

    def release_pool(self, draft: Draft, ipam: str, pool: Pool) -> None:
        """Have *draft* drop *pool* and all that is left in it when it commits."""
        if not pool.subnet.prefixlen:
            return
        key = _pool_key(ipam, pool)
        held = self._pools.get(key)
        draft.locks.add(f"pools/{ipam}/{pool.space}")
        draft.on_commit += (Delete(lease) for lease in (() if held is None else held.leases))
        draft.on_commit.append(Delete(key))

    def request_address(
        self, draft: Draft, ipam: str, pool: Pool, *, preferred: IPAddress | None, mac: str | None = None
    ) -> IPInterface:
        """Request an address and have *draft* record it."""
        driver = self._ipams[ipam]
        address = driver.request_address(pool, preferred=preferred, mac=mac)
        key = _address_key(ipam, pool.space, address.ip)
        self._ours.add(key)
        draft.give_back.append(lambda: self._give_back(key, lambda: driver.release_address(pool, address.ip)))
        put = _record(key, {"pool": _pool_key(ipam, pool)})
        lease = self._leases.get(key)
        if lease is None or lease.freed is None:
            draft.reserve(put)
        else:  # released before, its record not dropped yet
            draft.rely_on(key, lease.revision)
            draft.operations.append(put)
            draft.on_abort.append(Delete(key))
        return address

    def was_used(self, ipam: str, space: str, address: IPAddress) -> bool:
        """Return whether an address was released so recently that neighbours may remember its old MAC."""
        lease = self._leases.get(_address_key(ipam, space, address))
        return lease is not None and lease.freed is not None

    def release_address(self, draft: Draft, ipam: str, pool: Pool, address: IPAddress) -> None:
        """Have *draft* release *address* when it commits, into quarantine if its driver wants that."""
        key = _address_key(ipam, pool.space, address)
        now = self._clock()
        draft.on_commit.append(_record(key, {"pool": _pool_key(ipam, pool), "freed": now}))
        seconds = max(self._quarantine(ipam), _NEIGHBOUR_SECONDS)
        pending = {operation.key for operation in draft.on_commit}
        draft.on_commit += (Delete(old) for old in self._expired(now, seconds) if old not in pending)

    def usage(self, ipam: str, pool: Pool) -> Usage | None:
        """Return how full *pool* is, None when its driver cannot tell."""
        driver = self._ipams[ipam]
        return driver.usage(pool) if isinstance(driver, Metered) and pool.subnet.prefixlen else None

    def _expired(self, now: float, seconds: float) -> Iterator[str]:
        # Oldest first: records are kept in the order they were freed.
        for _, (key, freed) in zip(range(_PURGE), self._freed.items(), strict=False):
            if freed + seconds < now:
                yield key

    def _give_back(self, key: str, release: Callable[[], None]) -> None:
        # Once recorded, it is released through its record.
        if key in self._ours:
            self._ours.discard(key)
            release()

    # Records, of this process and others

    def put(self, key: str, value: str, revision: int, decoded: object = None) -> None:
        """Take in a record, as a :class:`~pynetwork.engine.mirror.Table` does."""
        fields = decoded if isinstance(decoded, dict) else loads(key, value)
        if key.startswith("pool/"):
            self._put_pool(key, fields)
        else:
            self._put_address(key, fields, revision)

    def _put_pool(self, key: str, fields: dict[str, Any]) -> None:
        held = self._pools.setdefault(key, _Held(fields["ipam"]))
        held.ipam = fields["ipam"]
        if held.pool is not None:
            return
        held.pool = Pool(**fields["pool"])
        if key in self._ours:
            self._ours.discard(key)
            return
        self._repeat(held, lambda driver, pool: driver.request_pool(_as_request(pool)))
        for address_key, lease in held.leases.items():
            self._replay_lease(held, address_key, lease)

    def _put_address(self, key: str, fields: dict[str, Any], revision: int) -> None:
        known = self._leases.get(key)
        lease = _Lease(fields["pool"], fields.get("freed"), revision)
        held = self._pools.setdefault(lease.pool, _Held(""))
        self._leases[key] = held.leases[key] = lease
        self._freed.pop(key, None)
        if lease.freed is not None:
            self._freed[key] = lease.freed
        if key in self._ours:
            self._ours.discard(key)
        elif held.pool is None:
            pass  # its pool's record follows, and repeats it
        elif known is None:
            self._replay_lease(held, key, lease)
        elif known.freed is None and lease.freed is not None:
            self._release(held, key)
        elif known.freed is not None and lease.freed is None:
            self._request(held, key)

    def delete(self, key: str) -> None:
        """Drop a record, and release what it held."""
        if key.startswith("pool/"):
            held = self._pools.pop(key, None)
            if held is not None:
                # Addresses first, in whichever order the records go: a driver may count on it.
                for address_key, holding in held.leases.items():
                    if holding.freed is None:
                        self._release(held, address_key)
                self._repeat(held, lambda driver, pool: driver.release_pool(pool))
            return
        lease = self._leases.pop(key, None)
        self._freed.pop(key, None)
        if lease is not None:
            held = self._pools.get(lease.pool)
            if held is not None:
                held.leases.pop(key, None)
                if lease.freed is None:
                    self._release(held, key)

    def clear(self) -> None:
        """Forget everything, in the drivers too."""
        for key in [*self._leases, *self._pools]:
            self.delete(key)

    def _replay_lease(self, held: _Held, key: str, lease: _Lease) -> None:
        if lease.freed is None:
            self._request(held, key)
        elif lease.freed + self._quarantine(held.ipam) > self._clock():
            self._request(held, key)
            self._release(held, key)  # into quarantine, which begins anew: rather too long than too short

    def _quarantine(self, ipam: str) -> float:
        try:
            return float(getattr(self._ipams[ipam], "quarantine", 0.0))
        except UnknownDriverError:
            return 0.0

    def _request(self, held: _Held, key: str) -> None:
        address = _address_of(key)
        self._repeat(held, lambda driver, pool: driver.request_address(pool, preferred=address))

    def _release(self, held: _Held, key: str) -> None:
        address = _address_of(key)
        self._repeat(held, lambda driver, pool: driver.release_address(pool, address))

    def _repeat(self, held: _Held, call: Callable[[IpamDriver, Pool], object]) -> None:
        """Repeat in the driver what a record says was done."""
        if held.pool is None:
            return
        try:
            call(self._ipams[held.ipam], held.pool)
        except UnknownDriverError:
            pass  # said when somebody wants an address of it
        except PynetworkError as error:
            # The record stands, whatever the driver makes of it: nobody else can get the address.
            logger().warning("IPAM driver %r does not accept what is recorded: %s", held.ipam, error)


def _record(key: str, fields: dict[str, Any]) -> Put:
    return Known(key, encode(fields), decoded=fields)


@functools.lru_cache(maxsize=1024)  # asked for with every address, and text of networks is slow to make
def _pool_key(ipam: str, pool: Pool) -> str:
    return f"pool/{ipam}/{pool.space}/{str(pool.subnet).replace('/', '_')}" + (
        "" if pool.sub_pool is None else f"/{str(pool.sub_pool).replace('/', '_')}"
    )


def _address_key(ipam: str, space: str, address: IPAddress) -> str:
    return f"address/{ipam}/{space}/{address}"


def _address_of(key: str) -> IPAddress:
    return parse_address(key.rpartition("/")[2])


def _as_request(pool: Pool) -> PoolRequest:
    from pynetwork.ipam import PoolRequest

    return PoolRequest(space=pool.space, subnet=pool.subnet, sub_pool=pool.sub_pool)


def _init_only(attribute: attrs.Attribute[Any], value: object) -> bool:
    return attribute.init and value is not None
