"""Drafting a network: its subnets, its bridge, its end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from pynetwork.errors import ConflictError, InvalidValueError, UnavailableError, UnknownDriverError
from pynetwork.ipam import PoolRequest
from pynetwork.plan import Plan
from pynetwork.records import make_options, record
from pynetwork.requests.common import driver_of, network_scope, pool_of
from pynetwork.specs import NetworkSpec, Subnet
from pynetwork.store import Delete, PrefixUnchanged, Put
from pynetwork.types import (
    CLUSTER_SPACE,
    Scope,
    check_flag,
    check_labels,
    check_name,
    new_id,
    parse_address,
    parse_each,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.core import Core
    from pynetwork.drivers import Driver
    from pynetwork.engine import Draft
    from pynetwork.ipam import Pool
    from pynetwork.records import AnyNetworkSpec, Row
    from pynetwork.types import IPAddress, IPNetwork

__all__ = ["NetworkRequest", "adopt_network", "delete_network", "replan_network"]

#: Lock of all requests that make or delete a network: two may want the same bridge.
_NETWORKS = "networks"


@attrs.frozen(kw_only=True)
class NetworkRequest:
    """
    The arguments of :meth:`Controller.new_network`, and how a network is made of them.

    Everything that does not depend on other objects is checked by :meth:`parse`.

    Args:
        driver: Its driver.
        name: Its name.
        subnets: Those given.
        auto: Address families, 4 and 6, that a subnet is to be chosen for.
        options: The driver's own.
        ipam: Name of the IPAM driver.
        internal: No way out.
        dns: Name servers of its sandboxes.
        labels: The caller's.
        avoid: What a subnet that is chosen must not overlap, besides what the host has.
    """

    driver: Driver[Any]
    name: str
    subnets: tuple[Subnet, ...]
    auto: tuple[int, ...]
    options: object
    ipam: str
    internal: bool
    dns: tuple[IPAddress, ...]
    labels: Mapping[str, str]
    avoid: tuple[IPNetwork, ...] = ()

    @classmethod
    def parse(
        cls,
        core: Core,
        driver: str,
        name: str,
        *,
        subnets: Iterable[object] = (),
        ipv4: bool | None = None,
        ipv6: bool | None = None,
        options: object = None,
        ipam: str = "default",
        internal: bool = False,
        dns: Iterable[object] = (),
        labels: Mapping[str, str] | None = None,
    ) -> NetworkRequest:
        """Check the arguments of ``new_network``."""
        check_name("network", name)
        if driver == "overlay" and core.span is None:
            raise _without_cluster(driver)
        plugin = core.drivers[driver]
        if plugin.capabilities.scope is Scope.GLOBAL and core.span is None:
            raise _without_cluster(driver)
        given = parse_each("subnets", subnets, Subnet.parse)
        for word, flag in (("ipv4", ipv4), ("ipv6", ipv6)):
            if flag is not None:
                check_flag(word, flag)
        _check_subnets(plugin, given, {4: ipv4, 6: ipv6})
        return cls(
            driver=plugin,
            name=name,
            subnets=given,
            auto=_automatic(plugin, given, {4: ipv4, 6: ipv6}),
            options=make_options(plugin, options, core.defaults.get(driver)),
            ipam=ipam,
            internal=check_flag("internal", internal),
            dns=parse_each("name servers", dns, _server),
            labels=check_labels({} if labels is None else labels),
        )

    def build(self, core: Core, draft: Draft) -> str:
        """Draft the network; returns its id."""
        draft.what = f"create network {self.name!r}"
        if core.records.named("network", self.name) is not None:
            msg = f"network with name {self.name!r} already exists"
            raise ConflictError(msg)
        self._check_singleton(core)
        identity = new_id(core.surroundings.random)
        if self.driver.capabilities.singleton:
            draft.reserve(Put(f"only/{self.driver.name}", identity))
        draft.reserve(Put(f"name/network/{self.name}", identity))
        self._build(core, draft, identity)
        return identity

    def build_gateway(self, core: Core, draft: Draft) -> None:
        """Draft that it is the host's gateway network, of which there is one; its name is not taken."""
        self._build(core, draft, core.instance, system=True)

    def _build(self, core: Core, draft: Draft, identity: str, *, system: bool = False) -> None:
        spec: AnyNetworkSpec = NetworkSpec(
            id=identity,
            name=self.name,
            driver=self.driver.name,
            options=self.options,
            ipam=self.ipam,
            internal=self.internal,
            system=system,
            dns=self.dns,
            labels=self.labels,
            created=core.surroundings.clock(),
        )
        pools = self._pools(core, draft)
        spec = attrs.evolve(
            spec,
            space=pools[0].space if pools else spec.space,
            subnets=tuple(
                self._addresses(core, draft, *pair) for pair in zip(pools, self._asked, strict=True)
            ),
        )
        draft.locks.add(_NETWORKS)
        draft.plans[network_scope(spec.id)] = self.driver.network_plan(spec)
        draft.reserve(record(f"network/{spec.id}", spec))

    def _check_singleton(self, core: Core) -> None:
        if self.driver.capabilities.singleton and any(
            row.spec.driver == self.driver.name for row in core.records.networks.values()
        ):
            msg = f"only one instance of {self.driver.name!r} network is allowed"
            raise ConflictError(msg)

    @property
    def is_global(self) -> bool:
        """Whether it spans hosts."""
        return self.driver.capabilities.scope is Scope.GLOBAL

    @property
    def _asked(self) -> tuple[Subnet | None, ...]:
        return (*self.subnets, *(None for _ in self.auto))

    def _pools(self, core: Core, draft: Draft) -> list[Pool]:
        chosen = self.auto or any(subnet.is_size_only for subnet in self.subnets)
        request = partial(
            PoolRequest,
            space=self.driver.capabilities.scope,
            exclude=(*core.surroundings.host_networks(), *self.avoid) if chosen else (),
        )
        requests = [
            *(request(subnet=subnet.network, sub_pool=subnet.sub_pool) for subnet in self.subnets),
            *(request(version=version) for version in self.auto),
        ]
        return [core.allocations.request_pool(draft, self.ipam, item) for item in requests]

    def _addresses(self, core: Core, draft: Draft, pool: Pool, asked: Subnet | None) -> Subnet:
        """Take the addresses of a subnet that no endpoint may get; returns it with its gateway."""
        subnet = asked or Subnet(pool.subnet)
        if not pool.subnet.prefixlen:  # the null IPAM driver's: a network without addresses
            return Subnet(pool.subnet)
        request = partial(core.allocations.request_address, draft, self.ipam, pool)
        for address in subnet.auxiliary.values():
            request(preferred=address)
        gateway = request(preferred=subnet.gateway).ip
        auxiliary = dict(subnet.auxiliary)
        return Subnet(pool.subnet, gateway=gateway, sub_pool=subnet.sub_pool, auxiliary=auxiliary)


def _without_cluster(driver: str) -> UnavailableError:
    return UnavailableError(
        f"networks of type {driver!r} span hosts: that needs a cluster store, which there is none of; give "
        "the controller one with cluster=Cluster(...)"
    )


def _server(value: object) -> IPAddress:
    return parse_address(value, "address of a name server")


def _check_subnets(
    driver: Driver[Any], subnets: tuple[Subnet, ...], wanted: Mapping[int, bool | None]
) -> None:
    limit = driver.capabilities.max_subnets
    if subnets and not driver.capabilities.addressed:
        msg = f"networks of type {driver.name!r} have no subnets"
        raise InvalidValueError(msg)
    for version, flag in wanted.items():
        count = sum(subnet.version == version for subnet in subnets)
        if count and flag is False:
            msg = f"IPv{version} is switched off, but an IPv{version} subnet is given"
            raise InvalidValueError(msg)
        if count > limit:
            msg = f"driver {driver.name!r} supports {limit} IPv{version} subnet(s) a network, not {count}"
            raise InvalidValueError(msg)


def _automatic(
    driver: Driver[Any], subnets: tuple[Subnet, ...], wanted: Mapping[int, bool | None]
) -> tuple[int, ...]:
    """Return the families that a subnet is to be chosen for; IPv4 when nothing at all is said."""
    if not driver.capabilities.addressed:
        return ()
    given = {subnet.version for subnet in subnets}
    flags = {**wanted, 4: True} if not given and wanted[4] is None and not wanted[6] else wanted
    if not given and not any(flags.values()):
        msg = "IPv4 or IPv6 must be enabled"
        raise InvalidValueError(msg)
    return tuple(version for version, flag in flags.items() if flag and version not in given)


def _is_singleton(core: Core, driver: str) -> bool:
    try:
        return core.drivers[driver].capabilities.singleton
    except UnknownDriverError:
        return False  # uninstalled since; what it made is on record, and can be deleted without it


def adopt_network(core: Core, draft: Draft, spec: AnyNetworkSpec, avoid: Iterable[IPNetwork] = ()) -> None:
    """
    Draft that a network which spans hosts has its part on this one, too.

    The first one whose way out is the host's gateway network brings that along.

    Args:
        core: The instance.
        draft: To fill in.
        spec: The network, as it is in the store of the cluster.
        avoid: What a subnet of the gateway network must not overlap.
    """
    draft.what = f"bring network {spec.name!r} to this host"
    if core.records.named("network", spec.name) is not None:
        msg = f"network {spec.name!r} of the cluster cannot be had on this host: it has one of that name"
        raise ConflictError(msg)
    draft.locks.add(_NETWORKS)
    draft.reserve(Put(f"name/network/{spec.name}", spec.id))
    draft.plans[network_scope(spec.id)] = driver_of(core, spec).network_plan(spec)
    draft.reserve(record(f"network/{spec.id}", spec))
    if spec.host_gateway and core.instance not in core.records.networks:
        _gateway(core, (*avoid, *(subnet.network for subnet in spec.subnets))).build_gateway(core, draft)


def _gateway(core: Core, avoid: tuple[IPNetwork, ...]) -> NetworkRequest:
    """Return the host's gateway network, which lets none of its endpoints reach another."""
    driver = core.drivers["bridge"]
    return NetworkRequest(
        driver=driver,
        name="gateway",
        subnets=(),
        auto=(4, 6) if core.surroundings.host_files().ipv6 else (4,),
        options=make_options(driver, {"icc": False, "interface_prefix": "gw"}),
        ipam="default",
        internal=False,
        dns=(),
        labels={},
        avoid=avoid,
    )


def replan_network(core: Core, draft: Draft, identity: str) -> None:
    """
    Draft that a network is on this host as its driver would have it there now.

    Args:
        core: The instance.
        draft: To fill in.
        identity: The network's id.
    """
    row = core.network(identity)
    draft.what = f"renew network {row.spec.name!r} on this host"
    draft.locks.add(_NETWORKS)
    draft.rely_on(row.key, row.revision)
    draft.plans[network_scope(identity)] = driver_of(core, row.spec).network_plan(row.spec)


def delete_network(core: Core, draft: Draft, identity: str, *, force: bool = False) -> None:
    """
    Draft the end of a network.

    Args:
        core: The instance.
        draft: To fill in.
        identity: The network's id.
        force: Also of a type that always exists, once made.
    """
    row = core.network(identity)
    spec = row.spec
    draft.what = f"delete network {spec.name!r}"
    active = sorted(name for name, _ in core.records.names(f"endpoint/{identity}"))
    if active:
        msg = f"network {spec.name!r} has active endpoints: {', '.join(active)}"
        raise ConflictError(msg)
    singleton = _is_singleton(core, spec.driver)
    if singleton and not force:
        msg = f"network {spec.name!r} of type {spec.driver!r} cannot be deleted"
        raise ConflictError(msg)
    draft.finish = True
    draft.locks.add(_NETWORKS)
    draft.on_commit += (Delete(f"only/{spec.driver}"), Delete(f"name/network/{spec.name}"))
    _end(core, draft, row)
    gateway = core.records.networks.get(core.instance)
    if gateway is not None and spec.host_gateway:
        rest = (other.spec for other in core.records.networks.values() if other.key != row.key)
        if not any(other.host_gateway for other in rest):
            _end(core, draft, gateway)


def _end(core: Core, draft: Draft, row: Row[AnyNetworkSpec]) -> None:
    """Draft the end of a network without endpoints."""
    spec = row.spec
    draft.plans[network_scope(spec.id)] = Plan()
    draft.rely_on(row.key, row.revision)
    draft.compares.append(PrefixUnchanged(f"endpoint/{spec.id}/", core.engine.mirror.revision))
    for subnet in spec.subnets if spec.space != CLUSTER_SPACE else ():
        core.allocations.release_pool(draft, spec.ipam, pool_of(spec, subnet))
    draft.on_commit.append(Delete(row.key))
