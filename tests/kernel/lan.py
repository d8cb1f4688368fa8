"""A small internet for tests of the firewall: a host with containers, a LAN, and questions from everywhere.

Servers in all namespaces are one thread, which answers who was asked and whom it saw asking; questions
are asked many at once. So a hundred of them take as long as the patience for those that nobody answers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import selectors
import socket
import threading
import time
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pynetwork import Controller
from pynetwork.kernel.netns import entered
from pynetwork.testing import private_host
from pynetwork.testing.hosts import PRIVATE_DIRECTORIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from pynetwork import Endpoint, Network, Sandbox
    from pynetwork.testing import HostNamespace, PrivateHost

#: The firewalls that everything is tested with.
FIREWALLS: Final = ["nftables", "iptables"]
#: The host's addresses on the LAN, and those of the machine there, by version.
HOST: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
LAN: Final = {4: "192.0.2.2", 6: "2001:db8::2"}
#: The ports that every server listens at.
PORTS: Final = (80, 81)

_PATIENCE: Final = 10.0  # for answers that must come
_SILENCE = 0.3  # for those that must not
_AGAIN: Final = 0.25  # a datagram is repeated
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


def bridge_of(network: Network) -> str:
    return f"br-{network.id[:12]}"


def bridge_mac(lab: Lab, network: Network) -> str:
    shown = lab.host.run(["ip", "-j", "link", "show", bridge_of(network)]).stdout
    return str(json.loads(shown)[0]["address"])


class Answer(NamedTuple):
    """Who answered, at which port, and the address that it saw as the asker's."""

    server: str
    port: int
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

    @property
    def addresses(self) -> dict[int, str]:
        """Its address by version."""
        return {each.version: str(each.ip) for each in self.endpoint.addresses}

    def ip(self, *arguments: str) -> None:
        """Run ``ip`` in it, as a container with the right to configure its network may."""
        self.sandbox.run(["ip", *arguments], check=True)


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

    def ping(self, place: Place, address: str, *, wanted: bool = True) -> bool:
        """Whether *address* answers to a ping, which is waited for with patience when it is *wanted*."""
        patience = ["-c", "1", "-i", "0.1", "-w", str(int(_PATIENCE))] if wanted else ["-c", "1", "-W", "0.5"]
        with place.entered():
            done = self.host.run(["ping", *patience, address], check=False)
        return done.returncode == 0


@contextlib.contextmanager
def laboratory(
    firewall: str,
    *,
    directories: Sequence[str] = PRIVATE_DIRECTORIES,
    control_groups: bool = True,
    **arguments: Any,
) -> Iterator[Lab]:
    """Return a private host with a LAN and a controller, all of whose is erased at the end."""
    with private_host(directories, control_groups=control_groups) as host:
        lan = host.add_machine("lan", address=f"{LAN[4]}/24", host_address=f"{HOST[4]}/24")
        host.run(["ip", "address", "add", f"{HOST[6]}/64", "dev", "lan", "nodad"])
        lan.run(["ip", "address", "add", f"{LAN[6]}/64", "dev", lan.interface, "nodad"])
        controller = Controller(firewall=firewall, **arguments)
        with erased(controller):
            lab = Lab(host, lan, controller)
            try:
                _wait_for_cable(lab)
                yield lab
            finally:
                lab.servers.close()


@contextlib.contextmanager
def erased(controller: Controller) -> Iterator[None]:
    """Erase all that *controller* made, unless the test did."""
    try:
        yield
    finally:
        try:
            if not controller._core.is_closed:
                controller.erase()
        finally:
            controller.close()


def _wait_for_cable(lab: Lab) -> None:
    """Wait until IPv6 knows, on both ends, that there is a cable: it has no route before."""
    deadline = time.monotonic() + _PATIENCE
    for place, address in ((lab.home, LAN[6]), (lab.lan, HOST[6])):
        with place.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            while probe.connect_ex((address, 9)) and time.monotonic() < deadline:
                time.sleep(0.01)


def ask(questions: Iterable[Question], wanted: Collection[Question] = ()) -> dict[Question, Answer | None]:
    """
    Return the answers.

    Args:
        questions: All at once, but those of *wanted* first: so paths are known to work when silence on
            them is to mean something.
        wanted: Those whose answers are waited for with patience.
    """
    questions = list(dict.fromkeys(questions))
    answers: dict[Question, Answer | None] = {}
    left = [question for question in questions if question in wanted]
    deadline = time.monotonic() + _PATIENCE
    while left and time.monotonic() < deadline:
        # A new link is not known to all of the kernel at once, and a refusal may be no last word.
        answers |= _ask(left, deadline - time.monotonic())
        left = [question for question in left if answers[question] is None]
        time.sleep(0.02)
    rest = [question for question in questions if question not in wanted]
    return answers | (_ask(rest, _SILENCE) if rest else {})


def everywhere(place: Place, addresses: dict[int, str], port: int = PORTS[0]) -> list[Question]:
    """Return the questions to a port of *addresses*, one by version, by TCP and UDP."""
    return [Question(place, address, port, proto) for address in addresses.values() for proto in _KINDS]


def check(reached: dict[str, list[Question]], silent: Iterable[Question] = ()) -> dict[Question, Answer]:
    """
    Check who is reached and who is not, and return the answers.

    Args:
        reached: Questions by the name of the server that must answer them.
        silent: What must not be answered by anybody.
    """
    servers = {question: server for server, questions in reached.items() for question in questions}
    answers = ask([*servers, *silent], servers)
    wrong = [
        f"{question} is answered by {answer}, not by {servers.get(question)}"
        for question, answer in answers.items()
        if (None if answer is None else answer.server) != servers.get(question)
    ]
    if wrong:
        raise AssertionError("\n".join(wrong))
    return {question: answer for question, answer in answers.items() if answer is not None}


def is_heard(
    sender: Place, address: str, receiver: Place, *, wanted: bool = True, to: int = 4000, source: str = ""
) -> bool:
    """
    Return whether *receiver* hears datagrams that need no answer, at port 4000.

    Args:
        sender: Who sends them.
        address: Where to.
        receiver: Who listens at all of its addresses.
        wanted: Whether they are waited for with patience.
        to: The port that they are sent to.
        source: The sender's address that they come from.
    """
    family = _FAMILIES[version_of(address)]
    deadline = time.monotonic() + (_PATIENCE if wanted else _SILENCE)
    with contextlib.ExitStack() as stack:
        with receiver.entered():
            ear = stack.enter_context(
                _server({4: "0.0.0.0", 6: "::"}[version_of(address)], socket.SOCK_DGRAM, 4000)
            )
        ear.settimeout(0.05)
        with sender.entered():
            mouth = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            mouth.bind((source, 0))
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # no route, or refused by a rule
                mouth.sendto(b"!", (address, to))
            with contextlib.suppress(TimeoutError):
                ear.recv(99)
                return True
    return False


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
        server, port, source = asker.recv(999).decode().split()
    except (OSError, ValueError):  # refused, or not one of our servers
        waiting.unregister(asker)
        return
    answers[key.data] = Answer(server, int(port), source)
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

    def add(self, place: Place, ports: Iterable[int], *addresses: str) -> None:
        """Serve at *ports* of *addresses*, by default all of IPv4 and IPv6, by TCP and UDP."""
        with place.entered():
            for address, port, kind in product(addresses or ("0.0.0.0", "::"), ports, _KINDS.values()):
                server = _server(address, kind, port)
                self._waiting.register(server, selectors.EVENT_READ, (place.name, kind))
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
            served.sendto(_said(name, served, peer), peer)
            return
        connection, peer = served.accept()
        with connection:
            connection.send(_said(name, served, peer))


def _said(name: str, served: socket.socket, peer: Any) -> bytes:
    source = ipaddress.ip_address(peer[0].partition("%")[0])
    return f"{name} {served.getsockname()[1]} {source}".encode()


def _server(address: str, kind: int, port: int) -> socket.socket:
    family = _FAMILIES[version_of(address)]
    server = socket.socket(family, kind)
    server.setblocking(False)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == socket.SOCK_STREAM:
        server.listen(64)
    return server
