"""A real etcd cluster for the length of a ``with`` block, out of everybody's sight.

::

    with etcd_cluster(members=3) as cluster, EtcdStore(cluster.endpoints) as store:
        cluster.leader().kill()
        ...

Its members are processes on a private host: the one that the current thread is on already, or one of their
own that it is put on. Their data is in memory, where the system has a place for that.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from pynetwork.errors import UnavailableError
from pynetwork.testing.hosts import private_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from pynetwork.testing.cluster.certificates import Certificates
    from pynetwork.testing.hosts import PrivateHost

__all__ = ["EtcdCluster", "EtcdMember", "etcd_cluster"]

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - names in it are made unique
_POLL_SECONDS: Final = 0.02
_LOG_TAIL: Final = 2000


class EtcdMember:
    """
    A member of a cluster: a process that can be killed, stopped and started again.

    Attributes:
        name: Within the cluster.
        endpoint: Where clients find it.
        data: The directory of its data. Remove it while the member is killed, and all is forgotten.
    """

    def __init__(self, name: str, endpoint: str, argv: Sequence[str], data: Path) -> None:
        self.name = name
        self.endpoint = endpoint
        self.data = data
        self._argv = [*argv, f"--data-dir={data}"]
        self._log = data.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether it has reason to answer: it was started, and not ended or stopped.
        self.is_expected = False

    def __repr__(self) -> str:
        return f"<EtcdMember {self.name} at {self.endpoint}>"

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, with the data it has. It answers a little later: :meth:`EtcdCluster.wait`."""
        self.is_expected = True
        if not self.is_running:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)  # noqa: S603 - built below

    def kill(self) -> None:
        """Kill it: ``SIGKILL``."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end, and wait until it has: ``SIGTERM``. A leader hands over before."""
        self._end(signal.SIGTERM)

    def stop(self) -> None:
        """Let it hang: ``SIGSTOP``. Connections to it stay open, and nobody answers."""
        self.is_expected = False
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on: ``SIGCONT``."""
        self.is_expected = self.is_running
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """Return the end of what it has logged."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:] if self._log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self.is_expected = False
        self._signal(number)
        self._signal(signal.SIGCONT)  # one that is stopped would not hear of its end
        if self._process is not None:
            self._process.wait()


class EtcdCluster:
    """
    Some members. Made by :func:`etcd_cluster`.

    Attributes:
        members: All of them, running or not.
    """

    def __init__(self, members: Sequence[EtcdMember], tls: Certificates | None, timeout: float) -> None:
        self.members = tuple(members)
        self._tls = tls
        self._context = _context(tls)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<EtcdCluster of {len(self.members)} at {', '.join(self.endpoints)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for member in self.members:
            member.kill()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints of all members."""
        return tuple(member.endpoint for member in self.members)

    def start(self) -> None:
        """Start all members that do not run, and wait for them."""
        for member in self.members:
            member.start()
        self.wait()

    def wait(self) -> None:
        """
        Wait until every member that was started, and not stopped or ended, has a leader and answers.

        Raises:
            RuntimeError: One has ended by itself; with the end of its log.
            TimeoutError: One does not answer; likewise.
        """
        deadline = time.monotonic() + self._timeout
        for member in self.members:
            while member.is_expected and not self._is_healthy(member):
                if not member.is_running:
                    msg = f"{member} has ended; it has logged: {member.log()}"
                    raise RuntimeError(msg)
                if time.monotonic() > deadline:
                    msg = f"{member} does not answer; it has logged: {member.log()}"
                    raise TimeoutError(msg)
                time.sleep(_POLL_SECONDS)

    def leader(self) -> EtcdMember:
        """Return the member that leads."""
        rows = json.loads(self.etcdctl("endpoint", "status", "--write-out=json"))
        for row in rows:
            header = row["Status"]["header"]
            if header["member_id"] == row["Status"]["leader"]:
                return next(member for member in self.members if member.endpoint == row["Endpoint"])
        msg = f"{self} has no leader"
        raise RuntimeError(msg)

    def etcdctl(self, *argv: str, timeout: float = 30.0) -> str:
        """Run ``etcdctl`` for the members that are expected to answer, and return what it prints."""
        running = [member.endpoint for member in self.members if member.is_expected]
        tls = self._tls
        files = [f"--cacert={tls.ca}", f"--cert={tls.cert}", f"--key={tls.key}"] if tls else []
        command = ["etcdctl", f"--endpoints={','.join(running)}", *files, *argv]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(  # noqa: S603 - a test's own command
            command, capture_output=True, text=True, check=False, timeout=timeout, env=environment
        )
        if done.returncode:
            msg = f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()}"
            raise RuntimeError(msg)
        return done.stdout

    def _is_healthy(self, member: EtcdMember) -> bool:
        place = urlsplit(member.endpoint)
        connection: http.client.HTTPConnection
        if self._context is None:
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=1.0)
        else:
            connection = http.client.HTTPSConnection(
                place.hostname or "", place.port, timeout=1.0, context=self._context
            )
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/health")
                return bool(json.load(connection.getresponse())["health"] == "true")
            except (OSError, http.client.HTTPException, ValueError):
                return False


@contextlib.contextmanager
def etcd_cluster(
    members: int = 1,
    *,
    host: PrivateHost | None = None,
    addresses: Sequence[str] = (),
    tls: Certificates | None = None,
    options: Sequence[str] = (),
    directory: Path | str | None = None,
    timeout: float = 30.0,
) -> Iterator[EtcdCluster]:
    """
    Start an etcd cluster for the ``with`` block.

    Args:
        members: How many.
        host: The private host that the current thread is on. Without it, the thread is put on a new one.
        addresses: Where each listens, by default all on loopback. They must be on the host.
        tls: Clients are served encrypted, and need a certificate of the same authority.
        options: Further options of ``etcd``, such as ``--auto-compaction-retention=1h``.
        directory: Where a temporary directory is made for their data, by default in memory.
        timeout: Seconds until waiting for the members is an error.

    Raises:
        UnavailableError: ``etcd`` is not installed.
        TimeoutError: The members do not come up.
    """
    if shutil.which("etcd") is None:
        msg = "etcd is not installed; on Debian it is in etcd-server"
        raise UnavailableError(msg)
    with contextlib.ExitStack() as stack:
        if host is None:
            stack.enter_context(private_host())
        if directory is None and os.access(_MEMORY, os.W_OK):
            directory = _MEMORY
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="etcd-", dir=directory)))
        hosts = list(addresses) or ["127.0.0.1"] * members
        made = _members(hosts[:members], data, tls, options)
        cluster = stack.enter_context(EtcdCluster(made, tls, timeout))
        cluster.start()
        yield cluster


def _members(
    hosts: Sequence[str], directory: Path, tls: Certificates | None, options: Sequence[str]
) -> list[EtcdMember]:
    scheme = "https" if tls else "http"
    ports = iter(_free_ports([host for host in hosts for _ in range(2)]))
    places = [(host, next(ports), next(ports)) for host in hosts]
    peers = [f"http://{_bracketed(host)}:{port}" for host, _, port in places]
    everybody = ",".join(f"member{number}={url}" for number, url in enumerate(peers, 1))
    made = []
    for number, ((host, port, _), peer) in enumerate(zip(places, peers, strict=True), 1):
        name = f"member{number}"
        endpoint = f"{scheme}://{_bracketed(host)}:{port}"
        argv = [
            "etcd",
            f"--name={name}",
            "--logger=zap",
            "--log-level=error",
        ]
        argv += [f"--listen-client-urls={endpoint}", f"--advertise-client-urls={endpoint}"]
        argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        argv += [f"--initial-cluster={everybody}", f"--initial-cluster-token={directory.name}"]
        if tls:
            argv += [f"--cert-file={tls.cert}", f"--key-file={tls.key}"]
            argv += [f"--trusted-ca-file={tls.ca}", "--client-cert-auth"]
        made.append(EtcdMember(name, endpoint, [*argv, *options], directory / name))
    return made


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _free_ports(hosts: Sequence[str]) -> list[int]:
    """Return ports that nobody has: on a private host nobody else comes to take them."""
    with contextlib.ExitStack() as probes:
        ports = []
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probe = probes.enter_context(socket.socket(family))
            probe.bind((host, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def _context(tls: Certificates | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls.ca)
    context.load_cert_chain(tls.cert, tls.key)
    return context
