"""Hosts with an Open vSwitch of their own, as network namespaces, joined by an underlay.

The switch runs in user space (``datapath_type=netdev``), so no kernel module is needed. It routes the
outer packets of tunnels itself, and only through a bridge of its own: each host's network card is a port
of ``br-phy``, which has the host's address (Open vSwitch, "Connecting VMs Using Tunnels (Userspace)").
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.errors import UnavailableError
from pynetwork.kernel.ethtool import let_leave_checksums
from pynetwork.kernel.netns import entered
from pynetwork.testing.cluster.underlay import UNDERLAY, underlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["OvsHost", "ovs_cluster", "switched"]

_SECONDS: Final = 20.0  # until a process that does not come up is an error
_POLL_SECONDS: Final = 0.003
_PROGRAMS: Final = ("ip", "ovsdb-server", "ovs-vswitchd", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "setpriv")
_SCHEMA: Final = Path("/usr/share/openvswitch/vswitch.ovsschema")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BRIDGE: Final = "br-phy"


class OvsHost:
    """
    One host. Made by :func:`ovs_cluster`.

    Attributes:
        name: Of its namespace in ``/run/netns``.
        vtep: Its address on the underlay, which tunnels end at.
        directory: What ``OVS_RUNDIR`` is there: the database's socket ``db.sock``, a ``BRIDGE.mgmt`` for
            each bridge.
        interface: Its network card, a port of ``br-phy``.
    """

    interface: Final = "eth0"

    def __init__(self, name: str, vtep: str, directory: Path, mac: str) -> None:
        self.name = name
        self.vtep = vtep
        self.directory = directory
        self._mac = mac
        self._server: subprocess.Popen[bytes] | None = None
        self._switch: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.name!r}, vtep={self.vtep!r})>"

    @property
    def netns_path(self) -> str:
        """The file that its namespace is pinned by."""
        return f"/run/netns/{self.name}"

    @property
    def cable(self) -> str:
        """Interface of the underlay's that its network card is plugged into: down, the host is cut off."""
        return f"ul-{self.name}"

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread on this host for a ``with`` block: a kernel made there is this host's."""
        return entered(self.netns_path)

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host, and return its status and output, both as text."""
        return _run(self._inside(argv), check=check, timeout=timeout)

    def start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program on the host. End it before the host ends."""
        return subprocess.Popen(self._inside(argv))  # noqa: S603 - a test's own command

    def vsctl(self, *words: str) -> str:
        """Run ``ovs-vsctl`` and return what it prints."""
        return _run(["ovs-vsctl", f"--db=unix:{self.directory}/db.sock", "--timeout=10", *words]).stdout

    def ofctl(self, command: str, bridge: str, *words: str, check: bool = True) -> str:
        """Run ``ovs-ofctl`` on a bridge, OpenFlow 1.4, and return what it prints."""
        target = f"unix:{self.directory}/{bridge}.mgmt"
        argv = ["ovs-ofctl", "-O", "OpenFlow14", "--timeout=60", command, target, *words]
        return _run(argv, check=check, timeout=70.0).stdout

    def appctl(self, *words: str, timeout: int = 10) -> str:
        """Run ``ovs-appctl`` on the switch and return what it prints."""
        if self._switch is None:
            msg = f"the switch of {self.name} does not run"
            raise RuntimeError(msg)
        control = f"{self.directory}/ovs-vswitchd.{self._switch.pid}.ctl"
        return _run(["ovs-appctl", f"--timeout={timeout}", f"--target={control}", *words]).stdout

    # The processes

    def start_database(self) -> None:
        """
        Start ``ovsdb-server``, if it does not run, and wait until it answers.

        Its contents are those it had before, if any.
        """
        if self._server is not None:
            return
        config = self.directory / "conf.db"
        if not config.exists():
            _run(["ovsdb-tool", "create", str(config), str(_SCHEMA)])
        path = self.directory / "db.sock"
        path.unlink(missing_ok=True)
        options = [f"--remote=punix:{path}", "--remote=db:Open_vSwitch,Open_vSwitch,manager_options"]
        self._server = self._daemon("ovsdb-server", str(config), *options)
        self._wait_for(self._server, path)
        self.vsctl("--no-wait", "init")

    def start_switch(self) -> None:
        """Start ``ovs-vswitchd``, if it does not run, and wait until it has taken its configuration."""
        if self._switch is not None:
            return
        self._switch = self._daemon("ovs-vswitchd", f"unix:{self.directory}/db.sock")
        self._wait_for(self._switch, self.directory / f"ovs-vswitchd.{self._switch.pid}.ctl")
        self.vsctl("init")  # returns when the switch has caught up
        for bridge in self.vsctl("list-br").split():
            self._wait_for(self._switch, self.directory / f"{bridge}.mgmt")

    def kill_database(self) -> None:
        """Kill ``ovsdb-server`` with SIGKILL."""
        _kill(self._server)
        self._server = None

    def kill_switch(self) -> None:
        """Kill ``ovs-vswitchd`` with SIGKILL: no packet passes any more, and all flows are gone."""
        _kill(self._switch)
        self._switch = None

    @contextlib.contextmanager
    def frozen(self, *, database: bool = False) -> Iterator[None]:
        """Stop ``ovs-vswitchd``, or ``ovsdb-server``, for the ``with`` block: it accepts, never answers."""
        process = self._server if database else self._switch
        if process is None:
            msg = f"it does not run on {self.name}"
            raise RuntimeError(msg)
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _daemon(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": _PATH,
            **dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"), str(self.directory)),
        }
        log = self.directory / f"{program}.log"
        argv = [program, "-vconsole:off", *arguments, "--pidfile", f"--log-file={log}", "--no-chdir"]
        # It goes with us, even when we are killed.
        argv = self._inside(["setpriv", "--pdeathsig", "KILL", *argv])
        return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command

    def _wait_for(self, process: subprocess.Popen[bytes], path: Path) -> None:
        deadline = time.monotonic() + _SECONDS
        while not _listens(path):
            if process.poll() is not None or time.monotonic() > deadline:
                logs = [log.read_text(encoding="utf-8") for log in sorted(self.directory.glob("*.log"))]
                msg = f"nobody listens at {path} on {self.name} (status {process.returncode}):\n" + "\n".join(
                    logs
                )
                raise RuntimeError(msg)
            time.sleep(_POLL_SECONDS)

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    # Its network card

    def plug_in(self, mtu: int, prefix: int) -> None:
        """Give the host its network card, on the underlay, and its switch."""
        self.directory.mkdir(mode=0o700)
        peer = f"peer name {self.interface} address {self._mac} mtu {mtu} netns {self.name}"
        _ip(
            [
                f"link add {self.cable} mtu {mtu} type veth {peer}",
                f"link set {self.cable} master {UNDERLAY} up",
            ]
        )
        # The switch gets a copy of what its card receives; the host itself shall not hear it as well.
        ipv4 = f"net.ipv4.conf.{self.interface}"
        self.run(["sysctl", "-qw", f"{ipv4}.rp_filter=1", f"net.ipv6.conf.{self.interface}.disable_ipv6=1"])
        _ip(["link set lo up", f"link set {self.interface} up"], self.name)
        self.start_database()
        self.start_switch()
        bridge = ["--", "set", "bridge", _BRIDGE, "datapath_type=netdev", "fail_mode=standalone"]
        self.vsctl(
            *("add-br", _BRIDGE, *bridge, f"other_config:hwaddr={self._mac}"),
            *("--", "add-port", _BRIDGE, self.interface),
            *("--", "set", "interface", _BRIDGE, f"mtu_request={mtu}"),
        )
        nodad = " nodad" if ":" in self.vtep else ""
        _ip([f"address add {self.vtep}/{prefix} dev {_BRIDGE}{nodad}", f"link set {_BRIDGE} up"], self.name)

    def kill(self) -> None:
        """End its processes."""
        self.kill_switch()
        self.kill_database()


@contextlib.contextmanager
def ovs_cluster(
    count: int, *, mtu: int = 1500, subnet: str = "192.0.2.0/24"
) -> Iterator[tuple[OvsHost, ...]]:
    """
    Make hosts ``h1``, ``h2`` ... for the ``with`` block, each with an Open vSwitch and a network card.

    To be used on a private host, by a thread that lives as long as the block: its namespace becomes the
    underlay, with a bridge ``underlay`` that has the subnet's 254th address; more can be plugged into it.

    Args:
        count: How many, 1 to 99.
        mtu: Of the underlay, in bytes.
        subnet: The underlay's; host number N has its Nth address.

    Raises:
        UnavailableError: A program is missing.
    """
    network = ipaddress.ip_network(subnet)
    with underlay(network, mtu), switched(range(1, count + 1), network, mtu) as hosts:
        yield hosts


@contextlib.contextmanager
def switched(
    numbers: Iterable[int], network: IPv4Network | IPv6Network, mtu: int
) -> Iterator[tuple[OvsHost, ...]]:
    """Have the hosts of these numbers on the underlay for the ``with`` block."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing or not _SCHEMA.exists():
        lacks = ", ".join(missing) or str(_SCHEMA)
        msg = f"hosts with Open vSwitch need {lacks}: apt-get install openvswitch-switch"
        raise UnavailableError(msg)
    # The path of a socket has at most 107 bytes (unix(7)).
    directory = Path(tempfile.mkdtemp(prefix="ovs", dir="/tmp"))
    hosts: list[OvsHost] = []
    let_leave_checksums(UNDERLAY, on=False)  # a switch in user space does not complete them
    try:
        for number in numbers:
            name, mac = f"h{number}", f"02:00:00:00:ff:{number:02x}"
            host = OvsHost(name, str(network[number]), directory / name, mac)
            _run(["ip", "netns", "add", name])
            hosts.append(host)
            host.plug_in(mtu, network.prefixlen)
        yield tuple(hosts)
    finally:
        _remove(hosts, directory)


def _remove(hosts: Sequence[OvsHost], directory: Path) -> None:
    for host in hosts:
        host.kill()
    _ip([f"link delete {host.cable}" for host in hosts], force=True)
    for host in hosts:
        _run(["ip", "netns", "delete", host.name], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(_SECONDS)


def _ip(lines: Sequence[str], netns: str | None = None, *, force: bool = False) -> None:
    """Have ``ip`` take *lines* in a namespace, all with one start; with *force* errors are ignored."""
    where = ["-n", netns] if netns else []
    text = "".join(f"{line}\n" for line in lines)
    _run(["ip", *where, *(["-force"] if force else []), "-batch", "-"], text=text, check=not force)


def _run(
    argv: Sequence[str], *, check: bool = True, timeout: float = 30.0, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(  # noqa: S603 - a test's own command
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        input=text,
    )
    if check and result.returncode:
        msg = f"{' '.join(argv)} ended with status {result.returncode}: {result.stderr.strip()}"
        raise RuntimeError(msg)
    return result
