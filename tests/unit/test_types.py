"""What callers hold is understood or refused by name, never guessed."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from random import Random
from typing import TYPE_CHECKING

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork.errors import InvalidValueError
from pynetwork.types import (
    Scope,
    check_interface_name,
    check_interface_prefix,
    check_labels,
    check_name,
    new_id,
    parse_address,
    parse_interface,
    parse_mac,
    parse_network,
    random_mac,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAC = "02:42:ac:11:00:0a"
NOT_TEXT = [None, 1, True, 1.5, b"eth0", ["eth0"], ("eth0",)]


def seeded() -> Random:
    return Random(7)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "7", "Web-1_x.y", "a" * 255, "0--"])
    def test_good(self, name: str) -> None:
        assert check_name("network", name) is name

    @pytest.mark.parametrize(
        "name",
        ["", "-a", "_a", ".a", "a b", "a/b", "a\n", "ä", "a:b", "a" * 256, "a\0", "²", *NOT_TEXT],
    )
    def test_bad(self, name: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid endpoint name") as caught:
            check_name("endpoint", name)
        assert repr(name) in str(caught.value)


class TestInterfaceNames:
    @pytest.mark.parametrize(
        "name", ["eth0", "a", "x" * 15, "br-0123456789ab", "eth0.5", "...", "ä" * 7, "@"]
    )
    def test_good(self, name: str) -> None:
        assert check_interface_name(name) is name

    @pytest.mark.parametrize(
        "name",
        [
            *("", ".", "..", "x" * 16, "ä" * 8, "a/b", "a:b", "eth%d", "a b", "a\t", "a\n", "\x7f", "a\0b"),
            *("\u00a0", "\u2028", "\ud800", *NOT_TEXT),
        ],
    )
    def test_bad(self, name: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid interface name"):
            check_interface_name(name)

    @pytest.mark.parametrize("prefix", ["eth", "net-", "x" * 11])
    def test_good_prefix(self, prefix: str) -> None:
        assert check_interface_prefix(prefix) is prefix

    @pytest.mark.parametrize("prefix", ["", "eth0", "x" * 12, "ä" * 6, "a b", None])
    def test_bad_prefix(self, prefix: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid interface"):
            check_interface_prefix(prefix)

    @given(st.text(max_size=16))
    def test_good_prefixes_leave_room_for_a_number(self, text: str) -> None:
        try:
            prefix = check_interface_prefix(text)
        except InvalidValueError:
            return
        assert check_interface_name(f"{prefix}9999")


class TestLabels:
    def test_are_copied(self) -> None:
        labels = {"a": "1", "b": ""}
        checked = check_labels(labels)
        assert labels == checked
        assert checked is not labels

    @pytest.mark.parametrize(
        "labels", [None, [], "a", {"": "x"}, {1: "x"}, {"a": 1}, {"a": None}, [("a", "b")]]
    )
    def test_bad(self, labels: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid labels"):
            check_labels(labels)


class TestAddresses:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("10.0.0.1", IPv4Address("10.0.0.1")),
            ("FD00::0:1", IPv6Address("fd00::1")),
            (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.1")),
            (netaddr.IPAddress("10.0.0.1"), IPv4Address("10.0.0.1")),
            (netaddr.IPAddress("fd00::1"), IPv6Address("fd00::1")),
        ],
    )
    def test_address(self, value: object, expected: object) -> None:
        assert parse_address(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("10.0.0.0/24", IPv4Network("10.0.0.0/24")),
            ("10.0.0.0/255.255.255.0", IPv4Network("10.0.0.0/24")),
            ("fd00::/64", IPv6Network("fd00::/64")),
            (IPv6Network("fd00::/64"), IPv6Network("fd00::/64")),
            (netaddr.IPNetwork("10.0.0.0/24"), IPv4Network("10.0.0.0/24")),
        ],
    )
    def test_network(self, value: object, expected: object) -> None:
        assert parse_network(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("10.0.0.1/24", IPv4Interface("10.0.0.1/24")),
            ("fd00::1/64", IPv6Interface("fd00::1/64")),
            (IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.1/24")),
            (netaddr.IPNetwork("10.0.0.1/24"), IPv4Interface("10.0.0.1/24")),
        ],
    )
    def test_interface(self, value: object, expected: object) -> None:
        assert parse_interface(value) == expected

    @pytest.mark.parametrize("parse", [parse_address, parse_network, parse_interface])
    @pytest.mark.parametrize(
        "value",
        ["", "x", "10.0.0", "10.0.0.256", "10.0.0.01", "10.0.0.1/33", "fd00::g", " 10.0.0.1", *NOT_TEXT],
    )
    def test_junk(self, parse: Callable[..., object], value: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid gateway"):
            parse(value, "gateway")

    def test_an_address_has_no_prefix_length(self) -> None:
        for value in ("10.0.0.1/24", IPv4Interface("10.0.0.1/24"), netaddr.IPNetwork("10.0.0.1/24")):
            with pytest.raises(InvalidValueError, match="invalid address"):
                parse_address(value)

    def test_a_network_has_no_bits_below_its_mask(self) -> None:
        for value in ("10.0.0.1/24", IPv4Interface("10.0.0.1/24"), netaddr.IPNetwork("10.0.0.1/24")):
            with pytest.raises(InvalidValueError, match="host bits"):
                parse_network(value)


class TestMacs:
    @pytest.mark.parametrize(
        "value",
        [
            *(MAC, MAC.upper(), "02-42-AC-11-00-0A", "0242.ac11.000a", "0242ac11000a", "2:42:ac:11:0:a"),
            *(netaddr.EUI("02-42-AC-11-00-0A"), netaddr.EUI(MAC, dialect=netaddr.mac_cisco)),
        ],
    )
    def test_all_notations_become_one(self, value: object) -> None:
        assert parse_mac(value) == MAC

    @pytest.mark.parametrize(
        "value",
        [
            *(
                "",
                "x",
                f"{MAC}:00",
                MAC[:-3],
                "02:42:ac:11:00:0g",
                f" {MAC}",
                "02:42:ac:11:00:100",
            ),
            *(
                "02-42-ac:11-00-0a",
                "10.0.0.1",
                "00-00-00-00-00-00-00-01",
                netaddr.EUI("02-42-AC-11-00-0A-00-01"),
            ),
            *(None, True, 1.5, 4, "4", b"abcdef", [MAC]),
        ],
    )
    def test_junk(self, value: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid MAC address"):
            parse_mac(value)

    @pytest.mark.parametrize("value", [f"{MAC}\n", "1:2:4"])
    def test_what_only_netaddr_understands_is_junk(self, value: object) -> None:
        with pytest.raises(InvalidValueError, match="invalid MAC address"):
            parse_mac(value)

    @pytest.mark.parametrize("value", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "33-33-00-00-00-01"])
    def test_multicast_is_no_address_of_an_interface(self, value: str) -> None:
        with pytest.raises(InvalidValueError, match="multicast"):
            parse_mac(value)

    @pytest.mark.parametrize("value", ["00:00:00:00:00:00", "0000.0000.0000", 0])
    def test_zero_is_no_address_of_an_interface(self, value: object) -> None:
        with pytest.raises(InvalidValueError):
            parse_mac(value)

    @given(st.randoms(use_true_random=False))
    def test_random_ones_are_unicast_and_locally_administered(self, random: Random) -> None:
        mac = random_mac(random)
        assert parse_mac(mac) == mac
        assert int(mac[:2], 16) & 0b11 == 0b10

    def test_random_ones_use_all_other_bits(self) -> None:
        random = seeded()
        macs = [int(random_mac(random).replace(":", ""), 16) for _ in range(200)]
        ones, zeros = 0, 0
        for mac in macs:
            ones, zeros = ones | mac, zeros | ~mac
        flag = 0b11 << 40
        assert ones & ~flag == zeros & (2**48 - 1) & ~flag == (2**48 - 1) & ~flag

    def test_random_ones_are_not_taken(self) -> None:
        first = random_mac(seeded())
        assert random_mac(seeded()) == first
        assert random_mac(seeded(), taken=[first]) != first


class TestIds:
    def test_are_128_random_bits(self) -> None:
        random = seeded()
        ids = {new_id(random) for _ in range(100)}
        assert len(ids) == 100
        assert {len(each) for each in ids} == {32}
        assert all(set(each) <= set("0123456789abcdef") for each in ids)

    def test_scopes_are_their_words(self) -> None:
        assert [str(scope) for scope in Scope] == ["local", "global"]


def test_netaddr_is_imported_when_needed_only() -> None:
    """A MAC address in the usual notation does not cost the import."""
    code = f"import sys, pynetwork.types as t; t.parse_mac({MAC!r}); sys.exit('netaddr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_address, "fe80::1%eth0"),
        (parse_address, IPv6Address("fe80::1%eth0")),
        (parse_interface, "fe80::1%eth0/64"),
        (parse_interface, IPv6Interface("fe80::1%eth0/64")),
        (parse_network, "fe80::%eth0/64"),
    ],
)
def test_an_address_does_not_name_an_interface(parse: Callable[[object], object], value: object) -> None:
    """It would never be equal to the same address without, and so be handed out beside it."""
    with pytest.raises(InvalidValueError, match="an interface is not part of it"):
        parse(value)
