"""What we say to a switch is what ovs-ofctl would have said; what it refuses is refused as a whole."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.unit.flow_strategies import flows

from pynetwork.drivers.overlay_flows import NETWORKS
from pynetwork.errors import UnavailableError
from pynetwork.kernel.ovs.channel import Channel, FlowRefusedError
from pynetwork.kernel.ovs.messages import Seen, add_flow, delete_flow
from pynetwork.kernel.ovs.place import Place
from pynetwork.kernel.ovs.watch import SwitchWatch
from pynetwork.resources.ovs import PLANNED, REMOTE, Flow, flow_cookie
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pynetwork.testing.cluster import OvsHost

pytestmark = pytest.mark.root

EVERYTHING = (
    "resubmit(,21),move:eth_src->eth_dst,move:ipv6_src->ipv6_dst,move:nd_target->ipv6_src,in_port,output:7,"
    "set_field:136->icmpv6_type,set_field:0x60000000->nd_reserved,set_field:2->nd_options_type,"
    "set_field:02:00:00:00:00:01->nd_tll,set_field:fd00::9->tun_ipv6_dst,write_metadata:0x3e9,goto_table:9"
)


@pytest.fixture(name="host")
def one_host() -> Iterator[OvsHost]:
    """A host with two bridges that forward nothing, ``ours`` and ``theirs``."""
    with private_host(), ovs_cluster(1) as hosts:
        for bridge in ("ours", "theirs"):
            settings_ = ["datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow13,OpenFlow14"]
            hosts[0].vsctl("add-br", bridge, "--", "set", "bridge", bridge, *settings_)
        yield hosts[0]


@pytest.fixture(name="channel")
def a_channel(host: OvsHost) -> Iterator[Channel]:
    with contextlib.closing(Channel(Place(host.directory), "ours")) as channel:
        yield channel
        channel.close()


def added(flow: Flow) -> bytes:
    return add_flow(flow.table, flow.priority, flow.match, flow.actions, flow.cookie)


def flow(number: int = 1, table: int = 0) -> Flow:
    return Flow(bridge="ours", table=table, priority=5, match=f"in_port={number}", actions="output:2")


def dumped(host: OvsHost, bridge: str) -> list[str]:
    text = host.ofctl("dump-flows", bridge, "--no-stats", "--no-names")
    return sorted(line.strip() for line in text.splitlines() if "NXST" not in line)


def typed(item: Flow) -> str:
    """Return the flow as one types it after ``ovs-ofctl add-flow BRIDGE``."""
    return item.render()[0].split("'")[1]


def check_same(host: OvsHost, channel: Channel, chosen: list[Flow], path: Path) -> None:
    channel.change([delete_flow(seen.table, seen.cookie) for seen in channel.flows(PLANNED)])
    host.ofctl("del-flows", "theirs")
    channel.change(list(map(added, chosen)))
    path.write_text("".join(f"{typed(item)}\n" for item in chosen), encoding="ascii")
    host.ofctl("add-flows", "theirs", str(path))
    ours = dumped(host, "ours")
    assert ours == dumped(host, "theirs")
    assert len(ours) == len({item.key for item in chosen})


def test_flows_are_those_that_ofctl_makes(host: OvsHost, channel: Channel, tmp_path: Path) -> None:
    """Whatever we match and do: the switch shows the same for our bytes and for the text it is typed as."""

    @settings(
        max_examples=20,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(flows("ours"), min_size=1, max_size=20, unique_by=lambda item: item.key))
    def check(chosen: list[Flow]) -> None:
        check_same(host, channel, chosen, tmp_path / "flows")

    check()
    match = (
        "icmp6,icmpv6_type=136,nd_target=fd00::/8,nd_tll=02:00:00:00:00:02,nd_options_type=2,nd_reserved=0x1"
    )
    everything = Flow(bridge="ours", table=3, priority=1, match=match, actions=EVERYTHING)
    check_same(host, channel, [everything], tmp_path / "flows")


def test_lines_that_flows_render_to_can_be_typed(host: OvsHost, channel: Channel) -> None:
    channel.change([added(flow())])
    words = flow().render_delete()[0].split()
    assert words[:4] == ["ovs-ofctl", "-O", "OpenFlow14", "del-flows"]
    host.ofctl("del-flows", *words[4:])
    assert channel.flows(PLANNED) == []


def test_flows_are_found_by_their_owner(host: OvsHost, channel: Channel) -> None:
    remote = flow_cookie(REMOTE, 1, 5, "in_port=1", "drop")
    channel.change([added(flow()), add_flow(1, 5, "in_port=1", "drop", remote)])
    host.ofctl("add-flow", "ours", "table=2,actions=drop")
    assert channel.flows(PLANNED) == [Seen(0, flow().cookie)]
    assert channel.flows(REMOTE) == [Seen(1, remote)]
    assert channel.flows(0x1234) == []


def test_many_flows_are_listed_in_several_answers(channel: Channel) -> None:
    many = [flow(number) for number in range(1, 3000)]
    channel.change(list(map(added, many)))
    assert {seen.cookie for seen in channel.flows(PLANNED)} == {item.cookie for item in many}


def test_a_deletion_spares_what_took_the_flows_place(channel: Channel) -> None:
    """It is by cookie, and that is of one flow, actions and all."""
    old = flow()
    new = Flow(bridge="ours", table=0, priority=5, match=old.match, actions="drop")
    channel.change([added(old)])
    channel.change([added(new), delete_flow(0, old.cookie)])
    assert channel.flows(PLANNED) == [Seen(0, new.cookie)]


@pytest.mark.parametrize("position", [0, 1, 2, 500])
def test_what_is_refused_is_named_and_nothing_changes(channel: Channel, position: int) -> None:
    channel.change([added(flow(99))])
    changes = [added(flow(number)) for number in range(1, 800)]
    changes.insert(position, add_flow(9, 5, "", "goto_table:3", 7))
    with pytest.raises(FlowRefusedError, match="bad instruction: table out of range") as caught:
        channel.change(changes)
    assert caught.value.number == position
    assert channel.flows(PLANNED) == [Seen(0, flow(99).cookie)]
    channel.change([added(flow(1))])  # the connection is as good as before
    assert len(channel.flows(PLANNED)) == 2


def test_a_table_that_is_full_refuses_when_all_is_committed(host: OvsHost, channel: Channel) -> None:
    host.vsctl(
        *("--id=@full", "create", "Flow_Table", "flow_limit=3", "--"),
        *("set", "bridge", "ours", "flow_tables:0=@full"),
    )
    with pytest.raises(FlowRefusedError, match="table is full") as caught:
        channel.change([added(flow(number)) for number in range(1, 9)])
    assert caught.value.number == 3
    assert channel.flows(PLANNED) == []
    channel.change([added(flow(1))])
    assert channel.flows(PLANNED) == [Seen(0, flow(1).cookie)]


def test_a_switch_that_was_started_anew_is_found_again(host: OvsHost, channel: Channel) -> None:
    channel.change([added(flow())])
    host.kill_switch()
    with pytest.raises(UnavailableError, match="bridge ours does not answer at"):
        channel.change([added(flow())])
    host.start_switch()
    assert channel.flows(PLANNED) == []
    host.kill_switch()
    host.start_switch()
    channel.change([added(flow())])  # on a connection that broke meanwhile
    assert len(channel.flows(PLANNED)) == 1
    channel.check()


def test_a_bridge_that_is_not_there_is_named(host: OvsHost) -> None:
    with pytest.raises(UnavailableError, match="bridge none does not answer"):
        Channel(Place(host.directory), "none").check()


def test_a_bridge_of_another_version_says_what_to_set(host: OvsHost, channel: Channel) -> None:
    host.vsctl("set", "bridge", "ours", "protocols=OpenFlow10,OpenFlow13")
    with pytest.raises(UnavailableError, match=r"does not speak OpenFlow 1\.4 .*ovs-vsctl set bridge ours"):
        channel.check()


def test_the_end_of_the_switch_is_noticed_at_once(host: OvsHost) -> None:
    wake = os.eventfd(0)
    heard: list[bool] = []
    with contextlib.closing(Channel(Place(host.directory), "ours")) as channel:
        channel.check()
        waiter = threading.Thread(target=lambda: heard.append(channel.wait_for_end(wake)))
        waiter.start()
        host.kill_switch()
        waiter.join(10)
        assert heard == [True]
        host.start_switch()
        os.eventfd_write(wake, 1)
        assert channel.wait_for_end(wake) is False
    os.close(wake)


def test_each_start_of_a_switch_is_told_once(host: OvsHost, channel: Channel) -> None:
    """And so is each time that it has lost all flows, of which nothing is said."""
    starts: queue.SimpleQueue[None] = queue.SimpleQueue()

    def fill() -> bool:
        channel.change([added(flow(table=NETWORKS))])
        starts.put(None)
        return True

    fill()
    starts.get()
    watch = SwitchWatch(
        Channel(Place(host.directory), "ours"), fill, is_wanted=lambda: True, runs=lambda: True
    )
    try:
        for _ in range(2):
            host.kill_switch()
            host.start_switch()
            starts.get(timeout=30)
            host.ofctl("del-flows", "ours")
            starts.get(timeout=30)
        time.sleep(1.2)
        assert starts.empty()
    finally:
        watch.close()
        watch.close()


def test_a_start_is_told_again_until_it_was_of_use(host: OvsHost) -> None:
    """And of a bridge that should be there already, if it comes later."""
    starts: queue.SimpleQueue[None] = queue.SimpleQueue()
    answers = iter((False, True))

    def started() -> bool:
        starts.put(None)
        return next(answers)

    host.kill_switch()
    watch = SwitchWatch(
        Channel(Place(host.directory), "ours"), started, is_wanted=lambda: True, runs=lambda: True
    )
    try:
        host.start_switch()
        for _ in range(2):
            starts.get(timeout=30)
        assert starts.empty()
    finally:
        watch.close()


# A switch that does what a real one does seldom


@contextlib.contextmanager
def pretended_switch(directory: Path, serve: Callable[[socket.socket], None]) -> Iterator[Channel]:
    """Have *serve* be the switch, for one connection after the other."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "br.mgmt"))
        server.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as client:
                        serve(client)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            with contextlib.closing(Channel(Place(directory), "br")) as channel:
                yield channel
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_an_echo_is_answered(tmp_path: Path) -> None:
    echoed: list[bytes] = []

    def serve(client: socket.socket) -> None:
        client.sendall(struct.pack("!BBHI", 5, 0, 8, 0) + struct.pack("!BBHI", 5, 2, 12, 77) + b"abcd")
        client.recv(8, socket.MSG_WAITALL)  # hello
        client.recv(8, socket.MSG_WAITALL)  # barrier, sent before the echo was read
        echoed.append(client.recv(12, socket.MSG_WAITALL))
        client.sendall(struct.pack("!BBHI", 5, 21, 8, 2))
        client.recv(8, socket.MSG_WAITALL)
        client.sendall(struct.pack("!BBHI", 5, 21, 8, 2))
        client.recv(1)

    with pretended_switch(tmp_path, serve) as channel:
        channel.check()
    assert echoed == [struct.pack("!BBHI", 5, 3, 12, 77) + b"abcd"]


def test_a_switch_that_hangs_up_again_and_again_is_unavailable(tmp_path: Path) -> None:
    calls: list[None] = []
    with (
        pretended_switch(tmp_path, lambda _: calls.append(None)) as channel,
        pytest.raises(UnavailableError, match="does not answer"),
    ):
        channel.check()
    assert len(calls) == 1
