"""The fake kernel refuses, removes and replays what Linux does, and leaves alone what is not ours."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pynetwork.errors import NotFoundError
from pynetwork.plan import Plan, Step, StepFailedError, Steps, Verb, diff, progress
from pynetwork.resources import (
    Address,
    Announce,
    Bridge,
    LinkSysctl,
    LinkUp,
    Neighbour,
    Netns,
    Resource,
    Route,
    Sysctl,
    Veth,
)
from pynetwork.testing import Chaos, Device, FakeKernel, Killed, assert_plan
from pynetwork.testing.strategies import plans

if TYPE_CHECKING:
    from pynetwork.resources import Key

PATH = "/run/pynetwork/netns/a"
MAC = "02:00:00:00:00:01"
NETNS = Netns(path=PATH)
BRIDGE = Bridge(name="br0", mac=MAC)
VETH = Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac=MAC)
BASE = Plan((NETNS, BRIDGE, VETH))
PEER_ADDRESS = Address(netns=PATH, dev="eth0", cidr="10.0.0.2/24")
PEER_UP = LinkUp(netns=PATH, dev="eth0")
DEFAULT = Route(netns=PATH, dst="0.0.0.0/0", via="10.0.0.1", dev="eth0")
CONTAINER = Plan((*BASE, PEER_ADDRESS, PEER_UP, DEFAULT))


def create(kernel: FakeKernel, *resources: Resource, replay: bool = False) -> None:
    kernel.apply([Step(Verb.CREATE, resource) for resource in resources], replay=replay)


def delete(kernel: FakeKernel, *resources: Resource, replay: bool = False) -> None:
    kernel.apply([Step(Verb.DELETE, resource) for resource in resources], replay=replay)


def made(*resources: Resource) -> FakeKernel:
    kernel = FakeKernel()
    create(kernel, *resources)
    return kernel


def failure(kernel: FakeKernel, *steps: Step, replay: bool = False) -> int | None:
    """Return the errno of the failure that *steps* end with."""
    with pytest.raises(StepFailedError) as caught:
        kernel.apply(steps, replay=replay)
    assert steps[-1] is caught.value.failed
    assert steps[:-1] == caught.value.done
    assert isinstance(caught.value.__cause__, OSError)
    return caught.value.__cause__.errno


def test_creates_what_it_is_told() -> None:
    kernel = made(*CONTAINER)
    assert set(CONTAINER) == set(kernel.resources)
    assert [step.resource for step in kernel.log] == list(CONTAINER)
    assert repr(kernel) == "<FakeKernel(6 resources)>"
    assert_plan(kernel.resources, kernel.render())


@pytest.mark.parametrize(
    ("existing", "wanted", "code"),
    [
        ((), Address(dev="br0", cidr="10.0.0.1/24"), errno.ENODEV),
        ((), PEER_ADDRESS, errno.ENOENT),
        ((NETNS,), PEER_ADDRESS, errno.ENODEV),
        ((), LinkUp(dev="br0"), errno.ENODEV),
        ((), Neighbour(dev="br0", address="10.0.0.9", mac=MAC), errno.ENODEV),
        ((), LinkSysctl(dev="br0", name="net.ipv4.conf.br0.rp_filter", value="1"), errno.ENOENT),
        ((), Sysctl(netns=PATH, name="net.ipv4.ip_forward", value="1"), errno.ENOENT),
        ((BRIDGE,), VETH, errno.ENOENT),
        ((NETNS,), VETH, errno.ENODEV),
        ((NETNS, Device(name="br0")), VETH, errno.EOPNOTSUPP),
        ((), Route(dst="10.9.0.0/16", dev="br0"), errno.ENODEV),
        ((BRIDGE,), Route(dst="10.9.0.0/16", dev="br0"), errno.ENETDOWN),
        ((*BASE, PEER_UP), DEFAULT, errno.ENETUNREACH),
        ((*BASE, PEER_UP), Route(netns=PATH, dst="::/0", via="fd00::1", dev="eth0"), errno.EHOSTUNREACH),
    ],
)
def test_refuses_what_has_nothing_to_be_on(
    existing: tuple[Resource, ...], wanted: Resource, code: int
) -> None:
    kernel = FakeKernel(existing)
    assert code == failure(kernel, Step(Verb.CREATE, wanted))
    assert Plan() == kernel.resources
    assert code == failure(kernel, Step(Verb.CREATE, wanted), replay=True)


@pytest.mark.parametrize(
    "again",
    [
        *(NETNS, BRIDGE, VETH, PEER_ADDRESS, DEFAULT),
        Veth(name="veth1", netns=PATH, peer="eth0", mac=MAC),
        Veth(name="br0", netns=PATH, peer="eth1", mac=MAC),
        Route(netns=PATH, dst="0.0.0.0/0", dev="eth0"),
        Route(netns=PATH, dst="0.0.0.0/0", dev="eth0", metric=0),
    ],
)
def test_refuses_what_exists(again: Resource) -> None:
    kernel = made(*CONTAINER)
    assert failure(kernel, Step(Verb.CREATE, again)) == errno.EEXIST
    assert set(CONTAINER) == set(kernel.resources)


def test_a_route_of_another_metric_is_another_route() -> None:
    kernel = made(*CONTAINER)
    create(kernel, Route(netns=PATH, dst="0.0.0.0/0", dev="eth0", metric=100))
    assert len(CONTAINER) + 1 == len(kernel.resources)


@pytest.mark.parametrize(
    "free",
    [
        PEER_UP,
        Sysctl(netns=PATH, name="net.ipv4.ip_forward", value="1"),
        LinkSysctl(netns=PATH, dev="eth0", name="net.ipv4.conf.eth0.rp_filter", value="1"),
    ],
)
def test_what_is_only_set_may_be_set_again(free: Resource) -> None:
    kernel = made(*BASE, free)
    create(kernel, free)
    assert {*BASE, free} == set(kernel.resources)


@pytest.mark.parametrize(
    "route",
    [
        Route(netns=PATH, dst="10.1.0.0/16", dev="lo"),
        Route(netns=PATH, dst="10.2.0.0/16", via="10.8.0.9", dev="eth0"),
        Route(netns=PATH, dst="::/0", via="fe80::1", dev="eth0"),
        Route(dst="10.3.0.0/16", dev="veth0"),
        Route(dst="10.4.0.0/16", dev="uplink"),
    ],
)
def test_a_route_needs_an_interface_that_is_up_and_a_gateway_on_its_link(route: Route) -> None:
    kernel = FakeKernel([Device(name="uplink")])
    create(kernel, *CONTAINER, Route(netns=PATH, dst="10.8.0.0/16", dev="eth0"), route)
    assert route in kernel.resources


def test_reports_the_steps_before_the_failure() -> None:
    kernel = FakeKernel()
    steps = [Step(Verb.CREATE, NETNS), Step(Verb.CREATE, BRIDGE), Step(Verb.CREATE, BRIDGE)]
    assert failure(kernel, *steps) == errno.EEXIST
    assert tuple(steps[:2]) == kernel.log


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (VETH, {NETNS, BRIDGE}),
        (NETNS, {BRIDGE}),
        (PEER_ADDRESS, {*BASE, PEER_UP}),
    ],
)
def test_what_needs_an_object_goes_with_it(gone: Resource, left: set[Resource]) -> None:
    for kernel in (made(*CONTAINER), made(*CONTAINER)):
        delete(kernel, gone)
        assert left == set(kernel.resources)
    create(kernel, *(resource for resource in CONTAINER if resource not in left))
    assert set(CONTAINER) == set(kernel.resources)


def test_an_interface_that_goes_down_loses_ipv6_addresses_and_neighbours() -> None:
    address = Address(netns=PATH, dev="eth0", cidr="fd00::2/64")
    neighbour = Neighbour(netns=PATH, dev="eth0", address="10.0.0.9", mac=MAC)
    kernel = made(*CONTAINER, address, neighbour)
    delete(kernel, PEER_UP)
    assert {*CONTAINER, address, neighbour} - {PEER_UP} == set(kernel.resources), "it stays up"
    kernel.wreck(PEER_UP.key)
    assert {*BASE, PEER_ADDRESS} == set(kernel.resources)


def test_routes_stay_while_another_address_does_and_later_addresses_of_a_subnet_do_not() -> None:
    secondary = Address(netns=PATH, dev="eth0", cidr="10.0.0.3/24")
    other = Address(netns=PATH, dev="eth0", cidr="10.5.0.3/24")
    kernel = made(*CONTAINER, secondary, other)
    delete(kernel, PEER_ADDRESS)
    assert {*BASE, PEER_UP, DEFAULT, other} == set(kernel.resources)
    kernel = made(*CONTAINER, secondary)
    delete(kernel, secondary)
    assert set(CONTAINER) == set(kernel.resources)


def test_addresses_of_one_subnet_are_deleted_in_an_order_that_works() -> None:
    up = LinkUp(dev="br0")
    addresses = [Address(dev="br0", cidr=f"10.0.0.{number}/24") for number in (1, 2, 3)]
    plan = Plan((*addresses, up))
    kernel = FakeKernel([Bridge(name="br0")])
    kernel.apply(diff(Plan(), plan))
    kernel.apply(diff(plan, Plan()))
    assert Plan() == kernel.resources


def test_a_bridge_that_goes_leaves_its_ports_without_one() -> None:
    kernel = made(*CONTAINER)
    delete(kernel, BRIDGE)
    seen = kernel.observe(CONTAINER)
    alone = Veth(name="veth0", netns=PATH, peer="eth0", mac=MAC)
    assert {NETNS, alone, PEER_ADDRESS, PEER_UP, DEFAULT} == set(seen)
    kernel.apply(diff(seen, CONTAINER))
    assert set(CONTAINER) == set(kernel.resources)


def test_an_adopted_namespace_outlives_its_pin() -> None:
    pin = Netns(path=PATH, adopted="/proc/1/ns/net")
    kernel = made(pin, BRIDGE, VETH)
    delete(kernel, pin)
    assert {BRIDGE, VETH} == set(kernel.resources)
    kernel = made(pin, Sysctl(netns=PATH, name="net.ipv4.ip_forward", value="1"))
    delete(kernel, pin)
    create(kernel, NETNS)
    assert Plan((NETNS,)) == kernel.resources


@pytest.mark.parametrize("missing", [NETNS, BRIDGE, VETH, PEER_ADDRESS, DEFAULT])
def test_what_is_missing_cannot_be_deleted_unless_in_replay(missing: Resource) -> None:
    kernel = FakeKernel()
    assert failure(kernel, Step(Verb.DELETE, missing)) == errno.ENOENT
    delete(kernel, missing, replay=True)


def test_what_is_missing_cannot_be_updated_unless_it_is_replaced() -> None:
    kernel = made(NETNS)
    larger = Bridge(name="br0", mac=MAC, mtu=9000)
    assert failure(kernel, Step(Verb.UPDATE, larger, BRIDGE)) == errno.ENOENT
    kernel.apply([Step(Verb.UPDATE, larger, BRIDGE)], replay=True)
    create(kernel, VETH, PEER_ADDRESS, PEER_UP)
    direct = Route(netns=PATH, dst="0.0.0.0/0", dev="eth0")
    kernel.apply([Step(Verb.UPDATE, direct, DEFAULT)])
    assert {NETNS, larger, VETH, PEER_ADDRESS, PEER_UP, direct} == set(kernel.resources)


def test_an_update_changes_what_differs_and_nothing_else() -> None:
    kernel = made(*BASE)
    kernel.plant(Veth(name="veth0", bridge=None, netns=PATH, peer="eth0", mac=MAC))
    wanted = Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac=MAC, mtu=1400)
    kernel.apply([Step(Verb.UPDATE, wanted, VETH)])
    drifted = Veth(name="veth0", netns=PATH, peer="eth0", mac=MAC, mtu=1400)
    assert {NETNS, BRIDGE, drifted} == set(kernel.resources)


def test_an_update_of_a_route_to_a_gateway_out_of_reach_fails() -> None:
    kernel = made(*CONTAINER)
    wanted = Route(netns=PATH, dst="0.0.0.0/0", via="10.1.0.1", dev="eth0")
    assert failure(kernel, Step(Verb.UPDATE, wanted, DEFAULT)) == errno.ENETUNREACH
    assert DEFAULT in kernel.resources


def test_an_update_of_what_became_something_else_fails() -> None:
    kernel = made(BRIDGE)
    kernel.plant(Device(name="br0"))
    assert (
        failure(kernel, Step(Verb.UPDATE, Bridge(name="br0", mac=MAC, mtu=9000), BRIDGE)) == errno.EOPNOTSUPP
    )


def test_a_setting_may_be_of_the_host_or_of_one_of_its_links() -> None:
    general = Sysctl(name="net.ipv4.conf.br0.rp_filter", value="0")
    special, changed = (
        LinkSysctl(dev="br0", name="net.ipv4.conf.br0.rp_filter", value=value) for value in "12"
    )
    kernel = made(BRIDGE, general, special)
    assert Plan((general,)) != kernel.observe(Plan((general,)))[:1]
    kernel.apply([Step(Verb.UPDATE, changed, special)])
    assert {BRIDGE, changed} == set(kernel.resources)


def test_settings_are_kept_when_let_go_of() -> None:
    off, on = (Sysctl(name="net.ipv4.ip_forward", value=value) for value in "01")
    kernel = FakeKernel([off])
    assert Plan() == kernel.resources
    create(kernel, on)
    assert Plan((on,)) == kernel.resources
    delete(kernel, on)
    delete(kernel, on)
    assert Plan() == kernel.resources
    assert Plan((on,)) == kernel.observe(Plan((off,)))


def test_replay_makes_what_exists_as_wanted() -> None:
    kernel = made(*CONTAINER)
    larger = Bridge(name="br0", mac=MAC, mtu=9000)
    moved = Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac="02:00:00:00:00:02")
    direct = Route(netns=PATH, dst="0.0.0.0/0", dev="eth0")
    create(kernel, larger, *CONTAINER[2:], replay=True)
    assert {larger, NETNS, *CONTAINER[2:]} == set(kernel.resources)
    create(kernel, direct, replay=True)
    assert direct in kernel.resources
    create(kernel, moved, replay=True)
    assert {larger, NETNS, moved} == set(kernel.resources), "a veth of another MAC is another veth"


def test_replay_never_replaces_what_is_not_ours() -> None:
    @attrs.frozen(kw_only=True)
    class Queue(Resource):
        kind = "queue"
        rank = 45
        size: int

        @property
        def key(self) -> Key:
            return ("queue",)

        def render(self) -> tuple[str, ...]:
            return (f"queue {self.size}",)

        def render_delete(self) -> tuple[str, ...]:
            return ("no queue",)

    kernel = FakeKernel([Queue(size=1)])
    create(kernel, Queue(size=1), replay=True)
    assert failure(kernel, Step(Verb.CREATE, Queue(size=2)), replay=True) == errno.EEXIST
    assert kernel.resources == Plan()
    kernel = made(Queue(size=1))
    create(kernel, Queue(size=2), replay=True)
    assert Plan((Queue(size=2),)) == kernel.resources


def test_an_existing_bridge_is_adopted_and_left_behind() -> None:
    foreign = Bridge(name="br0", mac=MAC, mtu=9000)
    wanted = Bridge(name="br0", adopt=True)
    kernel = FakeKernel([foreign])
    create(kernel, wanted)
    assert Plan() == kernel.resources
    assert Plan((wanted,)) == kernel.observe(Plan((wanted,)))
    delete(kernel, wanted)
    assert Plan((wanted,)) == kernel.observe(Plan((wanted,)))
    assert Plan((foreign,)) == kernel.observe(Plan((foreign,)))


def test_an_existing_address_is_adopted_and_left_behind() -> None:
    wanted = Address(dev="uplink", cidr="10.0.0.1/24", adopt=True)
    kernel = FakeKernel([Device(name="uplink"), Address(dev="uplink", cidr="10.0.0.1/24")])
    create(kernel, wanted)
    assert Plan((wanted,)) == kernel.observe(Plan((wanted,)))
    delete(kernel, wanted)
    assert Plan((wanted,)) == kernel.observe(Plan((wanted,)))
    assert Plan() == kernel.resources


def test_adopting_a_bridge_that_is_not_there_makes_one_of_ours() -> None:
    wanted = Bridge(name="br0", adopt=True)
    kernel = made(wanted)
    assert Plan((wanted,)) == kernel.resources
    create(kernel, wanted)
    delete(kernel, wanted)
    assert Plan() == kernel.observe(Plan((wanted,)))


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("foreign", [NETNS, BRIDGE, VETH, Device(name="br0"), Device(name="veth0")])
def test_nothing_foreign_is_taken_or_deleted(foreign: Resource, replay: bool) -> None:
    ours = next(resource for resource in BASE if resource.key == foreign.key)
    kernel = FakeKernel([foreign, NETNS, BRIDGE])
    kernel.plant(foreign)
    assert failure(kernel, Step(Verb.CREATE, ours), replay=replay) == errno.EEXIST
    delete(kernel, ours, replay=replay)
    assert Plan((foreign,)) == kernel.observe(Plan((foreign,)))
    assert Plan() == kernel.observe(Plan())


def test_an_object_that_became_another_kind_is_seen_as_it_is() -> None:
    kernel = FakeKernel([Device(name="br0")])
    assert Plan((Device(name="br0"),)) == kernel.observe(Plan((BRIDGE,)))


def test_observes_what_is_expected_as_it_is_and_ours_beyond() -> None:
    foreign = Address(dev="br0", cidr="10.9.9.9/24")
    kernel = made(*CONTAINER, Sysctl(name="net.ipv4.ip_forward", value="1"))
    kernel.plant(foreign, Bridge(name="br0", mac=MAC, mtu=9000))
    asked = Plan((Bridge(name="br0", mac="02:00:00:00:00:02"), foreign, Bridge(name="br9")))
    assert Plan((BRIDGE, foreign)) == kernel.observe(asked)[:2]
    larger = Bridge(name="br0", mac=MAC, mtu=9000)
    assert {NETNS, larger, VETH, PEER_ADDRESS, DEFAULT} == set(kernel.observe(Plan()))


def test_wrecks_and_reboots_behind_the_back() -> None:
    kernel = made(*CONTAINER)
    kernel.wreck(("link", PATH, "eth0"))
    assert {NETNS, BRIDGE} == set(kernel.resources)
    with pytest.raises(NotFoundError, match="eth0"):
        kernel.wreck(("link", PATH, "eth0"))
    kernel.plant(Device(name="uplink"))
    kernel.reboot()
    assert Plan() == kernel.observe(Plan((Device(name="uplink"),)))


def test_effects_are_logged_and_leave_nothing() -> None:
    kernel = FakeKernel()
    effect = Step(Verb.EMIT, Announce(netns=PATH, dev="eth0", address="10.0.0.2"))
    kernel.apply([effect])
    assert (effect,) == kernel.log
    assert Plan() == kernel.resources


def test_closing_keeps_everything() -> None:
    kernel = made(*CONTAINER)
    kernel.close()
    kernel.close()
    delete(kernel, VETH)


def test_threads_may_share_it() -> None:
    kernel = made(NETNS, BRIDGE)

    def work(number: int) -> None:
        veth = Veth(name=f"veth{number}", bridge="br0", netns=PATH, peer=f"eth{number}", mac=MAC)
        for _ in range(20):
            create(kernel, veth, LinkUp(netns=PATH, dev=veth.peer))
            kernel.observe(Plan())
            delete(kernel, veth)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {NETNS, BRIDGE} == set(kernel.resources)
    assert len(kernel.log) == 2 + 8 * 20 * 3


def test_devices_render() -> None:
    assert_plan(Plan((Device(name="uplink"),)), "ip link add uplink up type dummy")
    assert Device(netns="/a", name="eth9").render_delete() == ("nsenter --net=/a ip link delete eth9",)
    assert Device(netns="/a", name="eth9").parents == (("netns", "/a"),)


@given(st.lists(plans(), max_size=4))
def test_diffs_lead_from_any_plan_to_any_other(wanted: list[Plan]) -> None:
    """Whatever the steps between plans are, they work on a host and leave exactly what is wanted."""
    kernel, actual = FakeKernel(), Plan()
    for plan in (*wanted, Plan()):
        kernel.apply(diff(actual, plan))
        assert set(plan) == set(kernel.resources)
        assert Steps() == diff(kernel.observe(plan), plan)
        actual = plan


def shakes(before: Plan, after: Plan) -> bool:
    """Tell whether the steps change on the quiet what `progress` takes for unchanged; see test_plan.py."""
    kept = {resource.key: resource for resource in after}
    for was in before:
        if isinstance(was, Veth) and was.bridge and ("link", None, was.bridge) not in kept:
            return True  # its bridge goes and it stays, alone
        now = kept.get(was.key)
        if isinstance(was, Route) and isinstance(now, Route) and was.dev != now.dev:
            return True  # it may go with the addresses of its old interface before it is moved
    return False


@given(plans(), plans(), st.booleans())
def test_a_failure_at_any_step_can_be_undone(before: Plan, after: Plan, half_done: bool) -> None:
    """The way back from a failure is the diff of what was reached; the failed step may be half done."""
    assume(not shakes(before, after))
    steps = diff(before, after)
    for n in range(len(steps)):
        kernel = made()
        kernel.apply(diff(Plan(), before))
        with pytest.raises(StepFailedError) as caught:
            Chaos(kernel, fail_at=n, half_done=half_done).apply(steps)
        reached = progress(before, (*caught.value.done, caught.value.failed))
        kernel.apply(diff(reached, before), replay=True)
        assert set(before) == set(kernel.resources)


@given(plans(), plans())
def test_death_at_any_step_can_be_undone_or_finished(before: Plan, after: Plan) -> None:
    """After a crash nobody knows how far the steps got: replays of whole diffs lead to either end."""
    steps = diff(before, after)
    for goal, way in ((before, diff(after, before)), (after, steps)):
        for n in range(len(steps) + 1):
            kernel = made()
            kernel.apply(diff(Plan(), before))
            if steps:
                with pytest.raises(Killed):
                    Chaos(kernel, die_at=n).apply(steps)
            kernel.apply(way, replay=True)
            assert set(goal) == set(kernel.resources)
