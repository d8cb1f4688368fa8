"""The driver without addresses, and the IPv6 prefix of a host."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address
from typing import Any

import pytest

from pynetwork.errors import InvalidValueError, NotFoundError, RequestError
from pynetwork.ipam import NullIpam, Pool, PoolRequest, ula_prefix


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (PoolRequest(), "null/0.0.0.0/0"),
        (PoolRequest(version=6), "null/::/0"),
        (PoolRequest(space="null", subnet="0.0.0.0/0"), "null/0.0.0.0/0"),
        (PoolRequest(space="null", subnet="::/0"), "null/::/0"),
    ],
)
def test_null_pool_can_be_requested_replayed_and_released_again_and_again(
    request_: PoolRequest, expected: str
) -> None:
    ipam = NullIpam()
    pools = [ipam.request_pool(request_) for _ in range(3)]
    assert {pool.id for pool in pools} == {expected}
    for pool in pools:
        ipam.release_pool(pool)


@pytest.mark.parametrize(
    "asked",
    [
        {"subnet": "10.0.0.0/24"},
        {"subnet": "0.0.0.0/24"},
        {"subnet": "0.0.0.0/0", "sub_pool": "10.0.0.0/24"},
        {"sub_pool": "10.0.0.0/24"},
    ],
)
def test_null_driver_has_no_subnets(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="have no subnets"):
        NullIpam().request_pool(PoolRequest(**asked))


def test_null_driver_has_no_addresses_and_no_pools_of_others() -> None:
    ipam = NullIpam()
    pool = ipam.request_pool(PoolRequest())
    with pytest.raises(RequestError, match="have no addresses"):
        ipam.request_address(pool)
    with pytest.raises(RequestError, match=r"reserve address 10\.0\.0\.1 "):
        ipam.request_address(pool, preferred=ip_address("10.0.0.1"), mac="02:00:00:00:00:01")
    with pytest.raises(RequestError, match=r"release address 10\.0\.0\.1 "):
        ipam.release_address(pool, ip_address("10.0.0.1"))
    for other in (Pool(space="local", subnet="0.0.0.0/0"), Pool(space="null", subnet="10.0.0.0/8")):
        with pytest.raises(NotFoundError, match="not in use"):
            ipam.release_pool(other)


def test_ula_prefix_is_locally_assigned_stable_and_differs_by_seed() -> None:
    """RFC 4193: fd, then 40 bits of the hash of the seed; 1000 hosts share none of them."""
    prefixes = [ula_prefix(str(n).encode()) for n in range(1000)]
    assert all(prefix.subnet_of(IPv6Network("fd00::/8")) and prefix.prefixlen == 48 for prefix in prefixes)
    assert len(set(prefixes)) == 1000
    assert ula_prefix(b"host") == ula_prefix(b"host") == IPv6Network("fd5b:3f47:5145::/48")


@pytest.mark.parametrize("seed", [b"", "text", None, 5, bytearray(b"x")])
def test_ula_prefix_without_a_seed_is_refused(seed: Any) -> None:
    with pytest.raises(InvalidValueError, match="seed"):
        ula_prefix(seed)
