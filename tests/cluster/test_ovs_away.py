"""A host whose Open vSwitch does not run: what works nonetheless, what is refused, and how it comes back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster.overlay import eventually

from pynetwork import Cluster, Controller, MemoryStore, UnavailableError
from pynetwork.kernel import LinuxKernel
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Endpoint, Sandbox
    from pynetwork.testing.cluster import OvsHost

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
START = r"start Open vSwitch \(systemctl start openvswitch-switch"


@pytest.fixture(name="hosts")
def two_hosts() -> Iterator[tuple[OvsHost, ...]]:
    with private_host(), ovs_cluster(2) as hosts:
        yield hosts


def opened(host: OvsHost, store: MemoryStore) -> Controller:
    cluster = Cluster(store=store, host=host.name, vtep=host.vtep, datapath="ovs-userspace", ttl=60)
    state, run = (Path(place) / host.name for place in ("/var/lib/pynetwork", "/run/pynetwork"))
    with host.entered():
        kernel = partial(LinuxKernel, ovs_directory=host.directory)
        return Controller(state, run_dir=run, kernel=kernel, cluster=cluster)


def joined(controller: Controller, network: str, name: str) -> tuple[Endpoint, Sandbox]:
    endpoint = controller.networks[network].create_endpoint(name)
    sandbox = controller.new_sandbox(f"{network}-{name}")
    endpoint.join(sandbox)
    return endpoint, sandbox


def pings(sandbox: Sandbox, endpoint: Endpoint) -> bool:
    return all(
        sandbox.run(["ping", "-c", "1", "-W", "1", str(address.ip)], check=False).returncode == 0
        for address in endpoint.addresses
    )


@pytest.mark.parametrize("lost", ["switch", "database", "both"])
def test_a_controller_opens_without_a_switch_and_with_it_all_comes_to_life(
    hosts: tuple[OvsHost, ...], lost: str
) -> None:
    """Nobody does anything but start it."""
    store = MemoryStore()
    one, two = (opened(host, store) for host in hosts)
    one.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    (near, _), (far, other_box) = joined(one, "net", "near"), joined(two, "net", "far")
    assert eventually(lambda: pings(other_box, near))
    one.close()
    if lost != "database":
        hosts[0].kill_switch()
    if lost != "switch":
        hosts[0].kill_database()
    one = opened(hosts[0], store)
    assert list(one.networks) == ["net"]
    # What needs no switch works, and is repaired.
    one.new_network("bridge", "other", subnets=["10.77.0.0/24"])
    neighbour, _ = joined(one, "other", "neighbour")
    _, box = joined(one, "other", "asks")
    assert pings(box, neighbour)
    hosts[0].run(["ip", "link", "delete", bridge_of(hosts[0])])
    report = one.reconcile()
    assert [line for line in report.failed if "Open vSwitch" in line]
    assert pings(box, neighbour)
    assert any("start Open vSwitch" in finding.problem for finding in one.doctor())
    # What needs it is refused, with the command that starts it, and leaves nothing behind.
    endpoint = one.networks["net"].create_endpoint("late")
    sandbox = one.new_sandbox("late")
    for request in (partial(endpoint.join, sandbox), one.networks["net"].endpoints["near"].leave):
        with pytest.raises(UnavailableError, match=START):
            request()
    assert endpoint.sandbox is None
    assert sandbox.run(["ip", "-br", "link"], capture_output=True, text=True).stdout.split()[0::4] == ["lo"]
    two.networks["net"].create_endpoint("meanwhile").join(two.new_sandbox("meanwhile"))
    far.leave()
    if lost != "switch":
        hosts[0].start_database()
    if lost != "database":
        hosts[0].start_switch()
    new = two.networks["net"].endpoints["meanwhile"]
    assert eventually(lambda: pings(one.sandboxes["net-near"], new))
    endpoint.join(sandbox)
    assert eventually(lambda: pings(sandbox, new))
    assert eventually(lambda: one.reconcile().is_clean)
    assert not [finding for finding in one.doctor() if "Open vSwitch" in finding.problem]
    for controller in (two, one):
        controller.erase()


def bridge_of(host: OvsHost) -> str:
    words = host.run(["ip", "-br", "link", "show", "type", "bridge"]).stdout.split()
    return next(word for word in words if word.startswith("br-") and word != "br-phy")


def test_a_switch_that_lost_its_database_has_all_made_anew(hosts: tuple[OvsHost, ...]) -> None:
    store = MemoryStore()
    one, two = (opened(host, store) for host in hosts)
    one.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    (near, _), (_, other_box) = joined(one, "net", "near"), joined(two, "net", "far")
    assert eventually(lambda: pings(other_box, near))
    host = hosts[0]
    mac = host.run(["cat", "/sys/class/net/br-phy/address"]).stdout.strip()
    host.kill()
    (host.directory / "conf.db").unlink()
    host.start_database()
    host.start_switch()
    bridge = ["--", "set", "bridge", "br-phy", "datapath_type=netdev", f"other_config:hwaddr={mac}"]
    host.vsctl("add-br", "br-phy", *bridge, "--", "add-port", "br-phy", "eth0")
    host.run(["ip", "address", "replace", f"{host.vtep}/24", "dev", "br-phy"])
    host.run(["ip", "link", "set", "br-phy", "up"])
    assert eventually(lambda: "br-pynetwork" in host.vsctl("list-br"))
    assert eventually(lambda: pings(other_box, near))
    assert eventually(lambda: one.reconcile().is_clean)
    for controller in (two, one):
        controller.erase()


def test_the_doctor_names_tunnels_of_others_on_the_same_port(hosts: tuple[OvsHost, ...]) -> None:
    host = hosts[0]
    one = opened(host, MemoryStore())
    one.new_network("overlay", "net", subnets=["10.1.0.0/24"])
    joined(one, "net", "near")
    assert not [finding for finding in one.doctor() if "UDP port" in finding.problem]
    # Only what their rows say counts here: the switch of this test cannot have such a bridge. Of another port
    # they are in nobody's way.
    host.vsctl("--no-wait", "add-br", "br-theirs", "--", "set", "bridge", "br-theirs", "datapath_type=none")
    for number, port in (("1", "4789"), ("2", "4790")):
        name = f"theirs{number}"
        options = ["type=vxlan", "options:remote_ip=192.0.2.9", f"options:dst_port={port}"]
        host.vsctl("--no-wait", "add-port", "br-theirs", name, "--", "set", "interface", name, *options)
        made = ["type", "vxlan", "id", number, "dstport", port, "dev", "lo"]
        host.run(["ip", "link", "add", f"device{number}", *made])
    assert [finding.problem for finding in one.doctor() if "UDP port" in finding.problem] == [
        "port theirs1 of Open vSwitch has UDP port 4789, as the tunnel of this host's networks",
        "the VXLAN device device1 has UDP port 4789, as the tunnel of this host's networks",
    ]
    one.erase()
