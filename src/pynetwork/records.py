"""The records of networks, endpoints and sandboxes, as tables that follow the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import attrs

from pynetwork.engine.codec import decode_value, encode, loads
from pynetwork.engine.mirror import Known
from pynetwork.errors import InvalidValueError, UnknownDriverError
from pynetwork.peers import Peer
from pynetwork.port_index import PortIndex
from pynetwork.specs import EndpointSpec, NetworkSpec, PortSpec, SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pynetwork.drivers import Driver, Registry
    from pynetwork.store import Put

__all__ = ["AnyDriver", "AnyNetworkSpec", "Records", "Row", "make_options", "network_row", "record"]

S = TypeVar("S")
# A driver's options are its own; the controller passes them from the user to it unread.
AnyDriver: TypeAlias = "Driver[Any]"
AnyNetworkSpec: TypeAlias = "NetworkSpec[Any]"
Follower: TypeAlias = Callable[[str, Any], None]


_NO_EXTRA: Final[Mapping[str, Any]] = MappingProxyType({})


@attrs.frozen
class Row(Generic[S]):
    """A record: its key, the value, the revision it was read at, and fields this version does not know."""

    key: str
    spec: S
    revision: int
    extra: Mapping[str, Any] = _NO_EXTRA

    def replaced(self, spec: S) -> Put:
        """Return the operation that puts *spec* in its place."""
        return record(self.key, spec, self.extra)


def record(key: str, spec: object, extra: Mapping[str, Any] = _NO_EXTRA) -> Put:
    """Return the operation that puts *spec* under *key*."""
    return Known(key, encode(spec, extra), decoded=Row(key, spec, 0, extra))


class Records:
    """
    Tables ``network``, ``endpoint``, ``port``, ``sandbox``, ``name``, and ``peer`` of other hosts' endpoints.

    Not locked itself: the mirror's lock is held by whoever calls.

    Args:
        drivers: To read the options of networks.

    Attributes:
        followers: Each is called with the key of a record that was put, and what it says, None when it was
            deleted; with an empty key when all are forgotten. They must be quick: every request waits.
    """

    words = ("network", "endpoint", "port", "sandbox", "name", "peer")

    def __init__(self, drivers: Registry[AnyDriver]) -> None:
        self._drivers = drivers
        self.networks: dict[str, Row[AnyNetworkSpec]] = {}
        self.endpoints: dict[str, Row[EndpointSpec]] = {}
        self.sandboxes: dict[str, Row[SandboxSpec]] = {}
        self.peers: dict[str, Row[Peer]] = {}  # by key
        self._names: dict[str, dict[str, str]] = {}
        self._joined: dict[str, dict[str, None]] = {}
        self.host_ports = PortIndex()
        self.followers: list[Follower] = []
        self._ports: dict[str, dict[str, Row[PortSpec]]] = {}

    def put(self, key: str, value: str, revision: int, decoded: object = None) -> None:
        """Take in a record, as a :class:`~pynetwork.engine.mirror.Table` does."""
        table, _, rest = key.partition("/")
        row: Row[Any]
        if table == "name":
            owner, _, name = rest.rpartition("/")
            self._names.setdefault(owner, {})[name] = value
            return
        if table == "network":
            row = self._row(NetworkSpec, key, value, revision, decoded)
            self.networks[row.spec.id] = row
        elif table == "endpoint":
            row = self._row(EndpointSpec, key, value, revision, decoded)
            self._unlink(row.spec.id)
            self.endpoints[row.spec.id] = row
            if row.spec.sandbox is not None:
                self._joined.setdefault(row.spec.sandbox, {})[row.spec.id] = None
        elif table == "port":
            row = self._row(PortSpec, key, value, revision, decoded)
            self._drop_port(key)
            self._ports.setdefault(row.spec.endpoint, {})[row.spec.id] = row
            self.host_ports.add(row.spec)
        elif table == "peer":
            row = self._row(Peer, key, value, revision, decoded)
            self.peers[key] = row
        else:
            row = self._row(SandboxSpec, key, value, revision, decoded)
            self.sandboxes[row.spec.id] = row
        for follower in self.followers:
            follower(key, row.spec)

    def delete(self, key: str) -> None:
        """Drop a record."""
        table, _, rest = key.partition("/")
        identity = rest.rpartition("/")[2]
        if table == "name":
            owner, _, name = rest.rpartition("/")
            names = self._names.get(owner, {})
            names.pop(name, None)
            if not names:
                self._names.pop(owner, None)
            return
        if table == "network":
            self.networks.pop(identity, None)
        elif table == "endpoint":
            self._unlink(identity)
            self.endpoints.pop(identity, None)
        elif table == "port":
            self._drop_port(key)
        elif table == "peer":
            self.peers.pop(key, None)
        else:
            self.sandboxes.pop(identity, None)
        for follower in self.followers:
            follower(key, None)

    def clear(self) -> None:
        """Forget everything."""
        for table in (self.networks, self.endpoints, self.sandboxes, self.peers, self._names, self._joined):
            table.clear()
        self._ports.clear()
        self.host_ports.clear()
        for follower in self.followers:
            follower("", None)

    def follow(self, follower: Follower) -> None:
        """Tell *follower* of all records, and of all changes from now on."""
        ports = (row for rows in self._ports.values() for row in rows.values())
        rows: tuple[Iterable[Row[Any]], ...] = (
            self.networks.values(),
            self.endpoints.values(),
            ports,
            self.sandboxes.values(),
            self.peers.values(),
        )
        for row in chain.from_iterable(rows):
            follower(row.key, row.spec)
        self.followers.append(follower)

    def names(self, owner: str) -> Iterator[tuple[str, str]]:
        """Return names and ids below *owner*: ``network``, ``sandbox`` or ``endpoint/<network id>``."""
        return iter(self._names.get(owner, {}).items())

    def named(self, owner: str, name: str) -> str | None:
        """Return the id of the object of *owner* called *name*; it may still be in the making."""
        return self._names.get(owner, {}).get(name)

    def joined(self, sandbox: str) -> list[Row[EndpointSpec]]:
        """Return the endpoints joined to the sandbox of that id, the longest joined first."""
        rows = (self.endpoints[identity] for identity in self._joined.get(sandbox, ()))
        return sorted(rows, key=lambda row: row.spec.joined)

    def has_joined(self) -> bool:
        """Return whether any sandbox has an endpoint."""
        return bool(self._joined)

    def ports_of(self, endpoint: str) -> list[Row[PortSpec]]:
        """Return what the endpoint of that id publishes, the oldest first."""
        return list(self._ports.get(endpoint, {}).values())

    def _drop_port(self, key: str) -> None:
        _, endpoint, identity = key.split("/")
        known = self._ports.get(endpoint, {})
        row = known.pop(identity, None)
        if row is not None:
            self.host_ports.remove(row.spec)
            if not known:
                del self._ports[endpoint]

    def _unlink(self, endpoint: str) -> None:
        row = self.endpoints.get(endpoint)
        if row is not None and row.spec.sandbox is not None:
            siblings = self._joined[row.spec.sandbox]
            siblings.pop(endpoint, None)
            if not siblings:
                del self._joined[row.spec.sandbox]

    def _row(self, kind: type[S], key: str, value: str, revision: int, decoded: object) -> Row[S]:
        if isinstance(decoded, Row):
            return Row(key, decoded.spec, revision, decoded.extra)
        if kind is NetworkSpec:
            return network_row(self._drivers, key, value, revision)  # type: ignore[return-value]  # the kind
        spec, extra = decode_value(kind, key, loads(key, value))
        return Row(key, spec, revision, extra)


def network_row(drivers: Registry[AnyDriver], key: str, value: str, revision: int) -> Row[AnyNetworkSpec]:
    """Return what the record of a network says, its options as the type of its driver in *drivers*."""
    fields = loads(key, value)
    fields["options"] = _options(drivers, fields["driver"], fields.get("options", {}))
    spec, extra = decode_value(NetworkSpec, key, fields)
    return Row(key, spec, revision, extra)


def _options(drivers: Registry[AnyDriver], driver: str, options: Mapping[str, Any]) -> object:
    try:
        return make_options(drivers[driver], options)
    except (UnknownDriverError, InvalidValueError):
        # A network of a driver that is not installed here can still be listed.
        return dict(options)


def make_options(driver: AnyDriver, options: object, defaults: object = None) -> Any:  # noqa: ANN401 - the driver's type
    """
    Return *options* as the driver's own type.

    Args:
        driver: The driver.
        options: An instance of its options type, a mapping of option to value that changes
            *defaults*, or None for the defaults.
        defaults: An instance of its options type; its own defaults when None.

    Raises:
        InvalidValueError: An unknown option, or a value of the wrong type or out of range; also when a
            check of the driver's says so with a TypeError or ValueError.
    """
    kind = driver.options_type
    if isinstance(options, kind):
        return options
    base: Any = kind() if defaults is None else defaults
    if options is None:
        return base
    known = sorted(field.alias or field.name for field in attrs.fields(kind))
    if not isinstance(options, Mapping):
        msg = f"invalid options {options!r} for driver {driver.name!r}: a {kind.__name__} is expected"
        raise InvalidValueError(msg)
    unknown = sorted(str(name) for name in options if name not in known)
    if unknown:
        msg = f"unknown options {', '.join(unknown)} for driver {driver.name!r}: it knows {', '.join(known)}"
        raise InvalidValueError(msg)
    try:
        return attrs.evolve(base, **options)
    except (TypeError, ValueError) as error:
        msg = f"invalid options for driver {driver.name!r}: {error}"
        raise InvalidValueError(msg) from error
