"""What a controller does in its cluster: global books first, then the ordinary request of this host.

A network is in the books of the cluster, and on this host as long as that has endpoints of it. An
endpoint's name and addresses are entered before it is made, and struck out after it was deleted: if this
process dies in between, what is entered and not made is found, because nobody on this host knows of it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from pynetwork.cluster.choosing import Chooser, mac_for, network_numbers, wanted_in
from pynetwork.cluster.layout import Holding
from pynetwork.cluster.ledger import missing
from pynetwork.cluster.networks import NetworkMaker
from pynetwork.cluster.peer_view import lagging, peer_hosts
from pynetwork.cluster.renaming import follow_names, rename_endpoint_of_all, rename_network_of_all
from pynetwork.drivers.overlay import vni_of
from pynetwork.errors import ConflictError, InvalidValueError, NotFoundError, StoreError, UnavailableError
from pynetwork.ipam import Usage
from pynetwork.log import logger
from pynetwork.requests.endpoint import delete_endpoint
from pynetwork.requests.network import adopt_network, delete_network
from pynetwork.types import CLUSTER_SPACE, new_id, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.cluster.agent import Agent
    from pynetwork.cluster.config import Cluster
    from pynetwork.cluster.ledger import Ledger
    from pynetwork.cluster.peer_view import Lag
    from pynetwork.cluster.status import PeerHost
    from pynetwork.cluster.worker import Worker
    from pynetwork.core import Core
    from pynetwork.peers import Underlay
    from pynetwork.records import AnyNetworkSpec, Row
    from pynetwork.requests.endpoint import EndpointRequest
    from pynetwork.requests.network import NetworkRequest
    from pynetwork.types import IPAddress, IPNetwork

__all__ = ["Span"]

_TRIES = 1000


@attrs.define(eq=False)
class Span:
    """
    The cluster, for one controller.

    Args:
        core: The controller's own instance.
        config: What it was told of the cluster.
        ledger: The books.
        underlay: How this host reaches the others.
        datapath: Name of what forwards on this host.
        agent: What follows the others; None when that is somebody else's business.

    Attributes:
        worker: What the agent does, step by step.
    """

    core: Core
    config: Cluster
    ledger: Ledger
    underlay: Underlay
    datapath: str
    agent: Agent | None = None
    worker: Worker = attrs.field(init=False)
    _chooser: Chooser = attrs.field(init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _rows: dict[str, Row[AnyNetworkSpec]] = attrs.field(factory=dict, init=False)
    _being_made: set[str] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to choose where no other host does."""
        self._chooser = Chooser(self.config.host, self.core.surroundings.random)

    # Networks

    def is_global(self, network: str) -> bool:
        """Return whether a network is one of the cluster: all are that this host does not know."""
        row = self.core.records.networks.get(network)
        return row is None or row.spec.space == CLUSTER_SPACE

    def names(self) -> dict[str, str]:
        """Return the ids of all networks of the cluster by name; none when its store cannot be asked."""
        try:
            return self.ledger.names()
        except StoreError as error:
            logger().warning("networks of the cluster cannot be listed: %s", error)
            return {}

    def named(self, name: str) -> str | None:
        """Return the id of the network of the cluster that has a name, as :meth:`names` would."""
        try:
            return self.ledger.named(name)
        except StoreError as error:
            logger().warning("networks of the cluster cannot be looked up: %s", error)
            return None

    def network(self, identity: str) -> AnyNetworkSpec:
        """
        Return the network of that id, which has no part on this host.

        Raises:
            NotFoundError: It is in no book.
            StoreError: The store of the cluster does not answer.
        """
        row = self.ledger.network(identity)
        if row is None:
            raise missing(identity)
        return row.spec

    def new_network(self, request: NetworkRequest) -> str:
        """Make a network of the cluster; returns its id."""
        core = self.core
        with core.reading() as records:
            if records.named("network", request.name) is not None:
                msg = f"network with name {request.name!r} already exists"
                raise ConflictError(msg)
        maker = NetworkMaker(self.ledger, self.config, self.underlay, core.surroundings)
        return maker.make(request).id

    def delete_network(self, identity: str) -> None:
        """
        Delete a network of the cluster.

        Raises:
            ConflictError: It has endpoints, on this host or another.
            NotFoundError: It was deleted before.
        """
        for _ in range(_TRIES):
            row = self.ledger.network(identity)
            if row is None:
                self._drop(identity)
                raise missing(identity)
            names = self.ledger.names_in(identity)
            if names:
                msg = f"network {row.spec.name!r} has active endpoints: {', '.join(sorted(names))}"
                raise ConflictError(msg)
            self._drop(identity)
            if self.ledger.remove_network(row, vni_of(row.spec)):
                self._rows.pop(identity, None)
                return
        msg = f"cannot delete network {identity[:12]}: others change it all the time"
        raise ConflictError(msg)

    def rename_network(self, identity: str, name: str) -> None:
        """Give a network of the cluster another name."""
        rename_network_of_all(self.core, self.ledger, identity, name)
        self._rows.pop(identity, None)

    def usage(self, identity: str) -> dict[IPNetwork, Usage]:
        """Return how full each subnet of a network is, on all hosts together."""
        spec = self.network(identity)
        taken = list(map(parse_address, self.ledger.addresses_in(identity)))
        found = {}
        for subnet in spec.subnets:
            pool = subnet.sub_pool or subnet.network
            kept = {subnet.gateway, *subnet.auxiliary.values()} - {None}
            size = network_numbers(subnet)[1] - sum(address in pool for address in kept)
            found[subnet.network] = Usage(size=size, taken=sum(address in pool for address in taken))
        return found

    # Endpoints

    def create_endpoint(self, request: EndpointRequest) -> str:
        """Make an endpoint in a network of the cluster; returns its id."""
        if request.ports and (spec := self._row(request.network).spec).internal:
            msg = f"nothing can be published in network {spec.name!r}: it is internal"
            raise InvalidValueError(msg)
        identity = new_id(self.core.surroundings.random)
        self._being_made.add(identity)
        try:
            try:
                row, holding = self._hold(request, identity)
                chosen = attrs.evolve(
                    request, addresses=holding.addresses, mac=holding.mac, identity=identity
                )
                return self._on_this_host(row.spec, partial(chosen.build, self.core))
            except BaseException:
                self._let_go(identity)
                raise
        finally:
            self._being_made.discard(identity)

    def delete_endpoint(self, identity: str, *, force: bool) -> None:
        """Delete an endpoint, then strike out what it has."""
        core = self.core
        with core.reading():
            network = core.endpoint(identity).spec.network
        core.request(lambda draft: delete_endpoint(core, draft, identity, force=force))
        self._let_go(identity)
        self._drop(network)

    def rename_endpoint(self, identity: str, name: str) -> None:
        """Give an endpoint in a network of the cluster another name."""
        rename_endpoint_of_all(self.core, self.ledger, identity, name)

    def is_being_made(self, endpoint: str) -> bool:
        """Return whether this process is about to make an endpoint."""
        return endpoint in self._being_made

    # The rest

    def peers(self, network: str) -> tuple[PeerHost, ...]:
        """Return the other hosts of a network."""
        return peer_hosts(self.ledger, network, self.worker)

    def lagging(self) -> list[Lag]:
        """Return the hosts of which this host's datapath does not know all, if this process tells it."""
        return lagging(self.ledger, self.worker)

    def poke(self) -> None:
        """Have the agent look at what this host has."""
        if self.agent is not None:
            self.agent.poke()

    def repair(self) -> None:
        """Have the agent look at what this host forwards to others, too."""
        if self.agent is not None:
            self.agent.poke(repair=True)

    def close(self) -> None:
        """End the agent. What was announced stays so until the lease ends, or another agent takes it over."""
        if self.agent is not None:
            self.agent.close()

    def _row(self, identity: str, *, anew: bool = False) -> Row[AnyNetworkSpec]:
        row = None if anew else self._rows.get(identity)
        if row is None:
            row = self.ledger.network(identity)
            if row is None:
                self._rows.pop(identity, None)
                raise missing(identity)
            self._rows[identity] = row
        return row

    def _hold(self, request: EndpointRequest, identity: str) -> tuple[Row[AnyNetworkSpec], Holding]:
        """Enter what an endpoint shall have, chosen where it was not asked for."""
        row = self._row(request.network)
        taken: set[str] = set()
        mac = request.mac
        for _ in range(_TRIES):
            addresses = self._addresses(row.spec, request.addresses, taken)
            holding = Holding(
                endpoint=identity,
                network=row.spec.id,
                host=self.config.host,
                owner=self.core.engine.journal.owner,
                name=request.name,
                addresses=addresses,
                mac=mac or mac_for(addresses, self.core.surroundings.random),
            )
            if self.ledger.hold(row, holding):
                return row, holding
            row = self._row(request.network, anew=True)
            self._check_free(row.spec, holding, request)
            taken = self.ledger.addresses_in(row.spec.id)
            if request.mac is None and self.ledger.is_taken(holding.mac_key):
                # Of somebody who asked for it: the next one is another's for sure.
                mac = mac_for((), self.core.surroundings.random)
        msg = f"cannot create endpoint {request.name!r}: others take what is free, again and again"
        raise ConflictError(msg)

    def _addresses(
        self, network: AnyNetworkSpec, wanted: tuple[IPAddress, ...], taken: set[str]
    ) -> tuple[IPAddress, ...]:
        """Return an address of each family that the network has: the one asked for, or one likely free."""
        by_version: dict[int, IPAddress] = {}
        for address in wanted:
            wanted_in(network, address)
            if by_version.setdefault(address.version, address) is not address:
                msg = f"invalid addresses: an endpoint has one IPv{address.version} address"
                raise InvalidValueError(msg)
        versions = sorted({subnet.version for subnet in network.subnets})
        with self._lock:
            return tuple(
                by_version.get(version) or self._chooser.choose(network, version, taken)
                for version in versions
            )

    def _check_free(self, network: AnyNetworkSpec, holding: Holding, request: EndpointRequest) -> None:
        """Say so if what was asked for is another's."""
        if self.ledger.is_taken(holding.name_key):
            msg = (
                f"endpoint with name {request.name!r} already exists in network {network.name!r}, "
                "on this host or another"
            )
            raise ConflictError(msg)
        for address in request.addresses:
            if self.ledger.is_taken(holding.address_key(address)):
                msg = f"address {address} of network {network.name!r} is in use, on this host or another"
                raise ConflictError(msg)
        if request.mac is not None and self.ledger.is_taken(holding.mac_key):
            msg = f"MAC address {request.mac} is in use in network {network.name!r}, on this host or another"
            raise ConflictError(msg)

    def _on_this_host(self, network: AnyNetworkSpec, build: Callable[..., str]) -> str:
        """Carry out a request that needs the network on this host, which others may drop meanwhile."""
        core = self.core
        for _ in range(_TRIES):
            with core.reading() as records:
                is_here = network.id in records.networks
            try:
                if not is_here:
                    self._adopt(network)
                return core.request(build)
            except NotFoundError:
                continue  # another thread has dropped it since
        raise missing(network.id)

    def _adopt(self, network: AnyNetworkSpec) -> None:
        """Have a network on this host, unless another thread has it there."""
        core = self.core
        with core.reading() as records:
            is_first = network.host_gateway and core.instance not in records.networks
        # What the host's gateway network has must not be in the way of those that may yet come here.
        others = self.ledger.networks()[0] if is_first else ()
        avoid = [subnet.network for other in others for subnet in other.subnets]
        try:
            core.request(lambda draft: adopt_network(core, draft, network, avoid))
        except ConflictError:
            with core.reading() as records:
                is_taken = records.named("network", network.name) not in {None, network.id}
            # By one that has another name by now, maybe, and this host has not heard of it.
            if is_taken and not follow_names(core, {id_: name for name, id_ in self.names().items()}):
                raise

    def _let_go(self, endpoint: str) -> None:
        """Strike out what an endpoint has, now or, if the store does not answer, when the agent looks."""
        try:
            self.ledger.release(endpoint)
        except StoreError as error:
            logger().warning("what endpoint %s has in the cluster stays its own for now: %s", endpoint, error)

    def _drop(self, network: str) -> None:
        """Take a network off this host, unless that has endpoints of it."""
        core = self.core
        # It is needed still, or again; or gone already; or a switch that does not run has it.
        with suppress(ConflictError, NotFoundError, UnavailableError):
            core.request(lambda draft: delete_network(core, draft, network))
