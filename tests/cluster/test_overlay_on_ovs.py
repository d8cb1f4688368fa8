"""Overlay networks on Open vSwitch, wired by hand: answers, copies for everybody, flows of other hosts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.cluster.overlay_hosts import (
    BLUE,
    BRIDGE,
    QUIET_SECONDS,
    RED,
    SECONDS,
    End,
    World,
    arp,
    frame,
    heard,
    token,
    world,
)

from pynetwork.plan import Plan, diff
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@contextlib.contextmanager
def three(*, bum: bool = False) -> Iterator[World]:
    with private_host(), ovs_cluster(3) as hosts, world(hosts, bum=bum) as made:
        yield made


@pytest.fixture(name="wired")
def wired_world() -> Iterator[World]:
    with three() as made:
        yield made


def test_who_asks_for_its_own_address_is_not_told_that_it_is_taken(wired: World) -> None:
    one, other = wired.end(RED, 0), wired.end(RED, 1)
    with one.raw() as asker:
        asker.send(arp(one, one.v4, ip="0.0.0.0"))
        assert not heard(asker, bytes.fromhex("0002" + one.mac.replace(":", "")), QUIET_SECONDS)
        asker.send(arp(one, other.v4, ip="0.0.0.0"))
        assert heard(asker, bytes.fromhex("0002" + other.mac.replace(":", "")), SECONDS)


def test_flows_of_other_hosts_go_with_the_network(wired: World) -> None:
    host = wired.hosts[0]
    blue = wired.end(BLUE, 0)
    host.leave(blue, [wired.end(RED, 0)])

    def count(vni: int) -> int:
        return host.host.ofctl("dump-flows", BRIDGE, "cookie=0x5052000000000000/-281474976710656").count(
            f"{vni:#x}"
        )

    assert count(BLUE) > 0
    assert count(RED) > 0
    is_blue = f"metadata={BLUE:#x}"
    left = Plan(item for item in host.plan if is_blue not in str(getattr(item, "match", "")))
    host.kernel.apply(diff(host.plan, left))
    host.plan = left
    assert count(BLUE) == 0
    assert count(RED) > 0
    with pytest.raises(OSError, match="nothing of VNI 1002"):
        host.peers.reconcile(BLUE, set())


def test_what_is_for_everybody_comes_to_everybody_once_if_asked_for() -> None:
    with three(bum=True) as wired:
        extra = End(RED, 9, 1)
        wired.hosts[1].join(extra)
        sender = wired.end(RED, 0)
        receivers = [wired.end(RED, 1), extra, wired.end(RED, 2)]
        outsiders = [wired.end(BLUE, position) for position in range(3)]
        assert sender.pings(receivers[0].v4)
        assert sender.pings(receivers[2].v4)
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(sender.raw())
            listeners = [stack.enter_context(end.raw()) for end in receivers]
            deaf = [stack.enter_context(end.raw()) for end in outsiders]
            sent = token()
            everybody = bytes.fromhex("ffffffffffff") + frame(sender, receivers[0], sent)[6:]
            out.send(everybody)
            for listener in listeners:
                assert heard(listener, sent, SECONDS)
            for listener in (*listeners, *deaf):
                assert not heard(listener, sent, QUIET_SECONDS / 4)


def test_what_is_for_everybody_comes_to_nobody_unless_asked_for(wired: World) -> None:
    sender, other = wired.end(RED, 0), wired.end(RED, 1)
    with sender.raw() as out, other.raw() as listener:
        sent = token()
        out.send(bytes.fromhex("ffffffffffff") + frame(sender, other, sent)[6:])
        assert not heard(listener, sent, QUIET_SECONDS)
