"""What a sandbox can resolve, from specs alone: which name stands for whom, and for whom else."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from pynetwork.dns import codec
from pynetwork.dns.codec import Question
from pynetwork.dns.zone import Directory, Server
from pynetwork.peers import Peer
from pynetwork.specs import EndpointSpec, NetworkSpec, PortSpec, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Host:
    """A directory with two networks, ``net`` and ``my.lan``, that tests put endpoints into."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.network("net")
        self.network("my.lan")
        self.joined = 0

    def network(self, name: str, **fields: Any) -> None:
        spec = NetworkSpec(id=name, name=name, driver="bridge", options=None, **fields)
        self.directory.put(f"network/{name}", spec)

    def box(self, name: str, **fields: Any) -> None:
        spec = SandboxSpec(id=name, name=name, netns=f"/run/{name}", **fields)
        self.directory.put(f"sandbox/{name}", spec)

    def join(self, name: str, box: str | None, *addresses: str, network: str = "net", **fields: Any) -> None:
        self.joined += 1
        if box is not None and box not in self.directory.inmates:
            self.box(box)
        spec = EndpointSpec(
            id=name,
            name=fields.pop("called", name),
            network=network,
            mac="02:00:00:00:00:01",
            addresses=addresses,
            sandbox=box,
            joined=self.joined,
            **fields,
        )
        self.directory.put(f"endpoint/{network}/{name}", spec)

    def reply(self, box: str, name: str, kind: str = "A") -> dns.message.Message | None:
        """Return what a sandbox is answered; None when others are asked."""
        wire = dns.message.make_query(name, dns.rdatatype.from_text(kind)).to_wire()
        question = codec.parse(wire)
        assert isinstance(question, Question)
        bodies = self.directory.inmates[box].view.bodies(question, 4096)
        return None if bodies is None else dns.message.from_wire(codec.reply(wire, question, bodies[0]))

    def find(self, box: str, name: str, kind: str = "A") -> object:
        """Return the answers as a sorted list of text, or the rcode when there are none; None: forwarded."""
        message = self.reply(box, name, kind)
        if message is None:
            return None
        assert message.flags & dns.flags.AA
        found = sorted(str(item) for rrset in message.answer for item in rrset)
        assert found or message.authority[0].rdtype == dns.rdatatype.SOA
        return found or dns.rcode.to_text(message.rcode())


@pytest.fixture
def host() -> Host:
    host = Host()
    host.join("web", "a", "10.0.0.2/24", "fd00::2/64", aliases=["www", "site"])
    host.join("db", "b", "10.0.0.3/24")
    return host


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("web", "A", ["10.0.0.2"]),
        ("web", "AAAA", ["fd00::2"]),
        ("WwW", "A", ["10.0.0.2"]),
        ("www.net", "AAAA", ["fd00::2"]),
        ("DB.NET", "A", ["10.0.0.3"]),
        ("db", "AAAA", "NOERROR"),
        ("db.net", "AAAA", "NOERROR"),
        ("db", "MX", "NOERROR"),
        ("db", "HTTPS", "NOERROR"),
        ("web", "ANY", ["10.0.0.2", "fd00::2"]),
        ("nobody.net", "A", "NXDOMAIN"),
        ("a.web.net", "AAAA", "NXDOMAIN"),
        ("net", "A", "NOERROR"),
        ("nobody", "A", None),
        ("web.my.lan", "A", None),  # a network it is not in
        ("web.net.example", "A", None),
        ("2.0.0.10.in-addr.arpa", "PTR", ["web.net."]),
        ("2.0.0.10.in-addr.arpa", "A", "NOERROR"),
        ("9.0.0.10.in-addr.arpa", "PTR", None),
        ("2." + "0." * 27 + "0.d.f.ip6.arpa", "PTR", None),
        ("2." + "0." * 29 + "d.f.ip6.arpa", "PTR", ["web.net."]),
    ],
)
def test_names_of_a_network(host: Host, name: str, kind: str, answer: object) -> None:
    assert host.find("b", name, kind) == answer


def test_an_answer_is_in_the_askers_case(host: Host) -> None:
    message = host.reply("b", "wWw.NeT")
    assert message is not None
    assert message.answer[0].name.to_text() == "wWw.NeT."


def test_only_joined_endpoints_have_names(host: Host) -> None:
    host.join("idle", None, "10.0.0.9/24")
    assert host.find("b", "idle") is None
    host.join("idle", "c", "10.0.0.9/24")
    assert host.find("b", "idle") == ["10.0.0.9"]
    host.directory.put("endpoint/net/idle", None)
    assert host.find("b", "idle") is None
    assert host.find("b", "9.0.0.10.in-addr.arpa", "PTR") is None


def test_an_alias_of_several_is_all_of_them_in_changing_order(host: Host) -> None:
    for number in range(3):
        host.join(f"w{number}", f"s{number}", f"10.0.0.1{number}/24", aliases=["pool"])
    assert host.find("b", "pool") == ["10.0.0.10", "10.0.0.11", "10.0.0.12"]
    wire = dns.message.make_query("pool", "A").to_wire()
    question = codec.parse(wire)
    assert isinstance(question, Question)
    bodies = host.directory.inmates["b"].view.bodies(question, 4096)
    assert bodies is not None
    replies = [dns.message.from_wire(codec.reply(wire, question, body)) for body in bodies]
    firsts = Counter(str(reply.answer[0][0]) for reply in replies)
    assert firsts == {"10.0.0.10": 1, "10.0.0.11": 1, "10.0.0.12": 1}


def test_the_first_network_counts_and_the_next_helps_out(host: Host) -> None:
    """The order is that of the default routes; a family that the first lacks is looked for in the next."""
    host.join("other", "x", "192.168.0.2/24", "fd01::2/64", network="my.lan", called="db")
    host.join("b-lan", "b", "192.168.0.3/24", network="my.lan")
    assert host.find("b", "db") == ["10.0.0.3"]
    assert host.find("b", "db", "AAAA") == ["fd01::2"]
    assert host.find("b", "db.my.lan") == ["192.168.0.2"]
    assert host.find("b", "db.net") == ["10.0.0.3"]
    host.join("b-lan", "b", "192.168.0.3/24", network="my.lan", priority=1)
    assert host.find("b", "db") == ["192.168.0.2"]
    assert host.find("a", "db.my.lan") is None


def test_a_name_with_dots_is_whole_before_it_is_divided(host: Host) -> None:
    host.network("b.c")
    host.join("a.b.c", "z", "10.0.0.20/24")
    host.join("a", "z", "10.1.0.20/24", network="b.c")
    assert host.find("z", "a.b.c") == ["10.0.0.20"]
    host.directory.put("endpoint/net/a.b.c", None)
    assert host.find("z", "a.b.c") == ["10.1.0.20"]
    assert host.find("z", "b.c") == "NOERROR"
    assert host.find("z", "q.b.c") == "NXDOMAIN"


def test_a_label_that_only_looks_like_a_network_is_none(host: Host) -> None:
    """The suffix is compared label by label: this one holds a byte that could be the length of the next."""
    assert host.find("b", r"web\003net") is None


def test_links_are_known_to_their_own_sandbox_only(host: Host) -> None:
    host.join("app", "c", "10.0.0.4/24", links={"database": "db", "web": "db", "lost": "nobody"})
    assert host.find("c", "database") == ["10.0.0.3"]
    assert host.find("c", "database.net") == ["10.0.0.3"]
    assert host.find("c", "web") == ["10.0.0.3"]  # a link comes before a name
    assert host.find("c", "lost") is None
    assert host.find("b", "database") is None
    assert host.find("b", "web") == ["10.0.0.2"]


def test_services_are_the_ports_that_are_exposed_or_published(host: Host) -> None:
    host.join("srv", "s", "10.0.0.5/24", "fd00::5/64", exposed=["53/udp", "8000-8001/tcp"], aliases=["api"])
    assert host.find("b", "srv", "SRV") == [
        "0 1 53 srv.net.",
        "0 1 8000 srv.net.",
        "0 1 8001 srv.net.",
    ]
    assert host.find("b", "_8000._tcp.api", "SRV") == ["0 1 8000 srv.net."]
    assert host.find("b", "_domain._UDP.api.net", "SRV") == ["0 1 53 srv.net."]
    assert host.find("b", "_domain._tcp.api", "SRV") == "NXDOMAIN"
    assert host.find("b", "_domain._udp.api", "A") == "NOERROR"
    assert host.find("b", "_nonsense._tcp.api", "SRV") == "NXDOMAIN"
    assert host.find("b", "_0._tcp.api", "SRV") == "NXDOMAIN"
    assert host.find("b", "_53._udp.nobody", "SRV") is None
    assert host.find("b", "_53._udp.nobody.net", "SRV") == "NXDOMAIN"
    assert host.find("b", "db", "SRV") == "NOERROR"
    message = host.reply("b", "srv.net", "SRV")
    assert message is not None
    assert sorted(str(item) for rrset in message.additional for item in rrset) == ["10.0.0.5", "fd00::5"]
    port = PortSpec(id="p", endpoint="db", binding={"first": 5432, "last": 5432})
    host.directory.put("port/db/p", port)
    assert host.find("a", "db", "SRV") == ["0 1 5432 db.net."]
    host.directory.put("port/db/p", None)
    assert host.find("a", "db", "SRV") == "NOERROR"


def test_names_that_dns_cannot_say_are_left_out(host: Host) -> None:
    host.join("x" * 70, "c", "10.0.0.6/24", aliases=["long", "a..b"])
    assert host.find("b", "long") == ["10.0.0.6"]


def test_a_network_that_is_renamed_takes_its_names_along(host: Host) -> None:
    assert host.find("b", "web.net") == ["10.0.0.2"]
    spec: NetworkSpec[None] = NetworkSpec(id="net", name="new", driver="bridge", options=None)
    host.directory.put("network/net", spec)
    assert host.find("b", "web.new") == ["10.0.0.2"]
    assert host.find("b", "web.net") is None


def test_a_change_empties_the_prepared_answers_of_its_network_alone(host: Host) -> None:
    host.join("far", "f", "192.168.0.2/24", network="my.lan")
    views = {box: host.directory.inmates[box].view for box in "abf"}
    assert views["a"] is views["b"] is not views["f"]  # alike: one set of prepared answers for all
    for view in views.values():
        view.remember(b"q", (b"r",))
    host.join("new", "n", "10.0.0.7/24")
    assert views["a"].cache == {}
    assert views["f"].cache == {b"q": b"r"}


def test_prepared_answers_are_bounded(host: Host) -> None:
    view = host.directory.inmates["a"].view
    most = 0
    for number in range(5000):
        view.remember(number.to_bytes(4, "big"), (bytes(100), bytes(100)))
        assert host.find("a", f"n{number}.net") == "NXDOMAIN"
        most = max(most, len(view.cache) + len(view._bodies))
    assert 100 < most < 2000


def test_one_answer_is_prepared_for_all_cases_of_a_name(host: Host) -> None:
    for name in ("web", "WEB", "wEb"):
        assert host.find("a", name) == ["10.0.0.2"]
    assert len(host.directory.inmates["a"].view._bodies) == 1


def test_a_sandbox_without_addresses_or_of_the_host_gets_no_server(host: Host) -> None:
    inmates = host.directory.inmates
    assert inmates["a"].wants_server
    host.join("bare", "n")
    assert not inmates["n"].wants_server
    host.directory.put("sandbox/h", SandboxSpec(id="h", name="h", netns=None))
    host.join("hosted", "h", "10.0.0.8/24")
    assert not inmates["h"].wants_server
    host.directory.put("endpoint/net/web", None)
    assert not inmates["a"].wants_server


def test_what_is_deleted_is_forgotten(host: Host) -> None:
    for box in "ab":
        host.directory.put(f"sandbox/{box}", None)
    host.join("web", None)
    host.join("db", None)
    assert host.directory.inmates == {}
    assert {"a", "b"} <= host.directory.touched
    host.directory.clear()
    assert host.directory.inmates == {}


@pytest.mark.parametrize(
    ("box", "networks", "route", "uses_host"),
    [
        ([], {"net": {}}, [], True),
        ([], {"net": {"internal": True}}, [], False),
        ([], {"net": {"internal": True}, "my.lan": {}}, [], True),
        (["9.9.9.9", "127.0.0.11"], {"net": {"internal": True}}, [("9.9.9.9", "/run/q")], False),
        (["127.0.0.1"], {"net": {}}, [("127.0.0.1", "/run/q")], False),
        ([], {"net": {"dns": ["10.0.0.9"]}}, [("10.0.0.9", "/run/q")], False),
        ([], {"net": {"dns": ["127.0.0.53"]}}, [("127.0.0.53", None)], False),
        ([], {"net": {"dns": ["127.0.0.53"], "internal": True}}, [], False),
        (["8.8.8.8"], {"net": {"dns": ["10.0.0.9"]}}, [("8.8.8.8", "/run/q")], False),
        (
            [],
            {"net": {"dns": ["10.0.0.9"]}, "my.lan": {"dns": ["10.0.0.8", "10.0.0.9"]}},
            [("10.0.0.9", "/run/q"), ("10.0.0.8", "/run/q")],
            False,
        ),
    ],
)
def test_whom_a_sandbox_asks(
    box: list[str],
    networks: Mapping[str, Mapping[str, Any]],
    route: list[tuple[str, str | None]],
    uses_host: bool,
) -> None:
    """Its own servers, else its networks', else the host's unless there is no way out; ourselves never."""
    host = Host()
    host.box("q", dns=box)
    for number, (name, fields) in enumerate(networks.items()):
        host.network(name, **fields)
        host.join(f"e{number}", "q", f"10.{number}.0.2/24", network=name)
    inmate = host.directory.inmates["q"]
    assert inmate.route == tuple(Server(*each) for each in route)
    assert inmate.uses_host is uses_host


def test_an_endpoint_that_comes_here_from_another_host_is_there_all_the_time(host: Host) -> None:
    """Its record here is written before what its old host announced is gone."""
    peer = Peer(
        host="other", vtep="192.0.2.1", mac="02:00:00:00:00:01", addresses=("10.0.0.20",), name="mover"
    )
    host.directory.put("peer/net/mover", peer)
    assert host.find("a", "mover") == ["10.0.0.20"]
    host.join("mover", "c", "10.0.0.20/24")
    assert host.find("a", "mover") == ["10.0.0.20"]
    assert host.find("a", "20.0.0.10.in-addr.arpa", "PTR") == ["mover.net."]
    host.directory.put("peer/net/mover", None)
    assert host.find("a", "mover") == ["10.0.0.20"]
    assert host.find("a", "20.0.0.10.in-addr.arpa", "PTR") == ["mover.net."]


def test_networks_that_come_and_go_leave_nothing(host: Host) -> None:
    """In whatever order their records go."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        host.network("brief")
        host.join("e", "q", "10.7.0.2/24", network="brief")
        gone = ("network/brief", "endpoint/brief/e", "sandbox/q")
        for number in order:
            host.directory.put(gone[number], None)
    assert set(host.directory._zones) == {"net", "my.lan"}
    assert set(host.directory.inmates) == {"a", "b"}
