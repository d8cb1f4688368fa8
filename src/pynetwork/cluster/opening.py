"""Putting a controller into its cluster: the driver that needs to know of it, and what acts there."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from pynetwork.cluster.agent import Agent
from pynetwork.cluster.datapaths import choose, remember
from pynetwork.cluster.layout import HostRecord
from pynetwork.cluster.ledger import Ledger
from pynetwork.cluster.member import Member
from pynetwork.cluster.reaper import Reaper
from pynetwork.cluster.span import Span
from pynetwork.cluster.worker import Worker
from pynetwork.drivers.overlay import OverlayDriver
from pynetwork.drivers.overlay_ovs import OvsDatapath
from pynetwork.errors import PynetworkError, StoreError, UnavailableError
from pynetwork.log import logger
from pynetwork.requests.common import driver_of, network_scope
from pynetwork.requests.network import replan_network
from pynetwork.resources import OvsBridge
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import ExitStack

    from pynetwork.cluster.config import Cluster
    from pynetwork.core import Core
    from pynetwork.drivers.overlay import Datapath
    from pynetwork.engine import Draft
    from pynetwork.kernel.port import Kernel
    from pynetwork.peers import Underlay
    from pynetwork.records import AnyDriver
    from pynetwork.store import Store

__all__ = ["ClusterOpening"]


@attrs.frozen
class ClusterOpening:
    """
    How a controller gets into its cluster.

    Args:
        config: What it was told.
        underlay: How its host reaches the others.
        datapath: What forwards on its host.
    """

    config: Cluster
    underlay: Underlay
    datapath: Datapath

    @classmethod
    def on(
        cls, config: Cluster, kernel: Kernel, drivers: Iterable[AnyDriver], store: Store
    ) -> ClusterOpening:
        """
        Look at the host.

        Args:
            config: What the controller was told.
            kernel: The host.
            drivers: The caller's own drivers: a bridge driver among them says where our rules come.
            store: The host's own.

        Raises:
            UnavailableError: It has no such address as is given, or none that others could send to, or not
                the datapath that is asked for.
        """
        look = getattr(kernel, "underlay", None)
        if look is None or not hasattr(kernel, "peers"):
            msg = f"{kernel!r} cannot be in a cluster: it has no underlay and peers"
            raise UnavailableError(msg)
        underlay = attrs.evolve(look(config.vtep), port=config.vxlan_port)
        bridges = (driver for driver in drivers if getattr(driver, "name", None) == "bridge")
        priority = getattr(next(bridges, None), "firewall_priority", 0)
        datapath = choose(config.datapath, kernel, underlay.link, store, firewall_priority=priority)
        return cls(config, underlay, datapath)

    def drivers(self, given: Iterable[AnyDriver]) -> tuple[AnyDriver, ...]:
        """Return *given* and the overlay driver, unless the caller has an own one."""
        given = tuple(given)
        if any(getattr(driver, "name", None) == OverlayDriver.name for driver in given):
            return given
        return (*given, OverlayDriver(self.underlay, self.datapath))

    def open(
        self,
        core: Core,
        kernel: Kernel,
        stack: ExitStack,
        repair: Callable[[], object],
        mend: Callable[[], object],
    ) -> Span:
        """
        Enter the cluster.

        Args:
            core: The controller's instance, which knows of the cluster from now on.
            kernel: The host.
            stack: Gets what is to be called when the controller is closed.
            repair: Makes the host what the records say.
            mend: Does so if a cheap look finds that something is missing; raises nothing.

        Raises:
            ConflictError: Another host has this one's name, or the cluster another UDP port; or the host
                gets another datapath, and has endpoints on the one it had.
            InvalidValueError: The store of the cluster cannot be opened as it is described.
        """
        remember(core, self.datapath)
        config = self.config
        store = config.store
        if callable(store):
            store = store()
            stack.callback(store.close)
        ledger = Ledger(store, core.drivers, config.host)
        record = HostRecord(
            instance=core.instance,
            vtep=str(self.underlay.vtep),
            mtu=self.underlay.mtu,
            port=self.underlay.port,
            datapath=self.datapath.name,
        )
        member = Member(store, config.host, record, config.ttl)
        span = Span(core, config, ledger, self.underlay, self.datapath.name)
        core.span = span
        bridge = getattr(self.datapath, "bridge", None)
        peers = kernel.peers(bridge)  # type: ignore[attr-defined]  # checked when the host was looked at
        reaper = Reaper(ledger, config.grace, core.surroundings.clock)
        span.worker = Worker(
            core=core,
            ledger=ledger,
            member=member,
            reaper=reaper,
            peers=peers,
            underlay=self.underlay,
            is_being_made=span.is_being_made,
            mend=mend,
        )
        self._renew(core)
        if config.agent:
            span.agent = Agent(span.worker, store, core.surroundings.random)
            stack.callback(span.close)
            span.agent.start()
            self._watch(core, kernel, stack, repair)
        else:
            with suppress(StoreError):  # said when something is asked of it
                member.check()
        return span

    @staticmethod
    def _renew(core: Core) -> None:
        """Have the networks on this host as they would be made now: its address may be another one."""
        with core.reading() as records:
            specs = [row.spec for row in records.networks.values() if row.spec.space == CLUSTER_SPACE]
        for spec in specs:
            try:
                plan = driver_of(core, spec).network_plan(spec)
                with core.reading():
                    is_renewed = core.engine.world.plan(network_scope(spec.id)) != plan
                if is_renewed:
                    core.engine.request(partial(_replan, core, spec.id))
                    logger().info("network %r was renewed on this host, which is not as it was", spec.name)
            except PynetworkError as error:
                logger().warning("network %r cannot be had on this host as it is now: %s", spec.name, error)

    def _watch(self, core: Core, kernel: Kernel, stack: ExitStack, repair: Callable[[], object]) -> None:
        """Have all of ours put back when a switch loses it: started, started anew, or given a controller."""
        find, datapath = getattr(kernel, "switch", None), self.datapath
        if find is None or not isinstance(datapath, OvsDatapath):
            return
        switch = find()

        def is_wanted() -> bool:
            with core.engine.mirror.lock:
                return core.engine.world.is_wanted(OvsBridge(name=datapath.bridge).key)

        def restore() -> bool:
            try:
                self._renew(core)
                logger().info("Open vSwitch had lost all that is ours: %s", repair())
            except PynetworkError as error:
                logger().warning("Open vSwitch had lost all that is ours, and not all is back: %s", error)
            return not switch.reason()

        stack.callback(switch.watch(datapath.bridge, restore, is_wanted).close)


def _replan(core: Core, identity: str, draft: Draft) -> None:
    replan_network(core, draft, identity)
