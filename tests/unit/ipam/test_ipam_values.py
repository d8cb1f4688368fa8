"""Requests, pools, default pools and the rules about subnets."""

from __future__ import annotations

import pickle
from ipaddress import ip_network
from typing import Any

import netaddr
import pytest

from pynetwork.errors import InvalidValueError
from pynetwork.ipam import (
    DEFAULT_SPACES,
    DefaultIpam,
    DefaultPool,
    IpamDriver,
    Metered,
    NullIpam,
    Pool,
    PoolRequest,
    Quarantining,
    Usage,
)
from pynetwork.ipam.subnets import reserved_offsets


def test_request_takes_text_ipaddress_and_netaddr_values() -> None:
    subnet = ip_network("10.0.0.0/24")
    requests = {
        PoolRequest(subnet=value) for value in ("10.0.0.0/24", subnet, netaddr.IPNetwork("10.0.0.0/24"))
    }
    assert requests == {PoolRequest(subnet=subnet)}


@pytest.mark.parametrize(
    ("subnet", "concrete", "prefixlen", "family"),
    [
        (None, None, None, 4),
        ("10.0.0.0/24", "10.0.0.0/24", None, 4),
        ("0.0.0.0/24", None, 24, 4),
        ("0.0.0.0/32", None, 32, 4),
        ("::/64", None, 64, 6),
        ("fd00::/64", "fd00::/64", None, 6),
        ("0.0.0.0/0", "0.0.0.0/0", None, 4),
        ("::/0", "::/0", None, 6),
    ],
)
def test_request_tells_a_subnet_from_a_size(
    subnet: str | None, concrete: str | None, prefixlen: int | None, family: int
) -> None:
    """A zero network address asks for a size; /0 has no size to choose and is a subnet."""
    request = PoolRequest(subnet=subnet)
    assert request.concrete == (ip_network(concrete) if concrete else None)
    assert request.prefixlen == prefixlen
    assert request.family == family


@pytest.mark.parametrize(
    "junk",
    [
        {"space": ""},
        {"space": "a/b"},
        {"space": None},
        {"space": ["local"]},
        {"subnet": 5},
        {"subnet": b"\n\0\0\0"},
        {"subnet": "10.0.0.1/24"},
        {"subnet": "nonsense"},
        {"subnet": True},
        {"sub_pool": "10.0.0.0/33"},
        {"version": 5},
        {"version": "4"},
        {"version": 4.0},
        {"version": True},
        {"exclude": ["nonsense"]},
        {"exclude": [None]},
    ],
)
def test_junk_in_a_request_is_refused(junk: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="invalid"):
        PoolRequest(**junk)


def test_pool_is_a_value_with_the_identifier_libnetwork_gives_it() -> None:
    whole = Pool(space="local", subnet="10.0.0.0/24")
    part = Pool(space="local", subnet="10.0.0.0/24", sub_pool="10.0.0.128/25")
    assert whole.id == str(whole) == "local/10.0.0.0/24"
    assert part.id == "local/10.0.0.0/24/10.0.0.128/25"
    assert len({whole, part, Pool(space="local", subnet=ip_network("10.0.0.0/24"))}) == 2
    assert pickle.loads(pickle.dumps(part)) == part  # noqa: S301 - our own bytes
    with pytest.raises(AttributeError):
        part.space = "global"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("subnet", "offsets"),
    [
        ("10.0.0.0/8", (0, 2**24 - 1)),
        ("10.0.0.0/30", (0, 3)),
        ("10.0.0.0/31", ()),
        ("10.0.0.0/32", ()),
        ("fd00::/64", (0,)),
        ("fd00::/126", (0,)),
        ("fd00::/127", ()),
        ("fd00::/128", ()),
    ],
)
def test_reserved_addresses_follow_the_rfcs(subnet: str, offsets: tuple[int, ...]) -> None:
    assert reserved_offsets(ip_network(subnet)) == offsets


@pytest.mark.parametrize(
    ("base", "size"),
    [
        ("10.0.0.0/8", 7),
        ("10.0.0.0/8", 33),
        ("fd00::/48", 129),
        ("fd00::/48", 32),
        ("10.0.0.0/8", "24"),
        ("10.0.0.0/8", True),
        ("10.0.0.0/8", None),
        ("127.0.0.0/8", 24),
        ("0.0.0.0/0", 24),
        ("ff00::/8", 64),
        (None, 24),
        ("10.0.0.1/8", 24),
    ],
)
def test_default_pool_that_cannot_work_is_refused(base: Any, size: Any) -> None:
    with pytest.raises(InvalidValueError, match="invalid"):
        DefaultPool(base=base, size=size)


def test_default_pools_are_the_documented_ones_and_read_only() -> None:
    assert {space: [str(pool) for pool in pools] for space, pools in DEFAULT_SPACES.items()} == {
        "local": ["172.16.0.0/12 by /22", "192.168.0.0/16 by /22"],
        "global": ["10.0.0.0/8 by /24"],
    }
    with pytest.raises(TypeError):
        DEFAULT_SPACES["mine"] = ()  # type: ignore[index]


def test_usage_counts_what_remains() -> None:
    assert Usage(size=254, taken=10, quarantined=4).free == 240


def test_drivers_have_the_protocols_they_claim() -> None:
    """Optional abilities are found by isinstance; the assignments are for mypy."""
    drivers: list[IpamDriver] = [DefaultIpam(), NullIpam()]
    assert [driver.name for driver in drivers] == ["default", "null"]
    assert [isinstance(driver, Metered) for driver in drivers] == [True, False]
    assert [isinstance(driver, Quarantining) for driver in drivers] == [True, False]
