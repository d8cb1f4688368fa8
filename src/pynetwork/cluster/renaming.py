"""Other names for networks of a cluster, and for endpoints in them.

The books come first, in one transaction: who has a name there has it. The records of hosts follow, those of
this one at once, those of others when their agents hear of it. What a dead process has left undone, or was
overtaken by another, is done by the next look of the agent at all names.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from pynetwork.cluster.layout import NAMES
from pynetwork.cluster.ledger import missing
from pynetwork.cluster.watching import Listed
from pynetwork.errors import ConflictError, NotFoundError, StoreError
from pynetwork.log import logger
from pynetwork.requests.renaming import rename_endpoint, rename_network
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetwork.cluster.layout import Holding
    from pynetwork.cluster.ledger import Ledger
    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.store import Change

__all__ = [
    "NetworkNames",
    "follow_endpoint",
    "follow_names",
    "rename_endpoint_of_all",
    "rename_network_of_all",
]

_TRIES: Final = 1000

#: Ids of networks, and what they shall be called.
Names: TypeAlias = list[tuple[str, str]]


class NetworkNames:
    """What all networks of the cluster are called, as far as this host was told."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}  # by name
        self._told: set[str] = set()  # ids of those that may have another name on this host since

    def take(self, news: Listed | Change) -> bool:
        """Take in what *news* says, if it is about names of networks; returns whether it is."""
        if isinstance(news, Listed):
            if news.network:
                return False
            self._ids = {entry.key.removeprefix(NAMES): entry.value for entry in news.snapshot.entries}
            self._told = set(self._ids.values())
            return True
        if not news.key.startswith(NAMES):
            return False
        name = news.key.removeprefix(NAMES)
        self._ids.pop(name, None)  # what is told last is last: a network may have its old name for a moment
        if news.value is not None:
            self._ids[name] = news.value
            self._told.add(news.value)
        return True

    def follow(self, core: Core) -> None:
        """
        Have networks on this host called as was told since, or could not be done before.

        No others: this host may be ahead of what it was told of them.
        """
        names = {identity: name for identity, name in self.by_id().items() if identity in self._told}
        follow_names(core, names)
        with core.reading() as records:
            rows = {identity: records.networks.get(identity) for identity in names}
        self._told = {i for i, row in rows.items() if row is not None and row.spec.name != names[i]}

    def by_id(self) -> dict[str, str]:
        """Return the names by the ids of networks."""
        return {identity: name for name, identity in self._ids.items()}


def rename_network_of_all(core: Core, ledger: Ledger, identity: str, name: str) -> None:
    """
    Give a network of the cluster another name, on all hosts.

    Raises:
        ConflictError: Another one has it, in the cluster or on this host alone.
        NotFoundError: There is no such network any more.
        StoreError: The store of the cluster does not answer.
    """
    with core.reading() as records:
        known = records.named("network", name)
        is_local = known is not None and records.networks[known].spec.space != CLUSTER_SPACE
    if is_local:
        msg = f"network with name {name!r} already exists on this host"
        raise ConflictError(msg)
    for _ in range(_TRIES):
        row = ledger.network(identity)
        if row is None:
            raise missing(identity)
        if row.spec.name == name or ledger.rename_network(row, attrs.evolve(row.spec, name=name)):
            follow_names(core, {identity: name})
            return
        if ledger.named(name) not in {None, identity}:
            msg = f"network with name {name!r} already exists in the cluster"
            raise ConflictError(msg)
    msg = f"cannot rename network {identity[:12]}: others change it all the time"
    raise ConflictError(msg)


def rename_endpoint_of_all(core: Core, ledger: Ledger, identity: str, name: str) -> None:
    """
    Give an endpoint of this host in a network of the cluster another name.

    Raises:
        ConflictError: Another one in its network has it, on this host or another; or it is in quarantine.
        NotFoundError: There is no such endpoint any more.
        StoreError: A store does not answer.
    """
    with core.reading():
        old = core.endpoint(identity).spec.name
    if old == name:
        return
    ledger.rename_endpoint(identity, name)
    try:
        core.request(partial(_rename_endpoint, core, identity, name))
    except BaseException:
        with suppress(ConflictError, NotFoundError, StoreError):  # else the agent brings the name here
            ledger.rename_endpoint(identity, old)
        raise


def follow_names(core: Core, names: Mapping[str, str]) -> bool:
    """
    Have networks of the cluster on this host called as they are there.

    Args:
        core: The instance.
        names: Of networks, by their ids: all, or some.

    Returns:
        Whether some have another name now.
    """
    with core.reading() as records:
        wrong = [
            (identity, names[identity])
            for identity, row in records.networks.items()
            if row.spec.space == CLUSTER_SPACE and names.get(identity, row.spec.name) != row.spec.name
        ]
    done = False
    while wrong:
        left, why = _rename_some(core, wrong)
        done |= len(left) < len(wrong)
        if len(left) == len(wrong) and not _step_aside(core, left):
            logger().warning("networks of the cluster keep names on this host that they had: %s", why)
            break
        wrong = left
    return done


def _rename_some(core: Core, wrong: Names) -> tuple[Names, ConflictError | None]:
    """Rename those of whose names nobody is in the way; return the others, and what is."""
    left, why = [], None
    for identity, name in wrong:
        try:
            core.request(partial(_rename_network, core, identity, name))
        except NotFoundError:
            continue  # it went meanwhile
        except ConflictError as error:
            left.append((identity, name))
            why = error
    return left, why


def _step_aside(core: Core, wrong: Names) -> bool:
    """Call one by its id for a moment, if they are in each other's way: two have exchanged their names."""
    ids = {identity for identity, _ in wrong}
    with core.reading() as records:
        blocking = next(
            (found for _, name in wrong if (found := records.named("network", name)) in ids), None
        )
    return blocking is not None and not _rename_some(core, [(blocking, blocking)])[0]


def follow_endpoint(core: Core, holding: Holding) -> None:
    """Have an endpoint of this host called as it is in the books, if a rename got no further."""
    with core.reading() as records:
        row = records.endpoints.get(holding.endpoint)
    if row is not None and row.spec.name != holding.name:
        with suppress(ConflictError, NotFoundError):
            core.request(partial(_rename_endpoint, core, holding.endpoint, holding.name))


# A request is called with its draft alone.


def _rename_network(core: Core, identity: str, name: str, draft: Draft) -> None:
    rename_network(core, draft, identity, name)


def _rename_endpoint(core: Core, identity: str, name: str, draft: Draft) -> None:
    rename_endpoint(core, draft, identity, name)
