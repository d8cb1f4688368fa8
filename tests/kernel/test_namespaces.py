"""Namespaces on the real kernel: made, pinned, entered; and no thread of the program ever moves by itself."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import ApplyError, Controller, InvalidValueError
from pynetwork.errors import UnavailableError
from pynetwork.kernel import sysctl
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.netns import (
    Namespaces,
    entered,
    is_pinned,
    make_directory,
    open_namespace,
    remove_directory,
    unpin,
)
from pynetwork.plan import Plan
from pynetwork.resources import Address, LinkUp, Route, Veth
from pynetwork.sandbox import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def here() -> int:
    """Return the inode of the namespace that the calling thread is in."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


@pytest.fixture
def namespaces(host: PrivateHost) -> Iterator[Namespaces]:
    namespaces = Namespaces(spares=2)
    yield namespaces
    namespaces.close()


@pytest.fixture
def pinned(namespaces: Namespaces) -> Iterator[str]:
    """The path of a new namespace."""
    path = "/run/netns/one"
    namespaces.create(path).close()
    yield path
    unpin(path)


def test_a_function_is_called_inside_and_its_caller_stays_where_it_was(
    namespaces: Namespaces, pinned: str
) -> None:
    before, inside = here(), Path(pinned).stat().st_ino
    assert before != inside
    assert namespaces.call(pinned, here) == inside
    assert namespaces.home(here) == before
    assert here() == before


def test_errors_of_the_function_are_the_caller_s_and_the_worker_comes_home(
    namespaces: Namespaces, pinned: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = here()
    for error, function in ((ZeroDivisionError, lambda: 1 // 0), (KeyboardInterrupt, interrupt)):
        with pytest.raises(error):
            namespaces.call(pinned, function)
        assert namespaces.home(here) == before
    with pytest.raises(FileNotFoundError):
        namespaces.call("/nothing", here)
    assert namespaces.home(here) == before


def test_threads_that_call_at_once_are_never_in_the_wrong_namespace(namespaces: Namespaces) -> None:
    paths = [f"/run/netns/t{number}" for number in range(4)]
    for path in paths:
        namespaces.create(path).close()
    seen: set[tuple[str, bool, int, int]] = set()
    home = here()

    def work(path: str) -> None:
        inside = Path(path).stat().st_ino
        for _ in range(100):
            seen.add((path, namespaces.call(path, here) == inside, namespaces.home(here), here()))

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {(path, True, home, home) for path in paths}
    for path in paths:
        unpin(path)


def test_sockets_opened_inside_stay_there(namespaces: Namespaces, pinned: str) -> None:
    def listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", 4711))

    with entered(pinned):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with namespaces.call(pinned, listen):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 4711))
        with entered(pinned):
            socket.create_connection(("127.0.0.1", 4711)).close()


def test_a_thread_that_is_at_home_needs_no_worker(namespaces: Namespaces, pinned: str) -> None:
    this = threading.get_ident()
    assert namespaces.home(threading.get_ident) == this
    with entered(pinned):
        assert namespaces.home(threading.get_ident) != this
        assert namespaces.home(here) != here()
    assert namespaces.call(pinned, threading.get_ident) != this


def test_the_worker_starts_at_home_wherever_its_maker_is(pinned: str) -> None:
    home = here()
    fresh = Namespaces()
    try:
        with entered(pinned):
            assert fresh.home(here) == home
    finally:
        fresh.close()


def test_a_worker_that_cannot_come_home_serves_nobody_from_the_wrong_namespace(
    namespaces: Namespaces, pinned: str
) -> None:
    home, saved = here(), os.dup(namespaces._home)
    threads = set(threading.enumerate())
    release, started = threading.Event(), threading.Event()

    def lose() -> None:
        started.set()
        release.wait(10)

    outcomes: list[object] = []

    def call(function: Callable[[], object]) -> None:
        try:
            outcomes.append(namespaces.call(pinned, function))
        except (OSError, UnavailableError) as error:
            outcomes.append(error)

    first = threading.Thread(target=call, args=(lose,))
    first.start()
    started.wait(10)
    with Path(os.devnull).open("rb") as nowhere:
        os.dup2(nowhere.fileno(), namespaces._home, inheritable=False)
    second = threading.Thread(target=call, args=(here,))
    second.start()
    while not namespaces._jobs or not namespaces._jobs.qsize():
        second.join(0.001)
    release.set()
    first.join()
    second.join()
    os.dup2(saved, namespaces._home, inheritable=False)
    os.close(saved)
    assert [type(outcome) for outcome in outcomes] in (
        [OSError, UnavailableError],
        [UnavailableError, OSError],
    )
    assert "try again" in str(next(each for each in outcomes if isinstance(each, UnavailableError)))
    assert namespaces.call(pinned, here) == Path(pinned).stat().st_ino
    assert namespaces.home(here) == home
    assert len(set(threading.enumerate()) - threads) <= 2  # the new worker; the lost one may still be ending


def test_only_the_calling_thread_moves_and_only_for_the_block(pinned: str) -> None:
    home, inside = here(), Path(pinned).stat().st_ino
    seen: list[int] = []
    go, done = threading.Event(), threading.Event()

    def watch() -> None:
        go.wait(10)
        seen.append(here())
        done.set()

    other = threading.Thread(target=watch)
    other.start()
    with contextlib.suppress(ZeroDivisionError), entered(pinned):
        go.set()
        done.wait(10)
        seen.append(here())
        with entered(f"/proc/{os.getpid()}/task/{other.native_id}/ns/net" if other.is_alive() else pinned):
            pass
        assert here() == inside
        raise ZeroDivisionError
    other.join()
    assert seen == [home, inside]
    assert here() == home


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/etc/passwd", "/", "/dev/null"])
def test_what_is_no_network_namespace_is_neither_opened_nor_entered(path: str, host: PrivateHost) -> None:
    with pytest.raises(InvalidValueError, match="is no network namespace"):
        open_namespace(path)
    with pytest.raises(InvalidValueError), entered(path):
        pass
    assert not is_pinned(path)


def test_a_pin_that_is_in_use_elsewhere_can_be_removed_and_again(namespaces: Namespaces) -> None:
    path = "/run/netns/one"
    namespaces.create(path).close()
    with Path(path).open("rb"):
        unpin(path)
    assert not Path(path).exists()
    unpin(path)


def test_a_namespace_without_a_directory_to_pin_it_in_is_an_error_and_leaves_nothing(
    namespaces: Namespaces,
) -> None:
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            namespaces.create("/run/netns/no/such")


def test_the_directory_is_a_private_tmpfs_of_its_owner_alone(host: PrivateHost) -> None:
    directory = Path("/run/pynetwork/netns")
    for _ in range(2):
        make_directory(directory)
    lines = Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounts = [line.split() for line in lines if line.split()[4] == str(directory)]
    assert len(mounts) == 1
    assert mounts[0][mounts[0].index("-") + 1] == "tmpfs"
    assert not [word for word in mounts[0] if word.startswith(("shared:", "master:"))]
    assert {"nosuid", "nodev", "noexec"} <= set(mounts[0][5].split(","))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (directory / "file").touch()
    remove_directory(directory)
    assert directory.exists()
    (directory / "file").unlink()
    remove_directory(directory)
    assert not directory.exists()


def test_pinned_namespaces_do_not_spread_to_other_mount_namespaces(controller: Controller) -> None:
    """Else a daemon started meanwhile, with mounts of its own, would keep them alive."""
    controller.new_sandbox("first")
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo; read line; mount"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        other.stdout.readline()
        second = controller.new_sandbox("second")
        assert second.netns_path
        output, _ = other.communicate("\n")
    assert str(second.netns_path) not in output


def test_ip_netns_knows_sandboxes_when_asked_to(host: PrivateHost, oracle: Oracle) -> None:
    controller = Controller(ip_netns=True)
    network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
    box = controller.new_sandbox("web")
    network.create_endpoint("e").join(box)
    name = f"web.{controller.inspect()['instance'][:8]}"
    assert name in host.run(["ip", "netns", "list"]).stdout.split()
    shown = host.run(["ip", "netns", "exec", name, "ip", "-brief", "address", "show", "eth0"]).stdout
    assert "10.0.0.2/24" in shown
    assert Path("/run/netns", name) == box.netns_path
    controller.erase()
    assert host.run(["ip", "netns", "list"]).stdout == ""
    assert Path("/run/netns").is_dir()


def test_a_namespace_of_its_own_is_configured_and_goes(
    host: PrivateHost, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    with Namespace() as namespace:
        path = str(namespace.path)
        veth = Veth(name="out0", netns=path, peer="in0", mac="02:00:00:00:00:01")
        inside = (LinkUp(netns=path, dev="in0"), Address(netns=path, dev="in0", cidr="10.0.0.2/24"))
        namespace.configure(Plan((veth, *inside, Address(dev="out0", cidr="10.0.0.1/24"))))
        host.run(["ping", "-c1", "-W2", "10.0.0.2"])
        assert namespace.run(["ping", "-c1", "-W2", "10.0.0.1"], capture_output=True).returncode == 0
        assert namespace.statistics()["in0"].rx_packets >= 2
        wrong = Route(netns=path, dev="in0", dst="0.0.0.0/0", via="192.0.2.1")
        with pytest.raises(ApplyError, match=r"ip route add 0\.0\.0\.0/0 via 192\.0\.2\.1 dev in0 failed"):
            namespace.configure(Plan((veth, *inside, wrong)))
        assert oracle.cidrs("in0", path) == {"10.0.0.2/24"}
        host.run(["ping", "-c1", "-W2", "10.0.0.2"])
        namespace.configure(Plan())
        assert soon(lambda: oracle.links(path).keys() == {"lo"})
    assert not namespace.path.exists()
    namespace.close()


def test_a_namespace_of_its_own_does_not_take_a_link_of_somebody_else(
    host: PrivateHost, oracle: Oracle
) -> None:
    host.run(["ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1"])
    with Namespace() as namespace:
        veth = Veth(name="out0", netns=str(namespace.path), peer="in0", mac="02:00:00:00:00:01")
        with pytest.raises(ApplyError, match="there is a link called"):
            namespace.configure(Plan((veth,)))
    assert {"out0", "out1"} <= oracle.links().keys()
    host.run(["ip", "link", "delete", "out0"])


def test_an_address_that_is_there_already_is_not_taken_away_by_the_undo(
    host: PrivateHost, oracle: Oracle
) -> None:
    with Namespace() as namespace:
        path = str(namespace.path)
        namespace.run(["ip", "address", "add", "10.1.1.1/24", "dev", "lo"], check=True)
        theirs, ours = (Address(netns=path, dev="lo", cidr=f"10.1.{n}.1/24") for n in (1, 2))
        with pytest.raises(ApplyError, match="already assigned"):
            namespace.configure(Plan((ours, theirs)))
        assert oracle.cidrs("lo", path) == {"127.0.0.1/8", "::1/128", "10.1.1.1/24"}


def test_settings_of_the_host_are_written_on_the_host_from_wherever(host: PrivateHost) -> None:
    with Namespace() as namespace:
        fresh = Namespaces(NetlinkSocket)
        try:
            name = "net.ipv4.conf.all.rp_filter"
            old = sysctl.read(name)
            with namespace.entered():
                fresh.home(lambda: sysctl.write(name, "2"))
                assert sysctl.read(name) == old != "2"
            assert sysctl.read(name) == "2"
        finally:
            fresh.close()


def test_a_pipe_is_no_namespace_and_nobody_waits_at_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidValueError, match="is no network namespace"):
        open_namespace(str(tmp_path / "pipe"))
