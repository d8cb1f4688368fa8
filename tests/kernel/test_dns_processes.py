"""Who serves when several processes could: one of them, and another when it goes or dies, at any step."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.message
import pytest
from tests.kernel.name_tools import SERVER, ask, record, texts, upstream

from pynetwork import Controller
from pynetwork.kernel.netns import entered
from pynetwork.testing import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

OURS = ["10.64.0.2"]
STATE, RUN = "/var/lib/pynetwork", "/run/pynetwork"
COMPANION = ["-m", "pynetwork.dns", "--state-dir", STATE, "--run-dir", RUN]


@pytest.fixture
def path(host: PrivateHost) -> Iterator[str]:
    """The namespace of a sandbox ``box`` whose maker is gone; all is erased at the end."""
    with Controller(dns="off") as controller:
        network = controller.new_network("bridge", "net", subnets=["10.64.0.0/24"])
        sandbox = controller.new_sandbox("box", dns=["127.0.0.7"])
        network.create_endpoint("box").join(sandbox)
        found = str(sandbox.netns_path)
    yield found
    with Controller(dns="off") as controller:
        controller.erase()


def resolves(path: str, seconds: float = 1.0) -> bool:
    with suppress(OSError, dns.exception.Timeout):
        return texts(ask(path, "box", seconds=seconds)) == OURS
    return False


def who() -> Any:
    """Return what the process that serves says of itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        (place,) = Path(RUN, "dns").glob("*.sock")
        asking.connect(str(place))
        asking.send(b'{"op": "who"}')
        return eval(asking.recv(4096), {"true": True, "false": False})  # noqa: S307 - JSON of ours


def runs(pid: int) -> bool:
    """Return whether a process runs; one that nobody buries does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def listeners(host: PrivateHost, path: str) -> list[str]:
    """Return the addresses that somebody listens at in the sandbox."""
    lines = host.run(["nsenter", f"--net={path}", "ss", "-Hltun"]).stdout.splitlines()
    return sorted(f"{line.split()[0]} {line.split()[4]}" for line in lines)


def serve_here() -> None:
    from pynetwork import Controller
    from pynetwork.testing import reach

    with Controller() as controller:
        controller.sandboxes["box"].run(["true"])
        reach("serving")


@contextmanager
def asked_all_the_time(path: str) -> Iterator[list[float]]:
    """Ask without a break, each question once; at the end all have been answered."""
    stop, failed, asked = threading.Event(), list[str](), list[float]()

    def keep_asking() -> None:
        query = dns.message.make_query("box", "A").to_wire()
        with entered(path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(5)
            asker.connect((SERVER, 53))
            while not stop.is_set() and not failed:
                try:
                    asker.send(query)
                    asker.recv(4096)
                    asked.append(time.monotonic())
                except OSError as error:
                    failed.append(f"{error!r} after {len(asked)}")

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()
    assert failed == []
    assert asked


def test_one_process_serves_and_the_other_when_that_dies(
    host: PrivateHost, path: str, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    once = ["tcp 127.0.0.11:53", "tcp [::1]:53", "udp 127.0.0.11:53", "udp [::1]:53"]
    with Child(serve_here) as first, Child(serve_here) as second:
        first.wait_for("serving")
        second.wait_for("serving")
        server = who()["pid"]
        assert server in {first.pid, second.pid}
        assert resolves(path)
        assert listeners(host, path) == once
        os.kill(server, signal.SIGKILL)
        assert soon(lambda: resolves(path, 0.1))
        assert {server, who()["pid"]} == {first.pid, second.pid}
        assert listeners(host, path) == once


def test_a_server_that_closes_hands_over(path: str) -> None:
    with Child(serve_here) as first:
        first.wait_for("serving")
        with Controller() as second:
            second.dns_statistics()
            second.sandboxes["box"].run(["true"])
            with asked_all_the_time(path) as asked:
                first.proceed()
                assert first.wait() == 0
                count = len(asked)
                while len(asked) < count + 100:
                    time.sleep(0.001)
            assert who()["pid"] == os.getpid()


def test_a_companion_takes_over_and_is_replaced_without_a_lost_query(
    path: str, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """Also what is under way with another server is answered, by the process that asked it."""
    replies: list[bytes] = []

    def slow(query: bytes, _tcp: bool) -> bytes:
        time.sleep(0.7)
        return record(query)

    with Child(serve_here) as here, upstream(path, "127.0.0.7", slow) as server:
        here.wait_for("serving")
        for _ in range(2):
            before = who()
            with (
                asked_all_the_time(path),
                entered(path),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker,
            ):
                asker.settimeout(5)
                asker.connect((SERVER, 53))
                asked = len(server.queries)
                asker.send(dns.message.make_query("example.org", "A").to_wire())
                assert soon(lambda: len(server.queries) > asked)  # noqa: B023 - called at once
                subprocess.run([sys.executable, *COMPANION, "--detach"], check=True, timeout=20)
                replies.append(asker.recv(4096))
            assert who()["companion"]
            assert who()["pid"] != before["pid"]
            assert not before["companion"] or soon(lambda: not runs(before["pid"]))  # noqa: B023
        assert [texts(dns.message.from_wire(reply)) for reply in replies] == [["192.0.2.80"]] * 2


def test_names_outlive_callers_with_a_companion_and_reconcile_brings_it_back(
    path: str, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    with Controller(dns="companion") as controller:
        controller.sandboxes["box"].run(["true"])
        first = who()
        assert first["companion"]
        assert controller.dns_statistics().sandboxes == 1
    assert resolves(path)
    os.kill(first["pid"], signal.SIGKILL)
    assert soon(lambda: not resolves(path, 0.1))
    with Controller(dns="companion") as controller:
        controller.reconcile()
        assert resolves(path)
        second = who()
        assert second["companion"]
        assert second["pid"] != first["pid"]
        controller.networks["net"].create_endpoint("late").join(controller.new_sandbox("late"))
        done = controller.sandboxes["late"].run(
            ["dig", "@127.0.0.11", "+short", "box"], capture_output=True, text=True
        )
        assert done.stdout.split() == OURS
        controller.sandboxes["late"].delete()
        assert soon(lambda: controller.dns_statistics().sandboxes == 1)
    assert who() == second


def test_a_program_that_exits_at_once_leaves_a_companion_that_serves(path: str) -> None:
    code = (
        "from pynetwork import Controller\n"
        "with Controller(dns='companion') as controller:\n"
        "    endpoint = controller.networks['net'].create_endpoint('new')\n"
        "    endpoint.join(controller.new_sandbox('new'))\n"
    )
    with Child(code) as child:
        assert child.wait() == 0
    with Controller(dns="off") as controller:
        new = controller.sandboxes["new"]
        assert texts(ask(new.netns_path, "box")) == OURS
        new.delete()


def test_a_companion_ends_when_there_is_nothing_to_serve(host: PrivateHost) -> None:
    with Controller(dns="off") as controller:
        controller.new_network("bridge", "net", subnets=["10.64.0.0/24"])
        done = subprocess.run([sys.executable, *COMPANION], check=False, timeout=30)
        assert done.returncode == 0
        controller.erase()
    assert list(Path(RUN).iterdir()) == []


def test_a_companion_ends_with_a_signal_or_its_instance(
    path: str, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    with subprocess.Popen([sys.executable, *COMPANION]) as companion:
        while not resolves(path, 0.1):
            time.sleep(0.02)
        companion.send_signal(signal.SIGTERM)
        assert companion.wait(10) == 0
    assert not resolves(path, 0.1)
    with Controller(dns="companion") as controller:
        controller.sandboxes["box"].run(["true"])
        pid = who()["pid"]
        controller.erase()
    assert soon(lambda: not runs(pid))


@pytest.mark.parametrize("state", ["nowhere", ""])
def test_a_companion_without_an_instance_says_so(host: PrivateHost, tmp_path: Path, state: str) -> None:
    place = ["--state-dir", str(tmp_path / state), "--run-dir", RUN]
    argv = [sys.executable, "-m", "pynetwork.dns", *place, "--detach"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert f"no instance in {tmp_path / state}" in done.stderr


def _giver(at: str) -> None:
    import importlib
    import os
    import signal

    from pynetwork import Controller
    from pynetwork.testing import reach

    office: Any = importlib.import_module("pynetwork.dns.office")
    real, left = office.send, int(at)

    def send(*arguments: object) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        real(*arguments)

    with Controller() as controller:
        controller.sandboxes["box"].run(["true"])
        office.send = send
        reach("serving")


def test_a_server_that_dies_while_it_hands_over(path: str) -> None:
    """At any message: the heir, or whoever is left, serves all the same."""
    for at in itertools.count():
        with Child(_giver, str(at)) as giver:
            giver.wait_for("serving")
            with Controller(dns="companion") as controller:
                controller.reconcile()
            assert resolves(path)
            assert who()["companion"]
            survived = runs(giver.pid)
            os.kill(who()["pid"], signal.SIGKILL)
        if survived:
            break
    assert at >= 3  # a sandbox, the end, and that it stands by


def _heir(at: str) -> None:
    import importlib
    import os
    import runpy
    import signal
    import sys

    office: Any = importlib.import_module("pynetwork.dns.office")
    real, left = office.receive, int(at)

    def receive(*arguments: object) -> object:
        nonlocal left
        found = real(*arguments)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return found

    office.receive = receive
    sys.argv = ["dns", "--state-dir", "/var/lib/pynetwork", "--run-dir", "/run/pynetwork"]
    runpy.run_module("pynetwork.dns", run_name="__main__")


def test_an_heir_that_dies_while_it_takes_over(path: str, soon: Callable[[Callable[[], bool]], bool]) -> None:
    """At any message: whoever served before serves on."""
    with Child(serve_here) as here:
        here.wait_for("serving")
        for at in range(2):  # a sandbox, and the end
            with Child(_heir, str(at)) as heir:
                assert heir.wait() == -signal.SIGKILL
            assert soon(lambda: resolves(path, 0.1))
            assert who() == {"companion": False, "pid": here.pid}


def _short_of_descriptors() -> None:
    import os
    import resource
    import time
    from pathlib import Path

    from pynetwork import Controller, PynetworkError

    with Controller() as controller:
        names = controller._core.dns
        assert names is not None
        controller.sandboxes["box"].run(["true"])
        other = controller.new_sandbox("other")
        endpoint = controller.networks["net"].create_endpoint("other")
        spares = controller._core.namespaces()._spares
        while len(spares._ready) < spares._size:  # they take descriptors as well
            time.sleep(0.01)

        def left() -> list[str]:
            with other.entered():
                tables = [Path(f"/proc/thread-self/net/{name}") for name in ("udp", "udp6", "tcp", "tcp6")]
                return [line for table in tables for line in table.read_text().splitlines()[1:]]

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for room in range(12):
            highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - it opens the fewest itself
            fillers = [os.dup(0)]
            while fillers[-1] < highest:
                fillers.append(os.dup(0))
            resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + room, hard))
            try:
                endpoint.join(other)
                names.ensure(other.id)
                served = controller.dns_statistics().sandboxes == 2
            except (OSError, PynetworkError):
                served = False  # the join itself
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in fillers:
                os.close(each)
            if endpoint.sandbox is None:
                endpoint.join(other)
            while controller.dns_statistics().sandboxes < 2:
                time.sleep(0.001)
            print(room, served, len(left()))  # noqa: T201 - to the test
            endpoint.leave()
            while left():
                time.sleep(0.001)
        other.delete()


def test_a_server_that_is_short_of_descriptors_leaks_none_and_serves_later(path: str) -> None:
    """Whichever of the sockets it is that cannot be opened."""
    with Child(_short_of_descriptors, timeout=60) as child:
        assert child.wait() == 0
    assert [line.split()[2] for line in child.output] == [
        "4"
    ] * 12  # had one been left, it would be in the way
    assert child.output[0].split()[1] == "False"
    assert child.output[-1].split()[1] == "True"
