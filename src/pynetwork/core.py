"""What the controller and its handles share: the engine, the tables, the drivers, the surroundings."""

from __future__ import annotations

import functools
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeGuard, TypeVar
from weakref import WeakSet

import attrs

from pynetwork.errors import NotFoundError, PynetworkError
from pynetwork.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path
    from random import Random

    from pynetwork.allocation import Allocations
    from pynetwork.cluster.span import Span
    from pynetwork.dns import NamesPort
    from pynetwork.drivers import Registry
    from pynetwork.engine import Draft, Engine
    from pynetwork.etc import HostFiles
    from pynetwork.events import EventReader
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.plan import Steps
    from pynetwork.records import AnyDriver, AnyNetworkSpec, Records, Row
    from pynetwork.specs import EndpointSpec, SandboxSpec
    from pynetwork.types import IPAddress, IPNetwork

__all__ = ["Core", "Handle", "Surroundings"]

H = TypeVar("H", bound="Handle")
T = TypeVar("T")


def _host_networks() -> Iterable[IPNetwork]:
    from pynetwork.kernel.facts import host_networks

    return host_networks()


def _machine_seed() -> bytes:
    from pynetwork.kernel.facts import machine_seed

    return machine_seed()


def _process_identity() -> str:
    from pynetwork.kernel.facts import process_identity

    return process_identity()


def _is_alive(identity: str) -> bool:
    from pynetwork.kernel.facts import is_alive

    return is_alive(identity)


def _boot_id() -> str:
    from pynetwork.kernel.facts import boot_id

    return boot_id()


def _ephemeral_ports() -> tuple[int, int, tuple[tuple[int, int], ...]]:
    from pynetwork.kernel.facts import ephemeral_ports

    return ephemeral_ports()


def _host_files() -> HostFiles:
    from pynetwork.kernel.facts import host_files

    return host_files()


def _cgroup_problem() -> str:
    from pynetwork.kernel.hierarchies import find_hierarchies

    return find_hierarchies().problem


@attrs.frozen(kw_only=True)
class Surroundings:
    """
    All that is random, clocked or read from the host: replaced as a whole by a test.

    Args:
        random: Ids, MAC addresses, names of host interfaces.
        clock: Seconds since the epoch.
        host_networks: What an automatically chosen subnet must not overlap.
        machine_seed: Bytes that are this machine's own, for its unique local IPv6 prefix.
        process_identity: Tells this process from all others, past and future.
        is_alive: Whether the process of an identity still runs.
        boot_id: Tells this boot of the host from all others.
        ephemeral_ports: First and last of the ports that a host port is chosen from, and the ranges among
            them that are reserved.
        host_files: What its ``resolv.conf`` and ``hosts`` say.
        cgroup_problem: Why no control groups can be made there, nothing when they can.
        settle_seconds: How long recording that a request is done may wait for the next request to do
            it along.
    """

    random: Random = attrs.field(factory=random.SystemRandom)
    clock: Callable[[], float] = time.time
    host_networks: Callable[[], Iterable[IPNetwork]] = _host_networks
    machine_seed: Callable[[], bytes] = _machine_seed
    process_identity: Callable[[], str] = _process_identity
    is_alive: Callable[[str], bool] = _is_alive
    boot_id: Callable[[], str] = _boot_id
    ephemeral_ports: Callable[[], tuple[int, int, tuple[tuple[int, int], ...]]] = _ephemeral_ports
    host_files: Callable[[], HostFiles] = _host_files
    cgroup_problem: Callable[[], str] = _cgroup_problem
    settle_seconds: float = 0.02


@attrs.define(eq=False)
class Core:
    """
    One instance on one host.

    Args:
        instance: Its id, 32 hexadecimal digits; tags all it creates.
        engine: Carries out requests.
        records: Tables of networks, endpoints and sandboxes.
        allocations: Tables of pools and addresses.
        drivers: Network drivers by name.
        defaults: Driver name to its default options.
        netns_dir: Where namespaces are pinned.
        files_dir: Where the files of sandboxes are.
        visible: Whether they are named for people (``ip netns list``).
        surroundings: What is random, clocked or read from the host.
        resolver: Addresses of the name server inside of each sandbox, if there is one.
        scratches: Open scratch blocks, innermost last; each collects what is made meanwhile.
        readers: Of events; closed with the controller.
        dns: The name server of its sandboxes, if there is to be any.
        span: The cluster that the host is in, if any.
    """

    instance: str
    engine: Engine
    records: Records
    allocations: Allocations
    drivers: Registry[AnyDriver]
    defaults: Mapping[str, Any]
    netns_dir: Path
    files_dir: Path
    visible: bool
    surroundings: Surroundings
    scratches: list[list[Handle]] = attrs.field(factory=list)
    readers: WeakSet[EventReader] = attrs.field(factory=WeakSet)
    is_closed: bool = False
    dns: NamesPort | None = None
    resolver: tuple[IPAddress, ...] = ()
    span: Span | None = None
    _namespaces: Namespaces | None = None

    @functools.cached_property
    def cgroup_problem(self) -> str:
        """Why no control groups can be made on this host; empty when they can."""
        return self.surroundings.cgroup_problem()

    @contextmanager
    def reading(self) -> Iterator[Records]:
        """Hold the tables still, up to date."""
        self.check_open()
        mirror = self.engine.mirror
        with mirror.lock:
            mirror.refresh()
            yield self.records

    def request(self, build: Callable[[Draft], T]) -> T:
        """Carry out a request, see :meth:`pynetwork.engine.Engine.request`."""
        self.check_open()
        if self.span is None:
            return self.engine.request(build)
        try:
            return self.engine.request(build)
        finally:
            self.span.poke()

    def rehearse(self, build: Callable[[Draft], object]) -> Steps:
        """Return the steps of a request, see :meth:`pynetwork.engine.Engine.rehearse`."""
        self.check_open()
        return self.engine.rehearse(build)

    def check_open(self) -> None:
        """Raise when the controller was closed."""
        if self.is_closed:
            msg = "the controller is closed: make a new one on the same state directory"
            raise PynetworkError(msg)

    def namespaces(self) -> Namespaces:
        """Return what enters namespaces: the kernel's, or one of our own beside a fake kernel."""
        self.check_open()
        found = getattr(self.engine.kernel, "namespaces", None) or self._namespaces
        if found is None:
            from pynetwork.kernel.netns import Namespaces

            found = self._namespaces = Namespaces()
        return found

    def revision(self) -> int:
        """Return the revision of the records, with all that this process has done."""
        self.check_open()
        self.engine.journal.settle()
        with self.reading():
            return self.engine.mirror.revision

    def follow(self, since: object, *, timeout: float | None, kinds: Collection[str] | None) -> EventReader:
        """Return a reader of events, see :meth:`Controller.events`."""
        from pynetwork.events import EventReader

        self.check_open()
        if since is None:
            self.engine.journal.settle()
        reader = EventReader(self.engine.mirror.store, since, timeout=timeout, kinds=kinds)
        self.readers.add(reader)
        return reader

    def close(self) -> None:
        """Refuse further use. Idempotent."""
        for reader in list(self.readers):
            reader.close()
        if not self.is_closed:
            if self.span is not None:
                self.span.close()
            if self.dns is not None:
                self.dns.close()
            self.engine.journal.close()
        self.is_closed = True
        if self._namespaces is not None:
            self._namespaces.close()

    def made(self, handle: H) -> H:
        """Note a new object for the innermost scratch block."""
        if self.scratches:
            self.scratches[-1].append(handle)
        return handle

    def view(self, kind: type[H], owner: str, rows: Mapping[str, object]) -> View[H]:
        """Return the objects below *owner* by name, as handles; *rows* are those that exist, by id."""
        word = kind.__name__.lower()

        def is_there(identity: str | None) -> TypeGuard[str]:
            in_the_making = self.engine.world.is_in_the_making
            return identity in rows and not in_the_making(f"{word}/{identity}")

        def read() -> dict[str, H]:
            with self.reading() as records:
                return {name: kind.of(self, i) for name, i in records.names(owner) if is_there(i)}

        def find(name: str) -> H | None:
            with self.reading() as records:
                identity = records.named(owner, name)
                return kind.of(self, identity) if is_there(identity) else None

        return View(word, read, find)

    # Rows by id; the caller holds the tables

    def network(self, identity: str) -> Row[AnyNetworkSpec]:
        """Return the network of that id."""
        return self.records.networks.get(identity) or _gone("network", identity)

    def endpoint(self, identity: str) -> Row[EndpointSpec]:
        """Return the endpoint of that id."""
        return self.records.endpoints.get(identity) or _gone("endpoint", identity)

    def sandbox(self, identity: str) -> Row[SandboxSpec]:
        """Return the sandbox of that id."""
        return self.records.sandboxes.get(identity) or _gone("sandbox", identity)


def _gone(kind: str, identity: str) -> NoReturn:
    msg = f"{kind} {identity[:12]} does not exist: it was deleted"
    raise NotFoundError(msg)


class Handle:
    """
    A light reference to an object of a controller, compared by id.

    It holds no state of its own: every attribute says what is recorded now, whichever process
    changed it. Used after the object was deleted it raises NotFoundError.
    """

    __slots__ = ("_core", "id")

    _core: Core
    id: str

    def __init__(self) -> None:
        msg = f"{type(self).__name__} objects are made by a controller, not by hand"
        raise TypeError(msg)

    @classmethod
    def of(cls, core: Core, identity: str) -> Self:
        """Return the handle of the object of that id. For this library's own use."""
        self = object.__new__(cls)
        self._core = core
        self.id = identity
        return self

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Handle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)
