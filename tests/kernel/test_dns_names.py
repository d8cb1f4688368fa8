"""Names, asked from inside sandboxes with ``dig`` and ``getent``: whose they are, and at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dns.exception
import pytest
from tests.kernel.name_tools import Dug, ask, dig, getent, texts

from pynetwork import Controller
from pynetwork.dns.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork import Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

OURS = frozenset({"qr", "aa", "rd", "ra"})


def box(controller: Controller, name: str, *networks: str, **fields: object) -> Sandbox:
    """Return a new sandbox with an endpoint of its name in each of the networks."""
    sandbox = controller.new_sandbox(name)
    for network in networks:
        controller.networks[network].create_endpoint(name, **fields).join(sandbox)  # type: ignore[arg-type]
    return sandbox


@pytest.fixture
def net(controller: Controller) -> Controller:
    controller.new_network("bridge", "net", subnets=["10.64.0.0/24", "fd64::/64"])
    return controller


def test_every_rule_as_dig_sees_it(net: Controller) -> None:
    web = box(net, "web", "net", aliases=["www"], exposed=["80/tcp"])
    db = box(net, "db", "net", links={"site": "web"})
    first, second = "10.64.0.2", "10.64.0.3"
    for server in ("127.0.0.11", "::1"):
        for way in ((), ("+tcp",)):
            assert dig(db, "web", *way, server=server) == Dug("NOERROR", OURS, [first])
    assert dig(web, "db").answers == [second]  # which joined later
    assert dig(db, "WWW.Net").answers == [first]
    assert dig(db, "web", "AAAA").answers == ["fd64::2"]
    assert dig(db, "web", "MX") == Dug("NOERROR", OURS, [])
    assert dig(db, "nobody.net").status == "NXDOMAIN"
    assert dig(db, "-x", first).answers == ["web.net."]
    assert dig(db, "-x", "fd64::2").answers == ["web.net."]
    assert dig(db, "_80._tcp.www", "SRV").answers == ["0 1 80 web.net."]
    assert dig(db, "site").answers == [first]
    assert dig(web, "site").answers == []
    assert dig(web, "web", "CH").status == "SERVFAIL"  # another class is not ours, and there is nobody to ask


def test_a_family_that_a_network_lacks_is_an_empty_answer(controller: Controller) -> None:
    controller.new_network("bridge", "four", subnets=["10.64.0.0/24"])
    controller.new_network("bridge", "six", subnets=["fd64::/64"])
    four, six = box(controller, "one", "four"), box(controller, "two", "six")
    assert dig(four, "one", "AAAA") == Dug("NOERROR", OURS, [])
    assert dig(six, "two", "A", server="::1") == Dug("NOERROR", OURS, [])
    assert dig(six, "two", "AAAA", server="::1").answers == ["fd64::2"]


def test_getent_finds_names_by_what_the_sandbox_has_in_etc(net: Controller) -> None:
    web = box(net, "web", "net")
    box(net, "db", "net", aliases=["store"])
    assert getent(web, "store") == {"10.64.0.3", "fd64::3"}
    assert getent(web, "10.64.0.3", "hosts") == {"10.64.0.3"}
    assert getent(web, "nobody.net") == set()


def test_networks_do_not_know_each_others_names(net: Controller) -> None:
    net.new_network("bridge", "other", subnets=["10.65.0.0/24"], internal=True)
    one, two, both = box(net, "one", "net"), box(net, "two", "other"), box(net, "both", "net", "other")
    assert dig(both, "one").answers == ["10.64.0.2"]
    assert dig(both, "two").answers == ["10.65.0.2"]
    assert dig(both, "both.other").answers == ["10.65.0.3"]
    assert dig(one, "both").answers == ["10.64.0.3"]
    assert dig(two, "both").answers == ["10.65.0.3"]
    assert dig(one, "two") == dig(two, "one.net") == Dug("SERVFAIL", OURS - {"aa"}, [])
    assert dig(one, "-x", "10.65.0.2").answers == []


def test_an_alias_of_several_gives_all_of_them_and_each_first_at_times(net: Controller) -> None:
    asker = box(net, "asker", "net")
    for number in range(3):
        box(net, f"w{number}", "net", aliases=["pool"])
    wanted = ["10.64.0.3", "10.64.0.4", "10.64.0.5"]
    assert dig(asker, "pool").answers == wanted
    firsts = {str(ask(asker.netns_path, "pool").answer[0][0]) for _ in range(30)}
    assert firsts == set(wanted)
    net.networks["net"].endpoints["w1"].leave()
    assert dig(asker, "pool").answers == ["10.64.0.3", "10.64.0.5"]


def test_many_addresses_are_truncated_for_udp_and_whole_with_tcp(net: Controller) -> None:
    asker = box(net, "asker", "net")
    shared = net.new_sandbox("crowd")
    crowd = [net.networks["net"].create_endpoint(f"w{number}", aliases=["pool"]) for number in range(40)]
    for number, endpoint in enumerate(crowd):
        endpoint.join(shared if not number else net.new_sandbox(f"s{number}"))
    assert "tc" in dig(asker, "pool", "+noedns", "+ignore").flags
    assert len(dig(asker, "pool", "+noedns").answers) == 40  # dig comes back with TCP
    assert len(dig(asker, "pool", "+bufsize=4096").answers) == 40


def test_what_changes_is_seen_by_the_very_next_question(net: Controller) -> None:
    """Also while others ask all the time, and with answers ready."""
    asker = box(net, "asker", "net")
    asker.run(["true"])  # now it is served
    network, other = net.networks["net"], net.new_sandbox("other")
    stop = threading.Event()
    failed: list[BaseException] = []

    def keep_asking() -> None:
        try:
            while not stop.is_set():
                ask(asker.netns_path, "asker.net")
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        for number in range(50):
            endpoint = network.create_endpoint(f"e{number}", aliases=["moving"])
            assert texts(ask(asker.netns_path, "moving.net")) == []
            endpoint.join(other)
            here = [str(address.ip) for address in endpoint.addresses if address.version == 4]
            assert texts(ask(asker.netns_path, "moving.net")) == here
            endpoint.leave()
            assert texts(ask(asker.netns_path, "moving.net")) == []
            endpoint.delete()
    finally:
        stop.set()
        thread.join()
    assert failed == []


def test_a_change_by_another_process_is_seen(
    net: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    asker = box(net, "asker", "net")
    assert dig(asker, "late.net").status == "NXDOMAIN"
    with Controller() as other:  # stands for another process: it shares nothing but the state directory
        box(other, "late", "net")
        assert soon(lambda: texts(ask(asker.netns_path, "late")) == ["10.64.0.3"])
        assert dig(other.sandboxes["late"], "asker").answers == ["10.64.0.2"]
        other.sandboxes["late"].delete()
        assert soon(lambda: not texts(ask(asker.netns_path, "late.net")))


def test_a_name_resolves_as_soon_as_a_program_starts(net: Controller) -> None:
    for number in range(20):
        sandbox = box(net, f"b{number}", "net")
        done = sandbox.run(["dig", "@127.0.0.11", "+short", f"b{number}"], capture_output=True, text=True)
        assert done.stdout.strip() == f"10.64.0.{number + 2}"


def test_a_name_resolves_soon_where_nobody_waits_for_it(
    net: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """A runtime of somebody else's starts programs by the path of the namespace."""
    sandbox = box(net, "one", "net")

    def resolves() -> bool:
        try:
            return texts(ask(sandbox.netns_path, "one", seconds=0.1)) == ["10.64.0.2"]
        except (OSError, dns.exception.Timeout):
            return False

    assert soon(resolves)


def test_an_adopted_namespace_is_served_and_left_as_it_was(
    net: Controller, host: PrivateHost, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """Also one whose loopback interface is down at first."""
    host.run(["ip", "netns", "add", "theirs"])
    try:
        sandbox = net.new_sandbox("adopted", netns="/run/netns/theirs")
        net.networks["net"].create_endpoint("one").join(sandbox)
        sandbox.run(["ip", "link", "set", "lo", "up"], check=True)
        assert dig(sandbox, "one").answers == ["10.64.0.2"]
        sandbox.delete()
        assert soon(lambda: not listening(host, "theirs"))
    finally:
        host.run(["ip", "netns", "delete", "theirs"])


def test_the_hosts_own_namespace_gets_no_server(controller: Controller, host: PrivateHost) -> None:
    sandbox = controller.new_sandbox("h", netns="host")
    controller.new_network("host", "host").create_endpoint("e").join(sandbox)
    sandbox.run(["true"])
    assert host.run(["ss", "-Hltun"]).stdout == ""
    assert controller.dns_statistics().sandboxes == 0


def test_without_a_server_nobody_answers(host: PrivateHost) -> None:
    with Controller(dns="off") as controller:
        controller.new_network("bridge", "net", subnets=["10.64.0.0/24"])
        assert (
            box(controller, "one", "net").run(["ss", "-Hltun"], capture_output=True, text=True).stdout == ""
        )
        assert controller.dns_statistics().queries == 0
        controller.erase()


def test_a_program_in_the_sandbox_may_have_a_server_of_its_own(net: Controller) -> None:
    """On its own address; and for UDP on all addresses, if it shares them as servers do (SO_REUSEADDR)."""
    sandbox = box(net, "one", "net")
    code = (
        "import socket as s\n"
        "for kind, address in ((s.SOCK_DGRAM, ''), (s.SOCK_STREAM, '10.64.0.2')):\n"
        "    o = s.socket(s.AF_INET, kind)\n"
        "    o.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1)\n"
        "    o.bind((address, 53))\n"
    )
    sandbox.run(["python3", "-c", code], check=True)


def test_names_come_back_to_a_namespace_that_was_lost(net: Controller) -> None:
    sandbox = box(net, "one", "net")
    assert dig(sandbox, "one").answers == ["10.64.0.2"]
    os.system(f"umount {sandbox.netns_path}")  # noqa: S605 - the test's own path
    net.reconcile()
    assert dig(sandbox, "one").answers == ["10.64.0.2"]


def test_what_is_deleted_keeps_no_socket_and_no_namespace(
    net: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """Whatever deletes it: a leave, a deletion of the sandbox, here or in another process."""
    inode = {}
    for name in ("left", "deleted", "elsewhere"):
        sandbox = box(net, name, "net")
        sandbox.run(["true"])
        inode[name] = sandbox.netns_path.stat().st_ino if sandbox.netns_path else 0
    assert net.dns_statistics().sandboxes == 3
    net.networks["net"].endpoints["left"].leave()
    assert soon(lambda: net.dns_statistics().sandboxes == 2)
    net.sandboxes["deleted"].delete()
    assert soon(lambda: net.dns_statistics().sandboxes == 1)
    with Controller() as other:
        other.sandboxes["elsewhere"].delete()
    assert soon(lambda: net.dns_statistics().sandboxes == 0)
    net.sandboxes["left"].delete()
    held = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_there(fd)}  # noqa: PTH115, PTH208
    assert not {f"net:[{number}]" for number in inode.values()} & held


def test_those_who_leave_one_after_the_other_wake_the_server_once(
    net: Controller, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    names = ("one", "two", "three")
    for name in names:
        box(net, name, "net").run(["true"])
    assert isinstance(net._core.dns, Service)
    loop, busy, go_on = net._core.dns._loop, threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        go_on.wait(30)

    loop.post(hold)
    assert busy.wait(5)
    try:
        for name in names:
            net.networks["net"].endpoints[name].leave()
        assert len(loop._posted) == 1
    finally:
        go_on.set()
    assert soon(lambda: net.dns_statistics().sandboxes == 0)


def _is_there(fd: str) -> bool:
    return Path(f"/proc/self/fd/{fd}").is_symlink()


def test_an_endpoint_that_comes_back_is_served_again(net: Controller) -> None:
    sandbox = box(net, "one", "net")
    for _ in range(10):
        assert dig(sandbox, "one").answers == ["10.64.0.2"]
        net.networks["net"].endpoints["one"].leave()
        net.networks["net"].endpoints["one"].join(sandbox)


def test_a_sandbox_that_is_attached_elsewhere_takes_its_names_along(
    net: Controller, host: PrivateHost, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    """And leaves no socket where it was, which is somebody else's namespace."""
    for name in ("first", "second"):
        host.run(["ip", "netns", "add", name])
        host.run(["ip", "-n", name, "link", "set", "lo", "up"])
    try:
        sandbox = net.new_sandbox("box", netns="later")
        net.networks["net"].create_endpoint("box").join(sandbox)
        for here, there in (("first", "second"), ("second", "first")):
            sandbox.attach(f"/run/netns/{here}")
            assert dig(sandbox, "box").answers == ["10.64.0.2"]
            assert soon(lambda: not listening(host, there))  # noqa: B023 - called at once
        sandbox.detach()
        assert soon(lambda: not listening(host, "second"))
        assert net.dns_statistics().sandboxes == 0
    finally:
        for name in ("first", "second"):
            host.run(["ip", "netns", "delete", name])


def listening(host: PrivateHost, netns: str) -> str:
    """Return the sockets that listen in a namespace."""
    return host.run(["ip", "netns", "exec", netns, "ss", "-Hltun"]).stdout
