"""Names of others: whom the server asks, from where, and what it makes of what it is told."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from tests.kernel.name_tools import SERVER, ask, cut, dig, record, refusal, texts, upstream

from pynetwork.kernel import syscalls
from pynetwork.kernel.netns import entered

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pynetwork import Controller, Sandbox
    from pynetwork.testing import HostNamespace, PrivateHost

pytestmark = pytest.mark.root

FIRST, SECOND = "192.0.2.2", "192.0.2.3"
HOST = "192.0.2.1"
TRUE = ["192.0.2.80"]


@pytest.fixture
def resolv_conf(host: PrivateHost, tmp_path: Path) -> Iterator[Path]:
    """The private host's own; the machine's is not touched."""
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {FIRST}\n")
    syscalls.mount(str(conf), "/etc/resolv.conf", "none", syscalls.MS_BIND)
    yield conf
    syscalls.umount("/etc/resolv.conf")


@pytest.fixture
def lan(host: PrivateHost, resolv_conf: Path) -> HostNamespace:
    """A machine with two addresses that name servers can have, the first of which the host asks."""
    machine = host.add_machine("lan", address=f"{FIRST}/24", host_address=f"{HOST}/24")
    machine.run(["ip", "address", "add", f"{SECOND}/24", "dev", machine.interface])
    return machine


LAN = "/run/netns/lan"


@pytest.fixture
def sandbox(lan: HostNamespace, controller: Controller) -> Sandbox:
    network = controller.new_network("bridge", "net", subnets=["10.64.0.0/24"])
    made = controller.new_sandbox("box")
    network.create_endpoint("box").join(made)
    made.run(["true"])
    return made


def test_what_is_not_ours_is_asked_elsewhere_and_passed_on(sandbox: Sandbox, controller: Controller) -> None:
    with upstream(LAN, FIRST) as server:
        for tcp in (False, True):
            reply = ask(sandbox.netns_path, "WwW.Example.ORG", tcp=tcp)
            assert texts(reply) == TRUE
            assert not reply.flags & dns.flags.AA
            assert str(reply.question[0].name) == "WwW.Example.ORG."
        assert texts(ask(sandbox.netns_path, "box")) == ["10.64.0.2"]
        assert texts(ask(sandbox.netns_path, "nobody.net")) == []
    assert [tcp for _, _, _, tcp in server.queries] == [False, False]
    assert {source for _, source, _, _ in server.queries} == {HOST}  # dialled from the host
    assert controller.dns_statistics().forwarded == 2


@pytest.mark.parametrize("rcode", [0, 1, 2, 3, 4, 5, 6, 9, 10])
def test_every_rcode_is_passed_on(sandbox: Sandbox, rcode: int) -> None:
    with upstream(LAN, FIRST, lambda query, _tcp: refusal(query, rcode)):
        for tcp in (False, True):
            reply = ask(sandbox.netns_path, "example.org", tcp=tcp, edns=1232)
            assert reply.rcode() == rcode


@pytest.mark.parametrize("why", ["servfail", "refused", "silent", "nobody", "no route"])
def test_the_next_server_is_asked(sandbox: Sandbox, resolv_conf: Path, why: str) -> None:
    behaviours: dict[str, Any] = {
        "servfail": lambda query, _tcp: refusal(query, 2),
        "refused": lambda query, _tcp: refusal(query, 5),
        "silent": lambda _query, _tcp: None,
    }
    first = "198.51.100.1" if why == "no route" else FIRST
    resolv_conf.write_text(f"nameserver {first}\nnameserver {SECOND}\n")
    with upstream(LAN, SECOND):
        if why in behaviours:
            with upstream(LAN, FIRST, behaviours[why]):
                assert texts(ask(sandbox.netns_path, "example.org")) == TRUE
        else:
            assert texts(ask(sandbox.netns_path, "example.org")) == TRUE


def test_a_server_that_was_silent_is_asked_last_for_a_while(sandbox: Sandbox, resolv_conf: Path) -> None:
    resolv_conf.write_text(f"nameserver {FIRST}\nnameserver {SECOND}\n")
    with upstream(LAN, FIRST, lambda *_: None) as silent, upstream(LAN, SECOND):
        for number in range(10):
            assert texts(ask(sandbox.netns_path, f"n{number}.example.org")) == TRUE
        assert len(silent.queries) == 1


def test_there_is_an_answer_even_if_nobody_answers(sandbox: Sandbox, controller: Controller) -> None:
    """Before resolvers give up, after five seconds."""
    with upstream(LAN, FIRST, lambda *_: None) as server:
        for tcp in (False, True):
            assert ask(sandbox.netns_path, "example.org", tcp=tcp, seconds=5).rcode() == dns.rcode.SERVFAIL
        assert len(server.queries) == 4
    assert controller.dns_statistics().failed == 2


def test_a_late_answer_counts(sandbox: Sandbox) -> None:
    def slow(query: bytes, _tcp: bool) -> bytes:
        time.sleep(2)
        return record(query)

    with upstream(LAN, FIRST, slow):
        assert texts(ask(sandbox.netns_path, "example.org")) == TRUE


def test_a_truncated_answer_is_fetched_with_tcp(sandbox: Sandbox, controller: Controller) -> None:
    def behave(query: bytes, tcp: bool) -> bytes:
        return record(query, count=100) if tcp else cut(query)

    with upstream(LAN, FIRST, behave) as server:
        assert len(texts(ask(sandbox.netns_path, "example.org", edns=4096))) == 100
        assert len(texts(ask(sandbox.netns_path, "example.org", tcp=True))) == 100
        assert [tcp for *_, tcp in server.queries] == [False, True, False, True]
        # Who takes no more than 512 bytes is told to come back with TCP, and nothing is fetched in vain.
        assert ask(sandbox.netns_path, "example.org").flags & dns.flags.TC
        assert len(server.queries) == 5
        assert len(dig(sandbox, "example.org", "+noedns").answers) == 100
        # What is too long even so is cut again.
        assert ask(sandbox.netns_path, "example.org", edns=600).flags & dns.flags.TC
    assert controller.dns_statistics().upstream_tcp == 4


def test_a_truncated_answer_is_passed_on_when_tcp_fails(sandbox: Sandbox) -> None:
    with upstream(LAN, FIRST, lambda query, tcp: [] if tcp else cut(query)):
        assert ask(sandbox.netns_path, "example.org", edns=4096).flags & dns.flags.TC


def test_sizes_of_edns_are_the_askers(sandbox: Sandbox) -> None:
    """What the asker takes is what the other server is told, and an answer that is longer is cut."""
    with upstream(LAN, FIRST, lambda query, _tcp: record(query, count=60)) as server:
        assert len(texts(ask(sandbox.netns_path, "example.org", edns=1400))) == 60
        assert dns.message.from_wire(server.queries[-1][0]).payload == 1400
        short = ask(sandbox.netns_path, "example.org", edns=512)
        assert short.flags & dns.flags.TC
        assert short.answer == []


def _forged(query: bytes, change: str) -> bytes:
    message = bytearray(record(query, "6.6.6.6"))
    if change == "id":
        message[0] ^= 0x55
    elif change == "question":
        message[14] ^= 0x01
    elif change == "type":
        message[len(query) - 3] ^= 0x01
    elif change == "a query":
        message[2] &= 0x7F
    return bytes(message[:5]) if change == "short" else bytes(message)


@pytest.mark.parametrize("change", ["id", "question", "type", "a query", "short"])
def test_answers_to_something_else_are_thrown_away(
    sandbox: Sandbox, controller: Controller, change: str
) -> None:
    lies = 20
    with upstream(LAN, FIRST, lambda query, _tcp: [_forged(query, change)] * lies + [record(query)]):
        query = dns.message.make_query("example.org", "A", use_edns=False)
        with entered(str(sandbox.netns_path)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(5)
            asker.sendto(query.to_wire(), (SERVER, 53))
            assert texts(dns.message.from_wire(asker.recv(4096))) == TRUE
    assert controller.dns_statistics().upstream_rejected == lies


def test_answers_from_elsewhere_are_never_seen(sandbox: Sandbox, controller: Controller) -> None:
    """The right id and question, but another port or address than that which was asked."""

    def lie(query: bytes, _tcp: bool) -> bytes:
        _, address, port, _ = server.queries[-1]
        for source in ((FIRST, 5353), (SECOND, 53)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
                liar.bind(source)
                liar.sendto(record(query, "6.6.6.6"), (address, port))
        time.sleep(0.05)
        return record(query)

    with upstream(LAN, FIRST) as server:

        def in_lan(query: bytes, tcp: bool) -> bytes:
            with entered(LAN):
                return lie(query, tcp)

        server.behave = in_lan
        assert texts(ask(sandbox.netns_path, "example.org")) == TRUE


def test_ids_and_ports_cannot_be_guessed(sandbox: Sandbox) -> None:
    with upstream(LAN, FIRST) as server:
        for number in range(60):
            ask(sandbox.netns_path, f"n{number}.example.org")
        assert len({query[:2] for query, *_ in server.queries}) > 55
        assert len({port for _, _, port, _ in server.queries}) > 55


ALONE = 7777


def test_a_question_that_is_repeated_or_shared_is_asked_once(sandbox: Sandbox) -> None:
    """Many copies under way would be as many chances for a forger."""
    release = threading.Event()

    def wait(query: bytes, _tcp: bool) -> bytes:
        release.wait(5)
        return record(query)

    with upstream(LAN, FIRST, wait) as server, entered(str(sandbox.netns_path)):
        askers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        try:
            for number, asker in enumerate(askers):
                asker.settimeout(5)
                asker.connect((SERVER, 53))
                query = dns.message.make_query("example.org", "A", id=number).to_wire()
                for _ in range(3):
                    asker.send(query)
            while not server.queries:
                time.sleep(0.01)
            # In the order they came: what is answered at once tells that all of them were taken in.
            askers[0].send(dns.message.make_query("box", "A", id=ALONE).to_wire())
            assert dns.message.from_wire(askers[0].recv(4096)).id == ALONE
            release.set()
            for number, asker in enumerate(askers):
                reply = dns.message.from_wire(asker.recv(4096))
                assert (reply.id, texts(reply)) == (number, TRUE)
                asker.settimeout(0.02)
                with pytest.raises(TimeoutError):
                    asker.recv(4096)  # one answer each
        finally:
            for asker in askers:
                asker.close()
        assert len(server.queries) == 1


def test_beyond_the_limits_a_question_is_refused_and_others_are_served(
    sandbox: Sandbox, controller: Controller
) -> None:
    other = controller.new_sandbox("other")
    controller.networks["net"].create_endpoint("other").join(other)
    other.run(["true"])
    with (
        upstream(LAN, FIRST, lambda *_: None) as server,
        entered(str(sandbox.netns_path)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy,
    ):
        greedy.connect((SERVER, 53))
        greedy.settimeout(4)
        for number in range(200):
            greedy.send(dns.message.make_query(f"n{number}.example.org", "A").to_wire())
        refused = [dns.message.from_wire(greedy.recv(4096)).rcode() for _ in range(200 - 128)]
        assert set(refused) == {dns.rcode.REFUSED}
        assert controller.dns_statistics().pending == 128
        assert texts(ask(sandbox.netns_path, "other")) == ["10.64.0.3"]
        server.behave = lambda query, _tcp: record(query)
        assert texts(ask(other.netns_path, "example.org")) == TRUE
    assert controller.dns_statistics().refused == 200 - 128


def test_the_hosts_servers_are_read_again_when_they_change(
    sandbox: Sandbox, resolv_conf: Path, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    with upstream(LAN, FIRST), upstream(LAN, SECOND, lambda query, _tcp: record(query, "192.0.2.99")):
        assert texts(ask(sandbox.netns_path, "example.org")) == TRUE
        resolv_conf.write_text(f"nameserver {SECOND}\n")
        assert soon(lambda: texts(ask(sandbox.netns_path, "example.org")) == ["192.0.2.99"])
        resolv_conf.write_text("")
        assert soon(lambda: ask(sandbox.netns_path, "example.org").rcode() == dns.rcode.SERVFAIL)
        resolv_conf.write_text(f"# again\nnameserver {FIRST}\n")
        assert soon(lambda: texts(ask(sandbox.netns_path, "example.org")) == TRUE)


def test_a_server_on_the_hosts_loopback_is_asked_there(sandbox: Sandbox, resolv_conf: Path) -> None:
    resolv_conf.write_text("nameserver 127.0.0.54\n")
    with upstream("/proc/thread-self/ns/net", "127.0.0.54") as server:
        assert texts(ask(sandbox.netns_path, "example.org")) == TRUE
    assert len(server.queries) == 1


def test_servers_of_a_network_or_a_sandbox_are_asked_from_inside(
    lan: HostNamespace, controller: Controller
) -> None:
    """So they may be in the network itself, an internal one too, which does not reach the host's."""
    network = controller.new_network(
        "bridge", "in", subnets=["10.65.0.0/24"], internal=True, dns=["10.65.0.2"]
    )
    names = controller.new_sandbox("names")
    network.create_endpoint("names").join(names)
    asker = controller.new_sandbox("asker")
    network.create_endpoint("asker").join(asker)
    own = controller.new_sandbox("own", dns=["10.65.0.9", "127.0.0.1"])
    network.create_endpoint("own").join(own)
    for each in (names, asker, own):
        each.run(["true"])
    with upstream(LAN, FIRST) as hosts, upstream(names.netns_path, "10.65.0.2") as inside:
        assert texts(ask(asker.netns_path, "example.org")) == TRUE
        assert inside.queries[0][1] == "10.65.0.3"
        with upstream(own.netns_path, "127.0.0.1") as local:
            assert texts(ask(own.netns_path, "example.org")) == TRUE
        assert len(local.queries) == 1
        assert len(inside.queries) == 1
        assert hosts.queries == []


def test_a_sandbox_with_only_internal_networks_does_not_reach_the_hosts_servers(
    lan: HostNamespace, controller: Controller
) -> None:
    inner = controller.new_network("bridge", "in", subnets=["10.65.0.0/24"], internal=True)
    outer = controller.new_network("bridge", "out", subnets=["10.66.0.0/24"])
    sandbox = controller.new_sandbox("box")
    inner.create_endpoint("box").join(sandbox)
    sandbox.run(["true"])
    with upstream(LAN, FIRST) as server:
        assert ask(sandbox.netns_path, "example.org").rcode() == dns.rcode.SERVFAIL
        assert server.queries == []
        way_out = outer.create_endpoint("box")
        way_out.join(sandbox)
        assert texts(ask(sandbox.netns_path, "example.org")) == TRUE
        way_out.leave()
        assert ask(sandbox.netns_path, "example.org").rcode() == dns.rcode.SERVFAIL


def test_a_sandbox_that_goes_while_it_asks_leaves_nothing(
    lan: HostNamespace, controller: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """Sockets in its namespace that wait for an answer would keep that alive."""
    network = controller.new_network("bridge", "net", subnets=["10.64.0.0/24"])
    sandbox = controller.new_sandbox("box", dns=[FIRST])
    network.create_endpoint("box").join(sandbox)
    sandbox.run(["true"])
    with upstream(LAN, FIRST, lambda *_: None) as server, entered(str(sandbox.netns_path)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.sendto(dns.message.make_query("example.org", "A").to_wire(), (SERVER, 53))
            assert soon(lambda: len(server.queries) == 1)
        assert server.queries[0][1] == HOST  # masqueraded: it came from inside
    assert controller.dns_statistics().pending == 1
    sandbox.delete()
    assert soon(lambda: controller.dns_statistics().pending == 0)


@contextmanager
def dnsmasq(machine: HostNamespace, address: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real server on *machine*, with records of many types."""
    long = [f"txt-record=long.example.org,{letter * 250},{letter * 249}" for letter in "abcd"]
    lines = [
        "no-resolv", "no-hosts", "bind-interfaces", "user=root", "keep-in-foreground", "pid-file",
        f"listen-address={address}", "local=/example.org/", "address=/many.example.org/192.0.2.80",
        "host-record=www.example.org,192.0.2.80,2001:db8::80", "cname=alias.example.org,www.example.org",
        "mx-host=example.org,mail.example.org,10", "txt-record=example.org,hello", *long,
        "srv-host=_http._tcp.example.org,www.example.org,80",
        "ptr-record=80.2.0.192.in-addr.arpa,www.example.org",
    ]  # fmt: skip
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text("\n".join(lines) + "\n")
    server = machine.start([shutil.which("dnsmasq") or "dnsmasq", f"--conf-file={conf}"])
    try:
        yield server
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def test_a_real_server(
    sandbox: Sandbox,
    lan: HostNamespace,
    resolv_conf: Path,
    tmp_path: Path,
    soon: Callable[[Callable[[], bool]], bool],
) -> None:
    """Many types, long answers, names that are not there; it dies, and comes back at another address."""
    with dnsmasq(lan, FIRST, tmp_path):
        assert soon(lambda: dig(sandbox, "www.example.org").answers == TRUE)
        assert dig(sandbox, "www.example.org", "AAAA").answers == ["2001:db8::80"]
        assert dig(sandbox, "alias.example.org").answers == [*TRUE, "www.example.org."]
        assert dig(sandbox, "example.org", "MX").answers == ["10 mail.example.org."]
        assert dig(sandbox, "example.org", "TXT").answers == ['"hello"']
        assert dig(sandbox, "_http._tcp.example.org", "SRV").answers == ["0 0 80 www.example.org."]
        assert dig(sandbox, "-x", "192.0.2.80").answers == ["www.example.org."]
        assert dig(sandbox, "nobody.example.org").status == "NXDOMAIN"
        assert dig(sandbox, "elsewhere.test").status == "REFUSED"
        for size in ("+bufsize=1232", "+bufsize=4096", "+tcp"):
            assert len("".join(dig(sandbox, "long.example.org", "TXT", size).answers)) > 2000
    assert dig(sandbox, "www.example.org").status == "SERVFAIL"
    with dnsmasq(lan, SECOND, tmp_path):
        resolv_conf.write_text(f"nameserver {SECOND}\n")
        assert soon(lambda: dig(sandbox, "www.example.org").answers == TRUE)
