"""Junk does not stop the server, whoever sends it: askers, servers that are asked, other processes."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.rdatatype
import pytest
from tests.kernel.name_tools import SERVER, ask, cut, record, texts, upstream

from pynetwork.kernel.netns import entered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork import Controller, Sandbox

pytestmark = pytest.mark.root

OURS = ["10.64.0.2"]


@pytest.fixture
def sandbox(controller: Controller) -> Sandbox:
    network = controller.new_network("bridge", "net", subnets=["10.64.0.0/24"])
    made = controller.new_sandbox("box", dns=["127.0.0.7"])
    network.create_endpoint("box", aliases=["pool"], exposed=["80/tcp"]).join(made)
    made.run(["true"])
    return made


@pytest.fixture(autouse=True)
def nothing_fails_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The server survives what it did not foresee, and says so; there must be nothing to say."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def damaged(chance: random.Random, message: bytes) -> bytes:
    """Return *message* with bytes changed, cut out, doubled, or cut off."""
    junk = bytearray(message)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(junk) + 1)
        match chance.randrange(4):
            case 0 if at < len(junk):
                junk[at] = chance.choice((0, 0xC0, 0xFF, 0x3F, 0x40, chance.randrange(256)))
            case 1:
                del junk[at : at + chance.randrange(4)]
            case 2:
                junk[at:at] = junk[at : at + chance.randrange(16)]
            case _ if at > 2:
                del junk[at:]
        if not junk:
            break
    return bytes(junk)


def messages(chance: random.Random, count: int) -> Iterator[bytes]:
    """Yield queries of many kinds, damaged ones, answers, and bytes that mean nothing."""
    names = [
        "box",
        "box.net",
        "x.net",
        "_80._tcp.box",
        "_._tcp.box",
        "2.0.64.10.in-addr.arpa",
        "example.org",
        ".",
    ]
    for _ in range(count):
        query = dns.message.make_query(
            chance.choice(names), dns.rdatatype.RdataType(chance.randrange(1, 260))
        )
        if chance.random() < 0.5:
            query.use_edns(chance.choice((0, 0, 1)), payload=chance.choice((0, 512, 4096)))
        wire = query.to_wire()
        match chance.randrange(5):
            case 0:
                yield wire
            case 1:
                yield chance.randbytes(chance.randrange(64))
            case 2:
                yield record(dns.message.make_query("example.org", "A").to_wire())
            case _:
                yield damaged(chance, wire)


@pytest.mark.parametrize("seed", range(3))
def test_junk_over_udp(sandbox: Sandbox, controller: Controller, seed: int) -> None:
    chance = random.Random(seed)
    with entered(str(sandbox.netns_path)):
        for family, address in ((socket.AF_INET, SERVER), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as asker:
                asker.settimeout(0)
                for number, message in enumerate(messages(chance, 1500)):
                    asker.sendto(message, (address, 53))
                    with contextlib.suppress(BlockingIOError):
                        dns.message.from_wire(asker.recv(65535), ignore_trailing=False)  # no junk in return
                    if not number % 50:
                        time.sleep(0.001)  # or most would be lost
                asker.sendto(bytes(60_000), (address, 53))
    assert texts(ask(sandbox.netns_path, "box")) == OURS
    counted = controller.dns_statistics()
    assert counted.queries > 1000
    assert min(counted.local, counted.malformed, counted.dropped, counted.forwarded) > 0


@pytest.mark.parametrize("seed", range(3))
def test_junk_over_tcp(sandbox: Sandbox, seed: int) -> None:
    chance = random.Random(seed)
    with entered(str(sandbox.netns_path)):
        for _ in range(100):
            with socket.create_connection((SERVER, 53), timeout=5) as asker, contextlib.suppress(OSError):
                for message in messages(chance, chance.randrange(20)):
                    size = len(message) + (chance.randrange(-3, 3000) if chance.random() < 0.1 else 0)
                    asker.sendall(struct.pack("!H", max(size, 0)) + message)
                if chance.random() < 0.3:
                    asker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset it
    assert texts(ask(sandbox.netns_path, "box", tcp=True)) == OURS


def test_a_client_that_floods_and_never_reads_holds_up_nobody(sandbox: Sandbox) -> None:
    query = dns.message.make_query("box", "A").to_wire()
    flood = (struct.pack("!H", len(query)) + query) * 2000
    with entered(str(sandbox.netns_path)), socket.create_connection((SERVER, 53)) as greedy:
        greedy.setblocking(False)
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                try:
                    greedy.send(flood)
                except BlockingIOError:
                    time.sleep(0.001)
                except OSError:
                    return

        thread = threading.Thread(target=send)
        thread.start()
        try:
            for _ in range(50):
                assert texts(ask(sandbox.netns_path, "box", seconds=2)) == OURS
                assert texts(ask(sandbox.netns_path, "box", tcp=True, seconds=2)) == OURS
        finally:
            stop.set()
            thread.join()


def test_empty_frames_without_end_hold_up_nobody(sandbox: Sandbox) -> None:
    with entered(str(sandbox.netns_path)), socket.create_connection((SERVER, 53)) as greedy:
        greedy.setblocking(False)
        for _ in range(50):
            with contextlib.suppress(BlockingIOError):
                greedy.send(bytes(1 << 16))
            assert texts(ask(sandbox.netns_path, "box", seconds=2)) == OURS


def test_connections_without_number_leave_room_for_others(sandbox: Sandbox, controller: Controller) -> None:
    with entered(str(sandbox.netns_path)), contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(socket.create_connection((SERVER, 53), timeout=5)).sendall(b"\0")
        assert texts(ask(sandbox.netns_path, "box", tcp=True)) == OURS
        assert controller.dns_statistics().connections <= 32


def test_a_question_that_comes_byte_by_byte_is_answered(sandbox: Sandbox) -> None:
    query = dns.message.make_query("box", "A").to_wire()
    with entered(str(sandbox.netns_path)), socket.create_connection((SERVER, 53), timeout=5) as asker:
        asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in struct.pack("!H", len(query)) + query:
            asker.send(bytes((byte,)))
        reply = asker.recv(4096)
        assert texts(dns.message.from_wire(reply[2:])) == OURS


def test_many_questions_on_a_connection_are_all_answered(sandbox: Sandbox) -> None:
    queries = [dns.message.make_query("box", "A", id=number).to_wire() for number in range(500)]
    with entered(str(sandbox.netns_path)), socket.create_connection((SERVER, 53), timeout=5) as asker:
        asker.sendall(b"".join(struct.pack("!H", len(query)) + query for query in queries))
        stream, ids = asker.makefile("rb"), []
        with stream:
            for _ in queries:
                (size,) = struct.unpack("!H", stream.read(2))
                ids.append(dns.message.from_wire(stream.read(size)).id)
    assert ids == list(range(500))


@pytest.mark.parametrize("seed", range(3))
def test_junk_from_a_server_that_is_asked(sandbox: Sandbox, seed: int) -> None:
    """Over UDP and TCP, before the truth or instead of it: every question has an answer, and a whole one."""
    chance = random.Random(seed)

    def lie(query: bytes, tcp: bool) -> bytes | list[bytes]:
        true = record(query) if tcp or chance.random() < 0.7 else cut(query)
        junk = [damaged(chance, true) for _ in range(chance.randrange(3))]
        return [*(message for message in junk if message), true]

    with upstream(sandbox.netns_path, "127.0.0.7", lie):
        for number in range(60):
            edns = chance.choice((None, 4096))
            with contextlib.suppress(dns.exception.FormError):  # in a record: the asker's to judge
                assert ask(sandbox.netns_path, f"n{number}.example.org", edns=edns).question
        assert texts(ask(sandbox.netns_path, "box")) == OURS


def test_junk_from_other_processes(
    sandbox: Sandbox, controller: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    (path,) = Path("/run/pynetwork/dns").glob("*.sock")
    chance = random.Random(1)
    for junk in (b"\0", b"[]", b"null", b"{}", b'{"op": 1}', b'{"op": "ready"}', chance.randbytes(999)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.connect(str(path))
            socket.send_fds(other, [junk], [0, 1, 2])
    assert soon(lambda: texts(ask(sandbox.netns_path, "box")) == OURS)
    assert controller.dns_statistics().sandboxes == 1
