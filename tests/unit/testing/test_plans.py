"""Plans are compared as lines, and a difference is shown as one."""

from __future__ import annotations

import pytest

from pynetwork.plan import Plan, diff
from pynetwork.resources import Bridge, LinkUp
from pynetwork.testing import assert_plan

PLAN = Plan((Bridge(name="br0"), LinkUp(dev="br0")))


def test_indentation_and_blank_lines_around_do_not_matter() -> None:
    assert_plan(
        PLAN,
        """
        ip link add br0 type bridge mcast_snooping 0
        ip link set br0 addrgenmode none
        sysctl -w net.ipv6.conf.br0.accept_ra=0
        ip link set br0 up

        """,
    )
    assert_plan(diff(PLAN, Plan()), "ip link delete br0")
    assert_plan(Plan(), "")


def test_a_difference_is_shown() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_plan(PLAN, "ip link add br0 type bridge mcast_snooping 0\nip link set br0 down\n")
    message = str(caught.value)
    assert "\n-ip link set br0 down" in message
    assert "\n+ip link set br0 addrgenmode none" in message
    assert "\n ip link add br0 type bridge mcast_snooping 0" in message
