"""hosts, hostname and resolv.conf of a sandbox: what they say for what it was told and what the host says."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork import InvalidValueError, SandboxSpec
from pynetwork.etc import (
    HostFiles,
    ResolvConf,
    hostname_text,
    hosts_text,
    own_hosts_text,
    resolv_conf_text,
)
from pynetwork.resources import File

HOST = HostFiles(
    resolv_conf="#\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org\noptions rotate\n",
    hosts="127.0.0.1 localhost\n192.0.2.1 gateway",
    name="machine",
)


def _spec(**fields: Any) -> SandboxSpec:
    return SandboxSpec(id="0123456789abcdef", name="s", **{"netns": "/x", **fields})


def _host(text: str) -> HostFiles:
    return HostFiles(resolv_conf=text)


class TestResolvConf:
    """Whom it asks for names."""

    def test_without_a_name_server_of_its_own_it_asks_whom_the_host_asks(self) -> None:
        assert resolv_conf_text(_spec(), HOST, ipv6=True) == (
            "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org\noptions rotate\n"
        )

    def test_servers_of_a_family_it_does_not_have_are_left_out(self) -> None:
        assert "2001:db8::53" not in resolv_conf_text(_spec(), HOST)

    def test_the_hosts_loopback_is_not_the_sandboxs(self) -> None:
        text = "nameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.53\n"
        assert resolv_conf_text(_spec(), _host(text), ipv6=True) == "nameserver 192.0.2.53\n"

    @pytest.mark.parametrize("text", ["", "nameserver 127.0.0.1\n", "search example.org\n"])
    def test_where_none_is_left_public_ones_are_asked(self, text: str) -> None:
        four, both = (resolv_conf_text(_spec(), _host(text), ipv6=ipv6) for ipv6 in (False, True))
        assert "nameserver 8.8.8.8\nnameserver 8.8.4.4\n" in four
        assert ":" not in four
        assert "nameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\n" in both

    def test_its_own_servers_come_before_its_networks_and_those_before_the_hosts(self) -> None:
        networks = [ip_address("198.51.100.1"), ip_address("198.51.100.1"), ip_address("2001:db8::1")]
        own = resolv_conf_text(_spec(dns=["203.0.113.1"]), HOST, servers=networks)
        assert "nameserver 203.0.113.1\nsearch" in own
        theirs = resolv_conf_text(_spec(), HOST, servers=networks)
        assert theirs.startswith("nameserver 198.51.100.1\nnameserver 2001:db8::1\nsearch")

    def test_what_it_was_told_is_believed_also_of_its_own_loopback(self) -> None:
        assert resolv_conf_text(_spec(dns=["127.0.0.1"]), HOST).startswith("nameserver 127.0.0.1\nsearch")

    def test_its_own_domains_and_options_replace_the_hosts(self) -> None:
        spec = _spec(dns_search=["a.example", "b.example", "a.example"], dns_options=["ndots:2", "timeout:1"])
        text = resolv_conf_text(spec, HOST)
        assert "search a.example b.example\noptions ndots:2 timeout:1\n" in text
        assert "rotate" not in text

    def test_a_dot_is_no_domain_at_all(self) -> None:
        assert "search" not in resolv_conf_text(_spec(dns_search=["."]), HOST)
        assert "search" not in resolv_conf_text(_spec(), _host("search .\n"))

    def test_with_a_name_server_inside_only_that_is_named(self) -> None:
        text = resolv_conf_text(_spec(), HOST, resolver=("127.0.0.11", "::1"), ipv6=True)
        assert text == (
            "# asked by it: 192.0.2.53, 2001:db8::53\n"
            "nameserver 127.0.0.11\nnameserver ::1\nsearch example.org\noptions rotate ndots:0\n"
        )

    @pytest.mark.parametrize(
        ("fields", "host", "options"),
        [
            ({}, "options ndots:3\n", "options ndots:3\n"),
            ({"dns_options": ["ndots:5", "rotate"]}, "options ndots:3\n", "options ndots:5 rotate\n"),
            ({}, "options ndots:x edns0\n", "options edns0 ndots:0\n"),
            ({}, "options ndots: edns0\n", "options edns0 ndots:0\n"),
        ],
    )
    def test_ndots_is_0_there_unless_somebody_says_otherwise(
        self, fields: dict[str, Any], host: str, options: str
    ) -> None:
        text = resolv_conf_text(_spec(**fields), _host(host), resolver=["127.0.0.11"])
        assert text.endswith(options)

    def test_the_last_option_of_a_name_wins_and_unknown_lines_are_kept(self) -> None:
        parsed = ResolvConf.parse(
            "domain a.example\nsearch b.example c.example\noptions timeout:1 rotate\noptions timeout:2\n"
            "sortlist 192.0.2.0/24\n; x\n#y\nnameserver\nnameserver nonsense\nnameserver 192.0.2.1 # z\n"
        )
        assert parsed == ResolvConf(
            servers=("192.0.2.1",),
            search=("b.example", "c.example"),
            options=("rotate", "timeout:2"),
            rest=("sortlist 192.0.2.0/24",),
        )
        assert ResolvConf.parse("search a\ndomain b c\n").search == ("b",)

    @given(st.text())
    def test_no_text_of_the_host_is_too_much(self, text: str) -> None:
        """What comes out is understood as what it was understood as."""
        once = resolv_conf_text(_spec(), _host(text), ipv6=True)
        again = resolv_conf_text(_spec(), _host(once), ipv6=True)
        assert again == once


class TestHosts:
    """The names it knows without asking."""

    def test_loopback_extra_hosts_and_itself(self) -> None:
        spec = _spec(
            hostname="web",
            domainname="lab.example",
            extra_hosts={"db": "192.0.2.7", "host": "host-gateway"},
        )
        text = hosts_text(
            spec,
            [ip_address("10.0.0.2"), ip_address("fd00::2")],
            {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")},
        )
        assert text == (
            "127.0.0.1\tlocalhost\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::\tip6-localnet\n"
            "ff00::\tip6-mcastprefix\n"
            "ff02::1\tip6-allnodes\n"
            "ff02::2\tip6-allrouters\n"
            "192.0.2.7\tdb\n"
            "10.0.0.1\thost\n"
            "fd00::1\thost\n"
            "10.0.0.2\tweb.lab.example web\n"
            "fd00::2\tweb.lab.example web\n"
        )

    def test_without_ipv6_there_are_no_names_for_it(self) -> None:
        assert hosts_text(_spec(), ipv6=False) == "127.0.0.1\tlocalhost\n"

    def test_the_host_has_no_name_where_it_cannot_be_reached(self) -> None:
        assert "host" not in hosts_text(_spec(extra_hosts={"host": "host-gateway"}), ipv6=False).split()[2:]

    @pytest.mark.parametrize(
        ("fields", "names"),
        [
            ({}, "0123456789ab"),
            ({"hostname": "web"}, "web"),
            ({"hostname": "web.example"}, "web.example web"),
            ({"hostname": "web.a", "domainname": "b"}, "web.a.b web"),
        ],
    )
    def test_its_full_name_comes_first(self, fields: dict[str, Any], names: str) -> None:
        assert hosts_text(_spec(**fields), [ip_address("10.0.0.2")]).endswith(f"\n10.0.0.2\t{names}\n")

    def test_in_the_hosts_namespace_it_knows_what_the_host_knows(self) -> None:
        spec = _spec(netns=None, extra_hosts={"db": "192.0.2.7"})
        assert own_hosts_text(spec, HOST, {}) == "127.0.0.1 localhost\n192.0.2.1 gateway\n192.0.2.7\tdb\n"
        assert own_hosts_text(_spec(netns=None), HostFiles(), {}) == ""


def test_the_hostname_is_its_own_or_docker_s_or_the_hosts() -> None:
    assert hostname_text(_spec(hostname="web", domainname="lab"), HOST) == "web\n"
    assert hostname_text(_spec(), HOST) == "0123456789ab\n"
    assert hostname_text(_spec(netns=None), HOST) == "machine\n"
    assert hostname_text(_spec(netns=None, hostname="web"), HOST) == "web\n"


class TestUpkeep:
    """Whose a file is, told from what it holds."""

    def test_a_new_or_empty_file_is_written_as_a_whole(self) -> None:
        for upkeep in ("first", "whole", "part"):
            file = File(path="/f", text="a\n", upkeep=upkeep)
            assert file.over(None) == file.over("") == file.over("\n\n") == file.full

    def test_what_is_ours_follows(self) -> None:
        for upkeep in ("whole", "part"):
            old, new = (File(path="/f", text=text, upkeep=upkeep) for text in ("a\nb\n", "c\n"))
            assert new.over(old.full) == new.full
            assert new.over(new.full) == new.full
            # So it stands there for a moment when less is written over more.
            assert new.over(f"{new.full}\n\n").rstrip("\n") == new.full.rstrip("\n")

    @pytest.mark.parametrize("edit", ["nameserver 192.0.2.9\n", "# mine\na\n"])
    def test_an_edited_file_is_somebody_elses_from_then_on(self, edit: str) -> None:
        file = File(path="/f", text="a\n", upkeep="whole")
        assert file.over(edit) == edit
        assert file.over(file.full + edit) == file.full + edit

    def test_lines_around_ours_are_kept(self) -> None:
        old, new = (File(path="/f", text=text, upkeep="part") for text in ("a\n", "b\nc\n"))
        assert new.over(f"x\n{old.full}y\n") == f"x\n{new.full}y\n"
        assert new.over("all mine\n") == "all mine\n"
        cut = old.full.rpartition("# pynetwork")[0]
        assert new.over(cut) == new.full

    def test_what_is_written_once_is_never_looked_at_again(self) -> None:
        assert File(path="/f", text="a\n").over("b\n") == "b\n"

    @given(st.text(), st.text())
    def test_to_write_twice_is_to_write_once(self, current: str, text: str) -> None:
        for upkeep in ("first", "whole", "part"):
            file = File(path="/f", text=text, upkeep=upkeep)
            once = file.over(current)
            assert file.over(once) == once

    def test_there_are_three_ways(self) -> None:
        with pytest.raises(InvalidValueError, match="invalid upkeep 'always'"):
            File(path="/f", text="", upkeep="always")
