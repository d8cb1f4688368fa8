"""The subnet index agrees with comparing every pair, and finds gaps without walking through what is used."""

from __future__ import annotations

import itertools
import random
from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pynetwork.errors import ConflictError, InvalidValueError, NotFoundError
from pynetwork.ipam import SubnetIndex, index

if TYPE_CHECKING:
    from collections.abc import Sequence


from pynetwork.types import IPNetwork

BASE = ip_network("10.0.0.0/24")


def networks(version: int = 4) -> st.SearchStrategy[IPNetwork]:
    """Subnets of a range of 256 addresses, of every size."""
    first = int(ip_network("10.0.0.0/24" if version == 4 else "fd00::/120").network_address)
    length = 32 if version == 4 else 128
    return st.builds(
        lambda offset, bits: ip_network((first + (offset >> bits << bits), length - bits)),
        st.integers(0, 255),
        st.integers(0, 8),
    )


def index_of(*subnets: str) -> SubnetIndex:
    found = SubnetIndex("local")
    for subnet in subnets:
        found.add(ip_network(subnet))
    return found


def naive_gap(
    used: Sequence[IPNetwork], base: IPNetwork, prefixlen: int, exclude: Sequence[IPNetwork]
) -> IPNetwork | None:
    for candidate in base.subnets(new_prefix=prefixlen):
        if not any(candidate.overlaps(other) for other in (*used, *exclude)):
            return candidate
    return None


@settings(max_examples=150, deadline=None)
@given(
    additions=st.lists(st.one_of(networks(4), networks(6)), max_size=25),
    removals=st.lists(st.integers(0, 24), max_size=10),
    asked=st.one_of(networks(4), networks(6)),
    exclude=st.lists(st.one_of(networks(4), networks(6)), max_size=4),
)
def test_index_agrees_with_comparing_every_pair(
    additions: list[IPNetwork], removals: list[int], asked: IPNetwork, exclude: list[IPNetwork]
) -> None:
    """After any additions and removals: the same subnets, overlaps and gaps as a scan of a list."""
    found, used = SubnetIndex("local"), list[IPNetwork]()
    for subnet in additions:
        if any(subnet.overlaps(other) for other in used):
            with pytest.raises(ConflictError):
                found.add(subnet)
        else:
            found.add(subnet)
            used.append(subnet)
    for at in removals:
        if at < len(used):
            found.remove(used.pop(at))
    used.sort(key=lambda subnet: (subnet.version, subnet.network_address))
    assert list(found) == used
    assert len(found) == len(used)
    assert found.overlapping(asked) == next((other for other in used if other.overlaps(asked)), None)
    family = [subnet for subnet in (*used, *exclude) if subnet.version == 4]
    for prefixlen in (24, 26, 29, 32):
        expected = naive_gap(family, BASE, prefixlen, [])
        assert found.lowest_gap(BASE, prefixlen, exclude) == expected


@settings(max_examples=100, deadline=None)
@given(intervals=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=20))
def test_runs_stay_maximal_and_cover_what_was_added(intervals: list[tuple[int, int]]) -> None:
    """Overlapping and touching intervals merge; between two runs there is always a gap."""
    runs, covered = index._Runs(), set[int]()
    for start, length in intervals:
        runs.add(start, start + length)
        covered |= set(range(start, start + length))
    pairs = list(zip(runs.starts, runs.stops, strict=True))
    assert {n for start, stop in pairs for n in range(start, stop)} == covered
    assert all(stop < following for (_, stop), (following, _) in itertools.pairwise(pairs))


def test_message_names_the_subnet_in_the_way_and_the_space() -> None:
    found = index_of("10.0.0.0/16")
    with pytest.raises(ConflictError) as caught:
        found.add(ip_network("10.0.1.0/24"))
    expected = "subnet 10.0.1.0/24 overlaps 10.0.0.0/16, which is in use in address space 'local'"
    assert str(caught.value) == expected


def test_larger_subnet_is_refused_for_any_smaller_one_inside() -> None:
    found = index_of("10.0.9.0/24", "10.0.3.0/24", "11.0.0.0/24")
    assert found.overlapping(ip_network("10.0.0.0/16")) == ip_network("10.0.3.0/24")
    with pytest.raises(ConflictError, match=r"overlaps 10\.0\.3\.0/24"):
        found.add(ip_network("10.0.0.0/8"))


def test_families_with_equal_integers_do_not_meet() -> None:
    """::a00:0/120 and 10.0.0.0/24 begin at the same integer; neither is in the other's way."""
    found = index_of("10.0.0.0/24", "::a00:0/120")
    assert found.lowest_gap(BASE, 24) is None
    found.remove(ip_network("10.0.0.0/24"))
    assert found.lowest_gap(BASE, 24) == BASE
    assert [str(subnet) for subnet in found] == ["::a00:0/120"]


@pytest.mark.parametrize("subnet", ["10.0.1.0/24", "10.0.0.0/25", "10.0.0.0/23", "fd00::/64"])
def test_removing_what_is_not_in_use_is_an_error(subnet: str) -> None:
    found = index_of("10.0.0.0/24")
    with pytest.raises(NotFoundError, match="is not in use"):
        found.remove(ip_network(subnet))
    assert len(found) == 1


@pytest.mark.parametrize("prefixlen", [7, 33, 0, -1])
def test_size_that_never_fits_is_refused(prefixlen: int) -> None:
    with pytest.raises(InvalidValueError, match="invalid prefix length"):
        index_of().lowest_gap(ip_network("10.0.0.0/8"), prefixlen)


def test_whole_address_range_works_at_both_ends() -> None:
    """No overflow at 255.255.255.255 or at the last IPv6 address."""
    found = index_of("255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")
    everything = ip_network("0.0.0.0/0")
    assert found.lowest_gap(everything, 1) == ip_network("0.0.0.0/1")
    assert found.lowest_gap(everything, 1, [ip_network("1.0.0.0/8")]) is None
    assert found.overlapping(ip_network("::/0")) is not None
    assert found.lowest_gap(ip_network("::/0"), 2, [ip_network("::/1")]) == ip_network("8000::/2")


def test_search_does_not_walk_through_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20 000 subnets side by side the gap behind them is found in three steps, not 20 000."""
    found = SubnetIndex("local")
    subnets = list(IPv4Network("10.0.0.0/8").subnets(new_prefix=24))[:20_000]
    random.Random(0).shuffle(subnets)
    for subnet in subnets:
        found.add(subnet)
    steps = 0
    search = index._Runs.end_of_overlap

    def counted(runs: index._Runs, start: int, stop: int) -> int:
        nonlocal steps
        steps += 1
        return search(runs, start, stop)

    monkeypatch.setattr(index._Runs, "end_of_overlap", counted)
    assert str(found.lowest_gap(ip_network("10.0.0.0/8"), 24)) == "10.78.32.0/24"
    assert steps <= 6
