"""Rules of iptables mean what the options say, for every packet, and are the lines they should be."""

from __future__ import annotations

import ipaddress
import itertools
from typing import TYPE_CHECKING

import attrs
import pytest

from pynetwork.errors import InvalidValueError
from pynetwork.kernel.iptables.layout import DYNAMIC, chain_name, chain_names, jumps, static_rules, user_chain
from pynetwork.kernel.iptables.rules import key_text, rules_of
from pynetwork.kernel.iptables.values import CHAIN_LENGTH, COMMENT_LENGTH, parse_comment
from pynetwork.resources import EndpointRules, NetworkRules, PublishedPort, Rules, SubnetRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.kernel.iptables.values import Match, Rule

ID = "0123abcd"
MAC = "02:00:00:00:00:01"
SUBNETS = {4: ("10.88.0.0/24", "10.89.0.0/24"), 6: ("fd88::/64", "fd89::/64")}
TARGETS = {4: ("10.88.0.2", "10.89.0.2"), 6: ("fd88::2", "fd89::2")}
H4, H6 = "192.0.2.1", "2001:db8::1"
HOST = {4: H4, 6: H6}
ELSEWHERE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
MODES = ("nat", "nat-unprotected", "routed", "isolated")


def lines(resource: Rules, version: int) -> list[str]:
    """Return its rules without comments and the instance, the table before each."""
    found = []
    for rule in rules_of(resource, ID, version):
        text = rule.render().replace(f' -m comment --comment "{rule.comment}"', "").replace(f"-{ID}", "")
        comment = rule.comment.replace('"', '\\"')
        text = text.replace(f' -m comment --comment "{comment}"', "").replace("PYNETWORK-", "")
        found.append(f"{rule.table} {text.replace('-A', '-I' if rule.is_first else '-A', 1)}")
    return found


# A packet and the way it takes, to find out what the rules mean


@attrs.frozen
class Packet:
    """What rules look at; *first* is the destination before it was translated."""

    in_: str
    out: str
    source: str
    destination: str
    first: str
    proto: str = "tcp"
    port: int = 80
    states: frozenset[str] = frozenset({"NEW"})
    mac: str = MAC
    sport: int = 40000


def tables(resources: Iterable[Rules], version: int) -> dict[tuple[str, str], list[Rule]]:
    """Return the rules of each chain in order, as the kernel would have them."""
    found: dict[tuple[str, str], list[Rule]] = {}
    for rule in (*static_rules(ID, version), *jumps(ID, version)):
        found.setdefault((rule.table, rule.chain), []).append(rule)
    for resource in resources:
        heads: dict[tuple[str, str], int] = {}
        for rule in rules_of(resource, ID, version):
            place = rule.table, rule.chain
            chain = found.setdefault(place, [])
            chain.insert(heads.get(place, 0) if rule.is_first else len(chain), rule)
            heads[place] = heads.get(place, 0) + rule.is_first
    return found


def verdict(chains: dict[tuple[str, str], list[Rule]], table: str, chain: str, packet: Packet) -> Rule | None:
    """Return the rule that settles a packet, None when it comes back from the chain."""
    for rule in chains.get((table, chain), ()):
        if not matches(rule, packet):
            continue
        if rule.target == "RETURN":
            return None
        if not rule.target.startswith("PYNETWORK"):
            return rule
        settled = verdict(chains, table, rule.target, packet)
        if settled is not None:
            return settled
    return None


def matches(rule: Rule, packet: Packet) -> bool:
    destination = packet.first if rule.table in {"raw", "mangle"} else packet.destination
    found = (
        _is(rule.in_, lambda name: name == packet.in_),
        _is(rule.out, lambda name: name == packet.out),
        _is(rule.source, lambda cidr: _within(packet.source, cidr)),
        _is(rule.destination, lambda cidr: _within(destination, cidr)),
        _is(rule.proto, lambda proto: proto == packet.proto),
    )
    return all(found) and all(_extends(match, packet) for match in rule.matches)


def _is(field: str, test: object) -> bool:
    assert callable(test)
    return not field or (not test(field[1:]) if field.startswith("!") else bool(test(field)))


def _within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def _extends(match: Match, packet: Packet) -> bool:
    for option, value in match.options:
        if option in {"dport", "sport"}:
            first, _, last = value.partition(":")
            if not int(first) <= getattr(packet, option.replace("dport", "port")) <= int(last or first):
                return False
        elif option == "ctstate":
            if packet.states.isdisjoint(value.split(",")):
                return False
        elif option == "mac-source":
            if packet.mac != value:
                return False
        else:
            assert (option, value) == ("dst-type", "LOCAL")
            if packet.destination not in {*HOST.values(), "127.0.0.1", "::1"}:
                return False
    return True


def passes(chains: dict[tuple[str, str], list[Rule]], packet: Packet) -> bool:
    for table, chain in (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("filter", "FORWARD")):
        rule = verdict(chains, table, chain, packet)
        if rule is not None and rule.target == "DROP":
            return False
    return True


# What the options say


def networks() -> Iterator[tuple[NetworkRules, NetworkRules]]:
    for mode, internal, icc, is_open, trusted in itertools.product(
        MODES, (False, True), (True, False), (False, True), ((), ("eth1",))
    ):
        first, second = (
            tuple(SubnetRules(subnet=SUBNETS[version][n], mode=m) for version in (4, 6))
            for n, m in ((0, mode), (1, "nat"))
        )
        yield (
            NetworkRules(
                bridge="br0", subnets=first, internal=internal, icc=icc, is_open=is_open, trusted=trusted
            ),
            NetworkRules(bridge="br1", subnets=second, is_open=True),
        )


def packets(version: int) -> Iterator[Packet]:
    sources = {"br0": TARGETS[version][0], "br1": TARGETS[version][1]}
    icmp = {4: "icmp", 6: "ipv6-icmp"}[version]
    kinds = (("tcp", 80, "NEW"), ("tcp", 81, "NEW"), ("udp", 80, "NEW"), (icmp, 0, "NEW"))
    known = (("tcp", 81, "ESTABLISHED"), ("tcp", 81, "DNAT"), (icmp, 0, "RELATED"))
    for in_, out in itertools.product(("eth0", "eth1", "br0", "br1"), ("br0", "br1", "eth0")):
        for proto, port, state in (*kinds, *known):
            destination = sources.get(out, ELSEWHERE[version])
            yield Packet(
                in_=in_,
                out=out,
                source=sources.get(in_, ELSEWHERE[version]),
                destination=destination,
                first=HOST[version] if state == "DNAT" else destination,
                proto=proto,
                port=port,
                states=frozenset({state}),
            )


def may_pass(packet: Packet, by_bridge: dict[str, NetworkRules], opened: int, version: int) -> bool:
    """Say in plain words what the options mean."""
    source, target = by_bridge.get(packet.in_), by_bridge.get(packet.out)
    if target is not None and source is None:
        mode = target.subnets[(4, 6).index(version)].mode
        is_direct = packet.first == packet.destination and packet.states.isdisjoint(
            {"ESTABLISHED", "RELATED"}
        )
        is_trusted = packet.in_ in target.trusted and not target.internal
        if is_direct and not is_trusted and (mode in {"nat", "isolated"} or target.internal):
            return False
    if any(network is not None and network.internal for network in (source, target)):
        return source is target and target is not None and target.icc
    if target is None or not packet.states.isdisjoint({"ESTABLISHED", "RELATED", "DNAT"}):
        return True
    mode = target.subnets[(4, 6).index(version)].mode
    return (
        (source is target and target.icc)
        or packet.in_ in target.trusted
        or (source is not None and source.is_open and target.is_open)
        or (source is None and mode == "nat-unprotected")
        or (mode == "routed" and packet.proto in {"icmp", "ipv6-icmp"})
        or (packet.out, packet.proto, packet.port) == ("br0", "tcp", opened)
    )


@pytest.mark.parametrize("version", [4, 6])
def test_what_may_pass_passes_and_nothing_else_does(version: int) -> None:
    opened = PublishedPort(
        proto="tcp", first=80, last=80, target=TARGETS[version][0], target_first=80, nat=False
    )
    for first, second in networks():
        chains = tables((first, second, opened), version)
        by_bridge = {"br0": first, "br1": second}
        for packet in packets(version):
            assert passes(chains, packet) == may_pass(packet, by_bridge, 80, version), (first, packet)


@pytest.mark.parametrize("version", [4, 6])
def test_what_has_nothing_to_do_with_us_is_left_to_the_hosts_own_rules(version: int) -> None:
    for first, second in networks():
        chains = tables((first, second), version)
        address = ELSEWHERE[version]
        stranger = Packet("eth0", "eth1", address, address, address)
        assert verdict(chains, "raw", "PREROUTING", stranger) is None
        assert verdict(chains, "mangle", "PREROUTING", stranger) is None
        assert verdict(chains, "filter", "FORWARD", stranger) is None
        assert verdict(chains, "nat", "PREROUTING", stranger) is None
        assert verdict(chains, "nat", "POSTROUTING", stranger) is None


def test_loopback_addresses_are_not_reached_from_a_bridge_even_by_a_guarded_endpoint() -> None:
    network = NetworkRules(bridge="br0", subnets=(SubnetRules(subnet=SUBNETS[4][0]),))
    guard = EndpointRules(link="veth0", mac=MAC, addresses=(TARGETS[4][0],), bridge="br0")
    for resources in ((network, guard), (guard, network)):
        packet = Packet("br0", "lo", TARGETS[4][0], "127.0.0.1", "127.0.0.1")
        rule = verdict(tables(resources, 4), "raw", "PREROUTING", packet)
        assert rule is not None
        assert rule.target == "DROP"
        assert verdict(tables(resources, 4), "raw", "PREROUTING", attrs.evolve(packet, in_="lo")) is None


@pytest.mark.parametrize("version", [4, 6])
def test_an_endpoint_sends_from_its_own_addresses_only_and_nobody_else_from_them(version: int) -> None:
    own, other = TARGETS[version][0], ELSEWHERE[version]
    guard = EndpointRules(link="veth0", mac=MAC, addresses=(TARGETS[4][0], TARGETS[6][0]), bridge="br0")
    chains = tables((guard,), version)

    def drops(source: str, mac: str = MAC, in_: str = "br0", **fields: object) -> bool:
        packet = Packet(in_, "eth0", source, other, other, mac=mac, **fields)  # type: ignore[arg-type]  # of a packet
        return verdict(chains, "raw", "PREROUTING", packet) is not None

    assert not drops(own)
    assert drops(other)
    assert drops(own, "02:00:00:00:00:02")
    assert not drops(other, "02:00:00:00:00:02")
    assert not drops(other, in_="br1")
    assert not drops(own, "02:00:00:00:00:02", in_="eth0")
    if version == 4:
        assert not drops("0.0.0.0", proto="udp", sport=68, port=67)
        assert drops("0.0.0.0")
    else:
        assert not drops("::")
        assert not drops("fe80::1")


def test_without_a_guard_nothing_is_checked() -> None:
    assert lines(EndpointRules(link="v0", mac=MAC, addresses=("10.0.0.2",), guard=False), 4) == []


def test_without_its_bridge_an_endpoint_is_told_by_its_mac_address_alone() -> None:
    assert lines(EndpointRules(link="v0", mac=MAC.upper(), addresses=("10.0.0.2", "fd00::2")), 6) == [
        f"raw -I FROM -s fd00::2/128 -m mac --mac-source {MAC} -j RETURN",
        f"raw -A FROM -m mac --mac-source {MAC} -j DROP",
    ]


# Translation


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("source", [None, "masquerade", "address"])
@pytest.mark.parametrize("internal", [False, True])
def test_what_leaves_a_network_leaves_as_whom_it_should(
    version: int, source: str | None, internal: bool
) -> None:
    address = HOST[version]
    subnet = SubnetRules(subnet=SUBNETS[version][0], source=address if source == "address" else source)
    chains = tables((NetworkRules(bridge="br0", subnets=(subnet,), internal=internal),), version)
    own, other = TARGETS[version][0], ELSEWHERE[version]

    def target(out: str, source: str, destination: str, state: str = "NEW") -> tuple[str, str]:
        packet = Packet("", out, source, destination, destination, states=frozenset({state}))
        rule = verdict(chains, "nat", "POSTROUTING", packet)
        return (rule.target, dict(rule.options).get("to-source", "")) if rule else ("", "")

    leaving = {None: ("", ""), "masquerade": ("MASQUERADE", ""), "address": ("SNAT", address)}[source]
    assert target("eth0", own, other) == (("", "") if internal else leaving)
    assert target("eth0", other, other) == ("", "")
    assert target("eth0", own, {4: "224.0.0.251", 6: "ff02::fb"}[version]) == ("", "")
    assert target("br0", own, own) == ("", "")
    assert target("br0", own, own, "DNAT") == ("MASQUERADE", "")
    assert target("br0", other, own, "DNAT") == ("", "")
    if version == 4:
        assert target("br0", "127.0.0.1", own, "DNAT") == ("MASQUERADE", "")
        assert target("br0", "127.0.0.1", own) == ("", "")


@pytest.mark.parametrize(
    ("host", "first", "last", "target", "to", "line"),
    [
        (None, 8080, 8080, "10.88.0.2", 80, "-A PUB -p tcp -m tcp --dport 8080 -j DNAT 10.88.0.2:80"),
        (None, 8080, 8080, "fd88::2", 80, "-A PUB -p tcp -m tcp --dport 8080 -j DNAT [fd88::2]:80"),
        (None, 80, 89, "10.88.0.2", 80, "-A PUB -p tcp -m tcp --dport 80:89 -j DNAT 10.88.0.2"),
        (None, 80, 89, "fd88::2", 80, "-A PUB -p tcp -m tcp --dport 80:89 -j DNAT fd88::2"),
        (H4, 80, 80, "10.88.0.2", 80, f"-I PUB -d {H4}/32 -p tcp -m tcp --dport 80 -j DNAT 10.88.0.2:80"),
        (H6, 80, 81, "fd88::2", 80, f"-I PUB -d {H6}/128 -p tcp -m tcp --dport 80:81 -j DNAT fd88::2"),
    ],
)  # fmt: skip
def test_a_published_port_is_one_rule(  # noqa: PLR0917 - as in the table
    host: str | None, first: int, last: int, target: str, to: int, line: str
) -> None:
    port = PublishedPort(proto="tcp", host=host, first=first, last=last, target=target, target_first=to)
    assert lines(port, port.version) == [f"nat {line.replace('DNAT ', 'DNAT --to-destination ')}"]
    assert lines(port, 10 - port.version) == []


@pytest.mark.parametrize(("target", "to"), [("10.88.0.2", "10.88.0.2"), ("fd88::2", "[fd88::2]")])
def test_a_range_that_is_shifted_is_one_rule_for_each_port(target: str, to: str) -> None:
    port = PublishedPort(proto="udp", first=80, last=89, target=target, target_first=70)
    assert lines(port, port.version) == [
        f"nat -A PUB -p udp -m udp --dport {80 + n} -j DNAT --to-destination {to}:{70 + n}" for n in range(10)
    ]
    assert len({rule.tag for rule in rules_of(port, ID, port.version)}) == 10


@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp"])
def test_an_opened_port_is_one_rule(proto: str) -> None:
    port = PublishedPort(proto=proto, first=1, last=9, target="fd88::2", target_first=50, nat=False)
    assert lines(port, 6) == [f"filter -A ALLOW -d fd88::2/128 -p {proto} -m {proto} --dport 50:58 -j ACCEPT"]


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_hosts_own_addresses_are_translated(version: int) -> None:
    port = PublishedPort(proto="tcp", first=80, last=80, target=TARGETS[version][0], target_first=80)
    chains = tables((port,), version)
    for chain in ("PREROUTING", "OUTPUT"):
        for destination, is_host in ((HOST[version], True), (ELSEWHERE[version], False)):
            packet = Packet("eth0", "", ELSEWHERE[version], destination, destination)
            assert (verdict(chains, "nat", chain, packet) is not None) == is_host
            assert verdict(chains, "nat", chain, attrs.evolve(packet, proto="udp")) is None
    local = Packet("br0", "", "10.88.0.2", "127.0.0.1", "127.0.0.1")
    if version == 4:
        assert verdict(chains, "nat", "PREROUTING", local) is None
        assert verdict(chains, "nat", "OUTPUT", local) is not None


def test_a_port_of_one_address_comes_before_that_of_all() -> None:
    every = PublishedPort(proto="tcp", first=80, last=80, target="10.88.0.2", target_first=1)
    one = attrs.evolve(every, host=HOST[4], target_first=2)
    packet = Packet("eth0", "", ELSEWHERE[4], HOST[4], HOST[4])
    rule = verdict(tables((one, every), 4), "nat", "PREROUTING", packet)
    assert rule == verdict(tables((every, one), 4), "nat", "PREROUTING", packet)
    assert rule is not None
    assert dict(rule.options) == {"to-destination": "10.88.0.2:2"}


# Text


def test_a_network_is_these_lines() -> None:
    network = NetworkRules(
        bridge="br0",
        is_open=True,
        trusted=("eth1",),
        subnets=(
            SubnetRules(subnet="10.88.0.0/24", source="masquerade"),
            SubnetRules(subnet="fd88::/64", mode="routed", source="2001:db8::1"),
        ),
    )
    everywhere = [
        "mangle -I DIRECT -i br0 -j RETURN",
        "filter -I BRIDGES -o br0 -j TO",
        "filter -A BRIDGES -i br0 -j ACCEPT",
        "filter -I OUTSIDE -i br0 -j RETURN",
    ]
    allowed = [
        "filter -A OPENFROM -i br0 -j OPENTO",
        "filter -A OPENTO -o br0 -j ACCEPT",
        "filter -A LINKED -i br0 -o br0 -j ACCEPT",
        "filter -A LINKED -i eth1 -o br0 -j ACCEPT",
    ]
    assert lines(network, 4) == [
        *everywhere,
        "raw -A LOCAL -d 127.0.0.0/8 -i br0 -j DROP",
        "nat -I POST -s 127.0.0.0/8 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE",
        *allowed,
        "nat -I POST -s 10.88.0.0/24 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE",
        "nat -I POST -s 10.88.0.0/24 -o br0 -j RETURN",
        "mangle -A DIRECT -d 10.88.0.0/24 -j DROP",
        "mangle -I DIRECT -d 10.88.0.0/24 -i eth1 -j RETURN",
        "nat -A POST -s 10.88.0.0/24 -j MASQUERADE",
    ]
    assert lines(network, 6) == [
        *everywhere,
        *allowed,
        "nat -I POST -s fd88::/64 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE",
        "nat -I POST -s fd88::/64 -o br0 -j RETURN",
        "mangle -I DIRECT -d fd88::/64 -i eth1 -j RETURN",
        "filter -A ALLOW -o br0 -p ipv6-icmp -j ACCEPT",
        "nat -A POST -s fd88::/64 -j SNAT --to-source 2001:db8::1",
    ]


def test_the_users_chain_comes_first() -> None:
    first = static_rules(ID, 4)
    assert next(r for r in first if r.chain == chain_name(ID, "FORWARD")).target == user_chain(ID)
    assert user_chain(ID) == f"PYNETWORK-USER-{ID}"


def test_a_positive_priority_puts_the_jumps_behind_the_hosts_own_rules() -> None:
    assert all(rule.is_first for rule in jumps(ID, 4))
    assert not any(rule.is_first for rule in jumps(ID, 4, 10))
    assert [rule.tag for rule in jumps(ID, 4)] == [rule.tag for rule in jumps(ID, 4, 10)]


def test_names_of_chains_fit_and_carry_the_instance() -> None:
    for table, names in chain_names("0123abcdef").items():
        assert {chain_name(ID, part) for part in DYNAMIC[table]} <= set(names)
        assert all(len(name) <= CHAIN_LENGTH and name.endswith("-0123abcd") for name in names)
    with pytest.raises(ValueError, match="too long"):
        chain_name(ID, "ELEVENCHARS")


def test_a_comment_tells_the_resource_the_rule_and_the_owner() -> None:
    owner = "endpoint 'web' of network 'front'"
    port = PublishedPort(proto="tcp", first=80, last=80, target="10.88.0.2", target_first=1, owner=owner)
    (rule,) = rules_of(port, ID, 4)
    assert parse_comment(rule.comment) == (f"pynetwork-{ID} {key_text(port.key)}", rule.tag, owner)
    moved = attrs.evolve(port, target="10.88.0.3")
    assert rules_of(moved, ID, 4)[0].key == rule.key
    assert rules_of(moved, ID, 4)[0].tag != rule.tag
    assert rules_of(attrs.evolve(port, owner="x"), ID, 4)[0].tag == rule.tag


def test_a_comment_of_a_long_owner_is_cut() -> None:
    owner = f"endpoint 'ä{'a' * 300}'"
    port = PublishedPort(proto="tcp", first=80, last=80, target="10.88.0.2", target_first=1, owner=owner)
    comment = rules_of(port, ID, 4)[0].comment
    assert COMMENT_LENGTH - 1 <= len(comment.encode()) <= COMMENT_LENGTH
    assert parse_comment(comment) is not None


@pytest.mark.parametrize(
    "comment", ["", "x", "pynetwork-0123abcd ", "pynetwork-0123abcd x", f"pynetwork-{ID}x y #12345678"]
)
def test_the_comments_of_others_are_none_of_ours(comment: str) -> None:
    assert parse_comment(comment) is None


@pytest.mark.parametrize("name", ["by", "#", "#12345678", "a'b", 'a"b', "a\\b"])
def test_a_bridge_may_have_a_strange_name(name: str) -> None:
    network = NetworkRules(bridge=name)
    for rule in rules_of(network, ID, 4):
        assert parse_comment(rule.comment) == (f"pynetwork-{ID} {key_text(network.key)}", rule.tag, "")
        assert not {"'", '"', "\\"} & set(rule.comment)


@pytest.mark.parametrize("name", ["br+", "!br", "bré"])
def test_an_interface_that_iptables_reads_as_something_else_is_refused(name: str) -> None:
    for network in (NetworkRules(bridge=name), NetworkRules(bridge="br0", trusted=(name,))):
        with pytest.raises(InvalidValueError, match="cannot match the interface"):
            rules_of(network, ID, 4)


def test_each_rule_of_a_chain_is_told_by_its_tag() -> None:
    for version in (4, 6):
        for first, second in networks():
            rules = [*static_rules(ID, version), *jumps(ID, version)]
            rules += [rule for network in (first, second) for rule in rules_of(network, ID, version)]
            assert len({(rule.table, rule.chain, rule.tag) for rule in rules}) == len(rules)
