"""The books of a cluster: networks, and what endpoints have in them; each entry one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pynetwork.cluster.layout import NETS, Holding, holdings_of, peer_key, read, write
from pynetwork.engine.codec import encode
from pynetwork.errors import ConflictError, NotFoundError
from pynetwork.records import network_row
from pynetwork.store import Absent, Delete, PrefixUnchanged, Put, Unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.drivers import Registry
    from pynetwork.records import AnyDriver, AnyNetworkSpec, Row
    from pynetwork.store import Compare, LeasingStore, Operation, Snapshot

__all__ = ["Ledger", "missing"]


@attrs.frozen
class Ledger:
    """
    Reads and writes the books.

    Args:
        store: Where they are.
        drivers: To read the options of networks.
        host: Name of this host.
    """

    store: LeasingStore
    drivers: Registry[AnyDriver]
    host: str

    # Networks

    def names(self) -> dict[str, str]:
        """Return the ids of all networks by name."""
        entries = self.store.list("names/").entries
        return {entry.key.partition("/")[2]: entry.value for entry in entries}

    def named(self, name: str) -> str | None:
        """Return the id of the network of that name."""
        entry = self.store.get(f"names/{name}")
        return None if entry is None else entry.value

    def network(self, identity: str) -> Row[AnyNetworkSpec] | None:
        """Return the network of that id, None when there is none."""
        entry = self.store.get(f"{NETS}{identity}")
        return None if entry is None else network_row(self.drivers, entry.key, entry.value, entry.revision)

    def networks(self) -> tuple[list[AnyNetworkSpec], int]:
        """Return all networks, and the revision of the store at which they were."""
        snapshot = self.store.list(NETS)
        rows = (network_row(self.drivers, e.key, e.value, e.revision) for e in snapshot.entries)
        return [row.spec for row in rows], snapshot.revision

    def vnis(self) -> set[int]:
        """Return the VNIs of all networks."""
        return {int(entry.key.partition("/")[2]) for entry in self.store.list("vni/").entries}

    def of_vni(self, vni: int) -> str | None:
        """Return the name of the network of that VNI; None when there is none."""
        entry = self.store.get(f"vni/{vni}")
        row = None if entry is None else self.network(entry.value)
        return None if row is None else row.spec.name

    def add_network(self, spec: AnyNetworkSpec, vni: int, compares: Sequence[Compare] = ()) -> bool:
        """
        Enter a network.

        Args:
            spec: The network.
            vni: Its VNI.
            compares: What must hold besides that its name and VNI are nobody's.

        Returns:
            Whether all of that held.
        """
        keys = (f"names/{spec.name}", f"vni/{vni}")
        network = f"{NETS}{spec.id}"
        absent: list[Compare] = [Absent(key) for key in (*keys, network)]
        return self._write(
            [*absent, *compares],
            [*(Put(key, spec.id) for key in keys), Put(network, encode(spec))],
        )

    def rename_network(self, row: Row[AnyNetworkSpec], spec: AnyNetworkSpec) -> bool:
        """Call a network what *spec* does; returns whether nobody has the name, and it is as it was."""
        name = f"names/{spec.name}"
        return self._write(
            [Unchanged(row.key, row.revision), Absent(name)],
            [Put(name, spec.id), Delete(f"names/{row.spec.name}"), row.replaced(spec)],
        )

    def remove_network(self, row: Row[AnyNetworkSpec], vni: int) -> bool:
        """Strike out a network, unless it has endpoints on any host or has changed; returns whether it is."""
        identity = row.spec.id
        ends = self.store.list(f"ends/{identity}/")
        if ends.entries:
            return False
        # Deletions are not seen by the second; whoever made an endpoint since has put its name.
        compares: list[Compare] = [Unchanged(row.key, row.revision)]
        compares.append(PrefixUnchanged(f"ends/{identity}/", ends.revision))
        return self._write(
            compares, [Delete(row.key), Delete(f"names/{row.spec.name}"), Delete(f"vni/{vni}")]
        )

    # Endpoints

    def names_in(self, network: str) -> list[str]:
        """Return the names of the endpoints of a network, on all hosts."""
        return [entry.key.rpartition("/")[2] for entry in self.store.list(f"ends/{network}/").entries]

    def addresses_in(self, network: str) -> set[str]:
        """Return the addresses of the endpoints of a network, on all hosts."""
        return {entry.key.rpartition("/")[2] for entry in self.store.list(f"ipam/{network}/").entries}

    def is_taken(self, key: str) -> bool:
        """Return whether somebody has what *key* stands for."""
        return self.store.get(key) is not None

    def hold(self, row: Row[AnyNetworkSpec], holding: Holding) -> bool:
        """
        Enter what an endpoint has, if none of it is anybody's.

        Returns:
            Whether it is entered. If not, something is another's, or the network changed or is gone.

        Raises:
            StoreError: The store does not answer: it may be entered or not.
        """
        claims = holding.claims
        compares: list[Compare] = [Unchanged(row.key, row.revision)]
        compares += (Absent(key) for key in (holding.key, *claims))
        puts = [*(Put(key, holding.endpoint) for key in claims), Put(holding.key, write(holding))]
        return self._write(compares, puts)

    def regain(self, holding: Holding) -> bool:
        """Enter again what an endpoint had, if none of it is anybody's by now; returns whether it is."""
        row = self.network(holding.network)
        return row is not None and self.hold(row, holding)

    def rename_endpoint(self, endpoint: str, name: str) -> None:
        """
        Enter another name of an endpoint of this host.

        Raises:
            ConflictError: Another one in its network has it, or this one has nothing in the books.
            StoreError: The store does not answer: it may be entered or not.
        """
        while True:
            entry = self.store.get(f"{holdings_of(self.host)}{endpoint}")
            if entry is None:
                msg = f"cannot rename endpoint {endpoint[:12]}: what it had is another's, or was struck out"
                raise ConflictError(msg)
            holding = read(Holding, entry)
            if holding.name == name:
                return
            new = attrs.evolve(holding, name=name)
            if self._write(
                [Unchanged(entry.key, entry.revision), Absent(new.name_key)],
                [Put(new.name_key, endpoint), Delete(holding.name_key), Put(new.key, write(new))],
            ):
                return
            if self.is_taken(new.name_key):
                msg = f"endpoint with name {name!r} already exists in its network, on this host or another"
                raise ConflictError(msg)

    def release(self, endpoint: str, host: str | None = None, *, compares: Sequence[Compare] = ()) -> bool:
        """
        Strike out all that an endpoint has, and that it is joined. One that has nothing is no error.

        Args:
            endpoint: Its id.
            host: Name of the host it is on; None for this one.
            compares: What must hold besides.

        Returns:
            Whether it has nothing any more.
        """
        while True:
            entry = self.store.get(f"{holdings_of(host or self.host)}{endpoint}")
            if entry is None:
                return True
            holding = read(Holding, entry)
            # Claims come and go with the holding: while that is unchanged, they are its own.
            keys = (holding.key, *holding.claims, peer_key(holding.network, endpoint))
            if self._write([Unchanged(entry.key, entry.revision), *compares], [Delete(k) for k in keys]):
                return True
            if compares:
                return False

    def holdings(self, host: str | None = None) -> list[Holding]:
        """Return what the endpoints of a host have, by default this one."""
        snapshot: Snapshot = self.store.list(holdings_of(host or self.host))
        return [read(Holding, entry) for entry in snapshot.entries]

    def _write(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> bool:
        return self.store.transact(compares, operations) is not None


def missing(identity: str) -> NotFoundError:
    """Return the error for a network that is in no book."""
    return NotFoundError(f"network {identity[:12]} does not exist: it was deleted")
