"""In which order addresses are reused: lowest or serial, after a quarantine or at once."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pynetwork.errors import ConflictError, ExhaustedError
from pynetwork.ipam import DefaultIpam, Policy, Pool, PoolRequest, Usage


class Clock:
    """Time that passes when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def last_octet(ipam: DefaultIpam, pool: Pool) -> int:
    return int(ipam.request_address(pool).ip) & 0xFF


def release(ipam: DefaultIpam, pool: Pool, *octets: int) -> None:
    for octet in octets:
        ipam.release_address(pool, pool.subnet.network_address + octet)


def driver(policy: str = "lowest", quarantine: float = 0) -> tuple[DefaultIpam, Pool, Clock]:
    """Return a driver with a pool of six addresses, 1 to 6."""
    clock = Clock()
    ipam = DefaultIpam(policy=Policy(policy), quarantine=quarantine, clock=clock)
    return ipam, ipam.request_pool(PoolRequest(subnet="10.0.0.0/29")), clock


def test_lowest_takes_the_lowest_free() -> None:
    ipam, pool, _ = driver("lowest")
    assert [last_octet(ipam, pool) for _ in range(4)] == [1, 2, 3, 4]
    release(ipam, pool, 3, 1)
    assert [last_octet(ipam, pool) for _ in range(3)] == [1, 3, 5]


def test_serial_goes_on_behind_the_last_one_and_wraps() -> None:
    ipam, pool, _ = driver("serial")
    assert [last_octet(ipam, pool) for _ in range(4)] == [1, 2, 3, 4]
    release(ipam, pool, 1, 3)
    assert [last_octet(ipam, pool) for _ in range(4)] == [5, 6, 1, 3]
    release(ipam, pool, 2, 5)
    assert [last_octet(ipam, pool) for _ in range(2)] == [5, 2]
    with pytest.raises(ExhaustedError):
        ipam.request_address(pool)


def test_serial_accepts_its_name_as_text() -> None:
    ipam = DefaultIpam(policy="serial", quarantine=0)  # type: ignore[arg-type]
    pool = ipam.request_pool(PoolRequest(subnet="10.0.0.0/29"))
    first = ipam.request_address(pool)
    ipam.release_address(pool, first.ip)
    assert ipam.request_address(pool) != first


def test_serial_is_not_moved_by_addresses_asked_for_by_value() -> None:
    ipam, pool, _ = driver("serial")
    assert last_octet(ipam, pool) == 1
    ipam.request_address(pool, preferred=ip_address("10.0.0.4"))
    assert [last_octet(ipam, pool) for _ in range(2)] == [2, 3]


def test_serial_walks_each_sub_pool_by_itself() -> None:
    ipam, _, _ = driver("serial")
    parts = [
        ipam.request_pool(PoolRequest(subnet="10.0.0.0/29", sub_pool=part))
        for part in ("10.0.0.0/30", "10.0.0.4/30")
    ]
    for part, octets in zip(parts, [(1, 2, 3), (4, 5, 6)], strict=True):
        assert [last_octet(ipam, part) for _ in octets] == list(octets)
    for part, octet in zip(parts, [2, 5], strict=True):
        release(ipam, part, octet)
        assert last_octet(ipam, part) == octet


@pytest.mark.parametrize("policy", ["lowest", "serial"])
def test_quarantine_keeps_a_released_address_back_until_its_time(policy: str) -> None:
    ipam, pool, clock = driver(policy, quarantine=5)
    assert [last_octet(ipam, pool) for _ in range(3)] == [1, 2, 3]
    release(ipam, pool, 2)
    assert ipam.usage(pool) == Usage(size=6, taken=2, quarantined=1)
    assert ipam.usage(pool).free == 3
    clock.now += 4.99
    assert last_octet(ipam, pool) == 4
    clock.now += 0.01
    assert ipam.usage(pool) == Usage(size=6, taken=3)
    assert [last_octet(ipam, pool) for _ in range(3)] == ([2, 5, 6] if policy == "lowest" else [5, 6, 2])


def test_quarantine_is_soft_and_gives_the_longest_rested_first() -> None:
    """Rather a stale neighbour entry than a container refused while addresses lie idle."""
    ipam, pool, clock = driver(quarantine=60)
    assert [last_octet(ipam, pool) for _ in range(5)] == [1, 2, 3, 4, 5]
    for octet in (4, 2, 5):
        release(ipam, pool, octet)
        clock.now += 1
    assert [last_octet(ipam, pool) for _ in range(4)] == [6, 4, 2, 5]
    with pytest.raises(ExhaustedError, match="all 6 are taken"):
        ipam.request_address(pool)


def test_soft_quarantine_serves_a_sub_pool_from_its_own_part_only() -> None:
    ipam, whole, _ = driver(quarantine=60)
    part = ipam.request_pool(PoolRequest(subnet="10.0.0.0/29", sub_pool="10.0.0.4/30"))
    assert [last_octet(ipam, whole) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    release(ipam, whole, 1, 2, 6)
    assert ipam.usage(part) == Usage(size=3, taken=2, quarantined=1)
    assert last_octet(ipam, part) == 6
    with pytest.raises(ExhaustedError):
        ipam.request_address(part)
    assert ipam.usage(whole).quarantined == 2


def test_preferred_address_is_given_out_of_quarantine_at_once_and_taken_from_then_on() -> None:
    ipam, pool, clock = driver(quarantine=5)
    assert last_octet(ipam, pool) == 1
    release(ipam, pool, 1)
    assert str(ipam.request_address(pool, preferred=ip_address("10.0.0.1"))) == "10.0.0.1/29"
    clock.now += 10  # its old quarantine must not free it now
    assert last_octet(ipam, pool) == 2
    with pytest.raises(ConflictError):
        ipam.request_address(pool, preferred=ip_address("10.0.0.1"))


def test_releasing_twice_does_not_prolong_the_quarantine() -> None:
    ipam, pool, clock = driver(quarantine=5)
    assert last_octet(ipam, pool) == 1
    release(ipam, pool, 1)
    clock.now += 4
    release(ipam, pool, 1)
    clock.now += 1
    assert last_octet(ipam, pool) == 1


def test_endless_quarantine_still_serves_when_nothing_else_is_free() -> None:
    ipam = DefaultIpam(quarantine=float("inf"))
    pool = ipam.request_pool(PoolRequest(subnet="10.0.0.1/32"))
    for _ in range(3):
        ipam.release_address(pool, ipam.request_address(pool).ip)
    assert ipam.usage(pool) == Usage(size=1, taken=0, quarantined=1)


def test_quarantine_is_forgotten_with_the_pool() -> None:
    ipam, pool, _ = driver(quarantine=60)
    release(ipam, pool, last_octet(ipam, pool))
    ipam.release_pool(pool)
    again = ipam.request_pool(PoolRequest(subnet=pool.subnet))
    assert last_octet(ipam, again) == 1


def test_driver_tells_its_quarantine_which_is_a_second_by_default() -> None:
    assert DefaultIpam().quarantine == 1.0
    assert DefaultIpam(quarantine=0).quarantine == 0
