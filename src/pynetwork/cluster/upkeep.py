"""What an agent does now and then: which process of a host it is in, and what was left half-done."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from pynetwork.cluster.layout import Holding
from pynetwork.cluster.renaming import follow_endpoint, follow_names
from pynetwork.errors import ConflictError, NotFoundError, UnavailableError
from pynetwork.log import logger
from pynetwork.requests.network import delete_network
from pynetwork.store import Absent, Put, Unchanged
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pynetwork.cluster.ledger import Ledger
    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.specs import EndpointSpec

__all__ = ["regain_all", "stand_down", "stand_up", "tidy"]

_AGENT: Final = "meta/agent"  # in this host's own store: the process whose agent is at work
_NOBODY: Final = "nobody"


def stand_up(core: Core) -> bool:
    """
    Be the one agent of this host, unless another live process is; returns whether it is.

    The host's own store says which, whatever forwards there: a lock of OVSDB, or one of a file, would know
    of another set of processes than the one whose records the agent works by.
    """
    engine = core.engine
    owner, store = engine.journal.owner, engine.mirror.store
    entry = store.get(_AGENT)
    if entry is not None and entry.value == owner:
        return True
    if entry is not None and entry.value != _NOBODY and engine.is_alive(entry.value):
        return False
    compare = Absent(_AGENT) if entry is None else Unchanged(_AGENT, entry.revision)
    return store.transact([compare], [Put(_AGENT, owner)]) is not None


def stand_down(core: Core) -> None:
    """Leave the work to another process of this host."""
    store = core.engine.mirror.store
    entry = store.get(_AGENT)
    if entry is not None and entry.value == core.engine.journal.owner:
        store.transact([Unchanged(_AGENT, entry.revision)], [Put(_AGENT, _NOBODY)])


def regain_all(core: Core, ledger: Ledger, is_being_made: Callable[[str], bool]) -> Iterator[str]:
    """
    Enter again what endpoints of this host had and lost, because it was taken for gone.

    Args:
        core: The instance.
        ledger: The books.
        is_being_made: Whether this process is about to make the endpoint of an id.

    Returns:
        Ids of those that cannot have it again: others have it by now, or their network is gone.
    """
    held = {holding.endpoint for holding in ledger.holdings()}
    for spec in _of_cluster(core):
        if spec.id in held or is_being_made(spec.id):
            continue
        holding = Holding(
            endpoint=spec.id,
            network=spec.network,
            host=ledger.host,
            owner=core.engine.journal.owner,
            name=spec.name,
            addresses=[address.ip for address in spec.addresses],
            mac=spec.mac,
        )
        if not ledger.regain(holding):
            logger().warning(
                "endpoint %r (%s) is in quarantine: others have its name or addresses by now, or its network "
                "is gone",
                spec.name,
                ", ".join(map(str, spec.addresses)),
            )
            yield spec.id


def tidy(core: Core, ledger: Ledger, is_being_made: Callable[[str], bool], called: Mapping[str, str]) -> None:
    """
    Strike out what is of endpoints that were never made, follow names, take off networks without any.

    Args:
        core: The instance.
        ledger: The books.
        is_being_made: Whether this process is about to make the endpoint of an id.
        called: What the agent was told that networks are called, by their ids.
    """
    engine = core.engine
    for holding in ledger.holdings():
        is_ours = holding.owner == engine.journal.owner
        if is_being_made(holding.endpoint) or (not is_ours and engine.is_alive(holding.owner)):
            continue
        with core.reading() as records:
            is_here = holding.endpoint in records.endpoints
        if is_here:
            follow_endpoint(core, holding)
        else:
            logger().info("endpoint %r is not there: what it has is free", holding.name)
            ledger.release(holding.endpoint)
    with core.reading() as records:
        wrong = [
            identity
            for identity, row in records.networks.items()
            if row.spec.space == CLUSTER_SPACE and called.get(identity, row.spec.name) != row.spec.name
        ]
    # It came here under a name that it had, or that was another's; or this host is ahead of what it was told.
    rows = [row for identity in wrong if (row := ledger.network(identity)) is not None]
    follow_names(core, {row.spec.id: row.spec.name for row in rows})
    with core.reading() as records:
        used = {row.spec.network for row in records.endpoints.values()}
        unused = [
            identity
            for identity, row in records.networks.items()
            if row.spec.space == CLUSTER_SPACE and identity not in used
        ]
    for identity in unused:
        with suppress(ConflictError, NotFoundError, UnavailableError):  # used after all, or gone; or away
            engine.request(partial(_take_off, core, identity))


def _take_off(core: Core, identity: str, draft: Draft) -> None:
    delete_network(core, draft, identity)


def _of_cluster(core: Core) -> list[EndpointSpec]:
    """Return the endpoints of this host that are in networks of the cluster."""
    with core.reading() as records:
        return [
            row.spec
            for row in records.endpoints.values()
            if core.network(row.spec.network).spec.space == CLUSTER_SPACE
        ]
