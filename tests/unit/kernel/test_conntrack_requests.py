"""What is asked of the kernel about connections: never to forget all, whatever the kernel understands."""

from __future__ import annotations

import errno
import ipaddress
from typing import TYPE_CHECKING, Any, cast

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from pynetwork.kernel import conntrack
from pynetwork.kernel.netlink import Message, NetlinkError, NetlinkSocket, attribute, attributes, nested
from pynetwork.resources import Conntrack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GET, DELETE = 0x101, 0x102
ORIG, REPLY, ZONE, FILTER = 1, 2, 18, 25
REQUESTS = ("delete", "dump", "filtered delete", "filtered dump")
EFFECTS = [
    Conntrack(version=version, **which)
    for version, one, two in ((4, "10.1.0.1", "10.2.0.1"), (6, "fd01::1", "fd02::1"))
    for which in cast(
        "list[dict[str, Any]]",
        [
            {"address": one},
            {"proto": "udp", "first": 53, "last": 53},
            {"proto": "tcp", "first": 53, "last": 55, "destination": one},
            {"proto": "tcp", "first": 53, "last": 53, "target": two},
            {"proto": "udp", "first": 1000, "last": 9999, "destination": one, "target": two},
        ],
    )
]


def entry(
    number: int, src: str, dst: str, port: int, *, answerer: str | None = None, proto: int = 17
) -> bytes:
    """Return an entry as a dump has it; *number* is its zone."""

    def tuple_(kind: int, source: str, target: str, ports: tuple[int, int]) -> bytes:
        addresses = [ipaddress.ip_address(each) for each in (source, target)]
        first = 1 if addresses[0].version == 4 else 3
        ips = (attribute(first + n, each.packed) for n, each in enumerate(addresses))
        numbers = (attribute(2 + n, each.to_bytes(2, "big")) for n, each in enumerate(ports))
        return nested(kind, nested(1, *ips), nested(2, attribute(1, bytes([proto])), *numbers))

    there, back = tuple_(ORIG, src, dst, (4000, port)), tuple_(REPLY, answerer or dst, src, (port, 4000))
    return bytes(4) + there + back + attribute(ZONE, number.to_bytes(2, "big"))


class Kernel:
    """Answers like kernels of some age: *refusals* by what they know nothing of."""

    def __init__(self, entries: Sequence[bytes] = (), refusals: Mapping[str, int] | None = None) -> None:
        self.entries = list(entries)
        self.refusals = dict(refusals or {})
        self.sent: list[Message] = []

    def _take(self, message: Message) -> NetlinkError | None:
        self.sent.append(message)
        found = attributes(message.payload, 4)
        verb = "dump" if message.kind == GET else "delete"
        code = self.refusals.get(f"filtered {verb}" if FILTER in found else verb)
        return None if code is None else NetlinkError(code, "no")

    def request(self, message: Message) -> None:
        if (error := self._take(message)) is not None:
            raise error

    def batch(self, messages: Sequence[Message]) -> Mapping[int, NetlinkError]:
        taken = [self._take(message) for message in messages]
        return {number: error for number, error in enumerate(taken) if error is not None}

    def dump(self, message: Message) -> list[bytes]:
        self.request(message)
        return self.entries

    @property
    def deleted(self) -> list[int]:
        found = [attributes(m.payload, 4) for m in self.sent if m.kind == DELETE]
        return [int.from_bytes(each[ZONE], "big") for each in found if ZONE in each]


def forget(kernel: Kernel, effect: Conntrack) -> None:
    conntrack.forget(cast("NetlinkSocket", kernel), effect)


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    "refusals", [{}, {"filtered delete": errno.EOPNOTSUPP}, {"filtered delete": errno.EINVAL}]
)
def test_no_deletion_is_one_of_everything(effect: Conntrack, refusals: dict[str, int]) -> None:
    """A kernel that knows no filters must find a tuple that it refuses, or it would forget all."""
    known = {4: entry(1, "10.9.0.1", "10.1.0.1", 53), 6: entry(2, "fd09::1", "fd01::1", 53)}
    kernel = Kernel([known[effect.version]], refusals)
    forget(kernel, effect)
    for message in kernel.sent:
        if message.kind == DELETE:
            assert attributes(message.payload, 4).keys() & {ORIG, REPLY}
            assert message.payload[0] != 0  # of one family


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_conntrack_there_is_nothing_to_forget(effect: Conntrack, code: int) -> None:
    forget(Kernel(refusals=dict.fromkeys(REQUESTS, code)), effect)


@pytest.mark.parametrize("effect", EFFECTS)
def test_other_errors_are_told(effect: Conntrack) -> None:
    refusals = dict.fromkeys(REQUESTS, errno.EPERM)
    with pytest.raises(NetlinkError):
        forget(Kernel(refusals=refusals), effect)


ENTRIES = [
    entry(1, "10.9.0.1", "10.1.0.1", 53, answerer="10.2.0.1"),
    entry(2, "10.9.0.1", "10.1.0.1", 53),
    entry(3, "10.9.0.1", "10.3.0.1", 53, answerer="10.2.0.1"),
    entry(4, "10.1.0.1", "10.9.0.1", 443),
    entry(5, "10.9.0.1", "10.1.0.1", 54, proto=6),
]


@pytest.mark.parametrize(
    ("which", "gone"),
    [
        ({"address": "10.1.0.1"}, [1, 2, 4, 5]),
        ({"address": "10.2.0.1"}, [1, 3]),
        ({"proto": "udp", "first": 53, "last": 53}, [1, 2, 3]),
        ({"proto": "udp", "first": 53, "last": 53, "destination": "10.1.0.1"}, [1, 2]),
        ({"proto": "udp", "first": 53, "last": 53, "target": "10.2.0.1"}, [1, 3]),
        ({"proto": "tcp", "first": 1, "last": 60}, [5]),
        ({"proto": "sctp", "first": 1, "last": 60}, []),
    ],
)
def test_a_kernel_without_filtered_deletions_forgets_the_same(which: dict[str, Any], gone: list[int]) -> None:
    kernel = Kernel(ENTRIES, {"filtered delete": errno.EOPNOTSUPP})
    forget(kernel, Conntrack(version=4, **which))
    assert kernel.deleted == gone


def test_what_goes_by_itself_meanwhile_is_no_error() -> None:
    kernel = Kernel(ENTRIES, {"filtered delete": errno.EOPNOTSUPP, "delete": errno.ENOENT})
    forget(kernel, Conntrack(version=4, address="10.2.0.1"))
    assert kernel.deleted == [1, 3]


def test_ports_beyond_a_few_are_looked_at_once() -> None:
    kernel = Kernel(ENTRIES)
    forget(kernel, Conntrack(version=4, proto="udp", first=1, last=100))
    assert [message.kind for message in kernel.sent] == [GET, DELETE, DELETE, DELETE]


@pytest.mark.parametrize("version", [4, 6])
def test_no_filter_is_by_ipv6_address(version: int) -> None:
    kernel = Kernel()
    for effect in EFFECTS:
        if effect.version == version:
            forget(kernel, effect)
    tuples = [
        attributes(attributes(found[side]).get(1, b""))
        for found in (attributes(message.payload, 4) for message in kernel.sent)
        if FILTER in found
        for side in (ORIG, REPLY)
        if side in found
    ]
    assert any(tuples) == (version == 4)


def test_a_request_reads_as_it_is_meant() -> None:
    """As pyroute2 decodes it."""
    flow = conntrack.Flow(4, dst="10.1.0.1", proto="udp", port=53, answerer="10.2.0.1")
    payload = conntrack._message(DELETE, 4, flow.filter()).payload
    message = nfct_msg((16 + len(payload)).to_bytes(4, "little") + bytes(12) + payload)
    message.decode()
    orig, reply = message.get_attr("CTA_TUPLE_ORIG"), message.get_attr("CTA_TUPLE_REPLY")
    assert orig.get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_DST") == "10.1.0.1"
    assert orig.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_NUM") == 17
    assert orig.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_DST_PORT") == 53
    assert reply.get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_SRC") == "10.2.0.1"
    flags = attributes(attributes(payload, 4)[FILTER])
    assert [int.from_bytes(flags[side], "little") for side in (1, 2)] == [2 | 8 | 32, 1]
