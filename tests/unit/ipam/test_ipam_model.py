"""The default driver against a model so naive that it can be read: sets of addresses, searched in order.

Subnets nest and touch, sub-pools overlap, and time is told, so that a few dozen steps meet every rule.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pynetwork.errors import ConflictError, ExhaustedError, InvalidValueError, PynetworkError
from pynetwork.ipam import DefaultIpam, DefaultPool, Policy, Pool, PoolRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pynetwork.types import IPAddress, IPInterface, IPNetwork

BASE = ip_network("10.0.0.0/27")
SUBNETS = [
    *("10.0.0.0/28", "10.0.0.16/28", "10.0.0.0/27", "10.0.0.8/29", "10.0.0.4/31", "10.0.0.31/32"),
    *("fd00::/124", "fd00::10/127", "fd00::/123", "::a00:0/124"),
]


@attrs.define
class Subnet:
    """Who holds what, and who is resting until when, in the order of release."""

    network: IPNetwork
    taken: set[IPAddress] = attrs.Factory(set)
    resting: dict[IPAddress, float] = attrs.Factory(dict)

    def usable(self, part: IPNetwork) -> list[IPAddress]:
        """List the addresses of *part* that can be assigned, in order."""
        reserved: set[IPAddress] = set()
        if self.network.num_addresses > 2:
            reserved.add(self.network[0])
            if self.network.version == 4:
                reserved.add(self.network[-1])
        return [address for address in part if address not in reserved]


class Model(RuleBasedStateMachine):
    """Each rule does the same to the driver and to the model, and compares what came out."""

    @initialize(policy=st.sampled_from(Policy), quarantine=st.sampled_from([0, 3, 1000]))
    def new(self, policy: Policy, quarantine: int) -> None:
        self.now = 0.0
        self.policy, self.quarantine = policy, quarantine
        self.subnets: dict[IPNetwork, Subnet] = {}
        self.cursors: dict[Pool, int] = {}  # pools in use, and where each goes on
        self.ipam = DefaultIpam(
            spaces={"local": [DefaultPool(base=BASE, size=29)]},
            policy=policy,
            quarantine=quarantine,
            clock=lambda: self.now,
        )

    def part(self, pool: Pool) -> list[IPAddress]:
        return self.subnets[pool.subnet].usable(pool.sub_pool or pool.subnet)

    # -- pools --------------------------------------------------------------------------------------

    @rule(subnet=st.sampled_from(SUBNETS), data=st.data())
    def request_pool(self, subnet: str, data: st.DataObject) -> None:
        """Any subnet, whole or with a part of it, of any size, edges included."""
        network: IPNetwork = ip_network(subnet)
        prefixlen = data.draw(st.integers(network.prefixlen, network.max_prefixlen))
        parts = list(network.subnets(new_prefix=prefixlen))
        sub_pool: Any = data.draw(st.one_of(st.none(), st.sampled_from(parts)))
        pool = Pool(space="local", subnet=network, sub_pool=sub_pool)
        found = outcome(lambda: self.ipam.request_pool(PoolRequest(subnet=network, sub_pool=sub_pool)))
        if not Subnet(network).usable(sub_pool or network):
            assert found is InvalidValueError
        elif pool in self.cursors or any(network != o and network.overlaps(o) for o in self.subnets):
            assert found is ConflictError
        else:
            assert found == pool
            self.opened(pool)

    @rule(
        prefixlen=st.sampled_from([None, 27, 28, 29, 30, 31, 32]), excluded=st.sampled_from([*SUBNETS, None])
    )
    def choose_pool(self, prefixlen: int | None, excluded: str | None) -> None:
        """A size, or nothing at all; perhaps a range to avoid."""
        avoid = [ip_network(excluded)] if excluded else []
        size = None if prefixlen is None else ip_network(("0.0.0.0", prefixlen))
        found = outcome(lambda: self.ipam.request_pool(PoolRequest(subnet=size, exclude=avoid)))
        expected = next(
            (
                network
                for network in BASE.subnets(new_prefix=prefixlen or 29)
                if not any(network.overlaps(other) for other in (*self.subnets, *avoid))
            ),
            None,
        )
        if expected is None:
            assert found is ExhaustedError
        else:
            pool = Pool(space="local", subnet=expected)
            assert found == pool
            self.opened(pool)

    def opened(self, pool: Pool) -> None:
        self.subnets.setdefault(pool.subnet, Subnet(pool.subnet))
        self.cursors[pool] = 0

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def release_pool(self, data: st.DataObject) -> None:
        """Also with addresses still taken: they stay so while the subnet is in use."""
        pool = data.draw(st.sampled_from(sorted(self.cursors, key=str)))
        self.ipam.release_pool(pool)
        del self.cursors[pool]
        if not any(other.subnet == pool.subnet for other in self.cursors):
            del self.subnets[pool.subnet]

    # -- addresses ----------------------------------------------------------------------------------

    @precondition(lambda self: self.cursors)
    @rule(data=st.data(), times=st.integers(1, 6))
    def request_any(self, data: st.DataObject, times: int) -> None:
        pool = data.draw(st.sampled_from(sorted(self.cursors, key=str)))
        subnet = self.subnets[pool.subnet]
        for _ in range(times):
            expected = self.expect(pool, subnet)
            found = outcome(lambda: self.ipam.request_address(pool))
            if expected is None:
                assert found is ExhaustedError
                continue
            assert str(found) == f"{expected}/{pool.subnet.prefixlen}"
            subnet.resting.pop(expected, None)
            subnet.taken.add(expected)
            self.cursors[pool] = int(expected) + 1

    def expect(self, pool: Pool, subnet: Subnet) -> IPAddress | None:
        order: Iterable[IPAddress] = self.part(pool)
        if self.policy is Policy.SERIAL:
            order = sorted(order, key=lambda address: (int(address) < self.cursors[pool], int(address)))
        free = (a for a in order if a not in subnet.taken and subnet.resting.get(a, 0) <= self.now)
        rested = (a for a in subnet.resting if a in self.part(pool))
        return next(free, None) or next(rested, None)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def request_preferred(self, data: st.DataObject) -> None:
        """Any address in or next to the subnet, of either family."""
        pool = data.draw(st.sampled_from(sorted(self.cursors, key=str)))
        subnet, address = self.subnets[pool.subnet], self.draw_address(pool, data)
        found = outcome(lambda: self.ipam.request_address(pool, preferred=address))
        if address not in subnet.usable(subnet.network):
            assert found is InvalidValueError
        elif address in subnet.taken:
            assert found is ConflictError
        else:
            assert str(found) == f"{address}/{pool.subnet.prefixlen}"
            subnet.resting.pop(address, None)
            subnet.taken.add(address)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data(), twice=st.booleans())
    def release(self, data: st.DataObject, twice: bool) -> None:
        """Any address, taken or not, through any pool of the subnet."""
        pool = data.draw(st.sampled_from(sorted(self.cursors, key=str)))
        subnet, address = self.subnets[pool.subnet], self.draw_address(pool, data)
        for _ in range(1 + twice):
            found = outcome(lambda: self.ipam.release_address(pool, address))
            assert found is (None if address in subnet.usable(subnet.network) else InvalidValueError)
        if address in subnet.taken:
            subnet.taken.remove(address)
            if self.quarantine:
                subnet.resting.pop(address, None)
                subnet.resting[address] = self.now + self.quarantine

    def draw_address(self, pool: Pool, data: st.DataObject) -> IPAddress:
        first, size = int(pool.subnet[0]), pool.subnet.num_addresses
        near = st.integers(first - 1, first + size).map(type(pool.subnet[0]))
        taken = sorted(self.subnets[pool.subnet].taken)
        choices = [near, st.sampled_from([ip_address(first), ip_address("fd00::1")])]
        drawn: IPAddress = data.draw(st.one_of(*choices, *([st.sampled_from(taken)] * 2 if taken else [])))
        return drawn

    @rule(seconds=st.sampled_from([1, 2, 3, 999]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        for subnet in self.subnets.values():
            subnet.resting = {a: until for a, until in subnet.resting.items() if until > self.now}

    @invariant()
    def usage_agrees(self) -> None:
        for pool in getattr(self, "cursors", {}):
            subnet, part = self.subnets[pool.subnet], self.part(pool)
            taken = sum(address in subnet.taken for address in part)
            quarantined = sum(address in subnet.resting for address in part)
            assert self.ipam.usage(pool) == Usage(size=len(part), taken=taken, quarantined=quarantined)


def outcome(
    call: Callable[[], Pool | IPInterface | None],
) -> Pool | IPInterface | type[PynetworkError] | None:
    """Return what *call* returned, or the type of what it raised."""
    try:
        return call()
    except PynetworkError as error:
        return type(error)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
