"""Making a network of a cluster: its subnets, MTU and VNI are chosen, then it is entered at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.cluster.layout import HOSTS, NETS, HostRecord, read
from pynetwork.errors import ConflictError, ExhaustedError, InvalidValueError, StoreError
from pynetwork.ipam import DefaultIpam, DefaultPool, PoolRequest, ula_prefix
from pynetwork.ipam.default import DEFAULT_SPACES
from pynetwork.peers import Underlay
from pynetwork.specs import NetworkSpec, Subnet
from pynetwork.store import PrefixUnchanged
from pynetwork.types import CLUSTER_SPACE, Scope, new_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.cluster.config import Cluster
    from pynetwork.cluster.ledger import Ledger
    from pynetwork.core import Surroundings
    from pynetwork.records import AnyNetworkSpec
    from pynetwork.requests.network import NetworkRequest
    from pynetwork.store import Compare

__all__ = ["NetworkMaker"]

_SPACE: Final = Scope.GLOBAL.value
_BUSY_SECONDS: Final = 30.0


@attrs.frozen
class NetworkMaker:
    """
    Makes networks.

    Args:
        ledger: Where they are entered.
        config: What is known of the cluster.
        underlay: How this host reaches the others.
        surroundings: Random numbers, the clock, the host's own networks.
    """

    ledger: Ledger
    config: Cluster
    underlay: Underlay
    surroundings: Surroundings

    def make(self, request: NetworkRequest) -> AnyNetworkSpec:
        """
        Make the network that is asked for, and enter it.

        Raises:
            InvalidValueError: It cannot be had in a cluster.
            ConflictError: Its name or VNI is in use.
            ExhaustedError: No subnet or no VNI is free.
            StoreError: The store does not answer; whether it was made shows when it is back.
        """
        if request.ipam != "default":
            msg = f"invalid ipam {request.ipam!r}: addresses of networks that span hosts are the cluster's"
            raise InvalidValueError(msg)
        deadline = time.monotonic() + _BUSY_SECONDS
        chosen = request.auto or any(subnet.is_size_only for subnet in request.subnets)
        room = self._room()
        taken: set[int] = set()
        while True:
            others, revision = self.ledger.networks() if chosen else ([], 0)
            spec = self._choose(request, others, taken, room)
            compares: list[Compare] = [PrefixUnchanged(NETS, revision)] if chosen else []
            if self.ledger.add_network(spec, spec.options.vni, compares):
                return spec
            self._check_free(request)
            taken = self.ledger.vnis()
            if time.monotonic() > deadline:
                msg = f"cannot create network {request.name!r}: others make networks all the time"
                raise StoreError(msg)

    def _check_free(self, request: NetworkRequest) -> None:
        """Say so if what was asked for is another's."""
        if self.ledger.named(request.name) is not None:
            msg = f"network with name {request.name!r} already exists, on this host or another"
            raise ConflictError(msg)
        wanted = getattr(request.options, "vni", None)
        holder = None if wanted is None else self.ledger.of_vni(wanted)
        if holder is not None:
            msg = f"cannot create network {request.name!r}: VNI {wanted} is of network {holder!r}"
            raise ConflictError(msg)

    def _choose(
        self, request: NetworkRequest, others: list[AnyNetworkSpec], taken: set[int], room: int
    ) -> AnyNetworkSpec:
        identity = new_id(self.surroundings.random)
        options: Any = request.options
        spec: AnyNetworkSpec = NetworkSpec(
            id=identity,
            name=request.name,
            driver=request.driver.name,
            options=attrs.evolve(
                options,
                vni=self._vni(request.name, taken) if options.vni is None else options.vni,
                mtu=room if options.mtu is None else options.mtu,
            ),
            subnets=self._subnets(request, identity, others),
            space=CLUSTER_SPACE,
            internal=request.internal,
            host_gateway=request.driver.capabilities.host_gateway and not request.internal,
            dns=request.dns,
            labels=request.labels,
            created=self.surroundings.clock(),
        )
        request.driver.network_plan(spec)  # this host can have a part in it, or says why not
        return spec

    def _vni(self, name: str, taken: set[int]) -> int:
        """Return a VNI that is not known to be taken."""
        first, last = self.config.vnis
        size = last - first + 1
        start = self.surroundings.random.randrange(size)
        for step in range(size):
            vni = first + (start + step) % size
            if vni not in taken:
                return vni
        msg = f"cannot create network {name!r}: all VNIs from {first} to {last} are taken"
        raise ExhaustedError(msg)

    def _room(self) -> int:
        """Return the largest MTU that all hosts have room for."""
        records = [read(HostRecord, entry) for entry in self.ledger.store.list(HOSTS).entries]
        hosts = [Underlay(vtep=record.vtep, mtu=record.mtu, port=record.port) for record in records]
        return min(each.room for each in (self.underlay, *hosts))

    def _subnets(
        self, request: NetworkRequest, identity: str, others: Iterable[AnyNetworkSpec]
    ) -> tuple[Subnet, ...]:
        """Return the subnets with their gateways; those that are chosen overlap nobody's."""
        taken = [subnet.network for other in others for subnet in other.subnets]
        exclude = (*taken, *self.surroundings.host_networks())
        pools = (*DEFAULT_SPACES[_SPACE], DefaultPool(base=ula_prefix(identity.encode()), size=64))
        ipam = DefaultIpam(spaces={_SPACE: pools}, quarantine=0.0)
        found: list[Subnet] = []
        for asked in (*request.subnets, *(None for _ in request.auto)):
            version = 4 if asked is not None else request.auto[len(found) - len(request.subnets)]
            pool = ipam.request_pool(
                PoolRequest(
                    space=_SPACE,
                    subnet=None if asked is None else asked.network,
                    sub_pool=None if asked is None else asked.sub_pool,
                    version=version,
                    exclude=exclude,
                )
            )
            auxiliary = {} if asked is None else dict(asked.auxiliary)
            for address in auxiliary.values():
                ipam.request_address(pool, preferred=address)
            gateway = ipam.request_address(pool, preferred=None if asked is None else asked.gateway).ip
            found.append(Subnet(pool.subnet, gateway=gateway, sub_pool=pool.sub_pool, auxiliary=auxiliary))
        return tuple(found)
