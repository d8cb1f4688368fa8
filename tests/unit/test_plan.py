"""Diffs lead from any plan to any other, undo is a diff, and plans merge only where they agree."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork.errors import ConflictError
from pynetwork.plan import Plan, Step, StepFailedError, Steps, Verb, conflict, diff, merge, progress
from pynetwork.resources import (
    Address,
    Announce,
    Bridge,
    LinkSysctl,
    LinkUp,
    Netns,
    Resource,
    Route,
    Ruleset,
    Sysctl,
    Veth,
)
from pynetwork.testing import FakeKernel, assert_plan
from pynetwork.testing.strategies import plans

PATH = "/run/pynetwork/netns/a"
MAC = "02:00:00:00:00:01"
NETNS = Netns(path=PATH)
BRIDGE = Bridge(name="br0")
VETH = Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac=MAC)
ADDRESS = Address(netns=PATH, dev="eth0", cidr="10.0.0.2/24")
UP = LinkUp(netns=PATH, dev="eth0")
ROUTE = Route(netns=PATH, dst="0.0.0.0/0", via="10.0.0.1", dev="eth0")
FORWARD = Sysctl(name="net.ipv4.ip_forward", value="1")
CONTAINER = Plan((NETNS, BRIDGE, VETH, ADDRESS, UP, ROUTE))


def verbs(steps: Steps) -> list[tuple[Verb, Resource]]:
    return [(step.verb, step.resource) for step in steps]


class TestPlan:
    def test_adds_up_to_a_plan(self) -> None:
        both = Plan((NETNS,)) + Plan((BRIDGE,))
        assert Plan((NETNS, BRIDGE)) == both
        assert isinstance(both, Plan)
        assert Plan((NETNS, BRIDGE)) == Plan((NETNS,)) + (BRIDGE,)  # noqa: RUF005 - it is what is tested

    def test_adds_to_nothing_but_tuples(self) -> None:
        with pytest.raises(TypeError):
            Plan((NETNS,)) + [BRIDGE]  # noqa: RUF005 - it is what is tested

    def test_renders_in_the_order_of_creation(self) -> None:
        plan = Plan((ROUTE, UP, NETNS))
        assert_plan(
            plan,
            """
            touch /run/pynetwork/netns/a
            unshare --net=/run/pynetwork/netns/a ip link set lo up
            nsenter --net=/run/pynetwork/netns/a ip link set eth0 up
            nsenter --net=/run/pynetwork/netns/a ip route add 0.0.0.0/0 via 10.0.0.1 dev eth0
            """,
        )

    def test_of_nothing_renders_as_nothing(self) -> None:
        assert not Plan().render()


class TestStep:
    def test_is_its_lines(self) -> None:
        assert str(Step(Verb.CREATE, UP)) == f"nsenter --net={PATH} ip link set eth0 up"
        assert str(Step(Verb.DELETE, NETNS)) == f"umount --lazy {PATH}; rm {PATH}"

    def test_of_a_whole_ruleset_is_told_in_a_line(self) -> None:
        step = Step(Verb.CREATE, Ruleset())
        count = len(step.render()) - 2
        assert str(step) == f"nft -f - <<END; create table inet pynetwork; ... {count} more lines"

    def test_is_named_where_there_are_no_lines(self) -> None:
        assert str(Step(Verb.DELETE, FORWARD)).startswith("delete Sysctl(")

    def test_of_an_update_renders_the_change(self) -> None:
        larger = Bridge(name="br0", mtu=9000)
        assert Step(Verb.UPDATE, larger, BRIDGE).render() == ("ip link set br0 mtu 9000",)

    def test_has_the_effects_of_what_it_makes(self) -> None:
        announce = Announce(netns=PATH, dev="eth0", address="10.0.0.2")
        address = attrs.evolve(ADDRESS, announce=True)
        assert (announce,) == Step(Verb.CREATE, address).effects()
        assert Step(Verb.DELETE, address).effects() == ()
        assert Step(Verb.CREATE, ADDRESS).effects() == ()
        assert Step(Verb.CREATE, Address(dev="br0", cidr="10.0.0.1/24")).effects() == ()

    def test_fails_with_what_was_done(self) -> None:
        done = [Step(Verb.CREATE, NETNS)]
        error = StepFailedError(Step(Verb.CREATE, UP), done)
        assert tuple(done) == error.done
        assert str(error) == f"nsenter --net={PATH} ip link set eth0 up"


class TestMerge:
    def test_of_nothing_is_nothing(self) -> None:
        assert merge([]) == Plan()
        assert merge([Plan(), Plan()]) == Plan()

    def test_keeps_all_of_plans_that_have_nothing_in_common(self) -> None:
        merged = merge([Plan((NETNS, VETH)), Plan((BRIDGE, FORWARD))])
        assert Plan((NETNS, VETH, BRIDGE, FORWARD)) == merged

    def test_holds_what_is_shared_once(self) -> None:
        again = Sysctl(name="net.ipv4.ip_forward", value="1")
        merged = merge([Plan((FORWARD,)), Plan((again, BRIDGE)), Plan((FORWARD,))])
        assert Plan((FORWARD, BRIDGE)) == merged
        assert merged[0] is FORWARD

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (FORWARD, Sysctl(name="net.ipv4.ip_forward", value="0")),
            (BRIDGE, Bridge(name="br0", mtu=9000)),
            (BRIDGE, Bridge(name="br0")),
            (BRIDGE, Veth(name="br0", netns=PATH, peer="eth1", mac=MAC)),
            (VETH, Veth(name="veth1", netns=PATH, peer="eth0", mac=MAC)),
            (ROUTE, Route(netns=PATH, dst="0.0.0.0/0", dev="eth1")),
        ],
    )
    def test_refuses_two_opinions_on_one_object(self, one: Resource, other: Resource) -> None:
        for plans_ in ([Plan((one,)), Plan((other,))], [Plan((one, other))], [Plan((other,)), Plan((one,))]):
            with pytest.raises(ConflictError):
                merge(plans_)

    def test_refuses_a_link_that_is_the_end_of_another(self) -> None:
        inside = Veth(name="eth0", netns=PATH, peer="x", mac=MAC)
        same = Veth(name="veth0", netns=PATH, peer="eth0", mac=MAC)
        assert merge([Plan((inside,)), Plan((same,))]), "one is on the host, the other in the namespace"

    def test_says_who_wants_what(self) -> None:
        error = conflict(Bridge(name="br0", mtu=9000), BRIDGE)
        assert "mtu=9000" in str(error)
        assert BRIDGE.origin in str(error)
        assert __file__ in BRIDGE.origin

    @given(st.lists(plans(), max_size=3))
    def test_of_one_plan_with_nothing_is_that_plan(self, some: list[Plan]) -> None:
        for plan in some:
            assert plan == merge([plan])
            assert plan == merge([Plan(), plan, Plan()])


class TestDiff:
    def test_creates_by_rank_and_deletes_in_reverse(self) -> None:
        backwards = Plan(reversed(CONTAINER))
        assert [(Verb.CREATE, resource) for resource in CONTAINER] == verbs(diff(Plan(), backwards))
        loose = Plan((FORWARD, BRIDGE, NETNS))
        expected = [(Verb.DELETE, resource) for resource in (BRIDGE, FORWARD, NETNS)]
        assert expected == verbs(diff(loose, Plan()))

    def test_deletes_in_reverse_within_a_rank(self) -> None:
        first, second = (Address(dev="br0", cidr=f"10.0.0.{number}/24") for number in (1, 2))
        steps = diff(Plan((first, second)), Plan())
        assert [(Verb.DELETE, second), (Verb.DELETE, first)] == verbs(steps)

    def test_deletes_nothing_that_goes_with_its_parent(self) -> None:
        assert verbs(diff(CONTAINER, Plan((NETNS, BRIDGE)))) == [(Verb.DELETE, VETH)]
        gone = [(Verb.DELETE, resource) for resource in (VETH, BRIDGE, NETNS)]
        assert gone == verbs(diff(CONTAINER, Plan()))

    def test_deletes_what_only_looks_like_a_child(self) -> None:
        elsewhere = Address(netns="/other", dev="eth0", cidr="10.0.0.2/24")
        host = Address(dev="eth0", cidr="10.0.0.2/24")
        steps = diff(Plan((VETH, ADDRESS, elsewhere, host)), Plan())
        expected = [(Verb.DELETE, resource) for resource in (host, elsewhere, VETH)]
        assert expected == verbs(steps)

    def test_deletes_what_is_on_an_object_that_may_stay(self) -> None:
        bridge = Bridge(name="br0", adopt=True)
        address = Address(dev="br0", cidr="10.0.0.1/24")
        assert [(Verb.DELETE, address), (Verb.DELETE, bridge)] == verbs(diff(Plan((bridge, address)), Plan()))

    def test_updates_what_can_change_in_place(self) -> None:
        other = Route(netns=PATH, dst="0.0.0.0/0", via="10.0.0.254", dev="eth0")
        steps = diff(Plan((ROUTE,)), Plan((other,)))
        assert Steps((Step(Verb.UPDATE, other, ROUTE),)) == steps

    def test_replaces_what_cannot_and_all_that_goes_with_it(self) -> None:
        other = attrs.evolve(VETH, mac="02:00:00:00:00:02")
        desired = Plan((NETNS, BRIDGE, other, ADDRESS, UP, ROUTE))
        creations = [(Verb.CREATE, resource) for resource in (other, ADDRESS, UP, ROUTE)]
        assert [(Verb.DELETE, VETH), *creations] == verbs(diff(CONTAINER, desired))

    def test_replaces_an_object_of_another_kind(self) -> None:
        setting = LinkSysctl(dev="br0", name="net.ipv4.ip_forward", value="1")
        steps = diff(Plan((FORWARD,)), Plan((setting,)))
        assert [(Verb.DELETE, FORWARD), (Verb.CREATE, setting)] == verbs(steps)

    def test_takes_a_route_to_another_link_while_the_old_one_goes(self) -> None:
        moved = Route(netns=PATH, dst="0.0.0.0/0", via="10.5.0.1", dev="eth1")
        assert [(Verb.DELETE, VETH), (Verb.CREATE, moved)] == verbs(diff(Plan((VETH, ROUTE)), Plan((moved,))))

    @given(plans())
    def test_of_a_plan_and_itself_is_nothing(self, plan: Plan) -> None:
        assert diff(plan, plan) == Steps()
        assert diff(plan, Plan(reversed(plan))) == Steps()

    @given(plans(), plans())
    def test_touches_each_object_once_or_replaces_it(self, before: Plan, after: Plan) -> None:
        steps = diff(before, after)
        deleted = [step.resource.key for step in steps if step.verb is Verb.DELETE]
        changed = [step.resource.key for step in steps if step.verb is not Verb.DELETE]
        assert len(deleted) == len(set(deleted))
        assert len(changed) == len(set(changed))
        assert list(steps) == sorted(steps, key=lambda step: step.verb is not Verb.DELETE)

    @given(plans(), plans())
    def test_deletes_no_child_of_what_it_deletes(self, before: Plan, after: Plan) -> None:
        deleted = [step.resource for step in diff(before, after) if step.verb is Verb.DELETE]
        gone = {key for resource in deleted for key in (resource.key, *resource.provides)}
        assert all(gone.isdisjoint(resource.parents) for resource in deleted)


class TestProgress:
    @given(plans(), plans())
    def test_of_all_steps_is_the_goal(self, before: Plan, after: Plan) -> None:
        assert set(after) == set(progress(before, diff(before, after)))

    @given(plans())
    def test_of_no_steps_is_the_start(self, plan: Plan) -> None:
        assert plan == progress(plan, ())

    @given(plans(), plans())
    def test_of_some_steps_lets_the_rest_be_found_again(self, before: Plan, after: Plan) -> None:
        steps = diff(before, after)
        for n in range(len(steps) + 1):
            reached = progress(before, steps[:n])
            for goal in (before, after):
                assert set(goal) == set(progress(reached, diff(reached, goal)))

    def test_knows_that_a_bridge_lets_go_of_its_ports(self) -> None:
        """The host's veth is in no bridge when the undo starts, and must be put back into its own."""
        alone = attrs.evolve(VETH, bridge=None)
        before, after = Plan((NETNS, BRIDGE, VETH)), Plan((NETNS, alone))
        kernel = FakeKernel()
        kernel.apply(diff(Plan(), before))
        done = diff(before, after)[:1]
        kernel.apply(done)
        kernel.apply(diff(progress(before, done), before))
        assert set(before) == set(kernel.resources)

    def test_knows_that_routes_go_with_the_last_address(self) -> None:
        """To change the address of an endpoint must not lose its default route."""
        other = Address(netns=PATH, dev="eth0", cidr="10.0.0.3/24")
        after = Plan((NETNS, BRIDGE, VETH, other, UP, ROUTE))
        kernel = FakeKernel()
        kernel.apply(diff(Plan(), CONTAINER))
        kernel.apply(diff(CONTAINER, after))
        assert set(after) == set(kernel.resources)

    def test_knows_that_a_route_went_before_it_was_moved(self) -> None:
        """The undo of a request that failed just before it moved the default route must restore it."""
        configured = [
            (Bridge(name=name), Address(dev=name, cidr=f"10.{number}.0.1/24"), LinkUp(dev=name))
            for number, name in enumerate(("br0", "br1"))
        ]
        old, new = (Route(dst="0.0.0.0/0", dev=name) for name in ("br0", "br1"))
        before, after = Plan((*configured[0], old)), Plan((Bridge(name="br0"), *configured[1], new))
        kernel = FakeKernel()
        kernel.apply(diff(Plan(), before))
        done = diff(before, after)[:-1]
        kernel.apply(done)
        kernel.apply(diff(progress(before, done), before), replay=True)
        assert set(before) == set(kernel.resources)

    def test_knows_that_an_adopted_namespace_stays(self) -> None:
        """What we put on the loopback of somebody's namespace must go when we let go of it."""
        before = Plan(
            (Netns(path=PATH, adopted="/proc/1/ns/net"), Address(netns=PATH, dev="lo", cidr="10.0.0.1/32"))
        )
        kernel = FakeKernel()
        kernel.apply(diff(Plan(), before))
        kernel.apply(diff(before, Plan()))
        assert kernel.resources == Plan()

    def test_routes_to_gateways_come_before_those_through_them(self) -> None:
        """Plans are in any order; the default route through an on-link gateway comes after its link route."""
        over = Route(netns=PATH, dst="0.0.0.0/0", via="10.9.0.1", dev="eth0")
        link = Route(netns=PATH, dst="10.9.0.1/32", dev="eth0")
        FakeKernel().apply(diff(Plan(), Plan((NETNS, BRIDGE, VETH, ADDRESS, UP, over, link))))
