"""A small internet for tests of the firewall: a host with containers, a LAN, and questions from everywhere.

Servers in all namespaces are one thread, which answers who was asked and whom it saw asking; questions
are asked many at once. So a hundred of them take as long as the patience for those that nobody answers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pynetwork import Controller
from pynetwork.kernel.netns import entered
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from pynetwork import Endpoint, Network, Sandbox
    from pynetwork.testing import HostNamespace, PrivateHost

#: The firewalls that everything is tested with.
FIREWALLS: Final = ["nftables"]
#: The host's addresses on the LAN, and those of the machine there, by version.
HOST: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
LAN: Final = {4: "192.0.2.2", 6: "2001:db8::2"}
#: The ports that every server listens at.
PORTS: Final = (80, 81)

_PATIENCE: Final = 10.0  # for answers that must come
_SILENCE: Final = 0.3  # for those that must not
_AGAIN: Final = 0.25  # a datagram is repeated
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


class Answer(NamedTuple):
    """Who answered, and the address that it saw as the asker's."""

    server: str
    source: str


class Place:
    """
    Where servers are and questions come from.

    Args:
        name: Its own.
        path: Of its namespace; None for the host's, which the calling thread is in.
    """

    def __init__(self, name: str, path: str | Path | None = None) -> None:
        self.name = name
        self.path = None if path is None else str(path)

    def __repr__(self) -> str:
        return self.name

    def entered(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.path is None else entered(self.path)


class Box(Place):
    """A sandbox with an endpoint in a network, and a server in it."""

    def __init__(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        super().__init__(endpoint.name, sandbox.netns_path)
        self.sandbox = sandbox
        self.endpoint = endpoint

    def address(self, version: int) -> str:
        return next(str(each.ip) for each in self.endpoint.addresses if each.version == version)


class Question(NamedTuple):
    """A connection, or a datagram, that is to be answered."""

    place: Place
    address: str
    port: int
    proto: str = "tcp"


class Lab:
    """
    The host, the LAN, and the controller.

    Args:
        host: The private host that this is on.
        lan: The machine on its LAN.
        controller: Whose networks are tested.
    """

    def __init__(self, host: PrivateHost, lan: HostNamespace, controller: Controller) -> None:
        self.host = host
        self.machine = lan
        self.controller = controller
        self.home = Place("host")
        self.lan = Place("lan", f"/run/netns/{lan.name}")
        self.servers = _Servers()
        self.servers.add(self.lan, PORTS)

    def network(self, name: str, number: int, **arguments: Any) -> Network:
        """Return a new network with the subnets ``10.88.NUMBER.0/24`` and ``fd88:NUMBER::/64``."""
        subnets = [f"10.88.{number}.0/24", f"fd88:{number}::/64"]
        return self.controller.new_network("bridge", name, subnets=subnets, **arguments)

    def box(self, network: Network, name: str, ports: Iterable[str] = (), **arguments: Any) -> Box:
        """Return a new sandbox in *network* with a server in it that answers *name*."""
        endpoint = network.create_endpoint(name, ports=ports, **arguments)
        sandbox = self.controller.new_sandbox(name)
        endpoint.join(sandbox)
        box = Box(sandbox, endpoint)
        self.servers.add(box, PORTS)
        return box

    def route_to(self, network: Network) -> None:
        """Let the machine on the LAN know that *network* is behind the host."""
        for subnet in network.subnets:
            version = subnet.version
            self.machine.run(["ip", f"-{version}", "route", "add", str(subnet), "via", HOST[version]])

    def answer(self, place: Place, address: str, port: int, proto: str = "tcp") -> str | None:
        """Return who answers one question that is expected to be answered."""
        question = Question(place, address, port, proto)
        found = ask([question], [question])[question]
        return None if found is None else found.server


@contextlib.contextmanager
def laboratory(firewall: str, **arguments: Any) -> Iterator[Lab]:
    """Return a private host with a LAN and a controller, all of whose is erased at the end."""
    with private_host() as host:
        lan = host.add_machine("lan", address=f"{LAN[4]}/24", host_address=f"{HOST[4]}/24")
        host.run(["ip", "address", "add", f"{HOST[6]}/64", "dev", "lan", "nodad"])
        lan.run(["ip", "address", "add", f"{LAN[6]}/64", "dev", lan.interface, "nodad"])
        controller = Controller(firewall=firewall, **arguments)
        lab = Lab(host, lan, controller)
        try:
            yield lab
        finally:
            lab.servers.close()
            try:
                controller.erase()
            finally:
                controller.close()


def ask(questions: Iterable[Question], wanted: Collection[Question] = ()) -> dict[Question, Answer | None]:
    """
    Return the answers.

    Args:
        questions: All at once, but those of *wanted* first: so paths are known to work when silence on
            them is to mean something.
        wanted: Those whose answers are waited for with patience.
    """
    questions = list(dict.fromkeys(questions))
    first = [question for question in questions if question in wanted]
    rest = [question for question in questions if question not in wanted]
    answers = _ask(first, _PATIENCE) if first else {}
    return answers | (_ask(rest, _SILENCE) if rest else {})


def _ask(questions: list[Question], patience: float) -> dict[Question, Answer | None]:
    answers: dict[Question, Answer | None] = dict.fromkeys(questions)
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for place in {question.place: None for question in questions}:
            with place.entered():
                for question in questions:
                    if question.place is place:
                        asker = stack.enter_context(_asker(question))
                        if _begin(asker, question):
                            waiting.register(asker, selectors.EVENT_WRITE, question)
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            events = waiting.select(min(left, _AGAIN))
            for key, event in events:
                _proceed(waiting, key, event, answers)
            if not events:
                _repeat(waiting)
    return answers


def _asker(question: Question) -> socket.socket:
    asker = socket.socket(_FAMILIES[version_of(question.address)], _KINDS[question.proto])
    asker.setblocking(False)
    return asker


def _begin(asker: socket.socket, question: Question) -> bool:
    try:
        asker.connect((question.address, question.port))
    except BlockingIOError:
        return True
    except OSError:  # no route, or refused by a rule
        return False
    return True


def _proceed(
    waiting: selectors.DefaultSelector,
    key: selectors.SelectorKey,
    event: int,
    answers: dict[Question, Answer | None],
) -> None:
    asker: Any = key.fileobj
    try:
        if event & selectors.EVENT_WRITE:
            asker.send(b"?")
            waiting.modify(asker, selectors.EVENT_READ, key.data)
            return
        server, _, source = asker.recv(999).decode().partition(" ")
    except OSError:  # refused
        waiting.unregister(asker)
        return
    answers[key.data] = Answer(server, source)
    waiting.unregister(asker)


def _repeat(waiting: selectors.DefaultSelector) -> None:
    for key in list(waiting.get_map().values()):
        if key.data.proto == "udp":
            waiting.modify(key.fileobj, selectors.EVENT_WRITE, key.data)


class _Servers:
    """All servers: one thread that answers in all namespaces."""

    def __init__(self) -> None:
        self._waiting = selectors.DefaultSelector()
        self._bell, self._end = socket.socketpair()
        self._waiting.register(self._end, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="servers")
        self._thread.start()

    def add(self, place: Place, ports: Iterable[int]) -> None:
        """Serve at *ports*, by TCP and UDP, IPv4 and IPv6."""
        with place.entered():
            for port in ports:
                for family in _FAMILIES.values():
                    for kind in _KINDS.values():
                        self._waiting.register(
                            _server(family, kind, port), selectors.EVENT_READ, (place.name, kind)
                        )
        self._bell.send(b"!")  # a selector does not see what was added while it waited

    def close(self) -> None:
        self._bell.close()
        self._thread.join()
        for key in list(self._waiting.get_map().values()):
            opened: Any = key.fileobj
            opened.close()
        self._waiting.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._waiting.select():
                served: Any = key.fileobj
                if served is self._end:
                    if not self._end.recv(99):
                        return
                    continue
                with contextlib.suppress(OSError):  # the asker is gone
                    self._answer(served, *key.data)

    def _answer(self, served: socket.socket, name: str, kind: int) -> None:
        if kind == socket.SOCK_DGRAM:
            _, peer = served.recvfrom(99)
            served.sendto(_said(name, peer), peer)
            return
        connection, peer = served.accept()
        with connection:
            connection.send(_said(name, peer))


def _said(name: str, peer: Any) -> bytes:
    return f"{name} {ipaddress.ip_address(peer[0].partition('%')[0])}".encode()


def _server(family: int, kind: int, port: int) -> socket.socket:
    server = socket.socket(family, kind)
    server.setblocking(False)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    if kind == socket.SOCK_STREAM:
        server.listen(64)
    return server
