"""The default driver: what it chooses, refuses, shares and forgets."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork.errors import ConflictError, ExhaustedError, InvalidValueError, NotFoundError
from pynetwork.ipam import DefaultIpam, DefaultPool, Pool, PoolRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {"local": [DefaultPool(base="10.0.0.0/30", size=31)]}
ULA = IPv6Network("fd12:3456:789a::/48")


def pool_of(ipam: DefaultIpam, subnet: str | None = None, sub_pool: str | None = None, **more: Any) -> Pool:
    return ipam.request_pool(PoolRequest(subnet=subnet, sub_pool=sub_pool, **more))


def take_all(ipam: DefaultIpam, pool: Pool) -> list[str]:
    taken = []
    while True:
        try:
            taken.append(str(ipam.request_address(pool)))
        except ExhaustedError:
            return taken


# -- pools ------------------------------------------------------------------------------------------


def test_chosen_subnets_are_the_lowest_free_of_the_bases_in_order() -> None:
    ipam = DefaultIpam()
    first, second = pool_of(ipam), pool_of(ipam)
    assert [first.id, second.id] == ["local/172.16.0.0/22", "local/172.16.4.0/22"]
    ipam.release_pool(first)
    assert pool_of(ipam) == first
    assert pool_of(ipam, space="global").id == "global/10.0.0.0/24"


def test_all_1088_default_networks_fit_and_the_next_error_says_what_to_do() -> None:
    ipam = DefaultIpam()
    ids = [pool_of(ipam).id for _ in range(1088)]
    assert len(set(ids)) == 1088
    assert ids[1024] == "local/192.168.0.0/22"
    with pytest.raises(
        ExhaustedError, match=r"^all default address pools of space 'local' are in use \("
    ) as caught:
        pool_of(ipam)
    assert "172.16.0.0/12 by /22, 192.168.0.0/16 by /22" in str(caught.value)
    assert "delete a network" in str(caught.value)


def test_chosen_subnet_avoids_pools_and_excluded_ranges_of_any_size_and_family() -> None:
    ipam = DefaultIpam()
    pool_of(ipam, "172.16.0.64/28")
    exclude = ["172.16.4.9/32", "172.16.8.0/21", "172.16.0.0/20", "fd00::/8", "10.0.0.0/8"]
    assert pool_of(ipam, exclude=exclude).id == "local/172.16.16.0/22"
    with pytest.raises(ExhaustedError, match="1 ranges excluded"):
        pool_of(ipam, exclude=["0.0.0.0/0"])


def test_subnet_asked_for_is_not_compared_with_excluded_ranges() -> None:
    assert pool_of(DefaultIpam(), "10.0.0.0/24", exclude=["10.0.0.0/8"]).id == "local/10.0.0.0/24"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("0.0.0.0/12", "172.16.0.0/12"),
        ("0.0.0.0/16", "172.16.0.0/16"),
        ("0.0.0.0/29", "172.16.0.0/29"),
        ("0.0.0.0/32", "172.16.0.0/32"),
        ("::/48", "fd12:3456:789a::/48"),
        ("::/120", "fd12:3456:789a::/120"),
    ],
)
def test_size_only_request_carves_that_size_from_a_base_large_enough(size: str, expected: str) -> None:
    assert str(pool_of(DefaultIpam(ula=ULA), size).subnet) == expected


def test_size_only_request_fills_the_gaps_between_others() -> None:
    ipam = DefaultIpam()
    pool_of(ipam, "172.16.0.0/25")
    pool_of(ipam, "172.16.1.0/24")
    chosen = [str(pool_of(ipam, size).subnet) for size in ("0.0.0.0/24", "0.0.0.0/25", "0.0.0.0/26")]
    assert chosen == ["172.16.2.0/24", "172.16.0.128/25", "172.16.3.0/26"]


@pytest.mark.parametrize(
    "request_",
    [
        PoolRequest(subnet="0.0.0.0/8"),
        PoolRequest(version=6),
        PoolRequest(subnet="::/64"),
        PoolRequest(version=6, space="global"),
    ],
)
def test_request_that_no_default_pool_can_ever_serve_says_what_to_give(request_: PoolRequest) -> None:
    with pytest.raises(InvalidValueError, match="ask for a concrete subnet, or give the IPAM driver spaces="):
        DefaultIpam().request_pool(request_)


def test_ula_serves_the_local_space_only() -> None:
    """The prefix of one host is nothing a cluster-wide space may use."""
    ipam = DefaultIpam(ula=ULA)
    assert [str(pool_of(ipam, version=6).subnet) for _ in range(2)] == [
        "fd12:3456:789a::/64",
        "fd12:3456:789a:1::/64",
    ]
    with pytest.raises(InvalidValueError, match="IPv6"):
        pool_of(ipam, version=6, space="global")


def test_spaces_are_independent_and_unknown_ones_refused() -> None:
    ipam = DefaultIpam()
    assert ipam.spaces == ("local", "global")
    pools = [pool_of(ipam, "10.0.0.0/24", space=space) for space in ipam.spaces]
    assert [str(ipam.request_address(pool)) for pool in pools] == ["10.0.0.1/24"] * 2
    with pytest.raises(
        InvalidValueError, match=r"^unknown address space 'lokal': there is 'local', 'global'$"
    ):
        pool_of(ipam, space="lokal")


def test_caller_names_spaces_of_his_own() -> None:
    ipam = DefaultIpam(spaces={"lab": [], **SMALL})
    assert ipam.spaces == ("lab", "local")
    assert pool_of(ipam, "10.0.0.0/24", space="lab").id == "lab/10.0.0.0/24"
    with pytest.raises(InvalidValueError, match="no default pool"):
        pool_of(ipam, space="lab")


@pytest.mark.parametrize("second", ["10.0.0.0/16", "10.0.1.128/25", "10.0.0.0/8", "10.0.1.254/32"])
@pytest.mark.parametrize("sub_pool", [None, "10.0.1.254/32"])
def test_overlap_is_always_refused_also_with_sub_pools(second: str, sub_pool: str | None) -> None:
    """Libnetwork compares only requests without a sub-pool (moby#46756); here there is no way around."""
    ipam = DefaultIpam()
    pool_of(ipam, "10.0.1.0/24", "10.0.1.0/28")
    with pytest.raises(
        ConflictError, match=r"overlaps 10\.0\.1\.0/24, which is in use in address space 'local'"
    ):
        pool_of(ipam, second, sub_pool)
    assert pool_of(ipam, "10.0.2.0/24").id == "local/10.0.2.0/24"


def test_same_pool_twice_is_a_conflict_but_sub_pools_share_a_subnet() -> None:
    ipam = DefaultIpam()
    for sub_pool in (None, "10.0.0.0/25", "10.0.0.128/25", "10.0.0.0/26", "10.0.0.0/24"):
        pool_of(ipam, "10.0.0.0/24", sub_pool)
        with pytest.raises(ConflictError, match=r"^pool local/10\.0\.0\.0/24.* is already in use$"):
            pool_of(ipam, "10.0.0.0/24", sub_pool)


@pytest.mark.parametrize(
    ("subnet", "sub_pool"),
    [
        ("10.0.0.0/24", "10.0.1.0/25"),
        ("10.0.0.0/24", "10.0.0.0/23"),
        ("10.0.0.0/24", "fd00::/120"),
        ("fd00::/64", "fd00:0:0:1::/80"),
        ("::a00:0/120", "10.0.0.0/28"),
        (None, "10.0.0.0/25"),
        ("0.0.0.0/24", "172.16.0.0/28"),
        ("10.0.0.0/24", "10.0.0.0/32"),
        ("10.0.0.0/24", "10.0.0.255/32"),
        ("fd00::/64", "fd00::/128"),
    ],
)
def test_sub_pool_without_a_usable_place_in_its_subnet_is_refused(subnet: str | None, sub_pool: str) -> None:
    ipam = DefaultIpam()
    with pytest.raises(InvalidValueError, match="invalid sub-pool"):
        pool_of(ipam, subnet, sub_pool)
    pool_of(ipam, "10.0.0.0/8")  # nothing was put in use


@pytest.mark.parametrize(
    "subnet",
    [
        "0.0.0.0/0",
        "::/0",
        "0.1.0.0/16",
        "127.0.0.0/8",
        "127.1.0.0/16",
        "126.0.0.0/7",
        "224.0.0.0/24",
        "239.1.0.0/16",
        "128.0.0.0/1",
        "255.255.255.255/32",
        "::1/128",
        "8000::/1",
        "ff02::/64",
        "fe80::/10",
        "fe80::/63",
        "fe80::/65",
        "fe80:0:0:1::/64",
    ],
)
def test_subnet_no_network_can_use_is_refused(subnet: str) -> None:
    with pytest.raises(InvalidValueError, match="invalid subnet"):
        pool_of(DefaultIpam(), subnet)


@pytest.mark.parametrize(
    "subnet", ["fe80::/64", "169.254.0.0/16", "240.0.0.0/8", "100.64.0.0/10", "2000::/3"]
)
def test_unusual_subnet_that_works_is_accepted(subnet: str) -> None:
    ipam = DefaultIpam()
    address = ipam.request_address(pool_of(ipam, subnet))
    assert address.network == ip_network(subnet)
    assert int(address.ip) == int(ip_network(subnet).network_address) + 1


def test_replay_restores_pools_and_addresses_in_any_order() -> None:
    """What a restarted controller does: the values it has on record, rebuilt from text."""
    ipam = DefaultIpam(ula=ULA)
    pools = [pool_of(ipam), pool_of(ipam, version=6), pool_of(ipam, "10.0.0.0/24", "10.0.0.64/26")]
    held = [(pool, ipam.request_address(pool)) for pool in pools for _ in range(3)]
    fresh = DefaultIpam(ula=ULA)
    for pool in reversed(pools):
        again = PoolRequest(space=pool.space, subnet=str(pool.subnet), sub_pool=pool.sub_pool)
        assert fresh.request_pool(again) == pool
    for pool, address in reversed(held):
        rebuilt = Pool(space=pool.space, subnet=str(pool.subnet), sub_pool=pool.sub_pool)
        assert fresh.request_address(rebuilt, preferred=address.ip) == address
    assert [ipam.request_address(pool) for pool in pools] == [fresh.request_address(pool) for pool in pools]


def test_released_pool_is_unknown_and_its_addresses_forgotten_with_the_last_of_the_subnet() -> None:
    ipam = DefaultIpam()
    low = pool_of(ipam, "10.0.0.0/24", "10.0.0.0/25")
    high = pool_of(ipam, "10.0.0.0/24", "10.0.0.128/25")
    address = ipam.request_address(low)
    ipam.release_pool(low)
    with pytest.raises(NotFoundError, match=r"^pool local/10\.0\.0\.0/24/10\.0\.0\.0/25 is not in use$"):
        ipam.release_pool(low)
    with pytest.raises(ConflictError, match=r"^address 10\.0\.0\.1 is already in use"):
        ipam.request_address(high, preferred=address.ip)
    with pytest.raises(ConflictError, match="overlaps"):
        pool_of(ipam, "10.0.0.0/23")
    ipam.release_pool(high)
    assert ipam.request_address(pool_of(ipam, "10.0.0.0/23")) == ip_interface("10.0.0.1/23")


def _swapped(release: Callable[..., None], address: object, pool: object) -> None:
    release(pool, address)


def test_calls_for_a_pool_that_is_not_in_use_are_errors() -> None:
    ipam = DefaultIpam()
    pool_of(ipam, "10.0.0.0/24")
    address = ip_address("10.0.0.1")
    for other in (
        Pool(space="local", subnet="10.0.0.0/25"),
        Pool(space="none", subnet="10.0.0.0/24"),
        "junk",
    ):
        assert isinstance(other, Pool | str)
        for call in (
            ipam.request_address,
            partial(_swapped, ipam.release_address, address),
            ipam.release_pool,
            ipam.usage,
        ):
            with pytest.raises(NotFoundError, match="is not in use"):
                call(other)  # type: ignore[arg-type]  # junk on purpose


# -- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "sub_pool", "expected"),
    [
        ("10.0.0.0/29", None, [f"10.0.0.{n}/29" for n in range(1, 7)]),
        ("10.0.0.0/30", None, ["10.0.0.1/30", "10.0.0.2/30"]),
        ("10.0.0.0/31", None, ["10.0.0.0/31", "10.0.0.1/31"]),
        ("10.0.0.9/32", None, ["10.0.0.9/32"]),
        ("fd00::/126", None, ["fd00::1/126", "fd00::2/126", "fd00::3/126"]),
        ("fd00::/127", None, ["fd00::/127", "fd00::1/127"]),
        ("fd00::/128", None, ["fd00::/128"]),
        ("10.0.0.0/24", "10.0.0.0/30", ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]),
        ("10.0.0.0/24", "10.0.0.64/30", [f"10.0.0.{n}/24" for n in range(64, 68)]),
        ("10.0.0.0/24", "10.0.0.252/30", ["10.0.0.252/24", "10.0.0.253/24", "10.0.0.254/24"]),
        ("fd00::/64", "fd00::ffff:ffff:ffff:fffe/127", [f"fd00::ffff:ffff:ffff:fff{c}/64" for c in "ef"]),
        ("fd00::/64", "fd00::/126", ["fd00::1/64", "fd00::2/64", "fd00::3/64"]),
    ],
)
def test_every_usable_address_is_given_once(subnet: str, sub_pool: str | None, expected: list[str]) -> None:
    """Reserved are only those of the subnet; the edges of a sub-pool are addresses like others."""
    ipam = DefaultIpam()
    pool = pool_of(ipam, subnet, sub_pool)
    assert ipam.usage(pool) == Usage(size=len(expected), taken=0)
    assert take_all(ipam, pool) == expected
    assert ipam.usage(pool) == Usage(size=len(expected), taken=len(expected))


def test_results_are_interfaces_of_their_family() -> None:
    ipam = DefaultIpam(ula=ULA)
    assert type(ipam.request_address(pool_of(ipam))) is IPv4Interface
    assert type(ipam.request_address(pool_of(ipam, version=6))) is IPv6Interface


def test_exhaustion_names_pool_and_size_and_says_what_to_do() -> None:
    ipam = DefaultIpam()
    whole, part = pool_of(ipam, "10.0.0.0/29"), pool_of(ipam, "10.0.0.0/29", "10.0.0.4/30")
    take_all(ipam, part)
    with pytest.raises(ExhaustedError) as caught:
        ipam.request_address(part)
    assert str(caught.value) == (
        "no free address in sub-pool 10.0.0.4/30 of subnet 10.0.0.0/29 (address space 'local'): "
        "all 3 are taken; delete endpoints, or use a larger subnet or sub-pool"
    )
    take_all(ipam, whole)
    with pytest.raises(ExhaustedError, match=r"in subnet 10\.0\.0\.0/29 .*all 6 are taken; delete endpoints"):
        ipam.request_address(whole)


@pytest.mark.parametrize(
    ("preferred", "problem"),
    [
        ("10.0.1.1", "outside"),
        ("9.255.255.255", "outside"),
        ("fd00::1", "outside"),
        ("::a00:5", "outside"),
        ("10.0.0.0", "reserved"),
        ("10.0.0.255", "reserved"),
    ],
)
def test_address_that_cannot_be_assigned_is_refused_by_request_and_release(
    preferred: str, problem: str
) -> None:
    """::a00:5 is the integer of 10.0.0.5: families are compared, not only numbers."""
    ipam = DefaultIpam()
    pool = pool_of(ipam, "10.0.0.0/24", "10.0.0.128/25")
    with pytest.raises(InvalidValueError, match=rf"invalid address {preferred}: it is {problem}"):
        ipam.request_address(pool, preferred=ip_address(preferred))
    with pytest.raises(InvalidValueError, match=rf"invalid address {preferred}: it is {problem}"):
        ipam.release_address(pool, ip_address(preferred))


def test_anycast_of_ipv6_is_reserved_and_the_last_address_is_not() -> None:
    ipam = DefaultIpam()
    pool = pool_of(ipam, "fd00::/64")
    with pytest.raises(InvalidValueError, match="reserved"):
        ipam.request_address(pool, preferred=ip_address("fd00::"))
    last = ip_address("fd00::ffff:ffff:ffff:ffff")
    assert ipam.request_address(pool, preferred=last).ip == last


def test_preferred_address_may_lie_outside_the_sub_pool_and_is_held_against_all_pools() -> None:
    ipam = DefaultIpam()
    part, whole = pool_of(ipam, "10.0.0.0/24", "10.0.0.128/25"), pool_of(ipam, "10.0.0.0/24")
    gateway = ip_address("10.0.0.1")
    assert ipam.request_address(part, preferred=gateway) == ip_interface("10.0.0.1/24")
    for pool in (part, whole):
        with pytest.raises(ConflictError, match=r"^address 10\.0\.0\.1 is already in use"):
            ipam.request_address(pool, preferred=gateway)
    assert ipam.request_address(whole) == ip_interface("10.0.0.2/24")
    assert ipam.usage(part).taken == 0
    assert ipam.usage(whole).taken == 2


@pytest.mark.parametrize("junk", ["nonsense", "10.0.0.5/24", 5, 167772165, b"\n\0\0\5", [], True, object()])
def test_junk_for_an_address_is_refused(junk: Any) -> None:
    ipam = DefaultIpam()
    pool = pool_of(ipam, "10.0.0.0/24")
    with pytest.raises(InvalidValueError, match="invalid address"):
        ipam.request_address(pool, preferred=junk)
    with pytest.raises(InvalidValueError, match="invalid address"):
        ipam.release_address(pool, junk)


def test_released_address_is_free_again_and_releasing_twice_is_harmless() -> None:
    ipam = DefaultIpam(quarantine=0)
    pool = pool_of(ipam, "10.0.0.0/24")
    first, second = ipam.request_address(pool), ipam.request_address(pool)
    for _ in range(2):
        ipam.release_address(pool, first.ip)
    ipam.release_address(pool, ip_address("10.0.0.77"))
    assert ipam.usage(pool).taken == 1
    assert ipam.request_address(pool) == first
    ipam.release_address(pool, second)  # as it came, an interface, is good too
    assert ipam.usage(pool).taken == 1


def test_huge_subnet_is_no_harder_than_a_small_one() -> None:
    ipam = DefaultIpam()
    pool = pool_of(ipam, "2000::/3")
    middle = ip_address("3000::")
    ipam.request_address(pool, preferred=middle)
    assert str(ipam.request_address(pool)) == "2000::1/3"
    assert ipam.usage(pool) == Usage(size=2**125 - 1, taken=2)
    part = pool_of(ipam, "2000::/3", "3000::/4")
    assert str(ipam.request_address(part)) == "3000::1/3"
    assert ipam.usage(part) == Usage(size=2**124, taken=2)


# -- construction -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        {"policy": "random"},
        {"policy": None},
        {"quarantine": -1},
        {"quarantine": float("nan")},
        {"quarantine": "1"},
        {"quarantine": True},
        {"ula": "10.0.0.0/8"},
        {"ula": "nonsense"},
        {"ula": IPv6Network("fd00::/65")},
        {"ula": IPv6Network("fd00::/48"), "spaces": {"lab": []}},
        {"spaces": {"local": ["10.0.0.0/8"]}},
    ],
)
def test_junk_for_the_driver_is_refused_at_once(junk: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        DefaultIpam(**junk)
