"""What is not ours on the real kernel: adopted, left alone, in the way, and why a step was refused."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from tests.kernel.conftest import DIRECTORY, INSTANCE

from pynetwork.errors import InvalidValueError
from pynetwork.kernel import LinuxKernel
from pynetwork.kernel.explain import explained
from pynetwork.kernel.netlink import NetlinkError
from pynetwork.plan import Plan, Step, StepFailedError, Verb, diff
from pynetwork.resources import Address, Bridge, LinkUp, Netns, Resource, Route, Sysctl, Veth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

OTHER = "fedcba9876543210fedcba9876543210"
PATH = f"{DIRECTORY}/a.{INSTANCE[:8]}"
MAC = "02:00:00:00:00:01"
NETNS = Netns(path=PATH)
BRIDGE = Bridge(name="br0")
VETH = Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac=MAC)
UP = LinkUp(netns=PATH, dev="eth0")
ADDRESS = Address(netns=PATH, dev="eth0", cidr="10.0.0.2/24")


@pytest.fixture
def foreign(host: PrivateHost) -> Iterator[Callable[[str], None]]:
    """Return a function that runs a line, such as ``ip link add x0 ...``; bridges x0, x1 go at the end."""
    yield lambda line: (host.run(line.split()), None)[1]
    for name in ("x0", "x1"):
        host.run(["ip", "link", "delete", name], check=False)


def create(kernel: LinuxKernel, *resources: Resource, replay: bool = False) -> None:
    kernel.apply(diff(Plan(), Plan(resources)), replay=replay)


def delete(kernel: LinuxKernel, *resources: Resource, replay: bool = False) -> None:
    kernel.apply(diff(Plan(resources), Plan()), replay=replay)


def refusal(kernel: LinuxKernel, *resources: Resource) -> tuple[StepFailedError, BaseException]:
    with pytest.raises(StepFailedError) as caught:
        create(kernel, *resources)
    assert caught.value.__cause__ is not None
    return caught.value, caught.value.__cause__


# Adopted


@pytest.mark.parametrize("replay", [False, True])
def test_an_adopted_bridge_is_taken_as_it_is_and_left_behind(
    replay: bool, kernel: LinuxKernel, oracle: Oracle, foreign: Callable[[str], None]
) -> None:
    foreign("ip link add x0 address 02:00:00:00:00:77 type bridge mcast_snooping 1")
    foreign("ip address add 10.0.0.1/24 dev x0")
    before = oracle.links()["x0"]
    bridge = Bridge(name="x0", mac=MAC, mtu=1400, adopt=True)
    addresses = [Address(dev="x0", cidr=f"10.0.{n}.1/24", adopt=True) for n in (0, 1)]
    for _ in range(2 if replay else 1):
        create(kernel, bridge, *addresses, LinkUp(dev="x0"), replay=replay)
    assert set(kernel.observe(Plan((bridge, *addresses)))) == {bridge, *addresses}
    assert oracle.links()["x0"] == before._replace(up=True)
    assert oracle.cidrs("x0") == {"10.0.0.1/24", "10.0.1.1/24"}
    kernel.apply([Step(Verb.UPDATE, attrs.evolve(bridge, mtu=1300), bridge)])
    for _ in range(2 if replay else 1):
        delete(kernel, bridge, *addresses, LinkUp(dev="x0"), replay=replay)
    kernel.flush()
    assert oracle.links()["x0"] == before._replace(up=True)
    assert oracle.cidrs("x0") == {"10.0.0.1/24"}  # the other one is ours


def test_an_adopted_bridge_that_is_not_there_is_made_and_goes(kernel: LinuxKernel, oracle: Oracle) -> None:
    bridge = Bridge(name="x0", mac=MAC, mtu=1400, adopt=True)
    address = Address(dev="x0", cidr="10.0.0.1/24", adopt=True)
    create(kernel, bridge, address)
    link = oracle.links()["x0"]
    assert (link.mac, link.mtu, link.group, link.generation_mode) == (MAC, 1400, kernel.group, 1)
    kernel.apply([Step(Verb.UPDATE, attrs.evolve(bridge, mtu=1300), bridge)])
    assert oracle.links()["x0"].mtu == 1300
    delete(kernel, bridge, address)
    assert "x0" not in oracle.links()
    delete(kernel, bridge, address, replay=True)


def test_what_is_no_bridge_is_not_adopted(kernel: LinuxKernel, foreign: Callable[[str], None]) -> None:
    foreign("ip link add x0 type veth peer name x1")
    _, cause = refusal(kernel, Bridge(name="x0", adopt=True))
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EEXIST
    assert "of type veth" in str(cause)


@pytest.mark.parametrize("replay", [False, True])
def test_an_adopted_namespace_is_only_pinned(
    replay: bool, kernel: LinuxKernel, oracle: Oracle, host: PrivateHost
) -> None:
    host.run(["ip", "netns", "add", "theirs"])
    netns = Netns(path=PATH, adopted="/run/netns/theirs")
    create(kernel, netns)
    if replay:
        create(kernel, netns, replay=True)
    assert Path(PATH).stat().st_ino == Path("/run/netns/theirs").stat().st_ino
    assert not oracle.links(PATH)["lo"].up  # not touched
    create(kernel, BRIDGE, VETH)
    assert "eth0" in oracle.links("/run/netns/theirs")
    delete(kernel, BRIDGE, VETH)
    for _ in range(2 if replay else 1):
        delete(kernel, netns, replay=replay)
    kernel.flush()
    assert not Path(PATH).exists()
    assert oracle.links("/run/netns/theirs").keys() == {"lo"}
    host.run(["ip", "netns", "delete", "theirs"])


def test_an_adopted_namespace_that_is_lost_says_so(kernel: LinuxKernel) -> None:
    netns = Netns(path=PATH, adopted="/proc/1/nothing")
    with pytest.raises(StepFailedError) as caught:
        create(kernel, netns, replay=True)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert "there is no namespace /proc/1/nothing, or no longer" in str(caught.value.__cause__)


@pytest.mark.parametrize("source", ["/proc/self/ns/mnt", "/etc/hostname", "/nothing"])
def test_what_is_no_network_namespace_is_not_adopted(source: str, kernel: LinuxKernel) -> None:
    _, cause = refusal(kernel, Netns(path=PATH, adopted=source))
    assert isinstance(cause, InvalidValueError | FileNotFoundError)
    assert source in str(cause)
    assert not Path(PATH).exists()


# In the way


def test_a_bridge_of_somebody_else_is_not_taken(
    kernel: LinuxKernel, oracle: Oracle, foreign: Callable[[str], None]
) -> None:
    foreign("ip link add x0 type bridge")
    before = oracle.links()["x0"]
    for replay in (False, True):
        with pytest.raises(StepFailedError) as caught:
            create(kernel, Bridge(name="x0", mac=MAC, mtu=1400), replay=replay)
        assert "a link called x0 exists and is not ours" in str(caught.value.__cause__)
        assert oracle.links()["x0"] == before
    delete(kernel, Bridge(name="x0"), replay=True)
    kernel.flush()
    assert oracle.links()["x0"] == before
    assert kernel.observe(Plan((Bridge(name="x0"),))) == Plan()


def test_links_of_somebody_else_are_never_deleted(
    kernel: LinuxKernel, oracle: Oracle, foreign: Callable[[str], None]
) -> None:
    foreign("ip link add x0 type veth peer name x1")
    mine = Veth(name="x0", netns=PATH, peer="eth0", mac=MAC)
    create(kernel, NETNS)
    _, cause = refusal(kernel, mine)
    assert "x0 on the host" in str(cause)
    assert kernel.observe(Plan((mine,))) == Plan((NETNS,))
    delete(kernel, mine, replay=True)
    kernel.flush()
    assert {"x0", "x1"} < oracle.links().keys()
    assert oracle.links()["x0"].group == 0


def test_a_file_in_the_way_of_a_namespace_is_refused_and_replaced_when_replayed(kernel: LinuxKernel) -> None:
    """A crash between making the file and mounting on it, or a reboot, leaves the file."""
    create(kernel, NETNS)
    _, cause = refusal(kernel, NETNS)
    assert isinstance(cause, FileExistsError)
    delete(kernel, NETNS)
    Path(PATH).touch()
    _, cause = refusal(kernel, NETNS)
    assert isinstance(cause, FileExistsError)
    create(kernel, NETNS, replay=True)
    assert kernel.observe(Plan((NETNS,))) == Plan((NETNS,))


# Refused


def test_a_step_that_fails_names_those_that_took_effect(kernel: LinuxKernel, oracle: Oracle) -> None:
    second = Veth(name="veth1", bridge="br0", netns=PATH, peer="eth0", mac=MAC)
    plan = Plan((NETNS, BRIDGE, VETH, second, UP, ADDRESS))
    steps = diff(Plan(), plan)
    with pytest.raises(StepFailedError) as caught:
        kernel.apply(steps)
    assert caught.value.failed.resource == second
    done = {step.resource for step in caught.value.done}
    assert {NETNS, BRIDGE, VETH} <= done
    assert second not in done
    assert "veth1" not in oracle.links()
    assert set(kernel.observe(plan)) == done
    assert f"there is a link called eth0 in {PATH}" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("resource", "code", "words"),
    [
        (Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", via="192.0.2.1"), errno.ENETUNREACH, "gateway"),
        (Route(netns=PATH, dev="eth0", dst="::/0", via="fd99::1"), errno.EHOSTUNREACH, "route to host"),
        (Address(netns=PATH, dev="eth0", cidr="10.0.0.2/24"), errno.EEXIST, "already assigned"),
        (Address(netns=PATH, dev="eth7", cidr="10.0.0.3/24"), errno.ENODEV, "No such device"),
        (Address(netns=f"{PATH}x", dev="eth0", cidr="10.0.0.3/24"), errno.ENOENT, f"{PATH}x"),
        (Veth(name="v9", bridge="br9", netns=PATH, peer="eth9", mac=MAC), errno.ENODEV, "No such device"),
        (Veth(name="v9", bridge="lo", netns=PATH, peer="eth9", mac=MAC), errno.EOPNOTSUPP, "not supported"),
        (Sysctl(netns=PATH, name="net.ipv4.nothing", value="1"), errno.ENOENT, "no sysctl net.ipv4.nothing"),
        (Sysctl(netns=PATH, name="net.ipv4.ip_forward", value="x"), errno.EINVAL, "Invalid argument"),
        (LinkUp(netns=PATH, dev="eth7"), errno.ENODEV, "No such device"),
    ],
    ids=lambda value: None if isinstance(value, Resource) else str(value),
)
def test_an_error_says_why(resource: Resource, code: int, words: str, kernel: LinuxKernel) -> None:
    wire = Plan((NETNS, BRIDGE, VETH, UP, ADDRESS))
    create(kernel, *wire)
    error, cause = refusal(kernel, resource)
    assert error.failed.resource == resource
    assert isinstance(cause, OSError)
    assert cause.errno == code
    assert words in str(cause)
    assert set(kernel.observe(wire)) == set(wire)


@pytest.mark.parametrize(("resource", "module"), [(BRIDGE, "bridge"), (VETH, "veth")])
def test_a_missing_module_is_named(resource: Resource, module: str) -> None:
    """The kernel only says that the operation is not supported."""
    error = explained(NetlinkError(errno.EOPNOTSUPP, "Unknown device type"), Step(Verb.CREATE, resource))
    assert f"Unknown device type (the kernel lacks {module}: modprobe {module})" in str(error)


def test_no_privilege_says_which(host: PrivateHost) -> None:
    """In a process that gave its capabilities up."""
    code = (
        "import ctypes, struct\n"
        "libc = ctypes.CDLL(None)\n"
        "header = ctypes.create_string_buffer(struct.pack('=Ii', 0x20080522, 0))\n"
        "assert libc.capset(header, ctypes.create_string_buffer(24)) == 0\n"
        "from pynetwork import Controller, UnavailableError\n"
        "try:\n    Controller()\nexcept UnavailableError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root" in result.stdout


# Two instances


def test_two_instances_do_not_see_each_other_s_objects(kernel: LinuxKernel, oracle: Oracle) -> None:
    other = LinuxKernel(OTHER, DIRECTORY)
    try:
        theirs = Plan(
            (
                Netns(path=f"{DIRECTORY}/a.{OTHER[:8]}"),
                Bridge(name="br1"),
                Veth(name="veth1", bridge="br1", netns=f"{DIRECTORY}/a.{OTHER[:8]}", peer="eth0", mac=MAC),
            )
        )
        mine = Plan((NETNS, BRIDGE, VETH))
        create(other, *theirs)
        create(kernel, *mine)
        assert set(kernel.observe(Plan())) == {NETNS, Bridge(name="br0"), stranger("veth0", oracle)}
        assert {item.key for item in other.observe(Plan())} == {item.key for item in theirs}
        kernel.apply(diff(kernel.observe(Plan()), Plan()))
        kernel.flush()
        assert set(other.observe(theirs)) == set(theirs)
        for item in theirs:  # not even when told to
            if not isinstance(item, Netns):
                delete(kernel, item, replay=True)
        kernel.flush()
        assert set(other.observe(theirs)) == set(theirs)
        delete(other, *theirs)
    finally:
        other.close()


def stranger(name: str, oracle: Oracle) -> Veth:
    """What is known of a veth that no plan tells of."""
    return Veth(name=name, netns="", peer="", mac=oracle.links()[name].mac)


# Behind our back


def test_a_new_namespace_that_somebody_replaced_is_not_mistaken_for_the_one_there(
    kernel: LinuxKernel, oracle: Oracle, host: PrivateHost
) -> None:
    """New namespaces are kept open until their first use, by which time others may be in their place."""
    create(kernel, NETNS)
    host.run(["umount", PATH])
    Path(PATH).unlink()
    create(kernel, NETNS, BRIDGE)
    host.run(["umount", PATH])
    host.run(["unshare", f"--net={PATH}", "ip", "link", "set", "lo", "up"])
    create(kernel, VETH)
    assert "eth0" in oracle.links(PATH)


def test_a_namespace_that_is_deleted_unused_is_not_kept_open(kernel: LinuxKernel) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    create(kernel, NETNS)
    delete(kernel, NETNS)
    kernel.namespaces._spares.close()  # those made ahead are open, too
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
