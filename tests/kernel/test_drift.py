"""What others do to the host behind our back, and reboots: reported, repaired; what is theirs stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from pynetwork import Controller
from pynetwork.core import Surroundings
from pynetwork.kernel.netns import entered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Oracle

    from pynetwork import Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def prepare(controller: Controller) -> None:
    """Two sandboxes on one network, one of them on another, too."""
    for number in range(2):
        network = controller.new_network(
            "bridge",
            f"n{number}",
            subnets=[f"10.{number}.0.0/24", f"fd0{number}::/64"],
            options={"bridge": f"br{number}", "mtu": 1400},
        )
        for name in ("a", "b")[: 2 - number]:
            endpoint = network.create_endpoint(
                name,
                routes=[("192.0.2.0/24", f"10.{number}.0.9")] if number else [],
                sysctls={"net.ipv4.conf.IFNAME.rp_filter": "2"},
            )
            boxes = controller.sandboxes
            endpoint.join(boxes[name] if name in boxes else controller.new_sandbox(name))


def works(controller: Controller) -> bool:
    """Tell whether packets pass between the sandboxes, and from them to both gateways."""
    first, second = (controller.sandboxes[name] for name in "ab")
    to = [str(address.ip) for address in controller.networks["n0"].endpoints["b"].addresses]
    return all(
        any(box.run(["ping", "-c1", "-W0.5", target], capture_output=True).returncode == 0 for _ in range(3))
        for box, targets in ((first, [*to, "10.1.0.1", "fd01::1"]), (second, ["10.0.0.1"]))
        for target in targets
    )


@pytest.fixture
def prepared(host: PrivateHost) -> Iterator[Controller]:
    """A controller whose sandboxes nobody is in, not even a name server: unmounted, they are gone."""
    with Controller(dns="off") as controller:
        try:
            prepare(controller)
            yield controller
        finally:
            controller.erase()


WRECKS = {
    "bridge": "ip link delete br0",
    "bridge of the default route": "ip link delete br1",
    "both bridges": "ip link delete br0; ip link delete br1",
    "port": "ip link delete $LINK",
    "end inside": "nsenter --net=$NETNS ip link delete eth0",
    "port out of the bridge": "ip link set $LINK nomaster",
    "port down": "ip link set $LINK down",
    "bridge down": "ip link set br0 down",
    "mac of the bridge": "ip link set br0 address 02:00:00:00:00:99",
    "mtu of the bridge": "ip link set br0 mtu 1300",
    "mtu of a port": "ip link set $LINK mtu 1300",
    "address of the bridge": "ip address delete 10.0.0.1/24 dev br0",
    "address v6 of the bridge": "ip address delete fd00::1/64 dev br0",
    "address inside": "nsenter --net=$NETNS ip address delete 10.0.0.2/24 dev eth0",
    "addresses inside": "nsenter --net=$NETNS ip address flush dev eth0",
    "interface down": "nsenter --net=$NETNS ip link set eth0 down",
    "default route": "nsenter --net=$NETNS ip route delete default",
    "default route v6": "nsenter --net=$NETNS ip -6 route delete default",
    "default route changed": "nsenter --net=$NETNS ip route replace default via 10.0.0.77",
    "static route": "nsenter --net=$NETNS ip route delete 192.0.2.0/24",
    "setting": "nsenter --net=$NETNS sysctl -qw net.ipv4.conf.eth0.rp_filter=0",
    "namespace unmounted": "umount $NETNS",
    "namespace unmounted and removed": "umount $NETNS; rm $NETNS",
    "all of it": "ip link delete br0; ip link delete br1; ip link delete $LINK; umount $NETNS; rm $NETNS",
}


@pytest.mark.parametrize("name", WRECKS)
def test_what_is_wrecked_is_reported_and_repaired(
    name: str, prepared: Controller, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    endpoint = prepared.networks["n0"].endpoints["a"]
    netns = str(prepared.sandboxes["a"].netns_path)
    variables = {**os.environ, "LINK": str(endpoint.inspect()["link"]), "NETNS": netns}
    variables["OTHER"] = str(prepared.networks["n1"].endpoints["a"].inspect()["link"])
    subprocess.run(["sh", "-ec", WRECKS[name]], env=variables, check=True)
    if "umount" in WRECKS[name]:
        assert soon(lambda: variables["LINK"] not in oracle.links())
        assert soon(lambda: variables["OTHER"] not in oracle.links())
    before = oracle.links(), oracle.addresses()
    planned = prepared.reconcile(dry_run=True)
    assert planned.repaired
    assert not planned.is_clean
    assert "would repair" in str(planned)
    assert (oracle.links(), oracle.addresses()) == before
    report = prepared.reconcile()
    assert report.failed == ()
    assert report.repaired == planned.repaired
    assert report.pruned == ()
    again = prepared.reconcile()
    assert again.is_clean, str(again)
    assert works(prepared)
    assert oracle.cidrs("eth0", netns) == {str(address) for address in endpoint.addresses}


def test_a_namespace_that_is_unmounted_while_somebody_is_in_it_is_made_anew(controller: Controller) -> None:
    """The old one lives on, with its interfaces, as long as the process and the name server do."""
    prepare(controller)
    sandbox = controller.sandboxes["a"]
    with sandbox.popen(["sleep", "60"]) as process:
        subprocess.run(["umount", str(sandbox.netns_path)], check=True)
        report = controller.reconcile()
        assert report.repaired
        assert report.failed == ()
        assert controller.reconcile().is_clean
        assert works(controller)
        assert sandbox.run(["getent", "hosts", "b"], capture_output=True).returncode == 0
        process.kill()


def test_a_repair_that_fails_is_told_and_made_later(
    host: PrivateHost, prepared: Controller, oracle: Oracle
) -> None:
    """Somebody's interface is where a bridge was."""
    host.run(["ip", "link", "delete", "br1"])
    host.run(["ip", "link", "add", "br1", "type", "veth", "peer", "name", "x1"])
    report = prepared.reconcile()
    assert any("there is a link of that name, of type veth" in line for line in report.failed)
    assert not report.is_clean
    assert oracle.links()["br1"].kind == "veth"
    host.run(["ip", "link", "delete", "br1"])
    assert prepared.reconcile().failed == ()
    assert prepared.reconcile().is_clean
    assert works(prepared)


def test_what_others_made_is_neither_reported_nor_touched(
    host: PrivateHost, prepared: Controller, oracle: Oracle
) -> None:
    netns = str(prepared.sandboxes["a"].netns_path)
    into = ["nsenter", f"--net={netns}"]
    lines = (
        "ip link add x0 type bridge",
        "ip address add 10.0.0.200/24 dev br0",
        "ip route add 10.77.0.0/16 dev br0",
        "ip link add x1 type veth peer name x2",
        "ip link set x1 master br0",
    )
    inside = (
        "ip address add 10.0.0.201/24 dev eth0",
        "ip link add x3 type bridge",
        "ip route add 10.78.0.0/16 via 10.0.0.5",
    )
    for line in lines:
        host.run(line.split())
    for line in inside:
        host.run([*into, *line.split()])
    path = Path("/run/pynetwork/netns/somebody.else")
    path.touch()
    assert prepared.reconcile().is_clean
    assert {"x0", "x1", "x2"} < oracle.links().keys()
    assert "x3" in oracle.links(netns)
    assert "10.0.0.201/24" in oracle.cidrs("eth0", netns)
    assert ("10.78.0.0/16", "10.0.0.5") in oracle.routes_of("eth0", netns)
    assert path.exists()
    path.unlink()
    for name in ("x0", "x1"):
        host.run(["ip", "link", "delete", name])


def test_what_carries_our_tag_and_is_in_no_record_is_pruned(
    host: PrivateHost, prepared: Controller, oracle: Oracle
) -> None:
    kernel = prepared._core.engine.kernel
    group = str(kernel.group)  # type: ignore[attr-defined]
    host.run(["ip", "link", "add", "y0", "group", group, "type", "bridge"])
    host.run(["ip", "link", "add", "y1", "group", group, "type", "veth", "peer", "name", "y2"])
    suffix = str(prepared.sandboxes["a"].netns_path).rpartition(".")[2]
    path = f"/run/pynetwork/netns/lost.{suffix}"
    host.run(["touch", path])
    host.run(["unshare", f"--net={path}", "true"])
    planned = prepared.reconcile(dry_run=True)
    assert len(planned.pruned) == 3
    assert "would prune: ip link delete y0" in str(planned)
    assert Path(path).exists()
    report = prepared.reconcile()
    assert report.pruned == planned.pruned
    kernel.flush()  # type: ignore[attr-defined]
    assert not oracle.links().keys() & {"y0", "y1", "y2"}
    assert not Path(path).exists()
    assert works(prepared)


def test_requests_go_on_after_things_were_deleted_behind_our_back(
    host: PrivateHost, prepared: Controller, oracle: Oracle
) -> None:
    """What is to be deleted and is gone already is no error."""
    link = str(prepared.networks["n0"].endpoints["a"].inspect()["link"])
    host.run(["ip", "link", "delete", link])
    prepared.networks["n0"].endpoints["a"].leave()
    host.run(["umount", str(prepared.sandboxes["b"].netns_path)])
    prepared.sandboxes["b"].delete()
    host.run(["ip", "link", "delete", "br1"])
    prepared.networks["n1"].endpoints["a"].delete(force=True)
    prepared.networks["n1"].delete()
    assert prepared.reconcile().is_clean


# Reboots


@pytest.fixture
def booted(host: PrivateHost) -> Iterator[Callable[[str], str]]:
    """Return a function that boots: all links and pins are gone, and the path of the new host is returned."""
    running: list[str] = []

    def halt() -> None:
        for name in running:
            subprocess.run(["umount", "-R", "/run/pynetwork/netns"], check=False)
            host.run(["ip", "netns", "delete", name])
        running.clear()

    def boot(name: str) -> str:
        halt()
        host.run(["ip", "netns", "add", name])
        running.append(name)
        host.run(["ip", "-n", name, "link", "set", "lo", "up"])
        return f"/run/netns/{name}"

    yield boot
    halt()


def around(boot: str) -> Surroundings:
    return attrs.evolve(Surroundings(), boot_id=lambda: boot)


def defaults(sandbox: Sandbox) -> str:
    shown = sandbox.run(["ip", "route", "show", "default"], capture_output=True, text=True)
    return str(shown.stdout.strip())


def test_a_rebooted_host_is_made_again(booted: Callable[[str], str]) -> None:
    with entered(booted("first")), Controller(surroundings=around("1")) as controller:
        prepare(controller)
        assert works(controller)
        before = controller.inspect()
        routes = [defaults(sandbox) for sandbox in controller.sandboxes.values()]
    with entered(booted("second")), Controller(surroundings=around("2")) as controller:
        assert controller.inspect() == before
        assert controller.reconcile().is_clean
        assert works(controller)
        assert [defaults(sandbox) for sandbox in controller.sandboxes.values()] == routes
        controller.erase()


def test_a_reboot_that_leaves_the_files_of_namespaces_is_no_hindrance(booted: Callable[[str], str]) -> None:
    """Where /run is on a disk, the files stay; nothing is mounted on them any more."""
    with entered(booted("first")), Controller(surroundings=around("1")) as controller:
        prepare(controller)
        paths = [Path(str(sandbox.netns_path)) for sandbox in controller.sandboxes.values()]
    second = booted("second")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with entered(second), Controller(surroundings=around("2")) as controller:
        assert controller.reconcile().is_clean
        assert works(controller)
        controller.erase()
    for path in paths:
        path.unlink(missing_ok=True)


def test_an_adopted_namespace_that_a_reboot_took_is_told_once_and_the_sandbox_can_be_deleted(
    booted: Callable[[str], str],
) -> None:
    with (
        entered(booted("first")),
        Controller(surroundings=around("1")) as controller,
        subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=-1) as container,
    ):
        assert container.stdout
        container.stdout.readline()
        network = controller.new_network("bridge", "n", subnets=["10.0.0.0/24"])
        box = controller.new_sandbox("box", netns=container.pid)
        endpoint = network.create_endpoint("e")
        endpoint.join(box)
        address = endpoint.addresses
        container.kill()
    with entered(booted("second")), Controller(surroundings=around("2")) as controller:
        (told,) = controller.events(since=0, timeout=0, kinds=["sandbox.detached"])
        assert told.sandbox == "box"
        assert controller.reconcile().is_clean
        assert not controller.sandboxes["box"].is_attached
        controller.sandboxes["box"].delete()
        endpoint = controller.networks["n"].endpoints["e"]
        assert endpoint.addresses == address
        endpoint.join(controller.new_sandbox("box"))
        assert controller.reconcile().is_clean
        controller.erase()
