"""The parts of the name server that need no sandbox: its loop, the host's servers, where processes meet."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.dns.host import HostServers
from pynetwork.dns.loop import Loop
from pynetwork.dns.place import Place, is_ours, receive, send
from pynetwork.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCE = "0123456789abcdef" * 2


@contextmanager
def running(loop: Loop) -> Iterator[None]:
    """Run a loop in a thread, for the ``with`` block."""
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield
    finally:
        loop.post(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def loop() -> Loop:
    return Loop(lambda _happened: 1.0)


def test_calls_from_other_threads_are_made_by_the_loops_own(loop: Loop) -> None:
    made, done = list[int](), threading.Event()
    with running(loop):
        for _ in range(100):
            loop.post(lambda: made.append(threading.get_ident()))
        loop.post(done.set)
        assert done.wait(5)
    assert len(made) == 100
    assert set(made) != {threading.get_ident()}
    assert len(set(made)) == 1


def test_timers_are_called_in_order_unless_they_are_cancelled(loop: Loop) -> None:
    called, done = list[str](), threading.Event()
    loop.later(0.02, lambda: called.append("second"))
    loop.later(0.01, lambda: called.append("first"))
    loop.later(0.01, lambda: called.append("never")).cancel()
    loop.later(0.03, done.set)
    with running(loop):
        assert done.wait(5)
    assert called == ["first", "second"]


def test_timers_that_are_cancelled_do_not_pile_up(loop: Loop) -> None:
    """A forwarded question has some, of seconds; there may be thousands a second."""
    for _ in range(50_000):
        loop.later(60, lambda: None).cancel()
    assert len(loop._timers) < 5_000
    loop.close()


def test_a_call_that_fails_is_told_and_harms_no_other(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    reading, writing = os.pipe()

    def fail(*_: object) -> None:
        os.read(reading, 1)
        raise ZeroDivisionError

    loop.add(reading, fail)
    loop.later(0, lambda: 1 // 0)  # type: ignore[arg-type]  # it returns nothing
    with running(loop):
        os.write(writing, b"-")
        loop.post(lambda: 1 // 0)  # type: ignore[arg-type]  # likewise
        while len(caplog.records) < 3:  # the test has a timeout
            time.sleep(0.001)
        loop.post(done.set)
        assert done.wait(5)
    os.close(reading)
    os.close(writing)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


def test_what_fails_before_each_look_does_not_fail_all_the_time(caplog: pytest.LogCaptureFixture) -> None:
    loop, done = Loop(lambda _happened: 1 / 0), threading.Event()
    loop.later(0.2, done.set)
    with running(loop):
        assert done.wait(5)
    assert 1 <= len(caplog.records) <= 5


def test_what_cannot_be_taken_is_looked_at_again_later_and_not_all_the_time(loop: Loop) -> None:
    reading, writing = os.pipe()
    looks = list[float]()
    done = threading.Event()

    def look(_happened: int) -> None:
        looks.append(time.monotonic())
        if len(looks) < 3:
            loop.pause(reading, 0.05)
        else:
            os.read(reading, 1)
            done.set()

    loop.add(reading, look)
    os.write(writing, b"-")
    with running(loop):
        assert done.wait(5)
    assert len(looks) == 3
    os.close(reading)
    os.close(writing)


def test_a_pause_does_not_outlive_what_it_was_about(loop: Loop) -> None:
    """The number of a descriptor may be another's by then."""
    reading, writing = os.pipe()
    called = list[int]()
    loop.add(reading, called.append)
    loop.pause(reading, 0.0)
    loop.remove(reading)
    loop.pause(reading, 0.0)  # of none: nothing
    loop.add(reading, called.append, 0)
    os.write(writing, b"-")
    done = threading.Event()
    loop.later(0.02, done.set)
    with running(loop):
        assert done.wait(5)
    assert called == []
    os.close(reading)
    os.close(writing)


def servers(found: HostServers) -> list[str]:
    return [server.address for server in found()]


def test_the_hosts_servers_follow_their_file(tmp_path: Path) -> None:
    conf, stub, clock = tmp_path / "resolv.conf", tmp_path / "stub.conf", Clock()
    found = HostServers(clock, (conf, stub))
    assert servers(found) == []
    conf.write_text("nameserver 192.0.2.1\n")
    assert servers(found) == []  # it was looked at just now
    clock.turn(1)
    assert servers(found) == ["192.0.2.1"]
    conf.write_text("nameserver 192.0.2.1\nnameserver 2001:db8::1\noptions rotate\n")
    clock.turn(1)
    assert servers(found) == ["192.0.2.1", "2001:db8::1"]
    other = tmp_path / "other.conf"
    other.write_text("nameserver 192.0.2.2\n" * 2 + "nameserver 192.0.2.3\nnameserver 192.0.2.4\n")
    conf.unlink()
    conf.symlink_to(other)
    clock.turn(1)
    assert servers(found) == ["192.0.2.2", "192.0.2.2", "192.0.2.3"]  # three at most, as resolv.conf(5)
    other.write_text("nameserver 127.0.0.53\n")
    stub.write_text("nameserver 192.0.2.9\n")
    clock.turn(1)
    assert servers(found) == ["192.0.2.9"]  # behind systemd's stub
    conf.unlink()
    clock.turn(1)
    assert servers(found) == []


def test_one_process_at_a_time_has_the_place(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "dns"
    place = Place(directory, INSTANCE)
    assert place.connect() is None
    assert place.ask({"op": "who"}, 1.0) is None
    first = place.listen()
    assert first is not None
    assert place.listen() is None
    assert directory.stat().st_mode & 0o777 == 0o700
    first.close()  # as if it was killed: the file is still there
    assert place.connect() is None
    second = place.listen()
    assert second is not None
    second.close()
    place.leave()
    assert not directory.exists()
    place.leave()


def test_a_place_may_be_far_down(tmp_path: Path) -> None:
    """A socket's path has 107 bytes at most; ours may be longer."""
    directory = tmp_path.joinpath(*["a" * 60] * 3)
    place = Place(directory, INSTANCE)
    listening = place.listen()
    assert listening is not None
    listening.setblocking(True)
    with listening, place.connect(1.0) or pytest.fail("nobody there") as connection:
        accepted, _ = listening.accept()
        with accepted:
            assert is_ours(accepted)
            send(connection, {"op": "x"}, [connection.fileno()])
            found = receive(accepted)
    assert found is not None
    message, descriptors = found
    assert message == {"op": "x"}
    assert len(descriptors) == 1
    os.close(descriptors[0])


def test_places_of_two_instances_are_two(tmp_path: Path) -> None:
    one, two = Place(tmp_path, INSTANCE), Place(tmp_path, INSTANCE[::-1])
    sockets = [one.listen(), two.listen()]
    assert None not in sockets
    for each in sockets:
        if each is not None:
            each.close()
    one.leave()
    assert two.connect() is None
    two.leave()


@pytest.mark.parametrize("junk", [b"\0", b"[]", b"1", b"\xff\xfe", b'{"a": '])
def test_what_is_no_message_is_an_error_and_leaves_no_descriptor(junk: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = len(list(Path("/proc/self/fd").iterdir()))
        socket.send_fds(theirs, [junk], [0, 1])
        with pytest.raises(OSError, match="no message of a name server's"):
            receive(ours)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
