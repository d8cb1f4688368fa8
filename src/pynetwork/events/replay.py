"""From changes of the records to events: a pure function, as a machine that is fed with changes.

Records are written with the intent of a request, before the host is touched. What they say is so when
the intent ends, unless the request was undone. So the machine has two views: what is recorded, and what
is settled; a record that an intent has changed is settled when that ends.
"""

from __future__ import annotations

from itertools import count, groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pynetwork.engine.codec import loads
from pynetwork.engine.intent import Intent
from pynetwork.engine.journal import TOLD
from pynetwork.events.kinds import Event, EventKind
from pynetwork.ports import PortBinding
from pynetwork.store import Put

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pynetwork.store import Change, Snapshot

__all__ = ["Replay"]

_OBJECTS: Final = ("network/", "endpoint/", "port/", "sandbox/")
_JOURNAL: Final = "journal/"
_ORDER: Final = {kind: number for number, kind in enumerate(EventKind)}
_Fields: TypeAlias = dict[str, Any]
_What: TypeAlias = tuple[EventKind, dict[str, Any]]


class Replay:
    """
    Follows the records of an instance.

    Args:
        start: All that was recorded at the revision to begin with.
    """

    def __init__(self, start: Snapshot) -> None:
        self._recorded: dict[str, _Fields] = {}
        # Intents to the records they have changed, as they were.
        self._pending: dict[str, dict[str, str | None]] = {}
        self._settled = _Settled()
        intents = []
        for entry in sorted(start.entries, key=lambda entry: entry.revision):
            if entry.key.startswith(_OBJECTS):
                self._recorded[entry.key] = loads(entry.key, entry.value)
            elif entry.key.startswith(_JOURNAL):
                self._begin(entry.key, entry.value)
                intents.append(entry.key)
        self._settled.update(self._recorded)
        for was in reversed([self._pending[key] for key in intents]):
            self._settled.update(
                {key: None if value is None else loads(key, value) for key, value in was.items()}
            )

    def feed(self, changes: Sequence[Change]) -> Iterator[Event]:
        """Yield the events of *changes*, all those of some revisions that follow each other."""
        for revision, group in groupby(changes, key=lambda change: change.revision):
            together = list(group)
            time = together[0].time
            found = self._take(together)
            for index, (kind, fields) in zip(count(), found, strict=False):
                yield Event(revision=revision, index=index, time=time, kind=kind, **fields)

    def _take(self, changes: Sequence[Change]) -> Iterator[_What]:
        values = {change.key: change.value for change in changes}
        ended = [key for key in self._pending if values.get(key, "") is None]
        undone = [] if _begins(values) else [key for key in ended if self._is_undone(key, values)]
        # What was done was so before anything else that is written along.
        for key in ended:
            if key not in undone:
                yield from self._settle(self._pending.pop(key))
        touched = [key for intent in undone for key in self._pending.pop(intent)]
        told: list[_What] = []
        for key, value in values.items():
            if key.startswith(_OBJECTS):
                touched.append(key)
                self._record(key, value)
            elif key.startswith(_JOURNAL) and value is not None:
                self._begin(key, value)
            elif key.startswith(TOLD) and value is not None:
                told += self._told(loads(key, value)["events"])
        yield from self._settle(touched)
        yield from told

    def _is_undone(self, intent: str, values: Mapping[str, str | None]) -> bool:
        """Whether *values* are written at the end of an intent because it was undone."""
        was = self._pending[intent]
        return bool(was) and all(values.get(key, "") == value for key, value in was.items())

    def _begin(self, key: str, value: str) -> None:
        self._pending[key] = {
            operation.key: operation.value if isinstance(operation, Put) else None
            for operation in Intent.decode(key, value, 0).was
            if operation.key.startswith(_OBJECTS)
        }

    def _record(self, key: str, value: str | None) -> None:
        if value is None:
            self._recorded.pop(key, None)
        else:
            self._recorded[key] = loads(key, value)

    def _settle(self, keys: Iterable[str]) -> list[_What]:
        held = {key for keys in self._pending.values() for key in keys}
        return self._settled.update({key: self._recorded.get(key) for key in keys if key not in held})

    def _told(self, events: Iterable[_Fields]) -> Iterator[_What]:
        for fields in events:
            try:
                kind = EventKind(fields["kind"])
            except ValueError:
                continue  # of a newer version
            yield kind, self._settled.names(fields.get("scope")) | {"details": tuple(fields["details"])}


class _Settled:
    """The objects as they are on the host, and what of them depends on each other."""

    def __init__(self) -> None:
        self._objects: dict[str, _Fields] = {}
        self._keys: dict[str, str] = {}  # endpoint id to key: that has the network's id in it
        self._members: dict[str, set[str]] = {}  # sandbox id to ids of its endpoints
        self._ports: dict[str, dict[str, str]] = {}  # endpoint id to key and text of what it publishes

    def update(self, new: Mapping[str, _Fields | None]) -> list[_What]:
        """Let *new* be so from now on, None for what is gone; return what happened by that."""
        old = {key: self._objects.get(key) for key in new}
        affected = sorted(self._affected(new))
        before = {endpoint: self._published(endpoint) for endpoint in affected}
        for key, fields in new.items():
            self._put(key, fields)
        affected = sorted({*affected, *self._affected(new)})
        found: list[_What] = []
        for key, fields in new.items():
            found += self._object(key, old[key], fields, old)
        for endpoint in affected:
            found += self._port_events(endpoint, before.get(endpoint, {}), old)
        return sorted(found, key=lambda what: _ORDER[what[0]])

    def names(self, scope: str | None) -> dict[str, str | None]:
        """Return which objects a scope of plans is about."""
        word, _, identity = (scope or "").partition("/")
        identity = identity.partition("/")[0]
        if word in {"network", "sandbox"}:
            return self._named(word, identity, {})
        if word in {"join", "port"}:
            return self._endpoint_names(identity, {})
        return {}

    def _put(self, key: str, fields: _Fields | None) -> None:
        word, identity = _identity(key)
        was = self._objects.pop(key, None)
        if fields is not None:
            self._objects[key] = fields
        if word == "endpoint":
            if was is not None and was.get("sandbox"):
                self._members[was["sandbox"]].discard(identity)
            self._keys.pop(identity, None)
            if fields is not None:
                self._keys[identity] = key
                if fields.get("sandbox"):
                    self._members.setdefault(fields["sandbox"], set()).add(identity)
        elif word == "port":
            ports = self._ports.setdefault(key.split("/")[1], {})
            ports.pop(key, None)
            if fields is not None:
                ports[key] = str(PortBinding(**fields["binding"]))
            if not ports:
                del self._ports[key.split("/")[1]]
        elif word == "sandbox" and fields is None:
            self._members.pop(identity, None)

    def _affected(self, keys: Iterable[str]) -> set[str]:
        """Return the endpoints whose ports may come into force, or go out of it, by changes of *keys*."""
        found: set[str] = set()
        for key in keys:
            word, identity = _identity(key)
            if word == "endpoint":
                found.add(identity)
            elif word == "port":
                found.add(key.split("/")[1])
            elif word == "sandbox":
                found |= self._members.get(identity, set())
        return found

    def _published(self, endpoint: str) -> dict[str, str]:
        """Return what the endpoint publishes that is in force: it is joined, and has a namespace."""
        fields = self._objects.get(self._keys.get(endpoint, ""))
        sandbox = None if fields is None else self._objects.get(f"sandbox/{fields.get('sandbox')}")
        if sandbox is None or not sandbox.get("attached", True):
            return {}
        return dict(self._ports.get(endpoint, {}))

    def _port_events(
        self, endpoint: str, before: Mapping[str, str], old: Mapping[str, _Fields | None]
    ) -> Iterator[_What]:
        after = self._published(endpoint)
        for key, port in before.items():
            if after.get(key) != port:
                names = self._endpoint_names(endpoint, old, as_it_was=True)
                yield EventKind.PORT_UNPUBLISHED, names | {"port": port}
        for key, port in after.items():
            if before.get(key) != port:
                yield EventKind.PORT_PUBLISHED, self._endpoint_names(endpoint, old) | {"port": port}

    def _object(
        self, key: str, was: _Fields | None, now: _Fields | None, old: Mapping[str, _Fields | None]
    ) -> Iterator[_What]:
        word, identity = _identity(key)
        if word == "port" or was == now or (now or was or {}).get("system"):
            return
        names = (
            self._endpoint_names(identity, old) if word == "endpoint" else self._named(word, identity, old)
        )
        alone = names | {"sandbox": None, "sandbox_id": None} if word == "endpoint" else names
        if was is None:
            yield EventKind(f"{word}.created"), alone
        elif now is None:
            yield EventKind(f"{word}.deleted"), alone
        elif was["name"] != now["name"]:
            yield EventKind(f"{word}.renamed"), names | {"old_name": was["name"]}
        if word == "endpoint":
            yield from self._membership(alone, was, now, old)
        elif word == "sandbox" and was is not None and now is not None:
            yield from self._attachment(names, was, now)

    def _membership(
        self,
        names: dict[str, Any],
        was: _Fields | None,
        now: _Fields | None,
        old: Mapping[str, _Fields | None],
    ) -> Iterator[_What]:
        left, joined = (None if fields is None else fields.get("sandbox") for fields in (was, now))
        if left == joined:
            return
        if left is not None:
            yield EventKind.ENDPOINT_LEFT, names | self._named("sandbox", left, old)
        if joined is not None:
            yield EventKind.ENDPOINT_JOINED, names | self._named("sandbox", joined, old)

    @staticmethod
    def _attachment(names: dict[str, Any], was: _Fields, now: _Fields) -> Iterator[_What]:
        before, after = (fields.get("attached", True) and fields.get("netns") for fields in (was, now))
        if before and not after:
            yield EventKind.SANDBOX_DETACHED, names
        elif after and before != after:
            yield EventKind.SANDBOX_ATTACHED, names

    def _named(self, word: str, identity: str, old: Mapping[str, _Fields | None]) -> dict[str, str | None]:
        key = f"{word}/{identity}"
        fields = self._objects.get(key) or old.get(key) or {}
        return {word: fields.get("name"), f"{word}_id": identity}

    def _endpoint_names(
        self, identity: str, old: Mapping[str, _Fields | None], *, as_it_was: bool = False
    ) -> dict[str, str | None]:
        now = self._objects.get(self._keys.get(identity, ""))
        was = next(
            (f for key, f in old.items() if key.startswith("endpoint/") and key.endswith(identity)), None
        )
        fields = ((was or now) if as_it_was else (now or was)) or {}
        sandbox, network = fields.get("sandbox"), fields.get("network")
        return {
            "endpoint": fields.get("name"),
            "endpoint_id": identity,
            **({} if network is None else self._named("network", network, old)),
            **({} if sandbox is None else self._named("sandbox", sandbox, old)),
        }


def _begins(values: Mapping[str, str | None]) -> bool:
    """Whether a request is written ahead: then those that end along were done before."""
    return any(key.startswith(_JOURNAL) and value is not None for key, value in values.items())


def _identity(key: str) -> tuple[str, str]:
    """Return the first and the last word of a key."""
    word, _, rest = key.partition("/")
    return word, rest.rpartition("/")[2]
