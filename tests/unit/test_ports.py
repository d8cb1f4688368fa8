"""Ports as they are written, and the index of those that are published."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork import InvalidValueError
from pynetwork.port_index import PortIndex
from pynetwork.ports import PROTOCOLS, PortBinding
from pynetwork.specs import PortSpec


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("80", {"first": 80, "last": 80}),
        ("80/udp", {"proto": "udp", "first": 80, "last": 80}),
        ("1/sctp", {"proto": "sctp", "first": 1, "last": 1}),
        ("80/TCP", {"proto": "tcp", "first": 80, "last": 80}),
        ("80/Udp", {"proto": "udp", "first": 80, "last": 80}),
        ({"proto": "SCTP", "first": 80, "last": 80}, {"proto": "sctp", "first": 80, "last": 80}),
        ("65535", {"first": 65535, "last": 65535}),
        (":80", {"first": 80, "last": 80}),
        ("::80", {"first": 80, "last": 80}),
        (":8080:80", {"first": 80, "last": 80, "host_first": 8080, "host_last": 8080}),
        ("8080:80/tcp", {"first": 80, "last": 80, "host_first": 8080, "host_last": 8080}),
        ("80-82", {"first": 80, "last": 82}),
        ("80-80", {"first": 80, "last": 80}),
        ("90-92:80-82", {"first": 80, "last": 82, "host_first": 90, "host_last": 92}),
        ("8000-8010:80", {"first": 80, "last": 80, "host_first": 8000, "host_last": 8010}),
        ("127.0.0.1::80", {"first": 80, "last": 80, "host_address": "127.0.0.1"}),
        (
            "127.0.0.1:8080:80",
            {"first": 80, "last": 80, "host_address": "127.0.0.1", "host_first": 8080, "host_last": 8080},
        ),
        ("0.0.0.0::80", {"first": 80, "last": 80, "host_address": "0.0.0.0"}),
        ("[::]::80", {"first": 80, "last": 80, "host_address": "::"}),
        ("[::]:80", {"first": 80, "last": 80, "host_address": "::"}),
        (
            "[2001:DB8::1]:1-2:3-4/udp",
            {
                "proto": "udp",
                "first": 3,
                "last": 4,
                "host_address": "2001:db8::1",
                "host_first": 1,
                "host_last": 2,
            },
        ),
        ("[::ffff:192.0.2.1]::80", {"first": 80, "last": 80, "host_address": "192.0.2.1"}),
        (443, {"first": 443, "last": 443}),
        ({"first": 80, "last": 81}, {"first": 80, "last": 81}),
    ],
)
def test_a_port_is_read_from_dockers_notation(text: object, fields: dict[str, Any]) -> None:
    assert PortBinding.parse(text) == PortBinding(**fields)


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "0",
        "65536",
        "99999",
        "100000",
        "-1",
        "80-",
        "-80",
        "80-79",
        "80-0",
        "0:80",
        "65536:80",
        "81-80:80",
        "8080-8082:80-81",
        "8080:80-81",
        "80-90:1-5",
        "http",
        "8o",
        "80/",
        "80/icmp",
        "80/\u017fctp",
        "80/tcp/udp",
        "/tcp",
        ":",
        "::",
        ":::80",
        " 80",
        "80 ",
        "80\n",
        "\u0668\u0660",
        "+80",
        "0x50",
        "8e1",
        "80.0",
        "1.2.3.4",
        "1.2.3.4:80",
        "1.2.3:80:80",
        "256.0.0.1:80:80",
        "10.0.0.0/8:80:80",
        "localhost:80:80",
        "::1:80:80",
        "2001:db8::1:80:80",
        "[::1:80:80",
        "::1]:80:80",
        "[]:80:80",
        "[]:80",
        "[[::1]]:80:80",
        "[127.0.0.1]:80:80",
        "[::1][::1]:80:80",
        "[fe80::1%eth0]:80:80",
        "80;reboot",
        "$(reboot)",
        "`id`:80",
        "eth0:80:80",
        "80 } ; flush ruleset",
        "80/tcp }; flush ruleset",
        '"80"',
        "@ports4",
        "80\x00",
        0,
        -1,
        65536,
        True,
        80.0,
        None,
        b"80",
        ("80",),
        ["80"],
        {},
        {"first": 80},
        {"first": 80, "last": 80, "port": 80},
        {"first": "80", "last": "80"},
        {"first": True, "last": True},
        {"first": 80, "last": 80, "proto": "icmp"},
        {"first": 80, "last": 80, "host_first": 80},
        {"first": 80, "last": 80, "host_last": 80},
        {"first": 80, "last": 80, "host_address": "eth0"},
        {"first": 80, "last": 80, "host_address": 1},
        {1: 80},
    ],
)
def test_junk_is_no_port(junk: object) -> None:
    with pytest.raises(InvalidValueError):
        PortBinding.parse(junk)


def test_what_was_chosen_for_somebody_else_is_to_be_chosen_again() -> None:
    chosen = PortBinding(first=80, last=80, host_port=8080)
    assert PortBinding.parse(chosen).host_port is None
    assert PortBinding.parse({"first": 80, "last": 80, "host_port": 8080}).host_port is None


_ports = st.integers(1, 65535)
# What maps an IPv4 address is read as that.
_v6 = st.integers(2**48, 2**128 - 1).map(IPv6Address)
_addresses = st.one_of(st.none(), st.ip_addresses(v=4), _v6)


@st.composite
def _bindings(draw: st.DrawFn) -> PortBinding:
    first, last = sorted((draw(_ports), draw(_ports)))
    host: tuple[int | None, int | None] = (None, None)
    if draw(st.booleans()):
        low = draw(st.integers(1, 65535 - (last - first)))
        host = (low, draw(st.integers(low, 65535)) if first == last else low + last - first)
    return PortBinding(
        proto=draw(st.sampled_from(PROTOCOLS)),
        first=first,
        last=last,
        host_address=draw(_addresses),
        host_first=host[0],
        host_last=host[1],
    )


@given(_bindings())
def test_a_port_is_read_as_it_was_written(binding: PortBinding) -> None:
    assert PortBinding.parse(str(binding)) == binding


@given(_bindings(), _ports)
def test_a_chosen_port_is_written_as_what_asks_for_it(binding: PortBinding, number: int) -> None:
    number = min(number, 65536 - binding.size)
    again = PortBinding.parse(str(attrs.evolve(binding, host_port=number)))
    assert (again.host_first, again.host_last) == (number, number + binding.size - 1)
    assert not again.is_flexible
    assert attrs.evolve(again, host_first=binding.host_first, host_last=binding.host_last) == binding


@given(st.text(alphabet="0123456789:-[]./tcpudf ;{}$") | st.text())
def test_any_text_is_a_port_or_refused(text: str) -> None:
    try:
        binding = PortBinding.parse(text)
    except InvalidValueError:
        return
    assert PortBinding.parse(str(binding)) == binding


MATCHES = [
    ("80", None, "80", True),
    ("80", None, "81", False),
    ("80", None, "80/udp", False),
    ("80-81", None, "80", False),
    ("80", 32768, "32768:80", True),
    ("80", 32768, "32769:80", False),
    ("80", 32768, "127.0.0.1::80", False),
    ("127.0.0.1::80", 32768, "80", True),
    ("127.0.0.1::80", 32768, "127.0.0.1:32768:80", True),
    ("127.0.0.1::80", 32768, "127.0.0.2::80", False),
    ("8080-8090:80", 8085, "8080-8090:80", True),
    ("8080-8090:80", 8085, "8085:80", True),
    ("8080-8090:80", 8085, "8080:80", False),
    ("8080-8081:80-81", 8080, "8080-8081:80-81", True),
    ("8080-8081:80-81", 8080, "80-81", True),
    ("8080:80", 8080, "8080-8090:80", False),
]


@pytest.mark.parametrize(("published", "number", "asked", "does"), MATCHES)
def test_what_is_left_open_matches_anything(
    published: str, number: int | None, asked: str, does: bool
) -> None:
    binding = attrs.evolve(PortBinding.parse(published), host_port=number)
    assert binding.matches(PortBinding.parse(asked)) is does


def test_a_chosen_port_matches_itself_and_not_another_for_the_same() -> None:
    one, other = (PortBinding(first=80, last=80, host_port=number) for number in (32768, 32769))
    assert one.matches(one)
    assert not one.matches(other)


# The index

_HOSTS = (None, "0.0.0.0", "192.0.2.1", "192.0.2.2", "::", "2001:db8::1")
_near = st.sampled_from((1, 2, 254, 255, 256, 257, 511, 512, 513, 1000, 65534, 65535))


def _range(one: int, other: int) -> tuple[int, int]:
    last = max(one, other)
    return max(min(one, other), last - 600), last


@st.composite
def _published(draw: st.DrawFn) -> PortSpec:
    first, last = _range(draw(_near), draw(_near))
    binding = PortBinding(
        proto=draw(st.sampled_from(("tcp", "udp"))),
        first=1,
        last=1 + last - first,
        host_address=draw(st.sampled_from(_HOSTS)),
        host_port=draw(st.sampled_from((first, None))),
    )
    has = draw(st.sets(st.sampled_from((4, 6))))
    return PortSpec(
        id="0",
        endpoint=f"{draw(st.integers(0, 2**64)):032x}",
        binding=binding,
        versions=sorted(has.intersection(binding.versions)),
    )


def _is_taken(spec: PortSpec, version: int, proto: str, host: str | None, number: int) -> bool:
    """As one would say it: somebody claims that port of that address."""
    binding, address = spec.binding, spec.binding.host_address
    if binding.proto != proto or number not in binding.numbers() or version not in spec.versions:
        return False
    return address is None or address.is_unspecified or host is None or ip_address(host) == address


@given(
    st.lists(_published(), unique_by=lambda spec: spec.endpoint, max_size=8),
    st.data(),
    st.sampled_from(((4, None), (4, "192.0.2.1"), (4, "192.0.2.9"), (6, None), (6, "2001:db8::1"))),
    st.sampled_from(("tcp", "udp", "sctp")),
)
def test_the_index_says_what_a_search_of_all_ports_says(
    specs: list[PortSpec], data: st.DataObject, where: tuple[int, str | None], proto: str
) -> None:
    index = PortIndex()
    for spec in specs:
        index.add(spec)
    gone = data.draw(st.sets(st.sampled_from(specs))) if specs else set()
    for spec in gone:
        index.remove(spec)
    left = [spec for spec in specs if spec not in gone]
    first, last = _range(data.draw(_near), data.draw(_near))
    version, host = where
    hits = [
        (number, spec.endpoint)
        for number in range(first, last + 1)
        for spec in left
        if _is_taken(spec, version, proto, host, number)
    ]
    assert index.taken(version, proto, None if host is None else ip_address(host), first, last) == max(
        hits, default=None
    )


def _spec(**fields: Any) -> PortSpec:
    return PortSpec(id="0", endpoint="e" * 32, binding=PortBinding(**fields), versions=[4])


def test_an_index_of_nothing_holds_nothing() -> None:
    index = PortIndex()
    spec = _spec(first=1, last=65535, host_port=1)
    index.add(spec)
    assert index.taken(4, "tcp", None, 700, 700) == (700, spec.endpoint)
    assert index.last_chosen("tcp") == 65535
    index.remove(spec)
    assert index.taken(4, "tcp", None, 1, 65535) is None
    index.add(spec)
    index.clear()
    assert index.taken(4, "tcp", None, 1, 65535) is None
    assert index.last_chosen("tcp") == 0


def test_only_what_was_chosen_of_all_ports_is_what_the_next_comes_after() -> None:
    index = PortIndex()
    index.add(_spec(first=80, last=80, host_port=40000))
    index.add(_spec(first=81, last=81, host_first=8000, host_last=8010, host_port=8003))
    index.add(_spec(first=82, last=82, host_first=82, host_last=82, host_port=82))
    assert index.last_chosen("tcp") == 40000
    assert index.last_chosen("udp") == 0
