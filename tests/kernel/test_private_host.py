"""A private host hides the real one from threads and processes, connects machines, and tells of leaks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller
from pynetwork.kernel.hierarchies import find_hierarchies
from pynetwork.testing import Child, LeakError, private_host

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.root


def namespaces() -> tuple[str, str]:
    """Return the network and mount namespaces of the calling thread."""
    net, mnt = (str(Path(f"/proc/thread-self/ns/{kind}").readlink()) for kind in ("net", "mnt"))
    return net, mnt


def in_thread() -> tuple[str, str]:
    found = []
    thread = threading.Thread(target=lambda: found.append(namespaces()))
    thread.start()
    thread.join()
    return found[0]


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def mounted() -> list[str]:
    return [line.split()[4] for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]


def test_threads_and_processes_live_on_it_and_the_thread_comes_back() -> None:
    before, mounts, directory = namespaces(), mounted(), Path.cwd()
    with private_host() as host:
        inside = namespaces()
        assert inside[0] != before[0]
        assert inside[1] != before[1]
        assert inside == in_thread()
        code = "import os; print(os.readlink('/proc/self/ns/net'), os.readlink('/proc/self/ns/mnt'))"
        assert inside == tuple(host.run([sys.executable, "-c", code]).stdout.split())
        assert directory == Path.cwd()
    assert before == namespaces() == in_thread()
    assert mounts == mounted()
    assert directory == Path.cwd()


def test_its_network_is_a_loopback_that_is_up() -> None:
    with private_host():
        assert links() == {"lo"}
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            pass


def test_its_directories_are_empty() -> None:
    with private_host():
        for path in ("/run/pynetwork", "/var/lib/pynetwork", "/run/netns"):
            assert list(Path(path).iterdir()) == []


def test_its_directories_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    paths = [tmp_path / "old", tmp_path / "new"]
    for _ in range(2):
        with private_host([str(path) for path in paths]):
            for path in paths:
                assert list(path.iterdir()) == []
                (path / "other").touch()
        assert paths[0:1] == list(tmp_path.iterdir())
        assert [paths[0] / "file"] == list(paths[0].iterdir())


def wait_inside(path: str) -> None:
    from pathlib import Path

    from pynetwork.testing import private_host, reach

    with private_host([path]):
        (Path(path) / "theirs").touch()
        reach("inside")
        (Path(path) / "theirs").unlink()


def test_its_directories_stay_while_another_process_needs_them(tmp_path: Path) -> None:
    """The last of several private hosts removes the directories, not the first."""
    path = tmp_path / "new"
    with Child(wait_inside, str(path)) as child:
        child.wait_for("inside")
        with private_host([str(path)]):
            assert list(path.iterdir()) == []
        assert path.exists()
        child.proceed()
        assert child.wait() == 0
    assert not path.exists()


def test_the_next_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with Child(wait_inside, str(path)) as child:
        child.wait_for("inside")
    assert path.exists()
    with private_host([str(path)]):
        pass
    assert not path.exists()


def made_groups() -> set[str]:
    home = find_hierarchies().home
    return {path.name for path in home.glob("private-*")}


def test_the_next_removes_the_groups_that_a_killed_one_left() -> None:
    """With whoever is in them; those of a process that lives stay."""
    code = """
        import subprocess
        from pynetwork.testing import private_host, reach
        with private_host():
            print(subprocess.Popen(["sleep", "60"], stdin=-3, stdout=-3).pid)
            reach("there")
    """
    with Child(textwrap.dedent(code)) as killed, Child(textwrap.dedent(code)) as alive:
        killed.wait_for("there")
        alive.wait_for("there")
        pids = killed.pid, alive.pid
        left, kept = ({each for each in made_groups() if f"-{pid}-" in each} for pid in pids)
        group = find_hierarchies().home / next(iter(left))
        (group / "cgroup.procs").write_text(killed.output[0])
        killed.kill()
        with private_host():
            pass
        assert left
        assert kept
        assert made_groups() & (left | kept) == kept
        assert not Path("/proc", killed.output[0]).exists() or is_zombie(killed.output[0])
        os.kill(int(alive.output[0]), signal.SIGKILL)
        alive.kill()
        with private_host():
            pass
        assert not made_groups() & kept


def is_zombie(pid: str) -> bool:
    return Path("/proc", pid, "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"


def test_it_is_left_after_an_error_and_with_another_thread_alive() -> None:
    before, done = namespaces(), threading.Event()
    thread = threading.Thread(target=done.wait)

    def fail_inside() -> None:
        with private_host():
            thread.start()
            os.chdir("/")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    done.set()
    thread.join()
    assert before == namespaces()


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (["ip", "link", "add", "br0", "type", "bridge"], "interface br0"),
        (["ip", "netns", "add", "mine"], "namespace /run/netns/mine"),
    ],
)
def test_what_is_left_is_an_error_or_a_note_on_one(make: Sequence[str], left: str) -> None:
    def leave(error: type[Exception] | None) -> None:
        with private_host() as host:
            host.run(make)
            if error is not None:
                raise error

    with pytest.raises(LeakError, match=f"left on the private host: {left}$"):
        leave(None)
    with pytest.raises(ZeroDivisionError) as caught:
        leave(ZeroDivisionError)
    assert [f"left on the private host: {left}"] == caught.value.__notes__
    assert links() & {"br0"} == set()


def test_what_goes_a_little_later_is_no_leak() -> None:
    with private_host() as host:
        host.run(["ip", "link", "add", "br0", "type", "bridge"])
        late = subprocess.Popen(["sh", "-c", "sleep 0.2; ip link delete br0"])
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert late.wait() == 0


def test_machines_are_other_hosts() -> None:
    with private_host() as host:
        lan = host.add_machine("lan1", address="192.0.2.2/24", host_address="192.0.2.1/24")
        other = host.add_machine("lan2", address="2001:db8::2/64", host_address="2001:db8::1/64")
        assert links() == {"lo", "lan1", "lan2"}
        address = lan.run(["ip", "-br", "-4", "address", "show", "eth0"]).stdout
        assert "192.0.2.2/24" in address
        for machine, theirs in ((lan, "192.0.2.1"), (other, "2001:db8::1")):
            with socket.create_server((theirs, 0), family=machine_family(theirs)) as server:
                server.settimeout(10)
                code = (
                    f"import socket; socket.create_connection({server.getsockname()[:2]}).sendall(b'hello')"
                )
                with machine.start([sys.executable, "-c", code]) as client:
                    connection, peer = server.accept()
                    with connection:
                        assert connection.recv(9) == b"hello"
                    assert peer[0] in {"192.0.2.2", "2001:db8::2"}
                assert client.returncode == 0
        assert repr(lan) == "<HostNamespace('lan1')>"
        assert repr(host) == "<PrivateHost(2 machines)>"
    assert links() & {"lan1", "lan2"} == set()


def machine_family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def test_a_program_that_fails_is_an_error_unless_asked() -> None:
    with private_host() as host:
        with pytest.raises(RuntimeError, match=r"ip link show nope ended with status 1: .*nope"):
            host.run(["ip", "link", "show", "nope"])
        assert host.run(["false"], check=False).returncode == 1


def test_children_are_on_the_private_host_too() -> None:
    with private_host(), Child("import os; print(os.readlink('/proc/self/ns/net'))") as child:
        assert child.wait() == 0
        assert [namespaces()[0]] == child.output


def test_its_control_groups_are_its_own_and_nobody_is_left_in_them() -> None:
    """Also of a controller that was never told to erase anything."""
    with private_host():
        controller = Controller()
        sandbox = controller.new_sandbox("s", netns="host")
        assert sandbox.cgroup is not None
        name = sandbox.cgroup.name
        process = sandbox.popen(["sleep", "61"])
        controller.close()
        groups = Path(f"/proc/{process.pid}/cgroup").read_text()
        assert "/private-" in groups
    assert process.wait(10) == -signal.SIGKILL
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{name}"))
    assert "/private-" not in Path("/proc/thread-self/cgroup").read_text()
