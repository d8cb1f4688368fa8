"""The netlink socket speaks to the kernel: batches, errors, dumps; pyroute2 reads the same answers."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.kernel import answers, rtnl
from pynetwork.kernel.netlink import Message, NetlinkError, NetlinkSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root
GROUP = 77


@pytest.fixture
def netlink(host: PrivateHost) -> Iterator[NetlinkSocket]:
    """A socket on a private host; the links of the group are deleted at the end."""
    with NetlinkSocket() as netlink:
        yield netlink
        assert set(netlink.batch([rtnl.delete_group(GROUP)])) <= {0}


def bridge(name: str, **options: str) -> Message:
    return rtnl.bridge(name, group=GROUP, **options)  # type: ignore[arg-type]


def names(netlink: NetlinkSocket) -> set[str]:
    return {answers.parse_link(payload).name for payload in netlink.dump(answers.dump_links)} - {"lo"}


def make_veths(netlink: NetlinkSocket, count: int) -> None:
    """Make veth pairs v0 and w0, v1 and w1 and so on, both ends on the host."""
    with Path("/proc/thread-self/ns/net").open(encoding="ascii") as here:
        messages = [
            rtnl.veth(
                f"v{number}",
                peer=f"w{number}",
                mac=f"02:00:00:00:00:{number:02x}",
                netns=here.fileno(),
                group=GROUP,
            )
            for number in range(count)
        ]
        assert netlink.batch(messages) == {}


def index_of(netlink: NetlinkSocket, name: str) -> int:
    return answers.ifindex_of(netlink.ask(rtnl.get_link(name)))


def test_a_batch_goes_on_after_an_error_and_says_which_message_it_was(netlink: NetlinkSocket) -> None:
    errors = netlink.batch([bridge("b0"), bridge("b0"), rtnl.set_link("nope", up=True), bridge("b1")])
    assert {number: error.errno for number, error in errors.items()} == {1: errno.EEXIST, 2: errno.ENODEV}
    assert names(netlink) == {"b0", "b1"}


def test_an_error_of_the_last_message_is_not_taken_for_its_acknowledgement(netlink: NetlinkSocket) -> None:
    errors = netlink.batch([bridge("b0"), bridge("b0")])
    assert list(errors) == [1]
    assert netlink.batch([bridge("b1")]) == {}
    assert netlink.batch([]) == {}


def test_an_error_of_the_first_message_leaves_no_answer_for_the_next_batch(netlink: NetlinkSocket) -> None:
    for _ in range(3):
        assert list(netlink.batch([rtnl.set_link("nope", up=True), rtnl.set_link("lo", up=True)])) == [0]
        netlink.request(rtnl.set_link("lo", up=True))


def test_the_kernel_s_own_words_are_in_the_error(netlink: NetlinkSocket) -> None:
    lo = index_of(netlink, "lo")
    netlink.request(rtnl.address("192.0.2.1/24", lo))
    with pytest.raises(NetlinkError, match=r"File exists: .*already assigned") as caught:
        netlink.request(rtnl.address("192.0.2.1/24", lo))
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(NetlinkError, match="invalid gateway"):
        netlink.request(rtnl.route("10.9.0.0/16", lo, via="203.0.113.1", metric=None))
    with pytest.raises(NetlinkError, match="Unknown device type"):
        netlink.request(kind_of_no_module())


def kind_of_no_module() -> Message:
    from pynetwork.kernel.netlink import nested, text

    info = nested(rtnl.IFLA_LINKINFO, text(rtnl.IFLA_INFO_KIND, "nosuchkind"))
    payload = rtnl.IFINFO.pack(0, 0, 0, 0, 0) + text(rtnl.IFLA_IFNAME, "x0") + info
    return Message(rtnl.RTM_NEWLINK, 0x600, payload)


def test_the_error_of_a_message_of_odd_length_is_told(netlink: NetlinkSocket) -> None:
    """Messages are padded to four bytes in the buffer; the length in their header is not."""
    odd = Message(rtnl.RTM_SETLINK, 0, rtnl.IFINFO.pack(0, 0, 0, 0, 0) + b"\x08\x00\x03\x00abc")
    errors = netlink.batch([odd, bridge("b0"), odd])
    assert sorted(errors) == [0, 2]
    assert names(netlink) == {"b0"}


def test_more_messages_than_the_kernel_can_keep_answers_of_at_once(netlink: NetlinkSocket) -> None:
    lo = index_of(netlink, "lo")
    addresses = [f"10.0.{number >> 8}.{number & 255}/32" for number in range(1000)]
    assert netlink.batch([rtnl.address(cidr, lo) for cidr in addresses]) == {}
    again = [rtnl.address(cidr, lo) for cidr in addresses]
    again[400:600] = [rtnl.address(f"10.1.0.{number}/32", lo) for number in range(200)]
    errors = netlink.batch(again)
    assert sorted(errors) == [*range(400), *range(600, 1000)]
    assert {error.errno for error in errors.values()} == {errno.EEXIST}
    found = [answers.parse_address(payload).cidr for payload in netlink.dump(answers.dump_addresses)]
    assert len(found) == 1202  # and those of the loopback


def test_a_dump_of_many_links_is_complete(netlink: NetlinkSocket) -> None:
    make_veths(netlink, 60)
    assert names(netlink) == {f"{end}{number}" for end in "vw" for number in range(60)}


class Disturbed:
    """A socket while whose answers are read, one after the other, an address comes or goes."""

    def __init__(self, inner: socket.socket, disturbances: int) -> None:
        self._inner = inner
        self.left = disturbances

    def recv(self, size: int) -> bytes:
        answer = self._inner.recv(size)
        if self.left:
            self.left -= 1
            with NetlinkSocket() as other:
                other.request(rtnl.address("10.9.9.9/32", 1, delete=bool(self.left % 2)))
        return answer

    def send(self, data: bytes) -> int:
        return self._inner.send(data)

    def close(self) -> None:
        self._inner.close()


def disturb(netlink: NetlinkSocket, disturbances: int) -> Disturbed:
    netlink._socket = Disturbed(netlink._socket, disturbances)  # type: ignore[assignment]
    return netlink._socket  # type: ignore[return-value]


def test_a_dump_that_is_interrupted_is_made_again(netlink: NetlinkSocket) -> None:
    """The kernel marks a dump during which its objects changed: it may lack some, or have some twice."""
    wanted = {f"10.0.{number >> 8}.{number & 255}/32" for number in range(1000)}
    assert netlink.batch([rtnl.address(cidr, 1) for cidr in sorted(wanted)]) == {}
    disturbed = disturb(netlink, 3)
    found = [answers.parse_address(payload).cidr for payload in netlink.dump(answers.dump_addresses)]
    assert disturbed.left == 0
    assert len(found) == len(set(found))
    assert set(found) - {"127.0.0.1/8", "::1/128"} == wanted | {"10.9.9.9/32"}


def test_a_dump_that_is_interrupted_for_ever_is_an_error(netlink: NetlinkSocket) -> None:
    assert netlink.batch([rtnl.address(f"10.0.{n >> 8}.{n & 255}/32", 1) for n in range(1000)]) == {}
    disturb(netlink, 1001)
    with pytest.raises(NetlinkError, match="interrupted by changes again and again") as caught:
        netlink.dump(answers.dump_addresses)
    assert caught.value.errno == errno.EINTR


def test_a_question_for_what_is_not_there_is_an_error_and_the_next_is_answered(
    netlink: NetlinkSocket,
) -> None:
    with pytest.raises(NetlinkError) as caught:
        netlink.ask(rtnl.get_link("nope"))
    assert caught.value.errno == errno.ENODEV
    assert index_of(netlink, "lo") == 1


def test_threads_share_a_socket(netlink: NetlinkSocket) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for count in range(50):
            name = f"t{number}"
            errors = netlink.batch([bridge(name), rtnl.set_link("nope", up=True), rtnl.set_link(name)])
            if set(errors) != ({1} if count == 0 else {0, 1}):
                wrong.append(errors)
            if answers.parse_link(netlink.ask(rtnl.get_link(name))).name != name:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture
def populated(netlink: NetlinkSocket, host: PrivateHost) -> NetlinkSocket:
    """A host with one of everything, made by `ip`."""
    for line in (
        f"ip link add br0 address 02:00:00:00:00:10 group {GROUP} type bridge mcast_snooping 1",
        f"ip link add br1 group {GROUP} type bridge mcast_snooping 0",
        f"ip link add v0 group {GROUP} type veth peer name v1 address 02:00:00:00:00:11",
        "ip link set br0 mtu 1400",
        "ip link set v0 master br0",
        "ip link set v0 up",
        "ip link set v1 up",
        "ip link set br0 up",
        "ip address add 10.1.0.1/24 dev br0",
        "ip address add 10.2.0.1 peer 10.2.0.2/32 dev br0",
        "ip address add fd01::1/64 dev br0 nodad",
        "ip route add default via 10.1.0.9",
        "ip route add 10.3.0.0/16 dev br0 metric 7 proto 112",
        "ip route add 10.4.0.0/16 via 10.1.0.8 metric 5",
        "ip route add 10.5.0.0/16 dev br0 table 500",
        "ip route add blackhole 10.6.0.0/16",
        "ip -6 route add default via fd01::9",
        "ip -6 route add fd02::/64 dev br0 metric 9",
        "ip neighbour add 10.1.0.9 lladdr 02:00:00:00:00:12 dev br0 nud permanent",
        "ip neighbour add fd01::9 lladdr 02:00:00:00:00:13 dev br0 nud permanent",
        "ip neighbour add 10.1.0.7 lladdr 02:00:00:00:00:14 dev br0 nud reachable",
    ):
        host.run(line.split())
    return netlink


def test_links_are_read_as_pyroute2_reads_them(populated: NetlinkSocket, oracle: Oracle) -> None:
    theirs = oracle.links()
    ours = {link.name: link for link in map(answers.parse_link, populated.dump(answers.dump_links))}
    assert ours.keys() == theirs.keys() == {"lo", "br0", "br1", "v0", "v1"}
    for name, link in ours.items():
        other = theirs[name]
        assert (link.ifindex, link.kind, link.mac, link.mtu) == (
            other.ifindex,
            other.kind,
            other.mac,
            other.mtu,
        )
        assert (link.up, link.group, link.master, link.link) == (
            other.up,
            other.group,
            other.master,
            other.peer,
        )
        assert link.multicast_snooping == bool(other.snooping)
        assert answers.parse_link(populated.ask(rtnl.get_link(name))).mac == link.mac
    assert (ours["br0"].mtu, ours["br0"].mac, ours["v0"].master) == (
        1400,
        "02:00:00:00:00:10",
        ours["br0"].ifindex,
    )


def test_addresses_are_read_as_pyroute2_reads_them(populated: NetlinkSocket, oracle: Oracle) -> None:
    ours = [answers.parse_address(payload) for payload in populated.dump(answers.dump_addresses)]
    theirs = [(each.ifindex, each.cidr, each.protocol) for each in oracle.addresses()]
    assert sorted(tuple(each) for each in ours) == sorted(theirs)
    assert {"10.1.0.1/24", "10.2.0.1/32", "fd01::1/64"} <= {each.cidr for each in ours}


def test_routes_are_read_as_pyroute2_reads_them(populated: NetlinkSocket, oracle: Oracle) -> None:
    found = [answers.parse_route(payload) for payload in populated.dump(answers.dump_routes)]
    ours = [route for route in found if route is not None]
    main = sorted(
        (each.dst, each.ifindex, each.via or "", each.metric, each.protocol)
        for each in ours
        if each.table == rtnl.RT_TABLE_MAIN
    )
    theirs = sorted((each.dst, each.ifindex, each.via or "", *each[3:]) for each in oracle.routes())
    assert main == theirs
    assert ("0.0.0.0/0", "10.1.0.9") in {(each[0], each[2]) for each in main}
    assert ("::/0", "fd01::9") in {(each[0], each[2]) for each in main}
    assert [each.dst for each in ours if each.table == 500] == ["10.5.0.0/16"]
    assert "10.6.0.0/16" not in {each.dst for each in ours}


def test_neighbours_are_read_as_pyroute2_reads_them(populated: NetlinkSocket, oracle: Oracle) -> None:
    ours = [answers.parse_neighbour(payload) for payload in populated.dump(answers.dump_neighbours)]
    theirs = {(each.ifindex, each.address, each.mac, bool(each.state & 0x80)) for each in oracle.neighbours()}
    assert {tuple(each) for each in ours if each is not None} == theirs
    permanent = {each.address for each in ours if each is not None and each.permanent}
    assert permanent == {"10.1.0.9", "fd01::9"}
