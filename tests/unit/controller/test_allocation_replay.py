"""What one process allocates, every other one's IPAM driver hears of, and once only."""

from __future__ import annotations

import logging
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    ConflictError,
    Controller,
    DefaultIpam,
    MemoryStore,
    Pool,
    PoolRequest,
    UnknownDriverError,
    Usage,
)
from pynetwork.testing import Chaos, Clock, FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from pynetwork.types import IPAddress, IPInterface

SUBNET = ip_network("10.0.0.0/24")


class Spy(DefaultIpam):
    """The default driver, with a diary."""

    def __init__(self, quarantine: float = 30.0) -> None:
        super().__init__(quarantine=quarantine)
        self.diary: list[str] = []

    def request_pool(self, request: PoolRequest) -> Pool:
        pool = super().request_pool(request)
        self.diary.append(f"+{pool}")
        return pool

    def release_pool(self, pool: Pool) -> None:
        super().release_pool(pool)
        self.diary.append(f"-{pool}")

    def request_address(
        self, pool: Pool, *, preferred: IPAddress | None = None, mac: str | None = None
    ) -> IPInterface:
        address = super().request_address(pool, preferred=preferred, mac=mac)
        self.diary.append(f"+{address.ip}")
        return address

    def release_address(self, pool: Pool, address: IPAddress) -> None:
        super().release_address(pool, address)
        self.diary.append(f"-{address}")

    def news(self) -> list[str]:
        """Return what was written since the last look."""
        diary, self.diary = self.diary, []
        return diary


class World:
    """A store and a host for several controllers, one a process."""

    def __init__(self) -> None:
        self.store, self.kernel, self.clock = MemoryStore(), FakeKernel(), Clock()
        self.count = 0

    def open(self, spy: Any = None, kernel: Any = None) -> Controller:
        self.count += 1
        around = fake_surroundings(process=f"p{self.count}", clock=self.clock)
        return Controller(
            store=self.store,
            kernel=kernel or self.kernel,
            surroundings=around,
            ipam=[] if spy is None else [spy],
        )


@pytest.fixture
def world() -> World:
    return World()


def test_another_process_repeats_what_is_recorded_and_nothing_twice(world: World) -> None:
    ours, theirs = Spy(), Spy()
    with world.open(ours) as one, world.open(theirs) as two:
        network = one.new_network("bridge", "n", subnets=[SUBNET])
        endpoint = network.create_endpoint("e")
        assert ours.news() == ["+local/10.0.0.0/24", "+10.0.0.1", "+10.0.0.2"]
        assert theirs.news() == []
        assert "n" in two.networks
        assert sorted(theirs.news()) == ["+10.0.0.1", "+10.0.0.2", "+local/10.0.0.0/24"]
        endpoint.delete()
        assert ours.news() == ["-10.0.0.2"]
        assert "n" in two.networks
        assert theirs.news() == ["-10.0.0.2"]
        two.networks["n"].delete()
        assert dict(one.networks) == {}
        assert ours.news()[-1] == theirs.news()[-1] == "-local/10.0.0.0/24"


def test_a_restart_replays_pools_before_their_addresses_and_forgets_none(world: World) -> None:
    with world.open(Spy()) as controller:
        network = controller.new_network(
            "bridge",
            "n",
            subnets=[{"network": SUBNET, "sub_pool": "10.0.0.64/26", "auxiliary": {"a": "10.0.0.9"}}],
        )
        for name in "abc":
            network.create_endpoint(name)
        full = network.usage()
    spy = Spy()
    with world.open(spy) as again:
        diary = spy.news()
        assert diary[0] == "+local/10.0.0.0/24/10.0.0.64/26"
        assert sorted(diary[1:]) == ["+10.0.0.64", "+10.0.0.65", "+10.0.0.66", "+10.0.0.67", "+10.0.0.9"]
        assert again.networks["n"].usage() == full
        with pytest.raises(ConflictError, match=r"10\.0\.0\.65"):
            again.networks["n"].create_endpoint("d", addresses=["10.0.0.65"])
        assert str(again.networks["n"].create_endpoint("d").addresses[0].ip) == "10.0.0.68"


def test_quarantine_outlives_the_process_and_ends(world: World) -> None:
    with world.open(Spy()) as controller:
        controller.new_network("bridge", "n", subnets=[SUBNET]).create_endpoint("e").delete()
    world.clock.turn(10)
    with world.open(Spy()) as again:
        assert again.networks["n"].usage()[SUBNET] == Usage(size=254, taken=1, quarantined=1)
        assert str(again.networks["n"].create_endpoint("e").addresses[0].ip) == "10.0.0.3"
    world.clock.turn(31)
    with world.open(Spy()) as later:
        assert later.networks["n"].usage()[SUBNET].quarantined == 0
        assert str(later.networks["n"].create_endpoint("f").addresses[0].ip) == "10.0.0.2"


def test_an_address_another_had_lately_is_announced_when_it_is_given_again(world: World) -> None:
    with world.open(Spy(quarantine=0)) as controller:
        network = controller.new_network("bridge", "n", subnets=[SUBNET])
        assert network.create_endpoint("a").inspect()["announce"] is False
        network.endpoints["a"].delete()
        assert network.create_endpoint("b").inspect()["announce"] is True


def test_records_of_released_addresses_are_dropped_in_time(world: World) -> None:
    with world.open(Spy(quarantine=0)) as controller:
        network = controller.new_network("bridge", "n", subnets=[SUBNET])
        for number in range(20):
            network.create_endpoint("e", addresses=[f"10.0.0.{100 + number}"]).delete()
            world.clock.turn(61)
        addresses = world.store.list("address/").entries
        assert len(addresses) <= 2  # the gateway, and the last one that was released


def test_what_a_failed_request_took_is_given_back_to_the_driver_and_no_record_stays(world: World) -> None:
    spy = Spy()
    with world.open(spy, Chaos(world.kernel, fail_at=1)) as controller:
        with pytest.raises(Exception, match="the host is as before"):
            controller.new_network("bridge", "n", subnets=[SUBNET])
        assert spy.news() == ["+local/10.0.0.0/24", "+10.0.0.1", "-10.0.0.1", "-local/10.0.0.0/24"]
        assert not world.store.list("pool/").entries
        assert not world.store.list("address/").entries
        controller.new_network("bridge", "n", subnets=[SUBNET])


def test_two_processes_never_agree_on_one_subnet(world: World) -> None:
    """Neither hears of the other before it writes; the store decides, the loser chooses again."""
    with world.open() as one, world.open() as two:
        subnets = [
            controller.new_network("bridge", f"n{number}{name}").subnets[0]
            for number in range(3)
            for name, controller in (("one", one), ("two", two))
        ]
        assert len(set(subnets)) == 6
        with pytest.raises(ConflictError, match=r"overlaps|in use"):
            two.new_network("bridge", "x", subnets=[subnets[0]])


def test_a_record_the_driver_does_not_accept_stands_and_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Its configuration changed, say: nobody else can get the address, and it can be released."""

    class Strict(DefaultIpam):
        def request_address(self, pool: Pool, **arguments: Any) -> IPInterface:
            if arguments.get("preferred") == ip_address("10.0.0.2"):
                message = "not that one"
                raise ConflictError(message)
            return super().request_address(pool, **arguments)

    with world.open() as controller:
        controller.new_network("bridge", "n", subnets=[SUBNET]).create_endpoint("e")
    with caplog.at_level(logging.WARNING, "pynetwork"), world.open(Strict()) as again:
        assert "not that one" in caplog.text
        network = again.networks["n"]
        assert str(network.endpoints["e"].addresses[0]) == "10.0.0.2/24"
        network.endpoints["e"].delete()
        network.delete()


def test_networks_of_an_ipam_driver_that_is_gone_can_be_seen_and_deleted(world: World) -> None:
    class Mine(Spy):
        name = "mine"  # type: ignore[misc]  # Final there

    with world.open(Mine()) as controller:
        network = controller.new_network("bridge", "n", subnets=[SUBNET], ipam="mine")
        network.create_endpoint("e")
    with world.open() as again:
        network = again.networks["n"]
        assert network.subnets == (SUBNET,)
        with pytest.raises(UnknownDriverError, match="unknown IPAM driver 'mine'"):
            network.create_endpoint("f")
        network.endpoints["e"].delete()
        network.delete()
        assert not world.store.list("pool/").entries
        assert not world.store.list("address/").entries


def test_when_the_history_is_gone_the_driver_is_told_everything_anew(world: World) -> None:
    world.store = MemoryStore(history=2)
    spy = Spy(quarantine=0)
    with world.open() as one, world.open(spy) as two:
        network = one.new_network("bridge", "n", subnets=[SUBNET])
        network.create_endpoint("kept")
        assert "n" in two.networks
        spy.news()
        for number in range(10):
            network.create_endpoint(f"e{number}").delete()
        theirs = two.networks["n"]
        assert theirs.usage()[SUBNET].taken == 2
        diary = spy.news()
        assert diary.index("-local/10.0.0.0/24") < diary.index("+local/10.0.0.0/24")
        assert diary[-2:] == ["+10.0.0.1", "+10.0.0.2"]
        with pytest.raises(ConflictError):
            theirs.create_endpoint("x", addresses=["10.0.0.2"])
