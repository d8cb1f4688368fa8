"""Eight threads at one driver: nothing is handed out twice, nothing is lost."""

from __future__ import annotations

import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork.errors import ConflictError
from pynetwork.ipam import DefaultIpam, Policy, PoolRequest
from pynetwork.types import IPInterface

if TYPE_CHECKING:
    from collections.abc import Iterator


THREADS = 8


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    """Let threads interrupt each other 500 times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("policy", Policy)
def test_no_address_is_held_by_two(policy: Policy) -> None:
    """Threads request and release at random through nested pools; at any time holders are distinct."""
    ipam = DefaultIpam(policy=policy, quarantine=0.0005)
    pools = [
        ipam.request_pool(PoolRequest(subnet="10.0.0.0/22", sub_pool=part))
        for part in (None, "10.0.0.0/23", "10.0.1.0/24", "10.0.1.128/25")
    ]
    held = Counter[IPInterface]()

    def work(seed: int) -> list[IPInterface]:
        rng, mine = random.Random(seed), list[IPInterface]()
        for _ in range(200):
            if mine and rng.random() < 0.4:
                gone = mine.pop(rng.randrange(len(mine)))
                held[gone] -= 1
                ipam.release_address(rng.choice(pools), gone)
            else:
                mine.append(ipam.request_address(rng.choice(pools[:2])))
                held[mine[-1]] += 1
                assert held[mine[-1]] == 1
        return mine

    with ThreadPoolExecutor(THREADS) as executor:
        remaining = [address for mine in executor.map(work, range(THREADS)) for address in mine]
    assert len(set(remaining)) == len(remaining) == ipam.usage(pools[0]).taken


def test_one_winner_per_preferred_address() -> None:
    ipam = DefaultIpam()
    pool = ipam.request_pool(PoolRequest(subnet="10.0.0.0/24"))
    wanted: list[Any] = list(pool.subnet.hosts())

    def work(_: int) -> int:
        won = 0
        for address in wanted:
            try:
                ipam.request_address(pool, preferred=address)
            except ConflictError:
                continue
            won += 1
        return won

    with ThreadPoolExecutor(THREADS) as executor:
        assert sum(executor.map(work, range(THREADS))) == len(wanted) == 254


def test_chosen_subnets_are_distinct() -> None:
    ipam = DefaultIpam()

    def work(_: int) -> list[str]:
        return [ipam.request_pool(PoolRequest()).id for _ in range(100)]

    with ThreadPoolExecutor(THREADS) as executor:
        ids = [pool for chosen in executor.map(work, range(THREADS)) for pool in chosen]
    assert len(set(ids)) == len(ids) == 100 * THREADS
