"""What a sandbox is told of names, signals and limits: one form of each, and clear words for the rest."""

from __future__ import annotations

import json
import signal
from ipaddress import ip_address
from typing import Any

import netaddr
import pytest

from pynetwork import HOST_GATEWAY, InvalidValueError, Limits, SandboxSpec
from pynetwork.engine.codec import decode_value, encode, loads
from pynetwork.types import check_domain

FULL: dict[str, Any] = {
    "domainname": "lab.example.",
    "dns": ["192.0.2.53", "2001:db8::53"],
    "dns_search": ["lab.example", "_sites.example."],
    "dns_options": ["ndots:2", "rotate", "single-request-reopen"],
    "extra_hosts": {"db": "192.0.2.7", "db6": "2001:db8::7", "host.docker.internal": HOST_GATEWAY},
    "stop_signal": "SIGINT",
    "limits": {"memory": 1 << 26, "cpus": 1.5, "pids": 100},
    "cgroup_parent": "/machine.slice/jobs/",
}


def _spec(**fields: Any) -> SandboxSpec:
    return SandboxSpec(id="0123456789abcdef", name="s", netns="/x", **fields)


def test_everything_is_kept_in_one_form() -> None:
    spec = _spec(**FULL)
    assert spec.domainname == "lab.example"
    assert spec.dns == (ip_address("192.0.2.53"), ip_address("2001:db8::53"))
    assert spec.dns_search == ("lab.example", "_sites.example")
    assert spec.dns_options == ("ndots:2", "rotate", "single-request-reopen")
    assert spec.extra_hosts == {
        "db": ip_address("192.0.2.7"),
        "db6": ip_address("2001:db8::7"),
        "host.docker.internal": "host-gateway",
    }
    assert spec.stop_signal == signal.SIGINT
    assert spec.limits == Limits(memory=1 << 26, cpus=1.5, pids=100)
    assert spec.cgroup_parent == "machine.slice/jobs"


@pytest.mark.parametrize("fields", [FULL, {}])
def test_it_comes_back_from_its_record(fields: dict[str, Any]) -> None:
    spec = _spec(**fields)
    again, extra = decode_value(SandboxSpec, "k", loads("k", encode(spec)))
    assert (again, extra) == (spec, {})
    assert again.extra_hosts == spec.extra_hosts
    hash(again)


def test_a_record_of_before_these_fields_is_read_as_their_defaults() -> None:
    old = json.dumps({"v": 1, "id": "1", "name": "s", "netns": "/x", "hostname": "web", "created": 0.0})
    spec, extra = decode_value(SandboxSpec, "k", loads("k", old))
    assert (spec, extra) == (SandboxSpec(id="1", name="s", netns="/x", hostname="web"), {})
    assert (spec.stop_signal, spec.limits, spec.dns, spec.extra_hosts) == (signal.SIGTERM, None, (), {})


def test_a_sandbox_is_called_by_its_hostname_or_by_its_id() -> None:
    assert _spec(hostname="web").uts_name == "web"
    assert _spec().uts_name == "0123456789ab"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("sigquit", 3),
        ("9", 9),
        (1, 1),
        (64, 64),
        (signal.SIGUSR1, signal.SIGUSR1),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("rtmax-1", signal.SIGRTMAX - 1),
        ("RTMIN", signal.SIGRTMIN),
    ],
)
def test_a_signal_has_names_and_a_number(value: object, number: int) -> None:
    stop_signal = _spec(stop_signal=value).stop_signal
    assert stop_signal == number
    assert type(stop_signal) is int


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"stop_signal": "SIGFOO"}, "invalid signal 'SIGFOO'"),
        ({"stop_signal": 0}, "invalid signal 0"),
        ({"stop_signal": 65}, "invalid signal 65"),
        ({"stop_signal": True}, "invalid signal True"),
        ({"stop_signal": "RTMAX+1"}, r"invalid signal 'RTMAX\+1'"),
        ({"stop_signal": None}, "invalid signal None"),
        ({"stop_signal": "TERM; rm"}, "invalid signal"),
        ({"dns": "192.0.2.53"}, "a list is expected"),
        ({"dns": ["dns.example"]}, "invalid address of a name server 'dns.example'"),
        ({"dns": ["fe80::1%eth0"]}, "an interface is not part of it"),
        ({"dns_search": "example"}, "a list is expected"),
        ({"dns_search": [".", "example"]}, "stands for none at all"),
        ({"dns_search": ["a..b"]}, "invalid search domain"),
        ({"dns_search": ["a b"]}, "invalid search domain"),
        ({"dns_options": ["ndots"]}, "how many is not said"),
        ({"dns_options": ["ndots:x"]}, "invalid resolver option"),
        ({"dns_options": ["rotate\nnameserver 192.0.2.1"]}, "invalid resolver option"),
        ({"dns_options": "rotate"}, "a list is expected"),
        ({"domainname": "-x"}, "invalid domain name"),
        ({"domainname": ""}, "invalid domain name"),
        ({"extra_hosts": ["db:192.0.2.7"]}, "a dict of name to address is expected"),
        ({"extra_hosts": {"d b": "192.0.2.7"}}, "invalid host name"),
        ({"extra_hosts": {"db": "gateway"}}, "invalid address of db 'gateway'"),
        ({"extra_hosts": {"db\n": "192.0.2.7"}}, "invalid host name"),
        ({"limits": {"memory": 4096}}, "invalid limit memory=4096"),
        ({"limits": {"memory": "64m"}}, "invalid limit memory='64m'"),
        ({"limits": {"cpus": 0}}, "invalid limit cpus=0"),
        ({"limits": {"cpus": float("inf")}}, "invalid limit cpus=inf"),
        ({"limits": {"cpus": True}}, "invalid limit cpus=True"),
        ({"limits": {"pids": 0}}, "invalid limit pids=0"),
        ({"limits": {"swap": 1}}, "its fields are memory, cpus, pids"),
        ({"limits": 7}, "a dict of its fields"),
        ({"cgroup_parent": "../x"}, "invalid control group"),
        ({"cgroup_parent": "/"}, "invalid control group"),
        ({"cgroup_parent": "a//b"}, "invalid control group"),
        ({"cgroup_parent": "a\0b"}, "invalid control group"),
        ({"cgroup_parent": "x" * 256}, "invalid control group"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        _spec(**fields)


def test_what_limits_nothing_is_no_limit() -> None:
    assert _spec(limits={}).limits is None
    assert _spec(limits=Limits()).limits is None
    assert _spec(limits=Limits(pids=1)).limits == Limits(pids=1)
    assert _spec(limits={"cpus": 2}).limits == Limits(cpus=2.0)


def test_values_hold_their_own_copies() -> None:
    hosts = {"a": netaddr.IPAddress("192.0.2.1")}
    spec = _spec(extra_hosts=hosts)
    hosts["b"] = netaddr.IPAddress("192.0.2.2")
    writable: Any = spec.extra_hosts
    assert spec.extra_hosts == {"a": ip_address("192.0.2.1")}
    with pytest.raises(TypeError):
        writable["b"] = ip_address("192.0.2.2")


@pytest.mark.parametrize("name", ["a", "a.b", "a-b.c_d", "x" * 63, "_sip._tcp.example", "1.2", "EXAMPLE."])
def test_a_domain_name_is_labels_with_dots_between(name: str) -> None:
    assert check_domain("name", name) == name.removesuffix(".")


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "-a", "a-", "x" * 64, ".".join(["x" * 60] * 5), "a b", "ä", "a\n", "a#b", None, 7],
)
def test_anything_else_is_no_domain_name(name: object) -> None:
    with pytest.raises(InvalidValueError, match="invalid name"):
        check_domain("name", name)
