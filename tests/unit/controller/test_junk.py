"""Junk for every argument: our error, or a result that reads back, and nothing touched in between."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from typing import Any

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork import Controller, Limits, MemoryStore, RequestError, StaticRoute, Subnet
from pynetwork.errors import InvalidValueError
from pynetwork.testing import FakeKernel, fake_surroundings

texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        (
            "",
            "10.0.0.0/24",
            "10.0.0.5",
            "10.0.0.5/24",
            "fd00::/64",
            "fe80::1%eth0",
            "fd00::5/64",
            "0.0.0.0/0",
            "0.0.0.0/24",
            "::/0",
            "::ffff:10.0.0.5",
            "169.254.1.1",
            "02:00:00:00:00:05",
            "ff:ff:ff:ff:ff:ff",
            "eth0",
            "lo",
            "..",
            "a\0b",
            "/a\0b",
            "/\ud800",
            "\ud800",
            "IFNAME",
            "net.ipv4.conf.IFNAME.rp_filter",
            "net.ipv4.conf.IFNAME.//.x",
        )
    ),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=True),
    st.binary(max_size=4),
    texts,
    st.builds(object),
    st.sampled_from(
        (
            ipaddress.ip_address("10.0.0.9"),
            ipaddress.ip_interface("10.0.0.9/24"),
            ipaddress.ip_network("10.0.0.0/24"),
            netaddr.IPNetwork("10.0.0.0/24"),
            netaddr.EUI("02-00-00-00-00-05"),
        )
    ),
)
keys = st.one_of(
    st.sampled_from(
        ("network", "gateway", "sub_pool", "auxiliary", "dst", "via", "mtu", "bridge", "pids", "cpus")
    ),
    scalars,
)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys.filter(lambda key: key.__hash__ is not None), inner, max_size=3),
    ),
    max_leaves=5,
)
NETWORK = ("subnets", "ipv4", "ipv6", "options", "ipam", "internal", "dns", "labels")
ENDPOINT = (
    "addresses",
    "mac",
    "interface",
    "link_local",
    "aliases",
    "exposed",
    "links",
    "routes",
    "sysctls",
    "priority",
    "labels",
)
SANDBOX = (
    "netns",
    "hostname",
    "domainname",
    "dns",
    "dns_search",
    "dns_options",
    "extra_hosts",
    "stop_signal",
    "limits",
    "cgroup_parent",
    "labels",
)


class _Place:
    """A controller with one network, and a way to see whether anything was touched."""

    def __init__(self) -> None:
        self.store, self.kernel = MemoryStore(), FakeKernel()
        self.controller = Controller(store=self.store, kernel=self.kernel, surroundings=fake_surroundings())
        self.network = self.controller.new_network("bridge", "n", subnets=["10.0.0.0/24", "fd00::/64"])

    def state(self) -> object:
        allocations = self.controller._core.allocations
        return self.store.list(""), self.kernel.log, self.network.usage(), set(allocations._ours)

    def try_to(self, kind: str, name: Any, arguments: dict[str, Any]) -> None:
        before = self.state()
        made: Any = None
        try:
            if kind == "network":
                made = self.controller.new_network("bridge", name, **arguments)
            elif kind == "endpoint":
                made = self.network.create_endpoint(name, **arguments)
            else:
                made = self.controller.new_sandbox(name, **arguments)
        except RequestError:
            assert self.state() == before
        if made is not None:
            self._check(made)
            made.delete()

    def _check(self, made: Any) -> None:
        """What was accepted is plain data, and the next process reads it back as it is."""
        said = made.inspect()
        assert json.loads(json.dumps(said)) == said
        with Controller(
            store=self.store, kernel=self.kernel, surroundings=fake_surroundings(process="p2")
        ) as other:
            assert other.inspect() == self.controller.inspect()


@given(st.one_of(st.just("x"), scalars), st.dictionaries(st.sampled_from(NETWORK), junk, max_size=2))
def test_no_network_argument_does_harm(name: Any, arguments: dict[str, Any]) -> None:
    _Place().try_to("network", name, arguments)


@given(st.one_of(st.just("x"), scalars), st.dictionaries(st.sampled_from(ENDPOINT), junk, max_size=2))
def test_no_endpoint_argument_does_harm(name: Any, arguments: dict[str, Any]) -> None:
    _Place().try_to("endpoint", name, arguments)


@given(st.one_of(st.just("x"), scalars), st.dictionaries(st.sampled_from(SANDBOX), junk, max_size=2))
def test_no_sandbox_argument_does_harm(name: Any, arguments: dict[str, Any]) -> None:
    # A path may lead anywhere: the host says whether it is a namespace. The fake one takes it.
    _Place().try_to("sandbox", name, arguments)


@given(junk)
def test_a_driver_of_any_name_is_unknown_or_malformed(driver: Any) -> None:
    place = _Place()
    before = place.state()
    if driver and driver not in ("bridge", "host", "null"):
        with pytest.raises(RequestError):
            place.controller.new_network(driver, "x")
        assert place.state() == before


@given(junk)
def test_values_are_made_or_refused(value: Any) -> None:
    for cls in (Subnet, StaticRoute, Limits):
        with contextlib.suppress(InvalidValueError):
            made = cls.parse(value)
            assert cls.parse(made) is made
            hash(made)


@pytest.mark.parametrize("name", ["a" * 256, "-x", "x/y", "x y", "", None, 7])
def test_new_names_are_checked_like_first_ones(name: Any) -> None:
    place = _Place()
    things: list[Any] = [
        place.network,
        place.network.create_endpoint("e"),
        place.controller.new_sandbox("s"),
    ]
    before = place.state()
    for thing in things:
        with pytest.raises(InvalidValueError):
            thing.rename(name)
    assert place.state() == before
