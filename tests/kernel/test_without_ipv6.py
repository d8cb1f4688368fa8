"""A host without IPv6: networks that ask for none do not miss it, others are told."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.kernel.lan import FIREWALLS, erased

from pynetwork import ApplyError, Controller
from pynetwork.kernel import rtnl, sysctl
from pynetwork.kernel.netlink import NetlinkError, NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kernel.conftest import Oracle

    from pynetwork.kernel.netlink import Message
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def switch_off(host: PrivateHost) -> None:
    for name in ("all", "default"):
        host.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"])


@pytest.fixture
def without(host: PrivateHost, monkeypatch: pytest.MonkeyPatch) -> PrivateHost:
    """Have the kernel answer as one that was booted with ``ipv6.disable=1``, as far as it is asked."""
    switch_off(host)
    batch, path_of, opened = NetlinkSocket.batch, sysctl.path_of, socket.socket

    def refused(self: NetlinkSocket, messages: Sequence[Message]) -> dict[int, NetlinkError]:
        no_autoconf = rtnl.no_autoconf("x").payload[-16:]
        is_refused = [m.kind == rtnl.RTM_SETLINK and m.payload.endswith(no_autoconf) for m in messages]
        sent = [number for number, is_one in enumerate(is_refused) if not is_one]
        errors = batch(self, [messages[number] for number in sent]) if sent else {}
        found = {sent[number]: error for number, error in errors.items()}
        error = NetlinkError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return found | {number: error for number, is_one in enumerate(is_refused) if is_one}

    def nowhere(name: str) -> str:
        return path_of(name).replace("/proc/sys/net/ipv6", "/proc/sys/net/none")

    def only_ipv4(family: int = -1, *arguments: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return opened(family, *arguments, **more)

    monkeypatch.setattr(NetlinkSocket, "batch", refused)
    monkeypatch.setattr(sysctl, "has_ipv6", lambda: False)
    monkeypatch.setattr(sysctl, "path_of", nowhere)
    monkeypatch.setattr("pynetwork.kernel.sockets.socket.socket", only_ipv4)
    return host


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_networks_of_ipv4_work_where_the_kernel_has_no_ipv6(firewall: str, without: PrivateHost) -> None:
    with Controller(firewall=firewall) as controller, erased(controller):
        network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
        web = network.create_endpoint("web", ports=["8080:80", "53/udp"])
        boxes = [controller.new_sandbox(name) for name in ("web", "other")]
        web.join(boxes[0])
        network.create_endpoint("other").join(boxes[1])
        assert boxes[1].run(["ping", "-c1", "-W5", "10.88.0.2"], capture_output=True).returncode == 0
        with boxes[0].entered():
            server = socket.create_server(("0.0.0.0", 80))
        with server, socket.create_connection(("127.0.0.1", 8080), 5):
            server.accept()[0].close()
        web.publish("9000-9001:90-91")
        web.unpublish("8080:80")
        assert controller.reconcile().is_clean
        assert controller.doctor() == ()
        assert without.run(["ip6tables-legacy-save"], check=False).stdout == ""


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_where_ipv6_is_switched_off_a_network_that_asks_for_it_is_refused(
    firewall: str, host: PrivateHost, oracle: Oracle
) -> None:
    switch_off(host)
    with Controller(firewall=firewall) as controller, erased(controller):
        with pytest.raises(ApplyError, match="IPv6 is switched off on br-"):
            controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
        controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
        assert oracle.links().keys() == {"lo"}
        network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
        network.create_endpoint("web", ports=["8080:80"]).join(controller.new_sandbox("box"))
        assert controller.reconcile().is_clean
